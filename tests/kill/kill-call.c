/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if a server or a caller is killed while it comes, works or goes, or stopped, thrown out and
 * resumed?
 *
 * A victim serves three calls of an honest caller, and closes everything; another one makes three calls
 * to an honest server. Each is killed in front of and behind each of its system calls,
 * around each instruction that changes shared memory, and at a sample of the others. Each call of the
 * honest caller ends once, with the right reply or at once because its server has gone; the honest
 * server hears that a call is of no use any more; and soon nothing of the victim is left, in the
 * broker or on the other side. An honest pair of a stream goes on meanwhile.
 *
 * And once more with messages that lie in blocks, which the victim lends and holds. That one is also
 * stopped there and thrown out, by the honest side that accuses its lane or its inbox: calls end as if
 * it had died, and when it goes on it disturbs nobody, is told so, and leaves nothing.
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
#include "lib/link.h"

#include "tests/kill/world.h"

#define CHANNEL	     "kill/call"
#define N_CALLS	     3u
#define N_PLACES_MAX 20000u
#define PATIENCE     2000u
#define TURNS	     16u /* that a call is in work */
#define MS	     1000000ll
#define LATE_NS	     20000000000ull
#define LONG_LEN     2048u /* more than lies in a lane if there are blocks */

/* An instant: after so many stops at system calls, and so many instructions more. */
struct place {
	uint32_t n_syscalls;
	uint32_t n_instructions;
};

enum role {
	SERVER,
	CALLER,
	LONG_SERVER,
	LONG_CALLER,
	N_ROLES
};

static struct step_row rows[N_ROLES] = {
	[SERVER] = { .name = "open a server, reply, close", .min = { [STEP_KILL] = 90 } },
	[CALLER] = { .name = "open a caller, call, close", .min = { [STEP_KILL] = 90 } },
	[LONG_SERVER] = { .name = "hold requests, lend replies",
			  .min = { [STEP_KILL] = 70, [STEP_ZOMBIE] = 12 } },
	[LONG_CALLER] = { .name = "lend requests, hold replies",
			  .min = { [STEP_KILL] = 70, [STEP_ZOMBIE] = 12 } },
};
static uint32_t message_len; /* of both sides */
static uint64_t message[LONG_LEN / 8];
static struct step step;
static struct place places[N_PLACES_MAX];
static uint32_t n_places;
static uint32_t *connected; /* the victim is: what comes before kill-attach looks at */
static uint32_t *outcast; /* it has been thrown out, and may be told so */

/* ---- the victims ------------------------------------------------------------------------------- */

static struct shmb_channel *open_calls(struct shmb_client *of)
{
	struct shmb_channel_options options = {
		.options_len = sizeof(options),
		.flags = SHMB_CHANNEL_CREATE,
		.pattern = SHMB_CHANNEL_CALL,
		.lane_len = 4096,
		.record_len_max = message_len == LONG_LEN ? LONG_LEN : 0,
		.inline_len_max = message_len == LONG_LEN ? 1028 : 0,
	};
	struct shmb_channel *channel;

	world_must(shmb_channel_open(of, CHANNEL, strlen(CHANNEL), &options, &channel),
		   "open the call channel");
	return channel;
}

/* A message is one number, as often as it has room for it. */
static void write_number(void *data, uint64_t number)
{
	for (uint32_t i = 0; i < message_len / 8; i++)
		((uint64_t *)data)[i] = number;
}

static bool read_number(const void *data, uint64_t *ret_number)
{
	const uint64_t *words = data;

	*ret_number = words[0];
	for (uint32_t i = 1; i < message_len / 8; i++)
		if (words[i] != words[0])
			return false;
	return true;
}

static void *place_of(const struct shmb_call_view *view)
{
	return (void *)(uintptr_t)view->data;
}

/* Here the others have their turn. */
static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
}

/* Returns false if it is told that it was thrown out. */
static bool is_well(int32_t result, const char *what)
{
	if (result < 0 && __atomic_load_n(outcast, __ATOMIC_ACQUIRE))
		return false;
	world_must(result, what);
	return true;
}

static bool serve(struct shmb_server *server)
{
	const struct shmb_call_view *view = shmb_server_view(server);
	uint64_t number;

	if (shmb_server_recv(server, message, message_len, 0) < 0)
		return false;
	read_number(message, &number);
	write_number(message, world_mix(number));
	world_must(shmb_server_reply(server, view->call, 0, message, message_len, 0, 0), "reply");
	return true;
}

static bool serve_long(struct shmb_server *server)
{
	const struct shmb_call_view *view = shmb_server_view(server);
	int32_t hold = shmb_server_recv_hold(server, 0);
	uint64_t number;

	if (hold < 0)
		return false;
	if (view->len != message_len || !read_number(place_of(view), &number))
		abort();
	if (is_well(shmb_server_loan(server, view->call, message_len, 20000 * MS), "lend")) {
		write_number(place_of(view), world_mix(number));
		is_well(shmb_server_reply_loan(server, 0, message_len, 0), "reply");
	}
	is_well(shmb_server_unhold(server, (uint32_t)hold), "let go");
	return true;
}

static void be_server(void *context)
{
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_server *server;
	uint64_t n = 0;

	(void)context;
	close_range(3, ~0u, 0);
	client = world_connect();
	__atomic_store_n(connected, 1, __ATOMIC_RELEASE);
	channel = open_calls(client);
	world_must(shmb_server_open(channel, NULL, &server), "serve");
	for (uint32_t tries = 0; n < N_CALLS && tries < 1000; tries++) {
		/* Nobody will come any more. */
		if (__atomic_load_n(outcast, __ATOMIC_ACQUIRE) && tries < 990)
			tries = 990;
		if (message_len == LONG_LEN ? serve_long(server) : serve(server))
			n++;
		else
			nap();
	}
	world_must(shmb_server_close(server), "close server");
	world_must(shmb_channel_close(channel), "close channel");
	world_must(shmb_client_close(client), "close client");
}

static int32_t ask(struct shmb_caller *caller, uint64_t number)
{
	if (message_len != LONG_LEN) {
		write_number(message, number);
		return shmb_caller_start(caller, 0, message, message_len, 20000 * MS);
	}
	if (!is_well(shmb_caller_loan(caller, message_len, 20000 * MS), "lend"))
		return -ESTALE;
	write_number(place_of(shmb_caller_view(caller)), number);
	return shmb_caller_start_loan(caller, 0, message_len, 20000 * MS);
}

/* Looks for the reply. Returns -ETIMEDOUT, or its bytes. */
static int32_t hear(struct shmb_caller *caller, int32_t call, uint64_t *ret_number)
{
	int32_t result;

	if (message_len != LONG_LEN) {
		result = shmb_caller_recv(caller, call, message, message_len, 0);
		read_number(message, ret_number);
		return result;
	}
	result = shmb_caller_recv_hold(caller, call, 0);
	if (result < 0)
		return result;
	if (!read_number(place_of(shmb_caller_view(caller)), ret_number))
		abort();
	is_well(shmb_caller_unhold(caller, (uint32_t)result), "let go");
	return (int32_t)shmb_caller_view(caller)->len;
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
		int32_t len = -ETIMEDOUT, call = ask(caller, n);
		uint64_t reply = 0;

		if (!is_well(call, "start"))
			break;
		for (uint32_t tries = 0; len == -ETIMEDOUT && tries < 10000; tries++) {
			nap();
			len = hear(caller, call, &reply);
		}
		if (!is_well(len, "receive"))
			break;
		if (len != (int32_t)message_len || reply != world_mix(n))
			abort();
	}
	world_must(shmb_caller_close(caller), "close caller");
	world_must(shmb_channel_close(channel), "close channel");
	world_must(shmb_client_close(client), "close client");
}

static void (*const bodies[N_ROLES])(void *context) = {
	[SERVER] = be_server,
	[CALLER] = be_caller,
	[LONG_SERVER] = be_server,
	[LONG_CALLER] = be_caller,
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
	message_len = victim < LONG_SERVER ? 8 : LONG_LEN;
	honest.client = world_connect();
	honest.channel = open_calls(honest.client);
	if (victim % 2 == SERVER)
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
		shmb_caller_recv(honest.caller, honest.call, message, message_len, timeout_ns);

	if (result == -ETIMEDOUT && !timeout_ns)
		return;
	honest.call = 0;
	if (result == -ECONNRESET)
		honest.n_resets++;
	else if (world_must(result, "receive") != (int32_t)message_len ||
		 !read_number(message, &reply) || reply != world_mix(honest.number))
		step_fail(&step, "a wrong reply");
	else
		honest.n_replies++;
}

static void play_caller(void)
{
	if (honest.call) {
		receive(0);
	} else if (shmb_caller_wait(honest.caller, message_len, 0) == 0) {
		write_number(message, ++honest.number);
		honest.call = world_must(
			shmb_caller_start(honest.caller, 0, message, message_len, SHMB_FOREVER),
			"start");
	}
}

/* Answers what it got some turns ago, so that there is a call in work much of the time. */
static void play_server(void)
{
	int32_t result;

	if (honest.asked && ++honest.turns < TURNS)
		return;
	honest.turns = 0;
	if (honest.asked) {
		write_number(message, world_mix(honest.number));
		result = shmb_server_reply(honest.server, honest.asked, 0, message, message_len, 0,
					   20000 * MS);
		honest.asked = 0;
		if (result == -ECONNRESET || result == -ECANCELED)
			honest.n_cancelled++;
		else
			world_must(result, "reply");
	}
	result = shmb_server_recv(honest.server, message, message_len, 0);
	if (result == -ETIMEDOUT)
		return;
	if (world_must(result, "receive") != (int32_t)message_len ||
	    !read_number(message, &honest.number))
		step_fail(&step, "a wrong request");
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
			n_stores += explore_window(n_syscalls, quick ? 307 : 151);
		play();
	}
	step_kill(&step);
	printf("kill-call: %s: %u system calls, %u stores to shared memory, %u places to kill\n",
	       rows[victim].name, n_syscalls / 2, n_stores, n_places);
	if (n_syscalls < 40 || (n_stores < 20 && !STEP_SANITIZED))
		step_fail(&step, "that cannot have been all");
	world_unwatch();
}

static void go_to(enum role victim, struct place place, const char *fate)
{
	bool running = true;

	snprintf(step.scenario, sizeof(step.scenario),
		 "%s: %s at system call stop %u, instruction %u", rows[victim].name, fate,
		 place.n_syscalls, place.n_instructions);
	*connected = *outcast = 0;
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
}

static void kill_at(enum role victim, struct place place)
{
	go_to(victim, place, "killed");
	step_kill(&step);
	bury();
}

/* Accuses its inbox, or the lane that it sends in. Returns false if there is none yet, or no more. */
static bool throw_out(bool inbox)
{
	struct shmb_links *links =
		honest.caller ? shmb_caller_links(honest.caller) : shmb_server_links(honest.server);
	/* A publisher begins with it, as a subscriber does. */
	struct shmb_member *accuser = inbox && links->n ? (void *)links->all[0]->sender
				      : inbox		? NULL
							: shmb_subscriber_member(links->inbox);
	bool done = accuser && world_evict_by(accuser, 0);

	world_must(shmb_client_ping(honest.client, 20000 * MS), "ping");
	return done;
}

static void resume_at(enum role victim, struct place place, bool inbox)
{
	go_to(victim, place, inbox ? "inbox thrown out" : "lane thrown out");
	if (!throw_out(inbox)) {
		step_kill(&step);
		bury();
		return;
	}
	__atomic_store_n(outcast, 1, __ATOMIC_RELEASE);
	bury();
	while (step_syscall(&step))
		play();
	step_kill(&step);
	bury();
	rows[victim].n[STEP_ZOMBIE]++;
}

static void run(enum role victim, bool quick)
{
	uint32_t stride = quick ? 60 : victim < LONG_SERVER ? 6 : 12;

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
	/* A caller whose lane was thrown out looks for another server, and there is none. */
	for (uint32_t i = stride / 2, n = 0; victim >= LONG_SERVER && i < n_places;
	     i += 3 * stride, n++) {
		resume_at(victim, places[i], victim == LONG_CALLER || n % 2);
		world_wait_clean();
	}
	close_honest();
}

int main(int argc, char **argv)
{
	bool quick = step_quick(argc, argv);
	/* In a hurry only what does all that the others do. */
	enum role first = quick ? LONG_SERVER : SERVER;

	connected = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (connected == MAP_FAILED)
		return EXIT_FAILURE;
	outcast = connected + 1;
	world_begin(&step);
	world_start_broker(&(struct world_broker){ .uring = true });
	world_open_pair();
	for (enum role victim = first; victim < N_ROLES; victim++)
		run(victim, quick);
	world_close_pair();
	world_stop_broker(world.broker_pid);
	world_end();
	printf("kill-call: %llu replies, %llu calls ended by a server's death, %llu by a caller's, "
	       "clean within %llu us\n",
	       (unsigned long long)honest.n_replies, (unsigned long long)honest.n_resets,
	       (unsigned long long)honest.n_cancelled, (unsigned long long)world.latest_ns / 1000);
	if (!quick && (!honest.n_replies || !honest.n_resets || !honest.n_cancelled))
		step_fail(&step, "it never came to that");
	step_table("kill-call", rows + first, N_ROLES - first, quick ? 12 : 1);
	return EXIT_SUCCESS;
}
