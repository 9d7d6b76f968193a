/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_PLACE_H
#define SHMB_TESTS_PLACE_H

/*
 * A place for a broker of the system: a directory with a configuration that root owns, a directory
 * that the broker's user owns, and processes of several users. Each test has a place of its own,
 * and leaves nothing of it behind.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/unit/fixture.h"

#define UID_BROKER     991u
#define UID_PUBLISHER  1001u
#define UID_SUBSCRIBER 1002u
#define UID_STRANGER   1003u
#define GID_SHARED     2001u

#define PLACE_PATH_MAX 128

/**
 * struct place - where the test's broker is
 * @top:      directory of root's, everything else is below
 * @run:      directory of the broker
 * @address:  its control socket
 * @conf:     its configuration
 * @log:      what it has said
 * @instance: of the broker, once it has been started
 * @broker:   process, 0: none
 */
struct place {
	char top[PLACE_PATH_MAX];
	char run[PLACE_PATH_MAX];
	char address[PLACE_PATH_MAX];
	char conf[PLACE_PATH_MAX];
	char log[PLACE_PATH_MAX];
	char instance[17];
	pid_t broker;
};

extern struct place place;

/* Path of a file in place.top; valid until the fourth call after. */
const char *place_path(const char *name);

/* Fixture. */
void place_set_up(void);
void place_tear_down(void);

/* Writes place.conf, which root owns. */
void place_configure(const char *text);

/**
 * place_spawn() - the daemon as user UID_BROKER, without waiting for it
 * @args:   after its name, up to NULL
 * @fd3:    becomes its fd 3; -1: none
 * @listen: its LISTEN_FDS, with its own LISTEN_PID; NULL: none
 */
pid_t place_spawn(const char *const *args, int fd3, const char *listen);

/* Starts a broker with place.conf and waits until it is ready. */
void place_start(void);
/* Sends a signal and returns the exit status. */
int place_end(int number);
/* Starts the daemon and returns its exit code, for those that must fail; what it says is logged. */
int place_fails(const char *const *args, int fd3, const char *listen);

/* The log, whole. Empties it with @forget. */
const char *place_said(bool forget);
/* Waits until the log has the text. */
void place_says(const char *text);
/* The log has it now. */
bool place_has_said(const char *text);

/* Objects in shared memory of this place's broker. */
unsigned place_objects(void);

/* A child of that user, which must end by _exit(0); group as the user, and @extra unless 0. */
pid_t place_run_as(uint32_t uid, uint32_t extra, void (*child)(void));
/* Waits until such a child sets its flag; the test fails if it ends instead. */
void place_until(const uint32_t *flag, pid_t pid);
/* Waits for such a child; the test fails if it has failed. */
void place_finished(pid_t pid);

/* Opens a channel with a result, without failing the test. */
int32_t place_open(struct shmb_client *of, const char *name, uint32_t flags);

/* Without root there are no other users: ends the program with 77. */
void place_need_root(const char *program);
/* Removes what failed tests have left. */
void place_sweep(void);

#endif
