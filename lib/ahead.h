/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_AHEAD_H
#define SHMB_LIB_AHEAD_H

/*
 * Asking for the cache lines of the next publication ahead of time. Readers still share them from
 * the last lap, and stores to shared lines are made one by one, each waiting for the readers'
 * caches. Asked for right after a publication, all of them come while its publisher, and the fence
 * behind it, are busy anyway.
 */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/ring.h>

/*
 * How much is worth asking for. Measured on Intel (Sapphire Rapids, cores far apart): up to 16 KiB
 * gain if the library copies, but loans above 1 KiB lose. On AMD (Zen 3) only a relative was
 * measured, asking eight lines ahead: it lost above 1 KiB. Nothing longer has been tried.
 * Nor is it worth asking for what takes no more than a line: most of it lies in a line we have. On
 * AMD (Zen, shared cache) it made 8 bytes there and back a tenth slower and streams no faster.
 */
#define SHMB_AHEAD_MAX	    1024u
#define SHMB_AHEAD_COPY_MAX (1u << 14)
#define SHMB_AHEAD_LINE_LEN 64u

/* Up to which length it is worth it on this processor, when the library copies. */
static inline uint32_t shmb_ahead_copy_max(void)
{
#if defined(__x86_64__)
	if (__builtin_cpu_is("intel"))
		return SHMB_AHEAD_COPY_MAX;
#endif
	return SHMB_AHEAD_MAX;
}

/* A hint: nothing happens where the line cannot be had, and nothing is written. */
static inline void shmb_ahead_line(const uint8_t *line)
{
#if defined(__x86_64__)
	/* The builtin fetches for reading unless told that every processor knows this one. */
	__asm__ volatile("prefetchw %0" : : "m"(*line));
#else
	__builtin_prefetch(line, 1);
#endif
}

/**
 * shmb_ahead() - ask for the lines of the next publication
 * @writer: has just published
 * @len:    bytes of ring that this one took: the next is expected to be as long
 *
 * Context: wait-free.
 */
static inline void shmb_ahead(const struct shmb_lane_writer *writer, uint64_t len)
{
	/* The line of the position itself is ours: the zero word has been stored there. */
	uint64_t line =
		(writer->position + SHMB_AHEAD_LINE_LEN - 1) & ~(uint64_t)(SHMB_AHEAD_LINE_LEN - 1);
	uint64_t end = writer->position + len + SHMB_AHEAD_LINE_LEN;

	if (len <= SHMB_AHEAD_LINE_LEN)
		return;
	for (; line < end; line += SHMB_AHEAD_LINE_LEN)
		shmb_ahead_line(writer->ring + (line & writer->mask));
}

#endif
