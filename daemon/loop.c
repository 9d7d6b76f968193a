/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The broker's event loop, common part: which sources exist, what each waits for, and in which
 * order things happen in one turn of the loop.
 *
 * A turn is: wait, report results, timers, deferred calls, tell the kernel what changed, free what
 * was closed. So a closed object is never freed under a callback, a result that comes late finds
 * the source's generation gone, and an idle loop sleeps without a tick. Errors that would come back
 * at once (no free fd for accept) are retried after a pause or when an fd was closed.
 */

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "daemon/loop-internal.h"
#include "daemon/loop.h"

#define NSEC_PER_MSEC 1000000U

#define RETRY_NS  (100U * NSEC_PER_MSEC)
#define RESYNC_NS NSEC_PER_MSEC

uint64_t clock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* Sources and their slots. */

static int slots_grow(struct loop *loop)
{
	uint32_t n = loop->n_slots ? loop->n_slots * 2 : 64;
	struct source_slot *slots = realloc(loop->slots, n * sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	for (uint32_t i = loop->n_slots; i < n; i++)
		slots[i] = (struct source_slot){ .next_free = i + 1 };
	loop->slots = slots;
	/* free_slot, which said "none", is the first new one. */
	loop->n_slots = n;
	return 0;
}

int source_init(struct loop_source *source, struct loop *loop, enum source_kind kind, int fd)
{
	int r = loop->free_slot == loop->n_slots ? slots_grow(loop) : 0;
	struct source_slot *slot;

	if (r < 0)
		return r;
	*source = (struct loop_source){
		.loop = loop,
		.fd = fd,
		.kind = kind,
		.slot = loop->free_slot,
	};
	slot = &loop->slots[source->slot];
	loop->free_slot = slot->next_free;
	slot->source = source;
	loop->n_sources++;
	return 0;
}

uint64_t source_token(const struct loop_source *source)
{
	return (uint64_t)source->loop->slots[source->slot].generation << 32 | source->slot;
}

struct loop_source *source_find(struct loop *loop, uint64_t token)
{
	uint32_t slot = (uint32_t)token;

	if (slot >= loop->n_slots || loop->slots[slot].generation != token >> 32)
		return NULL;
	return loop->slots[slot].source;
}

void source_dirty(struct loop_source *source)
{
	if (source->dirty)
		return;
	source->dirty = true;
	source->next = source->loop->dirty;
	source->loop->dirty = source;
}

void source_want(struct loop_source *source, enum source_op op)
{
	if (source->wanted & op)
		return;
	source->wanted |= op;
	source_dirty(source);
}

void source_retry(struct loop_source *source)
{
	struct loop *loop = source->loop;

	if (source->retry)
		return;
	source->retry = true;
	source->next_retry = loop->retry;
	loop->retry = source;
	/* The engine has to stop waiting on it meanwhile. */
	source_dirty(source);
	if (loop->retry_at == UINT64_MAX)
		loop->retry_at = loop->now + RETRY_NS;
}

static void sources_retry_now(struct loop *loop)
{
	struct loop_source *source;

	while ((source = loop->retry)) {
		loop->retry = source->next_retry;
		source->retry = false;
		if (!source->closed)
			source_want(source, source->kind == SOURCE_LISTENER ? OP_ACCEPT : OP_POLL);
	}
	loop->retry_at = UINT64_MAX;
}

void source_bury(struct loop_source *source)
{
	if (source->buried)
		return;
	source->buried = true;
	source->next_dead = source->loop->dead;
	source->loop->dead = source;
}

void source_close(struct loop_source *source)
{
	if (source->closed)
		return;
	source->closed = true;
	source->wanted = 0;
	source->loop->engine->drop(source);
}

static void source_free(struct loop_source *source)
{
	struct loop *loop = source->loop;
	struct source_slot *slot = &loop->slots[source->slot];
	struct loop_source **link = &loop->retry;

	if (source->retry) {
		while (*link != source)
			link = &(*link)->next_retry;
		*link = source->next_retry;
	}
	slot->source = NULL;
	slot->generation++;
	slot->next_free = loop->free_slot;
	loop->free_slot = source->slot;
	loop->n_sources--;
	if (source->kind == SOURCE_CONN)
		conn_release(conn_of(source));
	else
		free(source);
}

/* Bring the kernel up to date, then free what it has let go of. */
static void sources_sync(struct loop *loop)
{
	struct loop_source *source;
	bool closed_fd = false;

	while ((source = loop->dirty)) {
		if (loop->engine->sync(source) < 0)
			break;
		loop->dirty = source->next;
		source->dirty = false;
	}
	if (loop->dirty)
		return;
	while ((source = loop->dead)) {
		loop->dead = source->next_dead;
		closed_fd |= source->kind == SOURCE_CONN;
		source_free(source);
	}
	if (closed_fd && loop->retry)
		sources_retry_now(loop);
}

/* Watches. */

static void watch_complete(struct loop_watch *watch, int result)
{
	struct loop_source *source = &watch->source;

	if (result < 0) {
		source_retry(source);
		return;
	}
	watch->ready(watch->data);
	if (!watch->once && !source->closed)
		source_want(source, OP_POLL);
}

int loop_watch(struct loop *loop, int fd, bool once, void (*ready)(void *data), void *data,
	       struct loop_watch **ret)
{
	struct loop_watch *watch = malloc(sizeof(*watch));
	int r;

	if (!watch)
		return -ENOMEM;
	r = source_init(&watch->source, loop, SOURCE_WATCH, fd);
	if (r < 0) {
		free(watch);
		return r;
	}
	watch->ready = ready;
	watch->data = data;
	watch->once = once;
	source_want(&watch->source, OP_POLL);
	*ret = watch;
	return 0;
}

struct loop_watch *loop_unwatch(struct loop_watch *watch)
{
	if (watch)
		source_close(&watch->source);
	return NULL;
}

void source_complete(struct loop_source *source, enum source_op op, int result, bool more)
{
	if (!more)
		source->wanted &= (uint8_t)~op;
	if (source->closed) {
		if (op == OP_ACCEPT && result >= 0)
			loop_close_peer(source->loop, result);
		return;
	}
	/* The engine compares what is wanted with what it has only for dirty sources. */
	source_dirty(source);
	switch (op) {
	case OP_ACCEPT:
		listener_accepted((struct loop_listener *)(void *)source, result, more);
		break;
	case OP_RECV:
		conn_received(conn_of(source), result);
		break;
	case OP_SEND:
		conn_sent(conn_of(source), result);
		break;
	case OP_POLL:
		watch_complete((struct loop_watch *)(void *)source, result);
		break;
	}
}

/* Deferred calls. */

void loop_defer(struct loop *loop, struct loop_deferred *deferred)
{
	if (deferred->prev)
		return;
	deferred->next = NULL;
	deferred->prev = loop->deferred_tail;
	*loop->deferred_tail = deferred;
	loop->deferred_tail = &deferred->next;
}

void loop_defer_cancel(struct loop *loop, struct loop_deferred *deferred)
{
	if (!deferred->prev)
		return;
	*deferred->prev = deferred->next;
	if (deferred->next)
		deferred->next->prev = deferred->prev;
	else if (loop->deferred_tail == &deferred->next)
		loop->deferred_tail = deferred->prev;
	deferred->prev = NULL;
	deferred->next = NULL;
}

static void deferred_run(struct loop *loop)
{
	struct loop_deferred *deferred;

	/* What these calls add waits for the next turn. */
	loop->deferred_now = loop->deferred;
	if (!loop->deferred)
		return;
	loop->deferred->prev = &loop->deferred_now;
	loop->deferred = NULL;
	loop->deferred_tail = &loop->deferred;
	while ((deferred = loop->deferred_now)) {
		loop_defer_cancel(loop, deferred);
		deferred->run(deferred->data);
	}
}

/* The loop. */

int loop_new(enum loop_backend backend, struct loop **ret_loop)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int r = -ENOSYS;

	if (!loop)
		return -ENOMEM;
	loop->spare_fd = -1;
	loop->retry_at = UINT64_MAX;
	loop->deferred_tail = &loop->deferred;
	loop->now = clock_now_ns();

	/*
	 * In a 32-bit process under a 64-bit kernel, messages with fds that io_uring was to send when
	 * there is room again do not arrive.
	 */
	if (backend == LOOP_URING || (backend == LOOP_AUTO && sizeof(void *) >= 8)) {
		loop->engine = &loop_engine_uring;
		r = loop->engine->open(loop);
	}
	if (r < 0 && backend != LOOP_URING) {
		loop->engine = &loop_engine_epoll;
		r = loop->engine->open(loop);
	}
	if (r < 0) {
		free(loop);
		return r;
	}
	*ret_loop = loop;
	return 0;
}

/* The engine may still hold buffers of what is being closed: let it finish, but not for ever. */
static void sources_drain(struct loop *loop)
{
	uint64_t until = clock_now_ns() + 1000U * NSEC_PER_MSEC;
	int r = 0;

	for (uint32_t i = 0; i < loop->n_slots; i++) {
		if (loop->slots[i].source)
			source_close(loop->slots[i].source);
	}
	sources_sync(loop);
	while (loop->n_sources && r >= 0 && loop->now < until) {
		r = loop->engine->wait(loop, until);
		sources_sync(loop);
	}
}

struct loop *loop_free(struct loop *loop)
{
	if (!loop)
		return NULL;
	sources_drain(loop);
	loop->engine->close(loop);
	/*
	 * Left over only if io_uring_enter() has come to fail. Operations run on this thread inside
	 * that call and nowhere else, so now that the ring is gone nobody uses the buffers.
	 */
	for (uint32_t i = 0; i < loop->n_slots; i++) {
		if (loop->slots[i].source)
			source_free(loop->slots[i].source);
	}
	timers_free(loop);
	reaper_free(loop);
	if (loop->spare_fd >= 0)
		close(loop->spare_fd);
	free(loop->slots);
	free(loop);
	return NULL;
}

const char *loop_backend_name(const struct loop *loop)
{
	return loop->engine->name;
}

uint64_t loop_now_ns(const struct loop *loop)
{
	return loop->now;
}

void loop_stop(struct loop *loop, int code)
{
	if (loop->stopped)
		return;
	loop->stopped = true;
	loop->code = code;
}

void loop_set_gate(struct loop *loop, bool (*gate)(void *data), void *data)
{
	loop->gate = gate;
	loop->gate_data = data;
}

bool loop_may_go_on(struct loop *loop)
{
	if (!loop->gate || loop->gate(loop->gate_data))
		return true;
	loop_stop(loop, -ESTALE);
	return false;
}

static uint64_t loop_deadline(const struct loop *loop)
{
	uint64_t deadline = timers_next(loop);

	if (loop->deferred)
		return 0;
	if (loop->retry_at < deadline)
		deadline = loop->retry_at;
	/* The engine could not take everything: the kernel is short of memory. */
	if (loop->dirty && loop->now + RESYNC_NS < deadline)
		deadline = loop->now + RESYNC_NS;
	return deadline;
}

int loop_run(struct loop *loop)
{
	int r = 0;

	while (!loop->stopped && r >= 0) {
		sources_sync(loop);
		r = loop->engine->wait(loop, loop_deadline(loop));
		if (!loop_may_go_on(loop))
			break;
		if (loop->now >= loop->retry_at)
			sources_retry_now(loop);
		timers_run(loop);
		deferred_run(loop);
	}
	if (r < 0)
		return r;
	loop->stopped = false;
	return loop->code;
}
