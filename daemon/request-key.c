/* SPDX-License-Identifier: Apache-2.0 */

/* Requests for keys of a state channel. */

#include <errno.h>

#include <sodium.h>

#include "daemon/channel.h"
#include "daemon/key.h"
#include "daemon/request.h"

int request_handle_claim(struct request *request)
{
	struct shmb_msg_claim claim;
	struct shmb_state_key *key;
	struct channel *channel;
	struct member *member;
	struct object *object;
	uint32_t index;
	uint64_t owner;
	int r;

	r = request_body(request, &claim, sizeof(claim));
	if (r < 0)
		return r;
	if (claim.zero || !claim.key_len || claim.key_len > sizeof(claim.key) ||
	    !sodium_is_zero(claim.key + claim.key_len, sizeof(claim.key) - claim.key_len))
		return -EINVAL;
	member = request_find_member(request, claim.member_id);
	if (!member)
		return -ESTALE;
	channel = member->channel;
	if (registry_is_superseded(&channel->broker->registry))
		return -ESTALE;
	if (channel->pattern != SHMB_PATTERN_STATE || member->role != SHMB_ROLE_PUBLISHER ||
	    !(member->flags & SHMB_MEMBER_ACTIVE))
		return -EINVAL;
	r = key_claim(channel, claim.member_id, claim.key, claim.key_len, &index, &owner);
	if (r == -EUSERS) {
		request->limit = channel->max_keys;
		request->asked = request->limit + 1;
	} else if (r == -EBUSY) {
		object = broker_find(channel->broker, owner, SHMB_ENTRY_PUBLISHER);
		if (object)
			request->limit =
				shmb_container_of(object, struct member, object)->client->pid;
	}
	if (r < 0)
		return r;
	/* We were stopped and replaced, and our successor has given it to somebody else. */
	key = key_owned(channel, index, claim.member_id);
	if (!key)
		return -ESTALE;
	request->type = SHMB_MSG_CLAIMED;
	request->body.claimed = (struct shmb_msg_claimed){
		.term = key->term,
		.version = key_version(channel, index),
		.index = index,
	};
	request->body_len = sizeof(request->body.claimed);
	return 0;
}

/* The key of a request; NULL if its publisher has not claimed it. */
static int request_key(struct request *request, struct member **ret_member,
		       struct shmb_state_key **ret_key, uint32_t *ret_index)
{
	struct shmb_msg_key body;
	int r;

	r = request_body(request, &body, sizeof(body));
	if (r < 0)
		return r;
	*ret_member = request_find_member(request, body.member_id);
	if (!*ret_member || registry_is_superseded(&(*ret_member)->channel->broker->registry))
		return -ESTALE;
	if (body.zero || body.index >= (*ret_member)->channel->max_keys)
		return -EINVAL;
	*ret_key = key_owned((*ret_member)->channel, body.index, body.member_id);
	*ret_index = body.index;
	return 0;
}

int request_handle_source(struct request *request)
{
	struct shmb_state_key *key;
	struct member *member;
	uint32_t index;
	int r;

	r = request_key(request, &member, &key, &index);
	if (r == 0 && !key)
		r = -EINVAL;
	if (r < 0 || key->source)
		return r;
	key_set_source(key);
	channel_changed(member->channel);
	return 0;
}

int request_handle_disclaim(struct request *request)
{
	struct shmb_state_key *key;
	struct member *member;
	uint32_t index;
	int r;

	r = request_key(request, &member, &key, &index);
	/* A broker that was killed has done it, and could not say so. */
	if (r < 0 || !key)
		return r;
	key_disclaim(member->channel, index, &member->object.segment);
	channel_changed(member->channel);
	return 0;
}
