/* SPDX-License-Identifier: Apache-2.0 */

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <shmbroker/layout.h>
#include <shmbroker/shmbroker.h>

#include "lib/api.h"
#include "lib/name.h"

static const char *const good[] = {
	"a", "0", "a/b/c", "market.ticks/eur-usd_1", "...", ".a", "-/_"
};

static const char *const bad[] = { "",	   "/",	     "a/",	 "/a",	 "a//b", ".",
				   "..",   "a/../b", "a/.",	 "A",	 "a b",	 "a\n",
				   "\x80", "a*",     "\xc3\xa4", "a\\b", "a:b",	 "{a}",
				   "a%",   "**/a",   "./a",	 "../a", "a/..", "a/./b" };

START_TEST(accepts)
{
	ck_assert_int_eq(shmb_name_check(good[_i], (uint32_t)strlen(good[_i])), 0);
}
END_TEST

START_TEST(refuses)
{
	ck_assert_int_eq(shmb_name_check(bad[_i], (uint32_t)strlen(bad[_i])), -EINVAL);
	ck_assert_int_gt(shmb_last_error(NULL, 0), 0);
}
END_TEST

START_TEST(refuses_nul_bytes_and_length)
{
	char name[SHMB_NAME_LEN_MAX + 1];

	ck_assert_int_eq(shmb_name_check("a\0b", 3), -EINVAL);
	ck_assert_int_eq(shmb_name_check(NULL, 3), -EINVAL);
	memset(name, 'a', sizeof(name));
	ck_assert_int_eq(shmb_name_check(name, SHMB_NAME_LEN_MAX), 0);
	ck_assert_int_eq(shmb_name_check(name, SHMB_NAME_LEN_MAX + 1), -EINVAL);
	ck_assert_int_eq(shmb_name_check(name, UINT32_MAX), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("name");
	TCase *tcase = tcase_create("name");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_loop_test(tcase, accepts, 0, SHMB_ARRAY_LEN(good));
	tcase_add_loop_test(tcase, refuses, 0, SHMB_ARRAY_LEN(bad));
	tcase_add_test(tcase, refuses_nul_bytes_and_length);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
