/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What can a process of another user than the broker do with the memory it was granted, if it
 * tries? Each segment's fd is probed as it comes out of the control socket (this program is linked
 * with --wrap around the library's mapping functions), and each mapping afterwards.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <shmbroker/layout.h>

#include "lib/map.h"

#include "tests/system/place.h"

#define CHANNEL		      "data/probe"
#define PATIENCE	      (20000 * MS)
#define LANDLOCK_ABI_TRUNCATE 3
#define STOLEN		      "/dev/shm/shmb-test-stolen"

int __wrap_shmb_map_reader(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind);
int __real_shmb_map_reader(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind);
int __wrap_shmb_map_writer(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind);
int __real_shmb_map_writer(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind);

static const char *const kind_names[] = { "?", "registry", "channel", "lane", "cursor", "bell" };

/* What the processes tell each other. */
static struct {
	uint32_t n_probes;
	uint32_t ready;
	uint32_t stop;
} * shared;

static const char *probed = "";
static uint32_t kinds_read, kinds_written;

/* The probe is refused, and for the reason given (0: any). */
static void must_fail(long result, int reason, const char *what)
{
	int error = errno;

	__atomic_add_fetch(&shared->n_probes, 1, __ATOMIC_RELAXED);
	ck_assert_msg(result < 0, "%s: %s is possible", probed, what);
	/* What has gone meanwhile cannot be had either. */
	ck_assert_msg(!reason || error == reason || error == ENOENT, "%s: %s: %s", probed, what,
		      strerror(error));
}

static void must_not_open(const char *path, int flags, const char *what)
{
	int fd = open(path, flags | O_CLOEXEC);

	must_fail(fd, EACCES, what);
}

static long map_writable(int fd, size_t len, int flags)
{
	return mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED ? -1 : 0;
}

/* ---- probes ------------------------------------------------------------------------------------ */

/* The object behind an fd, whatever the fd allows. */
static void probe_object(int fd)
{
	char path[64], again[64], name[256] = "";
	int pathfd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	must_not_open(path, O_RDWR, "opening it again");
	must_not_open(path, O_WRONLY, "opening it again to write");
	must_not_open(path, O_RDWR | O_TRUNC, "opening it again empty");
	must_not_open(path, O_RDONLY, "opening it again to read");
	pathfd = open(path, O_PATH | O_CLOEXEC);
	ck_assert_int_ge(pathfd, 0);
	snprintf(again, sizeof(again), "/proc/self/fd/%d", pathfd);
	must_not_open(again, O_RDWR, "opening it again by O_PATH");
	close(pathfd);
	must_fail(truncate(path, 0), EACCES, "truncate");
	must_fail(fchmod(fd, 0666), EPERM, "fchmod");
	must_fail(chmod(path, 0666), EPERM, "chmod");
	must_fail(fchown(fd, geteuid(), getegid()), EPERM, "fchown");
	/* Who may write a sealed segment can only lock itself out. */
	if (fcntl(fd, F_GET_SEALS) & F_SEAL_SEAL || (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
		must_fail(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0, "sealing it");
	must_fail(linkat(fd, "", AT_FDCWD, STOLEN, AT_EMPTY_PATH), 0, "linkat");
	/* EPERM, or EXDEV of a memfd, which lies nowhere. */
	must_fail(linkat(AT_FDCWD, path, AT_FDCWD, STOLEN, AT_SYMLINK_FOLLOW), 0,
		  "linkat by /proc");
	ck_assert_int_gt(readlink(path, name, sizeof(name) - 1), 0);
	/* A memfd has no name to try. */
	if (!strncmp(name, "/memfd:", 7))
		return;
	must_not_open(name, O_RDWR, "opening it by name");
	must_not_open(name, O_RDONLY, "opening it by name to read");
	must_fail(unlink(name), EPERM, "removing its name");
}

static void probe_readable_fd(int fd, size_t len)
{
	struct flock lock = { .l_type = F_WRLCK };
	char byte = 1;

	must_fail(map_writable(fd, len, MAP_SHARED), EACCES, "a writable mapping");
	must_fail(map_writable(fd, len, MAP_SHARED_VALIDATE), EACCES, "a writable mapping");
	must_fail(pwrite(fd, &byte, 1, 0), EBADF, "pwrite");
	must_fail(ftruncate(fd, 0), EINVAL, "ftruncate");
	must_fail(fallocate(fd, 0, 0, (off_t)len * 2), EBADF, "fallocate");
	must_fail(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)len), EBADF,
		  "punching a hole");
	must_fail(fcntl(fd, F_OFD_SETLK, &lock), EBADF, "a lock for writing");
	fcntl(fd, F_SETFL, O_RDWR);
	must_fail(fcntl(fd, F_GETFL) & (O_RDWR | O_WRONLY) ? 0 : -1, 0, "an fd for writing");
}

static void probe_mapping(const struct shmb_map *map)
{
	uint8_t *base = map->base, byte = 1;
	struct iovec from = { &byte, 1 }, to = { base, 1 };
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	uint64_t before = *(const uint64_t *)map->base;

	ck_assert_int_ge(memory, 0);
	must_fail(mprotect(base, map->len, PROT_READ | PROT_WRITE), EACCES, "mprotect");
	must_fail(read(zero, base, 1), EFAULT, "read(2) into the mapping");
	must_fail(process_vm_writev(getpid(), &from, 1, &to, 1, 0), EFAULT, "process_vm_writev");
	must_fail(madvise(base, map->len, MADV_REMOVE), EACCES, "MADV_REMOVE");
	must_fail(pwrite(memory, &byte, 1, (off_t)(uintptr_t)base), 0, "/proc/self/mem");
	ck_assert_uint_eq(*(const uint64_t *)map->base, before);
	close(memory);
	close(zero);
}

static bool kernel_bars_truncation(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) >=
	       LANDLOCK_ABI_TRUNCATE;
}

/* Its own segment it may write, and only that: others map it, so the length is not its to change. */
static void probe_writable_fd(int fd, size_t len)
{
	struct stat status;

	bool sealed = fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK;
	int reason = sealed ? EPERM : EACCES;

	if (sealed || kernel_bars_truncation()) {
		must_fail(ftruncate(fd, 0), reason, "ftruncate to nothing");
		must_fail(ftruncate(fd, (off_t)len / 2), reason, "ftruncate to half");
		must_fail(ftruncate(fd, (off_t)len * 2), reason, "ftruncate to more");
	}
	ck_assert_int_eq(fstat(fd, &status), 0);
	ck_assert_uint_eq((uint64_t)status.st_size, len);
	ck_assert_uint_eq(status.st_mode & 07777, 0600);
	ck_assert_uint_eq(status.st_uid, UID_BROKER);
}

/* The probes mean something only in a process that could do all this with what is its own. */
static void check_probes(void)
{
	int fd, own = memfd_create("own", MFD_CLOEXEC);
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", own);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(truncate(path, 4096), 0);
	ck_assert_int_eq(fchmod(fd, 0600), 0);
	ck_assert_int_eq(map_writable(fd, 4096, MAP_SHARED), 0);
	close(fd);
	close(own);
}

int __wrap_shmb_map_reader(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind)
{
	int result;

	probed = kind_names[kind];
	probe_object(fd);
	probe_readable_fd(fd, descriptor->segment_len);
	result = __real_shmb_map_reader(map, fd, descriptor, kind);
	if (result == 0)
		probe_mapping(map);
	kinds_read |= 1u << kind;
	return result;
}

int __wrap_shmb_map_writer(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind)
{
	probed = kind_names[kind];
	probe_object(fd);
	probe_writable_fd(fd, descriptor->segment_len);
	kinds_written |= 1u << kind;
	return __real_shmb_map_writer(map, fd, descriptor, kind);
}

/* ---- processes --------------------------------------------------------------------------------- */

static void probe_as_publisher(void)
{
	struct shmb_client *own;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;

	check_probes();
	own = connect_to(place.address);
	channel = channel_of(own, CHANNEL, 16384);
	publisher = publisher_of(channel, 0);
	__atomic_store_n(&shared->ready, 1, __ATOMIC_RELEASE);
	ok(shmb_channel_wait_members(channel, 1, 1, PATIENCE));
	ok(shmb_publisher_send_wait(publisher, "whole", 6, PATIENCE));
	ck_assert_uint_eq(kinds_read, 1u << SHMB_SEGMENT_CHANNEL | 1u << SHMB_SEGMENT_CURSOR |
					      1u << SHMB_SEGMENT_BELL);
	ck_assert_uint_eq(kinds_written, 1u << SHMB_SEGMENT_LANE | 1u << SHMB_SEGMENT_BELL);
	while (!__atomic_load_n(&shared->stop, __ATOMIC_ACQUIRE))
		usleep(1000);
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}

static void probe_as_subscriber(void)
{
	struct shmb_client *own;
	struct shmb_channel *channel;
	struct shmb_subscriber *subscriber;
	char text[16] = "";

	check_probes();
	own = connect_to(place.address);
	channel = channel_of(own, CHANNEL, 16384);
	subscriber = subscriber_of(channel, 0);
	ok(shmb_subscriber_wait(subscriber, PATIENCE));
	ck_assert_int_eq(shmb_subscriber_recv(subscriber, text, sizeof(text)), 6);
	ck_assert_str_eq(text, "whole");
	ck_assert_uint_eq(kinds_read, 1u << SHMB_SEGMENT_CHANNEL | 1u << SHMB_SEGMENT_LANE |
					      1u << SHMB_SEGMENT_BELL);
	ck_assert_uint_eq(kinds_written, 1u << SHMB_SEGMENT_CURSOR);
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}

/* The broker's keys and fds are nobody's, also not another process's of its own user. */
static void probe_broker(void)
{
	char path[64];
	int pidfd;

	probed = "the broker";
	snprintf(path, sizeof(path), "/proc/%d/fd", place.broker);
	must_not_open(path, O_RDONLY | O_DIRECTORY, "looking at its fds");
	snprintf(path, sizeof(path), "/proc/%d/mem", place.broker);
	must_not_open(path, O_RDWR, "opening its memory");
	pidfd = (int)syscall(SYS_pidfd_open, place.broker, 0);
	ck_assert_int_ge(pidfd, 0);
	for (int fd = 0; fd < 32; fd++)
		must_fail(syscall(SYS_pidfd_getfd, pidfd, fd, 0), EPERM, "taking its fds");
	close(pidfd);
}

/* Whoever was granted nothing: by name, and through the processes that have it. */
static void probe_from_outside(void)
{
	DIR *shm = opendir("/dev/shm");
	struct dirent *found;
	char path[300], prefix[32];
	unsigned n = 0;

	probed = "an object";
	snprintf(prefix, sizeof(prefix), "shmb.%s", place.instance);
	while ((found = readdir(shm))) {
		if (strncmp(found->d_name, prefix, strlen(prefix)))
			continue;
		n++;
		snprintf(path, sizeof(path), "/%s", found->d_name);
		must_fail(shm_open(path, O_RDWR, 0), EACCES, "shm_open");
		must_fail(shm_open(path, O_RDONLY, 0), EACCES, "shm_open to read");
		must_fail(shm_unlink(path), 0, "shm_unlink");
		snprintf(path, sizeof(path), "/dev/shm/%s", found->d_name);
		must_fail(link(path, STOLEN), EPERM, "link");
	}
	closedir(shm);
	ck_assert_uint_ge(n, 3); /* registry, bell, channel; what is sealed has no name */
	probe_broker();
}

START_TEST(nobody_can_do_more_with_a_segment_than_was_granted)
{
	pid_t publisher;

	umask(0); /* the broker's objects must not depend on it */
	place_configure("socket-mode = '0666'\n"
			"rule \"p\" { channel = { 'data/*' } uid = { '1001' }\n"
			"	allow = { 'create', 'publish' } }\n"
			"rule \"s\" { channel = { 'data/*' } uid = { '1002' }\n"
			"	allow = { 'subscribe' } }\n");
	place_start();
	ck_assert(place_has_said(kernel_bars_truncation() ? "truncation_barred=1"
							  : "truncation_barred=0"));
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(shared, MAP_FAILED);
	publisher = place_run_as(UID_PUBLISHER, 0, probe_as_publisher);
	place_until(&shared->ready, publisher);
	place_finished(place_run_as(UID_SUBSCRIBER, 0, probe_as_subscriber));
	place_finished(place_run_as(UID_STRANGER, 0, probe_from_outside));
	/* The members are strangers to everything that they were not granted, too. */
	place_finished(place_run_as(UID_SUBSCRIBER, 0, probe_from_outside));
	place_finished(place_run_as(UID_BROKER, 0, probe_broker));
	__atomic_store_n(&shared->stop, 1, __ATOMIC_RELEASE);
	place_finished(publisher);
	printf("test-probe: %u probes refused, truncation barred: %s\n", shared->n_probes,
	       kernel_bars_truncation() ? "yes" : "no");
	fflush(stdout);
}
END_TEST

int main(void)
{
	TCase *cases[] = { gated_case("probe") };
	int result;

	place_need_root("test-probe");
	tcase_add_checked_fixture(cases[0], place_set_up, place_tear_down);
	tcase_add_test(cases[0], nobody_can_do_more_with_a_segment_than_was_granted);
	result = run_suite("probe", cases, 1);
	place_sweep();
	return result;
}
