/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_SESSION_H
#define SHMB_LIB_SESSION_H

/*
 * The packets of one control connection, for both ends: the handshake, then sealed messages. Bytes
 * in, bytes out; no I/O, so that tests and fuzzers drive it directly.
 */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/protocol.h>

#include "lib/noise.h"

/**
 * struct shmb_session - one end of a connection
 * @handshake: until it is done
 * @send:      seals what we send
 * @receive:   opens what we get
 * @ready:     the handshake is done
 */
struct shmb_session {
	struct shmb_noise_handshake handshake;
	struct shmb_noise_cipher send;
	struct shmb_noise_cipher receive;
	bool ready;
};

/**
 * struct shmb_message - an opened DATA packet
 * @type:	 SHMB_MSG_*
 * @request_id:	 0: an event
 * @body:	 @body_len bytes, aligned to 8
 * @body_len:	 bytes of @body
 * @fd_count:	 fds that must have come with it
 * @descriptors: one for each
 */
struct shmb_message {
	uint32_t type;
	uint32_t request_id;
	const uint8_t *body;
	uint32_t body_len;
	uint32_t fd_count;
	const struct shmb_fd_descriptor *descriptors;
};

/* Client: first packet out. broker_key is the broker's static public key. Returns 0. */
int shmb_session_connect(struct shmb_session *session, const struct shmb_noise_keypair *own,
			 const uint8_t broker_key[SHMB_KEY_LEN],
			 const struct shmb_handshake_1_payload *payload,
			 struct shmb_handshake_1 *ret_packet);

/* Client: broker's answer in; @ret_payload filled. Returns 0; -EKEYREJECTED; -EPROTONOSUPPORT. */
int shmb_session_connected(struct shmb_session *session, const void *packet, uint32_t packet_len,
			   struct shmb_handshake_2_payload *ret_payload);

/* Broker: first packet in. Returns 0; -EKEYREJECTED; -EPROTONOSUPPORT (send a version_reject). */
int shmb_session_accept(struct shmb_session *session, const struct shmb_noise_keypair *own,
			const void *packet, uint32_t packet_len,
			struct shmb_handshake_1_payload *ret_payload,
			uint8_t ret_client_key[SHMB_KEY_LEN]);

/* Broker: answer out. */
int shmb_session_accepted(struct shmb_session *session,
			  const struct shmb_handshake_2_payload *payload,
			  struct shmb_handshake_2 *ret_packet);

/**
 * shmb_session_seal() - make a DATA packet
 * @session: ready
 * @message: what to send
 * @packet:  room for SHMB_PACKET_LEN_MAX bytes
 *
 * Return: bytes of the packet; -EMSGSIZE: too long; -EOVERFLOW: the key is used up.
 */
int shmb_session_seal(struct shmb_session *session, const struct shmb_message *message,
		      uint8_t *packet);

/**
 * shmb_session_open() - open a DATA packet
 * @session:	 ready
 * @packet:	 as received
 * @packet_len:	 its bytes
 * @plain:	 room for SHMB_PACKET_LEN_MAX bytes, aligned to 8; @ret_message points into it
 * @ret_message: filled
 *
 * Return: 0; -EBADMSG: not authentic (close the connection); -EPROTO: authentic but not a message.
 */
int shmb_session_open(struct shmb_session *session, const uint8_t *packet, uint32_t packet_len,
		      uint8_t *plain, struct shmb_message *ret_message);

/* Wipes all keys. */
void shmb_session_deinit(struct shmb_session *session);

#endif
