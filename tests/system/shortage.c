/* SPDX-License-Identifier: Apache-2.0 */

/*
 * When something runs out: shared memory, its inodes, file descriptors, address space, locked
 * memory, file size, a control group's memory. Whoever asks for more is refused with the right
 * error and one sentence; nothing is left of the attempt, whatever runs goes on, and what was
 * refused works as soon as there is room. A mount namespace with a small /dev/shm keeps all that
 * away from the machine.
 */

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "tests/system/process.h"

#define SHM_LEN	  (16u << 20)
#define LANE_LEN  65536u
#define FILLER	  "/dev/shm/filler"
#define EXIT_SKIP 77
#define N_CASES	  4

static struct process daemon_process;

/* What runs while others run short. */
static struct shmb_channel *running;
static struct shmb_publisher *publisher;
static struct shmb_subscriber *subscriber;
static uint64_t published;

/* Two times around the lane. */
static void stream_flows(void)
{
	char record[1000];

	for (int i = 0; i < 140; i++, published++) {
		memset(record, (int)(published & 0xff), sizeof(record));
		memcpy(record, &published, sizeof(published));
		ok(shmb_publisher_send_wait(publisher, record, sizeof(record), 1000 * MS));
		memset(record, 0, sizeof(record));
		ok(shmb_subscriber_wait(subscriber, 1000 * MS));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, record, sizeof(record)),
				 sizeof(record));
		ck_assert_mem_eq(record, &published, sizeof(published));
		ck_assert_uint_eq((uint8_t)record[999], published & 0xff);
	}
}

static void begin(void (*limit)(void))
{
	unlink(FILLER); /* of a test that failed */
	daemon_process = process_begin(limit);
	client = connect_to(daemon_process.address);
	running = channel_of(client, "running", LANE_LEN);
	publisher = publisher_of(running, 0);
	subscriber = subscriber_of(running, 0);
	published = 0;
	stream_flows();
}

static void set_up_shortage(void)
{
	begin(NULL);
}

static void tear_down_shortage(void)
{
	stream_flows();
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(running));
	ok(shmb_client_close(client));
	process_end(&daemon_process);
}

static int open_client(struct shmb_client **opened)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = daemon_process.address,
					       .address_len =
						       (uint32_t)strlen(daemon_process.address) };

	return shmb_client_open(&options, opened);
}

/* One of each, as a newcomer opens them. */
struct newcomer {
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscriber;
	struct shmb_subscriber *listener;
};

/* Opens what can be opened; the first failure ends it. */
static int newcomer_open(struct newcomer *newcomer)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = 4096 };
	int result;

	*newcomer = (struct newcomer){ 0 };
	result = open_client(&newcomer->client);
	if (result == 0)
		result = shmb_channel_open(newcomer->client, "newcomer", 8, &options,
					   &newcomer->channel);
	if (result == 0)
		result = shmb_publisher_open(newcomer->channel, NULL, &newcomer->publisher);
	if (result == 0)
		result = shmb_subscriber_open(newcomer->channel, NULL, &newcomer->subscriber);
	if (result == 0)
		result = shmb_subscriber_open(newcomer->channel, NULL, &newcomer->listener);
	return result;
}

static void newcomer_works(struct newcomer *newcomer)
{
	char text[8] = "";

	ok(shmb_publisher_send(newcomer->publisher, "works", 5));
	ok(shmb_subscriber_wait(newcomer->subscriber, 2000 * MS));
	ck_assert_int_eq(shmb_subscriber_recv(newcomer->subscriber, text, sizeof(text)), 5);
	ck_assert_str_eq(text, "works");
}

static void newcomer_close(struct newcomer *newcomer)
{
	ok(shmb_subscriber_close(newcomer->listener));
	ok(shmb_subscriber_close(newcomer->subscriber));
	ok(shmb_publisher_close(newcomer->publisher));
	ok(shmb_channel_close(newcomer->channel));
	ok(shmb_client_close(newcomer->client));
}

/* The broker needs a moment to clean up after a client. */
static void objects_become(unsigned wanted)
{
	ok(shmb_client_ping(client, 2000 * MS));
	for (int i = 0; i < 400 && process_objects(&daemon_process) != wanted; i++)
		usleep(5000);
	ck_assert_uint_eq(process_objects(&daemon_process), wanted);
}

static void one_sentence(void)
{
	ck_assert_msg(strlen(why()) > 10 && !strchr(why(), '\n'), "\"%s\" is no sentence", why());
}

/* ---- /dev/shm ----------------------------------------------------------------------------------- */

/* Somebody else takes all of /dev/shm but so many pages. */
static void fill_but(uint64_t pages)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	int fd = open(FILLER, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct statvfs state;
	struct stat status;

	ck_assert_int_eq(statvfs("/dev/shm", &state), 0);
	ck_assert_int_eq(fstat(fd, &status), 0);
	if (state.f_bavail)
		ck_assert_int_eq(
			fallocate(fd, 0, status.st_size, (off_t)(state.f_bavail * state.f_frsize)),
			0);
	ck_assert_int_eq(fstat(fd, &status), 0);
	ck_assert_int_eq(ftruncate(fd, status.st_size - (off_t)(pages * page)), 0);
	close(fd);
}

START_TEST(a_lane_that_does_not_fit_is_refused_and_a_smaller_one_is_not)
{
	struct shmb_channel *huge = channel_of(client, "huge", 2 * SHM_LEN);
	struct shmb_channel *big = channel_of(client, "big", SHM_LEN / 2);
	unsigned before = process_objects(&daemon_process);
	struct shmb_publisher *first, *second;

	for (int i = 0; i < 3; i++) {
		refused(shmb_publisher_open(huge, NULL, &first), -ENOSPC);
		says("/dev/shm");
		one_sentence();
	}
	objects_become(before);
	ok(shmb_publisher_open(big, NULL, &first));
	refused(shmb_publisher_open(big, NULL, &second), -ENOSPC);
	stream_flows();
	ok(shmb_publisher_close(first));
	objects_become(before);
	ok(shmb_publisher_open(big, NULL, &second));
	ok(shmb_publisher_close(second));
	ok(shmb_channel_close(big));
	ok(shmb_channel_close(huge));
}
END_TEST

/* Every amount of room from none to enough, so that each step of opening is the one that fails. */
START_TEST(with_any_room_left_a_newcomer_works_or_is_refused_without_a_trace)
{
	unsigned before = process_objects(&daemon_process), n_refused = 0, n_worked = 0;

	for (uint64_t pages = 0; n_worked < 3; pages++) {
		struct newcomer newcomer;
		int result;

		ck_assert_uint_lt(pages, 100);
		fill_but(pages);
		result = newcomer_open(&newcomer);
		if (result == 0) {
			newcomer_works(&newcomer);
			n_worked++;
		} else {
			ck_assert_msg(result == -ENOSPC, "%d (%s)", result, why());
			one_sentence();
			says("/dev/shm");
			n_refused++;
		}
		stream_flows();
		newcomer_close(&newcomer);
		stream_flows();
		objects_become(before);
	}
	ck_assert_uint_gt(n_refused, 3);
	unlink(FILLER);
}
END_TEST

START_TEST(with_any_number_of_inodes_left_too)
{
	unsigned before = process_objects(&daemon_process), n_refused = 0, n_worked = 0;
	struct statvfs state;
	char options[32];

	ck_assert_int_eq(statvfs("/dev/shm", &state), 0);
	for (uint64_t left = 0; n_worked < 2; left++) {
		struct newcomer newcomer;
		int result;

		snprintf(options, sizeof(options), "nr_inodes=%llu",
			 (unsigned long long)(state.f_files - state.f_ffree + left));
		ck_assert_int_eq(mount("shm", "/dev/shm", "tmpfs", MS_REMOUNT, options), 0);
		result = newcomer_open(&newcomer);
		ck_assert_msg(result == 0 || result == -ENOSPC, "%d (%s)", result, why());
		one_sentence();
		if (result == 0)
			newcomer_works(&newcomer);
		n_worked += result == 0;
		n_refused += result != 0;
		newcomer_close(&newcomer);
		objects_become(before);
		stream_flows();
	}
	ck_assert_uint_gt(n_refused, 2);
	ck_assert_int_eq(mount("shm", "/dev/shm", "tmpfs", MS_REMOUNT, "nr_inodes=10000"), 0);
}
END_TEST

START_TEST(a_broker_that_finds_no_room_says_so_and_leaves_nothing)
{
	struct shmb_broker *second;

	fill_but(0);
	refused(shmb_broker_start(NULL, &second), -ENOSPC);
	one_sentence();
	unlink(FILLER);
	ok(shmb_broker_start(NULL, &second));
	ok(shmb_broker_stop(second));
}
END_TEST

/* What runs goes on, and nobody is thrown out. */
START_TEST(a_broker_that_is_killed_while_there_is_no_room_has_a_successor)
{
	for (int i = 0; i < 3; i++) {
		fill_but(0);
		process_kill(&daemon_process);
		stream_flows();
		process_start(&daemon_process, NULL, NULL);
		ok(shmb_client_ping(client, 5000 * MS));
		stream_flows();
		unlink(FILLER);
	}
}
END_TEST

/* ---- file descriptors --------------------------------------------------------------------------- */

static unsigned n_fds(void)
{
	return process_entries(getpid(), "fd");
}

static rlim_t limit_fds(rlim_t soft)
{
	struct rlimit limit;
	rlim_t before;

	getrlimit(RLIMIT_NOFILE, &limit);
	before = limit.rlim_cur;
	limit.rlim_cur = soft;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	return before;
}

static rlim_t next_fd(void)
{
	int fd = dup(0);

	close(fd);
	return (rlim_t)fd;
}

START_TEST(a_client_out_of_fds_is_told_and_keeps_none)
{
	unsigned before = n_fds(), objects = process_objects(&daemon_process), n_worked = 0;

	for (rlim_t more = 0; n_worked < 2; more++) {
		struct newcomer newcomer;
		rlim_t usual = limit_fds(next_fd() + more);
		int result = newcomer_open(&newcomer);

		limit_fds(usual);
		ck_assert_uint_lt(more, 100);
		if (result < 0) {
			ck_assert_msg(result == -EMFILE, "with %u fds: %d (%s)", (unsigned)more,
				      result, why());
			one_sentence();
		} else {
			/* What could not come for want of an fd comes now. */
			newcomer_works(&newcomer);
			n_worked++;
		}
		newcomer_close(&newcomer);
		stream_flows();
		objects_become(objects);
		ck_assert_uint_eq(n_fds(), before);
	}
}
END_TEST

static int32_t wait_for_one(struct shmb_waitset *waitset, int64_t timeout_ns)
{
	struct shmb_ready ready;

	return waitset ? shmb_waitset_wait(waitset, &ready, 1, timeout_ns)
		       : shmb_subscriber_wait(subscriber, timeout_ns);
}

/* Odd runs wait with a wait set. */
START_TEST(who_waits_out_of_fds_is_told_and_hears_the_publisher_later)
{
	struct shmb_waitset *waitset = NULL;
	int to[2], status;
	rlim_t usual;
	char byte;
	pid_t pid;

	ck_assert_int_eq(pipe(to), 0);
	pid = fork();
	if (pid == 0) {
		struct shmb_client *own;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(to[1]);
		if (read(to[0], &byte, 1) != 1)
			_exit(1);
		own = connect_to(daemon_process.address);
		ok(shmb_publisher_send(publisher_of(channel_of(own, "running", LANE_LEN), 0), "x",
				       1));
		_exit(read(to[0], &byte, 1) == 0 ? 0 : 1);
	}
	close(to[0]);
	if (_i & 1) {
		ok(shmb_waitset_open(client, &waitset));
		ok(shmb_waitset_add(waitset, subscriber, 0));
	}
	refused(wait_for_one(waitset, 1 * MS), -ETIMEDOUT);
	usual = limit_fds(next_fd());
	ck_assert_int_eq(write(to[1], "g", 1), 1);
	refused(wait_for_one(waitset, 1500 * MS), -EMFILE);
	one_sentence();
	limit_fds(usual);
	ok(wait_for_one(waitset, 10000 * MS));
	ck_assert_int_eq(shmb_subscriber_recv(subscriber, &byte, 1), 1);
	close(to[1]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	if (waitset)
		ok(shmb_waitset_remove(waitset, subscriber));
	ok(shmb_waitset_close(waitset));
}
END_TEST

static void few_fds(void)
{
	struct rlimit limit = { 64, 64 };

	setrlimit(RLIMIT_NOFILE, &limit);
}

static void set_up_few_fds(void)
{
	begin(few_fds);
}

START_TEST(a_broker_out_of_fds_does_not_spin_and_serves_again_later)
{
	struct shmb_client *clients[100], *last;
	uint64_t cpu, since;
	int n = 0, result;

	while (n < 100 && (result = open_client(&clients[n])) == 0)
		n++;
	ck_assert_int_gt(n, 5);
	ck_assert_int_lt(n, 64);
	ck_assert_msg(result == -EKEYREJECTED || result == -EMFILE, "%d (%s)", result, why());
	one_sentence();
	cpu = process_cpu_ms(daemon_process.pid);
	since = process_now_ms();
	while (process_now_ms() < since + 1000) {
		ck_assert_int_lt(open_client(&last), 0);
		usleep(50000);
	}
	cpu = process_cpu_ms(daemon_process.pid) - cpu;
	ck_assert_msg(cpu < 300, "%llu ms of CPU in one second", (unsigned long long)cpu);
	stream_flows();
	while (n)
		ok(shmb_client_close(clients[--n]));
	for (int i = 0; i < 100 && (result = open_client(&last)) < 0; i++)
		usleep(20000);
	ok(result);
	ok(shmb_client_close(last));
}
END_TEST

/* ---- other limits ------------------------------------------------------------------------------- */

START_TEST(a_file_size_limit_refuses_a_lane_and_kills_nobody)
{
	struct shmb_channel *channel = channel_of(client, "big", 1 << 20);
	unsigned before = process_objects(&daemon_process);
	struct rlimit usual, small = { 65536, RLIM_INFINITY };
	struct shmb_publisher *big;

	getrlimit(RLIMIT_FSIZE, &usual);
	small.rlim_max = usual.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
	refused(shmb_publisher_open(channel, NULL, &big), -EFBIG);
	says("RLIMIT_FSIZE");
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &usual), 0);
	objects_become(before);
	ok(shmb_publisher_open(channel, NULL, &big));
	ok(shmb_publisher_close(big));
	ok(shmb_channel_close(channel));
}
END_TEST

static void small_files(void)
{
	struct rlimit limit = { 512 << 10, 512 << 10 };

	setrlimit(RLIMIT_FSIZE, &limit);
}

static void set_up_small_files(void)
{
	begin(small_files);
}

START_TEST(a_file_size_limit_of_the_broker_refuses_and_does_not_kill_it)
{
	struct shmb_channel *channel = channel_of(client, "big", 1 << 20);
	unsigned before = process_objects(&daemon_process);
	struct shmb_publisher *big;

	refused(shmb_publisher_open(channel, NULL, &big), -ENOSPC);
	one_sentence();
	objects_become(before);
	ok(shmb_client_ping(client, 1000 * MS));
	ok(shmb_client_connected(client));
	ok(shmb_channel_close(channel));
}
END_TEST

START_TEST(without_address_space_a_lane_is_refused_with_enomem)
{
	struct shmb_channel *channel = channel_of(client, "big", 8 << 20);
	unsigned before = process_objects(&daemon_process);
	struct rlimit usual, small;
	unsigned long pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");
	struct shmb_publisher *big;

	ck_assert_int_eq(fscanf(file, "%lu", &pages), 1);
	fclose(file);
	getrlimit(RLIMIT_AS, &usual);
	small = usual;
	small.rlim_cur = pages * (rlim_t)sysconf(_SC_PAGESIZE) + (4 << 20);
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &small), 0);
	refused(shmb_publisher_open(channel, NULL, &big), -ENOMEM);
	says("address space");
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &usual), 0);
	objects_become(before);
	ok(shmb_publisher_open(channel, NULL, &big));
	ok(shmb_publisher_close(big));
	ok(shmb_channel_close(channel));
}
END_TEST

static rlim_t address_space_of(pid_t pid)
{
	unsigned long pages = 0;
	char path[32];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	file = fopen(path, "re");
	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(fscanf(file, "%lu", &pages), 1);
	fclose(file);
	return pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

START_TEST(a_broker_without_address_space_refuses_and_serves_again_later)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = 4096 };
	unsigned before = process_objects(&daemon_process);
	struct shmb_channel *channels[400];
	struct rlimit usual, small;
	char name[16];
	int n = 0, result = 0;

	ck_assert_int_eq(prlimit(daemon_process.pid, RLIMIT_AS, NULL, &usual), 0);
	small = usual;
	small.rlim_cur = address_space_of(daemon_process.pid) + (256 << 10);
	ck_assert_int_eq(prlimit(daemon_process.pid, RLIMIT_AS, &small, NULL), 0);
	while (n < 400 && result == 0) {
		snprintf(name, sizeof(name), "many/%d", n);
		result = shmb_channel_open(client, name, (uint32_t)strlen(name), &options,
					   &channels[n]);
		n += result == 0;
	}
	ck_assert_msg(result == -ENOSPC, "%d channels, %d (%s)", n, result, why());
	says("memory");
	one_sentence();
	stream_flows();
	ck_assert_uint_eq(process_objects(&daemon_process), before + (unsigned)n);
	ck_assert_int_eq(prlimit(daemon_process.pid, RLIMIT_AS, &usual, NULL), 0);
	ok(shmb_channel_open(client, name, (uint32_t)strlen(name), &options, &channels[n++]));
	while (n)
		ok(shmb_channel_close(channels[--n]));
	objects_become(before);
}
END_TEST

/* Root may lock what it likes; now it, and what it executes, may not. */
static void give_up_locking(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2];

	if (prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK) < 0 || syscall(SYS_capget, &head, sets) < 0)
		_exit(EXIT_SKIP);
	sets[0].effective &= ~(1u << CAP_IPC_LOCK);
	sets[0].permitted &= ~(1u << CAP_IPC_LOCK);
	sets[0].inheritable &= ~(1u << CAP_IPC_LOCK);
	if (syscall(SYS_capset, &head, sets) < 0)
		_exit(EXIT_SKIP);
}

/* As programs do that must not wait for a page: all that they will ever map is locked. */
static _Noreturn void lock_and_open(void)
{
	struct shmb_publisher *big;
	struct rlimit limit;
	struct shmb_channel *channel;
	struct shmb_client *own;
	unsigned fds;

	give_up_locking();
	own = connect_to(daemon_process.address);
	channel = channel_of(own, "big", 1 << 20);
	fds = n_fds();
	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (limit.rlim_max < 4 << 20)
		_exit(EXIT_SKIP);
	limit.rlim_cur = 256 << 10;
	ck_assert_int_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
	ck_assert_int_eq(mlockall(MCL_FUTURE), 0);
	for (int i = 0; i < 3; i++) {
		refused(shmb_publisher_open(channel, NULL, &big), -ENOMEM);
		says("RLIMIT_MEMLOCK");
		one_sentence();
	}
	ck_assert_uint_eq(n_fds(), fds);
	limit.rlim_cur = limit.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
	ok(shmb_publisher_open(channel, NULL, &big));
	ok(shmb_publisher_send(big, "locked", 6));
	ok(shmb_publisher_close(big));
	ck_assert_uint_eq(n_fds(), fds);
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
	_exit(0);
}

START_TEST(what_may_not_be_locked_in_memory_is_refused_until_it_may)
{
	unsigned before = process_objects(&daemon_process);
	int status;
	pid_t pid = fork();

	if (pid == 0)
		lock_and_open();
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0 || status == EXIT_SKIP << 8, "the client ended with 0x%x",
		      status);
	objects_become(before);
}
END_TEST

static void no_locked_memory(void)
{
	struct rlimit limit = { 0, 0 };

	give_up_locking();
	setrlimit(RLIMIT_MEMLOCK, &limit);
}

static void set_up_no_locked_memory(void)
{
	begin(no_locked_memory);
}

START_TEST(a_broker_that_may_lock_no_memory_serves_as_any_other)
{
	unsigned before = process_objects(&daemon_process);

	for (int i = 0; i < 3; i++) {
		struct newcomer newcomer;

		ok(newcomer_open(&newcomer));
		newcomer_works(&newcomer);
		newcomer_close(&newcomer);
	}
	objects_become(before);
}
END_TEST

/* ---- memory control group ----------------------------------------------------------------------- */

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : write(fd, text, strlen(text));

	close(fd);
	return n < 0 ? -1 : 0;
}

/* Makes a group below our own with 64 MiB. Returns its directory; NULL: there are none for us. */
static const char *make_group(void)
{
	static const char *const roots[][2] = {
		{ "/sys/fs/cgroup", "memory.max" },
		{ "/sys/fs/cgroup/memory", "memory.limit_in_bytes" },
	};
	static char group[64];
	char limit[128];

	for (int i = 0; i < 2; i++) {
		snprintf(group, sizeof(group), "%s/shmb-test.%d", roots[i][0], getpid());
		if (mkdir(group, 0755) < 0)
			continue;
		snprintf(limit, sizeof(limit), "%s/%s", group, roots[i][1]);
		if (write_file(limit, "67108864") == 0)
			return group;
		rmdir(group);
	}
	return NULL;
}

/* A child in the group, since no process may be left in it. Returns what the lane was refused with. */
static int open_big_lane_in(const char *group)
{
	struct shmb_publisher *big;
	char procs[128];
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct shmb_client *own;

		snprintf(procs, sizeof(procs), "%s/cgroup.procs", group);
		if (write_file(procs, "0") < 0 || open_client(&own) < 0)
			_exit(1);
		status = shmb_publisher_open(channel_of(own, "big", 64 << 20), NULL, &big);
		if (status != -ENOSPC || !strstr(why(), "control group"))
			_exit(2);
		_exit(shmb_publisher_open(channel_of(own, "small", 4096), NULL, &big) < 0 ? 3 : 0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

START_TEST(a_control_group_without_memory_refuses_a_lane_and_kills_nobody)
{
	const char *group = make_group();
	unsigned before = process_objects(&daemon_process);
	int status;

	if (!group) {
		printf("no memory control group can be made here, case skipped\n");
		return;
	}
	status = open_big_lane_in(group);
	for (int i = 0; i < 100 && rmdir(group) < 0; i++)
		usleep(10000);
	ck_assert_msg(status == 0, "the client in the group ended with status 0x%x", status);
	objects_become(before);
}
END_TEST

/* ---- */

static int make_place(void)
{
	char options[32];

	snprintf(options, sizeof(options), "size=%u,mode=1777", SHM_LEN);
	if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_PRIVATE | MS_REC, NULL) < 0)
		return -1;
	return mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, options);
}

int main(void)
{
	TCase *cases[] = { gated_case("shortage"), gated_case("few fds"), gated_case("small files"),
			   gated_case("no locked memory") };

	if (make_place() < 0) {
		printf("SKIP: cannot mount a /dev/shm of its own: %s\n", strerror(errno));
		return EXIT_SKIP;
	}
	tcase_add_checked_fixture(cases[0], set_up_shortage, tear_down_shortage);
	tcase_add_checked_fixture(cases[1], set_up_few_fds, tear_down_shortage);
	tcase_add_checked_fixture(cases[2], set_up_small_files, tear_down_shortage);
	tcase_add_checked_fixture(cases[3], set_up_no_locked_memory, tear_down_shortage);
	for (int i = 0; i < N_CASES; i++)
		tcase_set_timeout(cases[i], 60);
	tcase_add_test(cases[0], a_lane_that_does_not_fit_is_refused_and_a_smaller_one_is_not);
	tcase_add_test(cases[0], with_any_room_left_a_newcomer_works_or_is_refused_without_a_trace);
	tcase_add_test(cases[0], with_any_number_of_inodes_left_too);
	tcase_add_test(cases[0], a_broker_that_finds_no_room_says_so_and_leaves_nothing);
	tcase_add_test(cases[0], a_broker_that_is_killed_while_there_is_no_room_has_a_successor);
	tcase_add_loop_test(cases[0], who_waits_out_of_fds_is_told_and_hears_the_publisher_later, 0,
			    2);
	tcase_add_test(cases[0], a_client_out_of_fds_is_told_and_keeps_none);
	tcase_add_test(cases[0], a_file_size_limit_refuses_a_lane_and_kills_nobody);
	/* Sanitizers reserve terabytes, and let nobody lock them. */
	if (!process_is_sanitized()) {
		tcase_add_test(cases[0], without_address_space_a_lane_is_refused_with_enomem);
		tcase_add_test(cases[0],
			       a_broker_without_address_space_refuses_and_serves_again_later);
		tcase_add_test(cases[0], what_may_not_be_locked_in_memory_is_refused_until_it_may);
	}
	tcase_add_test(cases[3], a_broker_that_may_lock_no_memory_serves_as_any_other);
	tcase_add_test(cases[0], a_control_group_without_memory_refuses_a_lane_and_kills_nobody);
	tcase_add_test(cases[1], a_broker_out_of_fds_does_not_spin_and_serves_again_later);
	tcase_add_test(cases[2], a_file_size_limit_of_the_broker_refuses_and_does_not_kill_it);
	return run_suite("shortage", cases, N_CASES);
}
