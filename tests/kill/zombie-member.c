/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if a client is stopped in the middle of a call, others go on without it, and then it goes on?
 *
 * It is stopped in front of and behind each system call, around each instruction that changes
 * shared memory, and at every instruction of sending, receiving and putting. Meanwhile its publisher
 * or its subscriber is thrown out, because a peer has accused it, and another one takes its place;
 * or its connection is closed, because what came over it was nonsense; or another broker takes the
 * place of its own. When it goes on it must do no harm to whoever has taken its place. Who was
 * thrown out is told so, and can begin anew; who was not notices nothing.
 *
 *	zombie-member [--quick | --all [PART]]
 *
 * The parts are stream and state. With $SHMB_TEST_BLOCKS the records of the stream lie in blocks, and are
 * held when they are received.
 */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shmbroker/shmbroker.h>

#include "lib/clock.h"
#include "lib/member.h"
#include "lib/subscriber.h"

#include "tests/kill/world.h"

#define N_PLACES_MAX 40000u
#define PATIENCE     600u
#define N_TRIES	     5u
#define N_RECORDS    5u
/* More than once round the lane. */
#define N_MANY	       200u
#define REPLACE_STRIDE 8u
#define BLOCKS_STRIDE  20u
#define KEY	       "zombie"

enum part {
	PART_STREAM,
	PART_STATE,
	N_PARTS
};

enum fate {
	FATE_PUBLISHER_OUT,
	FATE_SUBSCRIBER_OUT,
	FATE_HUNG_UP,
	FATE_NEW_BROKER,
	N_FATES
};

/* An instant: after so many stops at system calls, and so many instructions more. */
struct place {
	uint32_t n_syscalls;
	uint32_t n_instructions;
};

static const char *const names[N_PARTS] = { "stream", "state" };

static struct step_row rows[N_PARTS * N_FATES] = {
	{ .name = "stream, publisher thrown out", .min = { [STEP_ZOMBIE] = 300 } },
	{ .name = "stream, subscriber thrown out", .min = { [STEP_ZOMBIE] = 300 } },
	{ .name = "stream, connection closed", .min = { [STEP_ZOMBIE] = 300 } },
	{ .name = "stream, broker replaced", .min = { [STEP_ZOMBIE] = 60 } },
	{ .name = "state, publisher thrown out", .min = { [STEP_ZOMBIE] = 200 } },
	{ .name = "state, subscriber thrown out", .min = { [STEP_ZOMBIE] = 0 } },
	{ .name = "state, connection closed", .min = { [STEP_ZOMBIE] = 200 } },
	{ .name = "state, broker replaced", .min = { [STEP_ZOMBIE] = 40 } },
};
static struct step step;
static struct place places[N_PLACES_MAX];
static uint32_t n_places;

/* The victim is told, and tells. */
static struct {
	uint32_t part;
	uint32_t outcast; /* something of it may be thrown out */
	uint32_t refused; /* it may have to come again */
	uint32_t busy; /* inside of a call whose every instruction counts */
	uint32_t n_out; /* how often it was told that it is out */
	uint64_t value; /* the last one that it has put, 0: none */
} * shared;

/* ---- the victim -------------------------------------------------------------------------------- */

/* Was it thrown out? Then the sentence says what to do. */
static bool is_out(int32_t result, const char *what)
{
	char why[512] = "";

	if (result != -ESTALE || !shared->outcast) {
		world_must(result, what);
		return false;
	}
	shmb_last_error(why, sizeof(why));
	if (!strstr(why, "thrown") && !strstr(why, "gone"))
		step_fail(&step, "%s: \"%s\" does not say that it was thrown out", what, why);
	shared->n_out++;
	return true;
}

/* One whose connection is closed before it has anything, or that was too slow, has to begin again. */
static struct shmb_client *arrive(void)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = world.address,
					       .address_len = (uint32_t)strlen(world.address),
					       .connect_timeout_ns = 60000000000 };
	struct shmb_client *client = NULL;
	int32_t result = shmb_client_open(&options, &client);

	for (uint32_t i = 0;
	     (result == -ENOTCONN || (result < 0 && shared->refused)) && i < N_TRIES; i++)
		result = shmb_client_open(&options, &client);
	world_must(result, "connect");
	return client;
}

/* The same for one that has nothing but its connection. */
static struct shmb_channel *enter(struct shmb_client **client, bool state)
{
	struct shmb_channel *channel = NULL;
	int32_t result;

	for (uint32_t i = 0;; i++) {
		*client = arrive();
		result = world_try_open(*client, state, &channel);
		if (result == 0)
			return channel;
		if (!shared->refused || i == N_TRIES)
			world_must(result, "channel");
		world_must(shmb_client_close(*client), "close");
	}
}

static int32_t send_one(struct shmb_publisher *publisher, uint64_t number)
{
	struct world_record record = { number, world_mix(number) };
	int32_t result;

	shared->busy = 1;
	result = world_send(publisher, &record);
	shared->busy = 0;
	return result;
}

static int32_t receive_one(struct shmb_subscriber *subscriber)
{
	struct world_record record;
	int32_t result;

	shared->busy = 1;
	result = world_receive(subscriber, &record);
	shared->busy = 0;
	/* It was thrown out while it looked, and is told so with the next call. */
	if (result == -ESTALE && shared->outcast && world.blocks)
		return 0;
	if (result >= 0 && record.mixed != world_mix(record.number))
		step_fail(&step, "a zombie receives a torn record");
	return result == -EAGAIN ? 0 : result;
}

/* Returns false if the publisher or the subscriber was found to be thrown out. */
static bool talk(struct shmb_channel *channel)
{
	struct shmb_subscriber *subscriber = NULL;
	struct shmb_publisher *publisher = NULL;
	bool out = is_out(shmb_subscriber_open(channel, NULL, &subscriber), "subscribe");

	if (!out)
		out = is_out(shmb_publisher_open(channel, NULL, &publisher), "publish");
	for (uint64_t i = 0; !out && i < 3; i++) {
		out = is_out(send_one(publisher, i), "send");
		if (!out)
			out = is_out(receive_one(subscriber), "receive");
	}
	world_must(shmb_subscriber_close(subscriber), "close subscriber");
	world_must(shmb_publisher_close(publisher), "close publisher");
	return !out;
}

static int32_t put_one(struct shmb_publisher *publisher, uint32_t key, uint64_t number)
{
	struct world_record value = { number, world_mix(number) };
	int32_t result;

	shared->busy = 1;
	result = shmb_publisher_put(publisher, key, &value, sizeof(value));
	shared->busy = 0;
	if (result == 0)
		shared->value = number;
	return result;
}

static bool claim_and_put(struct shmb_publisher *publisher)
{
	int32_t key = shmb_publisher_claim(publisher, KEY, sizeof(KEY) - 1);
	bool out;

	/* Who was thrown out and begins anew may find that somebody else has it now. */
	if (shared->outcast && key == -EBUSY)
		return true;
	out = is_out(key, "claim");
	for (uint64_t i = 1; !out && i <= 3; i++)
		out = is_out(put_one(publisher, (uint32_t)key, i), "put");
	if (!out)
		out = is_out(shmb_publisher_disclaim(publisher, (uint32_t)key), "disclaim");
	return !out;
}

static bool keep_state(struct shmb_channel *channel)
{
	struct shmb_publisher *publisher = NULL;
	bool out = is_out(shmb_publisher_open(channel, NULL, &publisher), "publish");

	out = out || !claim_and_put(publisher);
	world_must(shmb_publisher_close(publisher), "close publisher");
	return !out;
}

static void be_victim(void *context)
{
	bool (*live)(struct shmb_channel * channel) =
		shared->part == PART_STATE ? keep_state : talk;
	struct shmb_channel *channel;
	struct shmb_client *client;

	(void)context;
	close_range(3, ~0u, 0);
	channel = enter(&client, shared->part == PART_STATE);
	/* It is thrown out once, so the second time it is not. */
	if (!live(channel) && !live(channel))
		step_fail(&step, "it is thrown out again");
	world_must(shmb_channel_close(channel), "close channel");
	world_must(shmb_client_close(client), "close client");
}

/* ---- where to stop ----------------------------------------------------------------------------- */

static void add_place(uint32_t n_syscalls, uint32_t n_instructions)
{
	if (n_places == N_PLACES_MAX)
		step_fail(&step, "too many places");
	places[n_places++] = (struct place){ n_syscalls, n_instructions };
}

/* From behind one system call to in front of the next, or to the end of patience. */
static void explore_window(uint32_t n_syscalls)
{
	world_watch_new(false);
	world_has_changed();
	for (uint32_t i = 1; i <= PATIENCE && !step_at_syscall(&step); i++) {
		bool busy = shared->busy, changed;

		if (!step_next(&step))
			break;
		changed = world_has_changed();
		if (changed && !busy)
			add_place(n_syscalls, i - 1);
		if (changed || busy)
			add_place(n_syscalls, i);
	}
}

static void explore(enum part part)
{
	uint32_t n_syscalls = 0;

	snprintf(step.scenario, sizeof(step.scenario), "exploring");
	n_places = 0;
	shared->part = part;
	step_begin(&step);
	while (step_syscall(&step)) {
		n_syscalls++;
		add_place(n_syscalls, 0);
		/* Every second stop is an exit. */
		if (n_syscalls % 2 == 0)
			explore_window(n_syscalls);
		world_exchange(1);
	}
	world_unwatch();
	printf("zombie-member: %s: %u system calls, %u places to stop\n", names[part],
	       n_syscalls / 2, n_places);
	fflush(stdout);
	if (n_syscalls < 60 || n_places < 500)
		step_fail(&step, "that cannot have been all");
}

/* Returns false if it ends before it comes there. */
static bool go(const struct place *place)
{
	bool running = true;

	step_begin(&step);
	for (uint32_t i = 0; running && i < place->n_syscalls; i++)
		running = step_syscall(&step);
	for (uint32_t i = 0; running && i < place->n_instructions && !step_at_syscall(&step); i++)
		running = step_next(&step);
	return running;
}

/* ---- what happens meanwhile -------------------------------------------------------------------- */

/* Who takes the place of the one that is thrown out, and sees that nobody disturbs it. */
static struct {
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_channel *state;
	struct shmb_subscriber *watcher;
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscriber;
	uint64_t n_sent;
	uint64_t n_received;
	uint64_t first; /* of the honest publisher's records that the subscriber must receive */
	uint32_t key;
} heir;

static void begin_heir(void)
{
	heir.client = world_connect();
	heir.channel = world_open_channel(heir.client);
	heir.state = world_open_state(heir.client);
	world_must(shmb_subscriber_open(heir.state, NULL, &heir.watcher), "watch");
}

static void end_heir(void)
{
	world_must(shmb_subscriber_close(heir.watcher), "close watcher");
	world_must(shmb_channel_close(heir.state), "close state");
	world_must(shmb_channel_close(heir.channel), "close channel");
	world_must(shmb_client_close(heir.client), "close client");
}

/* All that it sends comes, at once: nobody is in the way. */
static void heir_sends(uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct world_record record = { heir.n_sent, world_mix(heir.n_sent) };
		uint64_t before = world.n_strangers;

		world_must(shmb_publisher_send_wait(heir.publisher, &record, sizeof(record),
						    1000000000),
			   "send of the heir");
		heir.n_sent++;
		world_exchange(1);
		if (world.n_strangers != before + 1)
			step_fail(&step, "the heir's record %llu did not come",
				  (unsigned long long)heir.n_sent - 1);
	}
}

static void heir_receives(uint32_t n)
{
	struct world_record record;

	for (uint32_t i = 0; i < n; i++) {
		int32_t result;

		if (world_exchange(1) != 1)
			step_fail(&step, "somebody holds the publisher up");
		do
			result = shmb_subscriber_recv(heir.subscriber, &record, sizeof(record));
		while (result >= 0 &&
		       shmb_subscriber_view(heir.subscriber)->publisher_id != world.publisher_id);
		if (!heir.n_received++)
			heir.first = record.number;
		if (result != sizeof(record) || record.mixed != world_mix(record.number) ||
		    record.number != heir.first + heir.n_received - 1)
			step_fail(&step, "the heir receives %d, record %llu, not %llu", result,
				  (unsigned long long)record.number,
				  (unsigned long long)(heir.first + heir.n_received - 1));
	}
}

static void heir_puts(uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct world_record value = { heir.n_sent + 100, world_mix(heir.n_sent + 100) };
		struct world_record got = { 0 };

		world_must(shmb_publisher_put(heir.publisher, heir.key, &value, sizeof(value)),
			   "put of the heir");
		heir.n_sent++;
		world_must(shmb_subscriber_get(heir.watcher, heir.key, &got, sizeof(got)), "get");
		if (memcmp(&got, &value, sizeof(got)))
			step_fail(&step, "the heir's value %llu is %llu",
				  (unsigned long long)value.number, (unsigned long long)got.number);
	}
}

static void heir_works(enum part part, uint32_t n)
{
	world_exchange(heir.subscriber ? 0 : 1);
	if (heir.subscriber)
		heir_receives(n);
	else if (heir.publisher && part == PART_STATE)
		heir_puts(n);
	else if (heir.publisher)
		heir_sends(n);
}

static void heir_comes(enum part part, enum fate fate)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options) };

	heir.n_sent = heir.n_received = 0;
	if (fate == FATE_SUBSCRIBER_OUT)
		world_must(shmb_subscriber_open(heir.channel, &options, &heir.subscriber),
			   "heir subscribes");
	else
		world_must(shmb_publisher_open(part == PART_STATE ? heir.state : heir.channel, NULL,
					       &heir.publisher),
			   "heir publishes");
	if (part == PART_STATE)
		heir.key = (uint32_t)world_must(
			shmb_publisher_claim(heir.publisher, KEY, sizeof(KEY) - 1), "heir claims");
}

static void heir_goes(void)
{
	world_must(shmb_publisher_close(heir.publisher), "close the heir");
	world_must(shmb_subscriber_close(heir.subscriber), "close the heir");
	heir.publisher = NULL;
	heir.subscriber = NULL;
}

/* Returns false if there is nothing to throw out yet. */
static bool throw_out(enum part part, enum fate fate)
{
	bool done;

	if (part == PART_STREAM)
		return world_evict(fate == FATE_PUBLISHER_OUT);
	shmb_member_sync(shmb_subscriber_member(heir.watcher));
	done = world_evict_by(shmb_subscriber_member(heir.watcher), 0);
	world_must(shmb_client_ping(heir.client, 5000000000ll), "ping");
	return done;
}

/* Something that is no packet comes over its connection: the broker closes that. */
static void talk_nonsense(void)
{
	int pidfd = (int)syscall(SYS_pidfd_open, step.pid, 0);
	char path[64], target[64];
	struct dirent *entry;
	ssize_t len;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)step.pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		int fd;

		len = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
		if (len < 8 || strncmp(target, "socket:[", 8) != 0)
			continue;
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(entry->d_name), 0);
		if (fd < 0)
			step_fail(&step, "pidfd_getfd: %s", strerror(errno));
		send(fd, "nonsense", 8, MSG_DONTWAIT | MSG_NOSIGNAL);
		close(fd);
	}
	if (dir)
		closedir(dir);
	close(pidfd);
	world_ping();
}

/* Another broker takes the place of the one that is there, which ends when it notices. */
static void replace_broker(void)
{
	struct world_broker how = { .uring = true, .replace = true };
	uint64_t end = shmb_clock_now_ns() + 20000000000ull;
	pid_t old = world.broker_pid;

	world_start_broker(&how);
	world_ping();
	world_must(shmb_client_ping(heir.client, 5000000000ll), "ping");
	while (waitpid(old, NULL, WNOHANG) != old) {
		if (shmb_clock_now_ns() > end)
			step_fail(&step, "the broker that was replaced does not end");
		usleep(200);
	}
}

static enum fate choose_fate(enum part part, uint32_t i)
{
	static const enum fate stream[] = { FATE_PUBLISHER_OUT, FATE_SUBSCRIBER_OUT, FATE_HUNG_UP };
	static const enum fate state[] = { FATE_PUBLISHER_OUT, FATE_HUNG_UP };

	if (i % REPLACE_STRIDE == REPLACE_STRIDE - 1)
		return FATE_NEW_BROKER;
	return part == PART_STREAM ? stream[i % 3] : state[i % 2];
}

/* ---- one zombie -------------------------------------------------------------------------------- */

/* Who was not thrown out has done all that it wanted to do. */
static void check_complete(enum part part, uint64_t n_before)
{
	struct world_record got = { 0 };
	int32_t key;

	world_exchange(1);
	if (part == PART_STREAM) {
		if (world.n_strangers != n_before + 3)
			step_fail(&step, "%llu of its 3 records came",
				  (unsigned long long)(world.n_strangers - n_before));
		return;
	}
	key = world_must(shmb_subscriber_find(heir.watcher, KEY, sizeof(KEY) - 1), "find");
	world_must(shmb_subscriber_get(heir.watcher, (uint32_t)key, &got, sizeof(got)), "get");
	if (got.number != shared->value || got.mixed != world_mix(got.number))
		step_fail(&step, "its last value is %llu, not %llu", (unsigned long long)got.number,
			  (unsigned long long)shared->value);
}

static void play(enum part part, uint32_t i, const struct place *place)
{
	enum fate fate = choose_fate(part, i);
	uint64_t n_before = world.n_strangers;

	shared->outcast = shared->refused = shared->value = 0;
	snprintf(step.scenario, sizeof(step.scenario),
		 "%s, fate %u, system call stop %u, instruction %u", names[part], fate,
		 place->n_syscalls, place->n_instructions);
	if (!go(place))
		return;
	world_exchange(2);
	if (fate <= FATE_SUBSCRIBER_OUT && throw_out(part, fate)) {
		shared->outcast = 1;
		heir_comes(part, fate);
		heir_works(part, N_RECORDS);
	} else if (fate == FATE_NEW_BROKER) {
		replace_broker();
	} else {
		fate = FATE_HUNG_UP;
		shared->refused = 1;
		talk_nonsense();
	}
	if (getenv("SHMB_TEST_LOG"))
		fprintf(stderr, "%s, in fact fate %u\n", step.scenario, fate);
	world_exchange(2);
	step_finish(&step);
	heir_works(part, N_MANY);
	heir_goes();
	if (!shared->outcast)
		check_complete(part, n_before);
	world_wait_clean();
	world_check_registry();
	rows[part * N_FATES + fate].n[STEP_ZOMBIE]++;
}

static void run(enum part part, uint32_t stride)
{
	explore(part);
	world_wait_clean();
	/* Each place has each fate in the end. */
	for (uint32_t i = 0, n = 0; i < n_places; i += stride, n++)
		play(part, n, &places[i]);
}

int main(int argc, char **argv)
{
	bool quick = step_quick(argc, argv), all = argc > 1 && !strcmp(argv[1], "--all");
	const char *only = argc > 2 ? argv[2] : NULL;
	uint32_t stride = all ? 1 : quick ? 29 : 6;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		return EXIT_FAILURE;
	world_begin(&step);
	if (world.blocks && !all)
		stride *= BLOCKS_STRIDE;
	world_start_broker(&(struct world_broker){ .uring = true });
	world_open_pair();
	begin_heir();
	step_start(&step, be_victim, NULL);
	/* The first time it fills caches. */
	step_begin(&step);
	step_finish(&step);
	/* As a successor has it. */
	replace_broker();
	world_settle();
	for (enum part part = 0; part < N_PARTS; part++) {
		if ((only && strcmp(only, names[part])) || (world.blocks && part == PART_STATE))
			for (uint32_t i = 0; i < N_FATES; i++)
				rows[part * N_FATES + i].min[STEP_ZOMBIE] = 0;
		else
			run(part, stride);
	}
	step_kill(&step);
	end_heir();
	world_close_pair();
	world_stop_broker(world.broker_pid);
	world_end();
	printf("zombie-member: %llu records exchanged, clean within %llu us\n",
	       (unsigned long long)world.n_received, (unsigned long long)world.latest_ns / 1000);
	step_table("zombie-member", rows, N_PARTS * N_FATES, stride);
	return EXIT_SUCCESS;
}
