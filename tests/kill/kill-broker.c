/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if the broker is killed while it grants, buries, or takes over from one that was killed?
 *
 * A stranger comes, opens a channel, publishes, subscribes, has its publisher thrown out, closes
 * everything and leaves; then it comes again, and dies. All that time the broker is stepped. It is
 * killed in front of and behind each of its system calls, and around each instruction that changes
 * the registry or a segment: between those nothing changes that outlives it. Then a successor is
 * started. The stranger notices nothing but that it takes longer; an honest pair on the same
 * channel loses no record; and soon nothing is left but what was there before.
 *
 * In the same way the broker is killed while it keeps the lane of a publisher that ends, or dies, for a
 * subscriber that has not come back, and until that one has read it: every record comes once.
 *
 * In the same way the successor is killed while it takes over, with somebody to be buried and
 * somebody who lives on, and the successor of that one. There is a sealed channel, too, whose members
 * move to other segments each time. And a successor that takes the place of a broker that is stopped
 * is killed; then that one wakes up.
 */

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

#include "lib/clock.h"
#include "lib/member.h"
#include "lib/subscriber.h"

#include "tests/kill/world.h"

#define N_PLACES_MAX 20000u
#define IDLE_MS	     150u
#define MS	     1000000ll
/* Instructions after a system call that are looked at; a key exchange takes more. */
#define PATIENCE     1000u
#define PATIENCE_ALL 5000u
/* Of so many brokers that are killed one is left stopped for a while. */
#define EXCHANGE_STRIDE 64u

/* An instant: after so many stops at system calls, and so many instructions more. */
struct place {
	uint32_t n_syscalls;
	uint32_t n_instructions;
};

struct places {
	struct place at[N_PLACES_MAX];
	uint32_t n;
};

enum row {
	ROW_GRANT,
	ROW_RECOVER,
	ROW_RECOVER_AGAIN,
	ROW_REPLACE,
	ROW_KEEP,
	N_ROWS
};

static struct step_row rows[N_ROWS] = {
	[ROW_GRANT] = { .name = "grants and undertakings", .min = { [STEP_KILL] = 400 } },
	[ROW_RECOVER] = { .name = "recovery", .min = { [STEP_KILL] = 200 } },
	[ROW_KEEP] = { .name = "lanes that are kept", .min = { [STEP_KILL] = 40 } },
	[ROW_REPLACE] = { .name = "taking the place of another", .min = { [STEP_KILL] = 70 } },
	[ROW_RECOVER_AGAIN] = { .name = "recovery of the recovery", .min = { [STEP_KILL] = 70 } },
};
static struct step step;
static struct world_broker how;
static struct places grant_places, recover_places, replace_places, keep_places;
static pid_t bystander;
static bool quick, all;
static struct {
	uint32_t go;
	uint32_t slow; /* the broker may think that we are */
	uint32_t ready;
	uint32_t look; /* the reader of kept lanes may look */
} * signs;

static bool is_set(const uint32_t *sign)
{
	return __atomic_load_n(sign, __ATOMIC_ACQUIRE);
}

static void set(uint32_t *sign)
{
	__atomic_store_n(sign, 1, __ATOMIC_RELEASE);
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
}

static void await(const uint32_t *sign, const char *what)
{
	uint64_t end = shmb_clock_now_ns() + 20000 * MS;

	while (!is_set(sign)) {
		if (shmb_clock_now_ns() > end)
			step_fail(&step, "%s does not happen", what);
		nap();
	}
}

/* ---- the others -------------------------------------------------------------------------------- */

/* A process with a connection of its own. */
static pid_t start_other(void (*body)(void))
{
	pid_t pid, parent = getpid();

	signs->ready = signs->go = 0;
	fflush(NULL);
	pid = fork();
	if (pid)
		return pid;
	step.pid = 0;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILURE);
	close_range(3, ~0u, 0);
	body();
	_exit(EXIT_SUCCESS);
}

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
		if (!nobody && !is_set(&signs->slow))
			world_must(result, "connect");
		nap();
	}
	step_fail(&step, "nobody listens again");
}

/* Sends itself records over a sealed channel; others may publish and subscribe there, too. */
struct loop {
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscriber;
	uint64_t n_sent, n_received;
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
			step_fail(&step, "a record is torn, sealed");
		if (shmb_subscriber_view(loop->subscriber)->publisher_id !=
		    shmb_publisher_view(loop->publisher)->publisher_id) {
			n_others++;
			continue;
		}
		if (record.number != loop->n_received++)
			step_fail(&step, "record %llu came, not %llu, sealed",
				  (unsigned long long)record.number,
				  (unsigned long long)loop->n_received - 1);
	}
	if (result != -EAGAIN)
		world_must(result, "receive, sealed");
	return n_others;
}

/* Whoever was there before is heard, in whatever segment it is by now. */
static void loop_hear(struct loop *loop)
{
	uint64_t end = shmb_clock_now_ns() + 20000 * MS;

	while (!loop_turn(loop)) {
		if (shmb_clock_now_ns() > end)
			step_fail(&step, "nobody else is heard, sealed");
		nap();
	}
}

static void be_stranger(void)
{
	struct shmb_publisher *publisher = NULL;
	struct shmb_subscriber *subscriber;
	struct shmb_channel *channel;
	struct shmb_client *client;
	struct loop loop;

	while (!is_set(&signs->go))
		nap();
	client = connect_patiently();
	channel = world_open_channel(client);
	subscriber = subscribe(channel);
	world_must(shmb_publisher_open(channel, NULL, &publisher), "publish");
	send_some(publisher);
	report_last(subscriber);
	loop_open(&loop, client);
	loop_hear(&loop);
	loop_close(&loop);
	world_must(shmb_subscriber_close(subscriber), "close subscriber");
	world_must(shmb_publisher_close(publisher), "close publisher");
	world_must(shmb_channel_close(channel), "close channel");
	world_must(shmb_client_close(client), "close client");
	/* And once more, to die. */
	client = connect_patiently();
	channel = world_open_channel(client);
	world_must(shmb_publisher_open(channel, NULL, &publisher), "publish again");
	subscribe(channel);
	send_some(publisher);
}

static void be_there(void)
{
	struct shmb_client *client = world_connect();
	struct shmb_channel *channel = world_open_channel(client);
	struct shmb_subscriber *subscriber = subscribe(channel);
	struct shmb_publisher *publisher = NULL;
	struct loop loop;

	world_must(shmb_publisher_open(channel, NULL, &publisher), "publish");
	/* After a restart a channel may stay for longer than those who were on it. */
	world_open_apart(client);
	loop_open(&loop, client);
	set(&signs->ready);
	for (;;) {
		struct world_record record;
		int32_t result = shmb_subscriber_wait(subscriber, 5 * MS);

		if (result < 0 && result != -ETIMEDOUT)
			world_must(result, "wait");
		while (shmb_subscriber_recv(subscriber, &record, sizeof(record)) >= 0)
			if (record.mixed != world_mix(record.number))
				step_fail(&step, "a bystander's record is torn");
		loop_turn(&loop);
	}
}

static void await_end(pid_t pid, int *ret_status)
{
	uint64_t end = shmb_clock_now_ns() + 20000 * MS;

	while (waitpid(pid, ret_status, WNOHANG) != pid) {
		if (shmb_clock_now_ns() > end)
			step_fail(&step, "process %d does not come to an end", (int)pid);
		nap();
	}
}

static void await_stranger(pid_t pid)
{
	int status;

	await_end(pid, &status);
	if (status)
		step_fail(&step, "the stranger ended with status 0x%x", (unsigned int)status);
}

static void check_bystander(void)
{
	if (waitpid(bystander, NULL, WNOHANG) != 0)
		step_fail(&step, "the bystander has ended");
}

/* ---- the broker -------------------------------------------------------------------------------- */

/* Stands in front of its first instruction. */
static void load_broker(void)
{
	step_start(&step, world_serve, &how);
	step_begin(&step);
	world.broker_pid = step.pid;
}

static void run_broker(void)
{
	step_finish(&step);
	step_begin(&step);
	step_release(&step);
}

/* Back to how it was, but for the broker, which is a new one. */
static void recover(void)
{
	load_broker();
	run_broker();
	world_ping();
	world_wait_clean();
	check_bystander();
}

/* ---- where to kill ----------------------------------------------------------------------------- */

static void add_place(struct places *places, uint32_t n_syscalls, uint32_t n_instructions)
{
	if (places->n == N_PLACES_MAX)
		step_fail(&step, "too many places");
	places->at[places->n++] = (struct place){ n_syscalls, n_instructions };
}

/*
 * From behind one system call to in front of the next. Returns how many instructions stored, and
 * whether it came that far: then nothing is new in front of the next.
 */
static uint32_t explore_window(struct places *places, uint32_t n_syscalls, bool *ret_complete)
{
	uint32_t n = 0, patience = all ? PATIENCE_ALL : PATIENCE;

	world_watch_new(true);
	world_has_changed();
	for (uint32_t i = 1; i <= patience && !step_at_syscall(&step); i++) {
		if (!step_next(&step))
			break;
		if (!world_has_changed())
			continue;
		add_place(places, n_syscalls, i - 1);
		add_place(places, n_syscalls, i);
		n++;
	}
	*ret_complete = step_at_syscall(&step);
	return n;
}

/* Until the broker has nothing more to do. */
static void explore(struct places *places, const char *what)
{
	uint32_t n_syscalls = 0, n_stores = 0;
	uint64_t before = step.n_points;
	bool complete = false;

	snprintf(step.scenario, sizeof(step.scenario), "exploring");
	places->n = 0;
	while (step_syscall_within(&step, IDLE_MS) == 1) {
		bool entry = step_in_syscall(&step);

		n_syscalls++;
		if (!entry || !complete)
			add_place(places, n_syscalls, 0);
		complete = false;
		/* A sample sees few stores, but all system calls. */
		if (!entry && (!quick || n_syscalls % 16 < 2))
			n_stores += explore_window(places, n_syscalls, &complete);
	}
	world_unwatch();
	printf("kill-broker: %s: %u stops at system calls, %u stores, %llu steps\n", what,
	       n_syscalls, n_stores, (unsigned long long)(step.n_points - before));
	if (n_syscalls < 60 || (n_stores < 6 && !quick))
		step_fail(&step, "that cannot have been all");
}

/* Steps there, or as far as the broker goes, and kills it. */
static void kill_at(const struct place *place, const char *what)
{
	static uint32_t n;
	int running = 1;

	snprintf(step.scenario, sizeof(step.scenario),
		 "%s, %s, system call stop %u, instruction %u", how.uring ? "io_uring" : "epoll",
		 what, place->n_syscalls, place->n_instructions);
	for (uint32_t i = 0; running == 1 && i < place->n_syscalls; i++)
		running = step_syscall_within(&step, IDLE_MS);
	/* Interrupted system calls can come in between. */
	if (place->n_instructions && running == 1 && step_in_syscall(&step))
		running = step_syscall_within(&step, IDLE_MS);
	for (uint32_t i = 0; running == 1 && i < place->n_instructions && !step_at_syscall(&step);
	     i++)
		running = step_next(&step);
	/* It stands still: traffic goes on, but may wait a second for what it was about to say. */
	if (n++ % EXCHANGE_STRIDE == 0)
		world_exchange(2);
	step_kill(&step);
	world_exchange(2);
}

/* ---- grants ------------------------------------------------------------------------------------ */

static void explore_grants(void)
{
	pid_t stranger = start_other(be_stranger);

	step_interrupt(&step);
	set(&signs->go);
	set(&signs->slow);
	explore(&grant_places, "grants and undertakings");
	signs->slow = 0;
	step_kill(&step);
	load_broker();
	run_broker();
	await_stranger(stranger);
	world_ping();
	world_wait_clean();
}

static void kill_granting(const struct place *place)
{
	pid_t stranger = start_other(be_stranger);

	step_interrupt(&step);
	set(&signs->go);
	kill_at(place, "grants");
	load_broker();
	run_broker();
	await_stranger(stranger);
	world_ping();
	world_wait_clean();
	check_bystander();
	rows[ROW_GRANT].n[STEP_KILL]++;
}

/* ---- recovery ---------------------------------------------------------------------------------- */

/* The broker is killed, and a client of it. */
static void kill_both(void)
{
	pid_t other = start_other(be_there);

	await(&signs->ready, "a client that is to die");
	step_kill(&step);
	kill(other, SIGKILL);
	waitpid(other, NULL, 0);
}

static void explore_recovery(void)
{
	kill_both();
	load_broker();
	explore(&recover_places, "recovery");
	step_kill(&step);
	recover();
}

static void kill_recovering(const struct place *place)
{
	kill_both();
	load_broker();
	kill_at(place, "recovery");
	recover();
	rows[ROW_RECOVER].n[STEP_KILL]++;
}

static void kill_recovering_twice(const struct place *first, const struct place *second)
{
	kill_both();
	load_broker();
	kill_at(first, "recovery");
	load_broker();
	kill_at(second, "recovery of the recovery");
	recover();
	rows[ROW_RECOVER_AGAIN].n[STEP_KILL]++;
}

/* ---- lanes that are kept ------------------------------------------------------------------------- */

#define N_KEPT 5u

/* It is away until it may look; then it gets every record of the one who was there meanwhile, once. */
static void be_reader(void)
{
	struct shmb_client *client = world_connect();
	struct shmb_channel *channel = world_open_apart(client);
	struct shmb_subscriber *subscriber = NULL;
	uint64_t quiet = 0, next = 0;

	world_must(shmb_subscriber_open(channel, NULL, &subscriber), "subscribe");
	set(&signs->ready);
	while (!is_set(&signs->look))
		nap();
	/* The broker may be killed while it looks, and then nothing comes for a while. */
	while (next < N_KEPT || quiet < 20) {
		struct world_record record;
		int32_t result = shmb_subscriber_wait(subscriber, 5 * MS);

		quiet = result == -ETIMEDOUT && shmb_client_connected(client) ? quiet + 1 : 0;
		while (shmb_subscriber_recv(subscriber, &record, sizeof(record)) >= 0)
			if (record.number != next++ || record.mixed != world_mix(record.number))
				step_fail(&step, "kept record %llu came, not %llu",
					  (unsigned long long)record.number,
					  (unsigned long long)next - 1);
	}
	world_must(shmb_subscriber_close(subscriber), "close subscriber");
	world_must(shmb_channel_close(channel), "close channel");
	world_must(shmb_client_close(client), "close client");
}

static void be_writer(void)
{
	struct shmb_client *client = world_connect();
	struct shmb_channel *channel = world_open_apart(client);
	struct shmb_publisher *publisher = NULL;

	world_must(shmb_publisher_open(channel, NULL, &publisher), "publish");
	for (uint64_t i = 0; i < N_KEPT; i++) {
		struct world_record record = { i, world_mix(i) };

		world_must(shmb_publisher_send(publisher, &record, sizeof(record)), "send");
	}
	set(&signs->ready);
	while (!is_set(&signs->go))
		nap();
	/* In order, or as if it was killed. */
	if (signs->slow)
		_exit(EXIT_SUCCESS);
	world_must(shmb_publisher_close(publisher), "close publisher");
	world_must(shmb_channel_close(channel), "close channel");
	world_must(shmb_client_close(client), "close client");
}

/* The reader is away since a restart; the writer has come since then. */
static void begin_keeping(pid_t others[2], bool dies)
{
	signs->look = 0;
	others[0] = start_other(be_reader);
	await(&signs->ready, "a reader");
	step_interrupt(&step);
	step_kill(&step);
	load_broker();
	run_broker();
	world_ping();
	others[1] = start_other(be_writer);
	await(&signs->ready, "a writer");
	signs->slow = dies;
	step_interrupt(&step);
	set(&signs->go);
}

/* The reader looks a little after that, whatever has become of the broker. */
static pid_t look_soon(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		usleep(30000);
		set(&signs->look);
		_exit(EXIT_SUCCESS);
	}
	return pid;
}

static void end_keeping(const pid_t others[2], pid_t timer)
{
	load_broker();
	run_broker();
	await_stranger(timer);
	await_stranger(others[0]);
	await_stranger(others[1]);
	signs->slow = 0;
	world_ping();
	world_wait_clean();
	check_bystander();
}

static void explore_keeping(void)
{
	pid_t others[2], timer;

	begin_keeping(others, false);
	timer = look_soon();
	explore(&keep_places, "lanes that are kept");
	step_kill(&step);
	end_keeping(others, timer);
}

static void kill_keeping(const struct place *place, bool dies)
{
	pid_t others[2], timer;

	begin_keeping(others, dies);
	timer = look_soon();
	kill_at(place, "lanes that are kept");
	end_keeping(others, timer);
	rows[ROW_KEEP].n[STEP_KILL]++;
}

/* ---- taking the place of another ---------------------------------------------------------------- */

static struct step stopped;

/* The broker stands still, wherever it is; a successor stands in front of its first instruction. */
static void load_replacement(void)
{
	struct step_shared *shared = stopped.shared;

	step_interrupt(&step);
	stopped = step;
	step = (struct step){ .shared = shared };
	how.replace = true;
	load_broker();
}

/* The one that was stopped wakes up, and finds that nothing is its own any more. */
static void wake_stopped(void)
{
	int status;

	recover();
	how.replace = false;
	step_release(&stopped);
	await_end(stopped.pid, &status);
	if (status)
		step_fail(&step, "the broker that was stopped ended with status 0x%x",
			  (unsigned int)status);
	world_ping();
	world_wait_clean();
	check_bystander();
}

static void explore_replacing(void)
{
	load_replacement();
	explore(&replace_places, "taking the place of another");
	step_kill(&step);
	wake_stopped();
}

static void kill_replacing(const struct place *place)
{
	load_replacement();
	kill_at(place, "taking the place of another");
	wake_stopped();
	rows[ROW_REPLACE].n[STEP_KILL]++;
}

/* ---- all of it --------------------------------------------------------------------------------- */

static void kill_all(uint32_t stride)
{
	const struct places *recovery = &recover_places;

	explore_grants();
	for (uint32_t i = 0; i < grant_places.n; i += stride)
		kill_granting(&grant_places.at[i]);
	explore_recovery();
	for (uint32_t i = 0; i < recovery->n; i += stride)
		kill_recovering(&recovery->at[i]);
	explore_keeping();
	for (uint32_t i = 0; i < keep_places.n; i += stride)
		kill_keeping(&keep_places.at[i], i / stride % 2);
	explore_replacing();
	for (uint32_t i = 0; i < replace_places.n; i += 2 * stride)
		kill_replacing(&replace_places.at[i]);
	for (uint32_t i = 0; i < recovery->n; i += 3 * stride)
		kill_recovering_twice(&recovery->at[i], &recovery->at[(7 * i + 11) % recovery->n]);
}

int main(int argc, char **argv)
{
	uint32_t stride;

	all = argc > 1 && !strcmp(argv[1], "--all");
	quick = step_quick(argc, argv);
	/* All of them are minutes. */
	stride = all ? 1 : quick ? 41 : 12;
	signs = mmap(NULL, sizeof(*signs), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (signs == MAP_FAILED)
		return EXIT_FAILURE;
	world_begin(&step);
	load_broker();
	run_broker();
	world_open_pair();
	bystander = start_other(be_there);
	await(&signs->ready, "the bystander");
	world.n_members = 2;
	/* As a successor has it. */
	step_interrupt(&step);
	step_kill(&step);
	load_broker();
	run_broker();
	world_ping();
	world_settle();
	kill_all(stride);
	kill(bystander, SIGKILL);
	waitpid(bystander, NULL, 0);
	world_close_pair();
	world_stop_broker(step.pid);
	step.pid = 0;
	world_end();
	printf("kill-broker: %llu records exchanged, clean within %llu us\n",
	       (unsigned long long)world.n_received, (unsigned long long)world.latest_ns / 1000);
	step_table("kill-broker", rows, N_ROWS, stride);
	return EXIT_SUCCESS;
}
