/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if the broker is killed while it grants, buries, or takes over from one that was killed?
 *
 * A stranger comes, opens channels, publishes, subscribes, has its publisher thrown out, claims a
 * key, closes everything and leaves; then it comes again, and dies. All that time the broker is
 * stepped. It is killed in front of and behind each of its system calls, and around each
 * instruction that changes the registry or a segment: between those nothing changes that outlives
 * it. Each entry that it leaves has its segment, whole. Then a successor is started. The stranger
 * notices nothing but that it takes longer; an honest pair on the same channel loses no record; and
 * soon nothing is left but what was there before.
 *
 * In the same way the successor is killed while it takes over, with somebody to be buried and
 * somebody who lives on, and the successor of that one. There is a sealed channel, too, whose members
 * move to other segments each time: what one of them has sent is received also if it dies right
 * after the broker. And a successor that takes the place of a broker that is stopped
 * is killed; then that one wakes up.
 *
 * And it is killed while it keeps the lane of a publisher that ends, or dies, for a subscriber that has
 * not come back, and until that one has read it: every record comes, once. And while it gives to an heir
 * what a publisher and a worker of a queue have left: it comes, once.
 *
 * At last it has a keeper, which it tells of each sealed segment, and whose predecessor it takes all of them
 * from: nobody has to move any more.
 *
 *	kill-broker [--quick | --all [PART [STOP INSTRUCTION]]]
 *
 * All of it takes long; its parts are grants, recovery, again, replacing, kept, left, given and taken, which
 * can run at the same time. One place, as a failure names it, is tried again and again.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/kill/succession.h"

enum part {
	PART_GRANTS,
	PART_RECOVERY,
	PART_AGAIN,
	PART_REPLACING,
	PART_KEPT,
	PART_LEFT,
	PART_GIVEN,
	PART_TAKEN,
	N_PARTS
};

static const char *const names[N_PARTS] = { "grants", "recovery", "again", "replacing",
					    "kept",   "left",	  "given", "taken" };

static struct step_row rows[N_PARTS] = {
	[PART_GRANTS] = { .name = "grants and undertakings", .min = { [STEP_KILL] = 400 } },
	[PART_RECOVERY] = { .name = "recovery", .min = { [STEP_KILL] = 200 } },
	[PART_AGAIN] = { .name = "recovery of the recovery", .min = { [STEP_KILL] = 70 } },
	[PART_REPLACING] = { .name = "taking the place of another", .min = { [STEP_KILL] = 70 } },
	[PART_KEPT] = { .name = "lanes that are kept", .min = { [STEP_KILL] = 20 } },
	[PART_LEFT] = { .name = "work that is left", .min = { [STEP_KILL] = 40 } },
	[PART_GIVEN] = { .name = "grants, with a keeper", .min = { [STEP_KILL] = 400 } },
	[PART_TAKEN] = { .name = "recovery, with a keeper", .min = { [STEP_KILL] = 500 } },
};
static struct step *const step = &succession.step;
static struct places places;

/* ---- lanes that are kept ----------------------------------------------------------------------- */

#define LOOK_US 30000

static struct {
	pid_t reader;
	pid_t writer;
	pid_t timer;
} kept;

/* The reader looks a little after that, whatever has become of the broker. */
static void look_soon(void)
{
	usleep(LOOK_US);
	stranger_set(&strangers->look);
}

/* The reader is away since a restart; the writer has come since then, and goes. */
static void begin_keeping(bool dies)
{
	strangers->look = 0;
	strangers->dies = dies;
	kept.reader = stranger_start_other(stranger_be_reader);
	stranger_await(&strangers->ready, "a reader");
	step_interrupt(step);
	step_kill(step);
	succession_load();
	succession_run();
	world_ping();
	kept.writer = stranger_start_other(stranger_be_writer);
	stranger_await(&strangers->ready, "a writer");
	step_interrupt(step);
	kept.timer = stranger_start_other(look_soon);
	stranger_set(&strangers->go);
}

static void end_keeping(void)
{
	succession_load();
	succession_run();
	stranger_finished(kept.timer);
	stranger_finished(kept.writer);
	stranger_finished(kept.reader);
	succession_check();
}

static void explore_keeping(void)
{
	begin_keeping(false);
	stranger_set(&strangers->slow);
	succession_explore(&places, "lanes that are kept", kept.reader);
	strangers->slow = 0;
	step_kill(step);
	end_keeping();
}

static void kill_keeping(const struct place *place, bool dies)
{
	begin_keeping(dies);
	succession_kill(place, "lanes that are kept");
	end_keeping();
}

/* ---- work that is left ------------------------------------------------------------------------- */

static struct {
	pid_t leaver;
	pid_t heir;
	pid_t timer;
} left;

static void begin_leaving(bool dies)
{
	strangers->look = 0;
	strangers->dies = dies;
	left.leaver = stranger_start_other(stranger_be_leaver);
	stranger_await(&strangers->ready, "a leaver");
	left.heir = stranger_start_other(stranger_be_heir);
	stranger_await(&strangers->ready, "an heir");
	step_interrupt(step);
	left.timer = stranger_start_other(look_soon);
	stranger_set(&strangers->go);
}

static void end_leaving(void)
{
	succession_load();
	succession_run();
	stranger_finished(left.timer);
	stranger_finished(left.leaver);
	stranger_finished(left.heir);
	succession_check();
}

static void explore_leaving(void)
{
	begin_leaving(true);
	stranger_set(&strangers->slow);
	succession_explore(&places, "work that is left", left.heir);
	strangers->slow = 0;
	step_kill(step);
	end_leaving();
}

static void kill_leaving(const struct place *place, bool dies)
{
	begin_leaving(dies);
	succession_kill(place, "work that is left");
	end_leaving();
}

/* ---- grants ------------------------------------------------------------------------------------ */

static void explore_grants(void)
{
	pid_t stranger = stranger_start();

	step_interrupt(step);
	stranger_set(&strangers->go);
	stranger_set(&strangers->slow);
	succession_explore(&places, "grants and undertakings", stranger);
	strangers->slow = 0;
	step_kill(step);
	succession_load();
	succession_run();
	stranger_finished(stranger);
	succession_check();
}

static void kill_granting(const struct place *place)
{
	pid_t stranger = stranger_start();

	step_interrupt(step);
	stranger_set(&strangers->go);
	succession_kill(place, "grants");
	succession_load();
	succession_run();
	stranger_finished(stranger);
	succession_check();
}

/* ---- recovery ---------------------------------------------------------------------------------- */

static void explore_recovery(void)
{
	succession_kill_one();
	succession_load();
	succession_explore(&places, "recovery", 0);
	step_kill(step);
	succession_bury();
	succession_recover();
}

/* The mortal dies with the first broker or with the second. */
static void kill_recovering(const struct place *place, bool late)
{
	succession_kill_one();
	if (!late)
		succession_bury();
	succession_load();
	succession_kill(place, "recovery");
	if (late)
		succession_bury();
	succession_recover();
	if (late)
		stranger_check_heard(succession.n_heard);
}

static void kill_recovering_twice(const struct place *first, const struct place *second)
{
	succession_kill_both();
	succession_load();
	succession_kill(first, "recovery");
	succession_load();
	succession_kill(second, "recovery of the recovery");
	succession_recover();
}

/* ---- taking the place of another ---------------------------------------------------------------- */

static struct step stopped;

/* The broker stands still, wherever it is; a successor stands in front of its first instruction. */
static void load_replacement(void)
{
	struct step_shared *shared = step->shared;

	step_interrupt(step);
	stopped = *step;
	*step = (struct step){ .shared = shared };
	succession.how.replace = true;
	succession_load();
}

/* The one that was stopped wakes up, and finds that nothing is its own any more. */
static void wake_stopped(void)
{
	succession_recover();
	succession.how.replace = false;
	step_release(&stopped);
	stranger_finished(stopped.pid);
	succession_check();
}

static void explore_replacing(void)
{
	load_replacement();
	succession_explore(&places, "taking the place of another", 0);
	step_kill(step);
	wake_stopped();
}

static void kill_replacing(const struct place *place)
{
	load_replacement();
	succession_kill(place, "taking the place of another");
	wake_stopped();
}

/* ---- all of it --------------------------------------------------------------------------------- */

static void explore(enum part part)
{
	if ((part == PART_GIVEN || part == PART_TAKEN) && !succession.how.keeper)
		succession_keep();
	if (part == PART_KEPT)
		explore_keeping();
	else if (part == PART_LEFT)
		explore_leaving();
	else if (part == PART_GRANTS || part == PART_GIVEN)
		explore_grants();
	else if (part == PART_REPLACING)
		explore_replacing();
	else
		explore_recovery();
}

static void kill_at(enum part part, uint32_t i, uint32_t n)
{
	if (part == PART_KEPT)
		kill_keeping(&places.at[i], n % 2);
	else if (part == PART_LEFT)
		kill_leaving(&places.at[i], n % 4);
	else if (part == PART_GRANTS || part == PART_GIVEN)
		kill_granting(&places.at[i]);
	else if (part == PART_RECOVERY || part == PART_TAKEN)
		kill_recovering(&places.at[i], n % 3);
	else if (part == PART_REPLACING)
		kill_replacing(&places.at[i]);
	else
		kill_recovering_twice(&places.at[i], &places.at[(7 * i + 11) % places.n]);
	rows[part].n[STEP_KILL]++;
}

static void run(enum part part)
{
	/* In halves of the stride: there are fewer places in the last ones, or they take longer. */
	static const uint32_t halves[N_PARTS] = {
		[PART_GRANTS] = 2, [PART_RECOVERY] = 2, [PART_AGAIN] = 6, [PART_REPLACING] = 4,
		[PART_KEPT] = 1,   [PART_LEFT] = 3,	[PART_GIVEN] = 6, [PART_TAKEN] = 4,
	};
	uint32_t stride = succession.all ? 1 : halves[part] * succession.stride / 2;

	explore(part);
	succession_choose(&places);
	for (uint32_t i = 0, n = 0; i < places.n; i += stride, n++)
		kill_at(part, i, n);
}

int main(int argc, char **argv)
{
	const char *only = argc > 2 ? argv[2] : NULL;

	world_be_keeper(argc, argv);
	succession_begin(argc, argv, 12);
	for (enum part part = 0; part < N_PARTS; part++) {
		if (only && strcmp(only, names[part]))
			rows[part].min[STEP_KILL] = 0;
		else
			run(part);
	}
	succession_end();
	printf("kill-broker: %llu records exchanged, clean within %llu us\n",
	       (unsigned long long)world.n_received, (unsigned long long)world.latest_ns / 1000);
	step_table("kill-broker", rows, N_PARTS, succession.stride);
	return EXIT_SUCCESS;
}
