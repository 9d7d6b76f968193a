/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The loop's timers: a binary heap whose top is the timeout of the next wait, so that timers cost
 * no fd and no system call.
 *
 * One array holds all timers: first the heap of those that are set, then the others. So there is
 * room for every timer that exists, and setting one to another time cannot fail.
 */

#include <errno.h>
#include <stdlib.h>

#include "daemon/loop-internal.h"
#include "daemon/loop.h"

struct loop_timer {
	struct loop *loop;
	uint64_t at;
	uint64_t seq; /* orders timers of the same time */
	size_t index; /* in loop->timers */
	void (*fired)(void *data);
	void *data;
};

static bool timer_before(const struct loop_timer *a, const struct loop_timer *b)
{
	return a->at < b->at || (a->at == b->at && a->seq < b->seq);
}

static void heap_put(struct loop *loop, struct loop_timer *timer, size_t index)
{
	loop->timers[index] = timer;
	timer->index = index;
}

/* Move @timer from the hole at @index to where it belongs. */
static void heap_sift(struct loop *loop, struct loop_timer *timer, size_t index)
{
	while (index > 0 && timer_before(timer, loop->timers[(index - 1) / 2])) {
		heap_put(loop, loop->timers[(index - 1) / 2], index);
		index = (index - 1) / 2;
	}
	for (;;) {
		size_t child = index * 2 + 1;

		if (child + 1 < loop->n_armed &&
		    timer_before(loop->timers[child + 1], loop->timers[child]))
			child++;
		if (child >= loop->n_armed || !timer_before(loop->timers[child], timer))
			break;
		heap_put(loop, loop->timers[child], index);
		index = child;
	}
	heap_put(loop, timer, index);
}

static bool timer_armed(const struct loop_timer *timer)
{
	return timer->index < timer->loop->n_armed;
}

static void timer_disarm(struct loop_timer *timer)
{
	struct loop *loop = timer->loop;
	size_t index = timer->index;
	struct loop_timer *last;

	if (!timer_armed(timer))
		return;
	last = loop->timers[--loop->n_armed];
	heap_put(loop, timer, loop->n_armed);
	if (last != timer)
		heap_sift(loop, last, index);
}

void loop_timer_move(struct loop_timer *timer, uint64_t at_ns)
{
	struct loop *loop = timer->loop;

	timer_disarm(timer);
	timer->at = at_ns;
	timer->seq = loop->timer_seq++;
	if (at_ns == UINT64_MAX)
		return;
	heap_put(loop, loop->timers[loop->n_armed], timer->index);
	heap_sift(loop, timer, loop->n_armed++);
}

int loop_timer_at(struct loop *loop, uint64_t at_ns, void (*fired)(void *data), void *data,
		  struct loop_timer **ret)
{
	struct loop_timer *timer;

	if (loop->n_timers == loop->timer_room) {
		size_t room = loop->timer_room ? loop->timer_room * 2 : 64;
		struct loop_timer **timers = realloc(loop->timers, room * sizeof(*timers));

		if (!timers)
			return -ENOMEM;
		loop->timers = timers;
		loop->timer_room = room;
	}
	timer = malloc(sizeof(*timer));
	if (!timer)
		return -ENOMEM;
	*timer = (struct loop_timer){
		.loop = loop,
		.fired = fired,
		.data = data,
	};
	heap_put(loop, timer, loop->n_timers++);
	loop_timer_move(timer, at_ns);
	*ret = timer;
	return 0;
}

struct loop_timer *loop_timer_cancel(struct loop_timer *timer)
{
	if (timer) {
		struct loop *loop = timer->loop;

		timer_disarm(timer);
		heap_put(loop, loop->timers[--loop->n_timers], timer->index);
		free(timer);
	}
	return NULL;
}

uint64_t timers_next(const struct loop *loop)
{
	return loop->n_armed ? loop->timers[0]->at : UINT64_MAX;
}

void timers_run(struct loop *loop)
{
	/* One that is set to the past again and again must not keep events from being seen. */
	uint64_t end = loop->timer_seq;

	while (loop->n_armed && loop->timers[0]->at <= loop->now) {
		struct loop_timer *timer = loop->timers[0];

		if (timer->seq >= end)
			break;
		timer_disarm(timer);
		timer->fired(timer->data);
	}
}

void timers_free(struct loop *loop)
{
	while (loop->n_timers)
		loop_timer_cancel(loop->timers[0]);
	free(loop->timers);
}
