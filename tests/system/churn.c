/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Clients come and go by the hundred while records flow: some close in order, some only exit, some
 * are killed at whatever instruction they are. Every record that arrives is whole, and in the end
 * the broker uses what it used in the beginning: objects, fds, registry entries, threads, memory.
 * And when nothing happens it does nothing.
 */

#include <errno.h>
#include <sys/mman.h>

#include "tests/system/process.h"

#define N_CLIENTS   100
#define N_CHANNELS  4
#define LANE_LEN    16384
#define RECORD_MAX  400
#define TIMEOUT	    (10000 * MS)
#define RSS_MORE_KB 4096

/* Most of what a client does happens within this time of its start. */
#define KILL_WITHIN_US 50000

/* A machine too slow even for this fails; only who carries a sanitizer does what it can. */
#define AMOUNT_MS 150000

static struct process daemon_process;
static uint64_t seed;
static int is_quick;

static uint64_t next_random(void)
{
	/* splitmix64 */
	uint64_t z = (seed += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* ---- what the broker uses ----------------------------------------------------------------------- */

struct usage {
	unsigned objects;
	unsigned entries;
	unsigned fds;
	unsigned threads;
	unsigned rss_kb;
};

static unsigned live_entries(void)
{
	const struct shmb_registry_entry *entry;
	char name[64];
	struct stat status;
	unsigned n = 0;
	uint8_t *map;
	int fd;

	snprintf(name, sizeof(name), "/shmb.%016llx.registry",
		 (unsigned long long)daemon_process.instance);
	fd = shm_open(name, O_RDONLY | O_CLOEXEC, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &status), 0);
	map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(map, MAP_FAILED);
	entry = (const void *)(map + SHMB_BLOCK_LEN);
	for (; (const uint8_t *)(entry + 1) <= map + status.st_size; entry++)
		n += __atomic_load_n(&entry->state, __ATOMIC_RELAXED) == SHMB_ENTRY_LIVE;
	munmap(map, (size_t)status.st_size);
	close(fd);
	return n;
}

static struct usage measure(void)
{
	struct usage usage = { .objects = process_objects(&daemon_process),
			       .entries = live_entries(),
			       .fds = process_entries(daemon_process.pid, "fd"),
			       .threads = process_entries(daemon_process.pid, "task") };
	char path[32], line[128];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", daemon_process.pid);
	file = fopen(path, "re");
	ck_assert_ptr_nonnull(file);
	while (fgets(line, sizeof(line), file))
		sscanf(line, "VmRSS: %u", &usage.rss_kb);
	fclose(file);
	return usage;
}

static int is_same(const struct usage *a, const struct usage *b)
{
	return a->objects == b->objects && a->entries == b->entries && a->fds == b->fds &&
	       a->threads == b->threads;
}

/* The dead are buried by and by. */
static void nothing_is_left(const struct usage *before)
{
	struct usage after = measure();

	for (int i = 0; i < 1000 && !is_same(before, &after); i++) {
		usleep(5000);
		after = measure();
	}
	ck_assert_msg(is_same(before, &after),
		      "objects %u, then %u; entries %u, %u; fds %u, %u; threads %u, %u",
		      before->objects, after.objects, before->entries, after.entries, before->fds,
		      after.fds, before->threads, after.threads);
	/* Freed memory stays with the allocator, but not more of it each time. */
	ck_assert_msg(process_is_sanitized() || after.rss_kb < before->rss_kb + RSS_MORE_KB,
		      "resident memory grew from %u to %u KiB", before->rss_kb, after.rss_kb);
}

/* ---- records ------------------------------------------------------------------------------------ */

static uint64_t checksum(const uint8_t *bytes, uint32_t len)
{
	uint64_t sum = 0xcbf29ce484222325ull;

	for (uint32_t i = 0; i < len; i++)
		sum = (sum ^ bytes[i]) * 0x100000001b3ull;
	return sum;
}

static uint32_t make_record(uint8_t record[RECORD_MAX])
{
	uint32_t len = 16 + (uint32_t)(next_random() % (RECORD_MAX - 16));
	uint64_t sum;

	for (uint32_t i = 8; i < len; i++)
		record[i] = (uint8_t)(len * i + (uint32_t)(seed >> 7));
	sum = checksum(record + 8, len - 8);
	memcpy(record, &sum, sizeof(sum));
	return len;
}

static int is_whole(const uint8_t *record, int32_t len)
{
	uint64_t sum;

	if (len < 16)
		return 0;
	memcpy(&sum, record, sizeof(sum));
	return sum == checksum(record + 8, (uint32_t)len - 8);
}

/* ---- clients ------------------------------------------------------------------------------------ */

enum end {
	END_CLOSE,
	END_EXIT,
	END_KILL,
	N_ENDS
};

/* Exit code of a client that saw something wrong; the others are where it was. */
#define CODE_TORN 90

static int must(int32_t result, int code)
{
	/* Of many clients some find all slots taken, or nobody who reads. */
	if (result >= 0 || result == -EDQUOT || result == -EAGAIN || result == -ETIMEDOUT)
		return result;
	fprintf(stderr, "a client, step %d: %d (%s)\n", code, result, why());
	_exit(code);
}

/* All clients fit into one channel. */
static const struct shmb_channel_options crowded = { .options_len = sizeof(crowded),
						     .flags = SHMB_CHANNEL_CREATE,
						     .lane_len = LANE_LEN,
						     .max_publishers = 128,
						     .max_subscribers = 128 };

/* SIGKILL after so many microseconds, at whatever instruction. */
static void kill_me_after(uint64_t us)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL };
	struct itimerspec time = { .it_value = { .tv_nsec = (long)(us * 1000 + 1) } };
	timer_t timer;

	if (timer_create(CLOCK_MONOTONIC, &event, &timer) < 0 ||
	    timer_settime(timer, 0, &time, NULL) < 0)
		_exit(99);
}

static void talk(struct shmb_publisher *publisher, struct shmb_subscriber *subscriber)
{
	int n = 5 + (int)(next_random() % 50);
	uint8_t record[RECORD_MAX];

	for (int i = 0; i < n; i++) {
		int32_t got;

		if (publisher)
			must(shmb_publisher_send(publisher, record, make_record(record)), 4);
		if (!subscriber || shmb_subscriber_wait(subscriber, 5 * MS) < 0)
			continue;
		while ((got = must(shmb_subscriber_recv(subscriber, record, sizeof(record)), 5)) >=
		       0)
			if (!is_whole(record, got))
				_exit(CODE_TORN);
	}
}

static _Noreturn void live(enum end end)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .connect_timeout_ns = TIMEOUT,
					       .address = daemon_process.address,
					       .address_len =
						       (uint32_t)strlen(daemon_process.address) };
	uint32_t flags = next_random() % 2 ? SHMB_SUBSCRIBER_LOSSY : 0;
	struct shmb_subscriber_options how = { .options_len = sizeof(how), .flags = flags };
	struct shmb_subscriber *subscriber = NULL;
	struct shmb_publisher *publisher = NULL;
	struct shmb_channel *channel;
	struct shmb_client *own;
	char name[16];

	if (end == END_KILL)
		kill_me_after(next_random() % KILL_WITHIN_US);
	snprintf(name, sizeof(name), "churn/%u", (unsigned)(next_random() % N_CHANNELS));
	must(shmb_client_open(&options, &own), 1);
	must(shmb_channel_open(own, name, (uint32_t)strlen(name), &crowded, &channel), 2);
	if (next_random() % 4)
		must(shmb_subscriber_open(channel, &how, &subscriber), 3);
	if (next_random() % 3 == 0)
		must(shmb_publisher_open(channel, NULL, &publisher), 3);
	talk(publisher, subscriber);
	if (end == END_KILL)
		pause();
	if (end == END_CLOSE &&
	    (shmb_publisher_close(publisher) < 0 || shmb_subscriber_close(subscriber) < 0 ||
	     shmb_channel_close(channel) < 0 || shmb_client_close(own) < 0))
		_exit(6);
	_exit(0);
}

static void start_one(int to_be_killed)
{
	uint64_t own_seed = next_random();
	enum end end = to_be_killed ? END_KILL : (enum end)(next_random() % N_ENDS);
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		seed = own_seed;
		live(end);
	}
}

/* Buries the dead. Returns how many. */
static int bury(int flags)
{
	int status, n = 0;
	pid_t pid;

	while ((pid = waitpid(-1, &status, flags)) > 0) {
		if (pid == daemon_process.pid)
			ck_abort_msg("the broker died with status 0x%x", status);
		ck_assert_msg(!WIFEXITED(status) || WEXITSTATUS(status) == 0,
			      WEXITSTATUS(status) == CODE_TORN ? "a record was torn (code %d)"
							       : "a client failed at step %d",
			      WEXITSTATUS(status));
		ck_assert_msg(!WIFSIGNALED(status) || WTERMSIG(status) == SIGKILL,
			      "a client died of signal %d", WTERMSIG(status));
		n++;
		if (!(flags & WNOHANG))
			break;
	}
	return n;
}

/* The stream that must not suffer. */
static struct {
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscriber;
} stream;

static void begin_stream(void)
{
	client = connect_to(daemon_process.address);
	ok(shmb_channel_open(client, "churn/0", 7, &crowded, &stream.channel));
	stream.publisher = publisher_of(stream.channel, 0);
	stream.subscriber = subscriber_of(stream.channel, 0);
}

static void end_stream(void)
{
	ok(shmb_subscriber_close(stream.subscriber));
	ok(shmb_publisher_close(stream.publisher));
	ok(shmb_channel_close(stream.channel));
	ok(shmb_client_close(client));
}

/* What is sent arrives, between records of the others. */
static void pass_one(void)
{
	uint8_t sent[RECORD_MAX], record[RECORD_MAX];
	uint32_t len = make_record(sent);
	int32_t got;

	ok(shmb_publisher_send_wait(stream.publisher, sent, len, TIMEOUT));
	for (;;) {
		ok(shmb_subscriber_wait(stream.subscriber, TIMEOUT));
		got = shmb_subscriber_recv(stream.subscriber, record, sizeof(record));
		if (got == -EAGAIN)
			continue;
		ok(got);
		ck_assert_msg(is_whole(record, got), "a record of %d bytes was torn", got);
		if ((uint32_t)got == len && memcmp(record, sent, len) == 0)
			return;
	}
}

static void churn_for(uint64_t ms)
{
	uint64_t end = process_now_ms() + ms;
	int n_alive = 0, n_all = 0;

	while (process_now_ms() < end) {
		for (int i = 0; n_alive < N_CLIENTS && i < 10; i++, n_alive++, n_all++)
			start_one(0);
		for (int i = 0; i < 20; i++)
			pass_one();
		n_alive -= bury(WNOHANG);
	}
	while (n_alive > 0) {
		pass_one();
		n_alive -= bury(WNOHANG);
	}
	printf("%d clients came and went\n", n_all);
}

/* So many clients die at any instruction of whatever they do. */
static int kill_clients(int wanted)
{
	uint64_t end = process_now_ms() + AMOUNT_MS;
	int n_alive = 0, n_all = 0;

	while (n_all < wanted && process_now_ms() < end) {
		for (int i = 0; n_alive < N_CLIENTS / 4 && n_all < wanted && i < 10; i++) {
			start_one(1);
			n_alive++;
			n_all++;
		}
		pass_one();
		n_alive -= bury(WNOHANG);
	}
	while (n_alive > 0) {
		pass_one();
		n_alive -= bury(WNOHANG);
	}
	return n_all;
}

/* ---- a long stream ------------------------------------------------------------------------------ */

#define BATCH 256u

struct numbered {
	uint64_t number;
	uint64_t check;
};

static struct numbered numbered(uint64_t number)
{
	uint64_t z = number * 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	return (struct numbered){ number, z ^ z >> 27 };
}

static _Noreturn void publish_numbers(uint64_t n)
{
	struct shmb_client *own = connect_to(daemon_process.address);
	struct shmb_channel *channel = channel_of(own, "long", 1 << 18);
	struct shmb_publisher *publisher = publisher_of(channel, 0);
	struct numbered records[BATCH];

	ok(shmb_channel_wait_members(channel, 1, 1, TIMEOUT));
	for (uint64_t i = 0; i < n;) {
		uint32_t wanted = n - i < BATCH ? (uint32_t)(n - i) : BATCH;
		int32_t sent;

		for (uint32_t k = 0; k < wanted; k++)
			records[k] = numbered(i + k);
		for (uint32_t k = 0; k < wanted; k += (uint32_t)sent) {
			sent = shmb_publisher_send_many(publisher, records + k, sizeof(records[0]),
							NULL, wanted - k);
			if (sent == -EAGAIN) {
				sent = 0;
				ok(shmb_publisher_wait(publisher, sizeof(records[0]), TIMEOUT));
			}
			ok(sent);
		}
		i += wanted;
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
	_exit(0);
}

START_TEST(every_byte_of_a_long_stream_is_right)
{
	uint64_t wanted = is_quick || process_is_sanitized() ? 2000000 : 100000000, next = 0;
	uint64_t end, start;
	struct shmb_subscriber *subscriber;
	struct numbered records[BATCH];
	struct shmb_channel *channel;
	int status;
	pid_t pid;

	client = connect_to(daemon_process.address);
	channel = channel_of(client, "long", 1 << 18);
	subscriber = subscriber_of(channel, 0);
	start = process_now_ms();
	end = start + AMOUNT_MS;
	pid = fork();
	if (pid == 0)
		publish_numbers(wanted);
	while (next < wanted) {
		int32_t n = shmb_subscriber_recv_many(subscriber, records, sizeof(records), NULL,
						      BATCH);

		if (n == -EAGAIN) {
			ok(shmb_subscriber_wait(subscriber, TIMEOUT));
			continue;
		}
		ok(n);
		for (int32_t i = 0; i < n; i++, next++) {
			struct numbered right = numbered(next);

			if (records[i].number != right.number || records[i].check != right.check)
				ck_abort_msg("record %llu is %llu", (unsigned long long)next,
					     (unsigned long long)records[i].number);
		}
		if (process_now_ms() >= end)
			break;
	}
	printf("counted: %llu records compared\n", (unsigned long long)next);
	printf("in %llu ms\n", (unsigned long long)(process_now_ms() - start));
	fflush(stdout);
	if (next < wanted)
		kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_uint_ge(next, process_is_sanitized() ? 100000 : wanted);
	ck_assert_msg(status == 0 || (next < wanted && status == SIGKILL), "0x%x", status);
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(client));
}
END_TEST

/* ---- */

static void set_up_churn(void)
{
	daemon_process = process_begin(NULL);
}

static void tear_down_churn(void)
{
	process_end(&daemon_process);
}

START_TEST(a_hundred_clients_at_once_come_and_go_and_leave_nothing)
{
	const char *given = getenv("SHMB_TEST_SEED");
	struct usage before;

	seed = given ? strtoull(given, NULL, 0) : process_now_ms() * 1000003 + (uint64_t)getpid();
	printf("SHMB_TEST_SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout);
	begin_stream();
	/* The first round fills caches: what is kept for later is no leak. */
	churn_for(300);
	ok(shmb_client_ping(client, TIMEOUT));
	usleep(300000);
	before = measure();
	churn_for(is_quick ? 1500 : 5000);
	nothing_is_left(&before);
	end_stream();
}
END_TEST

START_TEST(a_thousand_clients_are_killed_and_leave_nothing)
{
	struct usage before;
	uint64_t start;
	int n, wanted = is_quick ? 100 : 1000;

	seed = process_now_ms() * 1000003 + (uint64_t)getpid();
	begin_stream();
	kill_clients(50);
	ok(shmb_client_ping(client, TIMEOUT));
	usleep(300000);
	before = measure();
	start = process_now_ms();
	n = kill_clients(wanted);
	printf("counted: %d clients killed\nin %llu ms\n", n,
	       (unsigned long long)(process_now_ms() - start));
	fflush(stdout);
	ck_assert_int_ge(n, process_is_sanitized() ? 50 : wanted);
	nothing_is_left(&before);
	end_stream();
}
END_TEST

START_TEST(thousands_of_connects_in_a_row_leave_nothing)
{
	int n = 0, wanted = is_quick ? 2000 : 10000;
	uint64_t start, end;
	struct usage before;

	for (int i = 0; i < 100; i++)
		ok(shmb_client_close(connect_to(daemon_process.address)));
	usleep(300000);
	before = measure();
	start = process_now_ms();
	end = start + (process_is_sanitized() ? 20000 : AMOUNT_MS);
	for (; n < wanted && process_now_ms() < end; n++)
		ok(shmb_client_close(connect_to(daemon_process.address)));
	printf("counted: %d connects\nin %llu ms\n", n,
	       (unsigned long long)(process_now_ms() - start));
	ck_assert_int_ge(n, process_is_sanitized() ? 500 : wanted);
	nothing_is_left(&before);
}
END_TEST

START_TEST(a_broker_with_a_hundred_idle_subscribers_sleeps)
{
	struct shmb_subscriber *subscribers[N_CLIENTS];
	struct shmb_channel *channels[N_CLIENTS];
	struct shmb_client *clients[N_CLIENTS];
	uint64_t seconds = is_quick ? 2 : 5, cpu;

	for (int i = 0; i < N_CLIENTS; i++) {
		clients[i] = connect_to(daemon_process.address);
		channels[i] = channel_of(clients[i], i % 2 ? "odd" : "even", 4096);
		subscribers[i] = subscriber_of(channels[i], 0);
	}
	usleep(300000);
	cpu = process_cpu_ms(daemon_process.pid);
	sleep((unsigned)seconds);
	cpu = process_cpu_ms(daemon_process.pid) - cpu;
	printf("idle: %llu ms of CPU in %llu s\n", (unsigned long long)cpu,
	       (unsigned long long)seconds);
	/* More than 1 %; what the kernel counts comes in steps of 10 ms. */
	ck_assert_uint_le(cpu, seconds * 10);
	for (int i = 0; i < N_CLIENTS; i++) {
		ok(shmb_subscriber_close(subscribers[i]));
		ok(shmb_channel_close(channels[i]));
		ok(shmb_client_close(clients[i]));
	}
}
END_TEST

int main(void)
{
	TCase *cases[] = { gated_case("churn") };
	const char *quick = getenv("SHMB_TEST_QUICK");

	is_quick = quick && strcmp(quick, "1") == 0;
	tcase_add_checked_fixture(cases[0], set_up_churn, tear_down_churn);
	tcase_set_timeout(cases[0], 200);
	tcase_add_test(cases[0], a_hundred_clients_at_once_come_and_go_and_leave_nothing);
	tcase_add_test(cases[0], a_thousand_clients_are_killed_and_leave_nothing);
	tcase_add_test(cases[0], every_byte_of_a_long_stream_is_right);
	tcase_add_test(cases[0], thousands_of_connects_in_a_row_leave_nothing);
	tcase_add_test(cases[0], a_broker_with_a_hundred_idle_subscribers_sleeps);
	return run_suite("churn", cases, 1);
}
