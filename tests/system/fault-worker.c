/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/system/fault-worker.h"

#include <errno.h>
#include <sys/mman.h>

#include "tests/system/process.h"

#define EXIT_SKIP 77
#define N_TURNS	  7u
#define N_SHARES  4u /* of the faults of one kind of process */
#define N_KINDS	  4u /* io_uring or epoll, POSIX or sealed */
#define N_WORKERS (N_KINDS * N_SHARES)
#define CALLS_MAX 5000u

struct fault_work fault_work;

static struct worker *workers; /* shared with them */
static uint32_t share; /* ours of N_SHARES */

bool fault_is_quick(void)
{
	return getenv("SHMB_TEST_QUICK") != NULL;
}

/* A machine too slow for all faults sees every call fail once. */
static uint64_t budget_ms(void)
{
	return fault_is_quick() ? 1000 : 25000;
}

const char *fault_name(void)
{
	const struct inject *inject = fault_work.inject;
	static char text[128];

	snprintf(text, sizeof(text), "call %u, %s fails with %s %s", inject->at,
		 inject_name(inject), strerrorname_np(inject->failed_errno),
		 inject->for_ever ? "for ever" : "once");
	return text;
}

void fault_for_every(void (*attempt)(uint32_t at, uint32_t turn, bool ever))
{
	uint64_t end = process_now_ms() + budget_ms();
	uint32_t first_timed = fault_is_quick() ? 0 : 1;
	uint64_t since;

	for (uint32_t round = 0; round < 2 * N_TURNS; round++) {
		for (uint32_t at = share; at < CALLS_MAX; at += N_SHARES) {
			if (round >= first_timed && process_now_ms() >= end)
				return;
			since = process_now_ms();
			attempt(at, round / 2, round % 2);
			if (fault_work.inject->n_failed == 0)
				break;
			if (getenv("SHMB_TEST_LOG"))
				fprintf(stderr, "%d: %s, %llu ms\n", getpid(), fault_name(),
					(unsigned long long)(process_now_ms() - since));
			fault_work.worker->n_faults++;
			fault_work.worker->longest =
				at > fault_work.worker->longest ? at : fault_work.worker->longest;
		}
		fault_work.worker->n_rounds++;
	}
}

void fault_become_victim(void)
{
	setenv("SHMBROKER_IO", fault_work.io, 1);
	fault_work.inject->skip_loader = 1;
	if (inject_become_victim(fault_work.inject) < 0)
		_exit(EXIT_SKIP);
}

void fault_supervise(void)
{
	ck_assert_int_eq(inject_supervise(fault_work.inject), 0);
}

void fault_end_supervisor(void)
{
	kill(fault_work.inject->supervisor, SIGKILL);
	waitpid(fault_work.inject->supervisor, NULL, 0);
	fault_work.inject->supervisor = 0;
}

static pid_t begin_worker(uint32_t i, void (*work)(void))
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	share = i % N_SHARES;
	fault_work = (struct fault_work){
		.worker = &workers[i],
		.inject = inject_new(),
		.io = i / N_SHARES % 2 ? "epoll" : "auto",
		.backing = i / N_SHARES / 2 ? SHMB_BACKING_SEALED : SHMB_BACKING_POSIX,
	};
	ck_assert_ptr_nonnull(fault_work.inject);
	work();
	inject_free(fault_work.inject);
	exit(0);
}

void fault_all_work(const char *what, void (*work)(void), uint64_t wanted,
		    void (*watch)(const char *instance))
{
	uint32_t longest = 0, fewest_rounds = 2 * N_TURNS;
	uint64_t total = 0;
	pid_t pids[N_WORKERS];
	int status, failed = 0;

	workers = mmap(NULL, N_WORKERS * sizeof(*workers), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(workers, MAP_FAILED);
	fflush(stdout);
	for (uint32_t i = 0; i < N_WORKERS; i++)
		pids[i] = begin_worker(i, work);
	for (uint32_t i = 0; i < N_WORKERS; i++) {
		ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
		failed += status != 0;
		watch(workers[i].instance);
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
	ck_assert_uint_ge(total, fault_is_quick() ? N_WORKERS : wanted);
	munmap(workers, N_WORKERS * sizeof(*workers));
}

bool fault_can_inject(void)
{
	struct inject *inject = inject_new();
	int status = -1;
	pid_t pid;

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
