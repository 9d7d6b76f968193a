/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>

#include <sodium.h>

#include <shmbroker/schema.h>

#include "daemon/channel.h"
#include "daemon/client.h"
#include "daemon/control.h"
#include "daemon/estate.h"
#include "daemon/member.h"
#include "daemon/request.h"
#include "daemon/view.h"

static const struct {
	int error;
	uint32_t code;
} codes[] = {
	{ EACCES, SHMB_CODE_DENIED_OR_UNKNOWN },
	{ EPERM, SHMB_CODE_HOLD },
	{ EDOM, SHMB_CODE_PRIORITY },
	{ ERANGE, SHMB_CODE_FDS },
	{ ENOENT, SHMB_CODE_DENIED_OR_UNKNOWN },
	{ EDQUOT, SHMB_CODE_QUOTA },
	{ EUSERS, SHMB_CODE_QUOTA },
	{ EINVAL, SHMB_CODE_BAD_REQUEST },
	{ EALREADY, SHMB_CODE_BAD_REQUEST },
	{ EBUSY, SHMB_CODE_BUSY },
	{ ESTALE, SHMB_CODE_GONE },
	{ EPROTOTYPE, SHMB_CODE_SCHEMA },
	{ ENOTTY, SHMB_CODE_PATTERN },
	{ EEXIST, SHMB_CODE_EXISTS },
	{ ENOSPC, SHMB_CODE_NO_MEMORY },
	{ ENOMEM, SHMB_CODE_NO_MEMORY },
	{ EFBIG, SHMB_CODE_NO_MEMORY },
	{ EMFILE, SHMB_CODE_NO_FDS },
	{ ENFILE, SHMB_CODE_NO_FDS },
};

static uint32_t code_of(int error)
{
	for (size_t i = 0; i < SHMB_ARRAY_LEN(codes); i++)
		if (codes[i].error == -error)
			return codes[i].code;
	return SHMB_CODE_INTERNAL;
}

static int handle_join(struct request *request)
{
	struct connection *connection = request->connection;
	struct broker *broker = connection->broker;
	struct client *client = NULL;
	uint8_t token[SHMB_TOKEN_LEN];
	struct shmb_msg_join join;
	int r;

	if (request->client)
		return -EINVAL;
	r = request_body(request, &join, sizeof(join));
	if (r < 0)
		return r;
	memcpy(token, join.token, sizeof(token));
	if (join.client_id)
		client = client_rejoin(connection, join.client_id, token);
	if (!client) {
		r = client_new(connection, token, &client);
		if (r < 0)
			return r;
	}
	request->client = client;
	request->type = SHMB_MSG_JOINED;
	request->body.joined = (struct shmb_msg_joined){
		.client_id = object_id(&client->object),
		.instance = broker->maker.instance,
		.broker_epoch = registry_epoch(&broker->registry),
	};
	memcpy(request->body.joined.token, token, sizeof(token));
	request->body_len = sizeof(request->body.joined);
	return parcel_add_segment(&request->parcel, &broker->maker, &client->object.segment,
				  SHMB_FD_READ, SHMB_FD_ROLE_BELL);
}

static int handle_ping(struct request *request)
{
	return request->message->body_len == 0 ? 0 : -EINVAL;
}

static int (*const handlers[])(struct request *request) = {
	[SHMB_MSG_JOIN] = handle_join,
	[SHMB_MSG_OPEN] = request_handle_open,
	[SHMB_MSG_CLOSE] = request_handle_close,
	[SHMB_MSG_ATTACH] = request_handle_attach,
	[SHMB_MSG_ACTIVATE] = request_handle_activate,
	[SHMB_MSG_DETACH] = request_handle_detach,
	[SHMB_MSG_RESUME] = request_handle_resume,
	[SHMB_MSG_REPORT] = request_handle_report,
	[SHMB_MSG_PING] = handle_ping,
	[SHMB_MSG_CLAIM] = request_handle_claim,
	[SHMB_MSG_SOURCE] = request_handle_source,
	[SHMB_MSG_DISCLAIM] = request_handle_disclaim,
	[SHMB_MSG_EXTEND] = request_handle_extend,
	[SHMB_MSG_OVERTAKE] = request_handle_overtake,
	[SHMB_MSG_DRAINED] = request_handle_drained,
	[SHMB_MSG_REMOVE] = request_handle_remove,
};

static int request_handle(struct request *request)
{
	uint32_t type = request->message->type;

	if (type >= SHMB_ARRAY_LEN(handlers) || !handlers[type])
		return -EINVAL;
	if (!request->client && type != SHMB_MSG_JOIN)
		return -EINVAL;
	return handlers[type](request);
}

static int reply_error(struct request *request, int error)
{
	const struct channel *mismatch = request->mismatch;
	_Alignas(8) uint8_t body[sizeof(struct shmb_msg_error) + SHMB_SCHEMA_LEN_MAX];
	struct shmb_msg_error head = {
		.code = code_of(error),
		.limit = request->limit,
		.asked = request->asked,
	};
	uint32_t len = sizeof(head);

	memcpy(body, &head, sizeof(head));
	if (mismatch && mismatch->schema_len <= SHMB_SCHEMA_LEN_MAX) {
		memcpy(body + len, channel_schema(mismatch), mismatch->schema_len);
		len += mismatch->schema_len;
	}
	if (error != -EPROTOTYPE && error != -ENOENT && error != -EEXIST && error != -ESTALE)
		log_line(&request->connection->broker->log, LOG_NOTICE, "request-refused",
			 "uid=%u pid=%u request=%u code=%u limit=%llu asked=%llu",
			 request->connection->peer.uid, request->connection->peer.pid,
			 request->message->type, head.code, (unsigned long long)head.limit,
			 (unsigned long long)head.asked);
	return connection_send(request->connection, SHMB_MSG_ERROR, request->message->request_id,
			       body, len, NULL);
}

static void on_message(struct connection *connection, const struct shmb_message *message)
{
	struct request request = {
		.connection = connection,
		.client = connection->client,
		.message = message,
		.type = SHMB_MSG_OK,
	};
	struct broker *broker = connection->broker;
	int r;

	/* Events have the number 0; an answer to such a request would look like one. */
	if (message->request_id == 0) {
		control_events.gone(connection);
		return;
	}
	r = request_handle(&request);
	if (r < 0)
		r = reply_error(&request, r);
	else
		r = connection_send(connection, request.type, message->request_id, &request.body,
				    request.body_len, &request.parcel);
	parcel_deinit(&request.parcel);
	sodium_memzero(&request.body, sizeof(request.body));
	/* An answer that cannot be sent ends the connection: the client comes back and asks anew. */
	if (r < 0) {
		connection_abort(connection);
		estate_settle(broker);
		return;
	}
	if (request.granted)
		request.granted->given = true;
	if (connection->client) {
		view_flush(connection->client, true);
		if (request.resumed)
			member_announce(request.granted);
	}
	estate_settle(broker);
}

static void on_writable(struct connection *connection)
{
	if (connection->client)
		view_flush(connection->client, true);
}

static void on_gone(struct connection *connection)
{
	struct broker *broker = connection->broker;
	struct client *client = connection->client;

	connection_close(connection);
	if (client)
		client_disconnected(client);
	estate_settle(broker);
}

const struct connection_events control_events = {
	.message = on_message,
	.writable = on_writable,
	.gone = on_gone,
};
