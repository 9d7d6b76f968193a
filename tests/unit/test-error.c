/* SPDX-License-Identifier: Apache-2.0 */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <shmbroker/shmbroker.h>

#include "lib/error.h"

START_TEST(keeps_the_last_sentence)
{
	char text[64];

	ck_assert_int_eq(shmb_fail(-EINVAL, "limit %d, value %d", 3, 4), -EINVAL);
	ck_assert_int_eq(shmb_last_error(text, sizeof(text)), 16);
	ck_assert_str_eq(text, "limit 3, value 4");
}
END_TEST

START_TEST(truncates_to_the_room)
{
	char text[4] = "xxx";

	shmb_fail(-EINVAL, "abcdef");
	ck_assert_int_eq(shmb_last_error(text, sizeof(text)), 6);
	ck_assert_str_eq(text, "abc");
	ck_assert_int_eq(shmb_last_error(text, 1), 6);
	ck_assert_str_eq(text, "");
	ck_assert_int_eq(shmb_last_error(NULL, 0), 6);
}
END_TEST

START_TEST(bounds_a_long_sentence)
{
	char long_text[2000];
	char text[4000];

	memset(long_text, 'a', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	shmb_fail(-EINVAL, "%s", long_text);
	ck_assert_int_lt(shmb_last_error(text, sizeof(text)), 2000);
}
END_TEST

START_TEST(puts_a_lazy_sentence_together_when_asked)
{
	char text[64];

	ck_assert_int_eq(shmb_fail_lazily(-EAGAIN, "it is ", 7, " bytes behind"), -EAGAIN);
	ck_assert_int_eq(shmb_last_error(text, sizeof(text)), 20);
	ck_assert_str_eq(text, "it is 7 bytes behind");
	shmb_fail_lazily(-ETIMEDOUT, "nothing came", 0, NULL);
	shmb_last_error(text, sizeof(text));
	ck_assert_str_eq(text, "nothing came");
	shmb_last_error(text, sizeof(text));
	ck_assert_str_eq(text, "nothing came");
	shmb_fail_lazily(-ETIMEDOUT, "nothing came", 0, NULL);
	shmb_fail(-EINVAL, "later");
	shmb_last_error(text, sizeof(text));
	ck_assert_str_eq(text, "later");
}
END_TEST

static void *other_thread(void *data)
{
	char text[8];

	*(int *)data = shmb_last_error(text, sizeof(text));
	shmb_fail(-EIO, "other");
	return NULL;
}

START_TEST(is_per_thread)
{
	pthread_t thread;
	char text[8];
	int len = -1;

	shmb_fail(-EINVAL, "mine");
	ck_assert_int_eq(pthread_create(&thread, NULL, other_thread, &len), 0);
	pthread_join(thread, NULL);
	ck_assert_int_eq(len, 0);
	shmb_last_error(text, sizeof(text));
	ck_assert_str_eq(text, "mine");
}
END_TEST

START_TEST(has_words_for_every_result)
{
	ck_assert_str_eq(shmb_strerror(0), "success");
	ck_assert_str_eq(shmb_strerror(7), "success");
	ck_assert_str_eq(shmb_strerror(-EPROTOTYPE), "schemas differ");
	ck_assert_str_eq(shmb_strerror(-ENOMEM), "Cannot allocate memory");
	ck_assert_str_eq(shmb_strerror(-100000), "unknown error");
	ck_assert_str_eq(shmb_strerror(INT32_MIN), "unknown error");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("error");
	TCase *tcase = tcase_create("error");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, keeps_the_last_sentence);
	tcase_add_test(tcase, truncates_to_the_room);
	tcase_add_test(tcase, bounds_a_long_sentence);
	tcase_add_test(tcase, puts_a_lazy_sentence_together_when_asked);
	tcase_add_test(tcase, is_per_thread);
	tcase_add_test(tcase, has_words_for_every_result);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
