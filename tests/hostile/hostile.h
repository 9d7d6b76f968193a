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

#include "lib/member.h"

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

/*
 * In that process: scribbles, until it is thrown out or that much time has passed. No honest calls in
 * between: they would run in circles in what has been scribbled. Returns EVIL_*.
 */
char evil_scribble(struct shmb_member *member, void (*scribble)(void *handle), void *handle,
		   uint64_t for_ns);
/* It goes as it came. */
char evil_leave(struct shmb_client *client, struct shmb_channel *channel,
		struct shmb_publisher *publisher, struct shmb_subscriber *subscriber, char result);

struct shmb_client *connect_client(const char *address);
struct shmb_channel *open_channel(struct shmb_client *client);

void fill_honest(struct honest *record, uint64_t number);
bool is_honest(const struct honest *record, uint64_t number);

/* Around each call of an honest process: it may use 100 ms of processor time, and no more. */
void call_begins(void);
void call_ends(const char *what);
uint64_t n_calls(void);

/**
 * struct honest_side - who has to withstand it
 * @broker:	 its own
 * @client:	 of the honest process
 * @channel:	 of the test
 * @publisher:	 that nobody may disturb
 * @subscribers: those who read; the second one is lossy, or NULL
 */
struct honest_side {
	struct shmb_broker *broker;
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscribers[2];
};

/* Starts a hostile process and all of the honest side. */
void honest_begin(struct honest_side *side, char (*attack)(const char *address, uint32_t number),
		  struct shmb_channel *(*open)(struct shmb_client *client), bool lossy);
/* Withstands each of @n attacks, in rounds. */
void honest_withstand(struct honest_side *side, uint32_t n,
		      void (*withstand)(struct honest_side *side, uint32_t number));
/* The hostile process has not crashed, the broker lives, and all can be closed. */
void honest_end(struct honest_side *side);

#endif
