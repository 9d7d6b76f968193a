/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_REQUEST_H
#define SHMB_DAEMON_REQUEST_H

/* A request of a client: what its handlers need, and the handlers. */

#include "daemon/connection.h"
#include "daemon/parcel.h"

/**
 * struct request - a request and the answer that its handler makes
 * @connection: from whom
 * @client:	NULL before JOIN
 * @message:	the request
 * @type:	of the answer, OK if the handler does not say
 * @body:	of the answer
 * @body_len:	of the answer
 * @parcel:	rides with the answer
 * @granted:	member whose doorbell rides with the answer
 * @resumed:	tell it of its pairs after the answer
 * @limit:	-EDQUOT: which limit was reached; -EBUSY: pid of whose it is; -EPERM: the longest
 *		evict_after_ms; -EDOM: the highest priority
 * @asked:	-EDQUOT, -EPERM, -EDOM: by which number
 * @mismatch:	-EPROTOTYPE: the channel that has another schema
 */
struct request {
	struct connection *connection;
	struct client *client;
	const struct shmb_message *message;
	uint32_t type;
	union {
		struct shmb_msg_joined joined;
		struct shmb_msg_opened opened;
		struct shmb_msg_grant grant;
		struct shmb_msg_claimed claimed;
	} body;
	uint32_t body_len;
	struct parcel parcel;
	struct member *granted;
	bool resumed;
	uint64_t limit;
	uint64_t asked;
	const struct channel *mismatch;
};

/* What policy knows of who asks. */
struct policy_subject request_subject(const struct connection *connection);

/* May who asks do that (POLICY_*) with a channel of that name? */
bool request_permits(const struct request *request, uint32_t op, const void *name,
		     uint32_t name_len);

/* Takes over the fixed part of the body. */
int request_body(const struct request *request, void *body, uint32_t len);

/* The channel with that id, or NULL. */
struct channel *request_find_channel(const struct request *request, uint64_t id);

/* A member of this client, or NULL. */
struct member *request_find_member(const struct request *request, uint64_t id);

/* Answers with a member: its doorbell, and where it has to move to. */
int request_grant(struct request *request, struct member *member);

/* What can be asked for. Each returns 0, or a negative errno value for which control.c has a code. */

/* request-channel.c */
int request_handle_open(struct request *request);
int request_handle_close(struct request *request);
int request_handle_remove(struct request *request);

/* request-member.c */
int request_handle_attach(struct request *request);
int request_handle_activate(struct request *request);
int request_handle_detach(struct request *request);
int request_handle_extend(struct request *request);

/* request-pair.c */
int request_handle_resume(struct request *request);
int request_handle_report(struct request *request);
int request_handle_overtake(struct request *request);
int request_handle_drained(struct request *request);

/* request-key.c */
int request_handle_claim(struct request *request);
int request_handle_source(struct request *request);
int request_handle_disclaim(struct request *request);

#endif
