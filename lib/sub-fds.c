/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The fds that records carry. Their packets wait in the kernel until somebody asks for them; what nobody
 * asks for is taken off there without being opened here, so that it costs us nothing to get it.
 */

#include <errno.h>

#include "lib/sub-internal.h"

/*
 * Where the packet of that number is next, in what the lane has or those that follow it: their publisher
 * may have got only one of their sockets. Those before it are taken off. NULL: it is nowhere.
 */
static struct sub_lane *find(struct sub_lane *lane, uint64_t number, uint32_t *ret_index)
{
	for (; lane; lane = lane->successor) {
		int index = shmb_fds_find(&lane->ends, number);

		if (index < 0)
			continue;
		*ret_index = (uint32_t)index;
		return lane;
	}
	return NULL;
}

/* There is room for others. */
static void note_passed(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint64_t number)
{
	lane->fds_passed = number;
	if (!lane->gone)
		sub_ring_publisher(subscriber, lane);
}

void sub_forget_fds(struct shmb_subscriber *subscriber)
{
	uint32_t ignored;

	subscriber->view.n_fds = subscriber->view.n_fds_lost = 0;
	if (subscriber->n_fds && subscriber->fds_lane && !subscriber->fds_kept) {
		find(subscriber->fds_lane, subscriber->fds_number + 1, &ignored);
		note_passed(subscriber, subscriber->fds_lane, subscriber->fds_number);
	}
	subscriber->n_fds = 0;
	subscriber->fds_lane = NULL;
	subscriber->fds_kept = false;
	shmb_fds_deinit(&subscriber->fds_left);
}

void sub_pass_fds(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint64_t fds)
{
	uint64_t number = fds >> SHMB_FDS_NUMBER_SHIFT;
	uint32_t ignored;

	if (number <= lane->fds_passed)
		return;
	/* They come first, and are not asked for by who waits or receives. */
	if (subscriber->fds_lane == lane)
		sub_forget_fds(subscriber);
	find(lane, number + 1, &ignored);
	note_passed(subscriber, lane, number);
}

void sub_meet_fds(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	uint64_t number = lane->fds >> SHMB_FDS_NUMBER_SHIFT;
	uint32_t n_fds = lane->fds & SHMB_FDS_COUNT_MASK, ignored;
	struct sub_lane *found;

	if (number <= lane->fds_passed)
		return; /* none has come since; or it is peeked at once more, and they were taken */
	if (!n_fds) {
		sub_pass_fds(subscriber, lane, lane->fds);
		return;
	}
	found = n_fds <= subscriber->max_fds ? find(lane, number, &ignored) : NULL;
	if (!found && n_fds <= subscriber->max_fds) {
		/* The socket may be what the broker has to say. */
		shmb_member_sync(&subscriber->member);
		if (subscriber->member.evicted)
			sub_unguard_lanes(subscriber);
		found = find(lane, number, &ignored);
	}
	if (!found) {
		subscriber->view.n_fds_lost = (uint16_t)n_fds;
		subscriber->fds_lost += n_fds;
		note_passed(subscriber, lane, number);
		return;
	}
	subscriber->view.n_fds = (uint16_t)n_fds;
	subscriber->n_fds = n_fds;
	subscriber->fds_lane = lane;
	subscriber->fds_number = number;
}

void sub_leave_fds(struct shmb_subscriber *subscriber, struct sub_lane *lane)
{
	if (subscriber->fds_lane != lane)
		return;
	subscriber->fds_lane = NULL;
	shmb_fds_append(&subscriber->fds_left, &lane->ends);
}

void sub_carry_fds(struct shmb_subscriber *subscriber, struct sub_lane *lane, struct sub_lane *next)
{
	struct shmb_fds_ends ends = { 0 };

	for (struct sub_lane *at = lane; at != next; at = at->successor)
		shmb_fds_append(&ends, &at->ends);
	shmb_fds_append(&ends, &next->ends);
	next->ends = ends;
	next->fds_passed = lane->fds_passed;
	if (subscriber->fds_lane == lane)
		subscriber->fds_lane = next;
}

/* Where the packet is whose fds can be taken. Returns 0 or -ENOENT. */
static int find_taken(struct shmb_subscriber *subscriber, struct shmb_fds_ends **ret_ends,
		      uint32_t *ret_index)
{
	struct sub_lane *at;
	int index;

	if (subscriber->fds_lane) {
		at = find(subscriber->fds_lane, subscriber->fds_number, ret_index);
		*ret_ends = at ? &at->ends : NULL;
		return at ? 0 : -ENOENT;
	}
	index = shmb_fds_find(&subscriber->fds_left, subscriber->fds_number);
	*ret_ends = &subscriber->fds_left;
	*ret_index = (uint32_t)index;
	return index < 0 ? index : 0;
}

SHMB_API int32_t shmb_subscriber_take_fds(struct shmb_subscriber *subscriber, int32_t *fds,
					  uint32_t cap)
{
	struct shmb_fds_ends *ends;
	uint32_t index, n_fds;
	int result;

	if (!subscriber || (!fds && cap))
		return shmb_fail(-EINVAL, "subscriber or fds is NULL");
	if (!*subscriber->member.fork_guard)
		return shmb_fail(-ECHILD, "this handle belongs to the parent process");
	n_fds = subscriber->n_fds;
	if (n_fds > cap)
		return shmb_fail(-EMSGSIZE,
				 "%u file descriptors came with the record, there is room "
				 "for %u",
				 n_fds, cap);
	if (!n_fds)
		return 0;
	result = find_taken(subscriber, &ends, &index);
	if (result < 0)
		result = shmb_fail(-EBADMSG,
				   "the file descriptors were there, and are not any more");
	else
		result = shmb_fds_take(ends, index, fds, n_fds);
	if (result == -EMFILE)
		return result;
	if (result < 0) {
		subscriber->view.n_fds_lost = (uint16_t)n_fds;
		subscriber->fds_lost += n_fds;
	}
	subscriber->view.n_fds = 0;
	subscriber->n_fds = 0;
	if (subscriber->fds_lane)
		note_passed(subscriber, subscriber->fds_lane, subscriber->fds_number);
	subscriber->fds_lane = NULL;
	return result < 0 ? result : (int32_t)n_fds;
}
