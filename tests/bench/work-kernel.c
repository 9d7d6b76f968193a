/* SPDX-License-Identifier: Apache-2.0 */

/* What the kernel offers: pipes and local sockets, polled, slept on, and streamed through. */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench.h"

enum kind {
	PIPE,
	STREAM,
	SEQPACKET,
};

/**
 * struct ends - the fds of a workload
 * @in:	    of each side
 * @out:    of each side
 * @buffer: a record; private once forked
 */
struct ends {
	int in[2];
	int out[2];
	uint8_t *buffer;
};

static int make_pipes(struct ends *ends, uint32_t size)
{
	int there[2], back[2];

	if (pipe(there) < 0 || pipe(back) < 0)
		return -1;
	/* The largest that every user may have; less leaves it slower, not wrong. */
	if (size > 4096)
		(void)fcntl(there[0], F_SETPIPE_SZ, 1 << 20);
	ends->in[0] = back[0];
	ends->in[1] = there[0];
	ends->out[0] = there[1];
	ends->out[1] = back[1];
	return 0;
}

static int make_sockets(struct ends *ends, enum kind kind, uint32_t size)
{
	int fds[2], len = 4 * (int)size;

	if (socketpair(AF_UNIX, kind == STREAM ? SOCK_STREAM : SOCK_SEQPACKET, 0, fds) < 0)
		return -1;
	for (unsigned int side = 0; side < 2; side++) {
		if (size > 1 << 16 &&
		    setsockopt(fds[side], SOL_SOCKET, SO_SNDBUFFORCE, &len, sizeof(len)) < 0)
			setsockopt(fds[side], SOL_SOCKET, SO_SNDBUF, &len, sizeof(len));
		ends->in[side] = ends->out[side] = fds[side];
	}
	return 0;
}

static int prepare(struct bench_workload *work)
{
	struct ends *ends = calloc(1, sizeof(*ends));
	int result;

	if (!ends)
		return bench_skip(work, "no memory");
	work->state = ends;
	ends->buffer = calloc(1, work->size);
	if (work->flavour == PIPE)
		result = make_pipes(ends, work->size);
	else
		result = make_sockets(ends, work->flavour, work->size);
	if (result < 0 || !ends->buffer)
		return bench_skip(work, "no fds or memory: %s", strerror(errno));
	for (unsigned int side = 0; side < 2 && !strcmp(work->group, "rtt"); side++) {
		fcntl(ends->in[side], F_SETFL, O_NONBLOCK);
		fcntl(ends->out[side], F_SETFL, O_NONBLOCK);
	}
	return 0;
}

/* A datagram has to fit into the socket's buffer as a whole. */
static int open_ends(struct bench_workload *work, unsigned int side)
{
	struct ends *ends = work->state;
	socklen_t len = sizeof(int);
	int room = 0;

	if (work->flavour != SEQPACKET)
		return 0;
	getsockopt(ends->out[side], SOL_SOCKET, SO_SNDBUF, &room, &len);
	if (room < (int)work->size + 4096)
		return bench_skip(work, "a socket buffer of %d bytes is all we may have", room);
	return 0;
}

static inline void send_all(struct ends *ends, unsigned int side, uint32_t size, uint64_t value)
{
	uint8_t *from = ends->buffer;

	memcpy(from, &value, sizeof(value));
	while (size) {
		ssize_t n = write(ends->out[side], from, size);

		if (n < 0 && errno != EAGAIN)
			bench_die("cannot write: %s", strerror(errno));
		if (n <= 0) {
			bench_pause();
			continue;
		}
		from += n;
		size -= (uint32_t)n;
	}
}

static inline uint64_t receive_all(struct ends *ends, unsigned int side, uint32_t size)
{
	uint8_t *to = ends->buffer;
	uint64_t value;

	while (size) {
		ssize_t n = read(ends->in[side], to, size);

		if (n == 0 || (n < 0 && errno != EAGAIN))
			bench_die("cannot read: %s",
				  n ? strerror(errno) : "the other side has gone");
		if (n < 0) {
			bench_pause();
			continue;
		}
		to += n;
		size -= (uint32_t)n;
	}
	memcpy(&value, ends->buffer, sizeof(value));
	return value;
}

static double ping(struct bench_workload *work, uint64_t ops)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < ops; i++) {
		send_all(work->state, 0, work->size, i);
		sum += receive_all(work->state, 0, work->size);
	}
	bench_check_sum(work, sum, ops);
	return 0;
}

static double pong(struct bench_workload *work, uint64_t ops)
{
	for (uint64_t i = 0; i < ops; i++)
		send_all(work->state, 1, work->size, receive_all(work->state, 1, work->size));
	return 0;
}

static double produce(struct bench_workload *work, uint64_t ops)
{
	for (uint64_t i = 0; i < ops; i++)
		send_all(work->state, 0, work->size, i);
	return 0;
}

static double consume(struct bench_workload *work, uint64_t ops)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < ops; i++)
		sum += receive_all(work->state, 1, work->size);
	bench_check_sum(work, sum, ops);
	return 0;
}

static const struct bench_driver rtt = { prepare, open_ends, { ping, pong } };
static const struct bench_driver stream = { prepare, open_ends, { produce, consume } };

void bench_add_kernel(void)
{
	static const struct {
		const char *name, *label;
	} kinds[] = { { "pipe", "pipe" },
		      { "unix-stream", "AF_UNIX stream" },
		      { "unix-seqpacket", "AF_UNIX seqpacket" } };
	struct bench_workload *work;

	for (uint32_t kind = 0; kind < BENCH_ARRAY_LEN(kinds); kind++) {
		const char *name = kinds[kind].name, *label = kinds[kind].label;

		for (size_t i = 0; i < BENCH_ARRAY_LEN(bench_rtt_sizes); i++) {
			work = bench_add("rtt", NULL, name, label, &rtt, bench_rtt_sizes[i]);
			work->flavour = kind;
		}
		for (size_t i = 0; i < BENCH_ARRAY_LEN(bench_stream_sizes); i++) {
			work = bench_add("stream", NULL, name, label, &stream,
					 bench_stream_sizes[i]);
			work->flavour = kind;
			work->sleeps = true;
		}
		work = bench_add_sleep("one-core", name, label, &rtt);
		work->flavour = kind;
		work = bench_add_sleep("two-cores", name, label, &rtt);
		work->flavour = kind;
	}
}
