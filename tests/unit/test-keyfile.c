/* SPDX-License-Identifier: Apache-2.0 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/keyfile.h"

static char dir[64];
static char path[128];

static void setup(void)
{
	strcpy(dir, "/tmp/shmb-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/key", dir);
}

static void teardown(void)
{
	char other[160];

	unlink(path);
	snprintf(other, sizeof(other), "%s2", path);
	unlink(other);
	/* Fails if a temporary file was left. */
	ck_assert_int_eq(rmdir(dir), 0);
}

static void put(const char *text, mode_t mode)
{
	FILE *file = fopen(path, "we");

	ck_assert_ptr_nonnull(file);
	fputs(text, file);
	fclose(file);
	ck_assert_int_eq(chmod(path, mode), 0);
}

START_TEST(private_round_trip)
{
	struct shmb_noise_keypair a, b;
	struct stat st;

	ck_assert_int_eq(shmb_noise_keypair_generate(&a), 0);
	ck_assert_int_eq(shmb_keyfile_load_private(path, &b), -ENOENT);
	ck_assert_int_eq(shmb_keyfile_write_private(path, &a), 0);
	ck_assert_int_eq(shmb_keyfile_write_private(path, &a), -EEXIST);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(shmb_keyfile_load_private(path, &b), 0);
	ck_assert_mem_eq(&a, &b, sizeof(a));
}
END_TEST

START_TEST(public_round_trip)
{
	struct shmb_noise_keypair a, b;
	uint8_t public[SHMB_NOISE_KEY_LEN];

	ck_assert_int_eq(shmb_noise_keypair_generate(&a), 0);
	ck_assert_int_eq(shmb_noise_keypair_generate(&b), 0);
	ck_assert_int_eq(shmb_keyfile_write_public(path, a.public, "broker"), 0);
	ck_assert_int_eq(shmb_keyfile_write_public(path, b.public, "broker"), 0);
	ck_assert_int_eq(shmb_keyfile_load_public(path, public), 0);
	ck_assert_mem_eq(public, b.public, sizeof(public));
	ck_assert_int_eq(shmb_keyfile_write_public(path, a.public, "no name"), -EINVAL);
	ck_assert_int_eq(shmb_keyfile_write_public(path, a.public, ""), -EINVAL);
	ck_assert_int_eq(chmod(path, 0664), 0);
	ck_assert_int_eq(shmb_keyfile_load_public(path, public), -EACCES);
	/* A public key is no private one. */
	ck_assert_int_eq(chmod(path, 0600), 0);
	ck_assert_int_eq(shmb_keyfile_load_private(path, &a), -EINVAL);
}
END_TEST

START_TEST(refuses_unsafe_private_files)
{
	struct shmb_noise_keypair a, b;
	char other[160];

	ck_assert_int_eq(shmb_noise_keypair_generate(&a), 0);
	ck_assert_int_eq(shmb_keyfile_write_private(path, &a), 0);
	ck_assert_int_eq(chmod(path, 0640), 0);
	ck_assert_int_eq(shmb_keyfile_load_private(path, &b), -EACCES);
	ck_assert_int_eq(chmod(path, 0600), 0);
	snprintf(other, sizeof(other), "%s2", path);
	ck_assert_int_eq(symlink(path, other), 0);
	ck_assert_int_eq(shmb_keyfile_load_private(other, &b), -EACCES);
	ck_assert_int_eq(unlink(other), 0);
	ck_assert_int_eq(link(path, other), 0);
	ck_assert_int_eq(shmb_keyfile_load_private(path, &b), -EACCES);
	ck_assert_int_eq(unlink(other), 0);
	ck_assert_int_eq(mkfifo(other, 0600), 0);
	ck_assert_int_eq(shmb_keyfile_load_private(other, &b), -EACCES);
	ck_assert_int_eq(shmb_keyfile_load_private("/dev/zero", &b), -EACCES);
}
END_TEST

#define HEAD "shmbroker-private-key-v1\n"
#define KEY  "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"
#define ZERO "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

static const char *const bad_private[] = {
	"",
	HEAD,
	HEAD "x25519:" KEY,
	HEAD "x25519:" KEY "\n\n",
	HEAD "x25519:" KEY "A\n",
	HEAD "x25519:" KEY "=\n",
	HEAD "x25519:" ZERO "\n",
	HEAD "x25519:AQEB\n",
	HEAD "ed25519:" KEY "\n",
	HEAD "x25519:" KEY "\nmore",
	"shmbroker-private-key-v2\nx25519:" KEY "\n",
	HEAD "x25519:+QEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n",
};

START_TEST(refuses_malformed_private_files)
{
	struct shmb_noise_keypair a;

	put(bad_private[_i], 0600);
	ck_assert_int_eq(shmb_keyfile_load_private(path, &a), -EINVAL);
}
END_TEST

START_TEST(parses_what_the_manual_shows)
{
	struct shmb_noise_keypair a;
	uint8_t public[SHMB_NOISE_KEY_LEN], ones[SHMB_NOISE_KEY_LEN];
	char big[6000];

	memset(ones, 1, sizeof(ones));
	put(HEAD "x25519:" KEY "\n", 0400);
	ck_assert_int_eq(shmb_keyfile_load_private(path, &a), 0);
	ck_assert_mem_eq(a.secret, ones, sizeof(ones));
	ck_assert_int_eq(unlink(path), 0);
	put("x25519:" KEY " name and a comment\nx25519:" ZERO " next\n", 0644);
	ck_assert_int_eq(shmb_keyfile_load_public(path, public), 0);
	ck_assert_mem_eq(public, ones, sizeof(ones));
	put("x25519:" KEY "x\n", 0644);
	ck_assert_int_eq(shmb_keyfile_load_public(path, public), -EINVAL);
	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	put(big, 0644);
	ck_assert_int_eq(shmb_keyfile_load_public(path, public), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("keyfile");
	TCase *tcase = tcase_create("keyfile");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, private_round_trip);
	tcase_add_test(tcase, public_round_trip);
	tcase_add_test(tcase, refuses_unsafe_private_files);
	tcase_add_loop_test(tcase, refuses_malformed_private_files, 0,
			    sizeof(bad_private) / sizeof(bad_private[0]));
	tcase_add_test(tcase, parses_what_the_manual_shows);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
