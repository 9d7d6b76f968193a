/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the machine can do: nothing that two processes agree on is faster than a cache line that
 * travels there and back, a futex that wakes each of them, or a copy that never leaves the core.
 */

#include <linux/futex.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"

/* Two words, a page each, one writer each. */
struct lines {
	_Alignas(4096) uint64_t there;
	_Alignas(4096) uint64_t back;
};

static double ping(struct bench_workload *work, uint64_t ops)
{
	struct lines *lines = work->area;

	for (uint64_t i = lines->there + 1, end = i + ops; i < end; i++) {
		__atomic_store_n(&lines->there, i, __ATOMIC_RELEASE);
		while (__atomic_load_n(&lines->back, __ATOMIC_ACQUIRE) != i)
			bench_pause();
	}
	return 0;
}

static double pong(struct bench_workload *work, uint64_t ops)
{
	struct lines *lines = work->area;

	for (uint64_t i = lines->back + 1, end = i + ops; i < end; i++) {
		while (__atomic_load_n(&lines->there, __ATOMIC_ACQUIRE) != i)
			bench_pause();
		__atomic_store_n(&lines->back, i, __ATOMIC_RELEASE);
	}
	return 0;
}

static const struct bench_driver ping_pong = { .run = { ping, pong } };

/*
 * The same, but neither side may write what it reads, as with a lane. Some processors hand a line over
 * for good if its reader could write it, too, and have to call it back from one that cannot: on AMD
 * (Zen) that takes half as long again.
 */
static int open_guarded(struct bench_workload *work, unsigned int side)
{
	struct lines *lines = work->area;

	if (mprotect(side == 0 ? &lines->back : &lines->there, 4096, PROT_READ) < 0)
		return bench_skip(work, "cannot protect a page");
	return 0;
}

static const struct bench_driver guarded_ping_pong = { .open = open_guarded,
						       .run = { ping, pong } };

/* ---- futex ------------------------------------------------------------------------------------- */

struct futexes {
	_Alignas(128) uint32_t there;
	_Alignas(128) uint32_t back;
};

static void wake(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void sleep_until(uint32_t *word, uint32_t value)
{
	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != value)
		syscall(SYS_futex, word, FUTEX_WAIT, value - 1, NULL, NULL, 0);
}

static double futex_ping(struct bench_workload *work, uint64_t ops)
{
	struct futexes *words = work->area;

	for (uint32_t i = words->there + 1, end = i + (uint32_t)ops; i != end; i++) {
		wake(&words->there, i);
		sleep_until(&words->back, i);
	}
	return 0;
}

static double futex_pong(struct bench_workload *work, uint64_t ops)
{
	struct futexes *words = work->area;

	for (uint32_t i = words->back + 1, end = i + (uint32_t)ops; i != end; i++) {
		sleep_until(&words->there, i);
		wake(&words->back, i);
	}
	return 0;
}

static const struct bench_driver futex = { .run = { futex_ping, futex_pong } };

/* ---- ring of words ----------------------------------------------------------------------------- */

#define RING_LEN 4096u

/* The classic single-producer queue: indices on lines of their own, each side caches the other's. */
struct ring {
	_Alignas(128) uint64_t tail;
	_Alignas(128) uint64_t head;
	_Alignas(128) uint64_t slots[RING_LEN];
};

static double ring_produce(struct bench_workload *work, uint64_t ops)
{
	struct ring *ring = work->area;
	uint64_t tail = ring->tail, head = tail;

	for (uint64_t i = 0; i < ops; i++) {
		while (tail - head == RING_LEN)
			head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);
		ring->slots[tail % RING_LEN] = i;
		__atomic_store_n(&ring->tail, ++tail, __ATOMIC_RELEASE);
	}
	return 0;
}

static double ring_consume(struct bench_workload *work, uint64_t ops)
{
	struct ring *ring = work->area;
	uint64_t head = ring->head, tail = head, sum = 0;

	for (uint64_t i = 0; i < ops; i++) {
		while (head == tail)
			tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
		sum += ring->slots[head % RING_LEN];
		__atomic_store_n(&ring->head, ++head, __ATOMIC_RELEASE);
	}
	bench_check_sum(work, sum, ops);
	return 0;
}

static const struct bench_driver word_ring = { .run = { ring_produce, ring_consume } };

/* ---- memory ------------------------------------------------------------------------------------ */

static int copy_open(struct bench_workload *work, unsigned int side)
{
	if (side == 1)
		return 0;
	work->state = aligned_alloc(4096, 2 * (size_t)work->size);
	if (!work->state)
		return bench_skip(work, "no memory");
	__builtin_memset(work->state, 1, 2 * (size_t)work->size);
	return 0;
}

static double copy(struct bench_workload *work, uint64_t ops)
{
	char *buffer = work->state;

	for (uint64_t i = 0; i < ops; i++) {
		__builtin_memcpy(buffer + work->size, buffer, work->size);
		__asm__ volatile("" : : "r"(buffer) : "memory");
	}
	return 0;
}

static double watch(struct bench_workload *work, uint64_t ops)
{
	(void)work;
	(void)ops;
	return 0;
}

static const struct bench_driver memory = { .open = copy_open, .run = { copy, watch } };

void bench_add_floors(void)
{
	struct bench_workload *work;

	work = bench_add("floor", "line", "rtt", "cache line", &ping_pong, 8);
	work->area_len = sizeof(struct lines);
	work = bench_add("floor", "guarded-line", "rtt", "cache line, read-only for its reader",
			 &guarded_ping_pong, 8);
	work->area_len = sizeof(struct lines);
	work = bench_add("floor", "words", "stream", "ring of words, one way", &word_ring, 8);
	work->area_len = sizeof(struct ring);
	work = bench_add("floor", "memcpy", "16384", "memcpy() of 16 KiB, one core", &memory,
			 16384);
	work->place = BENCH_ALONE;
	work = bench_add("floor", "memcpy", "1048576", "memcpy() of 1 MiB, one core", &memory,
			 1048576);
	work->place = BENCH_ALONE;
	bench_add_sleep("one-core", "futex", "futex", &futex)->area_len = sizeof(struct futexes);
	bench_add_sleep("two-cores", "futex", "futex", &futex)->area_len = sizeof(struct futexes);
}
