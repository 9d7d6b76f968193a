/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_COPIER_H
#define SHMB_LIB_COPIER_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/copy.h"

/* Shorter payloads are not worth a choice. */
#define SHMB_COPIER_LEN_MIN 4096u

/* Lengths that share a choice: below 64 KiB, below 1 MiB, and the others. */
#define SHMB_COPIER_N_CLASSES 3

/**
 * enum shmb_copier_phase - what the next copies of a class are for
 * @SHMB_COPIER_CALM: nothing else
 * @SHMB_COPIER_TIMED: to know how long they take
 * @SHMB_COPIER_WARMING: the other way, until the caches are as they would be if it were always that
 * @SHMB_COPIER_COMPARED: the other way, to know how long they take
 */
enum shmb_copier_phase {
	SHMB_COPIER_CALM,
	SHMB_COPIER_TIMED,
	SHMB_COPIER_WARMING,
	SHMB_COPIER_COMPARED,
};

/**
 * struct shmb_copier_class - how payloads of about one length are copied at present
 * @around: around the caches; else through them
 * @phase: enum shmb_copier_phase
 * @n_left: copies that are left of the phase
 * @n_other: copies that the last comparison made in the other way
 * @ps_per_byte: the fastest of the timed copies, and of those of the other way
 */
struct shmb_copier_class {
	bool around;
	uint8_t phase;
	uint32_t n_left;
	uint32_t n_other;
	uint64_t ps_per_byte[2];
};

/**
 * struct shmb_copier - copies long payloads for readers on other processors
 * @footprint_len: bytes that are written before the first of them are written again
 * @classes: by length
 *
 * Lines that readers have in their caches must be taken away from them before they can be written.
 * Within one cache that costs little, and the reader finds the new bytes there; from one cache to
 * another it costs several times as much as to write around both of them, to memory. Where the
 * readers run is not known, and changes, so now and then some copies are made in the other way, and
 * whichever is faster for the writer is kept.
 */
struct shmb_copier {
	size_t footprint_len;
	struct shmb_copier_class classes[SHMB_COPIER_N_CLASSES];
};

void shmb_copier_init(struct shmb_copier *copier, size_t footprint_len);

/* The part of shmb_copier_copy() for SHMB_COPIER_LEN_MIN bytes and more. */
void shmb_copier_copy_long(struct shmb_copier *copier, void *dst, const void *src, size_t len);

/* If the next copy of this class goes around the caches. */
static inline bool shmb_copier_goes_around(const struct shmb_copier_class *class)
{
	return class->around != (class->phase >= SHMB_COPIER_WARMING);
}

static inline bool shmb_copier_is_timed(const struct shmb_copier_class *class)
{
	return class->phase == SHMB_COPIER_TIMED || class->phase == SHMB_COPIER_COMPARED;
}

/* It is made; @ns is how long it took, if it was timed. */
void shmb_copier_note(struct shmb_copier *copier, struct shmb_copier_class *class, size_t len,
		      uint64_t ns);

/**
 * shmb_copier_copy() - copy a payload into memory that others read
 * @copier: the writer's own
 * @dst: @len bytes
 * @src: @len bytes, not overlapping @dst
 * @len: any length
 *
 * As shmb_copy(). All stores are made when it returns: what the caller stores next is seen after
 * them by whoever acquires it.
 *
 * Context: One thread at a time for each copier. Wait-free.
 */
static inline void shmb_copier_copy(struct shmb_copier *copier, void *dst, const void *src,
				    size_t len)
{
	if (len < SHMB_COPIER_LEN_MIN)
		shmb_copy(dst, src, len);
	else
		shmb_copier_copy_long(copier, dst, src, len);
}

#endif
