/* SPDX-License-Identifier: Apache-2.0 */

/* Ringing subscribers that sleep. */

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/pub-internal.h"

/* One process sleeps on a bell, with few threads; a hostile one may queue thousands. */
#define WAKE_MAX 8

void pub_ring(struct shmb_publisher *publisher, uint32_t i, uint32_t sleep)
{
	struct pub_pair *pair = &publisher->pairs[i];

	publisher->sleepers[i].rung = sleep;
	if ((sleep & SHMB_SLEEP_MODE_MASK) == SHMB_SLEEP_FUTEX) {
		shmb_bell_bump(pair->bell_words);
		syscall(SYS_futex, &pair->bell_words->wake, FUTEX_WAKE, WAKE_MAX, NULL, NULL, 0);
	} else {
		if (shmb_unlikely(pair->ringer.n > 1))
			pub_settle_ringer(&publisher->member, pair);
		shmb_ringer_ring(&pair->ringer);
	}
	publisher->rings++;
	SHMB_STORE(&publisher->writer.lane->rings, publisher->rings);
}

void pub_ring_laggard(struct shmb_publisher *publisher, uint32_t i)
{
	uint32_t sleep;

	if (shmb_bell_due(publisher->sleepers[i].sleep, publisher->sleepers[i].rung, &sleep))
		pub_ring(publisher, i, sleep);
}

struct shmb_state_writer *shmb_publisher_state(struct shmb_publisher *publisher)
{
	return publisher ? publisher->state : NULL;
}

void shmb_publisher_changed(struct shmb_publisher *publisher)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	uint64_t epoch, looked_at = publisher->member.seen_epoch;

	writer->sequence++;
	SHMB_STORE(&writer->lane->sequence_hint, writer->sequence);
	/*
	 * Z: pairs with the acquire load in the subscriber's scan(): the value is in its cell. Killed
	 * before: the broker moves the epoch, and everybody looks at all cells.
	 */
	SHMB_STORE_RELEASE(&writer->lane->position_hint, writer->sequence);
	/*
	 * AE: pairs with the fence in the broker's key_copy_all(), which copies for those who cannot
	 * have this segment: either it sees the value, or we see that the epoch has moved, and move.
	 *
	 * Also without subscribers: one that has come meanwhile either sees the value, or we see
	 * that the epoch has moved, since the broker moves it before a subscriber can sleep.
	 */
	shmb_bell_published();
	do {
		for (uint32_t i = 0; i < publisher->n_pairs; i++) {
			uint32_t sleep;

			if (shmb_unlikely(shmb_bell_due(publisher->sleepers[i].sleep,
							publisher->sleepers[i].rung, &sleep)))
				pub_ring(publisher, i, sleep);
		}
		epoch = SHMB_LOAD(publisher->member.epoch);
		if (shmb_likely(epoch == looked_at))
			return;
		/* Without a broker there is nothing more to hear, however often we look. */
		looked_at = epoch;
		shmb_member_sync(&publisher->member);
	} while (1);
}
