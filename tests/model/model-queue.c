/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The marks of a worker under the model checker: lib/queue.c itself. A worker goes on in another cursor
 * while it works, and dies anywhere: its publisher, which looked at the old one when it heard of the
 * new one, gives to others all that is not done, and nothing of which the worker was told that it is
 * done. And a publisher that was thrown out and does not know it yet takes no number of the next one
 * for its own. What is mirrored here are the lines around: replace_pair() and pub_orphan() of the
 * publisher, sub_store_cursor() and sub_store_ahead() of the subscriber.
 */

#include "tests/model/dfs.h"

#include <shmbroker/layout.h>

/* Few marks, so that few are looked at. */
#undef SHMB_QUEUE_CREDIT_MAX
#define SHMB_QUEUE_CREDIT_MAX 2u

#include <shmbroker/ring.h>

/* Each of these fences is a site of its own. */
#define shmb_fence() dfs_fence(DFS_SEQ_CST, DFS_HERE("fence"))

#include "lib/bell.h"

#include "lib/queue.c"

#define N(array) (sizeof(array) / sizeof((array)[0]))

#define OLD_PAIR 7u
#define NEW_PAIR 8u
#define N_JOBS	 2u

enum {
	PUBLISHER,
	WORKER
};

static struct {
	struct shmb_cursor_lane slot;
	struct shmb_cursor_work work;
} cursors[2];
static struct shmb_bell_segment bell; /* of the new pair */

static struct shmb_worker worker; /* the publisher's */
static struct shmb_jobs jobs; /* the worker's */
static bool told[N_JOBS]; /* done() has returned */
static bool undone[N_JOBS]; /* others get it */
static bool buried;

/* ---- the worker --------------------------------------------------------------------------------- */

static void store_position(unsigned int cursor)
{
	struct shmb_lane_reader reader = { .position = 8 * N_JOBS, .sequence = N_JOBS };
	uint64_t position, sequence;

	shmb_jobs_low(&jobs, &reader, &position, &sequence);
	shmb_cursor_store(&cursors[cursor].slot, position, sequence);
}

/* As sub_store_cursor() with a successor; the new cursor is empty. */
static void tell(void)
{
	uint64_t position, sequence;

	store_position(0);
	shmb_fence();
	if (!shmb_bell_started(&bell, &position, &sequence))
		return;
	shmb_jobs_publish(&jobs, &cursors[1].work);
	store_position(1);
	shmb_cursor_start(&cursors[1].slot, NEW_PAIR);
}

static void work_on(void)
{
	/* The last one first, so that the marks count. */
	for (uint32_t number = N_JOBS; number-- > 0;) {
		shmb_jobs_set(&jobs, number, SHMB_JOB_DONE);
		tell();
		told[number] = true;
	}
}

/* ---- the publisher ------------------------------------------------------------------------------ */

/* Only who is dead is buried; if nobody dies there is nothing to see. */
static void move_and_bury(void)
{
	struct shmb_ticket left[SHMB_QUEUE_CREDIT_MAX];
	bool started;
	uint32_t n;

	shmb_bell_start(&bell, 0, 0);
	shmb_fence();
	shmb_worker_note(&worker, &cursors[0].work);
	dfs_await_death();
	started = shmb_cursor_started(&cursors[1].slot, NEW_PAIR);
	n = shmb_worker_undone(&worker, started ? &cursors[1].work : NULL, left);
	for (uint32_t i = 0; i < n; i++)
		undone[left[i].position / 8] = true;
	buried = true;
}

static void check_buried(void)
{
	if (dfs_killed(WORKER) && !buried)
		dfs_fail("the dead one is not buried");
	for (uint32_t i = 0; buried && i < N_JOBS; i++) {
		if (told[i] && undone[i])
			dfs_fail("what is done comes again");
		if (!undone[i] && jobs.jobs[i].state != SHMB_JOB_DONE)
			dfs_fail("what is not done is lost");
	}
}

static void begin(void)
{
	worker = (struct shmb_worker){ .sent = N_JOBS };
	jobs = (struct shmb_jobs){ .work = &cursors[0].work, .next = N_JOBS, .lane = 1 };
	buried = false;
	for (uint32_t i = 0; i < N_JOBS; i++) {
		told[i] = undone[i] = false;
		worker.tickets[i].position = 8 * i;
		jobs.jobs[i] = (struct shmb_job){ .position = 8 * i,
						  .sequence = i,
						  .attempt = 1,
						  .handed = 1,
						  .state = SHMB_JOB_TAKEN };
	}
}

static void set_up_move(void)
{
	begin();
	for (uint64_t i = 0; i < N_JOBS; i++)
		SHMB_STORE(&cursors[0].work.marks[i], i << SHMB_QUEUE_MARK_NUMBER_SHIFT | 1);
	SHMB_STORE(&cursors[0].slot.pair_id, OLD_PAIR);
}

/* ---- a slot that is given away ------------------------------------------------------------------ */

/* As read_done(): it has sent two, and one is done. */
static void heed_the_slot(void)
{
	uint64_t before = worker.done;
	bool possible = shmb_worker_look(&worker, &cursors[0].work);

	if (!shmb_cursor_is_ours(&cursors[0].slot, OLD_PAIR)) {
		worker.done = before;
		return;
	}
	if (!possible || worker.done > 1)
		dfs_fail("the number of another pair is taken for its own");
}

/* As sub_attach_lane(), and then the worker works for the other one. */
static void give_the_slot_away(void)
{
	shmb_cursor_vacate(&cursors[0].slot);
	shmb_jobs_clear(&cursors[0].work);
	shmb_cursor_start(&cursors[0].slot, NEW_PAIR);
	for (uint32_t number = 0; number < N_JOBS; number++)
		shmb_jobs_set(&jobs, number, SHMB_JOB_DONE);
}

static void set_up_slot(void)
{
	begin();
	SHMB_STORE(&cursors[0].work.done, 1);
	SHMB_STORE(&cursors[0].slot.pair_id, OLD_PAIR);
}

static void check_nothing(void)
{
}

static const struct dfs_scenario scenarios[] = {
	{ "marks that move",
	  set_up_move,
	  { move_and_bury, work_on },
	  check_buried,
	  1u << WORKER,
	  4,
	  2,
	  { 220000, 7500 } },
	{ "slot of marks",
	  set_up_slot,
	  { heed_the_slot, give_the_slot_away },
	  check_nothing,
	  0,
	  4,
	  3,
	  { 890, 230 } },
};

int main(int argc, char **argv)
{
	dfs_share(cursors, sizeof(cursors));
	dfs_share(&bell, SHMB_BLOCK_LEN / 8);
	return dfs_main(argc, argv, scenarios, N(scenarios));
}
