/* SPDX-License-Identifier: Apache-2.0 */

/* Waiting for room, or until all is done. */

#include <errno.h>
#include <time.h>

#include "lib/clock.h"
#include "lib/pub-internal.h"

/* How long a publisher that waits for space looks at the cursors itself after it has armed. */
#define ARM_LOOK_NS 5000ull

/* May a record be claimed? As shmb_lane_claim(), without writing anything to the lane. */
static bool fits(struct shmb_publisher *publisher, uint32_t len)
{
	struct shmb_lane_writer *writer = &publisher->writer;
	bool lies_in_block = len > publisher->inline_len_max;
	uint64_t end = pub_end_of(
		writer, publisher->head_len + (lies_in_block ? sizeof(struct shmb_block_descriptor)
							     : (uint64_t)len + publisher->ext_len));

	if (publisher->queue && !pub_choose(publisher))
		return false;
	if (shmb_unlikely(lies_in_block)) {
		struct shmb_block *block = pub_get_block(publisher, len);

		if (!block)
			return false;
		shmb_arena_give(publisher->arena, block);
	}
	if (end > writer->limit) {
		pub_refresh_limit(publisher);
		if (end > writer->limit &&
		    !(publisher->may_evict && pub_evict_stuck(publisher, end, true)))
			return false;
	}
	return shmb_likely(!publisher->fds_short) || pub_fds_fit(publisher, true);
}

/*
 * Say that we sleep until a reader has made progress. Readers look at our word after they have stored
 * their position but do not fence, which would cost them more than it is worth. So once armed we look
 * for longer than a store can take to become visible. Returns whether it has come.
 */
static bool arm_space(struct shmb_publisher *publisher,
		      bool (*come)(struct shmb_publisher *publisher, uint32_t len), uint32_t len)
{
	uint32_t asleep = ++publisher->space_epoch << 2 | SHMB_SLEEP_FD;
	uint64_t armed_at;
	bool fit;

	/* Killed while it is set: readers ring a process that is gone, once. */
	/* O: pairs with P in the subscriber's ring_publishers(), which fences before it sleeps. */
	shmb_bell_announce(&publisher->writer.lane->space_wait, asleep);
	armed_at = shmb_clock_now_ns();
	do
		fit = come(publisher, len);
	while (!fit && shmb_clock_now_ns() - armed_at < ARM_LOOK_NS);
	return fit;
}

/* The lane may be another one by now. */
static void disarm_space(struct shmb_publisher *publisher)
{
	SHMB_STORE(&publisher->writer.lane->space_wait,
		   publisher->space_epoch << 2 | SHMB_SLEEP_AWAKE);
}

/* A store that was not seen in that time is seen when the backstop ends the sleep. */
static void sleep_until(struct shmb_publisher *publisher,
			bool (*come)(struct shmb_publisher *publisher, uint32_t len), uint32_t len,
			uint64_t deadline)
{
	struct timespec pause = { .tv_nsec = 1000000 };

	if (shmb_member_epoll(&publisher->member) < 0) {
		/* Nobody can ring: look now and then. */
		nanosleep(&pause, NULL);
		return;
	}
	if (!arm_space(publisher, come, len)) {
		uint64_t backstop = shmb_clock_now_ns() + PUB_BACKSTOP_NS;
		bool unrung = publisher->fds_again_ns != 0;

		shmb_member_sleep(&publisher->member, deadline < backstop ? deadline : backstop);
		publisher->backstops +=
			shmb_clock_now_ns() >= backstop && come(publisher, len) && !unrung;
	}
	disarm_space(publisher);
}

/* For who sleeps on the fd: it is not readable any more, and will be when something has changed. */
static int look_and_arm(struct shmb_publisher *publisher,
			bool (*come)(struct shmb_publisher *publisher, uint32_t len), uint32_t len)
{
	int result = shmb_member_take_wakes(&publisher->member);

	if (result >= 0)
		result = pub_enter(publisher, len);
	if (result == 0 && !come(publisher, len) && !arm_space(publisher, come, len))
		return -ETIMEDOUT;
	disarm_space(publisher);
	return result;
}

int pub_wait_until(struct shmb_publisher *publisher,
		   bool (*come)(struct shmb_publisher *publisher, uint32_t len), uint32_t len,
		   int64_t timeout_ns)
{
	uint64_t deadline = 0;
	int result = pub_enter(publisher, len);

	if (result == 0 && publisher->polled && timeout_ns == 0)
		return look_and_arm(publisher, come, len);
	while (result == 0 && !come(publisher, len)) {
		if (!deadline)
			deadline = shmb_clock_deadline_ns(timeout_ns);
		if (shmb_clock_now_ns() >= deadline)
			return -ETIMEDOUT;
		if (come == fits)
			pub_note_full(publisher);
		sleep_until(publisher, come, len, deadline);
		result = pub_enter(publisher, len);
	}
	return result;
}

SHMB_API int32_t shmb_publisher_fd(struct shmb_publisher *publisher)
{
	int fd;

	if (!publisher)
		return shmb_fail(-EINVAL, "publisher is NULL");
	if (!*publisher->member.fork_guard)
		return shmb_fail(-ECHILD, "this handle belongs to the parent process");
	fd = shmb_member_poll_fd(&publisher->member);
	publisher->polled |= fd >= 0;
	return fd;
}

SHMB_API int32_t shmb_publisher_wait(struct shmb_publisher *publisher, uint32_t len,
				     int64_t timeout_ns)
{
	int result = pub_wait_until(publisher, fits, len, timeout_ns);

	if (result != -ETIMEDOUT)
		return result;
	if (publisher->queue && !pub_choose(publisher))
		return shmb_fail(-ETIMEDOUT, "no worker had credit for a record in time");
	if (publisher->fds_short)
		return shmb_fail(-ETIMEDOUT, "no room for file descriptors in time");
	return shmb_fail(-ETIMEDOUT, "no room for %u bytes in the lane in time", len);
}

static inline int32_t wait_and_send(struct shmb_publisher *publisher, const void *data,
				    uint32_t len, int64_t timeout_ns)
{
	int32_t result = shmb_publisher_wait(publisher, len, timeout_ns);

	return result < 0 ? result : shmb_publisher_send_typed(publisher, data, len, 0);
}

SHMB_API int32_t shmb_publisher_send_wait(struct shmb_publisher *publisher, const void *data,
					  uint32_t len, int64_t timeout_ns)
{
	int32_t result = wait_and_send(publisher, data, len, timeout_ns);
	uint64_t now_ns, deadline_ns;

	if (shmb_likely(result != -EAGAIN))
		return result;
	/* What there was room in has moved, or who was to get it has gone, in between. */
	deadline_ns = shmb_clock_deadline_ns(timeout_ns);
	do {
		now_ns = shmb_clock_now_ns();
		timeout_ns = deadline_ns == UINT64_MAX
				     ? -1
				     : (int64_t)shmb_clock_left_ns(deadline_ns, now_ns);
		result = wait_and_send(publisher, data, len, timeout_ns);
	} while (result == -EAGAIN && now_ns < deadline_ns);
	return result == -EAGAIN ? shmb_fail(-ETIMEDOUT, "no space in time") : result;
}
