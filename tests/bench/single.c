/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What one process does by itself: connect again and again, and then sleep with many subscribers
 * while its parent watches how much CPU it and the broker use for doing nothing.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ends.h"

#define N_CHANNELS    10u
#define N_SUBSCRIBERS 10u /* on each of them */

struct bench_single *bench_single;

const char *const bench_latency_names[BENCH_N_LATENCIES] = {
	"shmb_client_open()",
	"shmb_publisher_open()",
	"shmb_subscriber_open()",
};

static pid_t pid;
static int orders[2], answers[2];
static double idle_seconds;

static void must(int32_t result)
{
	if (result < 0)
		bench_die("%s", bench_last_error());
}

static struct shmb_client *open_client(void)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .flags = SHMB_CLIENT_NO_START,
					       .address = bench.address,
					       .address_len = (uint32_t)strlen(bench.address) };
	struct shmb_client *client;

	must(shmb_client_open(&options, &client));
	return client;
}

static struct shmb_channel *open_channel(struct shmb_client *client, uint32_t number)
{
	struct shmb_channel *channel;
	char name[32];

	snprintf(name, sizeof(name), "bench/single/%u", number);
	must(shmb_channel_open(client, name, (uint32_t)strlen(name), NULL, &channel));
	return channel;
}

static void connect_often(uint32_t n)
{
	double *ns[BENCH_N_LATENCIES];

	for (unsigned int i = 0; i < BENCH_N_LATENCIES; i++)
		ns[i] = calloc(n, sizeof(double));
	for (uint32_t i = 0; i < n; i++) {
		struct shmb_subscriber *subscriber;
		struct shmb_publisher *publisher;
		struct shmb_channel *channel;
		struct shmb_client *client;
		uint64_t at[5];

		at[0] = bench_now_ns();
		client = open_client();
		at[1] = bench_now_ns();
		channel = open_channel(client, 0);
		at[2] = bench_now_ns();
		must(shmb_publisher_open(channel, NULL, &publisher));
		at[3] = bench_now_ns();
		must(shmb_subscriber_open(channel, NULL, &subscriber));
		at[4] = bench_now_ns();
		ns[0][i] = (double)(at[1] - at[0]);
		ns[1][i] = (double)(at[3] - at[2]);
		ns[2][i] = (double)(at[4] - at[3]);
		must(shmb_subscriber_close(subscriber));
		must(shmb_publisher_close(publisher));
		must(shmb_channel_close(channel));
		must(shmb_client_close(client));
	}
	for (unsigned int i = 0; i < BENCH_N_LATENCIES; i++) {
		bench_single->latencies[i][0] = bench_percentile(ns[i], n, 0.5);
		bench_single->latencies[i][1] = bench_percentile(ns[i], n, 0.99);
		free(ns[i]);
	}
}

static struct shmb_waitset *subscribe(void)
{
	struct shmb_client *client = open_client();
	struct shmb_subscriber *subscriber;
	struct shmb_publisher *publisher;
	struct shmb_waitset *waitset;

	must(shmb_waitset_open(client, &waitset));
	for (uint32_t i = 0; i < N_CHANNELS; i++) {
		struct shmb_channel *channel = open_channel(client, i);

		must(shmb_publisher_open(channel, NULL, &publisher));
		for (uint32_t j = 0; j < N_SUBSCRIBERS; j++) {
			must(shmb_subscriber_open(channel, NULL, &subscriber));
			must(shmb_waitset_add(waitset, subscriber, i * N_SUBSCRIBERS + j));
		}
	}
	return waitset;
}

static void live(uint32_t n_connects)
{
	struct shmb_waitset *waitset;
	struct shmb_ready ready;
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (read(orders[0], &byte, 1) != 1)
		exit(EXIT_FAILURE);
	connect_often(n_connects);
	waitset = subscribe();
	if (write(answers[1], &byte, 1) != 1)
		exit(EXIT_FAILURE);
	for (;;)
		shmb_waitset_wait(waitset, &ready, 1, SHMB_FOREVER);
}

void bench_single_fork(uint32_t n_connects, double seconds)
{
	idle_seconds = seconds;
	bench_single = bench_share(sizeof(*bench_single));
	if (pipe(orders) < 0 || pipe(answers) < 0)
		bench_die("no pipes");
	pid = fork();
	if (pid < 0)
		bench_die("cannot fork");
	if (pid == 0)
		live(n_connects);
	close(answers[1]);
}

/* CPU time in ns that a process has used so far. */
static double cpu_ns(pid_t process)
{
	struct timespec used = { 0 };
	clockid_t clock;

	if (clock_getcpuclockid(process, &clock) == 0)
		clock_gettime(clock, &used);
	return (double)used.tv_sec * 1e9 + (double)used.tv_nsec;
}

/* What the broker, which is in this process, uses of a CPU, and what the other one does. */
static void watch(double *ret_broker, double *ret_other)
{
	struct timespec while_asleep = {
		.tv_sec = (time_t)idle_seconds,
		.tv_nsec = (long)((idle_seconds - (double)(time_t)idle_seconds) * 1e9)
	};
	double broker, other;

	usleep(300000); /* what came before has settled */
	broker = cpu_ns(getpid());
	other = cpu_ns(pid);
	nanosleep(&while_asleep, NULL);
	*ret_broker = (cpu_ns(getpid()) - broker) / (idle_seconds * 1e9);
	*ret_other = (cpu_ns(pid) - other) / (idle_seconds * 1e9);
}

void bench_single_run(void)
{
	double unused;
	char byte = 0;

	bench_single->seconds = idle_seconds;
	if (bench.address[0]) {
		watch(&bench_single->idle_broker, &unused);
		if (write(orders[1], &byte, 1) == 1 && read(answers[0], &byte, 1) == 1) {
			watch(&bench_single->busy_broker, &bench_single->idle_subscribers);
			bench_single->valid = true;
		}
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}
