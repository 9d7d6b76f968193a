/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_BENCH_H
#define SHMB_BENCH_H

/*
 * The benchmark: one driver, a file per kind of workload.
 *
 * Two pinned processes, the sides, run every workload in turn, round after round, so that all
 * contenders meet the same machine. A hypervisor moves virtual CPUs between cores, and the same
 * ping-pong reads 60, 130 or 500 ns within minutes: therefore each sample of a few milliseconds
 * stands between two short probes, is dropped if they disagree, and is else filed under the
 * distance they measured. Only numbers of one distance class are compared.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#define BENCH_N_WORKLOADS_MAX 256
#define BENCH_NAME_LEN_MAX    48
#define BENCH_BATCH	      16u

#define BENCH_ARRAY_LEN(array) (sizeof(array) / sizeof((array)[0]))

/* Which CPUs the two sides of a workload run on. */
enum bench_place {
	BENCH_TWO_CORES,
	BENCH_ONE_CORE, /* both on the first one */
	BENCH_ALONE, /* only side 0 does anything */
};

/* How far apart the two CPUs are, by the round trip of a cache line. */
enum bench_class {
	BENCH_CLASS_SMT, /* below 85 ns: siblings of one core */
	BENCH_CLASS_L3, /* below 260 ns: they share a cache */
	BENCH_CLASS_X, /* farther */
	BENCH_CLASS_OTHER, /* one core, or only one process: distance means nothing */
	BENCH_N_CLASSES,
};

/* What becomes of a sample. */
enum bench_fate {
	BENCH_KEPT,
	BENCH_MOVED, /* the probes before and after it disagree */
	BENCH_PREEMPTED, /* somebody else ran on a side's CPU */
};

struct bench_workload;

/**
 * struct bench_driver - how a contender does a kind of work
 * @prepare: in the parent, before the sides are forked; NULL: nothing to do
 * @open:    in each side at the same time; may wait for the other side; NULL: nothing to do
 * @run:     what side 0 and side 1 do; returns when @ops operations are complete as seen by it.
 *	     The return value is how long that took in ns, if not all of it counts, else 0
 *
 * @prepare and @open return 0, or -1 after bench_skip().
 */
struct bench_driver {
	int (*prepare)(struct bench_workload *work);
	int (*open)(struct bench_workload *work, unsigned int side);
	double (*run[2])(struct bench_workload *work, uint64_t ops);
};

/**
 * struct bench_workload - one row of the table
 * @name:     group/variant/contender; what --only looks at
 * @group:    heading it is printed under
 * @label:    who does the work
 * @floor:    @name of the workload that it is compared with, or empty
 * @driver:   does it
 * @place:    where
 * @sleeps:   both sides sleep while they wait for each other
 * @trusting: publishers let subscribers map their lanes writable
 * @threads:  the contender has threads of its own
 * @size:     bytes of a record
 * @batch:    records per call
 * @flavour:  for the driver
 * @pattern:  of its channels, for the driver; 0: streams
 * @n_publishers: on the channel, for the driver
 * @n_subscribers: on the channel
 * @area:     memory that both sides share, zeroed
 * @area_len: its bytes
 * @skipped:  why it does not run here, NULL if it does. In shared memory
 * @state:    of the driver, private to each side
 */
struct bench_workload {
	char name[BENCH_NAME_LEN_MAX];
	const char *group;
	const char *label;
	char floor[BENCH_NAME_LEN_MAX];
	const struct bench_driver *driver;
	enum bench_place place;
	bool sleeps;
	bool trusting;
	bool threads;
	uint32_t size;
	uint32_t batch;
	uint32_t flavour;
	uint32_t pattern;
	uint32_t n_publishers;
	uint32_t n_subscribers;
	void *area;
	size_t area_len;
	char *skipped;
	void *state;
};

/**
 * struct bench_sample - one measurement
 * @workload: index
 * @fate:     enum bench_fate
 * @class:    enum bench_class
 * @ns:	      per operation
 */
struct bench_sample {
	uint16_t workload;
	uint8_t fate;
	uint8_t class;
	float ns;
};

/**
 * struct bench_suite - everything that is measured
 * @works:	what
 * @n_works:	of @works
 * @samples:	in shared memory
 * @n_samples:	so far
 * @address:	of the broker, in shared memory; empty: there is none
 * @rings:	system calls made to wake somebody in workloads where nobody sleeps; shared memory
 * @published:	records published in them
 * @one_cpu:	there is only one
 * @seconds:	how long the sides measure
 * @rounds:	or how many rounds, if not 0
 */
struct bench_suite {
	struct bench_workload works[BENCH_N_WORKLOADS_MAX];
	uint32_t n_works;
	struct bench_sample *samples;
	uint32_t n_samples;
	char *address;
	uint64_t *rings;
	uint64_t *published;
	bool one_cpu;
	double seconds;
	uint32_t rounds;
};

extern struct bench_suite bench;

/* ---- main.c ------------------------------------------------------------------------------------ */

/* Adds a workload; the rest of it can be set through the returned pointer. @variant NULL: @size. */
struct bench_workload *bench_add(const char *group, const char *variant, const char *contender,
				 const char *label, const struct bench_driver *driver,
				 uint32_t size);

/* Adds one in which both sides sleep, @variant being one-core or two-cores. */
struct bench_workload *bench_add_sleep(const char *variant, const char *contender,
				       const char *label, const struct bench_driver *driver);

/* Notes why a workload cannot run. Returns -1. */
int bench_skip(struct bench_workload *work, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Prints a sentence and ends the process: for what cannot happen on a sound machine. */
void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Zeroed memory that survives fork() as shared memory, resident. */
void *bench_share(size_t len);

/* Sets what a workload is compared with. */
void bench_compare(struct bench_workload *work, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- quiet.c ---------------------------------------------------------------------------------- */

/* Continues in a process that is disturbed as little as it may be; the caller's only waits for it. */
void bench_quiet(void);

/* ---- pair.c ------------------------------------------------------------------------------------ */

/* Two processes run all workloads, between bench_pair_fork() and bench_pair_wait(). */
void bench_pair_fork(void);
void bench_pair_go(void);
int bench_pair_wait(void);

/* Let threads that a library starts run anywhere: around what starts them. */
void bench_unpin(void);
void bench_pin_again(void);

/* ---- stats.c ----------------------------------------------------------------------------------- */

/**
 * struct bench_stats - what the kept samples of a workload in one class say
 * @n:	 how many; the rest is 0 if there is none
 * @p10: ns per operation
 * @p50: median
 * @p90: ns
 */
struct bench_stats {
	uint32_t n;
	double p10;
	double p50;
	double p90;
};

/* Sorts @values. */
double bench_percentile(double *values, uint32_t n, double p);

struct bench_stats bench_stats(uint32_t workload, enum bench_class class);

/* The part of all samples that met a fate. */
double bench_share_of(enum bench_fate fate);

/* Index of a workload by name, or -1. */
int bench_find(const char *name);

/* Median over the median of the workload it is compared with; 0: unknown. */
double bench_ratio(uint32_t workload, enum bench_class class);

/* Median of one workload over another, in the same class; 0: unknown. */
double bench_ratio_of(const char *name, const char *floor, enum bench_class class);

/* The class with most samples. */
enum bench_class bench_main_class(void);

extern const char *const bench_class_names[BENCH_N_CLASSES];

/* ---- single.c ---------------------------------------------------------------------------------- */

#define BENCH_N_LATENCIES 3

/**
 * struct bench_single - what one process measures by itself
 * @latencies: p50 and p99 in ns of opening a client, a publisher, a subscriber
 * @idle_broker:  fraction of a CPU, nobody connected
 * @busy_broker:  with 100 subscribers asleep
 * @idle_subscribers: all of them
 * @seconds: each lasted so long
 * @valid: it was measured
 */
struct bench_single {
	double latencies[BENCH_N_LATENCIES][2];
	double idle_broker;
	double busy_broker;
	double idle_subscribers;
	double seconds;
	bool valid;
};

extern struct bench_single *bench_single;
extern const char *const bench_latency_names[BENCH_N_LATENCIES];

/* Forks the process; it measures when told to, after which the parent watches it. */
void bench_single_fork(uint32_t n_connects, double idle_seconds);
void bench_single_run(void);

/* ---- report.c, aims.c, json.c, plot.c ------------------------------------------------------------- */

void bench_print(void);
int bench_write_json(const char *path);
void bench_write_plot_data(FILE *file);

/**
 * struct bench_aim - something promised
 * @what:  in words
 * @limit: the largest value that passes
 * @value: measured; negative: not measured
 * @unit:  of both
 */
struct bench_aim {
	char what[80];
	double limit;
	double value;
	const char *unit;
};

/* Fills @aims, room for BENCH_N_AIMS_MAX; returns how many. */
#define BENCH_N_AIMS_MAX 24
uint32_t bench_aims(struct bench_aim *aims);

/* ---- work-*.c: each adds its workloads --------------------------------------------------------- */

void bench_add_floors(void);
void bench_add_kernel(void);
void bench_add_lane(void);
void bench_add_shmb(void);
void bench_add_local(void);
void bench_add_queue(void);
void bench_add_state(void);
void bench_add_block(void);
void bench_add_call(void);
void bench_add_zmq(void);

/* Sizes of records that are streamed, and of those that are sent to and fro. */
extern const uint32_t bench_stream_sizes[6];
extern const uint32_t bench_rtt_sizes[2];

/* Bytes of ring for records of a size, the same for all that have a ring. */
static inline uint32_t bench_ring_len(uint32_t size)
{
	return size > 1u << 18 ? 4 * size : 1u << 20;
}

/* ---- small things ------------------------------------------------------------------------------ */

static inline uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void bench_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield" ::: "memory");
#endif
}

/* The words by which consumers prove that they got every record: 0, 1, 2, ... in turn. */
static inline void bench_check_sum(const struct bench_workload *work, uint64_t sum, uint64_t n)
{
	if (sum != n * (n - 1) / 2)
		bench_die("%s: lost or mixed up records", work->name);
}

#endif
