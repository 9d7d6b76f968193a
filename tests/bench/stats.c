/* SPDX-License-Identifier: Apache-2.0 */

/* From samples to medians, per workload and distance class. */

#include <stdlib.h>
#include <string.h>

#include "bench.h"

const char *const bench_class_names[BENCH_N_CLASSES] = { "SMT", "L3", "X", "-" };

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_percentile(double *values, uint32_t n, double p)
{
	uint32_t index = (uint32_t)(p * (double)(n - 1) + 0.5);

	qsort(values, n, sizeof(*values), compare);
	return values[index];
}

struct bench_stats bench_stats(uint32_t workload, enum bench_class class)
{
	struct bench_stats stats = { 0 };
	double *values = malloc((bench.n_samples + 1) * sizeof(*values));

	for (uint32_t i = 0; values && i < bench.n_samples; i++) {
		const struct bench_sample *sample = &bench.samples[i];

		if (sample->workload == workload && sample->class == class &&
		    sample->fate == BENCH_KEPT)
			values[stats.n++] = (double)sample->ns;
	}
	if (stats.n) {
		stats.p10 = bench_percentile(values, stats.n, 0.1);
		stats.p50 = bench_percentile(values, stats.n, 0.5);
		stats.p90 = bench_percentile(values, stats.n, 0.9);
	}
	free(values);
	return stats;
}

double bench_share_of(enum bench_fate fate)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < bench.n_samples; i++)
		n += bench.samples[i].fate == fate;
	return bench.n_samples ? (double)n / bench.n_samples : 0;
}

int bench_find(const char *name)
{
	for (uint32_t i = 0; i < bench.n_works; i++)
		if (!strcmp(bench.works[i].name, name))
			return (int)i;
	return -1;
}

double bench_ratio_of(const char *name, const char *floor, enum bench_class class)
{
	int over = bench_find(name), under = bench_find(floor);
	struct bench_stats a, b;

	if (over < 0 || under < 0)
		return 0;
	/* Where distance means nothing there is only one class. */
	a = bench_stats((uint32_t)over, bench.works[over].place ? BENCH_CLASS_OTHER : class);
	b = bench_stats((uint32_t)under, bench.works[under].place ? BENCH_CLASS_OTHER : class);
	return a.n && b.n ? a.p50 / b.p50 : 0;
}

double bench_ratio(uint32_t workload, enum bench_class class)
{
	const struct bench_workload *work = &bench.works[workload];

	return work->floor[0] ? bench_ratio_of(work->name, work->floor, class) : 0;
}

enum bench_class bench_main_class(void)
{
	uint32_t counts[BENCH_N_CLASSES] = { 0 };
	enum bench_class main_class = BENCH_CLASS_SMT;

	for (uint32_t i = 0; i < bench.n_samples; i++)
		counts[bench.samples[i].class] += bench.samples[i].fate == BENCH_KEPT;
	for (enum bench_class class = BENCH_CLASS_SMT; class < BENCH_CLASS_OTHER; class ++)
		if (counts[class] > counts[main_class])
			main_class = class;
	return main_class;
}
