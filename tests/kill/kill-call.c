/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if a server or a caller is killed while it comes, works or goes?
 *
 * A victim serves three calls of an honest caller, and closes everything; another one makes three calls
 * to an honest server. Each is killed in front of and behind each of its system calls,
 * around each instruction that changes shared memory, and at a sample of the others. Each call of the
 * honest caller ends once, with the right reply or at once because its server has gone; the honest
 * server hears that a call is of no use any more; and soon nothing of the victim is left, in the
 * broker or on the other side. An honest pair of a stream goes on meanwhile.
 *
 * Where to kill is found by one run that is stepped slowly, with all segments under watch.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <shmbroker/shmbroker.h>

#include "lib/clock.h"

#include "tests/kill/world.h"

#define CHANNEL	     "kill/call"
#define N_CALLS	     3u
#define N_PLACES_MAX 20000u
#define PATIENCE     2000u
#define TURNS	     16u /* that a call is in work */
#define MS	     1000000ll
#define LATE_NS	     20000000000ull

/* An instant: after so many stops at system calls, and so many instructions more. */
struct place {
	uint32_t n_syscalls;
	uint32_t n_instructions;
};

enum role {
	SERVER,
	CALLER,
	N_ROLES
};

static struct step_row rows[N_ROLES] = {
	[SERVER] = { .name = "open a server, reply, close", .min = { [STEP_KILL] = 130 } },
	[CALLER] = { .name = "open a caller, call, close", .min = { [STEP_KILL] = 130 } },
};
static struct step step;
static struct place places[N_PLACES_MAX];
static uint32_t n_places;
static uint32_t *connected; /* the victim is: what comes before kill-attach looks at */

/* ---- the victims ------------------------------------------------------------------------------- */

static struct shmb_channel *open_calls(struct shmb_client *of)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_CALL,
						.lane_len = 4096 };
	struct shmb_channel *channel;

	world_must(shmb_channel_open(of, CHANNEL, strlen(CHANNEL), &options, &channel),
		   "open the call channel");
	return channel;
}

/* Here the others have their turn. */
static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
}

static void be_server(void *context)
{
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_server *server;
	uint64_t number, n = 0;

	(void)context;
	close_range(3, ~0u, 0);
	client = world_connect();
	__atomic_store_n(connected, 1, __ATOMIC_RELEASE);
	channel = open_calls(client);
	world_must(shmb_server_open(channel, NULL, &server), "serve");
	for (uint32_t tries = 0; n < N_CALLS && tries < 1000; tries++) {
		int32_t len = shmb_server_recv(server, &number, sizeof(number), 0);

		if (len == sizeof(number)) {
			number = world_mix(number);
			world_must(shmb_server_reply(server, shmb_server_view(server)->call, 0,
						     &number, sizeof(number), 0, 0),
				   "reply");
			n++;
		} else {
			nap();
		}
	}
	world_must(shmb_server_close(server), "close server");
	world_must(shmb_channel_close(channel), "close channel");
	world_must(shmb_client_close(client), "close client");
}

static void be_caller(void *context)
{
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_caller *caller;

	(void)context;
	close_range(3, ~0u, 0);
	client = world_connect();
	__atomic_store_n(connected, 1, __ATOMIC_RELEASE);
	channel = open_calls(client);
	world_must(shmb_caller_open(channel, NULL, &caller), "call");
	for (uint64_t n = 0; n < N_CALLS; n++) {
		uint64_t reply = 0;
		int32_t len = -ETIMEDOUT, call;

		call = world_must(shmb_caller_start(caller, 0, &n, sizeof(n), 20000 * MS), "start");
		for (uint32_t tries = 0; len == -ETIMEDOUT && tries < 10000; tries++) {
			nap();
			len = shmb_caller_recv(caller, call, &reply, sizeof(reply), 0);
		}
		if (world_must(len, "receive") != sizeof(reply) || reply != world_mix(n))
			abort();
	}
	world_must(shmb_caller_close(caller), "close caller");
	world_must(shmb_channel_close(channel), "close channel");
	world_must(shmb_client_close(client), "close client");
}

static void (*const bodies[N_ROLES])(void *context) = {
	[SERVER] = be_server, [CALLER] = be_caller
};

/* ---- the honest side --------------------------------------------------------------------------- */

static struct {
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_caller *caller;
	struct shmb_server *server;
	int32_t call; /* that is open; 0: none */
	int32_t asked; /* that is not answered; 0: none */
	uint32_t turns; /* since it came */
	uint64_t number;
	uint64_t n_replies;
	uint64_t n_resets;
	uint64_t n_cancelled;
} honest;

static void open_honest(enum role victim)
{
	honest.client = world_connect();
	honest.channel = open_calls(honest.client);
	if (victim == SERVER)
		world_must(shmb_caller_open(honest.channel, NULL, &honest.caller), "call");
	else
		world_must(shmb_server_open(honest.channel, NULL, &honest.server), "serve");
}

static void close_honest(void)
{
	world_must(shmb_caller_close(honest.caller), "close caller");
	world_must(shmb_server_close(honest.server), "close server");
	world_must(shmb_channel_close(honest.channel), "close channel");
	world_must(shmb_client_close(honest.client), "close client");
	honest.caller = NULL;
	honest.server = NULL;
}

/* Takes what there is of the open call. */
static void receive(int64_t timeout_ns)
{
	uint64_t reply = 0;
	int32_t result =
		shmb_caller_recv(honest.caller, honest.call, &reply, sizeof(reply), timeout_ns);

	if (result == -ETIMEDOUT && !timeout_ns)
		return;
	honest.call = 0;
	if (result == -ECONNRESET)
		honest.n_resets++;
	else if (world_must(result, "receive") != sizeof(reply) ||
		 reply != world_mix(honest.number))
		step_fail(&step, "a wrong reply");
	else
		honest.n_replies++;
}

static void play_caller(void)
{
	if (honest.call) {
		receive(0);
	} else if (shmb_caller_wait(honest.caller, sizeof(honest.number), 0) == 0) {
		honest.number++;
		honest.call = world_must(shmb_caller_start(honest.caller, 0, &honest.number,
							   sizeof(honest.number), SHMB_FOREVER),
					 "start");
	}
}

/* Answers what it got some turns ago, so that there is a call in work much of the time. */
static void play_server(void)
{
	uint64_t number = world_mix(honest.number);
	int32_t result;

	if (honest.asked && ++honest.turns < TURNS)
		return;
	honest.turns = 0;
	if (honest.asked) {
		result = shmb_server_reply(honest.server, honest.asked, 0, &number, sizeof(number),
					   0, 0);
		honest.asked = 0;
		if (result == -ECONNRESET || result == -ECANCELED)
			honest.n_cancelled++;
		else
			world_must(result, "reply");
	}
	result = shmb_server_recv(honest.server, &honest.number, sizeof(honest.number), 0);
	if (result == -ETIMEDOUT)
		return;
	world_must(result, "receive");
	honest.asked = shmb_server_view(honest.server)->call;
}

static void play(void)
{
	if (honest.caller)
		play_caller();
	else
		play_server();
	world_exchange(1);
}

static uint32_t n_peers(void)
{
	struct shmb_caller_stats caller;
	struct shmb_server_stats server;

	if (honest.caller) {
		world_must(shmb_caller_stats(honest.caller, &caller, sizeof(caller)), "stats");
		return caller.n_servers;
	}
	world_must(shmb_server_stats(honest.server, &server, sizeof(server)), "stats");
	return server.n_callers;
}

/* The victim is dead: what it was asked for ends, and soon it is forgotten. */
static void bury(void)
{
	uint64_t end = shmb_clock_now_ns() + LATE_NS;

	if (honest.call)
		receive(20000 * MS);
	while (honest.asked && shmb_server_cancelled(honest.server, honest.asked) == 0) {
		if (shmb_clock_now_ns() > end)
			step_fail(&step, "a call is not cancelled by its caller's death");
		nap();
	}
	do {
		play();
		if (shmb_clock_now_ns() > end)
			step_fail(&step, "the dead is still there");
	} while (n_peers() || honest.asked);
	if (honest.call)
		receive(20000 * MS);
}

/* ---- where to kill ----------------------------------------------------------------------------- */

static void add_place(uint32_t n_syscalls, uint32_t n_instructions)
{
	if (n_places == N_PLACES_MAX)
		step_fail(&step, "too many places");
	places[n_places++] = (struct place){ n_syscalls, n_instructions };
}

/* From behind one system call to in front of the next. Returns how many touched shared memory. */
static uint32_t explore_window(uint32_t n_syscalls, uint32_t stride)
{
	uint32_t n = 0;

	world_watch_new(false);
	world_has_changed();
	for (uint32_t i = 1; i <= PATIENCE && !step_at_syscall(&step); i++) {
		if (!step_next(&step))
			break;
		if (world_has_changed()) {
			add_place(n_syscalls, i - 1);
			add_place(n_syscalls, i);
			n++;
		} else if (i % stride == 0) {
			add_place(n_syscalls, i);
		}
	}
	return n;
}

static void explore(enum role victim, bool quick)
{
	uint32_t n_syscalls = 0, n_stores = 0;

	n_places = 0;
	*connected = 0;
	snprintf(step.scenario, sizeof(step.scenario), "exploring %s", rows[victim].name);
	step_start(&step, bodies[victim], NULL);
	step_begin(&step);
	while (step_syscall(&step)) {
		n_syscalls++;
		if (!__atomic_load_n(connected, __ATOMIC_ACQUIRE))
			continue;
		add_place(n_syscalls, 0);
		/* Every second stop is an exit. */
		if (n_syscalls % 2 == 0)
			n_stores += explore_window(n_syscalls, quick ? 211 : 151);
		play();
	}
	step_kill(&step);
	printf("kill-call: %s: %u system calls, %u stores to shared memory, %u places to kill\n",
	       rows[victim].name, n_syscalls / 2, n_stores, n_places);
	if (n_syscalls < 40 || (n_stores < 20 && !STEP_SANITIZED))
		step_fail(&step, "that cannot have been all");
	world_unwatch();
}

static void kill_at(enum role victim, struct place place)
{
	bool running = true;

	snprintf(step.scenario, sizeof(step.scenario), "%s: system call stop %u, instruction %u",
		 rows[victim].name, place.n_syscalls, place.n_instructions);
	*connected = 0;
	step_start(&step, bodies[victim], NULL);
	step_begin(&step);
	for (uint32_t i = 0; running && i < place.n_syscalls; i++) {
		running = step_syscall(&step);
		if (__atomic_load_n(connected, __ATOMIC_ACQUIRE))
			play();
	}
	for (uint32_t i = 0; running && i < place.n_instructions; i++)
		running = step_next(&step);
	play();
	step_kill(&step);
	bury();
}

static void run(enum role victim, bool quick)
{
	uint32_t stride = quick ? 40 : 4;

	open_honest(victim);
	world_take_baseline();
	explore(victim, quick);
	bury();
	world_wait_clean();
	for (uint32_t i = 0; i < n_places; i += stride) {
		kill_at(victim, places[i]);
		world_wait_clean();
		rows[victim].n[STEP_KILL]++;
	}
	close_honest();
}

int main(int argc, char **argv)
{
	bool quick = step_quick(argc, argv);

	connected = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (connected == MAP_FAILED)
		return EXIT_FAILURE;
	world_begin(&step);
	world_start_broker(&(struct world_broker){ .uring = true });
	world_open_pair();
	for (enum role victim = SERVER; victim < N_ROLES; victim++)
		run(victim, quick);
	world_close_pair();
	world_stop_broker(world.broker_pid);
	world_end();
	printf("kill-call: %llu replies, %llu calls ended by a server's death, %llu by a caller's, "
	       "clean within %llu us\n",
	       (unsigned long long)honest.n_replies, (unsigned long long)honest.n_resets,
	       (unsigned long long)honest.n_cancelled, (unsigned long long)world.latest_ns / 1000);
	if (!honest.n_replies || !honest.n_resets || !honest.n_cancelled)
		step_fail(&step, "it never came to that");
	step_table("kill-call", rows, N_ROLES, quick ? 12 : 1);
	return EXIT_SUCCESS;
}
