/* SPDX-License-Identifier: Apache-2.0 */

/* The slots of a channel: one for each member, by role. A publisher has the same one in cursors. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/queue.h"

#include "daemon/member-internal.h"

#define SLOTS_MIN 4u

uint32_t member_slots_max(const struct channel *channel, uint32_t role)
{
	return role == SHMB_ROLE_PUBLISHER
		       ? shmb_cursor_slots(channel->pattern, channel->max_publishers)
		       : channel->max_subscribers;
}

int member_reserve_slot(struct channel *channel, uint32_t role, uint32_t slot)
{
	uint32_t have = channel->n_slots[role - 1], n = have ? have : SLOTS_MIN;
	struct member **slots;

	if (slot < have)
		return 0;
	while (n <= slot)
		n *= 2;
	slots = realloc(channel->slots[role - 1], n * sizeof(struct member *));
	if (!slots)
		return -ENOMEM;
	memset(slots + have, 0, (n - have) * sizeof(struct member *));
	channel->slots[role - 1] = slots;
	channel->n_slots[role - 1] = n;
	return 0;
}

/* Workers of a queue mark in it what they have done for a publisher that has gone. */
static bool slot_is_kept(const struct channel *channel, uint32_t role, uint32_t slot)
{
	struct list *link, *safe;

	if (role != SHMB_ROLE_PUBLISHER || channel->pattern != SHMB_PATTERN_QUEUE)
		return false;
	list_for_each(link, safe,
		      &channel->kept) if (list_entry(link, struct member, client_link)->slot ==
					  slot) return true;
	return false;
}

int member_find_slot(const struct channel *channel, uint32_t role, uint32_t spare,
		     uint32_t *ret_slot)
{
	for (uint32_t slot = 0; slot < member_slots_max(channel, role); slot++) {
		if ((slot < channel->n_slots[role - 1] && channel->slots[role - 1][slot]) ||
		    slot_is_kept(channel, role, slot) || spare-- > 0)
			continue;
		*ret_slot = slot;
		return 0;
	}
	return -EUSERS;
}
