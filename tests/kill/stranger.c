/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/kill/stranger.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <shmbroker/schema.h>

#include "lib/client.h"
#include "lib/clock.h"
#include "lib/member.h"
#include "lib/subscriber.h"

#include "tests/kill/world.h"

#define MS	    1000000ll
#define PATIENCE_NS (20000 * MS)

struct strangers *strangers;

void stranger_begin(void)
{
	strangers = mmap(NULL, sizeof(*strangers), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (strangers == MAP_FAILED)
		step_fail(world.step, "mmap: %s", strerror(errno));
}

static bool is_set(const uint32_t *sign)
{
	return __atomic_load_n(sign, __ATOMIC_ACQUIRE);
}

void stranger_set(uint32_t *sign)
{
	__atomic_store_n(sign, 1, __ATOMIC_RELEASE);
}

void stranger_nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
}

void stranger_await(const uint32_t *sign, const char *what)
{
	uint64_t end = shmb_clock_now_ns() + PATIENCE_NS;

	while (!is_set(sign)) {
		if (shmb_clock_now_ns() > end)
			step_fail(world.step, "%s does not happen", what);
		stranger_nap();
	}
}

pid_t stranger_start_other(void (*body)(void))
{
	pid_t pid, parent = getpid();

	strangers->ready = strangers->go = 0;
	strangers->n_sent = 0;
	fflush(NULL);
	pid = fork();
	if (pid)
		return pid;
	world.step->pid = 0;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILURE);
	close_range(3, ~0u, 0);
	body();
	_exit(EXIT_SUCCESS);
}

bool stranger_has_ended(pid_t pid, int *ret_status)
{
	return waitpid(pid, ret_status, WNOHANG) == pid;
}

void stranger_await_end(pid_t pid, int *ret_status)
{
	uint64_t end = shmb_clock_now_ns() + PATIENCE_NS;

	while (!stranger_has_ended(pid, ret_status)) {
		if (shmb_clock_now_ns() > end)
			step_fail(world.step, "process %d does not come to an end", (int)pid);
		stranger_nap();
	}
}

void stranger_finished(pid_t pid)
{
	int status;

	stranger_await_end(pid, &status);
	if (status)
		step_fail(world.step, "a stranger ended with status 0x%x", (unsigned int)status);
}

/* ---- what they do ------------------------------------------------------------------------------ */

static struct shmb_subscriber *subscribe(struct shmb_channel *channel)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options),
						   .flags = SHMB_SUBSCRIBER_LOSSY };
	struct shmb_subscriber *subscriber = NULL;

	world_must(shmb_subscriber_open(channel, &options, &subscriber), "subscribe");
	return subscriber;
}

static void send_some(struct shmb_publisher *publisher)
{
	for (uint64_t i = 0; i < 3; i++) {
		struct world_record record = { i, world_mix(i) };

		world_must(shmb_publisher_send(publisher, &record, sizeof(record)), "send");
	}
}

/* The one that came last: our own publisher. A broker that has just been replaced does not hear it. */
static void report_last(struct shmb_subscriber *subscriber)
{
	struct shmb_member *member = shmb_subscriber_member(subscriber);

	shmb_subscriber_ready(subscriber);
	if (member->inbox.n_pairs)
		shmb_member_report(member, member->inbox.pairs[member->inbox.n_pairs - 1].id,
				   EBADMSG);
}

/*
 * Whoever comes while there is no broker has to try again. And a broker that is stepped through the
 * key exchange thinks that it takes too long.
 */
static struct shmb_client *connect_patiently(void)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = world.address,
					       .address_len = (uint32_t)strlen(world.address),
					       .connect_timeout_ns = 60000 * MS };
	struct shmb_client *client = NULL;

	for (uint32_t i = 0; i < 10000; i++) {
		int32_t result = shmb_client_open(&options, &client);
		bool nobody = result == -ENOENT || result == -ECONNREFUSED;

		if (result == 0)
			return client;
		if (!nobody && !is_set(&strangers->slow))
			world_must(result, "connect");
		stranger_nap();
	}
	step_fail(world.step, "nobody listens again");
}

/* ---- a sealed channel -------------------------------------------------------------------------- */

/* Sends itself records; others may publish and subscribe there, too. */
struct loop {
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscriber;
	uint64_t n_sent, n_received;
	uint64_t segments[2];
};

static void loop_open(struct loop *loop, struct shmb_client *client)
{
	*loop = (struct loop){ .channel = world_open_sealed(client) };
	world_must(shmb_subscriber_open(loop->channel, NULL, &loop->subscriber),
		   "subscribe, sealed");
	world_must(shmb_publisher_open(loop->channel, NULL, &loop->publisher), "publish, sealed");
}

static void loop_close(struct loop *loop)
{
	world_must(shmb_subscriber_close(loop->subscriber), "close subscriber, sealed");
	world_must(shmb_publisher_close(loop->publisher), "close publisher, sealed");
	world_must(shmb_channel_close(loop->channel), "close channel, sealed");
}

/* One record is sent, and received. Returns how many others came. */
static uint32_t loop_turn(struct loop *loop)
{
	struct world_record record = { loop->n_sent, world_mix(loop->n_sent) };
	int32_t result = shmb_publisher_send(loop->publisher, &record, sizeof(record));
	uint32_t n_others = 0;

	if (result != -EAGAIN)
		world_must(result, "send, sealed");
	loop->n_sent += result == 0;
	while ((result = shmb_subscriber_recv(loop->subscriber, &record, sizeof(record))) >= 0) {
		if (record.mixed != world_mix(record.number))
			step_fail(world.step, "a record is torn, sealed");
		if (shmb_subscriber_view(loop->subscriber)->publisher_id !=
		    shmb_publisher_view(loop->publisher)->publisher_id) {
			n_others++;
			continue;
		}
		if (record.number != loop->n_received++)
			step_fail(world.step, "record %llu came, not %llu, sealed",
				  (unsigned long long)record.number,
				  (unsigned long long)loop->n_received - 1);
	}
	if (result != -EAGAIN)
		world_must(result, "receive, sealed");
	return n_others;
}

/* How many of the two are in another segment than before. A publisher begins with its member. */
static uint32_t loop_moves(struct loop *loop)
{
	const struct shmb_member *members[2] = { (struct shmb_member *)(void *)loop->publisher,
						 shmb_subscriber_member(loop->subscriber) };
	uint32_t n = 0;

	for (unsigned i = 0; i < 2; i++) {
		n += loop->segments[i] && loop->segments[i] != members[i]->own_id;
		loop->segments[i] = members[i]->own_id;
	}
	return n;
}

/* Whoever was there before is heard, in whatever segment it is by now. */
static void loop_hear(struct loop *loop)
{
	uint64_t end = shmb_clock_now_ns() + PATIENCE_NS;

	while (!loop_turn(loop)) {
		if (shmb_clock_now_ns() > end)
			step_fail(world.step, "nobody else is heard, sealed");
		stranger_nap();
	}
}

/* ---- a state channel, and one that nobody else has ---------------------------------------------- */

static void put(struct shmb_publisher *publisher, uint32_t key, uint64_t number)
{
	struct world_record value = { number, world_mix(number) };

	world_must(shmb_publisher_put(publisher, key, &value, sizeof(value)), "put");
}

static struct shmb_publisher *claim(struct shmb_channel *channel, uint32_t *ret_key)
{
	struct shmb_publisher *publisher = NULL;

	world_must(shmb_publisher_open(channel, NULL, &publisher), "publish, state");
	*ret_key = (uint32_t)world_must(shmb_publisher_claim(publisher, "key", 3), "claim");
	return publisher;
}

static void change_state(struct shmb_client *client)
{
	struct shmb_channel *channel = world_open_state(client);
	struct shmb_publisher *publisher;
	uint32_t key;

	publisher = claim(channel, &key);
	put(publisher, key, 1);
	put(publisher, key, 2);
	world_must(shmb_publisher_disclaim(publisher, key), "disclaim");
	world_must(shmb_publisher_close(publisher), "close publisher, state");
	world_must(shmb_channel_close(channel), "close channel, state");
}

static void look_at_state(struct shmb_subscriber *subscriber)
{
	struct world_record value;
	int32_t key = shmb_subscriber_find(subscriber, "key", 3), len;

	if (key < 0)
		return;
	len = shmb_subscriber_get(subscriber, (uint32_t)key, &value, sizeof(value));
	if (len == -ENODATA || len == -EAGAIN)
		return;
	world_must(len, "get");
	if (len != sizeof(value) || value.mixed != world_mix(value.number))
		step_fail(world.step, "a value is torn");
}

SHMB_SCHEMA(record_schema, struct world_record, "test.record",
	    SHMB_FIELD(struct world_record, number), SHMB_FIELD(struct world_record, mixed));

/* It is made, and found again by the same request if the first broker did not answer. */
static void create_channel(struct shmb_client *client)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = 4096,
						.schema = &record_schema,
						.schema_len = sizeof(record_schema) };
	struct shmb_channel *channel = NULL;

	world_must(shmb_channel_open(client, "test/own", 8, &options, &channel), "create");
	world_must(shmb_channel_close(channel), "close channel, own");
}

/* ---- the stranger ------------------------------------------------------------------------------ */

static void come_and_go(void)
{
	struct shmb_client *client = connect_patiently();
	struct shmb_publisher *publisher = NULL;
	struct shmb_subscriber *subscriber;
	struct shmb_channel *channel;
	struct loop loop;

	create_channel(client);
	channel = world_open_channel(client);
	subscriber = subscribe(channel);
	world_must(shmb_publisher_open(channel, NULL, &publisher), "publish");
	send_some(publisher);
	report_last(subscriber);
	loop_open(&loop, client);
	loop_hear(&loop);
	loop_close(&loop);
	change_state(client);
	world_must(shmb_subscriber_close(subscriber), "close subscriber");
	world_must(shmb_publisher_close(publisher), "close publisher");
	world_must(shmb_channel_close(channel), "close channel");
	world_must(shmb_client_close(client), "close client");
}

/* And once more, to die. */
static void come_and_die(void)
{
	struct shmb_client *client = connect_patiently();
	struct shmb_channel *channel = world_open_channel(client);
	struct shmb_publisher *publisher = NULL, *state;
	uint32_t key;

	world_must(shmb_publisher_open(channel, NULL, &publisher), "publish again");
	subscribe(channel);
	send_some(publisher);
	state = claim(world_open_state(client), &key);
	put(state, key, 3);
}

static void be_stranger(void)
{
	while (!is_set(&strangers->go))
		stranger_nap();
	come_and_go();
	come_and_die();
}

pid_t stranger_start(void)
{
	return stranger_start_other(be_stranger);
}

/* ---- a writer that goes, and its reader that comes back ------------------------------------------ */

#define N_KEPT	5u
#define N_QUIET 10u

/* The broker may be killed while it looks, and then nothing comes for a while. */
static void read_kept(struct shmb_client *client, struct shmb_subscriber *subscriber)
{
	uint64_t next = 0;

	for (uint32_t quiet = 0; next < N_KEPT || quiet < N_QUIET;) {
		struct world_record record;
		int32_t result = shmb_subscriber_wait(subscriber, 5 * MS);

		quiet = result == -ETIMEDOUT && shmb_client_connected(client) > 0 ? quiet + 1 : 0;
		while (shmb_subscriber_recv(subscriber, &record, sizeof(record)) >= 0)
			if (record.number != next++ || record.mixed != world_mix(record.number))
				step_fail(world.step, "kept record %llu came, not %llu",
					  (unsigned long long)record.number,
					  (unsigned long long)next - 1);
	}
}

void stranger_be_reader(void)
{
	struct shmb_client *client = connect_patiently();
	struct shmb_channel *channel = world_open_apart(client);
	struct shmb_subscriber *subscriber = NULL;

	world_must(shmb_subscriber_open(channel, NULL, &subscriber), "subscribe, apart");
	stranger_set(&strangers->ready);
	while (!is_set(&strangers->look))
		stranger_nap();
	read_kept(client, subscriber);
	world_must(shmb_subscriber_close(subscriber), "close subscriber, apart");
	world_must(shmb_channel_close(channel), "close channel, apart");
	world_must(shmb_client_close(client), "close client");
}

void stranger_be_writer(void)
{
	struct shmb_client *client = connect_patiently();
	struct shmb_channel *channel = world_open_apart(client);
	struct shmb_publisher *publisher = NULL;

	world_must(shmb_publisher_open(channel, NULL, &publisher), "publish, apart");
	for (uint64_t i = 0; i < N_KEPT; i++) {
		struct world_record record = { i, world_mix(i) };

		world_must(shmb_publisher_send(publisher, &record, sizeof(record)), "send, apart");
	}
	stranger_set(&strangers->ready);
	while (!is_set(&strangers->go))
		stranger_nap();
	if (strangers->dies)
		return;
	world_must(shmb_publisher_close(publisher), "close publisher, apart");
	world_must(shmb_channel_close(channel), "close channel, apart");
	world_must(shmb_client_close(client), "close client");
}

/* ---- work that others leave -------------------------------------------------------------------- */

#define N_WORK 8u

static uint64_t is_worked_off(uint64_t number)
{
	return number == 1 || number == 2;
}

void stranger_be_leaver(void)
{
	struct shmb_client *client = connect_patiently();
	struct shmb_channel *channel = world_open_work(client);
	struct shmb_publisher *publisher = NULL;
	struct shmb_subscriber *worker = NULL;
	struct world_record record;

	world_must(shmb_subscriber_open(channel, NULL, &worker), "work");
	world_must(shmb_publisher_open(channel, NULL, &publisher), "publish, work");
	for (uint64_t i = 0; i < N_WORK; i++) {
		record = (struct world_record){ i, world_mix(i) };
		world_must(shmb_publisher_send(publisher, &record, sizeof(record)), "send, work");
	}
	for (uint64_t i = 0; i < N_WORK / 2; i++) {
		world_must(shmb_subscriber_take(worker, &record, sizeof(record)), "take");
		if (is_worked_off(record.number))
			world_must(shmb_subscriber_done(worker, shmb_subscriber_view(worker)->term),
				   "done");
	}
	stranger_set(&strangers->ready);
	while (!is_set(&strangers->go))
		stranger_nap();
	if (strangers->dies)
		return;
	world_must(shmb_subscriber_close(worker), "close worker");
	world_must(shmb_publisher_close(publisher), "close publisher, work");
	world_must(shmb_channel_close(channel), "close queue");
	world_must(shmb_client_close(client), "close client");
}

/* What is left, once, as often as it has been handed out before and once more. */
static void work_off(struct shmb_client *client, struct shmb_subscriber *worker)
{
	uint32_t seen[N_WORK] = { 0 }, n = 0;

	for (uint32_t quiet = 0; n < N_WORK - 2 || quiet < N_QUIET;) {
		const struct shmb_view *view = shmb_subscriber_view(worker);
		struct world_record record;
		int32_t result = shmb_subscriber_wait(worker, 5 * MS);

		quiet = result == -ETIMEDOUT && shmb_client_connected(client) > 0 ? quiet + 1 : 0;
		while (shmb_subscriber_take(worker, &record, sizeof(record)) >= 0) {
			if (record.number >= N_WORK || is_worked_off(record.number) ||
			    seen[record.number]++ || record.mixed != world_mix(record.number) ||
			    view->attempt != (record.number < N_WORK / 2 ? 2 : 1))
				step_fail(world.step, "record %llu is left as attempt %u",
					  (unsigned long long)record.number, view->attempt);
			world_must(shmb_subscriber_done(worker, view->term), "done");
			n++;
		}
	}
}

void stranger_be_heir(void)
{
	struct shmb_client *client = connect_patiently();
	struct shmb_channel *channel = world_open_work(client);
	struct shmb_subscriber *worker = NULL;

	world_must(shmb_subscriber_open(channel, NULL, &worker), "inherit");
	stranger_set(&strangers->ready);
	while (!is_set(&strangers->look))
		stranger_nap();
	work_off(client, worker);
	world_must(shmb_subscriber_close(worker), "close heir");
	world_must(shmb_channel_close(channel), "close queue");
	world_must(shmb_client_close(client), "close client");
}

/* ---- the bystander ----------------------------------------------------------------------------- */

/* What it has done so far, for whoever wants to know. */
struct account {
	uint64_t *n_sent;
	uint64_t *n_own;
	uint64_t *n_heard;
	uint32_t *n_connections;
	uint32_t *n_moves;
};

static _Noreturn void be_there(const struct account *account)
{
	struct shmb_client *client = world_connect();
	struct shmb_channel *channel = world_open_channel(client);
	struct shmb_subscriber *subscriber = subscribe(channel), *watcher = NULL;
	struct shmb_publisher *publisher = NULL, *apart = NULL, *work = NULL;
	struct loop loop;

	world_must(shmb_publisher_open(channel, NULL, &publisher), "publish");
	world_must(shmb_subscriber_open(world_open_state(client), NULL, &watcher), "watch");
	/* After a restart a channel may stay for longer than those who were on it. */
	world_must(shmb_publisher_open(world_open_apart(client), NULL, &apart), "publish, apart");
	world_must(shmb_publisher_open(world_open_work(client), NULL, &work), "publish, work");
	loop_open(&loop, client);
	stranger_set(&strangers->ready);
	for (;;) {
		struct world_record record;
		int32_t result = shmb_subscriber_wait(subscriber, 5 * MS);

		/* Each of them hears what is new. A publisher begins with its member. */
		shmb_member_sync((struct shmb_member *)(void *)publisher);
		shmb_member_sync((struct shmb_member *)(void *)apart);
		shmb_member_sync((struct shmb_member *)(void *)work);
		shmb_member_sync(shmb_subscriber_member(watcher));
		if (result < 0 && result != -ETIMEDOUT)
			world_must(result, "wait");
		while (shmb_subscriber_recv(subscriber, &record, sizeof(record)) >= 0)
			if (record.mixed != world_mix(record.number))
				step_fail(world.step, "a bystander's record is torn");
		__atomic_fetch_add(account->n_heard, loop_turn(&loop), __ATOMIC_RELEASE);
		__atomic_fetch_add(account->n_moves, loop_moves(&loop), __ATOMIC_RELEASE);
		__atomic_store_n(account->n_sent, loop.n_sent, __ATOMIC_RELEASE);
		__atomic_store_n(account->n_own, loop.n_received, __ATOMIC_RELEASE);
		__atomic_store_n(account->n_connections, client->connections, __ATOMIC_RELEASE);
		look_at_state(watcher);
	}
}

void stranger_be_there(void)
{
	uint64_t n_sent;

	be_there(&(struct account){ &n_sent, &strangers->n_own, &strangers->n_heard,
				    &strangers->n_connections, &strangers->n_moves });
}

void stranger_be_mortal(void)
{
	uint64_t n_own, n_heard = 0;
	uint32_t n_connections, n_moves = 0;

	be_there(&(struct account){ &strangers->n_sent, &n_own, &n_heard, &n_connections,
				    &n_moves });
}

void stranger_check_flow(void)
{
	uint64_t end = shmb_clock_now_ns() + PATIENCE_NS;
	uint64_t before = __atomic_load_n(&strangers->n_own, __ATOMIC_ACQUIRE);

	while (__atomic_load_n(&strangers->n_own, __ATOMIC_ACQUIRE) == before) {
		if (shmb_clock_now_ns() > end)
			step_fail(world.step, "the bystander is held up, sealed");
		stranger_nap();
	}
}

void stranger_check_heard(uint64_t n_heard_before)
{
	uint64_t end = shmb_clock_now_ns() + PATIENCE_NS, n_sent = strangers->n_sent, n_heard;

	/* It may have died between sending and counting. */
	do {
		n_heard = __atomic_load_n(&strangers->n_heard, __ATOMIC_ACQUIRE) - n_heard_before;
		if (shmb_clock_now_ns() > end || n_heard > n_sent + 1)
			step_fail(world.step,
				  "%llu records of one that died are heard, it had sent %llu",
				  (unsigned long long)n_heard, (unsigned long long)n_sent);
		stranger_nap();
	} while (n_heard < n_sent);
}
