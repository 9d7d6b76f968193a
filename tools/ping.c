/* SPDX-License-Identifier: Apache-2.0 */

/*
 * shmctl ping: how fast is this machine, and how close to it is shmbroker?
 *
 * Each number through the library stands next to the bare mechanism below it: a cache line that
 * two CPUs pass to and fro, and two processes that wake each other by futex. The difference is
 * what the library costs; the rest is the machine, its kernel and its hypervisor.
 */

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tools/command.h"
#include "tools/ping.h"
#include "tools/print.h"

#define SETTLE_NS 200000

enum {
	RAW_LINE,
	SPIN,
	RAW_FUTEX,
	SLEEP,
	CONTROL,
	N_PINGS,
};

uint64_t ping_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

void ping_settle(void)
{
	struct timespec settle = { .tv_nsec = SETTLE_NS };

	nanosleep(&settle, NULL);
}

void ping_pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* The first two CPUs that we may use. */
static void choose_cpus(struct ping_cpus *cpus)
{
	cpu_set_t set;

	cpus->parent = cpus->child = -1;
	if (sched_getaffinity(0, sizeof(set), &set) < 0 || CPU_COUNT(&set) < 2)
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE && cpus->child < 0; cpu++) {
		if (!CPU_ISSET(cpu, &set))
			continue;
		if (cpus->parent < 0)
			cpus->parent = cpu;
		else
			cpus->child = cpu;
	}
}

static int compare_samples(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	return a < b ? -1 : a > b;
}

static uint32_t percentile(const struct ping *ping, unsigned percent)
{
	return ping->samples[(uint64_t)(ping->n - 1) * percent / 100];
}

static void print_text(const struct ping *pings, const struct ping_cpus *cpus)
{
	static const char *const titles[] = {
		"ROUND TRIP", ">P50", ">P99", ">MIN", ">N", "MEANING"
	};
	static const unsigned percents[] = { 50, 99, 0 };
	struct table table;

	table_init(&table, titles, 6, false);
	for (int i = 0; i < N_PINGS; i++) {
		table_add(&table, "%s", pings[i].title);
		for (int k = 0; k < 3; k++) {
			if (pings[i].n == 0)
				table_add(&table, "-");
			else
				table_add(&table, "%.2f us",
					  percentile(&pings[i], percents[k]) / 1e3);
		}
		table_add(&table, "%" PRIu32, pings[i].n);
		table_add(&table, "%s", pings[i].meaning);
	}
	table_print(&table, stdout);
	table_deinit(&table);
	if (cpus->child < 0) {
		puts("\nOnly one CPU: polling is not measured, since it only takes the CPU from the "
		     "other side.");
		return;
	}
	printf("\nOn CPUs %d and %d. One way is about half of a round trip. A busy machine shows in P99, "
	       "and ends each measurement after 2 s.\n",
	       cpus->parent, cpus->child);
	if (pings[SLEEP].n && pings[RAW_FUTEX].n)
		printf("Sleeping through shmbroker costs %.2f times a bare futex; polling %.2f times a "
		       "bare cache line.\n",
		       (double)percentile(&pings[SLEEP], 50) / percentile(&pings[RAW_FUTEX], 50),
		       (double)percentile(&pings[SPIN], 50) / percentile(&pings[RAW_LINE], 50));
}

static int print_as_json(const struct ping *pings, const struct ping_cpus *cpus)
{
	json_t *root = json_object();

	for (int i = 0; i < N_PINGS; i++) {
		if (pings[i].n == 0)
			continue;
		json_object_set_new(root, pings[i].name,
				    json_pack("{s:i, s:i, s:i, s:i}", "n", (int)pings[i].n,
					      "p50_ns", (int)percentile(&pings[i], 50), "p99_ns",
					      (int)percentile(&pings[i], 99), "min_ns",
					      (int)percentile(&pings[i], 0)));
	}
	json_object_set_new(root, "cpus",
			    cpus->child < 0 ? json_pack("[]")
					    : json_pack("[i, i]", cpus->parent, cpus->child));
	return print_json(root, JSON_INDENT(2));
}

static int measure(struct ping *pings, uint32_t n, const struct ping_cpus *cpus)
{
	uint32_t n_slow = n / 10 ? n / 10 : 1; /* each of these takes many times longer */
	bool has_two = cpus->child >= 0;
	struct ping_peer *peer;
	int status;

	/* Connecting may start a broker, which must not inherit where we are pinned to. */
	if (ping_peer_start(&peer, cpus))
		return 1;
	ping_pin(cpus->parent);
	status = has_two ? ping_raw_line(&pings[RAW_LINE], n, cpus) : 0;
	if (!status)
		status = has_two ? ping_spin(&pings[SPIN], n, peer) : 0;
	if (!status)
		status = ping_raw_futex(&pings[RAW_FUTEX], n_slow, cpus);
	if (!status)
		status = ping_sleep(&pings[SLEEP], n_slow, peer);
	if (!status)
		status = ping_control(&pings[CONTROL], n_slow, peer);
	ping_peer_stop(peer);
	return status;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	uint32_t *n = state->input;

	switch (key) {
	case 'n':
		*n = command_number(state, "--count", arg, 10, 100000000);
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "ping takes no arguments");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int command_ping(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "count", 'n', "N", 0,
		  "Round trips of the fast kinds (default 20000); a tenth of the others", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.doc = "Measure round trips between two processes on this machine: bare cache line, "
		       "bare futex, shmbroker polling, shmbroker sleeping, and the broker's control "
		       "socket.\vIt uses channels of its own and disturbs no other.",
		.children = common_json_children,
		.help_filter = command_help_filter,
	};
	struct ping pings[N_PINGS] = {
		{ .name = "raw_line",
		  .title = "cache line",
		  .meaning = "two CPUs pass a line to and fro: the floor" },
		{ .name = "spin",
		  .title = "shmbroker, polling",
		  .meaning = "both sides poll: a 64-byte record each way" },
		{ .name = "raw_futex",
		  .title = "futex",
		  .meaning = "two processes wake each other: the kernel's floor" },
		{ .name = "sleep",
		  .title = "shmbroker, sleeping",
		  .meaning = "both sides sleep: a record and a wake-up each way" },
		{ .name = "control",
		  .title = "control socket",
		  .meaning = "the broker answers; never on the way of records" },
	};
	struct ping_cpus cpus;
	uint32_t n = 20000;
	int status = 1;

	argp_parse(&argp, argc, argv, 0, NULL, &n);
	choose_cpus(&cpus);
	for (int i = 0; i < N_PINGS; i++)
		pings[i].samples = calloc(n, sizeof(uint32_t));
	for (int i = 0; i < N_PINGS; i++) {
		if (!pings[i].samples) {
			complain("out of memory");
			goto out;
		}
	}
	if (measure(pings, n, &cpus))
		goto out;
	for (int i = 0; i < N_PINGS; i++)
		qsort(pings[i].samples, pings[i].n, sizeof(uint32_t), compare_samples);
	status = 0;
	if (common.is_json)
		status = print_as_json(pings, &cpus);
	else
		print_text(pings, &cpus);
out:
	for (int i = 0; i < N_PINGS; i++)
		free(pings[i].samples);
	return status;
}
