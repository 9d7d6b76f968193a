/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_MEMBER_INTERNAL_H
#define SHMB_LIB_MEMBER_INTERNAL_H

/* What the files of a member do for each other, and for nobody else. */

#include <stdbool.h>
#include <stdint.h>

#include "lib/member.h"

/* ---- member.c ---------------------------------------------------------------------------------- */

/* SHMB_SEGMENT_* of what the member writes, and how long it must be. */
uint32_t shmb_member_own_kind(const struct shmb_member *member);
uint64_t shmb_member_own_len(const struct shmb_member *member);

/* ---- member-doorbell.c ------------------------------------------------------------------------- */

/*
 * Put an fd into the set that the member sleeps on, if there is one yet. Returns whether it is watched,
 * else shmb_member.watch_error says why not.
 */
bool shmb_member_watch(struct shmb_member *member, int fd, uint64_t cookie);

/*
 * Take the doorbell out of an event, if there is one. @pair_id: of a doorbell that only one pair uses,
 * else 0. Returns 0, or a negative errno value with a sentence.
 */
int shmb_member_add_doorbell(struct shmb_member *member, struct shmb_event *event,
			     uint64_t pair_id);

void shmb_member_remove_doorbell(struct shmb_member *member, uint32_t index);

/* ---- member-event.c ---------------------------------------------------------------------------- */

/* The member has done with a pair. */
void shmb_member_forget_pair(struct shmb_member *member, uint64_t id);

/* Do what an event says, or each of a list, oldest first. They are taken over. */
void shmb_member_handle_event(struct shmb_member *member, struct shmb_event *event);
void shmb_member_handle_events(struct shmb_member *member, struct shmb_event *events);

/* ---- member-move.c ----------------------------------------------------------------------------- */

/* Keeps a GRANT of another segment, or a PAIR or UNPAIR for later. Each returns NULL then, else @event. */
struct shmb_event *shmb_member_take_move(struct shmb_member *member, struct shmb_event *event);
struct shmb_event *shmb_member_take_staged(struct shmb_member *member, struct shmb_event *event);

/* Takes the next step to the segment that was granted. Returns true if more news may have come. */
bool shmb_member_move(struct shmb_member *member);

#endif
