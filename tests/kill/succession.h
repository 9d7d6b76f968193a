/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_SUCCESSION_H
#define SHMB_TESTS_SUCCESSION_H

/*
 * Brokers that are stepped, and follow one another: where one can be stopped while it does what it
 * does, and what is there when the next one has taken over.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/kill/step.h"
#include "tests/kill/stranger.h"
#include "tests/kill/world.h"

#define N_PLACES_MAX 40000u

/* An instant: after so many stops at system calls, and so many instructions more. */
struct place {
	uint32_t n_syscalls;
	uint32_t n_instructions;
};

struct places {
	struct place at[N_PLACES_MAX];
	uint32_t n;
};

/**
 * struct succession - what tests need of it
 * @step:      the broker that is there now
 * @how:       how the next one is started
 * @serves:    it has started, and is stepped while it serves
 * @bystander: process that uses all of them
 * @mortal:    process that is to die, or 0
 * @n_heard:   records of others that the bystander had before the mortal began
 * @quick:     a sample
 * @all:       all of it
 * @stride:    of so many places one is taken
 * @only:      the place that was named, if @n_tries
 * @n_tries:   how often it is tried
 * @n_moves:   of the bystander, on the sealed channel; with a keeper there are no more
 */
extern struct succession {
	struct step step;
	struct world_broker how;
	bool serves;
	pid_t bystander;
	pid_t mortal;
	uint64_t n_heard;
	bool quick;
	bool all;
	uint32_t stride;
	struct place only;
	uint32_t n_tries;
	uint32_t n_moves;
} succession;

/*
 * A broker, an honest pair and a bystander. Of the arguments --quick and --all count; @stride is
 * for an ordinary run.
 */
void succession_begin(int argc, char **argv, uint32_t stride);
void succession_end(void);

/* From now on brokers have keepers. */
void succession_keep(void);

/* The next broker, in front of its first instruction. */
void succession_load(void);
/* It starts, and then serves without being stepped. */
void succession_run(void);
/* The broker is killed, and with it a client of it; or that lives on, as the mortal. */
void succession_kill_both(void);
void succession_kill_one(void);
/* And now it dies. */
void succession_bury(void);
/* The next broker takes over, and soon all is as it was. */
void succession_recover(void);
/* With the broker that is there, all is as it was, soon. */
void succession_check(void);

/*
 * The broker does what it has to do, and places are noted, until it has nothing more to do and a
 * stranger has ended; 0: and the bystander has come back.
 */
void succession_explore(struct places *places, const char *what, pid_t stranger);
/* If one place was named in the arguments, it is the only one from now on. */
void succession_choose(struct places *places);
/* It goes there, or as far as it goes, and stands still. */
void succession_go(const struct place *place, const char *what);
/* And is killed there. */
void succession_kill(const struct place *place, const char *what);

#endif
