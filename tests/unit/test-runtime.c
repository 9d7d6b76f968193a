/* SPDX-License-Identifier: Apache-2.0 */

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/runtime.h"

static char dir[64];
static char path[128];

static void setup(void)
{
	strcpy(dir, "/tmp/shmb-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/sub", dir);
	ck_assert_int_eq(mkdir(path, 0700), 0);
}

static void teardown(void)
{
	char file[160];

	snprintf(file, sizeof(file), "%s/" SHMB_LOCK_FILE, path);
	unlink(file);
	unlink(path);
	rmdir(path);
	ck_assert_int_eq(rmdir(dir), 0);
}

START_TEST(finds_the_users_directory)
{
	char wanted[64];
	char got[64];

	setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
	ck_assert_int_eq(shmb_runtime_user_dir(got, sizeof(got)), 0);
	ck_assert_str_eq(got, "/run/user/7/shmbroker");
	ck_assert_int_eq(shmb_runtime_user_dir(got, 5), -ENAMETOOLONG);
	snprintf(wanted, sizeof(wanted), "/tmp/shmbroker-%u", (unsigned)geteuid());
	setenv("XDG_RUNTIME_DIR", "relative", 1);
	ck_assert_int_eq(shmb_runtime_user_dir(got, sizeof(got)), 0);
	ck_assert_str_eq(got, wanted);
	unsetenv("XDG_RUNTIME_DIR");
	ck_assert_int_eq(shmb_runtime_user_dir(got, sizeof(got)), 0);
	ck_assert_str_eq(got, wanted);
}
END_TEST

START_TEST(joins)
{
	char got[8];

	ck_assert_int_eq(shmb_runtime_join(got, sizeof(got), "/ab", "cde"), 0);
	ck_assert_str_eq(got, "/ab/cde");
	ck_assert_int_eq(shmb_runtime_join(got, sizeof(got), "/ab", "cdef"), -ENAMETOOLONG);
}
END_TEST

START_TEST(trusts_safe_directories_only)
{
	char file[160];

	ck_assert_int_eq(shmb_runtime_check_dir(path), 0);
	ck_assert_int_eq(chmod(path, 0777), 0);
	ck_assert_int_eq(shmb_runtime_check_dir(path), -EACCES);
	/* A sticky directory protects what is in it from others, but not from newcomers. */
	ck_assert_int_eq(chmod(path, 01777), 0);
	ck_assert_int_eq(shmb_runtime_check_dir(path), -EACCES);
	ck_assert_int_eq(chmod(path, 0700), 0);
	ck_assert_int_eq(chmod(dir, 0777), 0);
	ck_assert_int_eq(shmb_runtime_check_dir(path), -EACCES);
	ck_assert_int_eq(chmod(dir, 01777), 0);
	ck_assert_int_eq(shmb_runtime_check_dir(path), 0);
	snprintf(file, sizeof(file), "%s/none", path);
	ck_assert_int_eq(shmb_runtime_check_dir(file), -ENOENT);
	ck_assert_int_eq(shmb_runtime_check_dir("/dev/null"), -EACCES);
	ck_assert_int_eq(shmb_runtime_check_dir("/"), 0);
}
END_TEST

START_TEST(distrusts_links_of_others)
{
	if (geteuid() != 0)
		return;
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert_int_eq(symlink("/", path), 0);
	ck_assert_int_eq(shmb_runtime_check_dir(path), 0);
	ck_assert_int_eq(lchown(path, 12345, 12345), 0);
	ck_assert_int_eq(shmb_runtime_check_dir(path), -EACCES);
}
END_TEST

static const char *const bad_instances[] = { "",
					     "0123456789abcdef",
					     "0123456789abcde\n",
					     "0123456789abcdef\n\n",
					     "0123456789ABCDEF\n",
					     "0000000000000000\n",
					     "0x23456789abcdef\n" };

START_TEST(reads_the_instance)
{
	char file[160];
	uint64_t instance = 0;
	FILE *f;

	ck_assert_int_eq(shmb_runtime_instance(path, &instance), -ENOENT);
	snprintf(file, sizeof(file), "%s/" SHMB_LOCK_FILE, path);
	for (size_t i = 0; i < sizeof(bad_instances) / sizeof(bad_instances[0]); i++) {
		f = fopen(file, "we");
		fputs(bad_instances[i], f);
		fclose(f);
		ck_assert_int_eq(shmb_runtime_instance(path, &instance), -EINVAL);
	}
	f = fopen(file, "we");
	fputs("0123456789abcdef\n", f);
	fclose(f);
	ck_assert_int_eq(shmb_runtime_instance(path, &instance), 0);
	ck_assert_uint_eq(instance, 0x0123456789abcdef);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("runtime");
	TCase *tcase = tcase_create("runtime");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, finds_the_users_directory);
	tcase_add_test(tcase, joins);
	tcase_add_test(tcase, trusts_safe_directories_only);
	tcase_add_test(tcase, distrusts_links_of_others);
	tcase_add_test(tcase, reads_the_instance);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
