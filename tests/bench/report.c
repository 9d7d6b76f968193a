/* SPDX-License-Identifier: Apache-2.0 */

/* The printed table, and what was aimed at. */

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "bench.h"

#define N_ENOUGH 5u /* samples, for a class to be worth a table */

static const struct {
	const char *group;
	const char *heading;
	const char *compared_with;
} headings[] = {
	{ "floor", "floors: what the machine can do", "" },
	{ "rtt", "there and back, both sides polling", "line" },
	{ "sleep", "there and back, 8 bytes, both waiting", "futex" },
	{ "stream", "one way, ns per record", "lane" },
	{ "fan", "one way, 56 bytes, ns per record published", "1:1" },
	{ "queue", "jobs to 2 workers, taken and done, 56 bytes, ns per job", "1" },
	{ "block", "long records, lent, there and back", "4 KiB" },
	{ "local", "one process, ns per call", "" },
	{ "copy", "long records, copied, one process", "memcpy" },
};

static void print_ns(double ns)
{
	if (ns < 1000)
		printf("%9.1f   ", ns);
	else if (ns < 1e6)
		printf("%9.2f us", ns / 1e3);
	else
		printf("%9.2f ms", ns / 1e6);
}

static void print_row(uint32_t index, enum bench_class class)
{
	const struct bench_workload *work = &bench.works[index];
	bool copies = !strcmp(work->group, "stream") || !strcmp(work->group, "copy") ||
		      strstr(work->name, "memcpy");
	struct bench_stats stats;
	double ratio;

	if (work->place)
		class = BENCH_CLASS_OTHER;
	stats = bench_stats(index, class);
	ratio = bench_ratio(index, class);
	if (!strcmp(work->group, "sleep"))
		printf("  %-34s", work->name + strlen("sleep/"));
	else if (!strcmp(work->group, "local") || !strcmp(work->group, "fan") ||
		 !strcmp(work->group, "queue"))
		printf("  %-34s", work->label);
	else
		printf("%8u  %-26s", work->size, work->label);
	if (work->skipped[0] || !stats.n) {
		printf("  %s\n", work->skipped[0] ? work->skipped : "no undisturbed sample");
		return;
	}
	print_ns(stats.p50);
	print_ns(stats.p10);
	print_ns(stats.p90);
	printf("%6u", stats.n);
	if (copies)
		printf("%8.2f", (double)work->size / stats.p50);
	else
		printf("%8s", "");
	if (ratio > 0)
		printf("%8.2f", ratio);
	putchar('\n');
}

static bool in_class(const struct bench_workload *work, enum bench_class class)
{
	return (work->place != BENCH_TWO_CORES) == (class == BENCH_CLASS_OTHER);
}

/* Workloads of one process or one core do not depend on distance: they have a table of their own. */
static void print_class(enum bench_class class)
{
	for (size_t h = 0; h < BENCH_ARRAY_LEN(headings); h++) {
		bool headed = false;

		for (uint32_t i = 0; i < bench.n_works; i++) {
			if (strcmp(bench.works[i].group, headings[h].group) ||
			    !in_class(&bench.works[i], class))
				continue;
			if (!headed)
				printf("\n%-36s%12s%12s%12s%6s%8s%8s\n", headings[h].heading,
				       "median", "p10", "p90", "n", "GB/s",
				       headings[h].compared_with[0] ? "ratio" : "");
			headed = true;
			print_row(i, class);
		}
	}
}

static uint32_t count_class(enum bench_class class)
{
	uint32_t most = 0;

	for (uint32_t i = 0; i < bench.n_works; i++) {
		uint32_t n = bench_stats(i, class).n;

		most = n > most ? n : most;
	}
	return most;
}

static void print_single(void)
{
	if (!bench_single || !bench_single->valid)
		return;
	printf("\n%-36s%12s%12s\n", "connecting", "p50", "p99");
	for (unsigned int i = 0; i < BENCH_N_LATENCIES; i++)
		printf("  %-34s%9.1f us%9.1f us\n", bench_latency_names[i],
		       bench_single->latencies[i][0] / 1e3, bench_single->latencies[i][1] / 1e3);
	printf("\n%-36s%12s\n", "doing nothing", "% of a CPU");
	printf("  %-34s%12.4f\n", "broker, nobody connected", bench_single->idle_broker * 100);
	printf("  %-34s%12.4f\n", "broker, 100 subscribers asleep",
	       bench_single->busy_broker * 100);
	printf("  %-34s%12.4f\n", "100 subscribers asleep", bench_single->idle_subscribers * 100);
}

static void print_aims(void)
{
	struct bench_aim aims[BENCH_N_AIMS_MAX];
	uint32_t n = bench_aims(aims);

	puts("\naims");
	for (uint32_t i = 0; i < n; i++) {
		if (aims[i].value < 0)
			printf("  %-7s %-62s\n", "-", aims[i].what);
		else
			printf("  %-7s %-62s %8.3f %s (at most %g)\n",
			       aims[i].value <= aims[i].limit ? "PASS" : "MISS", aims[i].what,
			       aims[i].value, aims[i].unit, aims[i].limit);
	}
}

void bench_print(void)
{
	struct utsname system;

	uname(&system);
	printf("%s %s; %u samples; dropped because the CPUs moved %.0f %%, were shared %.0f %%\n",
	       system.sysname, system.release, bench.n_samples, bench_share_of(BENCH_MOVED) * 100,
	       bench_share_of(BENCH_PREEMPTED) * 100);
	for (enum bench_class class = BENCH_CLASS_SMT; class < BENCH_CLASS_OTHER; class ++) {
		if (count_class(class) < N_ENOUGH)
			continue;
		printf("\n==== distance class %s %s\n", bench_class_names[class],
		       class == BENCH_CLASS_SMT	 ? "(line below 85 ns)"
		       : class == BENCH_CLASS_L3 ? "(line 85 to 260 ns)"
						 : "(line over 260 ns)");
		print_class(class);
	}
	puts("\n==== one core or one process");
	print_class(BENCH_CLASS_OTHER);
	print_single();
	print_aims();
}
