/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_UNIT_RAW_CLIENT_H
#define SHMB_TESTS_UNIT_RAW_CLIENT_H

/* A client that speaks the protocol byte by byte, so that tests can also say what no library would. */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/protocol.h>

#include "lib/session.h"

#define RAW_EVENTS_MAX 256

/* One message with its fds. */
struct raw_message {
	uint32_t type;
	uint32_t request_id;
	uint32_t body_len;
	uint32_t n_fds;
	int fds[SHMB_PACKET_FDS_MAX];
	struct shmb_fd_descriptor descriptors[SHMB_PACKET_FDS_MAX];
	_Alignas(8) uint8_t body[SHMB_PACKET_LEN_MAX];
};

struct raw_client {
	int fd;
	struct shmb_session session;
	struct shmb_handshake_2_payload hello;
	uint32_t next_request;
	struct shmb_msg_joined joined;
	struct shmb_bell_segment *bell;
	struct raw_message reply;
	struct raw_message *events;
	unsigned n_events;
	_Alignas(8) uint8_t packet[SHMB_PACKET_LEN_MAX];
	_Alignas(8) uint8_t plain[SHMB_PACKET_LEN_MAX];
};

/* A connected socket. Fails the test after two seconds without a broker. */
int raw_socket(const char *dir);

/* Connects and shakes hands up to READY. */
struct raw_client *raw_connect(const char *dir);

/* Closes everything. Returns NULL. */
struct raw_client *raw_close(struct raw_client *raw);

/* Sends a request and does not wait. */
uint32_t raw_send(struct raw_client *raw, uint32_t type, const void *body, uint32_t len);

/* Takes in one message: the reply of a request, or one more event. False: timeout or end. */
bool raw_receive(struct raw_client *raw, int timeout_ms);

/* Sends a request and waits for its reply. Returns the reply's type; 0: the connection ended. */
uint32_t raw_call(struct raw_client *raw, uint32_t type, const void *body, uint32_t len);

/* The code of the ERROR that answered; fails the test if it was none. */
uint32_t raw_code(const struct raw_client *raw);

/* Joins; id and token 0: as a new client. */
void raw_join(struct raw_client *raw, uint64_t id, const uint8_t *token);

/* Opens or creates an untyped channel with rings of 4 KiB. Returns its id; its fd is in reply. */
uint64_t raw_open(struct raw_client *raw, const char *name);

/* Attaches, allocates and activates. Returns the member's id; @map_len bytes at @ret_map. */
uint64_t raw_member(struct raw_client *raw, uint64_t channel, uint32_t role, void **ret_map);

/* The n-th event of a type, waiting for it; NULL: it does not come. */
struct raw_message *raw_event(struct raw_client *raw, uint32_t type, unsigned n);

/* Forgets all events and closes their fds. */
void raw_forget(struct raw_client *raw);

/* The fd of that role, verified; fails the test if there is none. */
int raw_fd(const struct raw_message *message, uint16_t role);

/* Maps the segment of that role for reading. */
void *raw_map(const struct raw_message *message, uint16_t role, int prot);

#endif
