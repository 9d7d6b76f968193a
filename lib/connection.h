/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_CONNECTION_H
#define SHMB_LIB_CONNECTION_H

/* The client's end of a control connection: socket, handshake, sealed messages with their fds. */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/protocol.h>

#include "lib/session.h"

/**
 * struct shmb_connection - a connected socket and its keys
 * @fd:	     the socket, -1 if there is none
 * @listener: pidfd of the process that listens, -1 if unknown
 * @died:    that process was dead when the connection ended
 * @patient: no lanes wait for us, so there is time to find out whether that process dies
 * @socket_dev, @socket_inode: what had the address when we connected, as stat(2) has it; 0: unknown
 * @session: keys
 * @broker:  what the broker said of itself and of us
 * @packet:  buffer
 * @plain:   buffer; the last received message points into it
 */
struct shmb_connection {
	int fd;
	int listener;
	bool died;
	bool patient;
	uint64_t socket_dev;
	uint64_t socket_inode;
	struct shmb_session session;
	struct shmb_handshake_2_payload broker;
	_Alignas(8) uint8_t packet[SHMB_PACKET_LEN_MAX];
	_Alignas(8) uint8_t plain[SHMB_PACKET_LEN_MAX];
};

/**
 * struct shmb_received - a message and the fds that came with it
 * @message: points into the connection's buffer until the next receive
 * @fds:     @message.fd_count of them; the receiver takes those it wants and sets them to -1
 */
struct shmb_received {
	struct shmb_message message;
	int fds[SHMB_PACKET_FDS_MAX];
};

/**
 * shmb_connection_rouse() - make a service manager start the broker whose socket it holds
 * @address:	 path of the socket
 * @deadline_ns: when to give up
 *
 * Return: a socket that need only be closed once the broker is there; negative errno value with a
 *	   sentence.
 */
int shmb_connection_rouse(const char *address, uint64_t deadline_ns);

/**
 * shmb_connection_begin() - connect, and say who we are
 * @connection:	 filled
 * @address:	 path of the socket
 * @own:	 our key
 * @broker_key:	 the broker's public key
 * @label:	 for display, NUL-terminated
 * @deadline_ns: when to give up
 *
 * Return: 0; a negative errno value as of shmb_client_open(), with a sentence.
 */
int shmb_connection_begin(struct shmb_connection *connection, const char *address,
			  const struct shmb_noise_keypair *own,
			  const uint8_t broker_key[SHMB_KEY_LEN], const char *label,
			  uint64_t deadline_ns);

/* Has another socket got the address since, of a broker that has taken the place of this one? */
bool shmb_connection_is_elsewhere(const struct shmb_connection *connection, const char *address);

/**
 * shmb_connection_finish() - hear the broker's answer
 * @connection:	 begun
 * @allow_relay: accept a broker that sees another process than us
 * @deadline_ns: until when to wait for it; 0: only look
 *
 * Return: 0; -EAGAIN: no answer yet, ask again or close; a negative errno value as of
 *	   shmb_client_open(), with a sentence: the connection is closed.
 */
int shmb_connection_finish(struct shmb_connection *connection, int allow_relay,
			   uint64_t deadline_ns);

/**
 * shmb_connection_send() - seal and send one message; clients send no fds
 * @connection:	 open
 * @type:	 SHMB_MSG_*
 * @request_id:	 to find the reply by, 0: none
 * @body:	 @body_len bytes
 * @body_len:	 bytes
 * @deadline_ns: when to give up
 *
 * Return: 0; -ETIMEDOUT; -ENOTCONN and others: the connection is of no more use.
 */
int shmb_connection_send(struct shmb_connection *connection, uint32_t type, uint32_t request_id,
			 const void *body, uint32_t body_len, uint64_t deadline_ns);

/**
 * shmb_connection_receive() - receive and open one message
 * @connection:	 open
 * @received:	 filled
 * @deadline_ns: when to give up; 0: only look
 *
 * Return: 0; -EAGAIN: none in time; -ENOTCONN: the broker is gone; -EPROTO, -EBADMSG: it did not
 *	   keep to the protocol; -EMFILE: no fd was free for those that came; after all but -EAGAIN the connection is of no more use.
 */
int shmb_connection_receive(struct shmb_connection *connection, struct shmb_received *received,
			    uint64_t deadline_ns);

/* Closes the fds of a message that nobody has taken. */
void shmb_received_deinit(struct shmb_received *received);

/* Has the process that listens ended? The socket may not say so yet. */
bool shmb_connection_is_dead(const struct shmb_connection *connection);

/* Can nothing come any more but what is in the socket? */
bool shmb_connection_is_over(const struct shmb_connection *connection);

/* Wipes the keys, closes the socket. */
void shmb_connection_close(struct shmb_connection *connection);

#endif
