/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_WORLD_H
#define SHMB_TESTS_WORLD_H

/*
 * A broker with an honest publisher and an honest subscriber of this process, for tests that kill
 * somebody else meanwhile, or the broker: no record may be lost, torn or late, and soon nothing of
 * the dead may be left.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <shmbroker/shmbroker.h>

#include "tests/kill/step.h"

struct shmb_member;

/* What is sent. Strangers number their records from 0. */
struct world_record {
	uint64_t number;
	uint64_t mixed; /* world_mix() of it */
};

/* What exists of and in the broker. */
struct inventory {
	uint32_t n_segments;
	uint32_t n_entries;
	uint32_t n_fds;
};

/* Context of world_serve(). */
struct world_broker {
	bool uring; /* if the kernel has it */
	bool replace; /* one that is there, and does not go */
	bool late; /* it may find that another one has taken its place while it began */
	bool keeper; /* a process keeps its sealed segments: it is this program, see world_be_keeper() */
};

/**
 * struct world - what tests need of it
 * @step:	for step_fail()
 * @address:	of the broker
 * @blocks:	$SHMB_TEST_BLOCKS: all records of streams lie in blocks
 * @broker_pid: its process
 * @n_members:	subscribers of the channel, and publishers of it, when all strangers have gone
 * @publisher_id: of the honest one
 * @n_received: records that the honest pair has exchanged
 * @n_strangers: records of others that its subscriber has had
 * @latest_ns:	the longest that world_wait_clean() has taken
 */
extern struct world {
	struct step *step;
	char address[128];
	bool blocks;
	pid_t broker_pid;
	uint32_t n_members;
	uint64_t publisher_id;
	uint64_t n_received;
	uint64_t n_strangers;
	uint64_t latest_ns;
} world;

void world_begin(struct step *step);

/*
 * The broker, in a process of its own: the first call starts it, the second one runs it to the end
 * of the process. It can so be the body of a stepped child. @context: struct world_broker.
 */
void world_serve(void *context);

/* In main(), first of all: is this process the keeper of a broker? Then it does not return. */
void world_be_keeper(int argc, char **argv);

/* In its process: has it started? */
bool world_serves(void);

/* Starts one that is not stepped, and waits until it serves. */
void world_start_broker(const struct world_broker *how);

/* Stops a broker whose clients have gone. It must leave nothing behind but its keys. */
void world_stop_broker(pid_t pid);

/* Removes what it has left. */
void world_end(void);

/* Shorthand that fails the test, with the library's words. */
int32_t world_must(int32_t result, const char *what);
struct shmb_client *world_connect(void);
struct shmb_channel *world_open_channel(struct shmb_client *of);
struct shmb_channel *world_open_sealed(struct shmb_client *of);
/* One that the honest pair is not on. */
struct shmb_channel *world_open_apart(struct shmb_client *of);
/* And a queue. */
struct shmb_channel *world_open_work(struct shmb_client *of);
struct shmb_channel *world_open_state(struct shmb_client *of);
/* One of those, without failing the test. */
int32_t world_try_open(struct shmb_client *of, bool state, struct shmb_channel **ret_channel);
uint64_t world_mix(uint64_t number);

/* A record, also one that lies in a block: that is held, looked at, and let go. */
int32_t world_send(struct shmb_publisher *to, const struct world_record *record);
int32_t world_receive(struct shmb_subscriber *from, struct world_record *record);

/* The honest pair. */
void world_open_pair(void);
void world_close_pair(void);

/* Sends records, and receives them. Returns how many could be sent. */
uint32_t world_exchange(uint32_t n);

/*
 * Has a publisher or a subscriber that is not its own thrown out: the one that came last. Returns
 * false if there is none.
 */
bool world_evict(bool a_publisher);
/* The same, with another accuser than the honest pair; not the one that is to be spared. */
bool world_evict_by(struct shmb_member *accuser, uint64_t spared_id);

/* Speak to the broker: come back to it, if it is another one. */
void world_ping(void);

/* Each entry of the registry has its segment, whole. */
void world_check_registry(void);

/* Is a keeper noted there? */
bool world_has_keeper(void);

/* From now on this is what world_wait_clean() waits for. */
void world_take_baseline(void);

/* The same, once nothing changes any more. */
void world_settle(void);

/* Nothing of strangers is left, and the pair is not held up any more. Returns how long it took. */
uint64_t world_wait_clean(void);

uint32_t world_count_files(const char *path, const char *begin);

/* Look at all segments that have come since: those that the broker writes, or those it does not. */
void world_watch_new(bool by_broker);

/* Has any of them changed since the last look? */
bool world_has_changed(void);
void world_unwatch(void);

#endif
