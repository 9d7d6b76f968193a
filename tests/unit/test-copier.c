/* SPDX-License-Identifier: Apache-2.0 */

/* Copies through the caches and around them: every byte, and which way is taken when. */

#include "lib/copier.h"

#include <check.h>
#include <stdlib.h>

#define ALIGN_MAX 64
#define LEN_MAX	  (2u << 20)
#define GUARD	  64

/* Of a ring: so many bytes are written before the first are written again. */
#define FOOTPRINT (16 * 16384)

static struct shmb_copier copier;
static uint8_t *source, *target;

static void set_up(void)
{
	shmb_copier_init(&copier, FOOTPRINT);
	source = malloc(LEN_MAX + 2 * GUARD + 2 * ALIGN_MAX);
	target = malloc(LEN_MAX + 2 * GUARD + 2 * ALIGN_MAX);
	ck_assert(source && target);
	for (size_t i = 0; i < LEN_MAX + 2 * ALIGN_MAX; i++)
		source[i] = (uint8_t)(i * 2654435761u >> 13);
}

static void tear_down(void)
{
	free(source);
	free(target);
}

static void check_copy(size_t to, size_t from, size_t len)
{
	uint8_t *dst = target + GUARD + to;

	memset(dst - GUARD, 0xa5, len + 2 * GUARD);
	shmb_copier_copy(&copier, dst, source + from, len);
	ck_assert_msg(!memcmp(dst, source + from, len), "%zu bytes, %zu to %zu: not equal", len,
		      from, to);
	for (size_t i = 0; i < GUARD; i++)
		ck_assert_msg(dst[-(ptrdiff_t)i - 1] == 0xa5 && dst[len + i] == 0xa5,
			      "%zu bytes, %zu to %zu: more than that", len, from, to);
}

static void go(bool around)
{
	for (int i = 0; i < SHMB_COPIER_N_CLASSES; i++)
		copier.classes[i] =
			(struct shmb_copier_class){ .around = around, .n_left = UINT32_MAX };
}

START_TEST(every_byte_is_copied_at_every_alignment)
{
	static const size_t lens[] = { 0, 8, 4095, 4096, 4097, 4159, 4160, 16384, 65536, 65599 };

	go(_i);
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
		for (size_t align = 0; align < ALIGN_MAX; align++) {
			check_copy(align, 0, lens[i]);
			check_copy(8, align, lens[i]);
		}
	check_copy(5, 11, LEN_MAX);
	check_copy(0, 0, 1 << 20);
}
END_TEST

/*
 * Makes @n copies that take @through_ns or @around_ns, unless the system stops the writer, which it
 * does in one copy of @n_between. Returns how many went around the caches, and tells how many were timed.
 */
static unsigned count_around(unsigned n, uint64_t through_ns, uint64_t around_ns,
			     unsigned n_between, unsigned *ret_n_timed)
{
	struct shmb_copier_class *class = &copier.classes[0];
	unsigned n_around = 0;

	*ret_n_timed = 0;
	for (unsigned i = 0; i < n; i++) {
		uint64_t ns = shmb_copier_goes_around(class) ? around_ns : through_ns;

		n_around += shmb_copier_goes_around(class);
		*ret_n_timed += shmb_copier_is_timed(class);
		shmb_copier_note(&copier, class, 16384, i % n_between ? ns : 5000000);
	}
	return n_around;
}

START_TEST(the_faster_way_is_taken)
{
	unsigned n_timed;

	/* It is known soon, and costs little to know it still. */
	ck_assert_uint_ge(count_around(10000, 6000, 900, 1000000, &n_timed), 9940);
	ck_assert_uint_le(n_timed, 20);
	/* They are moved into one cache, and apart again. */
	count_around(20000, 1000, 2000, 1000000, &n_timed);
	ck_assert_uint_le(count_around(10000, 1000, 2000, 1000000, &n_timed), 200);
	count_around(20000, 6000, 900, 1000000, &n_timed);
	ck_assert_uint_ge(count_around(10000, 6000, 900, 1000000, &n_timed), 9940);
}
END_TEST

START_TEST(who_is_stopped_now_and_then_takes_the_faster_way)
{
	unsigned n_timed;

	count_around(200, 1000, 2000, 3, &n_timed);
	ck_assert_uint_le(count_around(10000, 1000, 2000, 3, &n_timed), 400);
	ck_assert_uint_ge(n_timed, 8);
}
END_TEST

START_TEST(little_is_no_reason_to_change)
{
	unsigned n_timed;

	ck_assert_uint_ge(count_around(10000, 950, 1000, 1000000, &n_timed), 9000);
	/* What both do alike is compared seldom all the same. */
	ck_assert_uint_le(n_timed, 10000 / 256 * 8 + 8);
}
END_TEST

START_TEST(each_length_has_its_own_way)
{
	go(true);
	for (int i = 0; i < 2; i++)
		check_copy(0, 0, 16384);
	ck_assert_uint_eq(copier.classes[0].n_left, UINT32_MAX - 2);
	check_copy(0, 0, 65536);
	ck_assert_uint_eq(copier.classes[1].n_left, UINT32_MAX - 1);
	check_copy(0, 0, 1 << 20);
	ck_assert_uint_eq(copier.classes[2].n_left, UINT32_MAX - 1);
	check_copy(0, 0, 4095);
	ck_assert_uint_eq(copier.classes[0].n_left, UINT32_MAX - 2);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("copier");
	TCase *tc = tcase_create("copier");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_loop_test(tc, every_byte_is_copied_at_every_alignment, 0, 2);
	tcase_add_test(tc, the_faster_way_is_taken);
	tcase_add_test(tc, who_is_stopped_now_and_then_takes_the_faster_way);
	tcase_add_test(tc, little_is_no_reason_to_change);
	tcase_add_test(tc, each_length_has_its_own_way);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
