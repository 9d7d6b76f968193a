/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The two sides: pinned processes that go through all workloads in step. They meet at barriers in
 * shared memory; side 0 decides how much is done and files the samples.
 */

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define SAMPLE_NS	2.5e6
#define SAMPLE_SLEEP_NS 5e6 /* of workloads where both sides sleep */
#define LOST_MAX	0.05 /* of a sample's time others may have a CPU */
#define PROBE_HOPS	40
#define PROBE_TRIES	5
#define PROBE_SLACK	1.25 /* two probes of one sample may differ by so much */
#define WARM_ROUNDS	2 /* the first rounds find out how much fits into a sample */
#define ROUNDS_MAX	1000
#define YIELD_AFTER	2000 /* polls of a barrier, then let others run */

/* A word on cache lines of its own. */
struct word {
	_Alignas(128) uint64_t value;
};

/**
 * struct control - what the sides agree upon
 * @arrived: barriers that each side has reached
 * @probe:   the cache lines of the probe
 * @began:   when each side began with the sample
 * @ended:   when it ended
 * @ops:     how many operations
 * @lost:    ns of the sample in which others had the side's CPU
 * @failed:  a side could not open the workload
 * @stop:    no more rounds
 * @go:      the parent is ready
 * @n_samples: filed
 */
struct control {
	struct word arrived[2];
	struct word probe[2];
	struct word began[2];
	struct word ended[2];
	struct word ops;
	struct word lost[2];
	struct word failed[2];
	struct word stop;
	struct word go;
	struct word n_samples;
};

static struct control *control;
static pid_t pids[2];
static int cpus[2];
static int my_cpu = -1;
static cpu_set_t all_cpus;
static uint64_t barriers, probes;
static uint64_t next_ops[BENCH_N_WORKLOADS_MAX];

static uint64_t load(const struct word *word)
{
	return __atomic_load_n(&word->value, __ATOMIC_ACQUIRE);
}

static void store(struct word *word, uint64_t value)
{
	__atomic_store_n(&word->value, value, __ATOMIC_RELEASE);
}

static void pin(int cpu)
{
	cpu_set_t set;

	if (cpu == my_cpu)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		bench_die("cannot pin to CPU %d", cpu);
	my_cpu = cpu;
}

void bench_unpin(void)
{
	sched_setaffinity(0, sizeof(all_cpus), &all_cpus);
}

void bench_pin_again(void)
{
	int cpu = my_cpu;

	my_cpu = -1;
	if (cpu >= 0)
		pin(cpu);
}

static void barrier(unsigned int side)
{
	barriers++;
	store(&control->arrived[side], barriers);
	for (uint32_t polls = 0; load(&control->arrived[!side]) < barriers; polls++) {
		if (polls > YIELD_AFTER || cpus[0] == cpus[1])
			sched_yield();
		else
			bench_pause();
	}
}

/* The round trip of a cache line in ns: the median of a few tries, one of which may be disturbed. */
static double probe(unsigned int side)
{
	double tries[PROBE_TRIES];

	for (uint32_t try = 0; try < PROBE_TRIES; try++) {
		uint64_t began = bench_now_ns();

		for (uint32_t i = 0; i < PROBE_HOPS; i++) {
			probes++;
			if (side == 0)
				store(&control->probe[0], probes);
			while (load(&control->probe[!side]) != probes)
				bench_pause();
			if (side == 1)
				store(&control->probe[1], probes);
		}
		tries[try] = (double)(bench_now_ns() - began) / PROBE_HOPS;
	}
	return bench_percentile(tries, PROBE_TRIES, 0.5);
}

static enum bench_class classify(double rtt)
{
	if (rtt < 85)
		return BENCH_CLASS_SMT;
	return rtt < 260 ? BENCH_CLASS_L3 : BENCH_CLASS_X;
}

/* CPU time that this side has had. What it lacks of the time that went by, others had. */
static uint64_t cpu_ns(void)
{
	struct timespec used;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
	return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

static bool both_here(const struct bench_workload *work)
{
	return work->place == BENCH_TWO_CORES;
}

/* Side 0: turns what was measured into a sample, and sets how much is done next time. */
static void file_sample(uint32_t index, double own_ns, double before, double after, bool keep)
{
	struct bench_workload *work = &bench.works[index];
	uint64_t began0 = load(&control->began[0]), began1 = load(&control->began[1]);
	uint64_t ended0 = load(&control->ended[0]), ended1 = load(&control->ended[1]);
	uint64_t began = began0 < began1 ? began0 : began1;
	uint64_t ended = ended0 > ended1 ? ended0 : ended1;
	uint64_t ops = load(&control->ops), n = load(&control->n_samples);
	double ns = own_ns > 0 ? own_ns : (double)(ended - began);
	double goal = work->sleeps ? SAMPLE_SLEEP_NS : SAMPLE_NS;
	struct bench_sample *sample = &bench.samples[n];
	double agree = before > after ? before / after : after / before;

	ns /= (double)ops;
	next_ops[index] = (uint64_t)(goal / ns);
	if (next_ops[index] > 64 * ops)
		next_ops[index] = 64 * ops;
	next_ops[index] = (next_ops[index] / work->batch + 1) * work->batch;
	if (!keep || n >= (uint64_t)ROUNDS_MAX * BENCH_N_WORKLOADS_MAX)
		return;
	sample->workload = (uint16_t)index;
	sample->ns = (float)ns;
	sample->class =
		(uint8_t)(both_here(work) ? classify((before + after) / 2) : BENCH_CLASS_OTHER);
	/* Who sleeps gives his CPU away anyway, and a library's own threads are part of its price. */
	if (both_here(work) && agree > PROBE_SLACK)
		sample->fate = BENCH_MOVED;
	else if (!work->sleeps && !work->threads &&
		 (double)(load(&control->lost[0]) + load(&control->lost[1])) >
			 LOST_MAX * (double)(ended - began))
		sample->fate = BENCH_PREEMPTED;
	store(&control->n_samples, n + 1);
}

static void take_sample(unsigned int side, uint32_t index, bool keep)
{
	struct bench_workload *work = &bench.works[index];
	double before = 1, after = 1, own_ns;
	uint64_t began, began_cpu, ended, used;

	if (side == 0)
		store(&control->ops, next_ops[index]);
	pin(work->place == BENCH_ONE_CORE ? cpus[0] : cpus[side]);
	barrier(side);
	if (both_here(work))
		before = probe(side);
	barrier(side);
	began_cpu = cpu_ns();
	began = bench_now_ns();
	own_ns = work->driver->run[side](work, load(&control->ops));
	ended = bench_now_ns();
	store(&control->began[side], began);
	store(&control->ended[side], ended);
	used = cpu_ns() - began_cpu;
	store(&control->lost[side], used < ended - began ? ended - began - used : 0);
	barrier(side);
	if (both_here(work))
		after = probe(side);
	if (side == 0)
		file_sample(index, own_ns, before, after, keep);
}

static double nothing(struct bench_workload *work, uint64_t ops)
{
	(void)work;
	(void)ops;
	return 0;
}

static const struct bench_driver idle_driver = { .run = { nothing, nothing } };

static void open_all(unsigned int side)
{
	for (uint32_t i = 0; i < bench.n_works; i++) {
		struct bench_workload *work = &bench.works[i];
		bool failed = false;

		next_ops[i] = BENCH_BATCH;
		barrier(side);
		if (!work->skipped[0] && work->driver->open)
			failed = work->driver->open(work, side) < 0;
		store(&control->failed[side], failed);
		barrier(side);
		if (work->skipped[0] || load(&control->failed[0]) || load(&control->failed[1]))
			work->driver = &idle_driver;
	}
}

static void live(unsigned int side)
{
	uint64_t until;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!load(&control->go))
		usleep(1000);
	pin(cpus[side]);
	open_all(side);
	until = bench_now_ns() + (uint64_t)(bench.seconds * 1e9);
	for (uint32_t round = 0;; round++) {
		if (side == 0)
			store(&control->stop,
			      round >= ROUNDS_MAX ||
				      (bench.rounds
					       ? round >= bench.rounds + WARM_ROUNDS
					       : round > WARM_ROUNDS && bench_now_ns() > until));
		barrier(side);
		if (load(&control->stop))
			break;
		for (uint32_t i = 0; i < bench.n_works; i++)
			if (bench.works[i].driver != &idle_driver)
				take_sample(side, i, round >= WARM_ROUNDS);
	}
	exit(EXIT_SUCCESS);
}

/* The first two CPUs we may use; the same one twice if there is only one. */
static void choose_cpus(void)
{
	int n = 0;

	if (sched_getaffinity(0, sizeof(all_cpus), &all_cpus) < 0)
		bench_die("cannot ask for the CPUs of this process");
	for (int cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++)
		if (CPU_ISSET(cpu, &all_cpus))
			cpus[n++] = cpu;
	if (n == 1)
		cpus[1] = cpus[0];
	bench.one_cpu = n == 1;
}

void bench_pair_fork(void)
{
	size_t n_samples = (size_t)ROUNDS_MAX * BENCH_N_WORKLOADS_MAX;

	control = bench_share(sizeof(*control));
	bench.samples = bench_share(n_samples * sizeof(*bench.samples));
	choose_cpus();
	for (uint32_t i = 0; i < bench.n_works; i++) {
		struct bench_workload *work = &bench.works[i];

		work->skipped = bench_share(BENCH_NAME_LEN_MAX * 2);
		if (work->area_len)
			work->area = bench_share(work->area_len);
		if (bench.one_cpu && both_here(work))
			bench_skip(work, "this machine has one CPU");
		else if (work->driver->prepare)
			work->driver->prepare(work);
	}
	fflush(NULL);
	for (unsigned int side = 0; side < 2; side++) {
		pids[side] = fork();
		if (pids[side] < 0)
			bench_die("cannot fork");
		if (pids[side] == 0)
			live(side);
	}
}

void bench_pair_go(void)
{
	store(&control->go, 1);
}

int bench_pair_wait(void)
{
	int status, failed = 0;

	while (pids[0] || pids[1]) {
		for (unsigned int side = 0; side < 2; side++) {
			if (!pids[side] || waitpid(pids[side], &status, WNOHANG) != pids[side])
				continue;
			pids[side] = 0;
			failed |= status != 0;
			/* The other one would wait for it for ever. */
			if (status && pids[!side])
				kill(pids[!side], SIGKILL);
		}
		usleep(5000);
	}
	bench.n_samples = (uint32_t)load(&control->n_samples);
	return failed ? -1 : 0;
}
