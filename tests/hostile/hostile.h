/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_HOSTILE_H
#define SHMB_TESTS_HOSTILE_H

/*
 * A hostile process beside honest ones. It is forked before anything else exists, is told by pipe
 * which attack to run against which broker, and answers with one byte when it has been thrown out
 * or has given up.
 */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/shmbroker.h>

#define CHANNEL	 "test/hostile"
#define LANE_LEN 4096u

#define EVIL_EVICTED 'e'
#define EVIL_GAVE_UP 'g'

/* What an honest process publishes. */
struct honest {
	uint64_t number;
	uint64_t mixed[6];
};

/* Fails the test with a sentence and the library's own. Returns @result if it is no error. */
int32_t must(int32_t result, const char *what);
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Which attack the failure messages name. */
void now_testing(const char *attack);

uint64_t random_u64(void);

/* Forks the hostile process; @attack returns EVIL_*. */
void evil_start(char (*attack)(const char *address, uint32_t number));
/* Lets it run an attack, and asks whether it has come to an end: 0 as long as it has not. */
void evil_attack(const char *address, uint32_t number);
char evil_result(void);
/* It must not have crashed. */
void evil_stop(void);

struct shmb_client *connect_client(const char *address);
struct shmb_channel *open_channel(struct shmb_client *client);

void fill_honest(struct honest *record, uint64_t number);
bool is_honest(const struct honest *record, uint64_t number);

/* Around each call of an honest process: it may use 100 ms of processor time, and no more. */
void call_begins(void);
void call_ends(const char *what);
uint64_t n_calls(void);

/* SHMB_TEST_QUICK=1: one round instead of several. */
uint32_t n_rounds(uint32_t all);

#endif
