/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Copying payloads in and out of shared memory.
 *
 * The C library's memcpy() is not used because for long copies it may choose "rep movsb", which on
 * some processors (seen on Zen 3, glibc 2.36) runs up to 25 times slower when the destination lies
 * 8 or 16 bytes further into its page than the source does into its own. A page-aligned buffer
 * copied behind an 8-byte record header is exactly that. The loops here know no such cliff, never
 * touch a byte outside the buffers, and load volatile, for the reason given in the header and so
 * that the compiler does not recognise them and put memcpy() back.
 */

#include "lib/copy.h"

bool shmb_copy_wide;

#if defined(__x86_64__) || defined(__aarch64__)

/* From this length on, stores that cross cache lines cost more than one step done in vain. */
#define ALIGN_FROM 512
#define CACHE_LINE 64

/* Loads before stores: no load waits to learn whether a store just made is what it reads. */
#define COPY_STEP(type, dst, src)                            \
	do {                                                 \
		type a_ = ((const volatile type *)(src))[0]; \
		type b_ = ((const volatile type *)(src))[1]; \
		type c_ = ((const volatile type *)(src))[2]; \
		type d_ = ((const volatile type *)(src))[3]; \
		((type *)(dst))[0] = a_;                     \
		((type *)(dst))[1] = b_;                     \
		((type *)(dst))[2] = c_;                     \
		((type *)(dst))[3] = d_;                     \
	} while (0)

/*
 * A function that copies one step or more. The first and the last step are where the buffer begins
 * and ends, whatever its alignment; those between are one step apart, and aligned at @dst if there
 * are many. A macro, because an inline function could not hold 32-byte vectors for a caller with
 * another target.
 */
#define DEFINE_COPY(name, type)                                                  \
	static void name(char *dst, const char *src, size_t len)                 \
	{                                                                        \
		const size_t step = 4 * sizeof(type);                            \
		size_t skip = step;                                              \
                                                                                 \
		COPY_STEP(type, dst, src);                                       \
		if (len >= ALIGN_FROM)                                           \
			skip = CACHE_LINE - ((uintptr_t)dst & (CACHE_LINE - 1)); \
		for (; len - skip > step; skip += step)                          \
			COPY_STEP(type, dst + skip, src + skip);                 \
		COPY_STEP(type, dst + len - step, src + len - step);             \
	}

DEFINE_COPY(copy_by_16, shmb_copy_16)

#if defined(__x86_64__)

typedef uint64_t copy_32 __attribute__((__vector_size__(32), __aligned__(1), __may_alias__));

__attribute__((__target__("avx2"))) static void copy_by_32(char *dst, const char *src, size_t len);
DEFINE_COPY(copy_by_32, copy_32)

/* Whoever copies before this has run does so by 16, which is always right. */
__attribute__((__constructor__)) static void choose(void)
{
	__builtin_cpu_init();
	shmb_copy_wide = __builtin_cpu_supports("avx2");
}

#endif

void shmb_copy_large(void *dst, const void *src, size_t len)
{
#if defined(__x86_64__)
	if (shmb_copy_wide && len >= 4 * sizeof(copy_32)) {
		copy_by_32(dst, src, len);
		return;
	}
#endif
	copy_by_16(dst, src, len);
}

#else

void shmb_copy_large(void *dst, const void *src, size_t len)
{
	/* Out of line, so that the caller cannot be compiled to read @src instead of @dst. */
	memcpy(dst, src, len);
}

#endif
