/* SPDX-License-Identifier: Apache-2.0 */

/*
 * shmb-scale: what a record and a wake-up cost, and what a member takes, as a channel or a wait set
 * grows. What should be near flat stands in columns of growing numbers. All handles that are not
 * woken from outside are in one process, so that lanes are measured and not the scheduler.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <shmbroker/shmbroker.h>

#define N_MAX	     4096
#define N_RECORDS    200000u
#define N_WAKES	     2000u
#define RECORD_LEN   56u
#define LANE_LEN     4096u
#define WAIT_NS	     (30 * 1000000000ll)
#define N_COLUMNS    5
#define ECHO_CHANNEL "scale/echo"

static char dir[] = "/tmp/shmb-scale.XXXXXX", address[64];
static pid_t broker;
static uint64_t instance;

/* One side of whatever is measured, and what it took to open. */
struct ends {
	struct shmb_client *client;
	struct shmb_channel *channels[N_MAX];
	struct shmb_publisher *publishers[N_MAX];
	struct shmb_subscriber *subscribers[N_MAX];
	uint32_t n_channels, n_publishers, n_subscribers;
};

struct usage {
	uint64_t shm_len;
	uint64_t broker_kb;
	uint32_t n_fds, n_maps;
	uint64_t ns;
};

static void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *format, ...)
{
	char why[256];
	va_list args;

	shmb_last_error(why, sizeof(why));
	va_start(args, format);
	fputs("scale: ", stderr);
	vfprintf(stderr, format, args);
	fprintf(stderr, " (%s)\n", why);
	va_end(args);
	exit(EXIT_FAILURE);
}

static void must(int32_t result, const char *what)
{
	if (result < 0)
		die("%s", what);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- the broker --------------------------------------------------------------------------------- */

static void stop_broker(void)
{
	char command[128];

	if (broker <= 0)
		return;
	kill(broker, SIGTERM);
	waitpid(broker, NULL, 0);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (system(command) != 0)
		fprintf(stderr, "scale: %s stays\n", dir);
}

static void start_broker(const char *program)
{
	char fd[16], text[17] = "", path[64];
	int ready[2], lock;

	if (!mkdtemp(dir) || pipe(ready) < 0)
		die("no directory");
	snprintf(address, sizeof(address), "%s/control.sock", dir);
	broker = fork();
	if (broker == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(fd, sizeof(fd), "%d", ready[1]);
		close(ready[0]);
		if (!getenv("SHMB_TEST_LOG"))
			dup2(open("/dev/null", O_WRONLY), 2);
		execl(program, program, "--user", "--idle-exit=0", "--directory", dir, "--ready-fd",
		      fd, NULL);
		_exit(127);
	}
	close(ready[1]);
	if (read(ready[0], text, 5) != 5)
		die("%s does not start", program);
	close(ready[0]);
	atexit(stop_broker);
	snprintf(path, sizeof(path), "%s/broker.lock", dir);
	lock = open(path, O_RDONLY);
	if (lock < 0 || read(lock, text, 16) != 16)
		die("no instance in %s", path);
	close(lock);
	instance = strtoull(text, NULL, 16);
}

/* ---- what is used ------------------------------------------------------------------------------- */

static uint32_t count_entries(const char *path)
{
	struct dirent *found;
	uint32_t n = 0;
	DIR *list = opendir(path);

	while (list && (found = readdir(list)))
		n += found->d_name[0] != '.';
	if (list)
		closedir(list);
	return n;
}

static uint32_t count_lines(const char *path)
{
	FILE *file = fopen(path, "re");
	uint32_t n = 0;
	int c;

	while (file && (c = getc(file)) != EOF)
		n += c == '\n';
	if (file)
		fclose(file);
	return n;
}

static uint64_t shm_len(void)
{
	char prefix[32], path[300];
	struct dirent *found;
	struct stat status;
	uint64_t len = 0;
	DIR *list = opendir("/dev/shm");

	snprintf(prefix, sizeof(prefix), "shmb.%016llx.", (unsigned long long)instance);
	while (list && (found = readdir(list))) {
		snprintf(path, sizeof(path), "/dev/shm/%s", found->d_name);
		if (!strncmp(found->d_name, prefix, strlen(prefix)) && stat(path, &status) == 0)
			len += (uint64_t)status.st_blocks * 512;
	}
	if (list)
		closedir(list);
	return len;
}

static struct usage measure(void)
{
	struct usage usage = { .shm_len = shm_len(),
			       .n_fds = count_entries("/proc/self/fd"),
			       .n_maps = count_lines("/proc/self/maps"),
			       .ns = now_ns() };
	unsigned long resident = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/statm", broker);
	file = fopen(path, "re");
	if (file && fscanf(file, "%*u %lu", &resident) == 1)
		usage.broker_kb = resident * (uint64_t)sysconf(_SC_PAGESIZE) / 1024;
	if (file)
		fclose(file);
	return usage;
}

/* What the table before has used may still be on its way back. */
static struct usage measure_settled(void)
{
	uint64_t before;

	do {
		before = shm_len();
		usleep(50000);
	} while (shm_len() != before);
	return measure();
}

/* ---- ends --------------------------------------------------------------------------------------- */

static void open_client(struct ends *ends)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .connect_timeout_ns = WAIT_NS,
					       .address = address,
					       .address_len = (uint32_t)strlen(address) };

	memset(ends, 0, sizeof(*ends));
	must(shmb_client_open(&options, &ends->client), "cannot connect");
}

static struct shmb_channel *add_channel(struct ends *ends, const char *name)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = LANE_LEN,
						.max_publishers = 1024,
						.max_subscribers = 1024 };
	struct shmb_channel **channel = &ends->channels[ends->n_channels++];

	/* A cursor has a slot for each publisher there may be. */
	if (strcmp(name, "scale/many") != 0)
		options.max_publishers = options.max_subscribers = 4;
	must(shmb_channel_open(ends->client, name, (uint32_t)strlen(name), &options, channel),
	     "cannot open a channel");
	return *channel;
}

static void add_publisher(struct ends *ends, struct shmb_channel *channel)
{
	must(shmb_publisher_open(channel, NULL, &ends->publishers[ends->n_publishers++]),
	     "cannot open a publisher");
}

static void add_subscriber(struct ends *ends, struct shmb_channel *channel)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options),
						   .flags = SHMB_SUBSCRIBER_NO_SPIN };

	must(shmb_subscriber_open(channel, &options, &ends->subscribers[ends->n_subscribers++]),
	     "cannot open a subscriber");
}

static void close_ends(struct ends *ends)
{
	for (uint32_t i = 0; i < ends->n_subscribers; i++)
		shmb_subscriber_close(ends->subscribers[i]);
	for (uint32_t i = 0; i < ends->n_publishers; i++)
		shmb_publisher_close(ends->publishers[i]);
	for (uint32_t i = 0; i < ends->n_channels; i++)
		shmb_channel_close(ends->channels[i]);
	shmb_client_close(ends->client);
}

static void send_one(struct shmb_publisher *publisher)
{
	char record[RECORD_LEN] = { 1 };

	must(shmb_publisher_send(publisher, record, sizeof(record)), "cannot send");
}

static void receive_one(struct shmb_subscriber *subscriber)
{
	char record[RECORD_LEN];

	must(shmb_subscriber_recv(subscriber, record, sizeof(record)), "cannot receive");
}

/* ---- somebody to be woken by ---------------------------------------------------------------------- */

/* Another process that answers each record on the echo channel with one on @name. */
static pid_t start_echo(const char *name)
{
	static struct ends ends;
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	open_client(&ends);
	add_subscriber(&ends, add_channel(&ends, ECHO_CHANNEL));
	add_publisher(&ends, add_channel(&ends, name));
	for (;;) {
		must(shmb_subscriber_wait(ends.subscribers[0], SHMB_FOREVER), "cannot wait");
		receive_one(ends.subscribers[0]);
		must(shmb_publisher_send_wait(ends.publishers[0], "echo", 5, WAIT_NS),
		     "cannot send");
	}
}

/* Another process that publishes on all channels but the first, and does nothing. */
static pid_t start_others(uint32_t n)
{
	static struct ends ends;
	char name[32];
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	open_client(&ends);
	for (uint32_t i = 1; i < n; i++) {
		snprintf(name, sizeof(name), "scale/%u", i);
		add_publisher(&ends, add_channel(&ends, name));
	}
	for (;;) {
		/* Take in who subscribes. */
		for (uint32_t i = 0; i < ends.n_publishers; i++)
			shmb_publisher_wait(ends.publishers[i], 1, 0);
		usleep(10000);
	}
}

static void stop_echo(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* Half of a round trip in which both sides sleep, in us: the median. */
static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, uint32_t n)
{
	qsort(values, n, sizeof(*values), compare);
	return values[n / 2];
}

static double measure_wakes(struct shmb_publisher *there, struct shmb_subscriber *back,
			    struct shmb_waitset *waitset)
{
	static double values[N_WAKES];
	struct shmb_ready ready;
	char record[RECORD_LEN];

	for (uint32_t i = 0; i < N_WAKES; i++) {
		uint64_t start = now_ns();

		send_one(there);
		do
			must(waitset ? shmb_waitset_wait(waitset, &ready, 1, WAIT_NS)
				     : shmb_subscriber_wait(back, WAIT_NS),
			     "not woken");
		while (shmb_subscriber_recv(back, record, sizeof(record)) == -EAGAIN);
		values[i] = (double)(now_ns() - start) / 2e3;
	}
	return median(values, N_WAKES);
}

/* ---- tables -------------------------------------------------------------------------------------- */

struct row {
	const char *name;
	double values[N_COLUMNS];
};

static void print_table(const char *title, const uint32_t *ns, uint32_t n, const struct row *rows,
			uint32_t n_rows)
{
	printf("\n%-44s", title);
	for (uint32_t i = 0; i < n; i++)
		printf("%10u", ns[i]);
	putchar('\n');
	for (uint32_t i = 0; i < n_rows; i++) {
		printf("  %-42s", rows[i].name);
		for (uint32_t j = 0; j < n; j++)
			printf("%10.1f", rows[i].values[j]);
		putchar('\n');
	}
	fflush(stdout);
}

static void set_usage(struct row *rows, uint32_t column, const struct usage *before, uint32_t n)
{
	struct usage after = measure();

	rows[0].values[column] = (double)(after.ns - before->ns) / n / 1e3;
	rows[1].values[column] = (double)(after.shm_len - before->shm_len) / n;
	rows[2].values[column] = (double)(after.broker_kb - before->broker_kb) * 1024 / n;
	rows[3].values[column] = (double)(after.n_fds - before->n_fds) / n;
	rows[4].values[column] = (double)(after.n_maps - before->n_maps) / n;
}

#define USAGE_ROWS(what)                                                              \
	{ .name = "open one " what ", us" }, { .name = "/dev/shm, bytes per " what }, \
		{ .name = "broker, bytes per " what }, { .name = "fds per " what },   \
	{                                                                             \
		.name = "mappings per " what                                          \
	}

/* ns of each of many rounds. */
static double time_rounds(struct ends *ends, uint32_t rounds,
			  void (*round)(struct ends *ends, uint32_t i))
{
	double best[5];

	for (int try = 0; try < 5; try++) {
		uint64_t start = now_ns();

		for (uint32_t i = 0; i < rounds; i++)
			round(ends, i);
		best[try] = (double)(now_ns() - start) / rounds;
	}
	return median(best, 5);
}

static void one_active(struct ends *ends, uint32_t i)
{
	(void)i;
	send_one(ends->publishers[0]);
	receive_one(ends->subscribers[0]);
}

static void all_active(struct ends *ends, uint32_t i)
{
	send_one(ends->publishers[i % ends->n_publishers]);
	receive_one(ends->subscribers[0]);
}

/* As much as fits into the lane, then all of it. */
static void burst(struct ends *ends, uint32_t i)
{
	(void)i;
	for (uint32_t j = 0; j < 32; j++)
		send_one(ends->publishers[0]);
	for (uint32_t j = 0; j < 32; j++)
		receive_one(ends->subscribers[0]);
}

static void look(struct ends *ends, uint32_t i)
{
	char record[RECORD_LEN];

	(void)i;
	shmb_subscriber_recv(ends->subscribers[0], record, sizeof(record));
}

static void measure_publishers(void)
{
	static const uint32_t ns[] = { 1, 16, 256, 1000 };
	static struct row rows[] = { USAGE_ROWS("publisher"),
				     { .name = "one of them active, ns per record" },
				     { .name = "the same, 32 at once, ns per record" },
				     { .name = "all of them active, ns per record" },
				     { .name = "a look that finds nothing, ns" },
				     { .name = "a wake-up, us" } };
	static struct ends ends;

	for (uint32_t c = 0; c < 4; c++) {
		struct shmb_channel *channel;
		struct usage before;
		pid_t echo;

		open_client(&ends);
		channel = add_channel(&ends, "scale/many");
		add_subscriber(&ends, channel);
		before = measure_settled();
		for (uint32_t i = 0; i < ns[c]; i++)
			add_publisher(&ends, channel);
		look(&ends, 0);
		send_one(ends.publishers[0]);
		receive_one(ends.subscribers[0]);
		set_usage(rows, c, &before, ns[c]);
		rows[5].values[c] = time_rounds(&ends, N_RECORDS, one_active);
		rows[6].values[c] = time_rounds(&ends, N_RECORDS / 32, burst) / 32;
		rows[7].values[c] = time_rounds(&ends, N_RECORDS, all_active);
		rows[8].values[c] = time_rounds(&ends, N_RECORDS, look);
		add_publisher(&ends, add_channel(&ends, ECHO_CHANNEL));
		echo = start_echo("scale/many");
		must(shmb_channel_wait_members(channel, ns[c] + 1, 1, WAIT_NS), "no echo");
		rows[9].values[c] =
			measure_wakes(ends.publishers[ns[c]], ends.subscribers[0], NULL);
		stop_echo(echo);
		close_ends(&ends);
	}
	print_table("publishers on one channel", ns, 4, rows, 10);
}

static void to_all(struct ends *ends, uint32_t i)
{
	(void)i;
	send_one(ends->publishers[0]);
	for (uint32_t j = 0; j < ends->n_subscribers; j++)
		receive_one(ends->subscribers[j]);
}

static void measure_subscribers(void)
{
	static const uint32_t ns[] = { 1, 16, 256 };
	static struct row rows[] = { USAGE_ROWS("subscriber"),
				     { .name = "ns per record and subscriber" } };
	static struct ends ends;

	for (uint32_t c = 0; c < 3; c++) {
		struct shmb_channel *channel;
		struct usage before;

		open_client(&ends);
		channel = add_channel(&ends, "scale/many");
		add_publisher(&ends, channel);
		before = measure_settled();
		for (uint32_t i = 0; i < ns[c]; i++)
			add_subscriber(&ends, channel);
		to_all(&ends, 0);
		set_usage(rows, c, &before, ns[c]);
		rows[5].values[c] = time_rounds(&ends, N_RECORDS / ns[c], to_all) / ns[c];
		close_ends(&ends);
	}
	print_table("subscribers on one channel", ns, 3, rows, 6);
}

static void measure_waitset(void)
{
	static const uint32_t ns[] = { 1, 16, 256, 1000, 4096 };
	static struct row rows[] = { USAGE_ROWS("lane"), { .name = "a wake-up, us" } };
	static struct ends ends;

	for (uint32_t c = 0; c < 5; c++) {
		struct shmb_waitset *waitset;
		struct shmb_publisher *there;
		struct shmb_channel *channel = NULL;
		struct shmb_ready ready;
		struct usage before;
		char name[32];
		pid_t echo, others;

		open_client(&ends);
		must(shmb_waitset_open(ends.client, &waitset), "no wait set");
		others = start_others(ns[c]);
		before = measure_settled();
		for (uint32_t i = 0; i < ns[c]; i++) {
			snprintf(name, sizeof(name), "scale/%u", i);
			channel = add_channel(&ends, name);
			add_subscriber(&ends, channel);
			must(shmb_waitset_add(waitset, ends.subscribers[i], i), "cannot add");
		}
		for (uint32_t i = 1; i < ns[c]; i++)
			must(shmb_channel_wait_members(ends.channels[i], 1, 1, WAIT_NS),
			     "no publisher");
		if (shmb_waitset_wait(waitset, &ready, 1, 0) != -ETIMEDOUT)
			die("something is ready");
		set_usage(rows, c, &before, ns[c]);
		must(shmb_channel_open(ends.client, ECHO_CHANNEL, strlen(ECHO_CHANNEL), NULL,
				       &channel),
		     "no echo channel");
		must(shmb_publisher_open(channel, NULL, &there), "no echo publisher");
		echo = start_echo("scale/0");
		must(shmb_channel_wait_members(ends.channels[0], 1, 1, WAIT_NS), "no echo");
		must(shmb_channel_wait_members(channel, 1, 1, WAIT_NS), "no echo");
		rows[5].values[c] = measure_wakes(there, ends.subscribers[0], waitset);
		stop_echo(echo);
		stop_echo(others);
		shmb_publisher_close(there);
		shmb_channel_close(channel);
		for (uint32_t i = 0; i < ns[c]; i++)
			shmb_waitset_remove(waitset, ends.subscribers[i]);
		shmb_waitset_close(waitset);
		close_ends(&ends);
	}
	print_table("channels in one wait set", ns, 5, rows, 6);
}

static int wanted(int argc, char **argv, const char *what)
{
	for (int i = 2; i < argc; i++)
		if (!strcmp(argv[i], what))
			return 1;
	return argc == 2;
}

int main(int argc, char **argv)
{
	struct rlimit limit;

	if (argc < 2) {
		fprintf(stderr, "usage: shmb-scale SHMBROKERD [publishers] [subscribers] "
				"[waitset]\n");
		return 2;
	}
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	start_broker(argv[1]);
	if (wanted(argc, argv, "publishers"))
		measure_publishers();
	if (wanted(argc, argv, "subscribers"))
		measure_subscribers();
	if (wanted(argc, argv, "waitset"))
		measure_waitset();
	return 0;
}
