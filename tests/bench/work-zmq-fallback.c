/* SPDX-License-Identifier: Apache-2.0 */

/* Stands in for work-zmq.c where libzmq is missing: rows that say so. */

#include "bench.h"

static int prepare(struct bench_workload *work)
{
	return bench_skip(work, "not built: no libzmq");
}

static const struct bench_driver missing = { .prepare = prepare };

void bench_add_zmq(void)
{
	static const char label[] = "ZeroMQ ipc:// PAIR";

	for (size_t i = 0; i < BENCH_ARRAY_LEN(bench_rtt_sizes); i++)
		bench_add("rtt", NULL, "zmq", label, &missing, bench_rtt_sizes[i]);
	for (size_t i = 0; i < BENCH_ARRAY_LEN(bench_stream_sizes); i++)
		bench_add("stream", NULL, "zmq", label, &missing, bench_stream_sizes[i]);
	bench_add_sleep("one-core", "zmq", label, &missing);
	bench_add_sleep("two-cores", "zmq", label, &missing);
}
