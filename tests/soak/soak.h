/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_SOAK_H
#define SHMB_TESTS_SOAK_H

/*
 * The history of a soak. It lies in memory that the driver shares with its workers, so that what a
 * worker has written down survives its SIGKILL. Each entry has one writing process.
 */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define N_CHANNELS	2u /* the second has sealed segments */
#define N_PUBLISHERS	4u /* slots: publisher n is on channel n % N_CHANNELS */
#define N_SUBSCRIBERS	6u /* of them the last N_CHANNELS are lossy */
#define N_SUBMITTERS	2u /* of jobs: submitter n is on queue n % N_CHANNELS */
#define N_HANDS		4u /* workers of these queues */
#define FIRST_SUBMITTER (N_PUBLISHERS + N_SUBSCRIBERS)
#define FIRST_HAND	(FIRST_SUBMITTER + N_SUBMITTERS)
#define N_CALLERS	2u /* caller n is on call channel n % N_CHANNELS */
#define N_SERVERS	4u /* of these channels */
#define FIRST_CALLER	(FIRST_HAND + N_HANDS)
#define FIRST_SERVER	(FIRST_CALLER + N_CALLERS)
#define N_WORKERS	(FIRST_SERVER + N_SERVERS)
#define N_DIALOGUES	8192u
#define N_ASKED		1024u
#define N_BATCHES	8192u
#define N_JOBS		1024u
#define N_PUBLICATIONS	32768u
#define N_SESSIONS	16384u
#define N_SEEN		2048u
#define RECORD_MAX	1500u
#define LANE_LEN	(1u << 15)

/**
 * struct publication - what one opened publisher did
 * @state:   1 once it is open
 * @channel: where
 * @began:   tick before it was opened
 * @tried:   records whose sending has begun
 * @acked:   records whose sending was acknowledged
 * @acked_len: bytes of them
 */
struct publication {
	uint32_t state;
	uint32_t channel;
	uint64_t began;
	uint64_t tried;
	uint64_t acked;
	uint64_t acked_len;
};

/* What a session got of one publication. */
struct seen {
	uint32_t publication;
	uint64_t first;
	uint64_t next;
};

/**
 * struct session - what one opened subscriber got
 * @state:   1 open, 2 it has drained everything and closed; else it died or gave up
 * @channel: where
 * @lossy:   may lose
 * @opened:  tick after it was opened
 * @records: received
 * @gaps:    records missing between received ones
 * @lost:    as the library counts
 * @backstops: lost wake-ups, as the library counts
 * @n_seen:  entries of @seen
 * @wrong:   what it saw that must not be; empty: nothing
 */
struct session {
	uint32_t state;
	uint32_t channel;
	bool lossy;
	uint64_t opened;
	uint64_t records;
	uint64_t gaps;
	uint64_t lost;
	uint64_t backstops;
	uint32_t n_seen;
	char wrong[160];
	struct seen seen[N_SEEN];
};

/**
 * struct batch - the jobs of one opened publisher of a queue
 * @tried:    jobs whose sending has begun
 * @finished: so many, all of them, were said to be done
 * @begun:    somebody was handed it
 * @done:     somebody was told that it is done
 * @again:    came to somebody after that
 * @torn:     had other bytes than were sent
 */
struct batch {
	uint64_t tried;
	uint64_t finished;
	uint8_t begun[N_JOBS];
	uint8_t done[N_JOBS];
	uint32_t again;
	uint32_t torn;
};

/**
 * struct dialogue - the calls of one opened caller
 * @tried:     calls whose start has begun
 * @handed:    how often a server was handed it
 * @answered:  so many had a reply
 * @resets:    ended because their server had gone
 * @cancelled: by the caller
 * @ended:     with a reply, in time, or because their server had gone
 * @finished:  all of them have
 * @again:     came to a second server, or ended a second time
 * @torn:      requests and replies that had other bytes than they should
 * @unasked:   were answered by somebody who was never handed them
 */
struct dialogue {
	uint64_t tried;
	uint8_t handed[N_ASKED];
	uint32_t answered;
	uint32_t resets;
	uint32_t cancelled;
	uint32_t ended;
	uint32_t finished;
	uint32_t again;
	uint32_t torn;
	uint32_t unasked;
};

/**
 * struct history - everything
 * @tick:	   orders what several processes do; clocks may differ
 * @n_publications: handed out
 * @n_sessions:	   handed out
 * @n_batches:	   handed out
 * @n_dialogues:   handed out
 * @unkept:	   brokers that were killed while nobody kept what is sealed
 * @moves:	   of members of the sealed channel to other segments: of what is kept there are none
 * @leave:	   by worker: close in order and end
 * @stop:	   publishers: close in order and end
 * @drain:	   subscribers: read what there is, close and end
 * @address:	   of the broker
 * @seed:	   of the run
 * @users:	   the workers are of several users, so every channel is sealed sooner or later
 * @strict:	   what is kept may not be lost, although it is no record
 */
struct history {
	uint64_t tick;
	uint32_t n_publications;
	uint32_t n_sessions;
	uint32_t n_batches;
	uint32_t n_dialogues;
	uint32_t unkept;
	uint32_t moves;
	uint32_t leave[N_WORKERS];
	uint32_t stop;
	uint32_t drain;
	char address[108];
	uint64_t seed;
	bool users;
	bool strict;
	struct publication publications[N_PUBLICATIONS];
	struct session sessions[N_SESSIONS];
	struct batch batches[N_BATCHES];
	struct dialogue dialogues[N_DIALOGUES];
};

/* splitmix64 */
static inline uint64_t soak_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline bool soak_is_set(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE) != 0;
}

void soak_nap(long ms);

/* Fills record @number of publication @id. Returns its length. */
uint32_t soak_fill(uint8_t record[RECORD_MAX], uint32_t id, uint64_t number);

/* What soak_worker() does for those from FIRST_SUBMITTER on, from FIRST_HAND on, and so forth. */
void soak_submitter(struct history *history, unsigned number, uint64_t random);
void soak_hand(struct history *history, unsigned number, uint64_t random);
void soak_caller(struct history *history, unsigned number, uint64_t random);
void soak_server(struct history *history, unsigned number, uint64_t random);

/* Worker @number of the run, in a process of its own; never returns. */
_Noreturn void soak_worker(struct history *history, unsigned number, uint64_t random);

/* Does the history keep every promise? Prints what does not; returns how many. */
unsigned soak_check(const struct history *history);

#endif
