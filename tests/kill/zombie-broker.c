/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if the broker is stopped, somebody else takes its place, and then it goes on where it was?
 *
 * It is stopped in front of and behind each of its system calls, and around each instruction that
 * changes the registry or a segment: while it serves a stranger that comes, does all there is to do,
 * leaves, comes again and dies; and while it takes over from one that was killed. Another one is
 * started with --replace and serves everybody. Then the old one goes on, at once or after the
 * stranger. It must end by itself, and nobody else may notice: an honest pair and a
 * bystander lose nothing, the stranger gets what it asks for, each entry of the registry keeps its
 * segment, and soon nothing is left in /dev/shm but what was there before. And the same with keepers of
 * sealed segments: nobody has to move to another one.
 *
 *	zombie-broker [--quick | --all [PART [STOP INSTRUCTION]]]
 *
 * The parts are grants, recovery, given and taken. One place, as a failure names it, is tried again and again.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "lib/clock.h"

#include "tests/kill/succession.h"

/* A stranger that waits for the old broker's answer waits for it to wake up. */
#define LATE_NS 60000000ull

enum part {
	PART_GRANTS,
	PART_RECOVERY,
	PART_GIVEN,
	PART_TAKEN,
	N_PARTS
};

static const char *const names[N_PARTS] = { "grants", "recovery", "given", "taken" };

static struct step_row rows[N_PARTS] = {
	[PART_GRANTS] = { .name = "grants and undertakings", .min = { [STEP_ZOMBIE] = 400 } },
	[PART_RECOVERY] = { .name = "recovery", .min = { [STEP_ZOMBIE] = 200 } },
	[PART_GIVEN] = { .name = "grants, with a keeper", .min = { [STEP_ZOMBIE] = 300 } },
	[PART_TAKEN] = { .name = "recovery, with a keeper", .min = { [STEP_ZOMBIE] = 200 } },
};
static struct step *const step = &succession.step;
static struct step stopped;
static struct places places;

/* The broker stands still, wherever it is, and another one takes its place. */
static void replace(void)
{
	if (step->running)
		step_interrupt(step);
	stopped = *step;
	*step = (struct step){ 0 };
	memcpy(step->scenario, stopped.scenario, sizeof(step->scenario));
	succession.how.replace = true;
	succession_load();
	succession_run();
	succession.how.replace = false;
	world_exchange(20);
}

/* It goes on, and ends; nothing has come of it. */
static void wake(void)
{
	int status;

	step_release(&stopped);
	stranger_await_end(stopped.pid, &status);
	/* It had started, and would serve now. */
	if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP) {
		step_release(&stopped);
		stranger_await_end(stopped.pid, &status);
	}
	step_forget(&stopped);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		step_fail(step, "the broker that was replaced ended with status 0x%x",
			  (unsigned int)status);
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

static void stop_granting(const struct place *place, bool late)
{
	pid_t stranger = stranger_start();
	uint64_t end;
	int status = 0;
	bool gone = false;

	step_interrupt(step);
	stranger_set(&strangers->go);
	succession_go(place, "stopped in grants");
	/* Then all that the stranger has is still there when the old one goes on. */
	if (!late)
		kill(stranger, SIGSTOP);
	replace();
	end = shmb_clock_now_ns() + (late ? LATE_NS : 0);
	while (!gone && shmb_clock_now_ns() < end) {
		gone = stranger_has_ended(stranger, &status);
		world_exchange(1);
		stranger_nap();
	}
	wake();
	world_check_registry();
	kill(stranger, SIGCONT);
	if (!gone)
		stranger_finished(stranger);
	else if (status)
		step_fail(step, "the stranger ended with status 0x%x", (unsigned int)status);
	succession_check();
}

/* ---- recovery ---------------------------------------------------------------------------------- */

static void explore_recovery(void)
{
	succession_kill_both();
	succession_load();
	succession_explore(&places, "recovery", 0);
	step_kill(step);
	succession_recover();
}

static void stop_recovering(const struct place *place, bool late)
{
	succession_kill_both();
	succession.how.late = true;
	succession_load();
	succession.how.late = false;
	succession_go(place, "stopped in recovery");
	replace();
	if (late)
		succession_check();
	wake();
	succession_check();
}

/* ---- all of it --------------------------------------------------------------------------------- */

static void run(enum part part)
{
	bool grants = part == PART_GRANTS || part == PART_GIVEN;
	bool keeper = part == PART_GIVEN || part == PART_TAKEN;
	uint32_t stride = keeper && !succession.all ? 3 * succession.stride : succession.stride;

	if (keeper && !succession.how.keeper)
		succession_keep();
	if (grants)
		explore_grants();
	else
		explore_recovery();
	succession_choose(&places);
	for (uint32_t i = 0, n = 0; i < places.n; i += stride, n++) {
		if (grants)
			stop_granting(&places.at[i], n % 2);
		else
			stop_recovering(&places.at[i], n % 2);
		rows[part].n[STEP_ZOMBIE]++;
	}
}

int main(int argc, char **argv)
{
	const char *only = argc > 2 ? argv[2] : NULL;

	world_be_keeper(argc, argv);
	succession_begin(argc, argv, 12);
	for (enum part part = 0; part < N_PARTS; part++) {
		if (only && strcmp(only, names[part]))
			rows[part].min[STEP_ZOMBIE] = 0;
		else
			run(part);
	}
	succession_end();
	printf("zombie-broker: %llu records exchanged, clean within %llu us\n",
	       (unsigned long long)world.n_received, (unsigned long long)world.latest_ns / 1000);
	step_table("zombie-broker", rows, N_PARTS, succession.stride);
	return EXIT_SUCCESS;
}
