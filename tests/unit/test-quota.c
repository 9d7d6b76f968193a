/* SPDX-License-Identifier: Apache-2.0 */

#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "daemon/quota.h"

#define SECOND 1000000000ull

static struct quota quota;
static struct quota_limits limits;

static void setup(void)
{
	quota_limits_system(&limits);
	limits.max[QUOTA_BYTES] = 1000;
	quota_reload(&quota, &limits, NULL, 0);
}

static void teardown(void)
{
	quota_deinit(&quota);
}

START_TEST(charges_up_to_the_limit)
{
	struct quota_user *user = quota_user_get(&quota, 7);

	ck_assert_int_eq(quota_charge(user, QUOTA_BYTES, 600), 0);
	ck_assert_int_eq(quota_charge(user, QUOTA_BYTES, 401), -EDQUOT);
	ck_assert_int_eq(quota_charge(user, QUOTA_BYTES, UINT64_MAX), -EDQUOT);
	ck_assert_int_eq(quota_charge(user, QUOTA_BYTES, UINT64_MAX - 599), -EDQUOT);
	ck_assert_int_eq(quota_charge(user, QUOTA_BYTES, 400), 0);
	ck_assert_int_eq(quota_charge(user, QUOTA_BYTES, 1), -EDQUOT);
	quota_release(user, QUOTA_BYTES, 600);
	ck_assert_int_eq(quota_charge(user, QUOTA_BYTES, 600), 0);
	quota_release(user, QUOTA_BYTES, 1000);
	quota_user_put(&quota, user);
}
END_TEST

START_TEST(keeps_users_apart)
{
	struct quota_user *a = quota_user_get(&quota, 1), *b = quota_user_get(&quota, 2);

	ck_assert_ptr_eq(quota_user_get(&quota, 1), a);
	ck_assert_int_eq(quota_charge(a, QUOTA_BYTES, 1000), 0);
	ck_assert_int_eq(quota_charge(b, QUOTA_BYTES, 1000), 0);
	quota_user_put(&quota, a);
	ck_assert_ptr_eq(quota_user_get(&quota, 1), a);
	ck_assert_uint_eq(a->used[QUOTA_BYTES], 1000);
}
END_TEST

START_TEST(forgets_who_uses_nothing)
{
	for (uint32_t uid = 0; uid < 10000; uid++)
		quota_user_put(&quota, quota_user_get(&quota, uid));
	ck_assert_uint_eq(quota.users.n_nodes, 0);
	quota_user_put(&quota, NULL);
}
END_TEST

START_TEST(has_exceptions)
{
	struct quota_rule rule = { .uid = 5, .limits = limits };
	struct quota_user *five = quota_user_get(&quota, 5), *six = quota_user_get(&quota, 6);

	rule.limits.max[QUOTA_BYTES] = 5000;
	ck_assert_int_eq(quota_charge(five, QUOTA_BYTES, 2000), -EDQUOT);
	quota_reload(&quota, &limits, &rule, 1);
	ck_assert_int_eq(quota_charge(five, QUOTA_BYTES, 2000), 0);
	ck_assert_int_eq(quota_charge(six, QUOTA_BYTES, 2000), -EDQUOT);
	/* Less than what is used already: nothing more, and no underflow. */
	quota_reload(&quota, &limits, NULL, 0);
	ck_assert_int_eq(quota_charge(five, QUOTA_BYTES, 1), -EDQUOT);
	quota_release(five, QUOTA_BYTES, 2000);
	ck_assert_int_eq(quota_charge(five, QUOTA_BYTES, 1), 0);
}
END_TEST

START_TEST(limits_the_rate_of_handshakes)
{
	struct quota_user *user = quota_user_get(&quota, 7);
	uint64_t now = 5 * SECOND;
	unsigned n = 0;

	while (quota_admit_handshake(user, now))
		n++;
	ck_assert_uint_eq(n, 100);
	for (n = 0; quota_admit_handshake(user, now + SECOND); n++)
		;
	ck_assert_uint_eq(n, 50);
	for (n = 0; quota_admit_handshake(user, now + 1000000 * SECOND); n++)
		;
	ck_assert_uint_eq(n, 100);
	/* Going away does not help. */
	quota_user_put(&quota, user);
	user = quota_user_get(&quota, 7);
	ck_assert(!quota_admit_handshake(user, now + 1000000 * SECOND));
}
END_TEST

START_TEST(knows_no_rate_for_one_user)
{
	struct quota_user *user;

	quota_limits_user(&limits);
	quota_reload(&quota, &limits, NULL, 0);
	user = quota_user_get(&quota, 7);
	for (unsigned i = 0; i < 10000; i++)
		ck_assert(quota_admit_handshake(user, 1));
	ck_assert_int_eq(quota_charge(user, QUOTA_BYTES, 1ull << 60), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("quota");
	TCase *tcase = tcase_create("quota");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, charges_up_to_the_limit);
	tcase_add_test(tcase, keeps_users_apart);
	tcase_add_test(tcase, forgets_who_uses_nothing);
	tcase_add_test(tcase, has_exceptions);
	tcase_add_test(tcase, limits_the_rate_of_handshakes);
	tcase_add_test(tcase, knows_no_rate_for_one_user);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
