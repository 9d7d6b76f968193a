/* SPDX-License-Identifier: Apache-2.0 */

/* The figures that plot.gp draws, as data blocks that gnuplot can load. */

#include <string.h>

#include "bench.h"

/* Contenders of the charts over size, a column each. */
static const struct {
	const char *contender;
	const char *title;
} columns[] = {
	{ "lane", "reference lane" },
	{ "shmb", "shmbroker" },
	{ "shmb-16", "shmbroker, batches of 16" },
	{ "shmb-loan", "shmbroker, loan and peek" },
	{ "pipe", "pipe" },
	{ "unix-stream", "AF_UNIX stream" },
	{ "unix-seqpacket", "AF_UNIX seqpacket" },
	{ "zmq", "ZeroMQ ipc://" },
};

static double median(const char *name, enum bench_class class)
{
	int index = bench_find(name);

	if (index < 0)
		return 0;
	return bench_stats((uint32_t)index, bench.works[index].place ? BENCH_CLASS_OTHER : class)
		.p50;
}

/* One bar: label, ns, which kind of thing it is. */
static void write_bars(FILE *file, const char *prefix, enum bench_class class)
{
	for (uint32_t i = 0; i < bench.n_works; i++) {
		const struct bench_workload *work = &bench.works[i];
		double ns = median(work->name, class);
		int kind = 2;

		if (strncmp(work->name, prefix, strlen(prefix)) || ns <= 0)
			continue;
		if (strstr(work->name, "/shmb"))
			kind = 1;
		else if (strstr(work->name, "floor/") || strstr(work->name, "/futex") ||
			 strstr(work->name, "/lane"))
			kind = 0;
		fprintf(file, "\"%s\" %.1f %d\n", work->label, ns, kind);
	}
}

static void write_streams(FILE *file, enum bench_class class)
{
	char name[BENCH_NAME_LEN_MAX];

	fputs("$stream << END\n\"bytes\"", file);
	for (size_t c = 0; c < BENCH_ARRAY_LEN(columns); c++)
		fprintf(file, " \"%s\"", columns[c].title);
	fputc('\n', file);
	for (size_t i = 0; i < BENCH_ARRAY_LEN(bench_stream_sizes); i++) {
		fprintf(file, "%u", bench_stream_sizes[i]);
		for (size_t c = 0; c < BENCH_ARRAY_LEN(columns); c++) {
			double ns;

			snprintf(name, sizeof(name), "stream/%u/%s", bench_stream_sizes[i],
				 columns[c].contender);
			ns = median(name, class);
			if (ns > 0)
				fprintf(file, " %.2f", ns);
			else
				fputs(" NaN", file);
		}
		fputc('\n', file);
	}
	fputs("END\n", file);
}

void bench_write_plot_data(FILE *file)
{
	enum bench_class class = bench_main_class();

	fprintf(file, "distance = \"%s\"\nn_contenders = %zu\n", bench_class_names[class],
		BENCH_ARRAY_LEN(columns));
	fputs("$polling << END\n", file);
	write_bars(file, "floor/line", class);
	write_bars(file, "rtt/8/", class);
	fputs("END\n$one_core << END\n", file);
	write_bars(file, "sleep/one-core/", class);
	fputs("END\n$two_cores << END\n", file);
	write_bars(file, "sleep/two-cores/", class);
	fputs("END\n", file);
	write_streams(file, class);
}
