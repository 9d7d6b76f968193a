/* SPDX-License-Identifier: Apache-2.0 */

/* Waiting for a record: polling, yielding, sleeping, and announcing that. */

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/error.h"
#include "lib/sub-look.h"

#define SPIN_PROBE	64u /* one wait of so many spins, whatever experience says */
#define YIELD_NS	200000u /* who was away for longer has yielded to a stranger */
#define YIELD_HITS	64u /* so many that were good lessen the fear of strangers */
#define YIELD_STRANGER	6u /* as bad as so many yields in vain */
#define YIELD_PAUSE_MAX 12u /* at worst one wait of 4096 yields */
#define BACKSTOP_NS	5000000000ull
#define RING_LATE_NS	1000000000ull /* who has published but not rung yet gets so long */
#define FUTEX_LANES_MAX 7u /* more are waited for by fd */

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

struct futex_wait { /* struct futex_waitv of newer headers */
	uint64_t value;
	uint64_t address;
	uint32_t flags;
	uint32_t reserved;
};

#define FUTEX_WAIT_32_SHARED 2u /* FUTEX_32, not private */

int shmb_subscriber_ready(struct shmb_subscriber *subscriber)
{
	struct shmb_record record;
	int result;

	if (subscriber && subscriber->private && shmb_member_is_news(&subscriber->member))
		return shmb_member_enter(&subscriber->member) == -ECHILD ? -ECHILD : 1;
	result = sub_enter(subscriber);
	if (result < 0)
		return result;
	/* Another thread of this client may have read what is for us. */
	if (shmb_unlikely(SHMB_LOAD(&subscriber->member.inbox.first) != NULL))
		shmb_member_sync(&subscriber->member);
	if (subscriber->state)
		return shmb_state_reader_ready(subscriber->state);
	/* There may be somebody for the dead letters by now. */
	if (shmb_unlikely(subscriber->dead != NULL))
		sub_bury_again(subscriber);
	if (subscriber->failed || subscriber->evicted_by ||
	    (subscriber->n_peeked && !subscriber->queue) ||
	    (subscriber->queue && sub_next_failed(subscriber)))
		return 1;
	if (sub_next_record(subscriber, &record)) {
		/* Only looked at: its turn is not over. */
		subscriber->burst -= !subscriber->next;
		return 1;
	}
	return subscriber->failed || subscriber->evicted_by || subscriber->held_ns;
}

/* Publishers that armed while our position was on its way look stuck: nobody sleeps before this. */
static void ring_publishers(struct shmb_subscriber *subscriber)
{
	/* P: pairs with O in the publisher's sleep_until(), after the fence of arm(). */
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];

		if (lane->gone)
			continue;
		/* The publisher may have been behind us when we heard of a new socket. */
		if (shmb_unlikely(lane->ringer.n > 1))
			sub_settle_ringer(subscriber, lane);
		sub_ring_publisher(subscriber, lane);
	}
}

static int arm(struct shmb_subscriber *subscriber, uint32_t mode)
{
	uint32_t asleep = ++subscriber->sleep_epoch << 2 | mode;

	sub_store_sleep(subscriber, asleep);
	shmb_bell_announce(&subscriber->cursor->sleep, asleep);
	ring_publishers(subscriber);
	return shmb_subscriber_ready(subscriber);
}

int shmb_subscriber_arm_fd(struct shmb_subscriber *subscriber)
{
	if (shmb_unlikely(subscriber->member.n_doorbells > 1))
		sub_retire_doorbells(subscriber);
	return arm(subscriber, SHMB_SLEEP_FD);
}

void shmb_subscriber_disarm(struct shmb_subscriber *subscriber)
{
	uint32_t awake = subscriber->sleep_epoch << 2 | SHMB_SLEEP_AWAKE;

	sub_store_sleep(subscriber, awake);
	SHMB_STORE(&subscriber->cursor->sleep, awake);
}

static void count_sleep(struct shmb_subscriber *subscriber, uint64_t now_ns)
{
	subscriber->sleeps++;
	SHMB_STORE(&subscriber->cursor->sleeps, subscriber->sleeps);
	SHMB_STORE(&subscriber->cursor->updated_ns, now_ns);
}

/*
 * The backstop has ended the sleep, but we are still armed: whoever has published meanwhile has to
 * ring, now or when the scheduler lets it. Returns until when to wait for that; 0 there is no record.
 */
static uint64_t late_ring_ns(struct shmb_subscriber *subscriber)
{
	return shmb_subscriber_ready(subscriber) == 1 ? shmb_clock_now_ns() + RING_LATE_NS : 0;
}

/* Returns 1 woken, 0 deadline, -ENOSYS if the kernel cannot. */
static int wait_futexes(const struct futex_wait *waits, uint32_t n, uint64_t deadline)
{
	struct __kernel_timespec until = shmb_clock_kernel_timespec(deadline);
	long woken = syscall(SYS_futex_waitv, waits, n, 0, &until, CLOCK_MONOTONIC);

	if (woken < 0 && (errno == ENOSYS || errno == EPERM))
		return -ENOSYS;
	return woken >= 0 || errno != ETIMEDOUT;
}

/*
 * Sleep on the wake words of all bells, ours from the broker included. Their values are read
 * before arming, so a ring that comes between is not slept through. Returns 1 woken, 0 deadline,
 * -ENOSYS if the kernel cannot.
 */
static int sleep_futex(struct shmb_subscriber *subscriber, uint64_t now_ns, uint64_t deadline,
		       bool bounded)
{
	struct futex_wait waits[FUTEX_LANES_MAX + 1];
	const uint32_t *broker = &subscriber->member.client->bell->wake;
	uint32_t changes = subscriber->lane_changes, n = 0;
	int woken;

	/* As of when we last read the socket: what the broker has said since must not be slept on. */
	waits[n++] = (struct futex_wait){ .value = subscriber->member.seen_wake,
					  .address = (uint64_t)(uintptr_t)broker,
					  .flags = FUTEX_WAIT_32_SHARED };
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		const uint32_t *wake = &subscriber->lanes[i]->bell_words->wake;

		waits[n++] = (struct futex_wait){ .value = SHMB_LOAD(wake),
						  .address = (uint64_t)(uintptr_t)wake,
						  .flags = FUTEX_WAIT_32_SHARED };
	}
	if (arm(subscriber, SHMB_SLEEP_FUTEX))
		return 1;
	if (subscriber->lane_changes != changes)
		return 1; /* a publisher came or went while we armed */
	count_sleep(subscriber, now_ns);
	woken = wait_futexes(waits, n, deadline);
	if (woken == 0 && bounded && (deadline = late_ring_ns(subscriber)) > 0)
		woken = wait_futexes(waits, n, deadline);
	return woken;
}

static int sleep_fd(struct shmb_subscriber *subscriber, uint64_t now_ns, uint64_t deadline,
		    bool bounded)
{
	int result = shmb_member_epoll(&subscriber->member);

	if (result < 0)
		return result;
	if (shmb_subscriber_arm_fd(subscriber))
		return 1;
	count_sleep(subscriber, now_ns);
	result = shmb_member_sleep(&subscriber->member, deadline);
	if (result == 0 && bounded && (deadline = late_ring_ns(subscriber)) > 0)
		result = shmb_member_sleep(&subscriber->member, deadline);
	return result;
}

/* Sleep once, bounded. Returns 0 or an error that keeps it from sleeping. */
static int sleep_once(struct shmb_subscriber *subscriber, uint64_t now_ns, uint64_t deadline)
{
	uint64_t backstop = now_ns + BACKSTOP_NS;
	bool bounded = backstop < deadline;
	int woken = -ENOSYS;

	if (bounded)
		deadline = backstop;
	/* Without a broker nobody rings its bell: the fd sleeper looks for a new one. */
	if (!subscriber->no_waitv && subscriber->n_lanes <= FUTEX_LANES_MAX &&
	    shmb_client_retry_at_ns(subscriber->member.client) == UINT64_MAX) {
		woken = sleep_futex(subscriber, now_ns, deadline, bounded);
		subscriber->no_waitv = woken == -ENOSYS;
	}
	if (woken == -ENOSYS)
		woken = sleep_fd(subscriber, now_ns, deadline, bounded);
	shmb_subscriber_disarm(subscriber);
	if (woken < 0)
		return woken;
	if (woken == 0 && bounded) {
		/* Did the backstop find what a ring should have told, and never did? */
		if (shmb_subscriber_ready(subscriber) == 1)
			shmb_subscriber_count_backstop(subscriber);
		/* A futex sleeper does not see the socket: look whether the broker is still there. */
		shmb_member_sync(&subscriber->member);
	} else if (woken == 1) {
		/* Perhaps it was the broker, with something that moves no epoch. */
		if (shmb_member_has_news(&subscriber->member))
			shmb_member_sync(&subscriber->member);
	}
	return 0;
}

/* Poll for a while, if experience says that it is worth it. Returns as shmb_subscriber_ready(). */
static int spin(struct shmb_subscriber *subscriber, uint64_t start_ns, uint64_t deadline)
{
	uint64_t end = start_ns + subscriber->spin_ns;
	int result = 0;

	/* Now and then try it all the same: a partner that sleeps looks slow because we do. */
	if (subscriber->gap_ns > subscriber->spin_ns && ++subscriber->waits % SPIN_PROBE)
		return 0;
	do {
		for (int i = 0; i < 32 && !result; i++) {
			shmb_pause();
			result = shmb_subscriber_ready(subscriber);
		}
	} while (!result && shmb_clock_now_ns() < (end < deadline ? end : deadline));
	return result;
}

/*
 * Let others on our CPU run before we sleep. If the publisher is one of them, the record is there
 * when we run again, and nobody had to be put to sleep and woken. If it is not, this is in vain,
 * and tried ever more rarely, and all the more so if a stranger ran for long meanwhile.
 * Returns as shmb_subscriber_ready().
 */
static int yield(struct shmb_subscriber *subscriber, uint64_t now_ns)
{
	uint32_t *misses;
	int result;
	bool slow;

	if (subscriber->yield_pause) {
		subscriber->yield_pause--;
		return 0;
	}
	sched_yield();
	result = shmb_subscriber_ready(subscriber);
	slow = shmb_clock_now_ns() - now_ns > YIELD_NS;
	if (result && !slow) {
		subscriber->yield_misses = 0;
		if (++subscriber->yield_hits % YIELD_HITS == 0 && subscriber->yield_strangers)
			subscriber->yield_strangers--;
		return result;
	}
	misses = slow ? &subscriber->yield_strangers : &subscriber->yield_misses;
	*misses += slow ? YIELD_STRANGER : 1;
	if (*misses > YIELD_PAUSE_MAX)
		*misses = YIELD_PAUSE_MAX;
	if (slow)
		subscriber->yield_hits = 0;
	subscriber->yield_pause = (1u << *misses) - 1;
	return result;
}

SHMB_API int32_t shmb_subscriber_wait(struct shmb_subscriber *subscriber, int64_t timeout_ns)
{
	int result = subscriber ? shmb_subscriber_ready(subscriber) : sub_enter(subscriber);
	uint64_t start, now, deadline, fd_shortages;

	if (result)
		return result < 0 ? result : 0;
	fd_shortages = shmb_client_fd_shortages(subscriber->member.client);
	now = start = shmb_clock_now_ns();
	deadline = shmb_clock_deadline_ns(timeout_ns);
	if (subscriber->spin_ns) {
		result = spin(subscriber, start, deadline);
		now = shmb_clock_now_ns();
	}
	if (!result && now < deadline)
		result = yield(subscriber, now);
	while (!result && now < deadline) {
		result = sleep_once(subscriber, now, deadline);
		if (!result)
			result = shmb_subscriber_ready(subscriber);
		if (!result)
			now = shmb_clock_now_ns();
	}
	/* An eighth of the news: a few quick records in a row bring the spinning back. */
	if (subscriber->spin_ns)
		subscriber->gap_ns += (shmb_clock_now_ns() - start) / 8 - subscriber->gap_ns / 8;
	if (result > 0)
		return 0;
	if (result < 0)
		return result;
	if (shmb_client_fd_shortages(subscriber->member.client) != fd_shortages)
		return shmb_fail(-EMFILE, "no file descriptor is free for what the broker sent");
	return shmb_fail_lazily(-ETIMEDOUT, "no record came in time", 0, NULL);
}

SHMB_API int32_t shmb_subscriber_fd(struct shmb_subscriber *subscriber)
{
	if (!subscriber)
		return shmb_fail(-EINVAL, "subscriber is NULL");
	if (!*subscriber->member.fork_guard)
		return shmb_fail(-ECHILD, "this handle belongs to the parent process");
	return shmb_member_epoll(&subscriber->member);
}

SHMB_API int32_t shmb_subscriber_arm(struct shmb_subscriber *subscriber)
{
	int result = sub_enter(subscriber);

	if (result < 0)
		return result;
	result = shmb_member_take_wakes(&subscriber->member);
	if (result >= 0)
		result = shmb_subscriber_arm_fd(subscriber);
	if (result)
		shmb_subscriber_disarm(subscriber);
	return result;
}

void shmb_subscriber_count_backstop(struct shmb_subscriber *subscriber)
{
	subscriber->backstops++;
	SHMB_STORE(&subscriber->cursor->backstops, subscriber->backstops);
}
