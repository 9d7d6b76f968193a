/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Every length and alignment at which the copy routine could miss a byte or touch one too many.
 * Tests loop over the 16-byte (0) and the 32-byte (1) routine; where the processor has no 32-byte
 * loads the second round repeats the first.
 */

#include "lib/copy.h"

#include <check.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define LEN_MAX	  600
#define ALIGN_MAX 32
#define GUARD	  64
#define LARGE	  (1 << 20)
#define PAGE	  4096

/* @BIG bytes between two pages that may not be touched. */
#define BIG (LARGE + 4 * PAGE)

struct fenced {
	uint8_t *begin, *end;
};

static struct fenced source, target;
static uint8_t guard[GUARD];

static struct fenced fenced_alloc(void)
{
	uint8_t *p = mmap(NULL, BIG + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct fenced fenced = { p + PAGE, p + PAGE + BIG };

	ck_assert_ptr_ne(p, MAP_FAILED);
	ck_assert_int_eq(mprotect(fenced.begin, BIG, PROT_READ | PROT_WRITE), 0);
	return fenced;
}

static void setup(void)
{
	uint32_t random = 1;

	ck_assert_int_eq(sysconf(_SC_PAGESIZE), PAGE);
	source = fenced_alloc();
	target = fenced_alloc();
	for (uint8_t *p = source.begin; p < source.end; p++) {
		random = random * 1664525 + 1013904223;
		*p = (uint8_t)(random >> 24);
	}
	memset(target.begin, 0xa5, BIG);
	memset(guard, 0xa5, sizeof(guard));
}

static void choose(int wide)
{
	if (!wide)
		shmb_copy_wide = false;
}

/* Copies to @dst, with room for a guard on either side, and leaves the target as it was. */
static void check_copy(uint8_t *dst, const uint8_t *src, size_t len)
{
	shmb_copy(dst, src, len);
	if (memcmp(dst, src, len))
		ck_abort_msg("%zu bytes from %p to %p differ", len, (const void *)src, (void *)dst);
	if (memcmp(dst - GUARD, guard, GUARD) || memcmp(dst + len, guard, GUARD))
		ck_abort_msg("%zu bytes from %p to %p spill", len, (const void *)src, (void *)dst);
	memset(dst, 0xa5, len);
}

START_TEST(every_short_length_is_copied_at_every_alignment)
{
	choose(_i);
	for (size_t to = 0; to < ALIGN_MAX; to++)
		for (size_t from = 0; from < ALIGN_MAX; from++)
			for (size_t len = 0; len <= LEN_MAX; len++)
				check_copy(target.begin + GUARD + to, source.begin + from, len);
}
END_TEST

START_TEST(length_known_to_the_compiler_is_copied)
{
	uint8_t *dst = target.begin + GUARD + 1;
	const uint8_t *src = source.begin + 3;

#define CHECK(len)                                           \
	do {                                                 \
		shmb_copy(dst, src, len);                    \
		ck_assert_mem_eq(dst, src, len);             \
		ck_assert_mem_eq(dst + (len), guard, GUARD); \
		ck_assert_mem_eq(dst - GUARD, guard, GUARD); \
		memset(dst, 0xa5, len);                      \
	} while (0)

	choose(_i);
	CHECK(1);
	CHECK(2);
	CHECK(3);
	CHECK(4);
	CHECK(7);
	CHECK(8);
	CHECK(16);
	CHECK(24);
	CHECK(32);
	CHECK(40);
	CHECK(56);
	CHECK(64);
	CHECK(72);
	CHECK(128);
	CHECK(4096);
#undef CHECK
}
END_TEST

START_TEST(no_byte_before_or_behind_a_buffer_is_touched)
{
	choose(_i);
	for (size_t len = 0; len <= 4 * LEN_MAX; len++) {
		shmb_copy(target.begin, source.end - len, len);
		ck_assert(!memcmp(target.begin, source.end - len, len));
		shmb_copy(target.end - len, source.begin, len);
		ck_assert(!memcmp(target.end - len, source.begin, len));
	}
}
END_TEST

START_TEST(long_copies_are_right_at_every_alignment_of_a_line)
{
	static const size_t lens[] = { 1000, 4088, 4096, 4097, 16384, 65528, 65536, 65599 };

	choose(_i);
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
		for (size_t align = 0; align < 64; align++) {
			check_copy(target.begin + GUARD + align, source.begin, lens[i]);
			check_copy(target.begin + GUARD, source.begin + align, lens[i]);
		}
	check_copy(target.begin + GUARD + 5, source.begin + 11, LARGE);
}
END_TEST

START_TEST(buffers_a_header_apart_within_a_page_are_copied)
{
	static const size_t offsets[] = { 0, 8, 16, 24, 32, 64, 2048, 4080, 4088 };

	choose(_i);
	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++)
		for (size_t len = 8; len <= 65536; len *= 2) {
			check_copy(target.begin + PAGE + offsets[i], source.begin, len);
			check_copy(target.begin + PAGE + offsets[i], source.begin, len - 8);
		}
}
END_TEST

START_TEST(source_is_never_written)
{
	choose(_i);
	ck_assert_int_eq(mprotect(source.begin, BIG, PROT_READ), 0);
	for (size_t len = 0; len <= LEN_MAX; len++)
		check_copy(target.begin + GUARD, source.begin + 1, len);
}
END_TEST

static Suite *copy_suite(void)
{
	Suite *suite = suite_create("copy");
	TCase *tc = tcase_create("copy");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_loop_test(tc, every_short_length_is_copied_at_every_alignment, 0, 2);
	tcase_add_loop_test(tc, length_known_to_the_compiler_is_copied, 0, 2);
	tcase_add_loop_test(tc, no_byte_before_or_behind_a_buffer_is_touched, 0, 2);
	tcase_add_loop_test(tc, long_copies_are_right_at_every_alignment_of_a_line, 0, 2);
	tcase_add_loop_test(tc, buffers_a_header_apart_within_a_page_are_copied, 0, 2);
	tcase_add_loop_test(tc, source_is_never_written, 0, 2);
	suite_add_tcase(suite, tc);
	return suite;
}

int main(void)
{
	SRunner *runner = srunner_create(copy_suite());
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
