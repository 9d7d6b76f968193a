/* SPDX-License-Identifier: Apache-2.0 */

/* Records that carry fds: what is sent to each subscriber before the record is published. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/pub-internal.h"

#define AGAIN_NS 2000000ull

int pub_check_fds(const struct shmb_publisher *publisher, const int32_t *fds, uint32_t n_fds)
{
	if (publisher->state || publisher->queue || publisher->member.partner_id)
		return shmb_fail(-EOPNOTSUPP, "only records of a stream carry file descriptors");
	if (!publisher->max_fds)
		return shmb_fail(-EOPNOTSUPP,
				 "records of this channel carry no file descriptors: create it "
				 "with max_fds");
	if (!fds || n_fds > publisher->max_fds)
		return shmb_fail(-EINVAL,
				 "a record of this channel carries at most %u file descriptors, "
				 "not %u; or fds is NULL",
				 publisher->max_fds, n_fds);
	for (uint32_t i = 0; i < n_fds; i++)
		if (fcntl(fds[i], F_GETFD) < 0)
			return shmb_fail(-EBADF, "no file descriptor: %d", fds[i]);
	return 0;
}

/* Must it get what we send? */
static bool is_owed(const struct pub_pair *pair)
{
	return !pair->lossy && !pub_has_left(pair);
}

bool pub_fds_fit(struct shmb_publisher *publisher, bool waiting)
{
	if (waiting && publisher->fds_again_ns) {
		if (shmb_clock_now_ns() < publisher->fds_again_ns)
			return false;
		publisher->fds_again_ns = 0;
	}
	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		struct pub_pair *pair = &publisher->pairs[i];

		if (is_owed(pair) && !shmb_fds_has_room(&pair->ends) &&
		    !pub_evict_holder(publisher, pair, waiting))
			return false;
	}
	return true;
}

/* To those that are owed them, or to the others. Returns the first failure if none has any yet. */
static int send_to(struct shmb_publisher *publisher, const int32_t *fds, uint32_t n_fds, bool owed,
		   bool *sent)
{
	for (uint32_t i = 0; i < publisher->n_pairs; i++) {
		struct pub_pair *pair = &publisher->pairs[i];
		int result;

		if (is_owed(pair) != owed || pub_has_left(pair))
			continue;
		result = shmb_fds_send(&pair->ends, publisher->fds_number + 1, fds, n_fds);
		if (result < 0 && result != -EAGAIN && !*sent)
			return shmb_fail(result, "these file descriptors cannot be sent: %s",
					 strerror(-result));
		if (result == -EAGAIN && owed && !*sent)
			return result;
		if (result < 0)
			publisher->fds_lost += n_fds;
		*sent |= result == 0;
	}
	return 0;
}

/*
 * All who must get them are looked at before the first one does: what was sent cannot be had back. What
 * they have room for can still be too much for the kernel, when others of this user send as well. Then
 * the first one that is refused refuses for all; one behind it goes without, and that is counted.
 */
int pub_send_packets(struct shmb_publisher *publisher, const int32_t *fds, uint32_t n_fds)
{
	bool sent = false;
	int result;

	publisher->fds_short = !pub_fds_fit(publisher, false);
	if (publisher->fds_short)
		return -EAGAIN;
	result = send_to(publisher, fds, n_fds, true, &sent);
	if (result == 0)
		result = send_to(publisher, fds, n_fds, false, &sent);
	publisher->fds_short = result == -EAGAIN;
	/* It was not for want of room, and nobody rings when what it was is over. */
	publisher->fds_again_ns = publisher->fds_short ? shmb_clock_now_ns() + AGAIN_NS : 0;
	if (result < 0)
		return result;
	publisher->fds_number++;
	publisher->n_fds = n_fds;
	return 0;
}
