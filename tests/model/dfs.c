/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Stateless model checker: see dfs.h. Threads are fibers: ucontext gives them their stacks, and
 * _setjmp() switches, which takes no system call. An execution is a list of decisions; the next one
 * is the same list with its last decision that has an alternative changed.
 */

/* Its longjmp() refuses to go to another stack. */
#undef _FORTIFY_SOURCE

#include <inttypes.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

#include "tests/model/dfs.h"

#define LOCATIONS_MAX 40
#define STORES_MAX    64
#define REGIONS_MAX   5
#define WORDS_MAX     2048
#define DECISIONS_MAX 2048
#define SITES_MAX     64
#define COPIES_MAX    16
#define WAITS_MAX     4
#define STACK_LEN     (64 * 1024)
#define NOBODY	      (-1)

/* Of each location the newest store that has been seen. */
struct view {
	uint8_t seen[LOCATIONS_MAX];
};

struct location {
	unsigned int n;
	unsigned int len;
	bool ignored;
	uint64_t values[STORES_MAX];
	struct view views[STORES_MAX];
};

struct region {
	const uint8_t *base;
	unsigned int len;
	uint8_t locations[WORDS_MAX]; /* number + 1, 0: not used yet */
};

struct copy {
	uint64_t *destination;
	unsigned int location;
	unsigned int oldest;
};

enum state {
	READY,
	DONE,
	ASLEEP,
	MOURNING,
	KILLED
};

struct thread {
	enum state state;
	jmp_buf at;
	jmp_buf start;
	struct view view;
	struct view pending; /* what an acquire fence would make seen */
	struct view released; /* as of the last release fence */
	struct copy copies[COPIES_MAX];
	unsigned int n_copies;
	struct dfs_wait waits[WAITS_MAX];
	unsigned int n_waits;
};

struct site {
	const char *function;
	int line;
	enum dfs_order order;
	bool weak;
	bool drop;
	bool is_store;
	char name[160];
};

static struct location locations[LOCATIONS_MAX];
static unsigned int n_locations;
static struct region regions[REGIONS_MAX];
static unsigned int n_regions;
static struct site sites[SITES_MAX];
static unsigned int n_sites;
static const char *weaken;
static const char *drop;
static bool list_stores;

static struct thread threads[DFS_THREADS_MAX];
static char stacks[DFS_THREADS_MAX][STACK_LEN] __attribute__((__aligned__(64)));
static jmp_buf explorer;
static ucontext_t explorer_context;
static const struct dfs_scenario *scenario;
static int current = NOBODY;
static struct view fenced; /* what seq_cst fences have seen */
static struct view kernel; /* what callers of futex(2) have seen */
static unsigned int preemptions, stale, n_killed;
static const char *failure;
static bool tracing;

static uint8_t decisions[DECISIONS_MAX], widths[DECISIONS_MAX];
static unsigned int depth, n_decisions;

/* ---- decisions --------------------------------------------------------------------------------- */

static __attribute__((__noreturn__)) void finish(void)
{
	_longjmp(explorer, 1);
}

void dfs_fail(const char *why)
{
	if (!failure)
		failure = why;
	if (current != NOBODY)
		finish();
}

static unsigned int decide(unsigned int n)
{
	if (n <= 1)
		return 0;
	if (depth == DECISIONS_MAX) {
		dfs_fail("the model is too long for the checker");
		return 0;
	}
	if (depth == n_decisions)
		decisions[n_decisions++] = 0;
	widths[depth] = (uint8_t)n;
	return decisions[depth++];
}

static bool next_execution(void)
{
	for (; n_decisions; n_decisions--)
		if (++decisions[n_decisions - 1] < widths[n_decisions - 1])
			return true;
	return false;
}

/* ---- memory ------------------------------------------------------------------------------------ */

static void join(struct view *view, const struct view *other)
{
	for (unsigned int i = 0; i < LOCATIONS_MAX; i++)
		view->seen[i] = view->seen[i] > other->seen[i] ? view->seen[i] : other->seen[i];
}

void dfs_share(void *base, unsigned int len)
{
	if (n_regions == REGIONS_MAX || len > 4 * WORDS_MAX)
		abort();
	regions[n_regions++] = (struct region){ .base = base, .len = len };
}

static unsigned int find_location(const void *address, unsigned int len)
{
	for (unsigned int i = 0; i < n_regions; i++) {
		uintptr_t offset = (uintptr_t)address - (uintptr_t)regions[i].base;
		uint8_t *number = &regions[i].locations[offset / 4 % WORDS_MAX];

		if (offset >= regions[i].len)
			continue;
		if (!*number) {
			if (n_locations == LOCATIONS_MAX)
				abort();
			locations[n_locations].n = 1;
			locations[n_locations].len = len;
			*number = (uint8_t)++n_locations;
		}
		if (locations[*number - 1].len != len)
			abort();
		return *number - 1u;
	}
	fprintf(stderr, "an access to memory that is not shared\n");
	abort();
}

void dfs_ignore(const void *address)
{
	locations[find_location(address, 8)].ignored = true;
}

static void trace(const char *what, const char *function, const char *text, uint64_t value)
{
	if (tracing)
		printf("  %d %-10s %s  %s = %#" PRIx64 "\n", current, what, function, text, value);
}

/* ---- scheduling -------------------------------------------------------------------------------- */

static void resume(int thread)
{
	current = thread;
	_longjmp(threads[thread].at, 1);
}

static unsigned int list_others(uint8_t *others)
{
	unsigned int n = 0;

	for (int i = 0; i < DFS_THREADS_MAX; i++)
		if (i != current && scenario->threads[i] && threads[i].state == READY)
			others[n++] = (uint8_t)i;
	return n;
}

/* The current thread cannot go on. */
static void leave(void)
{
	uint8_t others[DFS_THREADS_MAX];
	unsigned int n = list_others(others);

	if (!n)
		finish();
	resume(others[decide(n)]);
}

static void die(void)
{
	threads[current].state = KILLED;
	n_killed++;
	trace("killed", "", "", 0);
	for (int i = 0; i < DFS_THREADS_MAX; i++) {
		if (threads[i].state != MOURNING)
			continue;
		threads[i].state = READY;
		join(&threads[i].view, &threads[current].view);
	}
	leave();
}

/* Before each step of a thread: it, or another, or its death. */
static void step(void)
{
	uint8_t others[DFS_THREADS_MAX];
	unsigned int n = preemptions ? list_others(others) : 0;
	bool mortal = !n_killed && scenario->mortal & 1u << current;
	unsigned int decision = decide(1 + n + mortal);

	if (decision == 0)
		return;
	if (decision > n)
		die();
	preemptions--;
	if (_setjmp(threads[current].at) == 0)
		resume(others[decision - 1]);
}

/* ---- sites ------------------------------------------------------------------------------------- */

static const char *const order_names[] = { "relaxed", "acquire", "release", "seq_cst" };

static struct site *new_site(enum dfs_order order, const char *function, const char *text, int line)
{
	struct site *site = &sites[n_sites];
	unsigned int same = 1, len;

	if (n_sites == SITES_MAX)
		abort();
	len = (unsigned int)snprintf(site->name, sizeof(site->name) - 4, "%s %s %s", function,
				     order_names[order], text);
	for (unsigned int i = 0; i < n_sites; i++)
		same += !strncmp(sites[i].name, site->name, len);
	if (same > 1)
		snprintf(site->name + len, 4, "#%u", same % 10);
	site->function = function;
	site->line = line;
	site->order = order;
	site->weak = weaken && !strcmp(weaken, site->name);
	site->drop = drop && !strcmp(drop, site->name);
	n_sites++;
	return site;
}

static struct site *find_site(enum dfs_order order, const char *function, const char *text,
			      int line)
{
	for (unsigned int i = 0; i < n_sites; i++)
		if (sites[i].line == line && sites[i].function == function &&
		    sites[i].order == order)
			return &sites[i];
	return new_site(order, function, text, line);
}

/* Which order does this access have in this run? */
static enum dfs_order order_at(enum dfs_order order, const char *function, const char *text,
			       int line)
{
	if (order == DFS_RELAXED)
		return order;
	return find_site(order, function, text, line)->weak ? DFS_RELAXED : order;
}

/* Is this store left out in this run? */
static bool drops_at(enum dfs_order order, const char *function, const char *text, int line)
{
	struct site *site;

	if (!drop && !list_stores)
		return false;
	site = find_site(order, function, text, line);
	site->is_store = true;
	return site->drop;
}

/* ---- accesses ---------------------------------------------------------------------------------- */

/* One of the stores to a location that are not older than @oldest. */
static unsigned int pick(const struct location *location, unsigned int oldest)
{
	unsigned int back = stale ? decide(location->n - oldest) : 0;

	stale -= back > 0;
	return location->n - 1 - back;
}

uint64_t dfs_load(const void *address, unsigned int len, enum dfs_order order, const char *function,
		  const char *text, int line)
{
	unsigned int number = find_location(address, len), store;
	struct location *location = &locations[number];
	struct thread *self;

	order = order_at(order, function, text, line);
	if (current == NOBODY || location->ignored)
		return location->values[location->n - 1];
	step();
	self = &threads[current];
	store = pick(location, self->view.seen[number]);
	self->view.seen[number] = (uint8_t)store;
	join(order == DFS_ACQUIRE ? &self->view : &self->pending, &location->views[store]);
	trace(store == location->n - 1 ? "load" : "load old", function, text,
	      location->values[store]);
	return location->values[store];
}

void dfs_store(void *address, unsigned int len, uint64_t value, enum dfs_order order,
	       const char *function, const char *text, int line)
{
	unsigned int number = find_location(address, len), store;
	struct location *location = &locations[number];
	struct thread *self;

	if (drops_at(order, function, text, line))
		return;
	order = order_at(order, function, text, line);
	if (current == NOBODY || location->ignored) {
		location->values[location->n - 1] = value;
		return;
	}
	if (order == DFS_RELEASE)
		dfs_settle();
	step();
	self = &threads[current];
	if (location->n == STORES_MAX)
		dfs_fail("too many stores for the checker");
	store = location->n++;
	self->view.seen[number] = (uint8_t)store;
	location->values[store] = value;
	location->views[store] = order == DFS_RELEASE ? self->view : self->released;
	location->views[store].seen[number] = (uint8_t)store;
	trace(order == DFS_RELEASE ? "release" : "store", function, text, value);
}

void dfs_fence(enum dfs_order order, const char *function, const char *text, int line)
{
	struct thread *self;

	order = order_at(order, function, text, line);
	if (current == NOBODY || order == DFS_RELAXED)
		return;
	dfs_settle();
	/* Only fences that others can tell from none in their order are a step. */
	if (order == DFS_SEQ_CST)
		step();
	self = &threads[current];
	if (order != DFS_RELEASE)
		join(&self->view, &self->pending);
	if (order == DFS_SEQ_CST) {
		join(&self->view, &fenced);
		fenced = self->view;
	}
	if (order != DFS_ACQUIRE)
		self->released = self->view;
	trace("fence", function, text, order);
}

void dfs_copy(uint64_t *destination, const uint64_t *source)
{
	unsigned int number = find_location(source, sizeof(*source));
	struct thread *self;

	if (current == NOBODY) {
		*destination = locations[number].values[locations[number].n - 1];
		return;
	}
	self = &threads[current];
	if (self->n_copies == COPIES_MAX)
		abort();
	self->copies[self->n_copies++] = (struct copy){ .destination = destination,
							.location = number,
							.oldest = self->view.seen[number] };
}

void dfs_settle(void)
{
	struct thread *self;

	if (current == NOBODY)
		return;
	self = &threads[current];
	for (unsigned int i = 0; i < self->n_copies; i++) {
		struct copy *copy = &self->copies[i];
		struct location *location = &locations[copy->location];
		unsigned int store;

		step();
		store = pick(location, copy->oldest);
		if (store > self->view.seen[copy->location])
			self->view.seen[copy->location] = (uint8_t)store;
		join(&self->pending, &location->views[store]);
		*copy->destination = location->values[store];
		trace("copy", "", "", location->values[store]);
	}
	self->n_copies = 0;
}

/* ---- the kernel -------------------------------------------------------------------------------- */

void dfs_futex_wait(const struct dfs_wait *waits, unsigned int n)
{
	struct thread *self = &threads[current];

	if (n > WAITS_MAX)
		abort();
	dfs_settle();
	step();
	/* It compares under the lock that a waker takes too. */
	join(&self->view, &kernel);
	for (unsigned int i = 0; i < n; i++) {
		unsigned int number = find_location(waits[i].word, sizeof(*waits[i].word));
		unsigned int store = pick(&locations[number], self->view.seen[number]);

		self->view.seen[number] = (uint8_t)store;
		if (locations[number].values[store] != waits[i].value)
			return;
		self->waits[i] = waits[i];
	}
	self->n_waits = n;
	self->state = ASLEEP;
	trace("sleep", "", "", n);
	if (_setjmp(self->at) == 0)
		leave();
	join(&threads[current].view, &kernel);
	trace("awake", "", "", 0);
}

void dfs_futex_wake(const uint32_t *word)
{
	dfs_settle();
	step();
	join(&kernel, &threads[current].view);
	trace("wake", "", "", 0);
	for (int i = 0; i < DFS_THREADS_MAX; i++)
		for (unsigned int j = 0; threads[i].state == ASLEEP && j < threads[i].n_waits; j++)
			if (threads[i].waits[j].word == word)
				threads[i].state = READY;
}

void dfs_await_death(void)
{
	struct thread *self = &threads[current];

	step();
	for (int i = 0; i < DFS_THREADS_MAX; i++) {
		if (threads[i].state == KILLED) {
			join(&self->view, &threads[i].view);
			return;
		}
	}
	self->state = MOURNING;
	if (_setjmp(self->at) == 0)
		leave();
}

bool dfs_killed(unsigned int thread)
{
	return threads[thread].state == KILLED;
}

bool dfs_asleep(unsigned int thread)
{
	return threads[thread].state == ASLEEP;
}

/* ---- exploring --------------------------------------------------------------------------------- */

static void fiber(void)
{
	if (_setjmp(threads[current].start) == 0)
		swapcontext(&(ucontext_t){ 0 }, &explorer_context);
	scenario->threads[current]();
	dfs_settle();
	threads[current].state = DONE;
	leave();
}

static void make_fibers(void)
{
	for (current = 0; current < DFS_THREADS_MAX; current++) {
		ucontext_t context;

		if (getcontext(&context) < 0)
			abort();
		context.uc_stack.ss_sp = stacks[current];
		context.uc_stack.ss_size = STACK_LEN;
		context.uc_link = NULL;
		makecontext(&context, fiber, 0);
		if (swapcontext(&explorer_context, &context) < 0)
			abort();
	}
	current = NOBODY;
}

static void reset(void)
{
	for (unsigned int i = 0; i < n_locations; i++) {
		locations[i].n = 1;
		locations[i].ignored = false;
		locations[i].values[0] = 0;
		memset(&locations[i].views[0], 0, sizeof(struct view));
	}
	for (int i = 0; i < DFS_THREADS_MAX; i++) {
		struct thread *thread = &threads[i];

		thread->state = READY;
		memcpy(thread->at, thread->start, sizeof(jmp_buf));
		memset(&thread->view, 0, sizeof(struct view));
		memset(&thread->pending, 0, sizeof(struct view));
		memset(&thread->released, 0, sizeof(struct view));
		thread->n_copies = thread->n_waits = 0;
	}
	memset(&fenced, 0, sizeof(fenced));
	memset(&kernel, 0, sizeof(kernel));
	n_killed = 0;
	failure = NULL;
	depth = 0;
}

static void execute(unsigned int preemptions_max)
{
	reset();
	preemptions = preemptions_max;
	stale = scenario->stale;
	scenario->set_up();
	if (_setjmp(explorer) == 0)
		leave();
	current = NOBODY;
	if (!failure && scenario->check)
		scenario->check();
}

static uint64_t n_executions;

static int explore(bool quick, bool silent)
{
	unsigned int max = scenario->preemptions - (quick ? 2 : 0);
	struct timespec start, end;
	uint64_t n = 0;

	n_decisions = 0;
	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		execute(max);
		n++;
	} while (!failure && next_execution());
	clock_gettime(CLOCK_MONOTONIC, &end);
	n_executions += n;
	if (silent && !failure)
		return 0;
	printf("%s: %" PRIu64 " executions, %.1f s: %s\n", scenario->name, n,
	       (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9,
	       failure ? failure : "all good");
	if (failure) {
		tracing = !weaken && !drop;
		execute(max);
		tracing = false;
		return 1;
	}
	if (!weaken && !drop && n < scenario->minimum[quick]) {
		printf("%s: at least %" PRIu64 " were expected\n", scenario->name,
		       scenario->minimum[quick]);
		return 1;
	}
	return 0;
}

int dfs_main(int argc, char **argv, const struct dfs_scenario *scenarios, unsigned int n)
{
	const char *word = getenv("SHMB_TEST_QUICK");
	bool quick = word && !strcmp(word, "1"), list = false;
	int result = 0;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--list"))
			list = true;
		else if (!strcmp(argv[i], "--list-stores"))
			list = list_stores = true;
		else if (!strcmp(argv[i], "--drop") && i + 1 < argc)
			drop = argv[++i];
		else if (!strcmp(argv[i], "--weaken") && i + 1 < argc)
			weaken = argv[++i];
		else
			return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	make_fibers();
	for (unsigned int i = 0; i < n && !((weaken || drop) && result); i++) {
		scenario = &scenarios[i];
		result |= explore(quick, list);
	}
	for (unsigned int i = 0; list && i < n_sites; i++)
		if (list_stores == sites[i].is_store)
			printf("%s\n", sites[i].name);
	if (!list && !weaken && !drop)
		printf("counted: %" PRIu64 " executions of the model checker\n", n_executions);
	return result;
}
