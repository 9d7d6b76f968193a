/* SPDX-License-Identifier: Apache-2.0 */

/* ZeroMQ over ipc://, a PAIR socket on each side; its I/O threads run where they like. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "bench.h"

struct end {
	void *socket;
	uint8_t *buffer;
};

static int prepare(struct bench_workload *work)
{
	snprintf(work->area, work->area_len, "ipc://@shmb-bench-%d-%s", (int)getpid(), work->name);
	return 0;
}

static int open_end(struct bench_workload *work, unsigned int side)
{
	static void *context;
	struct end *end = calloc(1, sizeof(*end));
	int result = -1, high_water = 0;

	work->state = end;
	if (end)
		end->buffer = calloc(1, work->size);
	if (!end || !end->buffer)
		return bench_skip(work, "no memory");
	bench_unpin();
	if (!context)
		context = zmq_ctx_new();
	end->socket = context ? zmq_socket(context, ZMQ_PAIR) : NULL;
	if (end->socket) {
		/* 0 would be no limit at all: the sender must not run away. */
		high_water = work->size > 1 << 16 ? 8 : 1000;
		zmq_setsockopt(end->socket, ZMQ_SNDHWM, &high_water, sizeof(high_water));
		zmq_setsockopt(end->socket, ZMQ_RCVHWM, &high_water, sizeof(high_water));
		result = side == 0 ? zmq_bind(end->socket, work->area)
				   : zmq_connect(end->socket, work->area);
	}
	bench_pin_again();
	return result < 0 ? bench_skip(work, "ZeroMQ: %s", zmq_strerror(errno)) : 0;
}

/* With @flags ZMQ_DONTWAIT it spins. */
static inline void send(struct end *end, uint32_t size, uint64_t value, int flags)
{
	memcpy(end->buffer, &value, sizeof(value));
	while (zmq_send(end->socket, end->buffer, size, flags) < 0) {
		if (errno != EAGAIN && errno != EINTR)
			bench_die("ZeroMQ cannot send: %s", zmq_strerror(errno));
		bench_pause();
	}
}

static inline uint64_t receive(struct end *end, uint32_t size, int flags)
{
	uint64_t value;

	while (zmq_recv(end->socket, end->buffer, size, flags) < 0) {
		if (errno != EAGAIN && errno != EINTR)
			bench_die("ZeroMQ cannot receive: %s", zmq_strerror(errno));
		bench_pause();
	}
	memcpy(&value, end->buffer, sizeof(value));
	return value;
}

static double ping(struct bench_workload *work, uint64_t ops)
{
	int flags = work->sleeps ? 0 : ZMQ_DONTWAIT;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < ops; i++) {
		send(work->state, work->size, i, flags);
		sum += receive(work->state, work->size, flags);
	}
	bench_check_sum(work, sum, ops);
	return 0;
}

static double pong(struct bench_workload *work, uint64_t ops)
{
	int flags = work->sleeps ? 0 : ZMQ_DONTWAIT;

	for (uint64_t i = 0; i < ops; i++)
		send(work->state, work->size, receive(work->state, work->size, flags), flags);
	return 0;
}

static double produce(struct bench_workload *work, uint64_t ops)
{
	for (uint64_t i = 0; i < ops; i++)
		send(work->state, work->size, i, 0);
	return 0;
}

static double consume(struct bench_workload *work, uint64_t ops)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < ops; i++)
		sum += receive(work->state, work->size, 0);
	bench_check_sum(work, sum, ops);
	return 0;
}

static const struct bench_driver rtt = { prepare, open_end, { ping, pong } };
static const struct bench_driver stream = { prepare, open_end, { produce, consume } };

static void finish(struct bench_workload *work)
{
	work->area_len = 128;
	work->threads = true;
}

void bench_add_zmq(void)
{
	static const char label[] = "ZeroMQ ipc:// PAIR";

	for (size_t i = 0; i < BENCH_ARRAY_LEN(bench_rtt_sizes); i++)
		finish(bench_add("rtt", NULL, "zmq", label, &rtt, bench_rtt_sizes[i]));
	for (size_t i = 0; i < BENCH_ARRAY_LEN(bench_stream_sizes); i++)
		finish(bench_add("stream", NULL, "zmq", label, &stream, bench_stream_sizes[i]));
	finish(bench_add_sleep("one-core", "zmq", label, &rtt));
	finish(bench_add_sleep("two-cores", "zmq", label, &rtt));
}
