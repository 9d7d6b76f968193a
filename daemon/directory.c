/* SPDX-License-Identifier: Apache-2.0 */

#include "lib/call.h"

#include "daemon/directory.h"

static struct shmb_call_server *server_at(const struct channel *channel, uint32_t slot)
{
	uint8_t *base = (uint8_t *)channel->map + shmb_call_servers_offset(channel->schema_len);

	return (struct shmb_call_server *)(void *)base + slot;
}

void directory_update(struct channel *channel, uint32_t role, uint32_t slot)
{
	struct shmb_call_server *server;
	const struct member *member;

	if (channel->pattern != SHMB_PATTERN_CALL || role != SHMB_ROLE_SUBSCRIBER)
		return;
	server = server_at(channel, slot);
	member = slot < channel->n_slots[1] ? channel->slots[1][slot] : NULL;
	if (!member || (~member->flags & (SHMB_MEMBER_SERVER | SHMB_MEMBER_ACTIVE)))
		shmb_call_server_store(server, 0, 0, 0);
	else
		shmb_call_server_store(server, object_id(&member->object), member->client->uid,
				       member->client->pid);
}

void directory_settle(struct channel *channel)
{
	for (uint32_t slot = 0; slot < channel->max_subscribers; slot++)
		directory_update(channel, SHMB_ROLE_SUBSCRIBER, slot);
}

void directory_count(const struct channel *channel, uint32_t *ret_n_publishers,
		     uint32_t *ret_n_subscribers)
{
	uint32_t n_servers = 0;

	*ret_n_publishers = channel->n_active[0];
	*ret_n_subscribers = channel->n_active[1];
	if (channel->pattern != SHMB_PATTERN_CALL)
		return;
	for (uint32_t slot = 0; slot < channel->n_slots[1]; slot++) {
		const struct member *member = channel->slots[1][slot];

		n_servers +=
			member && !(~member->flags & (SHMB_MEMBER_SERVER | SHMB_MEMBER_ACTIVE));
	}
	*ret_n_publishers = channel->n_active[1] - n_servers;
	*ret_n_subscribers = n_servers;
}
