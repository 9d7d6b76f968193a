/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Every system call of the library and of the broker fails, with every error that it may fail with,
 * once and for ever. Whatever was asked for is refused with a sentence or done in another way;
 * nothing is left of it, whoever else is there notices nothing, and the next attempt succeeds.
 */

#include <errno.h>
#include <poll.h>
#include <sys/mman.h>

#include "tests/system/inject.h"
#include "tests/system/process.h"

#define LANE_LEN  16384u
#define PATIENCE  (300 * MS)
#define EXIT_SKIP 77
#define N_TURNS	  7u

static struct process daemon_process;
static struct inject *inject;

/* What runs while the faults happen. */
static struct shmb_channel *running;
static struct shmb_publisher *publisher;
static struct shmb_subscriber *subscriber;
static uint64_t published;

static uint64_t total; /* faults of this case */

static int is_quick(void)
{
	return getenv("SHMB_TEST_QUICK") != NULL;
}

/* Each case has its share of time; a machine too slow for all faults sees every call fail once. */
static uint64_t budget_ms(void)
{
	return is_quick() ? 1500 : 30000;
}

static void stream_begins(void)
{
	client = connect_to(daemon_process.address);
	running = channel_of(client, "running", LANE_LEN);
	publisher = publisher_of(running, 0);
	subscriber = subscriber_of(running, 0);
	published = 0;
}

static void stream_flows(void)
{
	uint64_t got;

	for (int i = 0; i < 20; i++, published++) {
		ok(shmb_publisher_send_wait(publisher, &published, sizeof(published), 5000 * MS));
		ok(shmb_subscriber_wait(subscriber, 5000 * MS));
		ck_assert_int_eq(shmb_subscriber_recv(subscriber, &got, sizeof(got)), sizeof(got));
		ck_assert_uint_eq(got, published);
	}
}

static void stream_ends(void)
{
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(running));
	ok(shmb_client_close(client));
}

/* ---- one of each ------------------------------------------------------------------------------ */

struct newcomer {
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscriber;
	struct shmb_waitset *waitset;
};

/* A record through each way to wait. */
static int newcomer_talks(struct newcomer *newcomer)
{
	struct pollfd entry = { .events = POLLIN };
	struct shmb_ready ready;
	char text[8] = "";
	int result;

	result = shmb_publisher_send(newcomer->publisher, "works", 6);
	if (result == 0)
		result = shmb_subscriber_wait(newcomer->subscriber, PATIENCE);
	if (result == 0)
		result = shmb_subscriber_recv(newcomer->subscriber, text, sizeof(text));
	if (result >= 0)
		ck_assert_str_eq(text, "works");
	if (result >= 0)
		result =
			shmb_subscriber_wait(newcomer->subscriber, 2 * MS) == -ETIMEDOUT ? 0 : -EIO;
	if (result >= 0)
		result = shmb_subscriber_fd(newcomer->subscriber);
	entry.fd = result;
	if (result >= 0)
		result = shmb_subscriber_arm(newcomer->subscriber);
	if (result >= 0)
		result = shmb_publisher_send(newcomer->publisher, "again", 6);
	if (result >= 0)
		poll(&entry, 1, 100);
	if (result >= 0)
		result = shmb_waitset_open(newcomer->client, &newcomer->waitset);
	if (result >= 0)
		result = shmb_waitset_add(newcomer->waitset, newcomer->subscriber, 1);
	if (result >= 0)
		result = shmb_waitset_wait(newcomer->waitset, &ready, 1, PATIENCE);
	if (result >= 0)
		result = shmb_subscriber_recv(newcomer->subscriber, text, sizeof(text));
	if (result >= 0)
		ck_assert_str_eq(text, "again");
	return result < 0 ? result : 0;
}

/* The first failure ends it. */
static int newcomer_open(struct newcomer *newcomer)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .connect_timeout_ns = PATIENCE,
					       .address = daemon_process.address,
					       .address_len =
						       (uint32_t)strlen(daemon_process.address) };
	struct shmb_subscriber_options sleepy = { .options_len = sizeof(sleepy),
						  .flags = SHMB_SUBSCRIBER_NO_SPIN };
	struct shmb_channel_options create = { .options_len = sizeof(create),
					       .flags = SHMB_CHANNEL_CREATE,
					       .lane_len = LANE_LEN };
	int result;

	*newcomer = (struct newcomer){ 0 };
	result = shmb_client_open(&options, &newcomer->client);
	if (result == 0)
		result = shmb_channel_open(newcomer->client, "newcomer", 8, &create,
					   &newcomer->channel);
	if (result == 0)
		result = shmb_publisher_open(newcomer->channel, NULL, &newcomer->publisher);
	if (result == 0)
		result = shmb_subscriber_open(newcomer->channel, &sleepy, &newcomer->subscriber);
	return result == 0 ? newcomer_talks(newcomer) : result;
}

static void newcomer_close(struct newcomer *newcomer)
{
	shmb_waitset_close(newcomer->waitset);
	shmb_subscriber_close(newcomer->subscriber);
	shmb_publisher_close(newcomer->publisher);
	shmb_channel_close(newcomer->channel);
	shmb_client_close(newcomer->client);
}

static int newcomer_comes_and_goes(void)
{
	struct newcomer newcomer;
	int result = newcomer_open(&newcomer);

	if (result < 0)
		ck_assert_msg(strlen(why()) > 5 && !strchr(why(), '\n'),
			      "%d: \"%s\" is no sentence", result, why());
	newcomer_close(&newcomer);
	return result;
}

/* ---- what must not leak ----------------------------------------------------------------------- */

/* Mappings of shared memory and of rings. */
static unsigned shared_mappings(pid_t pid)
{
	char path[32], line[512];
	unsigned n = 0;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	while (maps && fgets(line, sizeof(line), maps))
		n += strstr(line, "/shmb.") || strstr(line, "memfd:") || strstr(line, "io_uring");
	if (maps)
		fclose(maps);
	return n;
}

struct held {
	unsigned fds;
	unsigned mappings;
};

static struct held held_by(pid_t pid)
{
	return (struct held){ process_entries(pid, "fd"), shared_mappings(pid) };
}

static int holds(pid_t pid, const struct held *before)
{
	struct held now = held_by(pid);

	return now.fds <= before->fds && now.mappings <= before->mappings;
}

static const char *fault(void)
{
	static char text[128];

	snprintf(text, sizeof(text), "call %u, %s fails with %s %s", inject->at,
		 inject_name(inject), strerrorname_np(inject->failed_errno),
		 inject->for_ever ? "for ever" : "once");
	return text;
}

static void becomes(pid_t pid, const struct held *before)
{
	struct held now;

	for (int i = 0; i < 6000 && !holds(pid, before); i++)
		usleep(500);
	now = held_by(pid);
	ck_assert_msg(holds(pid, before), "%s: %u fds have become %u, %u mappings %u", fault(),
		      before->fds, now.fds, before->mappings, now.mappings);
}

static void objects_become(unsigned wanted)
{
	for (int i = 0; i < 3000 && process_objects(&daemon_process) != wanted; i++)
		usleep(500);
	ck_assert_msg(process_objects(&daemon_process) == wanted, "%s: %u objects have become %u",
		      fault(), wanted, process_objects(&daemon_process));
}

/*
 * Calls @attempt for each call, each error, once and for ever, until no call is left to fail. Every
 * call (one in four in quick mode) fails in the first round; the rounds after go through the other
 * errors for as long as there is time.
 */
static void for_every_fault(const char *what,
			    void (*attempt)(uint32_t at, uint32_t turn, bool ever))
{
	uint64_t end = process_now_ms() + budget_ms();
	uint32_t longest = 0, n_rounds = 0, stride = is_quick() ? 4 : 1;

	total = 0;
	for (uint32_t round = 0; round < 2 * N_TURNS && process_now_ms() < end;
	     round++, n_rounds++) {
		for (uint32_t at = round % stride; at < 5000; at += stride) {
			if (round > 0 && process_now_ms() >= end)
				break;
			attempt(at, round / 2, round % 2);
			if (getenv("SHMB_TEST_LOG"))
				fprintf(stderr, "%s\n", fault());
			if (inject->n_failed == 0) {
				longest = at > longest ? at : longest;
				break;
			}
			/* This call has no so many errors. */
			total += round / 2 < inject->n_errnos;
		}
	}
	printf("%s: up to %u calls, %u of %u rounds\n", what, longest, n_rounds, 2 * N_TURNS);
	printf("counted: %llu injected faults\n", (unsigned long long)total);
	fflush(stdout);
}

/* ---- the library ------------------------------------------------------------------------------ */

static struct held own_before;

static void newcomer_with_fault(uint32_t at, uint32_t turn, bool ever)
{
	int result;

	inject_arm(inject, at, turn, ever);
	newcomer_comes_and_goes();
	inject_disarm(inject);
	if (inject->n_failed && turn >= inject->n_errnos)
		return;
	becomes(getpid(), &own_before);
	result = newcomer_comes_and_goes();
	ck_assert_msg(result == 0, "after %s: %d (%s)", fault(), result, why());
	becomes(getpid(), &own_before);
}

static _Noreturn void be_newcomers(const char *io)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setenv("SHMBROKER_IO", io, 1);
	/* The first one fills caches. */
	ok(newcomer_comes_and_goes());
	ok(newcomer_comes_and_goes());
	own_before = held_by(getpid());
	if (inject_become_victim(inject) < 0)
		_exit(EXIT_SKIP);
	for_every_fault(strcmp(io, "epoll") == 0 ? "library on epoll" : "library on io_uring",
			newcomer_with_fault);
	_exit(total >= 25 ? 0 : 3);
}

START_TEST(every_call_of_the_library_may_fail)
{
	unsigned before;
	int status;
	pid_t pid;

	daemon_process = process_begin(NULL);
	stream_begins();
	stream_flows();
	before = process_objects(&daemon_process);
	pid = fork();
	if (pid == 0)
		be_newcomers(_i ? "epoll" : "auto");
	if (inject_supervise(inject) < 0) {
		printf("no seccomp notification here, case skipped\n");
	} else {
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_msg(status == 0, "%s: the client ended with status 0x%x", fault(),
			      status);
	}
	stream_flows();
	objects_become(before);
	stream_ends();
	process_end(&daemon_process);
}
END_TEST

/* ---- the broker, serving ---------------------------------------------------------------------- */

static unsigned objects_before;
static struct held broker_before;
static const char *broker_io;

static void become_victim(void)
{
	setenv("SHMBROKER_IO", broker_io, 1);
	inject->skip_loader = 1;
	if (inject_become_victim(inject) < 0)
		_exit(EXIT_SKIP);
}

static void supervise(void)
{
	ck_assert_int_eq(inject_supervise(inject), 0);
}

static void serve_with_fault(uint32_t at, uint32_t turn, bool ever)
{
	int result = -1;

	inject_arm(inject, at, turn, ever);
	newcomer_comes_and_goes();
	inject_disarm(inject);
	if (inject->n_failed && turn >= inject->n_errnos)
		return;
	ck_assert_msg(waitpid(daemon_process.pid, NULL, WNOHANG) == 0, "the broker died: %s",
		      fault());
	stream_flows();
	/* What was queued while nothing was accepted may still have to go. */
	for (int i = 0; i < 20 && (result = newcomer_comes_and_goes()) < 0; i++)
		usleep(10000);
	ck_assert_msg(result == 0, "after %s: %d (%s)", fault(), result, why());
	objects_become(objects_before);
	becomes(daemon_process.pid, &broker_before);
}

START_TEST(every_call_of_a_serving_broker_may_fail)
{
	broker_io = _i ? "epoll" : "auto";
	daemon_process = process_begin_watched(become_victim, supervise);
	stream_begins();
	for (int i = 0; i < 5; i++)
		ok(newcomer_comes_and_goes());
	usleep(200000);
	objects_before = process_objects(&daemon_process);
	broker_before = held_by(daemon_process.pid);
	for_every_fault(_i ? "broker on epoll" : "broker on io_uring", serve_with_fault);
	ck_assert_uint_ge(total, 15);
	stream_flows();
	stream_ends();
	process_end(&daemon_process);
}
END_TEST

/* ---- the broker, starting where another one ended --------------------------------------------- */

/* Returns whether the broker got ready. */
static bool start_again(bool with_fault)
{
	const char *build = getenv("top_builddir");
	char program[512], line[8] = "", number[16];
	struct pollfd entry = { .events = POLLIN };
	int ready[2], status;
	bool started;

	snprintf(program, sizeof(program), "%s/shmbrokerd", build ? build : ".");
	ck_assert_int_eq(pipe(ready), 0);
	daemon_process.pid = fork();
	if (daemon_process.pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ready[0]);
		snprintf(number, sizeof(number), "%d", ready[1]);
		if (!getenv("SHMB_TEST_LOG"))
			dup2(null, 2);
		setenv("SHMBROKER_IO", broker_io, 1);
		if (with_fault)
			become_victim();
		execl(program, program, "--user", "--idle-exit=0", "--directory",
		      daemon_process.dir, "--ready-fd", number, NULL);
		_exit(127);
	}
	close(ready[1]);
	if (with_fault)
		ck_assert_int_eq(inject_supervise(inject), 0);
	entry.fd = ready[0];
	ck_assert_msg(poll(&entry, 1, 5000) == 1, "%s: it neither starts nor ends", fault());
	started = read(ready[0], line, 5) == 5 && strcmp(line, "ready") == 0;
	close(ready[0]);
	if (!started) {
		ck_assert_int_eq(waitpid(daemon_process.pid, &status, 0), daemon_process.pid);
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status), "%s: it ended with 0x%x",
			      fault(), status);
	}
	return started;
}

static void end_supervisor(void)
{
	kill(inject->supervisor, SIGKILL);
	waitpid(inject->supervisor, NULL, 0);
	inject->supervisor = 0;
}

static void start_with_fault(uint32_t at, uint32_t turn, bool ever)
{
	bool started;
	int result = -1;

	kill(daemon_process.pid, SIGKILL);
	ck_assert_int_eq(waitpid(daemon_process.pid, NULL, 0), daemon_process.pid);
	inject_arm(inject, at, turn, ever);
	started = start_again(true);
	inject_disarm(inject);
	if (!started) {
		end_supervisor();
		ck_assert_msg(process_objects(&daemon_process) >= objects_before,
			      "%s: %u objects are left of %u", fault(),
			      process_objects(&daemon_process), objects_before);
		ck_assert_msg(start_again(false), "after %s: it does not start", fault());
	}
	ck_assert_msg(shmb_client_ping(client, 5000 * MS) == 0, "after %s: %s", fault(), why());
	stream_flows();
	for (int i = 0; i < 20 && (result = newcomer_comes_and_goes()) < 0; i++)
		usleep(10000);
	ck_assert_msg(result == 0, "after %s: %d (%s)", fault(), result, why());
	objects_become(objects_before);
	if (started) {
		/* The filter needs its supervisor for as long as the broker runs. */
		kill(daemon_process.pid, SIGKILL);
		ck_assert_int_eq(waitpid(daemon_process.pid, NULL, 0), daemon_process.pid);
		end_supervisor();
		ck_assert(start_again(false));
	}
}

START_TEST(every_call_of_a_broker_that_takes_over_may_fail)
{
	broker_io = _i ? "epoll" : "auto";
	daemon_process = process_begin(NULL);
	stream_begins();
	stream_flows();
	objects_before = process_objects(&daemon_process);
	for_every_fault(_i ? "take-over on epoll" : "take-over on io_uring", start_with_fault);
	stream_flows();
	stream_ends();
	process_end(&daemon_process);
}
END_TEST

int main(void)
{
	TCase *cases[] = { tcase_create("library"), tcase_create("serving"),
			   tcase_create("take-over") };

	if (process_is_sanitized()) {
		printf("SKIP: a sanitizer does not survive it when its own calls fail\n");
		return EXIT_SKIP;
	}
	inject = inject_new();
	for (int i = 0; i < 3; i++)
		tcase_set_timeout(cases[i], 240);
	tcase_add_loop_test(cases[0], every_call_of_the_library_may_fail, 0, 2);
	tcase_add_loop_test(cases[1], every_call_of_a_serving_broker_may_fail, 0, 2);
	tcase_add_loop_test(cases[2], every_call_of_a_broker_that_takes_over_may_fail, 0, 2);
	/* A broker that takes over tries some calls for minutes when they fail for ever. */
	return run_suite("faults", cases, getenv("SHMB_TEST_LONG") ? 3 : 2);
}
