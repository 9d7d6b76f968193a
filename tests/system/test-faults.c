/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Every system call of the library and of the broker fails, with every error that it may fail with,
 * once and for ever. Whatever was asked for is refused with a sentence or done in another way;
 * nothing is left of it, whoever else is there notices nothing, and the next attempt succeeds.
 */

#include <errno.h>
#include <poll.h>

#include "tests/system/fault-worker.h"
#include "tests/system/held.h"
#include "tests/system/newcomer.h"
#include "tests/system/process.h"

#define LANE_LEN  16384u
#define PATIENCE  (60 * MS) /* with whoever may never answer */
#define MUCH_MS	  20000u /* sixteen of us share the processors */
#define MUCH	  (MUCH_MS * MS)
#define EXIT_SKIP 77

static struct process daemon_process;

/* What runs while the faults happen. */
static struct shmb_channel *running;
static struct shmb_publisher *publisher;
static struct shmb_subscriber *subscriber;
static uint64_t published;

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
		ok(shmb_publisher_send_wait(publisher, &published, sizeof(published), MUCH));
		ok(shmb_subscriber_wait(subscriber, MUCH));
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

/* ---- what must not leak, and what must work ----------------------------------------------------- */

static int comes_and_goes(int64_t patience_ns)
{
	return newcomer_comes_and_goes(daemon_process.address, fault_work.backing, patience_ns);
}

static void becomes(pid_t pid, const struct held *before)
{
	uint64_t until = process_now_ms() + MUCH_MS;
	struct held now;

	while (!held_is_back(pid, before) && process_now_ms() < until)
		usleep(500);
	now = held_by(pid);
	ck_assert_msg(held_is_back(pid, before), "%s: %u fds have become %u, %u mappings %u",
		      fault_name(), before->fds, now.fds, before->mappings, now.mappings);
}

static void objects_become(unsigned wanted)
{
	uint64_t until = process_now_ms() + MUCH_MS;

	while (process_objects(&daemon_process) != wanted && process_now_ms() < until)
		usleep(500);
	ck_assert_msg(process_objects(&daemon_process) == wanted, "%s: %u objects have become %u",
		      fault_name(), wanted, process_objects(&daemon_process));
}

/* Whatever was refused works now. What was queued while nothing was accepted may still have to go. */
static void newcomer_is_served(void)
{
	uint64_t until = process_now_ms() + MUCH_MS;
	int result;

	do
		result = comes_and_goes(MUCH);
	while (result < 0 && process_now_ms() < until && usleep(1000) == 0);
	ck_assert_msg(result == 0, "after %s: %d (%s)", fault_name(), result, why());
}

/* ---- the broker of a worker --------------------------------------------------------------------- */

static void broker_begins(void (*limit)(void), void (*meanwhile)(void))
{
	daemon_process = process_begin_watched(limit, meanwhile);
	snprintf(fault_work.worker->instance, sizeof(fault_work.worker->instance), "%016llx",
		 (unsigned long long)daemon_process.instance);
	stream_begins();
	stream_flows();
}

static void broker_ends(void)
{
	/* Or it would only be told for a moment that all is closed. */
	ok(shmb_client_ping(client, MUCH));
	stream_flows();
	stream_ends();
	process_end(&daemon_process);
}

/* ---- the library ------------------------------------------------------------------------------ */

static struct held own_before;

static void newcomer_with_fault(uint32_t at, uint32_t turn, bool ever)
{
	inject_arm(fault_work.inject, at, turn, ever);
	comes_and_goes(PATIENCE);
	inject_disarm(fault_work.inject);
	if (fault_work.inject->n_failed == 0)
		return;
	becomes(getpid(), &own_before);
	newcomer_is_served();
	becomes(getpid(), &own_before);
}

static _Noreturn void be_newcomers(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setenv("SHMBROKER_IO", fault_work.io, 1);
	/* The first one fills caches. */
	ok(comes_and_goes(MUCH));
	ok(comes_and_goes(MUCH));
	own_before = held_by(getpid());
	ck_assert_int_eq(inject_become_victim(fault_work.inject), 0);
	fault_for_every(newcomer_with_fault);
	_exit(0);
}

static void work_on_library(void)
{
	unsigned before;
	int status;
	pid_t pid;

	broker_begins(NULL, NULL);
	before = process_objects(&daemon_process);
	pid = fork();
	if (pid == 0)
		be_newcomers();
	fault_supervise();
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0, "%s: the client ended with status 0x%x", fault_name(), status);
	stream_flows();
	objects_become(before);
	broker_ends();
}

START_TEST(every_call_of_the_library_may_fail)
{
	fault_all_work("library", work_on_library, 400, gate_watch);
}
END_TEST

/* ---- the broker, serving ---------------------------------------------------------------------- */

static unsigned objects_before;
static struct held broker_before;

/* A process of its own, whose death ends whatever the broker still keeps for it. */
static void visitor_comes_and_goes(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		comes_and_goes(PATIENCE);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0, "%s: the visitor ended with status 0x%x", fault_name(), status);
}

static void serve_with_fault(uint32_t at, uint32_t turn, bool ever)
{
	inject_arm(fault_work.inject, at, turn, ever);
	visitor_comes_and_goes();
	inject_disarm(fault_work.inject);
	if (fault_work.inject->n_failed == 0)
		return;
	ck_assert_msg(waitpid(daemon_process.pid, NULL, WNOHANG) == 0, "the broker died: %s",
		      fault_name());
	stream_flows();
	newcomer_is_served();
	objects_become(objects_before);
	becomes(daemon_process.pid, &broker_before);
}

static void work_on_serving(void)
{
	broker_begins(fault_become_victim, fault_supervise);
	objects_before = process_objects(&daemon_process);
	for (int i = 0; i < 5; i++)
		ok(comes_and_goes(MUCH));
	objects_become(objects_before);
	broker_before = held_settled(daemon_process.pid);
	fault_for_every(serve_with_fault);
	broker_ends();
}

START_TEST(every_call_of_a_serving_broker_may_fail)
{
	fault_all_work("serving broker", work_on_serving, 200, gate_watch);
}
END_TEST

/* ---- the broker, starting where another one ended --------------------------------------------- */

/* Returns whether the broker got ready. */
static bool start_again(bool with_fault)
{
	const char *build = getenv("top_builddir");
	char program[512], line[512], number[16];
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
		setenv("SHMBROKER_IO", fault_work.io, 1);
		if (with_fault)
			fault_become_victim();
		execl(program, program, "--user", "--idle-exit=0", "--directory",
		      daemon_process.dir, "--ready-fd", number, NULL);
		_exit(127);
	}
	close(ready[1]);
	if (with_fault)
		fault_supervise();
	entry.fd = ready[0];
	ck_assert_msg(poll(&entry, 1, 20000) == 1, "%s: it neither starts nor ends", fault_name());
	process_read_ready(ready[0], line, sizeof(line));
	started = strcmp(line, "ready\n") == 0;
	if (!started) {
		ck_assert_int_eq(waitpid(daemon_process.pid, &status, 0), daemon_process.pid);
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1,
			      "%s: it ended with 0x%x", fault_name(), status);
		/* Unless it could not even write it. */
		ck_assert_msg(!strcmp(inject_name(fault_work.inject), "write") ||
				      strncmp(line, "error: ", 7) == 0,
			      "%s: it does not say why", fault_name());
	}
	return started;
}

static void end_broker(void)
{
	kill(daemon_process.pid, SIGKILL);
	ck_assert_int_eq(waitpid(daemon_process.pid, NULL, 0), daemon_process.pid);
}

static void start_with_fault(uint32_t at, uint32_t turn, bool ever)
{
	bool started;

	end_broker();
	inject_arm(fault_work.inject, at, turn, ever);
	started = start_again(true);
	inject_disarm(fault_work.inject);
	if (!started) {
		fault_end_supervisor();
		ck_assert_msg(process_objects(&daemon_process) >= objects_before,
			      "%s: %u objects are left of %u", fault_name(),
			      process_objects(&daemon_process), objects_before);
		ck_assert_msg(start_again(false), "after %s: it does not start", fault_name());
	}
	ck_assert_msg(shmb_client_ping(client, MUCH) == 0, "after %s: %s", fault_name(), why());
	stream_flows();
	newcomer_is_served();
	objects_become(objects_before);
	if (started) {
		/* The filter needs its supervisor for as long as the broker runs. */
		end_broker();
		fault_end_supervisor();
		ck_assert(start_again(false));
	}
}

static void work_on_take_over(void)
{
	broker_begins(NULL, NULL);
	objects_before = process_objects(&daemon_process);
	fault_for_every(start_with_fault);
	broker_ends();
}

START_TEST(every_call_of_a_broker_that_takes_over_may_fail)
{
	fault_all_work("take-over", work_on_take_over, 200, gate_watch);
}
END_TEST

/* ---- */

int main(void)
{
	TCase *cases[] = { gated_case("library"), gated_case("serving"), gated_case("take-over") };

	if (process_is_sanitized()) {
		printf("SKIP: a sanitizer does not survive it when its own calls fail\n");
		return EXIT_SKIP;
	}
	if (!fault_can_inject()) {
		printf("SKIP: no seccomp notification here\n");
		return EXIT_SKIP;
	}
	for (int i = 0; i < 3; i++)
		tcase_set_timeout(cases[i], 300);
	tcase_add_test(cases[0], every_call_of_the_library_may_fail);
	tcase_add_test(cases[1], every_call_of_a_serving_broker_may_fail);
	tcase_add_test(cases[2], every_call_of_a_broker_that_takes_over_may_fail);
	return run_suite("faults", cases, 3);
}
