/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>

#include "daemon/request.h"
#include "daemon/view.h"

struct policy_subject request_subject(const struct connection *connection)
{
	return (struct policy_subject){
		.uid = connection->peer.uid,
		.gid = connection->peer.gid,
		.groups = connection->peer.groups,
		.n_groups = connection->peer.n_groups,
		.key = connection->key,
	};
}

bool request_permits(const struct request *request, uint32_t op, const void *name,
		     uint32_t name_len)
{
	struct policy_subject subject = request_subject(request->connection);

	return policy_check(request->connection->broker->policy, &subject, op, name, name_len,
			    NULL);
}

int request_body(const struct request *request, void *body, uint32_t len)
{
	if (request->message->body_len != len)
		return -EINVAL;
	memcpy(body, request->message->body, len);
	return 0;
}

struct channel *request_find_channel(const struct request *request, uint64_t id)
{
	struct object *object = broker_find(request->connection->broker, id, SHMB_ENTRY_CHANNEL);

	return object ? shmb_container_of(object, struct channel, object) : NULL;
}

struct member *request_find_member(const struct request *request, uint64_t id)
{
	struct broker *broker = request->connection->broker;
	struct object *object = broker_find(broker, id, SHMB_ENTRY_PUBLISHER);
	struct member *member;

	if (!object)
		object = broker_find(broker, id, SHMB_ENTRY_SUBSCRIBER);
	if (!object)
		return NULL;
	member = shmb_container_of(object, struct member, object);
	return member->client == request->client ? member : NULL;
}

int request_grant(struct request *request, struct member *member)
{
	request->type = SHMB_MSG_GRANT;
	request->body.grant = (struct shmb_msg_grant){
		.member_id = object_id(&member->object),
		.segment_len = member->object.segment.len,
		.slot = member->slot,
		.doorbell_generation = member->generation,
	};
	request->body_len = sizeof(request->body.grant);
	request->granted = member;
	/* Of a member that has come back and has to move: where to. */
	if (segment_exists(&member->next)) {
		int r = parcel_add_segment(&request->parcel, &member->client->broker->maker,
					   &member->next, SHMB_FD_READ_WRITE, SHMB_FD_ROLE_OWN);

		if (r < 0)
			return r;
		view_unmark(member->move);
	}
	return parcel_add_fd(&request->parcel, member->doorbell, SHMB_FD_EVENTFD,
			     SHMB_FD_ROLE_DOORBELL);
}
