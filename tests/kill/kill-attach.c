/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if a client is killed while it comes or goes?
 *
 * A victim connects to a broker, opens a channel, subscribes, publishes, receives and closes all of
 * it again. It is killed in front of and behind each of its system calls, around each instruction
 * that changes shared memory, and at a sample of the others. Meanwhile an honest pair on the same
 * channel exchanges records, of which none may be lost, torn or late; and soon after each kill
 * nothing of the victim may be left in the broker: no shared memory, no registry entry, no fd.
 *
 * Where to kill is found by one run that is stepped slowly, with all segments under watch.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <shmbroker/shmbroker.h>

#include "daemon/registry.h"
#include "lib/client.h"
#include "lib/clock.h"

#include "tests/kill/step.h"

#define LANE_LEN     4096u
#define CHANNEL	     "test/kill"
#define N_PLACES_MAX 20000u
#define N_WATCHED    64u
#define WATCHED_LEN  (3u * 4096)
#define LATE_NS	     3000000000ull

struct record {
	uint64_t number;
	uint64_t mixed;
};

/* An instant: after so many stops at system calls, and so many instructions more. */
struct place {
	uint32_t n_syscalls;
	uint32_t n_instructions;
};

/* What exists of and in the broker. */
struct inventory {
	uint32_t n_segments;
	uint32_t n_entries;
	uint32_t n_fds;
};

struct watched {
	char name[256];
	const uint8_t *map;
	size_t len;
	uint8_t before[WATCHED_LEN];
};

static struct step_row row = { .name = "connect to close", .min = { [STEP_KILL] = 1200 } };
static struct step step;
static char address[128];
static pid_t broker_pid;
static int broker_fd;
static char prefix[SHMB_SEGMENT_NAME_LEN_MAX];
static char registry[SHMB_SEGMENT_NAME_LEN_MAX];
static struct inventory baseline;

static struct shmb_client *client;
static struct shmb_channel *channel;
static struct shmb_publisher *publisher;
static struct shmb_subscriber *subscriber;
static uint64_t n_sent, n_received, victim_next;

static struct place places[N_PLACES_MAX];
static uint32_t n_places;
static struct watched watched[N_WATCHED];
static uint32_t n_watched;

static uint64_t mix(uint64_t number)
{
	return (number + 1) * 0x9e3779b97f4a7c15ull;
}

static int32_t must(int32_t result, const char *what)
{
	char why[512] = "";

	if (result >= 0)
		return result;
	shmb_last_error(why, sizeof(why));
	step_fail(&step, "%s: %d: %s", what, result, why);
}

/* ---- the victim -------------------------------------------------------------------------------- */

static struct shmb_client *connect_client(void)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = address,
					       .address_len = (uint32_t)strlen(address) };
	struct shmb_client *connected = NULL;

	must(shmb_client_open(&options, &connected), "connect");
	return connected;
}

static struct shmb_channel *open_channel(struct shmb_client *of)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = LANE_LEN };
	struct shmb_channel *opened = NULL;

	must(shmb_channel_open(of, CHANNEL, strlen(CHANNEL), &options, &opened), "channel");
	return opened;
}

static void be_victim(void *context)
{
	struct shmb_client *own_client;
	struct shmb_channel *own_channel;
	struct shmb_publisher *own_publisher;
	struct shmb_subscriber *own_subscriber;
	struct record record;

	(void)context;
	close_range(3, ~0u, 0);
	own_client = connect_client();
	own_channel = open_channel(own_client);
	must(shmb_subscriber_open(own_channel, NULL, &own_subscriber), "subscribe");
	must(shmb_publisher_open(own_channel, NULL, &own_publisher), "publish");
	for (uint64_t i = 0; i < 3; i++) {
		record = (struct record){ i, mix(i) };
		must(shmb_publisher_send(own_publisher, &record, sizeof(record)), "send");
		shmb_subscriber_recv(own_subscriber, &record, sizeof(record));
	}
	must(shmb_subscriber_close(own_subscriber), "close subscriber");
	must(shmb_publisher_close(own_publisher), "close publisher");
	must(shmb_channel_close(own_channel), "close channel");
	must(shmb_client_close(own_client), "close client");
}

/* ---- the broker -------------------------------------------------------------------------------- */

static uint32_t count_files(const char *path, const char *begin)
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

/* A process of its own, so that the victim inherits nothing of it and its fds can be counted. */
static void serve(int fd)
{
	struct shmb_broker *broker = NULL;
	const char *at;
	char byte;

	must(shmb_broker_start(NULL, &broker), "broker");
	at = shmb_broker_address(broker);
	/* Then until the test ends, however it does. */
	if (write(fd, at, strlen(at)) > 0)
		while (read(fd, &byte, 1) < 0 && errno == EINTR)
			;
	shmb_broker_stop(broker);
	_exit(EXIT_SUCCESS);
}

static void start_broker(void)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		step_fail(&step, "socketpair: %s", strerror(errno));
	broker_pid = fork();
	if (broker_pid == 0) {
		close(fds[1]);
		serve(fds[0]);
	}
	close(fds[0]);
	broker_fd = fds[1];
	if (read(broker_fd, address, sizeof(address) - 1) <= 0)
		step_fail(&step, "the broker does not start");
}

static void stop_broker(void)
{
	close(broker_fd);
	waitpid(broker_pid, NULL, 0);
	if (access(address, F_OK) == 0 || count_files("/dev/shm", prefix))
		step_fail(&step, "the broker has left something behind");
}

static uint32_t count_entries(void)
{
	struct shmb_registry_entry entry;
	int fd = shm_open(registry, O_RDONLY, 0);
	uint32_t n = 0;

	for (off_t at = SHMB_BLOCK_LEN; pread(fd, &entry, sizeof(entry), at) == sizeof(entry);
	     at += (off_t)sizeof(entry))
		n += entry.state == SHMB_ENTRY_LIVE;
	close(fd);
	return n;
}

static struct inventory take_inventory(void)
{
	struct inventory inventory;
	char fds[32];

	snprintf(fds, sizeof(fds), "/proc/%d/fd", (int)broker_pid);
	inventory.n_segments = count_files("/dev/shm", prefix);
	inventory.n_entries = count_entries();
	inventory.n_fds = count_files(fds, "");
	return inventory;
}

/* ---- the honest pair --------------------------------------------------------------------------- */

/* The victim's own records come in order, too, from whichever victim. */
static void check_received(const struct record *record)
{
	uint64_t from = shmb_subscriber_view(subscriber)->publisher_id;

	if (record->mixed != mix(record->number))
		step_fail(&step, "a record is torn");
	if (from == shmb_publisher_view(publisher)->publisher_id) {
		if (record->number != n_received++)
			step_fail(&step, "record %llu came, not %llu",
				  (unsigned long long)record->number,
				  (unsigned long long)n_received - 1);
		return;
	}
	if (record->number && record->number != victim_next)
		step_fail(&step, "the victim's record %llu is not the next",
			  (unsigned long long)record->number);
	victim_next = record->number + 1;
}

static void receive_all(void)
{
	struct record record;
	int32_t result;

	while ((result = shmb_subscriber_recv(subscriber, &record, sizeof(record))) >= 0)
		check_received(&record);
	if (result != -EAGAIN)
		must(result, "receive");
}

/* Sends records, and receives them. Returns how many could be sent. */
static uint32_t exchange(uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct record record = { n_sent, mix(n_sent) };
		int32_t result = shmb_publisher_send(publisher, &record, sizeof(record));

		/* A victim that is not known to be dead yet may hold us up. */
		if (result == -EAGAIN)
			return i;
		must(result, "send");
		n_sent++;
		receive_all();
		if (n_received != n_sent)
			step_fail(&step, "record %llu did not come", (unsigned long long)n_sent);
	}
	return n;
}

static void open_pair(void)
{
	client = connect_client();
	channel = open_channel(client);
	must(shmb_publisher_open(channel, NULL, &publisher), "publisher");
	must(shmb_subscriber_open(channel, NULL, &subscriber), "subscriber");
	/* The name of each segment begins with the broker's instance. */
	registry_name(client->instance, registry);
	snprintf(prefix, sizeof(prefix), "%s", registry[0] == '/' ? registry + 1 : registry);
	strcpy(strrchr(prefix, '.'), ".");
	exchange(10);
}

static void close_pair(void)
{
	must(shmb_publisher_close(publisher), "close publisher");
	must(shmb_subscriber_close(subscriber), "close subscriber");
	must(shmb_channel_close(channel), "close channel");
	must(shmb_client_close(client), "close client");
}

static bool is_clean(void)
{
	struct shmb_subscriber_stats have = { 0 };
	struct shmb_publisher_stats own = { 0 };
	struct inventory now = take_inventory();

	receive_all();
	must(shmb_publisher_stats(publisher, &own, sizeof(own)), "stats");
	must(shmb_subscriber_stats(subscriber, &have, sizeof(have)), "stats");
	return !memcmp(&now, &baseline, sizeof(now)) && own.n_subscribers == 1 &&
	       have.n_publishers == 1;
}

/* Nothing of the victim is left, and the pair is not held up any more. Returns how long it took. */
static uint64_t wait_clean(void)
{
	uint64_t start = shmb_clock_now_ns(), took;

	do {
		exchange(4);
		took = shmb_clock_now_ns() - start;
		if (took > LATE_NS) {
			struct inventory now = take_inventory();

			step_fail(&step,
				  "left: %u segments, %u entries, %u fds; before: %u, %u, %u",
				  now.n_segments, now.n_entries, now.n_fds, baseline.n_segments,
				  baseline.n_entries, baseline.n_fds);
		}
	} while (!is_clean());
	/* More than once round the lane. */
	if (exchange(400) != 400)
		step_fail(&step, "the dead victim still holds the publisher up");
	return took;
}

/* ---- where to kill ----------------------------------------------------------------------------- */

static void add_place(uint32_t n_syscalls, uint32_t n_instructions)
{
	if (n_places == N_PLACES_MAX)
		step_fail(&step, "too many places");
	places[n_places++] = (struct place){ n_syscalls, n_instructions };
}

static bool is_watched(const char *name)
{
	for (uint32_t i = 0; i < n_watched; i++)
		if (!strcmp(watched[i].name, name))
			return true;
	return false;
}

static void watch(const char *name)
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
		if (segment->map != MAP_FAILED) {
			snprintf(segment->name, sizeof(segment->name), "%s", name);
			memcpy(segment->before, segment->map, segment->len);
			n_watched++;
		}
	}
	close(fd);
}

/* Segments that have come since; of the registry, only the broker's stores would be seen. */
static void watch_new(void)
{
	DIR *dir = opendir("/dev/shm");
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, prefix, strlen(prefix)) &&
		    strcmp(entry->d_name, registry + 1) && !is_watched(entry->d_name))
			watch(entry->d_name);
	if (dir)
		closedir(dir);
}

static bool has_changed(void)
{
	bool changed = false;

	for (uint32_t i = 0; i < n_watched; i++)
		if (memcmp(watched[i].before, watched[i].map, watched[i].len)) {
			memcpy(watched[i].before, watched[i].map, watched[i].len);
			changed = true;
		}
	return changed;
}

/*
 * Steps from behind one system call to in front of the next, or to the end of patience: between
 * them may be a key exchange. Returns how many instructions touched shared memory.
 */
static uint32_t explore_window(uint32_t n_syscalls, uint32_t patience, uint32_t stride)
{
	uint32_t n = 0;

	watch_new();
	has_changed();
	for (uint32_t i = 1; i <= patience && !step_at_syscall(&step); i++) {
		if (!step_next(&step))
			break;
		if (has_changed()) {
			add_place(n_syscalls, i - 1);
			add_place(n_syscalls, i);
			n++;
		} else if (i % stride == 0) {
			add_place(n_syscalls, i);
		}
	}
	return n;
}

static void explore(bool quick)
{
	uint32_t n_syscalls = 0, n_stores = 0;

	snprintf(step.scenario, sizeof(step.scenario), "exploring");
	step_start(&step, be_victim, NULL);
	step_begin(&step);
	while (step_syscall(&step)) {
		n_syscalls++;
		add_place(n_syscalls, 0);
		/* Every second stop is an exit. */
		if (n_syscalls % 2 == 0)
			n_stores += explore_window(n_syscalls, 3000, quick ? 150 : 101);
		exchange(1);
	}
	step_kill(&step);
	printf("kill-attach: %u system calls, %u stores to shared memory, %u places to kill\n",
	       n_syscalls / 2, n_stores, n_places);
	if (n_syscalls < 60 || (n_stores < 20 && !STEP_SANITIZED))
		step_fail(&step, "that cannot have been all");
	for (uint32_t i = 0; i < n_watched; i++)
		munmap((void *)(uintptr_t)watched[i].map, watched[i].len);
}

static void kill_at(struct place place)
{
	bool running = true;

	snprintf(step.scenario, sizeof(step.scenario), "system call stop %u, instruction %u",
		 place.n_syscalls, place.n_instructions);
	step_start(&step, be_victim, NULL);
	step_begin(&step);
	for (uint32_t i = 0; running && i < place.n_syscalls; i++)
		running = step_syscall(&step);
	for (uint32_t i = 0; running && i < place.n_instructions; i++)
		running = step_next(&step);
	exchange(1);
	step_kill(&step);
}

int main(int argc, char **argv)
{
	bool quick = step_quick(argc, argv);
	uint64_t took, longest = 0, start, slowest = 0;
	uint32_t n_kills = 0;

	start_broker();
	open_pair();
	baseline = take_inventory();
	explore(quick);
	wait_clean();
	for (uint32_t i = 0; i < n_places; i += quick ? 5 : 1) {
		start = shmb_clock_now_ns();
		kill_at(places[i]);
		if (shmb_clock_now_ns() - start > slowest)
			slowest = shmb_clock_now_ns() - start;
		took = wait_clean();
		longest = took > longest ? took : longest;
		n_kills++;
	}
	close_pair();
	stop_broker();
	printf("kill-attach: %u processes killed, %llu records exchanged, clean within %llu us, "
	       "slowest victim %llu us\n",
	       n_kills, (unsigned long long)n_received, (unsigned long long)longest / 1000,
	       (unsigned long long)slowest / 1000);
	row.n[STEP_KILL] = n_kills;
	step_table("kill-attach", &row, 1, quick ? 6 : 1);
	return EXIT_SUCCESS;
}
