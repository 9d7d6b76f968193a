/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_PUBLISHER_H
#define SHMB_LIB_PUBLISHER_H

/* What putting values needs of publishers. */

#include <shmbroker/shmbroker.h>

#include "lib/member.h"

struct shmb_state_writer;

/*
 * What a publisher of a state channel has instead of a ring, see state.c; free() frees it. The member
 * need only know its channel. Returns NULL without memory.
 */
struct shmb_state_writer *shmb_state_writer_new(struct shmb_member *member);

/* Its cells; NULL: the channel is no state channel, or @publisher is NULL. */
struct shmb_state_writer *shmb_publisher_state(struct shmb_publisher *publisher);

/* Counts a value that was put, and wakes who sleeps. */
void shmb_publisher_changed(struct shmb_publisher *publisher);

#endif
