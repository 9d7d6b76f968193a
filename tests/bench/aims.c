/* SPDX-License-Identifier: Apache-2.0 */

/* What the library promises to be, relative to the machine it runs on. */

#include <stdio.h>
#include <string.h>

#include "bench.h"

static const struct {
	const char *what;
	const char *name;
	const char *floor;
	double limit;
} ratios[] = {
	{ "8 bytes there and back, trusting, over a cache line's", "rtt/8/shmb-trusting",
	  "floor/line/rtt", 1.15 },
	{ "8 bytes there and back, over a line's that its reader cannot write", "rtt/8/shmb",
	  "floor/guarded-line/rtt", 1.15 },
	{ "both waiting, one core, there and back, over a futex's", "sleep/one-core/shmb",
	  "sleep/one-core/futex", 1.2 },
	{ "both waiting, two cores, there and back, over a futex's", "sleep/two-cores/shmb",
	  "sleep/two-cores/futex", 1.2 },
	{ "a call, 48 bytes, trusting, over a cache line's there and back",
	  "rtt/48/shmb-call-trusting", "floor/line/rtt", 1.3 },
	{ "a call, 48 bytes, over a line's that its reader cannot write", "rtt/48/shmb-call",
	  "floor/guarded-line/rtt", 1.3 },
	{ "a call, both waiting, one core, over a futex's", "sleep/one-core/shmb-call",
	  "sleep/one-core/futex", 1.2 },
	{ "a call, both waiting, two cores, over a futex's", "sleep/two-cores/shmb-call",
	  "sleep/two-cores/futex", 1.2 },
	{ "8 bytes one way, over the reference lane's", "stream/8/shmb", "stream/8/lane", 1.2 },
	{ "64 MiB lent and looked at there and back, over 4 KiB", "block/67108864/shmb",
	  "block/4096/shmb", 1.5 },
	{ "1 MiB copied into a block, over memcpy", "copy/1048576/send", "copy/1048576/memcpy",
	  1.11 },
	{ "4 publishers to 1 subscriber, over 1 to 1, per record", "fan/4-1/shmb", "fan/1-1/shmb",
	  1.3 },
};

static void add(struct bench_aim *aims, uint32_t *n, const char *what, double limit, double value,
		const char *unit)
{
	struct bench_aim *aim = &aims[(*n)++];

	snprintf(aim->what, sizeof(aim->what), "%s", what);
	aim->limit = limit;
	aim->value = value;
	aim->unit = unit;
}

/* 5 million a second. */
static double job_ns(enum bench_class class)
{
	int job = bench_find("queue/1-2/shmb-16");
	struct bench_stats stats = { 0 };

	if (job >= 0)
		stats = bench_stats((uint32_t)job, class);
	return stats.n ? stats.p50 : -1;
}

uint32_t bench_aims(struct bench_aim *aims)
{
	enum bench_class class = bench_main_class();
	double published = (double)*bench.published;
	bool valid = bench_single && bench_single->valid;
	uint32_t n = 0;

	for (size_t i = 0; i < BENCH_ARRAY_LEN(ratios); i++) {
		double ratio = bench_ratio_of(ratios[i].name, ratios[i].floor, class);

		add(aims, &n, ratios[i].what, ratios[i].limit, ratio > 0 ? ratio : -1, "times");
	}
	add(aims, &n, "a job through 2 workers, p50", 200, job_ns(class), "ns");
	add(aims, &n, "publish to who is awake", 0, published > 0 ? (double)*bench.rings : -1,
	    "system calls");
	add(aims, &n, "idle broker", 0.1, valid ? bench_single->idle_broker * 100 : -1,
	    "% of a CPU");
	add(aims, &n, "idle broker with 100 subscribers", 0.1,
	    valid ? bench_single->busy_broker * 100 : -1, "% of a CPU");
	add(aims, &n, "100 idle subscribers", 0.1,
	    valid ? bench_single->idle_subscribers * 100 : -1, "% of a CPU");
	add(aims, &n, "open a client, p50", 1, valid ? bench_single->latencies[0][0] / 1e6 : -1,
	    "ms");
	return n;
}
