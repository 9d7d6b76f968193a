/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The loop on io_uring: one enter per turn submits everything and waits.
 *
 * The ring belongs to one thread, runs completions only inside io_uring_enter() and is restricted
 * to the five operations below. Every operation carries the name (slot and generation) of its
 * source, and is cancelled by that name, never by fd, so neither a late completion nor a late
 * cancellation can reach a new object. A source is let go of at its last completion.
 */

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "daemon/loop-internal.h"

#define SQ_ENTRIES 256
#define CQ_ENTRIES 4096
#define CQE_BATCH  256

#define SELF_TEST_NS 100000000U

/* user_data: generation, slot, and operation in the top bits of the slot's half. */
#define OP_SHIFT 27
#define OP_MASK	 ((uint64_t)0x1f << OP_SHIFT)
#define OP_NONE	 16

struct engine_uring {
	struct io_uring ring;
};

static uint64_t op_token(const struct loop_source *source, unsigned op)
{
	return source_token(source) | (uint64_t)op << OP_SHIFT;
}

/* By system call: liburing 2.3 declares the helpers but its shared library lacks them. */
static int uring_register(const struct io_uring *ring, unsigned opcode, void *arg, unsigned n)
{
	return syscall(__NR_io_uring_register, ring->ring_fd, opcode, arg, n) < 0 ? -errno : 0;
}

/* Seccomp does not see operations; this is what keeps a broker taken over from opening files. */
static int uring_restrict(const struct io_uring *ring)
{
	static const uint8_t allowed[] = {
		IORING_OP_NOP,	   IORING_OP_ACCEPT,	   IORING_OP_RECVMSG,
		IORING_OP_SENDMSG, IORING_OP_ASYNC_CANCEL, IORING_OP_POLL_ADD,
	};
	enum {
		N_ALLOWED = sizeof(allowed) / sizeof(allowed[0])
	};
	struct io_uring_restriction rules[N_ALLOWED];
	int r;

	memset(rules, 0, sizeof(rules));
	for (unsigned i = 0; i < N_ALLOWED; i++) {
		rules[i].opcode = IORING_RESTRICTION_SQE_OP;
		rules[i].sqe_op = allowed[i];
	}
	r = uring_register(ring, IORING_REGISTER_RESTRICTIONS, rules, N_ALLOWED);
	return r < 0 ? r : uring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

static int uring_wait_one(struct io_uring *ring, unsigned op, int *ret_result)
{
	struct __kernel_timespec timeout = { .tv_nsec = SELF_TEST_NS };
	struct io_uring_cqe *cqe;
	int r = io_uring_submit_and_wait_timeout(ring, &cqe, 1, &timeout, NULL);

	if (r < 0)
		return r;
	if (!cqe || cqe->user_data != op)
		return -EIO;
	*ret_result = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return 0;
}

/* Sandboxes that emulate the system calls may let a ring be made that then does nothing. */
static int uring_self_test(struct io_uring *ring)
{
	const uint64_t one = 1;
	struct io_uring_sqe *sqe;
	int result = 0;
	int fd;
	int r;

	sqe = io_uring_get_sqe(ring);
	io_uring_prep_nop(sqe);
	sqe->user_data = 1;
	r = uring_wait_one(ring, 1, &result);
	if (r < 0 || result < 0)
		return r < 0 ? r : result;

	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_poll_add(sqe, fd, POLLIN);
	sqe->user_data = 2;
	r = io_uring_submit(ring);
	if (r >= 0)
		r = write(fd, &one, sizeof(one)) < 0 ? -errno : 0;
	if (r >= 0)
		r = uring_wait_one(ring, 2, &result);
	close(fd);
	if (r >= 0 && result != POLLIN)
		r = result < 0 ? result : -EIO;
	return r;
}

static int uring_open(struct loop *loop)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			 IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |
			 IORING_SETUP_R_DISABLED,
		.cq_entries = CQ_ENTRIES,
	};
	struct engine_uring *engine = calloc(1, sizeof(*engine));
	int r;

	if (!engine)
		return -ENOMEM;
	r = io_uring_queue_init_params(SQ_ENTRIES, &engine->ring, &params);
	if (r < 0) {
		free(engine);
		return r;
	}
	/* A child of the host process has no business in it. */
	io_uring_ring_dontfork(&engine->ring);
	r = uring_restrict(&engine->ring);
	if (r == 0)
		r = uring_self_test(&engine->ring);
	if (r < 0) {
		io_uring_queue_exit(&engine->ring);
		free(engine);
		return r;
	}
	loop->engine_data = engine;
	return 0;
}

static void uring_close(struct loop *loop)
{
	struct engine_uring *engine = loop->engine_data;

	io_uring_queue_exit(&engine->ring);
	free(engine);
}

static struct io_uring_sqe *uring_sqe(struct loop *loop)
{
	struct engine_uring *engine = loop->engine_data;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&engine->ring);

	if (!sqe && io_uring_submit(&engine->ring) >= 0)
		sqe = io_uring_get_sqe(&engine->ring);
	return sqe;
}

static void uring_prepare(struct loop_source *source, enum source_op op, struct io_uring_sqe *sqe)
{
	struct loop_conn *conn;
	int flags;

	switch (op) {
	case OP_ACCEPT:
		io_uring_prep_multishot_accept(sqe, source->fd, NULL, NULL,
					       SOCK_CLOEXEC | SOCK_NONBLOCK);
		break;
	case OP_RECV:
		conn = conn_of(source);
		flags = conn_prepare_recv(conn);
		io_uring_prep_recvmsg(sqe, source->fd, &conn->recv_msg, (unsigned)flags);
		break;
	case OP_SEND:
		conn = conn_of(source);
		flags = conn_prepare_send(conn);
		io_uring_prep_sendmsg(sqe, source->fd, &conn->send_msg, (unsigned)flags);
		break;
	case OP_POLL:
		/* Not multishot, which reports edges: re-arming is a queue entry, not a call. */
		io_uring_prep_poll_add(sqe, source->fd, POLLIN);
		break;
	}
	sqe->user_data = op_token(source, op);
}

static int uring_sync(struct loop_source *source)
{
	unsigned start = source->wanted & ~source->armed;
	unsigned stop = source->closed ? source->armed & ~source->cancelled : 0U;

	for (unsigned op = OP_ACCEPT; op <= OP_POLL; op <<= 1) {
		struct io_uring_sqe *sqe;

		if (!((start | stop) & op))
			continue;
		sqe = uring_sqe(source->loop);
		if (!sqe)
			return -EAGAIN;
		if (start & op) {
			uring_prepare(source, (enum source_op)op, sqe);
			source->armed |= (uint8_t)op;
		} else {
			io_uring_prep_cancel64(sqe, op_token(source, op), 0);
			sqe->user_data = op_token(source, OP_NONE);
			source->cancelled |= (uint8_t)op;
		}
	}
	return 0;
}

static void uring_drop(struct loop_source *source)
{
	if (source->armed)
		source_dirty(source);
	else
		source_bury(source);
}

static void uring_complete(struct loop *loop, uint64_t token, int result, bool more)
{
	unsigned op = (unsigned)((token & OP_MASK) >> OP_SHIFT);
	struct loop_source *source = source_find(loop, token & ~OP_MASK);

	if (!source || op == OP_NONE)
		return;
	if (!more)
		source->armed &= (uint8_t)~op;
	source_complete(source, (enum source_op)op, result, more);
	if (source->closed && !source->armed)
		source_bury(source);
}

static bool uring_transient(int error)
{
	return error == -ETIME || error == -EINTR || error == -EAGAIN || error == -EBUSY ||
	       error == -ENOMEM;
}

static int uring_wait(struct loop *loop, uint64_t deadline)
{
	struct engine_uring *engine = loop->engine_data;
	struct __kernel_timespec timeout = { 0 };
	struct timespec pause = { .tv_nsec = 1000000 };
	struct io_uring_cqe *cqe;
	int r;

	loop->now = clock_now_ns();
	if (deadline > loop->now && deadline != UINT64_MAX) {
		timeout.tv_sec = (int64_t)((deadline - loop->now) / 1000000000U);
		timeout.tv_nsec = (int64_t)((deadline - loop->now) % 1000000000U);
	}
	r = io_uring_submit_and_wait_timeout(&engine->ring, &cqe, 1,
					     deadline == UINT64_MAX ? NULL : &timeout, NULL);
	if (r < 0 && !uring_transient(r))
		return r;
	/* Short of memory, the kernel says so at once and again. */
	if (r == -ENOMEM || r == -EAGAIN)
		nanosleep(&pause, NULL);
	loop->now = clock_now_ns();
	for (int i = 0; i < CQE_BATCH && io_uring_peek_cqe(&engine->ring, &cqe) == 0; i++) {
		uint64_t token = cqe->user_data;
		int result = cqe->res;
		bool more = cqe->flags & IORING_CQE_F_MORE;

		if (!loop_may_go_on(loop))
			break;
		io_uring_cqe_seen(&engine->ring, cqe);
		uring_complete(loop, token, result, more);
	}
	return 0;
}

const struct loop_engine loop_engine_uring = {
	.name = "io_uring",
	.open = uring_open,
	.close = uring_close,
	.sync = uring_sync,
	.drop = uring_drop,
	.wait = uring_wait,
};
