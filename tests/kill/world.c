/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/kill/world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/broker.h"
#include "daemon/keeper.h"
#include "daemon/registry.h"
#include "daemon/store.h"
#include "lib/client.h"
#include "lib/clock.h"
#include "lib/member.h"
#include "lib/runtime.h"
#include "lib/subscriber.h"

#define LANE_LEN    4096u
#define N_HISTORY   4u
#define CHANNEL	    "test/kill"
#define N_WATCHED   64u
#define WATCHED_LEN (3u * 4096)
#define LATE_NS	    10000000000ull
#define START_NS    150000000000ull
/* A channel whose opener died together with the broker is soon gone, too. */
#define AWAY_NS	    5000000000ull
#define N_KEYS	    4u
#define N_STRANGERS 8u
/* More than its lane can name at once, in one segment. */
#define ARENA_LEN (257u * SHMB_ARENA_PAGE_LEN)
#define SEND_NS	  20000000000ll
/* How long a keeper waits for a broker although everybody has gone. */
#define LINGER_MS 5000

struct watched {
	char name[256];
	const uint8_t *map;
	size_t len;
	uint8_t before[WATCHED_LEN];
};

struct world world;

static char directory[] = "/tmp/shmb-kill-XXXXXX";
static int stop_fd = -1;
static struct broker *broker;
static pid_t own_pid;
static char prefix[SHMB_SEGMENT_NAME_LEN_MAX];
static char registry[SHMB_SEGMENT_NAME_LEN_MAX];
static struct inventory baseline;
static struct shmb_client *client;
static struct shmb_channel *channel;
static struct shmb_publisher *publisher;
static struct shmb_subscriber *subscriber;
static uint64_t n_sent;
static struct {
	uint64_t id;
	uint64_t next;
} strangers[N_STRANGERS];
static uint32_t *started; /* shared with a broker that is not stepped */
static struct watched watched[N_WATCHED];
static uint32_t n_watched;

uint64_t world_mix(uint64_t number)
{
	return (number + 1) * 0x9e3779b97f4a7c15ull;
}

int32_t world_must(int32_t result, const char *what)
{
	char why[512] = "";

	if (result >= 0)
		return result;
	shmb_last_error(why, sizeof(why));
	step_fail(world.step, "%s: %d: %s", what, result, why);
}

struct shmb_client *world_connect(void)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = world.address,
					       .address_len = (uint32_t)strlen(world.address),
					       .connect_timeout_ns = 60000000000 };
	struct shmb_client *connected = NULL;

	world_must(shmb_client_open(&options, &connected), "connect");
	return connected;
}

static int32_t open_stream(struct shmb_client *of, const char *name, uint32_t backing,
			   struct shmb_channel **ret_channel)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = LANE_LEN,
						.history = N_HISTORY,
						.backing = backing };

	if (world.blocks) {
		options.record_len_max = SHMB_ARENA_PAGE_LEN;
		options.inline_len_max = 1;
		options.arena_len = ARENA_LEN;
	}
	return shmb_channel_open(of, name, (uint32_t)strlen(name), &options, ret_channel);
}

int32_t world_try_open(struct shmb_client *of, bool state, struct shmb_channel **ret_channel)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_STATE,
						.max_keys = N_KEYS,
						.value_len = sizeof(struct world_record) };

	if (!state)
		return open_stream(of, CHANNEL, SHMB_BACKING_AUTO, ret_channel);
	return shmb_channel_open(of, CHANNEL "/state", strlen(CHANNEL "/state"), &options,
				 ret_channel);
}

struct shmb_channel *world_open_channel(struct shmb_client *of)
{
	struct shmb_channel *opened = NULL;

	world_must(world_try_open(of, false, &opened), "channel");
	return opened;
}

struct shmb_channel *world_open_state(struct shmb_client *of)
{
	struct shmb_channel *opened = NULL;

	world_must(world_try_open(of, true, &opened), "state channel");
	return opened;
}

struct shmb_channel *world_open_sealed(struct shmb_client *of)
{
	struct shmb_channel *opened = NULL;

	world_must(open_stream(of, CHANNEL "/sealed", SHMB_BACKING_SEALED, &opened),
		   "sealed channel");
	return opened;
}

struct shmb_channel *world_open_apart(struct shmb_client *of)
{
	struct shmb_channel *opened = NULL;

	world_must(open_stream(of, CHANNEL "/apart", SHMB_BACKING_POSIX, &opened),
		   "channel, apart");
	return opened;
}

struct shmb_channel *world_open_work(struct shmb_client *of)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_QUEUE,
						.lane_len = 4096,
						.max_publishers = 4,
						.backing = SHMB_BACKING_POSIX };
	static const char name[] = CHANNEL "/work";
	struct shmb_channel *opened = NULL;

	world_must(shmb_channel_open(of, name, sizeof(name) - 1, &options, &opened), "queue");
	return opened;
}

int32_t world_send(struct shmb_publisher *to, const struct world_record *record)
{
	if (!world.blocks)
		return shmb_publisher_send(to, record, sizeof(*record));
	/* The first one takes a broker. */
	return shmb_publisher_send_wait(to, record, sizeof(*record), SEND_NS);
}

int32_t world_receive(struct shmb_subscriber *from, struct world_record *record)
{
	int32_t result, hold;

	if (!world.blocks)
		return shmb_subscriber_recv(from, record, sizeof(*record));
	result = shmb_subscriber_peek(from, 1);
	if (result < 0)
		return result;
	hold = shmb_subscriber_hold(from);
	if (hold < 0)
		return hold;
	memcpy(record, (const void *)(uintptr_t)shmb_subscriber_view(from)->data, sizeof(*record));
	result = shmb_subscriber_unhold(from, (uint32_t)hold);
	return result < 0 ? result : (int32_t)sizeof(*record);
}

/* ---- the broker -------------------------------------------------------------------------------- */

static const char *const files[] = { SHMB_PRIVATE_FILE, SHMB_PUBLIC_FILE, SHMB_LOCK_FILE,
				     SHMB_SOCKET_FILE };

static void remove_files(void)
{
	char path[128];

	for (uint32_t i = 0; i < SHMB_ARRAY_LEN(files); i++) {
		snprintf(path, sizeof(path), "%s/%s", directory, files[i]);
		unlink(path);
	}
}

/* A test that fails leaves nothing behind either. */
static void clean_up(void)
{
	DIR *dir = opendir("/dev/shm");
	struct dirent *entry;
	char path[300];

	if (getpid() != own_pid)
		return;
	if (world.broker_pid > 0)
		kill(world.broker_pid, SIGKILL);
	while (dir && prefix[0] && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/dev/shm/%s", entry->d_name);
		if (!strncmp(entry->d_name, prefix, strlen(prefix)))
			unlink(path);
	}
	if (dir)
		closedir(dir);
	remove_files();
	rmdir(directory);
}

void world_begin(struct step *step)
{
	world.step = step;
	world.n_members = 1;
	world.blocks = getenv("SHMB_TEST_BLOCKS") != NULL;
	own_pid = getpid();
	stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (stop_fd < 0 || !mkdtemp(directory))
		step_fail(step, "no place: %s", strerror(errno));
	atexit(clean_up);
	started = mmap(NULL, sizeof(*started), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (started == MAP_FAILED)
		step_fail(step, "mmap: %s", strerror(errno));
	snprintf(world.address, sizeof(world.address), "%s/" SHMB_SOCKET_FILE, directory);
}

static void on_stop(void *data)
{
	(void)data;
	loop_stop(broker->loop, 0);
}

void world_be_keeper(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], KEEPER_OPTION))
		exit(keeper_main(argv[2], LINGER_MS));
}

void world_serve(void *context)
{
	static struct policy policy = { .single_user = true };
	static struct store store;
	const struct world_broker *how = context;
	int log_fd = getenv("SHMB_TEST_LOG") ? STDERR_FILENO : -1;
	struct broker_config config = {
		.directory = directory,
		.socket_mode = 0600,
		.listen_fd = -1,
		.backend = how->uring ? LOOP_AUTO : LOOP_EPOLL,
		.remove_all = true,
		.policy = &policy,
		.replace = how->replace,
		.replace_ns = how->replace ? 1 : 0, /* it never goes by itself */
		.store = how->keeper ? &store : NULL,
		.keeper = how->keeper ? "/proc/self/exe" : NULL,
		.away_ns = AWAY_NS,
		.log = { .fd = log_fd },
	};
	struct loop_watch *watch;
	int result;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (how->keeper)
		signal(SIGCHLD, SIG_IGN);
	if (broker) {
		result = broker_run(broker);
		/* It was stopped, and another one has taken its place. */
		if (result != -ESTALE)
			world_must(result, "the broker runs");
		broker_free(broker);
		_exit(EXIT_SUCCESS);
	}
	/* Of the process that started it, it needs nothing else. */
	if (stop_fd != 3)
		dup2(stop_fd, 3);
	stop_fd = 3;
	close_range(4, ~0u, 0);
	policy.uid = geteuid();
	quota_limits_user(&config.limits);
	result = broker_new(&config, &broker);
	/* -ENOENT: the other one has put the file in place that this one was about to put there. */
	if (how->late && (result == -ESTALE || result == -EADDRINUSE || result == -ENOENT))
		_exit(EXIT_SUCCESS);
	world_must(result, "the broker starts");
	world_must(loop_watch(broker->loop, stop_fd, true, on_stop, NULL, &watch), "watch");
}

bool world_serves(void)
{
	return broker != NULL;
}

/*
 * On a busy machine a key exchange may take longer than the broker's patience: then it is tried
 * again. What went wrong last is said.
 */
static void await_service(uint64_t end)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = world.address,
					       .address_len = (uint32_t)strlen(world.address) };
	struct shmb_client *first = NULL;
	int32_t result;

	while ((result = shmb_client_open(&options, &first)) < 0)
		if (shmb_clock_now_ns() > end || usleep(20000) < 0)
			world_must(result, "the broker has started, but does not serve");
	world_must(shmb_client_close(first), "close");
}

void world_start_broker(const struct world_broker *how)
{
	uint64_t end = shmb_clock_now_ns() + START_NS;
	struct world_broker own = *how;
	int status;

	fflush(NULL);
	__atomic_store_n(started, 0, __ATOMIC_RELAXED);
	world.broker_pid = fork();
	if (world.broker_pid == 0) {
		world_serve(&own);
		__atomic_store_n(started, 1, __ATOMIC_RELEASE);
		world_serve(&own);
	}
	while (!__atomic_load_n(started, __ATOMIC_ACQUIRE)) {
		if (waitpid(world.broker_pid, &status, WNOHANG) != 0)
			step_fail(world.step, "the broker ended with status 0x%x while it started",
				  (unsigned int)status);
		if (shmb_clock_now_ns() > end || usleep(200) < 0)
			step_fail(world.step, "the broker is not ready after %llu s",
				  (unsigned long long)START_NS / 1000000000);
	}
	await_service(end);
}

void world_stop_broker(pid_t pid)
{
	int status;

	eventfd_write(stop_fd, 1);
	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status))
		kill(pid, SIGKILL); /* traced: only for a reason that it must not have */
	if (!WIFEXITED(status) || WEXITSTATUS(status) || access(world.address, F_OK) == 0 ||
	    world_count_files("/dev/shm", prefix))
		step_fail(world.step, "the broker has left something behind: %d, status 0x%x",
			  world_count_files("/dev/shm", prefix), (unsigned int)status);
}

void world_end(void)
{
	remove_files();
	world.broker_pid = 0;
	if (rmdir(directory) < 0)
		step_fail(world.step, "%s: %s", directory, strerror(errno));
}

uint32_t world_count_files(const char *path, const char *begin)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	uint32_t n = 0;

	while (dir && (entry = readdir(dir)))
		n += !strncmp(entry->d_name, begin, strlen(begin));
	if (dir)
		closedir(dir);
	return n;
}

/* Calls @visit for each. Returns how many there are. */
static uint32_t for_each_entry(void (*visit)(const struct shmb_registry_entry *entry, int fd,
					     off_t at))
{
	struct shmb_registry_entry entry;
	int fd = shm_open(registry, O_RDONLY, 0);
	uint32_t n = 0;

	for (off_t at = SHMB_BLOCK_LEN; pread(fd, &entry, sizeof(entry), at) == sizeof(entry);
	     at += (off_t)sizeof(entry)) {
		if (entry.state != SHMB_ENTRY_LIVE)
			continue;
		n++;
		if (visit)
			visit(&entry, fd, at);
	}
	close(fd);
	return n;
}

/* A channel's is written before anybody hears of it. */
static bool is_channel(int fd, const struct shmb_registry_entry *entry)
{
	struct shmb_channel_segment head;

	return pread(fd, &head, sizeof(head), 0) == sizeof(head) && head.channel_id == entry->id &&
	       head.pattern == entry->pattern && head.lane_len == entry->lane_len &&
	       head.schema_len == entry->schema_len && head.name_len == entry->name_len &&
	       !memcmp(head.name, entry->name, entry->name_len);
}

/* What is wrong with its segment, or NULL. */
static const char *find_fault(const struct shmb_registry_entry *entry)
{
	uint64_t id = entry->segment_id ? entry->segment_id : entry->id;
	struct shmb_segment_header header;
	struct stat stat;
	bool whole;
	int fd;

	/* A memfd goes with its broker. */
	if (entry->segment[0] != '/')
		return NULL;
	fd = shm_open((const char *)entry->segment, O_RDONLY, 0);
	if (fd < 0)
		return "has no segment";
	whole = fstat(fd, &stat) == 0 && (uint64_t)stat.st_size == entry->segment_len &&
		pread(fd, &header, sizeof(header), 0) == sizeof(header) &&
		header.magic == SHMB_SEGMENT_MAGIC && header.segment_id == id &&
		(entry->kind != SHMB_ENTRY_CHANNEL || is_channel(fd, entry));
	close(fd);
	return whole ? NULL : "has a segment that is not finished";
}

static void check_entry(const struct shmb_registry_entry *entry, int fd, off_t at)
{
	const char *fault = find_fault(entry);
	struct shmb_registry_entry again;

	/* A broker that runs may have removed both, the entry first. */
	if (!fault || pread(fd, &again, sizeof(again), at) != sizeof(again) ||
	    again.state != SHMB_ENTRY_LIVE || again.id != entry->id)
		return;
	step_fail(world.step, "entry %llu of kind %u %s", (unsigned long long)entry->id,
		  entry->kind, fault);
}

void world_check_registry(void)
{
	for_each_entry(check_entry);
}

static bool keeper_found;

static void look_for_keeper(const struct shmb_registry_entry *entry, int fd, off_t at)
{
	(void)fd;
	(void)at;
	keeper_found |= entry->kind == SHMB_ENTRY_KEEPER;
}

bool world_has_keeper(void)
{
	keeper_found = false;
	for_each_entry(look_for_keeper);
	return keeper_found;
}

static struct inventory take_inventory(void)
{
	struct inventory inventory;
	char fds[32];

	snprintf(fds, sizeof(fds), "/proc/%d/fd", (int)world.broker_pid);
	inventory.n_segments = world_count_files("/dev/shm", prefix);
	inventory.n_entries = for_each_entry(NULL);
	inventory.n_fds = world_count_files(fds, "");
	return inventory;
}

/* ---- the honest pair --------------------------------------------------------------------------- */

/* The records of each stranger come in order, too. */
static void check_stranger(uint64_t from, uint64_t number)
{
	static uint32_t turn;
	uint32_t i = 0;

	while (i < N_STRANGERS && strangers[i].id != from)
		i++;
	if (i == N_STRANGERS) {
		i = turn++ % N_STRANGERS;
		strangers[i].id = from;
		strangers[i].next = 0;
	}
	if (number != strangers[i].next)
		step_fail(world.step, "the stranger's record %llu is not the next",
			  (unsigned long long)number);
	strangers[i].next++;
	world.n_strangers++;
}

static void check_received(const struct world_record *record)
{
	uint64_t from = shmb_subscriber_view(subscriber)->publisher_id;

	if (record->mixed != world_mix(record->number))
		step_fail(world.step, "a record is torn");
	if (from == world.publisher_id) {
		if (record->number != world.n_received++)
			step_fail(world.step, "record %llu came, not %llu",
				  (unsigned long long)record->number,
				  (unsigned long long)world.n_received - 1);
		return;
	}
	check_stranger(from, record->number);
}

static void receive_all(void)
{
	struct world_record record;
	int32_t result;

	while ((result = shmb_subscriber_recv(subscriber, &record, sizeof(record))) >= 0)
		check_received(&record);
	if (result != -EAGAIN)
		world_must(result, "receive");
}

/* Sends records, and receives them. Returns how many could be sent. */
uint32_t world_exchange(uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct world_record record = { n_sent, world_mix(n_sent) };
		int32_t result = shmb_publisher_send(publisher, &record, sizeof(record));

		/* One that is not known to be dead yet may hold us up. */
		if (result == -EAGAIN)
			return i;
		world_must(result, "send");
		n_sent++;
		receive_all();
		if (world.n_received != n_sent)
			step_fail(world.step, "record %llu did not come",
				  (unsigned long long)n_sent);
	}
	return n;
}

void world_open_pair(void)
{
	client = world_connect();
	channel = world_open_channel(client);
	world_must(shmb_publisher_open(channel, NULL, &publisher), "publisher");
	world_must(shmb_subscriber_open(channel, NULL, &subscriber), "subscriber");
	world.publisher_id = shmb_publisher_view(publisher)->publisher_id;
	/* The name of each segment begins with the broker's instance. */
	registry_name(client->instance, registry);
	snprintf(prefix, sizeof(prefix), "%s", registry[0] == '/' ? registry + 1 : registry);
	strcpy(strrchr(prefix, '.'), ".");
	world_exchange(10);
}

bool world_evict_by(struct shmb_member *accuser, uint64_t spared_id)
{
	uint64_t pair = 0;

	for (uint32_t i = 0; i < accuser->inbox.n_pairs; i++)
		if (accuser->inbox.pairs[i].peer_id != spared_id)
			pair = accuser->inbox.pairs[i].id;
	if (!pair)
		return false;
	shmb_member_report(accuser, pair, EBADMSG);
	return true;
}

bool world_evict(bool a_publisher)
{
	/* It is the first thing in both. */
	struct shmb_member *own = (struct shmb_member *)(void *)publisher;
	bool done;

	shmb_subscriber_ready(subscriber);
	world_exchange(1);
	if (a_publisher)
		done = world_evict_by(shmb_subscriber_member(subscriber), own->id);
	else
		done = world_evict_by(own, shmb_subscriber_member(subscriber)->id);
	world_ping();
	return done;
}

void world_close_pair(void)
{
	world_must(shmb_publisher_close(publisher), "close publisher");
	world_must(shmb_subscriber_close(subscriber), "close subscriber");
	world_must(shmb_channel_close(channel), "close channel");
	world_must(shmb_client_close(client), "close client");
}

static bool is_clean(void)
{
	struct shmb_subscriber_stats have = { 0 };
	struct shmb_publisher_stats own = { 0 };
	struct inventory now = take_inventory();

	receive_all();
	world_must(shmb_publisher_stats(publisher, &own, sizeof(own)), "stats");
	world_must(shmb_subscriber_stats(subscriber, &have, sizeof(have)), "stats");
	return !memcmp(&now, &baseline, sizeof(now)) && own.n_subscribers == world.n_members &&
	       have.n_publishers == world.n_members && own.n_held == 0;
}

/* For whoever has to find out. */
static void print_fds(void)
{
	char path[64], target[128];
	ssize_t len;

	for (int fd = 0; fd < 100; fd++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)world.broker_pid, fd);
		len = readlink(path, target, sizeof(target) - 1);
		if (len > 0)
			fprintf(stderr, "fd %d: %.*s\n", fd, (int)len, target);
	}
}

/* Nothing of the victim is left, and the pair is not held up any more. Returns how long it took. */
uint64_t world_wait_clean(void)
{
	uint64_t start = shmb_clock_now_ns(), took;

	do {
		world_exchange(4);
		took = shmb_clock_now_ns() - start;
		if (took > LATE_NS) {
			struct shmb_subscriber_stats have = { 0 };
			struct shmb_publisher_stats own = { 0 };
			struct inventory now = take_inventory();

			print_fds();
			shmb_publisher_stats(publisher, &own, sizeof(own));
			shmb_subscriber_stats(subscriber, &have, sizeof(have));
			step_fail(world.step,
				  "left: %u segments, %u entries, %u fds; before: %u, %u, %u; the "
				  "publisher knows %u and the subscriber %u of %u; %u blocks held",
				  now.n_segments, now.n_entries, now.n_fds, baseline.n_segments,
				  baseline.n_entries, baseline.n_fds, own.n_subscribers,
				  have.n_publishers, world.n_members, own.n_held);
		}
	} while (!is_clean());
	/* More than once round the lane. */
	if (world_exchange(400) != 400)
		step_fail(world.step, "the dead still holds the publisher up");
	if (took > world.latest_ns)
		world.latest_ns = took;
	return took;
}

/* ---- what changes ------------------------------------------------------------------------------ */

static bool is_watched(const char *name)
{
	for (uint32_t i = 0; i < n_watched; i++)
		if (!strcmp(watched[i].name, name))
			return true;
	return false;
}

/* Those of clients change without it. Bells are written by either. */
static bool is_by_broker(const uint8_t *map)
{
	uint32_t kind = ((const struct shmb_segment_header *)(const void *)map)->kind;

	return kind == SHMB_SEGMENT_REGISTRY || kind == SHMB_SEGMENT_CHANNEL ||
	       kind == SHMB_SEGMENT_BELL;
}

static void watch(const char *name, bool by_broker)
{
	struct watched *segment = &watched[n_watched];
	struct stat stat;
	int fd = shm_open(name, O_RDONLY, 0);

	if (fd < 0)
		return; /* it has gone meanwhile */
	if (fstat(fd, &stat) == 0 && stat.st_size > 0 && n_watched < N_WATCHED) {
		segment->len =
			(size_t)stat.st_size < WATCHED_LEN ? (size_t)stat.st_size : WATCHED_LEN;
		segment->map = mmap(NULL, segment->len, PROT_READ, MAP_SHARED, fd, 0);
		if (segment->map != MAP_FAILED && !(by_broker && !is_by_broker(segment->map))) {
			snprintf(segment->name, sizeof(segment->name), "%s", name);
			memcpy(segment->before, segment->map, segment->len);
			n_watched++;
		}
	}
	close(fd);
}

/* Segments that have come since; of the registry, only the broker's stores would be seen. */
void world_watch_new(bool by_broker)
{
	DIR *dir = opendir("/dev/shm");
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, prefix, strlen(prefix)) &&
		    (by_broker || strcmp(entry->d_name, registry + 1)) &&
		    !is_watched(entry->d_name))
			watch(entry->d_name, by_broker);
	if (dir)
		closedir(dir);
}

bool world_has_changed(void)
{
	bool changed = false;

	for (uint32_t i = 0; i < n_watched; i++)
		if (memcmp(watched[i].before, watched[i].map, watched[i].len)) {
			memcpy(watched[i].before, watched[i].map, watched[i].len);
			changed = true;
		}
	return changed;
}

void world_unwatch(void)
{
	for (uint32_t i = 0; i < n_watched; i++)
		munmap((void *)(uintptr_t)watched[i].map, watched[i].len);
	n_watched = 0;
}

void world_take_baseline(void)
{
	baseline = take_inventory();
}

void world_ping(void)
{
	world_must(shmb_client_ping(client, 5000000000ll), "ping");
}

void world_settle(void)
{
	struct inventory before;

	do {
		before = baseline;
		for (int i = 0; i < 50; i++) {
			world_exchange(4);
			usleep(2000);
		}
		world_take_baseline();
	} while (memcmp(&before, &baseline, sizeof(before)));
}
