/* SPDX-License-Identifier: Apache-2.0 */

/* The back ends of wait sets, alone. */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/poller.h"

#include "tests/unit/fixture.h"

#define N_FDS 64 /* as many as the ring takes at once */

#if __has_include(<liburing.h>)

#include <liburing.h>

/* Not there where the library is built without it all the same. */
extern __attribute__((weak)) int __real_io_uring_submit(struct io_uring *ring);
extern __attribute__((weak)) int
__real_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					unsigned n, struct __kernel_timespec *timeout,
					sigset_t *mask);
int __wrap_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					    unsigned n, struct __kernel_timespec *timeout,
					    sigset_t *mask);

static bool is_clogged; /* the kernel takes no requests, but completes those it has */

int __wrap_io_uring_submit(struct io_uring *ring)
{
	return is_clogged ? -EBUSY : __real_io_uring_submit(ring);
}

int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					    unsigned n, struct __kernel_timespec *timeout,
					    sigset_t *mask)
{
	if (!is_clogged)
		return __real_io_uring_submit_and_wait_timeout(ring, cqe, n, timeout, mask);
	syscall(__NR_io_uring_enter, ring->ring_fd, 0, 0, IORING_ENTER_GETEVENTS, NULL, 0);
	return -EBUSY;
}

START_TEST(a_poll_that_cannot_be_armed_again_is_an_error)
{
	struct shmb_poller poller = { .epoll_fd = -1 };
	uint64_t cookies[N_FDS], one = 1;
	int fds[N_FDS], ready;
	uint32_t events[N_FDS];

	if (shmb_poller_uring.open(&poller) < 0) {
		printf("no io_uring here, case skipped\n");
		return;
	}
	ready = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ok(shmb_poller_uring.add(&poller, ready, POLLIN, false, 4711));
	ck_assert_int_eq(shmb_poller_uring.wait(&poller, cookies, events, N_FDS, 1), 0);
	/* It has completed by the next wait, but for its new poll there is no room. */
	ck_assert_int_eq(write(ready, &one, sizeof(one)), sizeof(one));
	for (int i = 0; i < N_FDS; i++) {
		fds[i] = eventfd(0, EFD_CLOEXEC);
		ok(shmb_poller_uring.add(&poller, fds[i], POLLIN, false, (uint64_t)i));
	}
	is_clogged = true;
	refused(shmb_poller_uring.add(&poller, 0, POLLIN, false, 1), -EBUSY);
	refused(shmb_poller_uring.remove(&poller, fds[0], 0), -EBUSY);
	refused(shmb_poller_uring.wait(&poller, cookies, events, N_FDS,
				       shmb_clock_now_ns() + 1000000),
		-EBUSY);
	is_clogged = false;
	shmb_poller_uring.close(&poller);
	for (int i = 0; i < N_FDS; i++)
		close(fds[i]);
	close(ready);
}
END_TEST

#endif

int main(void)
{
	TCase *gated = gated_case("poller");

#if __has_include(<liburing.h>)
	tcase_add_test(gated, a_poll_that_cannot_be_armed_again_is_an_error);
#endif
	return run_suite("poller", &gated, 1);
}
