/* SPDX-License-Identifier: Apache-2.0 */

/* All figures as JSON, and those that plot.gp draws as gnuplot data blocks beside it. */

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include <shmbroker/shmbroker.h>

#include "bench.h"

static json_t *describe_class(uint32_t index, enum bench_class class)
{
	struct bench_stats stats = bench_stats(index, class);
	double ratio = bench_ratio(index, class);
	json_t *object;

	if (!stats.n)
		return NULL;
	object = json_pack("{s:i, s:f, s:f, s:f}", "n", (int)stats.n, "p10_ns", stats.p10, "p50_ns",
			   stats.p50, "p90_ns", stats.p90);
	if (ratio > 0)
		json_object_set_new(object, "ratio", json_real(ratio));
	return object;
}

static json_t *describe_workload(uint32_t index)
{
	const struct bench_workload *work = &bench.works[index];
	json_t *object = json_pack("{s:s, s:s, s:s, s:i}", "name", work->name, "group", work->group,
				   "label", work->label, "bytes", (int)work->size);
	json_t *classes = json_object();

	if (work->floor[0])
		json_object_set_new(object, "compared_with", json_string(work->floor));
	if (work->skipped[0])
		json_object_set_new(object, "skipped", json_string(work->skipped));
	for (enum bench_class class = BENCH_CLASS_SMT; class < BENCH_N_CLASSES; class ++) {
		json_t *figures = describe_class(index, class);

		if (figures)
			json_object_set_new(classes, bench_class_names[class], figures);
	}
	json_object_set_new(object, "classes", classes);
	return object;
}

static json_t *describe_single(void)
{
	json_t *object = json_object();

	for (unsigned int i = 0; i < BENCH_N_LATENCIES; i++)
		json_object_set_new(object, bench_latency_names[i],
				    json_pack("{s:f, s:f}", "p50_ns", bench_single->latencies[i][0],
					      "p99_ns", bench_single->latencies[i][1]));
	json_object_set_new(object, "idle_broker_cpu", json_real(bench_single->idle_broker));
	json_object_set_new(object, "idle_broker_100_subscribers_cpu",
			    json_real(bench_single->busy_broker));
	json_object_set_new(object, "idle_100_subscribers_cpu",
			    json_real(bench_single->idle_subscribers));
	return object;
}

static json_t *describe_aims(void)
{
	struct bench_aim aims[BENCH_N_AIMS_MAX];
	uint32_t n = bench_aims(aims);
	json_t *array = json_array();

	for (uint32_t i = 0; i < n; i++) {
		const char *verdict = aims[i].value < 0		       ? "not measured"
				      : aims[i].value <= aims[i].limit ? "pass"
								       : "miss";

		json_array_append_new(array,
				      json_pack("{s:s, s:f, s:f, s:s, s:s}", "aim", aims[i].what,
						"limit", aims[i].limit, "value", aims[i].value,
						"unit", aims[i].unit, "verdict", verdict));
	}
	return array;
}

static int write_plot_data(const char *path)
{
	char *name = NULL;
	FILE *file;
	int result;

	if (asprintf(&name, "%s.gp", path) < 0)
		return -1;
	file = fopen(name, "w");
	free(name);
	if (!file)
		return -1;
	bench_write_plot_data(file);
	result = ferror(file);
	return fclose(file) || result ? -1 : 0;
}

int bench_write_json(const char *path)
{
	json_t *root = json_object(), *works = json_array();
	struct utsname system;
	int result;

	uname(&system);
	json_object_set_new(root, "shmbroker", json_string(shmb_version()));
	json_object_set_new(root, "kernel", json_string(system.release));
	json_object_set_new(root, "machine", json_string(system.machine));
	json_object_set_new(root, "samples", json_integer(bench.n_samples));
	json_object_set_new(root, "dropped_moved", json_real(bench_share_of(BENCH_MOVED)));
	json_object_set_new(root, "dropped_preempted", json_real(bench_share_of(BENCH_PREEMPTED)));
	json_object_set_new(root, "main_class", json_string(bench_class_names[bench_main_class()]));
	for (uint32_t i = 0; i < bench.n_works; i++)
		json_array_append_new(works, describe_workload(i));
	json_object_set_new(root, "workloads", works);
	if (bench_single && bench_single->valid)
		json_object_set_new(root, "single", describe_single());
	json_object_set_new(root, "aims", describe_aims());
	result = json_dump_file(root, path, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	json_decref(root);
	return result < 0 ? -1 : write_plot_data(path);
}
