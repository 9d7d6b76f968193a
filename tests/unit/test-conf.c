/* SPDX-License-Identifier: Apache-2.0 */

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <shmbroker/shmbroker.h>

#include "daemon/conf.h"
#include "lib/keyfile.h"

static struct conf conf;

START_TEST(has_defaults)
{
	ck_assert_int_eq(conf_parse("", "c", &conf), 0);
	ck_assert_uint_eq(conf.socket_mode, 0660);
	ck_assert_uint_eq(conf.idle_exit_s, 0);
	ck_assert_uint_eq(conf.policy.n_rules, 0);
	ck_assert(!conf.policy.single_user);
	ck_assert_uint_eq(conf.limits.max[QUOTA_CHANNELS], 64);
	ck_assert_ptr_null(conf.directory);
	conf_free(&conf);
}
END_TEST

START_TEST(reads_everything)
{
	const char *text =
		"directory = '/run/x'\nsocket-mode = '0666'\nidle-exit = 7\n"
		"rule \"one\" { channel = {'a/**', 'b'} uid = {'root', '17'}\n"
		"  gid = {'0'} allow = {'create', 'publish'} deny = {'admin'} }\n"
		"rule \"two\" { channel = {'*'} allow = {'subscribe', 'inspect'}\n"
		"  evict-after = '250' priority = '2' fds = '3' }\n"
		"rule \"three\" { channel = {'**'} evict-after = 'unlimited' priority = '0' }\n"
		"quota \"root\" { shm-bytes = 'unlimited' handshakes = '7' }\n"
		"quota \"default\" { shm-bytes = '64M' channels = '3' }\n"
		"quota \"17\" { members = '2K' }\n";

	ck_assert_int_eq(conf_parse(text, "c", &conf), 0);
	ck_assert_str_eq(conf.directory, "/run/x");
	ck_assert_uint_eq(conf.socket_mode, 0666);
	ck_assert_uint_eq(conf.idle_exit_s, 7);
	ck_assert_uint_eq(conf.policy.n_rules, 3);
	ck_assert(!conf.policy.rules[0].has_evict_after);
	ck_assert(conf.policy.rules[1].has_evict_after);
	ck_assert_uint_eq(conf.policy.rules[1].evict_after_ms, 250);
	ck_assert(!conf.policy.rules[0].has_priority);
	ck_assert(conf.policy.rules[1].has_priority && conf.policy.rules[2].has_priority);
	ck_assert_uint_eq(conf.policy.rules[1].priority_max, 2);
	ck_assert(!conf.policy.rules[0].has_fds && conf.policy.rules[1].has_fds);
	ck_assert_uint_eq(conf.policy.rules[1].fds_max, 3);
	ck_assert_uint_eq(conf.policy.rules[2].priority_max, 0);
	ck_assert_uint_eq(conf.policy.rules[2].evict_after_ms, POLICY_EVICT_NEVER);
	ck_assert_str_eq(conf.policy.rules[0].name, "one");
	ck_assert_uint_eq(conf.policy.rules[0].n_channels, 2);
	ck_assert_uint_eq(conf.policy.rules[0].uids[0], 0);
	ck_assert_uint_eq(conf.policy.rules[0].uids[1], 17);
	ck_assert_uint_eq(conf.policy.rules[0].n_gids, 1);
	ck_assert_uint_eq(conf.policy.rules[0].allow, POLICY_CREATE | POLICY_PUBLISH);
	ck_assert_uint_eq(conf.policy.rules[0].deny, POLICY_ADMIN);
	ck_assert_uint_eq(conf.limits.max[QUOTA_BYTES], 64 << 20);
	ck_assert_uint_eq(conf.n_quota_rules, 2);
	ck_assert_uint_eq(conf.quota_rules[0].limits.max[QUOTA_BYTES], QUOTA_UNLIMITED);
	/* Sections begin with the default, wherever that stands. */
	ck_assert_uint_eq(conf.quota_rules[0].limits.max[QUOTA_CHANNELS], 3);
	ck_assert_uint_eq(conf.quota_rules[0].limits.handshakes_per_s, 7);
	ck_assert_uint_eq(conf.quota_rules[1].limits.max[QUOTA_MEMBERS], 2048);
	conf_free(&conf);
}
END_TEST

static const char *const bad[] = {
	"\n\nchanel = 3",
	"\n\nrule \"a\" { chanel = {'a'} }",
	"\n\nrule \"a\" { channel = {'a'} allow = {'fly'} }",
	"\n\nrule \"a\" { channel = {'a'} }",
	"\n\nrule \"a\" { channel = {'a'} backing = 'paper' }",
	"\n\nrule \"a\" { channel = {'a'} evict-after = 'soon' }",
	"\n\nrule \"a\" { channel = {'a'} evict-after = '4294967295' }",
	"\n\nrule \"a\" { channel = {'a'} priority = '8' }",
	"\n\nrule \"a\" { channel = {'a'} priority = 'high' }",
	"\n\nrule \"a\" { channel = {'a'} fds = '65' }",
	"\n\nrule \"a\" { allow = {'create'} }",
	"\n\nrule \"a\" { channel = {'A'} allow = {'create'} }",
	"\n\nrule \"a\" { channel = {'a**'} allow = {'create'} }",
	"\n\nrule \"a\" { channel = {'**/a'} allow = {'create'} }",
	"\n\nrule \"a\" { channel = {''} allow = {'create'} }",
	"\n\nrule \"a\" { channel = {'a'} uid = {'no-such-user'} allow = {'create'} }",
	"\n\nrule \"a\" { channel = {'a'} gid = {'no-such-group'} allow = {'create'} }",
	"\n\nrule \"a\" { channel = {'a'} uid = {'12x'} allow = {'create'} }",
	"\n\nrule \"a\" { channel = {'a'} uid = {'4294967295'} allow = {'create'} }",
	"\n\nrule \"a\" { channel = {'a'} key = {'../x'} allow = {'create'} }",
	"\n\nrule \"a\" { channel = {'a'} key = {'none'} allow = {'create'} }",
	"\n\nquota \"default\" { shm-bytes = '64X' }",
	"\n\nquota \"default\" { shm-bytes = '-1' }",
	"\n\nquota \"default\" { shm-bytes = '99999999999999999999' }",
	"\n\nquota \"default\" { shm-bytes = '99999999T' }",
	"\n\nquota \"no-such-user\" { channels = '1' }",
	"\n\nsocket-mode = '0777'",
	"\n\nsocket-mode = 'rw'",
	"\n\nidle-exit = -1",
	"\n\ndirectory = 'relative'",
	"\n\nrule \"a\" {",
};

START_TEST(refuses_mistakes_and_says_where)
{
	char text[512];

	ck_assert_int_eq(conf_parse(bad[_i], "some.conf", &conf), -EINVAL);
	ck_assert_int_gt(shmb_last_error(text, sizeof(text)), 0);
	ck_assert_msg(strncmp(text, "some.conf:", 10) == 0, "%s", text);
	ck_assert_msg(text[10] >= '1' && text[10] <= '9', "%s", text);
}
END_TEST

START_TEST(refuses_unsafe_files)
{
	char path[] = "/tmp/shmb-test-XXXXXX";
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, "idle-exit = 3\n", 14), 14);
	ck_assert_int_eq(conf_load(path, &conf), 0);
	ck_assert_uint_eq(conf.idle_exit_s, 3);
	conf_free(&conf);
	ck_assert_int_eq(fchmod(fd, 0620), 0);
	ck_assert_int_eq(conf_load(path, &conf), -EACCES);
	close(fd);
	unlink(path);
	ck_assert_int_eq(conf_load(path, &conf), -ENOENT);
	ck_assert_int_eq(conf_load("/tmp", &conf), -EACCES);
}
END_TEST

START_TEST(finds_keys_beside_the_file)
{
	const char *text = "rule \"a\" { channel = {'a'} key = {'k'} allow = {'create'} }\n";
	char dir[] = "/tmp/shmb-test-XXXXXX", path[64], name[64];
	uint8_t key[SHMB_KEY_LEN] = { 5, 6, 7 };

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/clients.d", dir);
	ck_assert_int_eq(mkdir(path, 0755), 0);
	snprintf(path, sizeof(path), "%s/clients.d/k.pub", dir);
	ck_assert_int_eq(shmb_keyfile_write_public(path, key, "k"), 0);
	snprintf(name, sizeof(name), "%s/c", dir);
	ck_assert_int_eq(conf_parse(text, name, &conf), 0);
	ck_assert_uint_eq(conf.policy.rules[0].n_keys, 1);
	ck_assert_mem_eq(conf.policy.rules[0].keys[0], key, sizeof(key));
	conf_free(&conf);
	unlink(path);
	snprintf(path, sizeof(path), "%s/clients.d", dir);
	rmdir(path);
	rmdir(dir);
}
END_TEST

START_TEST(ships_a_default_that_is_valid)
{
	const char *srcdir = getenv("top_srcdir");
	char path[512], text[8192];
	FILE *file;
	size_t n;

	snprintf(path, sizeof(path), "%s/daemon/data/shmbrokerd.conf", srcdir ? srcdir : ".");
	file = fopen(path, "re");
	if (!file)
		return;
	n = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[n] = '\0';
	ck_assert_int_eq(conf_parse(text, path, &conf), 0);
	ck_assert_uint_eq(conf.policy.n_rules, 0);
	conf_free(&conf);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("conf");
	TCase *tcase = tcase_create("conf");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, has_defaults);
	tcase_add_test(tcase, reads_everything);
	tcase_add_loop_test(tcase, refuses_mistakes_and_says_where, 0,
			    sizeof(bad) / sizeof(bad[0]));
	tcase_add_test(tcase, refuses_unsafe_files);
	tcase_add_test(tcase, finds_keys_beside_the_file);
	tcase_add_test(tcase, ships_a_default_that_is_valid);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
