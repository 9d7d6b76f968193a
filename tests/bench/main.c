/* SPDX-License-Identifier: Apache-2.0 */

/*
 * shmb-bench: how fast lanes are on this machine, next to what the machine can do and to what
 * others do. Run it by "make bench"; it wants the machine for itself.
 */

#include <argp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <shmbroker/shmbroker.h>

#include "bench.h"

struct bench_suite bench;

const uint32_t bench_stream_sizes[6] = { 8, 56, 248, 1016, 16384, 1048576 };
const uint32_t bench_rtt_sizes[2] = { 8, 64 };

void bench_die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("bench: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(EXIT_FAILURE);
}

int bench_skip(struct bench_workload *work, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(work->skipped, BENCH_NAME_LEN_MAX * 2, format, args);
	va_end(args);
	return -1;
}

void *bench_share(size_t len)
{
	void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		bench_die("no memory for %zu shared bytes", len);
	return memory;
}

struct bench_workload *bench_add(const char *group, const char *variant, const char *contender,
				 const char *label, const struct bench_driver *driver,
				 uint32_t size)
{
	struct bench_workload *work = &bench.works[bench.n_works++];
	char number[16];

	if (bench.n_works > BENCH_N_WORKLOADS_MAX)
		bench_die("too many workloads");
	snprintf(number, sizeof(number), "%u", size);
	*work = (struct bench_workload){ .group = group,
					 .label = label,
					 .driver = driver,
					 .size = size,
					 .batch = 1,
					 .n_publishers = 1,
					 .n_subscribers = 1 };
	snprintf(work->name, sizeof(work->name), "%s/%s/%s", group, variant ? variant : number,
		 contender);
	if (!strcmp(group, "rtt"))
		bench_compare(work, "floor/line/rtt");
	else if (!strcmp(group, "stream"))
		bench_compare(work, "stream/%u/lane", size);
	return work;
}

struct bench_workload *bench_add_sleep(const char *variant, const char *contender,
				       const char *label, const struct bench_driver *driver)
{
	struct bench_workload *work = bench_add("sleep", variant, contender, label, driver, 8);

	work->sleeps = true;
	work->place = strcmp(variant, "one-core") ? BENCH_TWO_CORES : BENCH_ONE_CORE;
	bench_compare(work, "sleep/%s/futex", variant);
	return work;
}

void bench_compare(struct bench_workload *work, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(work->floor, sizeof(work->floor), format, args);
	va_end(args);
}

/* ---- options ----------------------------------------------------------------------------------- */

const char *argp_program_bug_address = "the project's issue tracker";

static const struct argp_option options[] = {
	{ "json", 'j', "FILE", 0, "write all figures to FILE, and what plot.gp draws beside it",
	  0 },
	{ "quick", 'q', NULL, 0, "at most 20 seconds", 0 },
	{ "rounds", 'r', "N", 0, "samples of each workload; default: what fits into a minute", 0 },
	{ "only", 'o', "NAME", 0,
	  "workloads with NAME in their name, and what they are compared "
	  "with",
	  0 },
	{ "list", 'l', NULL, 0, "print the names of all workloads", 0 },
	{ 0 }
};

struct arguments {
	const char *json;
	const char *only;
	bool quick;
	bool list;
};

static error_t parse(int key, char *value, struct argp_state *state)
{
	struct arguments *arguments = state->input;

	switch (key) {
	case 'j':
		arguments->json = value;
		return 0;
	case 'q':
		arguments->quick = true;
		return 0;
	case 'o':
		arguments->only = value;
		return 0;
	case 'l':
		arguments->list = true;
		return 0;
	case 'r':
		bench.rounds = (uint32_t)strtoul(value, NULL, 10);
		if (bench.rounds == 0 || bench.rounds > 900)
			argp_error(state, "rounds are 1 to 900, not %s", value);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.doc = "Measure shmbroker next to the machine's own floors and to other ways of talking.",
};

/* ---- running ----------------------------------------------------------------------------------- */

static void add_all(void)
{
	bench_add_floors();
	bench_add_lane();
	bench_add_shmb();
	bench_add_kernel();
	bench_add_zmq();
	bench_add_local();
	bench_add_queue();
	bench_add_state();
	bench_add_block();
	bench_add_call();
}

/* Keeps what is asked for, and what that is compared with. */
static void choose(const char *only)
{
	bool keep[BENCH_N_WORKLOADS_MAX] = { 0 };
	uint32_t n = 0;

	for (uint32_t i = 0; i < bench.n_works; i++)
		keep[i] = strstr(bench.works[i].name, only);
	for (uint32_t i = 0; i < bench.n_works; i++) {
		int floor = keep[i] ? bench_find(bench.works[i].floor) : -1;

		if (floor >= 0)
			keep[floor] = true;
		if (keep[i] && !strcmp(bench.works[i].group, "rtt"))
			keep[bench_find("floor/guarded-line/rtt")] = true;
	}
	for (uint32_t i = 0; i < bench.n_works; i++)
		if (keep[i])
			bench.works[n++] = bench.works[i];
	bench.n_works = n;
	if (!n)
		bench_die("no workload has \"%s\" in its name; see --list", only);
}

static void run(const struct arguments *arguments)
{
	struct shmb_broker *broker = NULL;
	bool single = !arguments->only;

	bench.address = bench_share(4096);
	bench.rings = bench_share(4096);
	bench.published = bench.rings + 1;
	bench.seconds = arguments->quick ? 11 : 60;
	/* Processes first, threads second: the broker's thread is the parent's alone. */
	bench_pair_fork();
	if (single)
		bench_single_fork(arguments->quick ? 100 : 400, arguments->quick ? 1.5 : 5);
	if (shmb_broker_start(NULL, &broker) == 0)
		snprintf(bench.address, 4096, "%s", shmb_broker_address(broker));
	bench_pair_go();
	if (bench_pair_wait() < 0)
		bench_die("a side has failed");
	if (single)
		bench_single_run();
	shmb_broker_stop(broker);
}

int main(int argc, char **argv)
{
	struct arguments arguments = { 0 };

	argp_parse(&argp, argc, argv, 0, NULL, &arguments);
	add_all();
	if (arguments.only)
		choose(arguments.only);
	if (arguments.list) {
		for (uint32_t i = 0; i < bench.n_works; i++)
			puts(bench.works[i].name);
		return EXIT_SUCCESS;
	}
	bench_quiet();
	run(&arguments);
	bench_print();
	if (arguments.json && bench_write_json(arguments.json) < 0)
		bench_die("cannot write %s", arguments.json);
	return EXIT_SUCCESS;
}
