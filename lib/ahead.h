/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_AHEAD_H
#define SHMB_LIB_AHEAD_H

/*
 * Asking for cache lines ahead of time. Those of the next publication: readers still share them from
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

/* GCC takes a function that does no more than prefetch for one without effect, and leaves it out. */
static inline void shmb_ahead_keep(const uint8_t *line)
{
	__asm__ volatile("" : : "r"(line));
}

/* A hint: nothing happens where the line cannot be had, and nothing is written. */
static inline void shmb_ahead_line(const uint8_t *line)
{
#if defined(__x86_64__)
	/* The builtin fetches for reading unless told that every processor knows this one. */
	__asm__ volatile("prefetchw %0" : : "m"(*line));
#else
	__builtin_prefetch(line, 1);
	shmb_ahead_keep(line);
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

/**
 * shmb_expect() - ask for the end of the record that a reader waits for
 * @reader: has found nothing
 * @len:    payload bytes of the last record: the next is expected to be as long
 *
 * A record of up to a line that begins in one line and ends in the next: both come together.
 * Otherwise the second is asked for when the first has come and told that there is a record.
 * On AMD (Zen 4) 64 bytes there and back took a fifth less between CPUs far apart.
 *
 * Context: wait-free.
 */
static inline void shmb_expect(const struct shmb_lane_reader *reader, uint64_t len)
{
	const uint8_t *last =
		reader->ring + ((reader->position + shmb_record_span(len) - 1) & reader->mask);

	if (len > SHMB_AHEAD_LINE_LEN)
		return;
	__builtin_prefetch(last);
	shmb_ahead_keep(last);
}

#endif
