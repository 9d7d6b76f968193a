/* SPDX-License-Identifier: Apache-2.0 */

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/policy.h"

static const struct {
	const char *glob, *name;
	bool matches;
} globs[] = {
	{ "a", "a", true },	      { "a", "b", false },	  { "a", "a/b", false },
	{ "*", "abc", true },	      { "*", "a/b", false },	  { "*/b", "a/b", true },
	{ "a*c", "abbbc", true },     { "a*c", "ac", true },	  { "a*c", "abcd", false },
	{ "a*b*c", "a-b-b-c", true }, { "a*b*c", "a-c", false },  { "**", "a", true },
	{ "**", "a/b/c", true },      { "a/**", "a/b/c", true },  { "a/**", "a", false },
	{ "a/**", "ab/c", false },    { "a/*/c", "a/b/c", true }, { "a/*/c", "a/b/d/c", false },
	{ "a/b", "a", false },	      { "", "a", false },	  { "*", "", true },
};

START_TEST(matches_globs)
{
	ck_assert_int_eq(
		policy_glob_match(globs[_i].glob, globs[_i].name, (uint32_t)strlen(globs[_i].name)),
		globs[_i].matches);
}
END_TEST

START_TEST(matches_in_linear_time)
{
	char glob[129], name[129];

	memset(name, 'a', 128);
	name[128] = '\0';
	for (unsigned i = 0; i < 128; i++)
		glob[i] = i % 2 ? 'a' : '*';
	glob[127] = 'b';
	glob[128] = '\0';
	for (unsigned i = 0; i < 10000; i++)
		ck_assert(!policy_glob_match(glob, name, 128));
}
END_TEST

static char *all[] = { (char *)"**" };
static char *tele[] = { (char *)"telemetry/*", (char *)"t2/**" };
static uint32_t ids[] = { 7, 8 };
static uint8_t keys[1][SHMB_KEY_LEN] = { { 1, 2, 3 } };

static bool may(const struct policy *policy, uint32_t uid, uint32_t gid, const uint8_t *key,
		uint32_t op, const char *name)
{
	uint32_t groups[] = { 100, gid };
	struct policy_subject subject = { uid, 100, groups, 2, key };

	return policy_check(policy, &subject, op, name, (uint32_t)strlen(name), NULL);
}

START_TEST(the_first_rule_with_a_backing_decides)
{
	struct policy_rule rules[] = {
		{ .channels = all, .n_channels = 1, .allow = POLICY_CREATE },
		{ .channels = tele, .n_channels = 2, .backing = SHMB_MEMORY_POSIX + 1 },
		{ .channels = all, .n_channels = 1, .backing = SHMB_MEMORY_SEALED + 1 },
	};
	struct policy policy = { .rules = rules, .n_rules = 3 };

	ck_assert_uint_eq(policy_backing(&policy, "telemetry/a", 11, SHMB_MEMORY_AUTO),
			  SHMB_MEMORY_POSIX);
	ck_assert_uint_eq(policy_backing(&policy, "a", 1, SHMB_MEMORY_POSIX), SHMB_MEMORY_SEALED);
	policy.n_rules = 1;
	ck_assert_uint_eq(policy_backing(&policy, "a", 1, SHMB_MEMORY_AUTO), SHMB_MEMORY_AUTO);
}
END_TEST

static uint32_t hold(const struct policy *policy, uint32_t uid, const char *name)
{
	struct policy_subject subject = { uid, 100, NULL, 0, NULL };

	return policy_evict_after_ms(policy, &subject, name, (uint32_t)strlen(name));
}

START_TEST(the_first_rule_with_an_evict_after_decides_that_matches)
{
	struct policy_rule rules[] = {
		{ .channels = all, .n_channels = 1, .allow = POLICY_SUBSCRIBE },
		{ .channels = tele,
		  .n_channels = 2,
		  .uids = ids,
		  .n_uids = 2,
		  .has_evict_after = true,
		  .evict_after_ms = POLICY_EVICT_NEVER },
		{ .channels = tele, .n_channels = 2, .has_evict_after = true, .evict_after_ms = 0 },
		{ .channels = all,
		  .n_channels = 1,
		  .has_evict_after = true,
		  .evict_after_ms = 500 },
	};
	struct policy policy = { .rules = rules, .n_rules = 4 };

	ck_assert_uint_eq(hold(&policy, 7, "telemetry/a"), POLICY_EVICT_NEVER);
	ck_assert_uint_eq(hold(&policy, 9, "telemetry/a"), 0);
	ck_assert_uint_eq(hold(&policy, 7, "other"), 500);
	policy.n_rules = 1;
	ck_assert_uint_eq(hold(&policy, 9, "telemetry/a"), POLICY_EVICT_NEVER);
}
END_TEST

static uint32_t priority(const struct policy *policy, uint32_t uid, const char *name)
{
	struct policy_subject subject = { uid, 100, NULL, 0, NULL };

	return policy_priority_max(policy, &subject, name, (uint32_t)strlen(name));
}

START_TEST(the_first_rule_with_a_priority_decides_that_matches)
{
	struct policy_rule rules[] = {
		{ .channels = all, .n_channels = 1, .allow = POLICY_PUBLISH },
		{ .channels = tele,
		  .n_channels = 2,
		  .uids = ids,
		  .n_uids = 2,
		  .has_priority = true,
		  .priority_max = 6 },
		{ .channels = all, .n_channels = 1, .has_priority = true, .priority_max = 0 },
	};
	struct policy policy = { .rules = rules, .n_rules = 3 };

	ck_assert_uint_eq(priority(&policy, 7, "telemetry/a"), 6);
	ck_assert_uint_eq(priority(&policy, 9, "telemetry/a"), 0);
	ck_assert_uint_eq(priority(&policy, 7, "other"), 0);
	policy.n_rules = 1;
	ck_assert_uint_eq(priority(&policy, 9, "telemetry/a"), 7);
}
END_TEST

static uint32_t fds(const struct policy *policy, uint32_t uid, const char *name)
{
	struct policy_subject subject = { uid, 100, NULL, 0, NULL };

	return policy_fds_max(policy, &subject, name, (uint32_t)strlen(name));
}

START_TEST(without_a_rule_only_a_single_user_sends_fds)
{
	struct policy_rule rules[] = {
		{ .channels = all, .n_channels = 1, .allow = POLICY_CREATE },
		{ .channels = tele,
		  .n_channels = 2,
		  .uids = ids,
		  .n_uids = 2,
		  .has_fds = true,
		  .fds_max = 6 },
		{ .channels = tele, .n_channels = 2, .has_fds = true, .fds_max = 1 },
	};
	struct policy policy = { .rules = rules, .n_rules = 3 };

	ck_assert_uint_eq(fds(&policy, 7, "telemetry/a"), 6);
	ck_assert_uint_eq(fds(&policy, 9, "telemetry/a"), 1);
	ck_assert_uint_eq(fds(&policy, 7, "other"), 0);
	policy = (struct policy){ .single_user = true, .uid = 7 };
	ck_assert_uint_eq(fds(&policy, 7, "other"), SHMB_FDS_MAX);
}
END_TEST

START_TEST(denies_by_default)
{
	struct policy policy = { 0 };

	ck_assert(!may(&policy, 0, 0, NULL, POLICY_SUBSCRIBE, "a"));
	ck_assert(policy_admits(&policy, 12));
}
END_TEST

START_TEST(serves_a_single_user)
{
	struct policy policy = { .single_user = true, .uid = 7 };

	ck_assert(may(&policy, 7, 0, NULL, POLICY_CREATE, "a"));
	ck_assert(may(&policy, 0, 0, NULL, POLICY_CREATE, "a"));
	ck_assert(!may(&policy, 8, 0, NULL, POLICY_CREATE, "a"));
	ck_assert(!policy_admits(&policy, 8));
}
END_TEST

START_TEST(asks_for_all_that_a_rule_names)
{
	struct policy_rule rule = { .channels = tele, .n_channels = 2, .allow = POLICY_PUBLISH };
	struct policy policy = { .rules = &rule, .n_rules = 1 };

	ck_assert(may(&policy, 1, 1, NULL, POLICY_PUBLISH, "telemetry/a"));
	ck_assert(may(&policy, 1, 1, NULL, POLICY_PUBLISH, "t2/a/b"));
	ck_assert(!may(&policy, 1, 1, NULL, POLICY_PUBLISH, "telemetry/a/b"));
	ck_assert(!may(&policy, 1, 1, NULL, POLICY_SUBSCRIBE, "telemetry/a"));
	rule.uids = ids;
	rule.n_uids = 2;
	ck_assert(!may(&policy, 1, 1, NULL, POLICY_PUBLISH, "t2/a"));
	ck_assert(may(&policy, 8, 1, NULL, POLICY_PUBLISH, "t2/a"));
	rule.gids = ids;
	rule.n_gids = 2;
	ck_assert(!may(&policy, 8, 1, NULL, POLICY_PUBLISH, "t2/a"));
	ck_assert(may(&policy, 8, 7, NULL, POLICY_PUBLISH, "t2/a"));
	rule.keys = keys;
	rule.n_keys = 1;
	ck_assert(!may(&policy, 8, 7, NULL, POLICY_PUBLISH, "t2/a"));
	ck_assert(may(&policy, 8, 7, keys[0], POLICY_PUBLISH, "t2/a"));
}
END_TEST

START_TEST(lets_a_denial_win)
{
	struct policy_rule rules[] = {
		{ .channels = all, .n_channels = 1, .allow = POLICY_PUBLISH | POLICY_CREATE },
		{ .channels = tele,
		  .n_channels = 2,
		  .uids = ids,
		  .n_uids = 1,
		  .deny = POLICY_PUBLISH },
	};
	struct policy policy = { .rules = rules, .n_rules = 2 };
	struct policy_subject subject = { .uid = 7 };
	const struct policy_rule *rule;

	for (unsigned turn = 0; turn < 2; turn++) {
		struct policy_rule first = rules[0];

		ck_assert(!may(&policy, 7, 1, NULL, POLICY_PUBLISH, "t2/a"));
		ck_assert(may(&policy, 7, 1, NULL, POLICY_CREATE, "t2/a"));
		ck_assert(may(&policy, 8, 1, NULL, POLICY_PUBLISH, "t2/a"));
		policy_check(&policy, &subject, POLICY_PUBLISH, "t2/a", 4, &rule);
		ck_assert_ptr_eq(rule, &rules[!turn]);
		rules[0] = rules[1];
		rules[1] = first;
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("policy");
	TCase *tcase = tcase_create("policy");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_loop_test(tcase, matches_globs, 0, sizeof(globs) / sizeof(globs[0]));
	tcase_add_test(tcase, the_first_rule_with_a_backing_decides);
	tcase_add_test(tcase, matches_in_linear_time);
	tcase_add_test(tcase, the_first_rule_with_an_evict_after_decides_that_matches);
	tcase_add_test(tcase, the_first_rule_with_a_priority_decides_that_matches);
	tcase_add_test(tcase, without_a_rule_only_a_single_user_sends_fds);
	tcase_add_test(tcase, denies_by_default);
	tcase_add_test(tcase, serves_a_single_user);
	tcase_add_test(tcase, asks_for_all_that_a_rule_names);
	tcase_add_test(tcase, lets_a_denial_win);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
