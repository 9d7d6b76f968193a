/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Through the caches or around them: see copier.h.
 *
 * Two processors of an AMD EPYC (Zen 3), payloads one way, medians: 16 KiB take 6.5 us through the
 * caches and 0.9 us around them when the caches are different ones, 1.3 and 1.0 us when it is one;
 * 1 MiB takes 319 and 43 us, or 25 and 51 us.
 */

#include "lib/copier.h"

#include "lib/clock.h"

/* The fastest of so many is compared: the system may have stopped us during the others. */
#define COPIES_TIMED 4u

/*
 * Copies between two comparisons: so many that what was lost in the other way is a fiftieth of the
 * time, but not too few, nor too many for a writer that writes seldom.
 */
#define CALM_FIRST 4u
#define CALM_MIN   256u
#define CALM_MAX   65536u

/* Longer than any copy takes, in ps for each byte, and still short enough to multiply. */
#define NEVER 1000000000ull

#if defined(__x86_64__)

#include <emmintrin.h>

#define CACHE_LINE 64u

/*
 * Whole lines of @dst are stored without reading them first; what comes before and behind them as
 * usual. SIGKILL at any place leaves what a usual copy would leave: stores that have been executed
 * become visible, those to lines that are not full too.
 */
static void copy_around(char *dst, const char *src, size_t len)
{
	size_t skip = CACHE_LINE - ((uintptr_t)dst & (CACHE_LINE - 1));

	shmb_copy(dst, src, skip);
	for (; len - skip >= CACHE_LINE; skip += CACHE_LINE) {
		const __m128i_u *from = (const __m128i_u *)(const void *)(src + skip);
		__m128i *to = (__m128i *)(void *)(dst + skip);
		__m128i a = from[0], b = from[1], c = from[2], d = from[3];

		_mm_stream_si128(to, a);
		_mm_stream_si128(to + 1, b);
		_mm_stream_si128(to + 2, c);
		_mm_stream_si128(to + 3, d);
	}
	shmb_copy(dst + skip, src + skip, len - skip);
	/*
	 * FENCE copier-publish: stores around the caches are not ordered by a release. Partner: the
	 * acquire of whatever the caller stores to publish this.
	 */
	_mm_sfence();
}

#else

/* Stores of this kind are only a hint elsewhere, and compilers do not offer them. */
static void copy_around(char *dst, const char *src, size_t len)
{
	shmb_copy(dst, src, len);
}

#endif

static struct shmb_copier_class *class_of(struct shmb_copier *copier, size_t len)
{
	return &copier->classes[len < 65536 ? 0 : len < 1048576 ? 1 : 2];
}

void shmb_copier_init(struct shmb_copier *copier, size_t footprint_len)
{
	copier->footprint_len = footprint_len;
	/* What is wrong from one cache to another costs more than what is wrong within one. */
	for (int i = 0; i < SHMB_COPIER_N_CLASSES; i++)
		copier->classes[i] =
			(struct shmb_copier_class){ .around = true, .n_left = CALM_FIRST };
}

/* Blocks are used again at once, hottest first; a ring has to be written from end to end. */
static uint32_t n_warming(const struct shmb_copier *copier, size_t len)
{
	return len < copier->footprint_len ? (uint32_t)(copier->footprint_len / len) + 1 : 4;
}

static void compare(struct shmb_copier_class *class)
{
	uint64_t own = class->ps_per_byte[0] + 1, other = class->ps_per_byte[1] + 1;
	uint64_t better = own < other ? own : other, worse = own < other ? other : own;
	uint64_t calm = 50 * (worse - better) * class->n_other / better;

	/* An eighth is no reason to change. */
	if (other < own - own / 8)
		class->around = !class->around;
	class->n_left = calm < CALM_MIN ? CALM_MIN : calm > CALM_MAX ? CALM_MAX : (uint32_t)calm;
	class->phase = SHMB_COPIER_CALM;
}

void shmb_copier_note(struct shmb_copier *copier, struct shmb_copier_class *class, size_t len,
		      uint64_t ns)
{
	uint64_t ps_per_byte = ns * 1000 / len;
	uint64_t *best = &class->ps_per_byte[class->phase == SHMB_COPIER_COMPARED];

	if (shmb_copier_is_timed(class) && ps_per_byte < *best)
		*best = ps_per_byte;
	if (--class->n_left)
		return;
	switch (class->phase) {
	case SHMB_COPIER_CALM:
		class->ps_per_byte[0] = class->ps_per_byte[1] = NEVER;
		class->n_left = COPIES_TIMED;
		class->phase = SHMB_COPIER_TIMED;
		break;
	case SHMB_COPIER_TIMED:
		class->n_left = n_warming(copier, len);
		class->n_other = class->n_left + COPIES_TIMED;
		class->phase = SHMB_COPIER_WARMING;
		break;
	case SHMB_COPIER_WARMING:
		class->n_left = COPIES_TIMED;
		class->phase = SHMB_COPIER_COMPARED;
		break;
	default:
		compare(class);
	}
}

void shmb_copier_copy_long(struct shmb_copier *copier, void *dst, const void *src, size_t len)
{
	struct shmb_copier_class *class = class_of(copier, len);
	uint64_t start_ns = 0, ns = 0;

	if (shmb_copier_is_timed(class))
		start_ns = shmb_clock_now_ns();
	if (shmb_copier_goes_around(class))
		copy_around(dst, src, len);
	else
		shmb_copy(dst, src, len);
	if (start_ns)
		ns = shmb_clock_now_ns() - start_ns;
	shmb_copier_note(copier, class, len, ns);
}
