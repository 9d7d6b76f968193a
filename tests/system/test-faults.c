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
#define PATIENCE  (60 * MS) /* with whoever may never answer */
#define MUCH	  (5000 * MS)
#define EXIT_SKIP 77
#define N_TURNS	  7u
#define N_SHARES  4u /* of the faults of one kind of process */
#define N_KINDS	  4u /* io_uring or epoll, POSIX or sealed */
#define N_WORKERS (N_KINDS * N_SHARES)
#define CALLS_MAX 5000u

/*
 * Most of the time of a fault is waiting: for what does not come, and for things to be tidied up.
 * So many workers, each with a broker of its own, have faults at the same time.
 */
struct worker {
	uint64_t n_faults;
	uint32_t longest; /* calls that could fail in one round */
	uint32_t n_rounds;
	char instance[17];
};

static struct worker *workers; /* shared with them */
static struct worker *me;
static uint32_t share; /* ours of N_SHARES */
static const char *io;
static uint32_t backing; /* of what newcomers create */

static struct process daemon_process;
static struct inject *inject;

/* What runs while the faults happen. */
static struct shmb_channel *running;
static struct shmb_publisher *publisher;
static struct shmb_subscriber *subscriber;
static uint64_t published;

static int is_quick(void)
{
	return getenv("SHMB_TEST_QUICK") != NULL;
}

/* A machine too slow for all faults sees every call fail once. */
static uint64_t budget_ms(void)
{
	return is_quick() ? 1500 : 25000;
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

/* ---- one of each ------------------------------------------------------------------------------ */

struct newcomer {
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscriber;
	struct shmb_waitset *waitset;
};

/* A record through each way to wait. */
static int newcomer_talks(struct newcomer *newcomer, int64_t patience_ns)
{
	struct pollfd entry = { .events = POLLIN };
	struct shmb_ready ready;
	char text[8] = "";
	int result;

	result = shmb_publisher_send(newcomer->publisher, "works", 6);
	if (result == 0)
		result = shmb_subscriber_wait(newcomer->subscriber, patience_ns);
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
		poll(&entry, 1, 20);
	if (result >= 0)
		result = shmb_waitset_open(newcomer->client, &newcomer->waitset);
	if (result >= 0)
		result = shmb_waitset_add(newcomer->waitset, newcomer->subscriber, 1);
	if (result >= 0)
		result = shmb_waitset_wait(newcomer->waitset, &ready, 1, patience_ns);
	if (result >= 0)
		result = shmb_subscriber_recv(newcomer->subscriber, text, sizeof(text));
	if (result >= 0)
		ck_assert_str_eq(text, "again");
	return result < 0 ? result : 0;
}

/* The first failure ends it. */
static int newcomer_open(struct newcomer *newcomer, int64_t patience_ns)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .connect_timeout_ns = patience_ns,
					       .address = daemon_process.address,
					       .address_len =
						       (uint32_t)strlen(daemon_process.address) };
	struct shmb_subscriber_options sleepy = { .options_len = sizeof(sleepy),
						  .flags = SHMB_SUBSCRIBER_NO_SPIN };
	struct shmb_channel_options create = { .options_len = sizeof(create),
					       .flags = SHMB_CHANNEL_CREATE,
					       .lane_len = LANE_LEN,
					       .backing = backing };
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
	return result == 0 ? newcomer_talks(newcomer, patience_ns) : result;
}

static void newcomer_close(struct newcomer *newcomer)
{
	shmb_waitset_close(newcomer->waitset);
	shmb_subscriber_close(newcomer->subscriber);
	shmb_publisher_close(newcomer->publisher);
	shmb_channel_close(newcomer->channel);
	shmb_client_close(newcomer->client);
}

static int newcomer_comes_and_goes(int64_t patience_ns)
{
	struct newcomer newcomer;
	int result = newcomer_open(&newcomer, patience_ns);

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

/* Of something that may still be settling: the first that stays for a while. */
static struct held held_settled(pid_t pid)
{
	struct held held = held_by(pid), again;

	for (int i = 0, same = 0; i < 400 && same < 40; i++) {
		usleep(5000);
		again = held_by(pid);
		same = again.fds == held.fds && again.mappings == held.mappings ? same + 1 : 0;
		held = again;
	}
	return held;
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
	uint64_t until = process_now_ms() + 5000;
	struct held now;

	while (!holds(pid, before) && process_now_ms() < until)
		usleep(500);
	now = held_by(pid);
	ck_assert_msg(holds(pid, before), "%s: %u fds have become %u, %u mappings %u", fault(),
		      before->fds, now.fds, before->mappings, now.mappings);
}

static void objects_become(unsigned wanted)
{
	uint64_t until = process_now_ms() + 5000;

	while (process_objects(&daemon_process) != wanted && process_now_ms() < until)
		usleep(500);
	ck_assert_msg(process_objects(&daemon_process) == wanted, "%s: %u objects have become %u",
		      fault(), wanted, process_objects(&daemon_process));
}

/* Whatever was refused works now. What was queued while nothing was accepted may still have to go. */
static void newcomer_is_served(void)
{
	uint64_t until = process_now_ms() + 5000;
	int result;

	do
		result = newcomer_comes_and_goes(MUCH);
	while (result < 0 && process_now_ms() < until && usleep(1000) == 0);
	ck_assert_msg(result == 0, "after %s: %d (%s)", fault(), result, why());
}

/*
 * Calls @attempt for each of our share of the calls, each error, once and for ever, until no call
 * is left to fail. Every call fails in the first round, but in quick mode; the rounds after go
 * through the other errors for as long as there is time.
 */
static void for_every_fault(void (*attempt)(uint32_t at, uint32_t turn, bool ever))
{
	uint64_t end = process_now_ms() + budget_ms();
	uint32_t first_timed = is_quick() ? 0 : 1;
	uint64_t since;

	for (uint32_t round = 0; round < 2 * N_TURNS; round++) {
		for (uint32_t at = share; at < CALLS_MAX; at += N_SHARES) {
			if (round >= first_timed && process_now_ms() >= end)
				return;
			since = process_now_ms();
			attempt(at, round / 2, round % 2);
			if (inject->n_failed == 0)
				break;
			if (getenv("SHMB_TEST_LOG"))
				fprintf(stderr, "%d: %s, %llu ms\n", getpid(), fault(),
					(unsigned long long)(process_now_ms() - since));
			me->n_faults++;
			me->longest = at > me->longest ? at : me->longest;
		}
		me->n_rounds++;
	}
}

/* ---- workers ---------------------------------------------------------------------------------- */

static void become_victim(void)
{
	setenv("SHMBROKER_IO", io, 1);
	inject->skip_loader = 1;
	if (inject_become_victim(inject) < 0)
		_exit(EXIT_SKIP);
}

static void supervise(void)
{
	ck_assert_int_eq(inject_supervise(inject), 0);
}

static pid_t begin_worker(uint32_t i, void (*work)(void))
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	me = &workers[i];
	share = i % N_SHARES;
	io = i / N_SHARES % 2 ? "epoll" : "auto";
	backing = i / N_SHARES / 2 ? SHMB_BACKING_SEALED : SHMB_BACKING_POSIX;
	inject = inject_new();
	ck_assert_ptr_nonnull(inject);
	work();
	inject_free(inject);
	exit(0);
}

/* Runs @work in all workers; they must have injected so many faults at least. */
static void all_work(const char *what, void (*work)(void), uint64_t wanted)
{
	uint32_t longest = 0, fewest_rounds = 2 * N_TURNS;
	uint64_t total = 0;
	pid_t pids[N_WORKERS];
	int status, failed = 0;

	memset(workers, 0, N_WORKERS * sizeof(*workers));
	fflush(stdout);
	for (uint32_t i = 0; i < N_WORKERS; i++)
		pids[i] = begin_worker(i, work);
	for (uint32_t i = 0; i < N_WORKERS; i++) {
		ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
		failed += status != 0;
		gate_watch(workers[i].instance);
		total += workers[i].n_faults;
		longest = workers[i].longest > longest ? workers[i].longest : longest;
		fewest_rounds =
			workers[i].n_rounds < fewest_rounds ? workers[i].n_rounds : fewest_rounds;
	}
	/* What they have said of it is in the report already. */
	if (failed)
		exit(1);
	printf("%s: up to %u calls, at least %u of %u rounds\n", what, longest + 1, fewest_rounds,
	       2 * N_TURNS);
	printf("counted: %llu injected faults\n", (unsigned long long)total);
	fflush(stdout);
	ck_assert_uint_ge(total, is_quick() ? N_WORKERS : wanted);
}

static void broker_begins(void (*limit)(void), void (*meanwhile)(void))
{
	daemon_process = process_begin_watched(limit, meanwhile);
	snprintf(me->instance, sizeof(me->instance), "%016llx",
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
	inject_arm(inject, at, turn, ever);
	newcomer_comes_and_goes(PATIENCE);
	inject_disarm(inject);
	if (inject->n_failed == 0)
		return;
	becomes(getpid(), &own_before);
	newcomer_is_served();
	becomes(getpid(), &own_before);
}

static _Noreturn void be_newcomers(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setenv("SHMBROKER_IO", io, 1);
	/* The first one fills caches. */
	ok(newcomer_comes_and_goes(MUCH));
	ok(newcomer_comes_and_goes(MUCH));
	own_before = held_by(getpid());
	ck_assert_int_eq(inject_become_victim(inject), 0);
	for_every_fault(newcomer_with_fault);
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
	supervise();
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0, "%s: the client ended with status 0x%x", fault(), status);
	stream_flows();
	objects_become(before);
	broker_ends();
}

START_TEST(every_call_of_the_library_may_fail)
{
	all_work("library", work_on_library, 400);
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
		newcomer_comes_and_goes(PATIENCE);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0, "%s: the visitor ended with status 0x%x", fault(), status);
}

static void serve_with_fault(uint32_t at, uint32_t turn, bool ever)
{
	inject_arm(inject, at, turn, ever);
	visitor_comes_and_goes();
	inject_disarm(inject);
	if (inject->n_failed == 0)
		return;
	ck_assert_msg(waitpid(daemon_process.pid, NULL, WNOHANG) == 0, "the broker died: %s",
		      fault());
	stream_flows();
	newcomer_is_served();
	objects_become(objects_before);
	becomes(daemon_process.pid, &broker_before);
}

static void work_on_serving(void)
{
	broker_begins(become_victim, supervise);
	objects_before = process_objects(&daemon_process);
	for (int i = 0; i < 5; i++)
		ok(newcomer_comes_and_goes(MUCH));
	objects_become(objects_before);
	broker_before = held_settled(daemon_process.pid);
	for_every_fault(serve_with_fault);
	broker_ends();
}

START_TEST(every_call_of_a_serving_broker_may_fail)
{
	all_work("serving broker", work_on_serving, 200);
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
		setenv("SHMBROKER_IO", io, 1);
		if (with_fault)
			become_victim();
		execl(program, program, "--user", "--idle-exit=0", "--directory",
		      daemon_process.dir, "--ready-fd", number, NULL);
		_exit(127);
	}
	close(ready[1]);
	if (with_fault)
		supervise();
	entry.fd = ready[0];
	ck_assert_msg(poll(&entry, 1, 20000) == 1, "%s: it neither starts nor ends", fault());
	process_read_ready(ready[0], line, sizeof(line));
	started = strcmp(line, "ready\n") == 0;
	if (!started) {
		ck_assert_int_eq(waitpid(daemon_process.pid, &status, 0), daemon_process.pid);
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1,
			      "%s: it ended with 0x%x", fault(), status);
		/* Unless it could not even write it. */
		ck_assert_msg(!strcmp(inject_name(inject), "write") ||
				      strncmp(line, "error: ", 7) == 0,
			      "%s: it does not say why", fault());
	}
	return started;
}

static void end_supervisor(void)
{
	kill(inject->supervisor, SIGKILL);
	waitpid(inject->supervisor, NULL, 0);
	inject->supervisor = 0;
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
	ck_assert_msg(shmb_client_ping(client, MUCH) == 0, "after %s: %s", fault(), why());
	stream_flows();
	newcomer_is_served();
	objects_become(objects_before);
	if (started) {
		/* The filter needs its supervisor for as long as the broker runs. */
		end_broker();
		end_supervisor();
		ck_assert(start_again(false));
	}
}

static void work_on_take_over(void)
{
	broker_begins(NULL, NULL);
	objects_before = process_objects(&daemon_process);
	for_every_fault(start_with_fault);
	broker_ends();
}

START_TEST(every_call_of_a_broker_that_takes_over_may_fail)
{
	all_work("take-over", work_on_take_over, 200);
}
END_TEST

/* ---- */

/* Does this machine let us do all this? */
static bool can_inject(void)
{
	int status = -1;
	pid_t pid;

	inject = inject_new();
	if (!inject)
		return false;
	pid = fork();
	if (pid == 0)
		_exit(inject_become_victim(inject) < 0);
	if (inject_supervise(inject) < 0)
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	inject_free(inject);
	return status == 0;
}

int main(void)
{
	TCase *cases[] = { gated_case("library"), gated_case("serving"), gated_case("take-over") };

	if (process_is_sanitized()) {
		printf("SKIP: a sanitizer does not survive it when its own calls fail\n");
		return EXIT_SKIP;
	}
	if (!can_inject()) {
		printf("SKIP: no seccomp notification here\n");
		return EXIT_SKIP;
	}
	workers = mmap(NULL, N_WORKERS * sizeof(*workers), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (workers == MAP_FAILED)
		return EXIT_FAILURE;
	for (int i = 0; i < 3; i++)
		tcase_set_timeout(cases[i], 300);
	tcase_add_test(cases[0], every_call_of_the_library_may_fail);
	tcase_add_test(cases[1], every_call_of_a_serving_broker_may_fail);
	tcase_add_test(cases[2], every_call_of_a_broker_that_takes_over_may_fail);
	return run_suite("faults", cases, 3);
}
