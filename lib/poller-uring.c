/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The io_uring back end of wait sets: one multishot poll per fd, and a sleep that submits, waits and
 * harvests in one system call. The ring belongs to the thread that opened it (SINGLE_ISSUER with
 * deferred task work: nothing interrupts the host's other system calls).
 *
 * A multishot poll can end by itself, for example when the completion queue overflows. Then it is
 * armed again and its cookie reported, so that the owner looks at shared memory: edges are hints.
 */

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "lib/clock.h"
#include "lib/error.h"
#include "lib/poller.h"

#define RING_ENTRIES 64u
#define CQ_ENTRIES   4096u

/* One polled fd. Its user_data is its index and a generation, so that late completions miss. */
struct entry {
	int fd;
	uint32_t events;
	uint64_t cookie;
	uint32_t generation;
	bool edge;
	bool used;
};

struct shmb_poller_ring {
	struct io_uring ring;
	struct entry *entries;
	uint32_t n_entries;
	uint32_t cap_entries;
};

#define IGNORED UINT64_MAX

static uint64_t user_data(const struct shmb_poller_ring *ring, uint32_t index)
{
	return (uint64_t)ring->entries[index].generation << 32 | index;
}

static struct io_uring_sqe *get_sqe(struct shmb_poller_ring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->ring);

	if (!sqe && io_uring_submit(&ring->ring) >= 0)
		sqe = io_uring_get_sqe(&ring->ring);
	return sqe;
}

static int arm(struct shmb_poller_ring *ring, uint32_t index)
{
	struct entry *entry = &ring->entries[index];
	struct io_uring_sqe *sqe = get_sqe(ring);

	if (!sqe)
		return shmb_fail(-EBUSY, "the io_uring of a wait set takes no more requests");
	/* Edge-triggered multishot reports each wake-up of the fd once, and is never read. */
	io_uring_prep_poll_add(sqe, entry->fd,
			       entry->events | (entry->edge ? (uint32_t)EPOLLET : 0));
	sqe->len = entry->edge ? IORING_POLL_ADD_MULTI : 0;
	sqe->user_data = user_data(ring, index);
	return 0;
}

static int uring_open(struct shmb_poller *poller)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			 IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
		.cq_entries = CQ_ENTRIES,
	};
	struct shmb_poller_ring *ring = calloc(1, sizeof(*ring));
	int result;

	if (!ring)
		return shmb_fail(-ENOMEM, "no memory for a wait set");
	result = io_uring_queue_init_params(RING_ENTRIES, &ring->ring, &params);
	if (result < 0) {
		free(ring);
		return result;
	}
	io_uring_ring_dontfork(&ring->ring);
	io_uring_register_ring_fd(&ring->ring);
	poller->ring = ring;
	return 0;
}

static void uring_close(struct shmb_poller *poller)
{
	if (!poller->ring)
		return;
	io_uring_queue_exit(&poller->ring->ring);
	free(poller->ring->entries);
	free(poller->ring);
	poller->ring = NULL;
}

static int uring_add(struct shmb_poller *poller, int fd, uint32_t events, bool edge,
		     uint64_t cookie)
{
	struct shmb_poller_ring *ring = poller->ring;
	uint32_t index = 0;
	int result;

	while (index < ring->n_entries && ring->entries[index].used)
		index++;
	if (index == ring->cap_entries) {
		uint32_t cap = ring->cap_entries ? 2 * ring->cap_entries : 16;
		struct entry *grown = realloc(ring->entries, cap * sizeof(*grown));

		if (!grown)
			return shmb_fail(-ENOMEM, "no memory for a wait set");
		memset(grown + ring->cap_entries, 0, (cap - ring->cap_entries) * sizeof(*grown));
		ring->entries = grown;
		ring->cap_entries = cap;
	}
	if (index == ring->n_entries)
		ring->n_entries++;
	ring->entries[index].fd = fd;
	ring->entries[index].events = events;
	ring->entries[index].cookie = cookie;
	ring->entries[index].edge = edge;
	ring->entries[index].used = true;
	ring->entries[index].generation++;
	result = arm(ring, index);
	ring->entries[index].used = result == 0;
	return result;
}

static int uring_remove(struct shmb_poller *poller, int fd, uint64_t cookie)
{
	struct shmb_poller_ring *ring = poller->ring;

	for (uint32_t i = 0; i < ring->n_entries; i++) {
		struct io_uring_sqe *sqe;
		uint64_t data;

		if (!ring->entries[i].used || ring->entries[i].fd != fd ||
		    ring->entries[i].cookie != cookie)
			continue;
		data = user_data(ring, i);
		/* Whatever happens, its cookie is not reported any more. */
		ring->entries[i].used = false;
		ring->entries[i].generation++;
		sqe = get_sqe(ring);
		if (!sqe)
			return shmb_fail(-EBUSY,
					 "the io_uring of a wait set takes no more requests");
		io_uring_prep_poll_remove(sqe, data);
		sqe->user_data = IGNORED;
		/* The fd may be closed as soon as we return: the request must be in. */
		return io_uring_submit(&ring->ring) < 0 ? -EBUSY : 0;
	}
	return -ENOENT;
}

/* Takes completions, at most @max of them that mean something. Fails if one is not armed again. */
static int harvest(struct shmb_poller_ring *ring, uint64_t *cookies, uint32_t *events, int max)
{
	struct io_uring_cqe *cqe;
	int n = 0;

	while (n < max && io_uring_peek_cqe(&ring->ring, &cqe) == 0) {
		uint64_t data = cqe->user_data;
		uint32_t index = (uint32_t)data, flags = cqe->flags;
		int result = cqe->res;
		struct entry *entry;

		io_uring_cqe_seen(&ring->ring, cqe);
		if (data == IGNORED || index >= ring->n_entries)
			continue;
		entry = &ring->entries[index];
		if (!entry->used || entry->generation != (uint32_t)(data >> 32))
			continue;
		/* What has come by now is found again by whoever takes our place. */
		if (!(flags & IORING_CQE_F_MORE) && arm(ring, index) < 0)
			return -EBUSY;
		cookies[n] = entry->cookie;
		/* An ended poll is reported too: whatever its reason, look. */
		events[n] = result > 0 ? (uint32_t)result : entry->events;
		n++;
	}
	return n;
}

static int uring_wait(struct shmb_poller *poller, uint64_t *cookies, uint32_t *events, int max,
		      uint64_t deadline_ns)
{
	struct shmb_poller_ring *ring = poller->ring;
	uint64_t left = deadline_ns ? shmb_clock_left_ns(deadline_ns, shmb_clock_now_ns()) : 0;
	struct __kernel_timespec timeout = { .tv_sec = (long long)(left / 1000000000u),
					     .tv_nsec = (long long)(left % 1000000000u) };
	struct io_uring_cqe *cqe;
	int result;

	result = left ? io_uring_submit_and_wait_timeout(&ring->ring, &cqe, 1, &timeout, NULL)
		      : io_uring_submit_and_get_events(&ring->ring);
	if (result < 0 && result != -ETIME && result != -EINTR && result != -EAGAIN &&
	    result != -EBUSY)
		return result;
	return harvest(ring, cookies, events, max);
}

const struct shmb_poller_ops shmb_poller_uring = {
	.name = "io_uring",
	.open = uring_open,
	.close = uring_close,
	.add = uring_add,
	.remove = uring_remove,
	.wait = uring_wait,
};
