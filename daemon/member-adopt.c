/* SPDX-License-Identifier: Apache-2.0 */

/* Members that an earlier broker has left. */

#include <errno.h>
#include <stdlib.h>

#include "daemon/key.h"
#include "daemon/member-internal.h"
#include "daemon/member.h"

int member_adopt(struct channel *channel, struct client *client,
		 const struct shmb_registry_entry *entry, uint32_t slot)
{
	bool publisher = entry->kind == SHMB_ENTRY_PUBLISHER;
	uint32_t role = publisher ? SHMB_ROLE_PUBLISHER : SHMB_ROLE_SUBSCRIBER;
	struct broker *broker = channel->broker;
	struct segment_spec spec;
	struct member *member;
	int r;

	/* Its client never heard that it was announced, and will ask anew. */
	if (!(entry->flags & SHMB_MEMBER_ACTIVE) ||
	    entry->slot >= member_slots_max(channel, role) ||
	    entry->segment_len != member_segment_len(channel, role) ||
	    (!client && !publisher && channel->pattern != SHMB_PATTERN_QUEUE))
		return -EINVAL;
	r = client ? member_reserve_slot(channel, role, entry->slot) : 0;
	if (r < 0)
		return r;
	if (client && channel->slots[role - 1][entry->slot])
		return -EINVAL;
	member = calloc(1, sizeof(*member));
	if (!member)
		return -ENOMEM;
	r = member_init(member, channel, client, entry);
	if (r == 0) {
		spec = member_spec(member, entry->id,
				   entry->segment_id ? entry->segment_id : entry->id,
				   entry->backing);
		r = segment_adopt(&broker->maker, (const char *)entry->segment, &spec,
				  &member->object.segment);
	}
	/* Those who have mapped it go on with it until its client has moved to another one. */
	if (r == -ENOENT && entry->backing == SHMB_MEMORY_SEALED && client)
		r = 0;
	if (r == 0)
		r = member_insert(member, entry->id);
	if (r < 0) {
		segment_forget(&member->object.segment);
		member_discard(member);
		return r;
	}
	member->object.entry = slot;
	member->flags |= SHMB_MEMBER_ACTIVE;
	if (!client)
		return 0;
	channel->n_active[role - 1]++;
	if (member_has_keys(member) && !segment_exists(&member->object.segment))
		key_drop_copies(channel, entry->id);
	return 0;
}

void member_inherit(struct channel *channel, const struct shmb_registry_entry *entry)
{
	struct segment_spec spec = {
		.kind = SHMB_SEGMENT_LANE,
		.backing = entry->backing,
		.id = entry->segment_id ? entry->segment_id : entry->id,
		.owner_id = entry->id,
		.len = member_segment_len(channel, SHMB_ROLE_PUBLISHER),
	};
	struct segment segment = { 0 };

	if (!(entry->flags & SHMB_MEMBER_ACTIVE))
		return;
	if (segment_adopt(&channel->broker->maker, (const char *)entry->segment, &spec, &segment) <
	    0)
		segment.name[0] = '\0';
	key_disclaim_all(channel, entry->id, &segment);
	/* Its entry goes next, and then an object of that name is swept. */
	if (segment.backing == SHMB_MEMORY_SEALED)
		segment_destroy(&segment);
	else
		segment_release(&segment);
}
