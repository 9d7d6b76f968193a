/* SPDX-License-Identifier: Apache-2.0 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/fd.h"

static int shm_new(int size)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fchmod(fd, 0600), 0);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	return fd;
}

static struct shmb_fd_descriptor described(int fd, uint8_t kind, uint8_t access)
{
	struct shmb_fd_descriptor d;

	ck_assert_int_eq(shmb_fd_describe(fd, kind, access, SHMB_FD_ROLE_OWN, 7, &d), 0);
	return d;
}

START_TEST(close_keeps_errno)
{
	errno = EXDEV;
	ck_assert_int_eq(shmb_fd_close(-1), -1);
	ck_assert_int_eq(shmb_fd_close(dup(0)), -1);
	ck_assert_int_eq(errno, EXDEV);
}
END_TEST

START_TEST(accepts_what_was_described)
{
	int fd = shm_new(4096), event = eventfd(0, EFD_CLOEXEC), pair[2];
	struct shmb_fd_descriptor d;

	d = described(fd, SHMB_FD_SHM, SHMB_FD_READ_WRITE);
	ck_assert_uint_eq(d.segment_len, 4096);
	ck_assert_uint_eq(d.mode, 0600);
	ck_assert_int_eq(shmb_fd_verify(fd, &d), 0);
	d = described(event, SHMB_FD_EVENTFD, SHMB_FD_READ_WRITE);
	ck_assert_int_eq(shmb_fd_verify(event, &d), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	d = described(pair[0], SHMB_FD_SOCKET, SHMB_FD_READ_WRITE);
	ck_assert_int_eq(shmb_fd_verify(pair[0], &d), 0);
	ck_assert_int_eq(shmb_fd_verify(pair[1], &d), -EPROTO);
	close(fd);
	close(event);
	close(pair[0]);
	close(pair[1]);
	ck_assert_int_eq(shmb_fd_describe(fd, SHMB_FD_SHM, SHMB_FD_READ, 0, 0, &d), -EBADF);
}
END_TEST

START_TEST(refuses_another_file)
{
	int fd = shm_new(4096), other = shm_new(4096);
	struct shmb_fd_descriptor d = described(fd, SHMB_FD_SHM, SHMB_FD_READ_WRITE), e;

	ck_assert_int_eq(shmb_fd_verify(other, &d), -EPROTO);
	ck_assert_int_eq(ftruncate(fd, 8192), 0);
	ck_assert_int_eq(shmb_fd_verify(fd, &d), -EPROTO);
	ck_assert_int_eq(ftruncate(fd, 4096), 0);
	e = d;
	e.owner_uid++;
	ck_assert_int_eq(shmb_fd_verify(fd, &e), -EPROTO);
	e = d;
	e.mode = 0644;
	ck_assert_int_eq(shmb_fd_verify(fd, &e), -EPROTO);
	e = d;
	e.st_dev++;
	ck_assert_int_eq(shmb_fd_verify(fd, &e), -EPROTO);
	e = d;
	e.kind = 0;
	ck_assert_int_eq(shmb_fd_verify(fd, &e), -EPROTO);
	e = d;
	e.access = 2;
	ck_assert_int_eq(shmb_fd_verify(fd, &e), -EPROTO);
	close(fd);
	close(other);
	ck_assert_int_eq(shmb_fd_verify(fd, &d), -EPROTO);
}
END_TEST

START_TEST(refuses_other_rights)
{
	int fd = shm_new(4096), readonly, path;
	struct shmb_fd_descriptor d = described(fd, SHMB_FD_SHM, SHMB_FD_READ_WRITE);
	char name[64];

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	readonly = open(name, O_RDONLY | O_CLOEXEC);
	path = open(name, O_PATH | O_CLOEXEC);
	ck_assert_int_ge(readonly, 0);
	ck_assert_int_ge(path, 0);
	ck_assert_int_eq(shmb_fd_verify(readonly, &d), -EPROTO);
	ck_assert_int_eq(shmb_fd_verify(path, &d), -EPROTO);
	d.access = SHMB_FD_READ;
	ck_assert_int_eq(shmb_fd_verify(readonly, &d), 0);
	ck_assert_int_eq(shmb_fd_verify(fd, &d), -EPROTO);
	close(fd);
	close(readonly);
	close(path);
}
END_TEST

START_TEST(refuses_missing_seals)
{
	int fd = shm_new(4096);
	struct shmb_fd_descriptor d = described(fd, SHMB_FD_SHM, SHMB_FD_READ_WRITE);

	d.required_seals = F_SEAL_SHRINK | F_SEAL_GROW;
	ck_assert_int_eq(shmb_fd_verify(fd, &d), -EPROTO);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	ck_assert_int_eq(shmb_fd_verify(fd, &d), -EPROTO);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
	ck_assert_int_eq(shmb_fd_verify(fd, &d), 0);
	close(fd);
}
END_TEST

START_TEST(refuses_what_only_looks_alike)
{
	int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	int dir = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int epoll = memfd_create("x", MFD_CLOEXEC), pipes[2];
	struct shmb_fd_descriptor d;

	d = described(zero, SHMB_FD_SHM, SHMB_FD_READ_WRITE);
	ck_assert_int_eq(shmb_fd_verify(zero, &d), -EPROTO);
	d = described(dir, SHMB_FD_SHM, SHMB_FD_READ);
	ck_assert_int_eq(shmb_fd_verify(dir, &d), -EPROTO);
	d = described(epoll, SHMB_FD_EVENTFD, SHMB_FD_READ_WRITE);
	ck_assert_int_eq(shmb_fd_verify(epoll, &d), -EPROTO);
	ck_assert_int_eq(pipe(pipes), 0);
	d = described(pipes[0], SHMB_FD_SOCKET, SHMB_FD_READ);
	ck_assert_int_eq(shmb_fd_verify(pipes[0], &d), -EPROTO);
	close(zero);
	close(dir);
	close(epoll);
	close(pipes[0]);
	close(pipes[1]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fd");
	TCase *tcase = tcase_create("fd");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, close_keeps_errno);
	tcase_add_test(tcase, accepts_what_was_described);
	tcase_add_test(tcase, refuses_another_file);
	tcase_add_test(tcase, refuses_other_rights);
	tcase_add_test(tcase, refuses_missing_seals);
	tcase_add_test(tcase, refuses_what_only_looks_alike);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
