/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What calls cost by themselves: publisher and subscribers in one process, so that no cache line
 * travels, and only the calls in question are timed.
 */

#include <errno.h>

#include "ends.h"

enum call {
	PUBLISH, /* to subscribers that are awake */
	RECEIVE, /* a record that is there */
	SEND_TO_FULL, /* -EAGAIN */
	POLL_EMPTY, /* -EAGAIN */
};

#define TURN 256u /* records, then the other end has its turn */

static int open_ends(struct bench_workload *work, unsigned int side)
{
	struct shmb_channel *channel;

	if (side == 1)
		return 0;
	if (!bench_new_ends(work))
		return -1;
	channel = bench_channel(work, "here");
	if (!channel || bench_add_publishers(work, channel, 1) < 0 ||
	    bench_add_subscribers(work, channel, work->n_subscribers, 0) < 0)
		return -1;
	return bench_wait_members(work, channel, 1, work->n_subscribers);
}

static void send(struct bench_workload *work, uint32_t n)
{
	struct bench_ends *ends = work->state;

	for (uint32_t i = 0; i < n; i++)
		if (shmb_publisher_send(ends->publishers[0], ends->buffer, work->size) < 0)
			bench_die("cannot send: %s", bench_last_error());
}

static void receive(struct bench_workload *work, uint32_t n)
{
	struct bench_ends *ends = work->state;

	for (uint32_t i = 0; i < n * ends->n_subscribers; i++)
		if (shmb_subscriber_recv(ends->subscribers[i % ends->n_subscribers], ends->buffer,
					 work->size) < 0)
			bench_die("cannot receive: %s", bench_last_error());
}

static double take_turns(struct bench_workload *work, uint64_t ops)
{
	uint64_t ns = 0, began, sent, received;

	for (uint64_t done = 0; done < ops;) {
		uint32_t n = ops - done < TURN ? (uint32_t)(ops - done) : TURN;

		began = bench_now_ns();
		send(work, n);
		sent = bench_now_ns();
		receive(work, n);
		received = bench_now_ns();
		ns += work->flavour == PUBLISH ? sent - began : received - sent;
		done += n;
	}
	return (double)ns;
}

static double fail(struct bench_workload *work, uint64_t ops)
{
	struct bench_ends *ends = work->state;
	uint64_t began;

	if (work->flavour == SEND_TO_FULL)
		while (!shmb_publisher_send(ends->publishers[0], ends->buffer, work->size))
			;
	began = bench_now_ns();
	for (uint64_t i = 0; i < ops; i++) {
		int32_t result =
			work->flavour == SEND_TO_FULL
				? shmb_publisher_send(ends->publishers[0], ends->buffer, work->size)
				: shmb_subscriber_recv(ends->subscribers[0], ends->buffer,
						       work->size);

		if (result != -EAGAIN)
			bench_die("%s: not -EAGAIN", work->name);
	}
	return (double)(bench_now_ns() - began);
}

static double nothing(struct bench_workload *work, uint64_t ops)
{
	(void)work;
	(void)ops;
	return 0;
}

static const struct bench_driver turns = { .open = open_ends, .run = { take_turns, nothing } };
static const struct bench_driver failing = { .open = open_ends, .run = { fail, nothing } };

static void add(const char *variant, const char *label, enum call call, uint32_t n_subscribers)
{
	struct bench_workload *work;

	work = bench_add("local", variant, "shmb", label, call >= SEND_TO_FULL ? &failing : &turns,
			 8);
	work->place = BENCH_ALONE;
	work->flavour = call;
	work->n_subscribers = n_subscribers;
}

void bench_add_local(void)
{
	add("send-0", "send, no subscriber", PUBLISH, 0);
	add("send-1", "send, 1 subscriber awake", PUBLISH, 1);
	add("send-8", "send, 8 subscribers awake", PUBLISH, 8);
	add("recv", "recv, a record is there", RECEIVE, 1);
	add("recv-empty", "recv, nothing there (-EAGAIN)", POLL_EMPTY, 1);
	add("send-full", "send, ring is full (-EAGAIN)", SEND_TO_FULL, 1);
}
