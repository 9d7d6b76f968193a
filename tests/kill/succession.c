/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/kill/succession.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/clock.h"

#define IDLE_MS	    150u
#define PATIENCE_NS 20000000000ull
/* Instructions after a system call that are looked at; a key exchange takes more. */
#define PATIENCE     1000u
#define PATIENCE_ALL 5000u
#define QUICK_STRIDE 41u
#define N_TRIES	     100u
/* Longer than a publisher waits for a subscriber before it moves. */
#define QUIET_MS 2000
/* Of so many brokers that are killed one is left stopped for a while. */
#define EXCHANGE_STRIDE 64u

struct succession succession;

static struct step *const step = &succession.step;
static uint32_t connections_before; /* of the bystander, to the last broker */

/* ---- brokers ----------------------------------------------------------------------------------- */

static uint32_t n_connections(void)
{
	return __atomic_load_n(&strangers->n_connections, __ATOMIC_ACQUIRE);
}

static uint32_t n_moves(void)
{
	return __atomic_load_n(&strangers->n_moves, __ATOMIC_ACQUIRE);
}

void succession_load(void)
{
	succession.serves = false;
	connections_before = n_connections();
	step_start(step, world_serve, &succession.how);
	step_begin(step);
	world.broker_pid = step->pid;
}

void succession_run(void)
{
	if (!succession.serves)
		step_finish(step);
	step_begin(step);
	step_release(step);
}

void succession_check(void)
{
	world_ping();
	world_wait_clean();
	if (waitpid(succession.bystander, NULL, WNOHANG) != 0)
		step_fail(step, "the bystander has ended");
	stranger_check_flow();
	world_check_registry();
	if (succession.how.keeper && n_moves() != succession.n_moves)
		step_fail(step, "a keeper has lost what a member of the sealed channel had");
}

/* Until there is a keeper, and nobody has moved for longer than one waits for another. */
static void await_moves(void)
{
	uint64_t end = shmb_clock_now_ns() + PATIENCE_NS;
	uint32_t before;

	while (!world_has_keeper()) {
		if (shmb_clock_now_ns() > end)
			step_fail(step, "no keeper is started");
		world_exchange(1);
		stranger_nap();
	}
	do {
		before = n_moves();
		for (int i = 0; i < QUIET_MS; i++) {
			world_exchange(1);
			usleep(1000);
		}
	} while (n_moves() != before);
}

void succession_keep(void)
{
	succession.how.keeper = true;
	step_interrupt(step);
	step_kill(step);
	succession_load();
	succession_run();
	world_ping();
	/* What was there without one moves: the bystander has both a publisher and a subscriber. */
	await_moves();
	world_settle();
	succession.n_moves = n_moves();
}

void succession_recover(void)
{
	succession_load();
	succession_run();
	succession_check();
}

void succession_kill_one(void)
{
	succession.n_heard = strangers->n_heard;
	succession.mortal = stranger_start_other(stranger_be_mortal);
	stranger_await(&strangers->ready, "a client that is to die");
	step_kill(step);
}

void succession_bury(void)
{
	kill(succession.mortal, SIGKILL);
	waitpid(succession.mortal, NULL, 0);
	succession.mortal = 0;
}

void succession_kill_both(void)
{
	succession_kill_one();
	succession_bury();
}

void succession_begin(int argc, char **argv, uint32_t stride)
{
	succession.all = argc > 1 && !strcmp(argv[1], "--all");
	succession.quick = step_quick(argc, argv);
	succession.stride = succession.all ? 1 : succession.quick ? QUICK_STRIDE : stride;
	/* A mistake that is built in must be hit by a sample, others need not be looked for so closely. */
	if (succession.quick && argc < 2)
		succession.stride = 2 * QUICK_STRIDE + 1;
	if (argc > 4) {
		succession.only =
			(struct place){ (uint32_t)atoi(argv[3]), (uint32_t)atoi(argv[4]) };
		succession.n_tries = N_TRIES;
	}
	stranger_begin();
	world_begin(step);
	succession_load();
	succession_run();
	world_open_pair();
	succession.bystander = stranger_start_other(stranger_be_there);
	stranger_await(&strangers->ready, "the bystander");
	world.n_members = 2;
	/* As a successor has it. */
	step_interrupt(step);
	step_kill(step);
	succession_load();
	succession_run();
	world_ping();
	world_settle();
}

void succession_end(void)
{
	kill(succession.bystander, SIGKILL);
	waitpid(succession.bystander, NULL, 0);
	world_close_pair();
	world_stop_broker(step->pid);
	step->pid = 0;
	world_end();
}

/* ---- places ------------------------------------------------------------------------------------ */

/* It has started: it goes on with serving, at once. */
static void serve(void)
{
	step_begin(step);
	succession.serves = true;
}

static void add_place(struct places *places, uint32_t n_syscalls, uint32_t n_instructions)
{
	if (places->n == N_PLACES_MAX)
		step_fail(step, "too many places");
	places->at[places->n++] = (struct place){ n_syscalls, n_instructions };
}

/*
 * From behind one system call to in front of the next. Returns how many instructions stored, and
 * whether it came that far: then nothing is new in front of the next.
 */
static uint32_t explore_window(struct places *places, uint32_t n_syscalls, bool *ret_complete)
{
	uint32_t n = 0, patience = succession.all ? PATIENCE_ALL : PATIENCE;

	world_watch_new(true);
	world_has_changed();
	for (uint32_t i = 1; i <= patience && !step_at_syscall(step); i++) {
		if (!step_next(step)) {
			serve();
			break;
		}
		if (!world_has_changed())
			continue;
		add_place(places, n_syscalls, i - 1);
		add_place(places, n_syscalls, i);
		n++;
	}
	*ret_complete = step_at_syscall(step);
	return n;
}

/* As step_syscall_within(), from the start into serving. */
static int next_stop(void)
{
	int running = step_syscall_within(step, IDLE_MS);

	if (running != 0 || succession.serves)
		return running;
	serve();
	return step_syscall_within(step, IDLE_MS);
}

/* Runs to the next stop. Returns false if there is none: nobody wants anything any more. */
static bool explore_next(pid_t stranger)
{
	uint64_t end = shmb_clock_now_ns() + PATIENCE_NS;
	siginfo_t info = { 0 };
	bool done = false;
	int running;

	while ((running = next_stop()) == -ETIMEDOUT) {
		if (done)
			return false;
		if (shmb_clock_now_ns() > end)
			step_fail(step, stranger ? "the stranger does not come to an end"
						 : "the bystander does not come back");
		/* It stays, for whoever waits for it. */
		if (stranger)
			waitid(P_PID, (id_t)stranger, &info, WEXITED | WNOHANG | WNOWAIT);
		done = stranger ? info.si_pid != 0 : n_connections() != connections_before;
	}
	return running == 1;
}

void succession_explore(struct places *places, const char *what, pid_t stranger)
{
	uint32_t n_syscalls = 0, n_stores = 0;
	uint64_t before = step->n_points;
	bool complete = false;

	snprintf(step->scenario, sizeof(step->scenario), "exploring");
	places->n = 0;
	while (explore_next(stranger)) {
		bool entry = step_in_syscall(step);

		n_syscalls++;
		if (!entry || !complete)
			add_place(places, n_syscalls, 0);
		complete = false;
		/* A sample sees few stores, but all system calls. */
		if (!entry && (!succession.quick || n_syscalls % 16 < 2))
			n_stores += explore_window(places, n_syscalls, &complete);
	}
	world_unwatch();
	printf("%s: %u stops at system calls, %u stores, %u places, %llu steps\n", what, n_syscalls,
	       n_stores, places->n, (unsigned long long)(step->n_points - before));
	fflush(stdout);
	if (n_syscalls < 60 || (n_stores < 6 && !succession.quick))
		step_fail(step, "that cannot have been all");
}

void succession_choose(struct places *places)
{
	if (!succession.n_tries)
		return;
	for (places->n = 0; places->n < succession.n_tries; places->n++)
		places->at[places->n] = succession.only;
}

void succession_go(const struct place *place, const char *what)
{
	static uint32_t n;
	int running = 1;

	snprintf(step->scenario, sizeof(step->scenario),
		 "%s, %s, system call stop %u, instruction %u",
		 succession.how.uring ? "io_uring" : "epoll", what, place->n_syscalls,
		 place->n_instructions);
	for (uint32_t i = 0; running == 1 && i < place->n_syscalls; i++)
		running = next_stop();
	/* Interrupted system calls can come in between. */
	if (place->n_instructions && running == 1 && step_in_syscall(step))
		running = next_stop();
	for (uint32_t i = 0; running == 1 && i < place->n_instructions && !step_at_syscall(step);
	     i++)
		running = step_next(step);
	if (running == 0 && !succession.serves)
		serve();
	/* It stands still: traffic goes on, but may wait a second for what it was about to say. */
	if (n++ % EXCHANGE_STRIDE == 0)
		world_exchange(2);
}

void succession_kill(const struct place *place, const char *what)
{
	succession_go(place, what);
	step_kill(step);
	world_check_registry();
	world_exchange(2);
}
