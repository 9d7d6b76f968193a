/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_COPY_H
#define SHMB_LIB_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Up to this length a copy is inline. */
#define SHMB_COPY_SMALL 64

/* True if 32-byte loads are in use. Set before main(); written by nothing else but tests. */
extern bool shmb_copy_wide;

/* The part of shmb_copy() that takes more than SHMB_COPY_SMALL bytes. */
void shmb_copy_large(void *dst, const void *src, size_t len);

#if defined(__x86_64__) || defined(__aarch64__)

typedef uint16_t shmb_copy_2 __attribute__((__aligned__(1), __may_alias__));
typedef uint32_t shmb_copy_4 __attribute__((__aligned__(1), __may_alias__));
typedef uint64_t shmb_copy_8 __attribute__((__aligned__(1), __may_alias__));
typedef uint64_t shmb_copy_16 __attribute__((__vector_size__(16), __aligned__(1), __may_alias__));

/*
 * Copies @len bytes, 1 to 2 times the size of @type, as two pieces that may overlap. The loads are
 * volatile so that each happens once: were they not, the compiler might read the source again
 * where the copy is used, after the copy has been checked, and a hostile peer may have changed it.
 */
#define SHMB_COPY_ENDS(type, dst, src, len)                                         \
	do {                                                                        \
		size_t last_ = (len) - sizeof(type);                                \
		type head_ = *(const volatile type *)(src);                         \
		type tail_ = *(const volatile type *)((const char *)(src) + last_); \
		*(type *)(dst) = head_;                                             \
		*(type *)((char *)(dst) + last_) = tail_;                           \
	} while (0)

static inline void shmb_copy_small(void *dst, const void *src, size_t len)
{
	if (len - 8 <= 8) {
		SHMB_COPY_ENDS(shmb_copy_8, dst, src, len);
	} else if (len > 32) {
		SHMB_COPY_ENDS(shmb_copy_16, dst, src, 32);
		SHMB_COPY_ENDS(shmb_copy_16, (char *)dst + len - 32, (const char *)src + len - 32,
			       32);
	} else if (len > 16) {
		SHMB_COPY_ENDS(shmb_copy_16, dst, src, len);
	} else if (len >= 4) {
		SHMB_COPY_ENDS(shmb_copy_4, dst, src, len);
	} else if (len >= 2) {
		SHMB_COPY_ENDS(shmb_copy_2, dst, src, len);
	} else if (len) {
		*(uint8_t *)dst = *(const volatile uint8_t *)src;
	}
}

#undef SHMB_COPY_ENDS

#else

static inline void shmb_copy_small(void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
	/* From here on @dst may be anything: no reading @src instead. */
	__asm__ __volatile__("" : : "r"(dst) : "memory");
}

#endif

/**
 * shmb_copy() - copy between buffers that do not overlap, at much the same speed wherever they lie
 * @dst: @len bytes; no byte around them is read or written
 * @src: @len bytes, which another process may be writing at the same time; no byte around them is
 *       read
 * @len: any length
 *
 * Whatever @src did meanwhile, @dst holds its final value on return: what is checked there is what
 * will be used. The copy is not atomic, and orders nothing.
 *
 * Context: Any thread, signal handlers too.
 */
static inline void shmb_copy(void *dst, const void *src, size_t len)
{
	if (len <= SHMB_COPY_SMALL)
		shmb_copy_small(dst, src, len);
	else
		shmb_copy_large(dst, src, len);
}

#endif
