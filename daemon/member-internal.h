/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_MEMBER_INTERNAL_H
#define SHMB_DAEMON_MEMBER_INTERNAL_H

/* What the files of members do for each other; nobody else includes this. */

#include "daemon/model.h"

/* member.c */

/* Has it values of keys? */
bool member_has_keys(const struct member *member);

/* Of a segment with that id. */
struct segment_spec member_spec(const struct member *member, uint64_t owner_id, uint64_t id,
				uint32_t backing);

/* A doorbell of the next generation, which its client has still to get. */
int member_new_doorbell(struct member *member);

/* Everything but its segment and entry. What fails leaves a member for member_discard(). */
int member_init(struct member *member, struct channel *channel, struct client *client,
		const struct shmb_registry_entry *entry);

/* Now it is found. */
int member_insert(struct member *member, uint64_t id);

/* Frees one that is not found, or not any more. */
void member_discard(struct member *member);

/* A member with a segment, made with @flags, whose name @entry gets, and with that entry. */
int member_create(struct channel *channel, struct client *client, struct shmb_registry_entry *entry,
		  uint32_t flags, struct member **ret_member);

/* Throws it out: its client is told. */
void member_evict(struct member *member);

/* Not among those any more that come and go. */
void member_leave(struct member *member);

/* Frees one that has left, and its channel if nobody needs that any more. */
void member_remove(struct member *member);

/* member-slot.c */

uint32_t member_slots_max(const struct channel *channel, uint32_t role);

/* Makes room for a slot. */
int member_reserve_slot(struct channel *channel, uint32_t role, uint32_t slot);

/* A free slot, leaving @spare others. */
int member_find_slot(const struct channel *channel, uint32_t role, uint32_t spare,
		     uint32_t *ret_slot);

/* member-pairs.c */

/*
 * A pair with each peer. Where one of the two has still to move, the publisher is told all the same
 * and holds what is for the subscriber; two that have one already go on with it meanwhile.
 */
int member_create_pairs(struct member *member);

/*
 * Ends what member_create_pairs() has made, or what was there before: pairs from @first on, or up to
 * it. A kept lane is read from whatever cursor its reader has, and what a kept worker has left its
 * publisher has in any lane.
 */
void member_drop_pairs(struct member *member, struct list *first, bool from);

/* Ends all of them, and frees the peers that were kept for it. */
void member_free_pairs(struct member *member, const struct member *leaver, uint32_t reason);

/* member-move.c */

/*
 * Its client has mapped the next segment, and copied into it what has to go on. Nothing refers to
 * the old one from now on but those who have mapped it, and they are told.
 */
int member_move(struct member *member);

/* Are all subscribers there, to be told of a new lane before anything is written to it? */
bool member_all_present(const struct channel *channel);

/* Who fails has it tried again when its client comes back. */
void member_prepare_publishers(struct channel *channel);

/* member-kept.c */

/* Those of its role that have gone, of its channel. */
struct list *member_kept_list(const struct member *member);

/* Somebody has come or gone: what is left may have to go to others. */
void member_note_estate(struct channel *channel);

/* Why the segment of one that goes has to stay: SHMB_MEMBER_KEPT, and _HISTORY; 0: it has not. */
uint32_t member_kept_flags(struct member *member, uint32_t reason);

/* It goes, its segment stays. */
void member_keep(struct member *member, uint32_t flags, uint32_t reason);

#endif
