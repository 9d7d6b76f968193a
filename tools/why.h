/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_WHY_H
#define SHMB_TOOLS_WHY_H

/* Between the files of shmctl why. */

#include <stdint.h>
#include <time.h>

#include <jansson.h>

#include "tools/inspect.h"
#include "tools/process.h"

#define WHY_MOMENT_NS	 200000000
#define WHY_CAUSE_LEN	 1024
#define WHY_CAUSES_MAX	 16
#define WHY_WHO_LEN	 256
#define WHY_DURATION_LEN 32

/* From the most important on. */
enum rank {
	RANK_FULL, /* a publisher has no space */
	RANK_DEAD, /* a member whose process has ended */
	RANK_SLEPT, /* asleep, although there are records */
	RANK_EVICTED, /* held a publisher up for too long: is lossy now */
	RANK_UNREAD, /* does not read what is there */
	RANK_BROKER,
	RANK_KEPT, /* what a publisher that has gone has left waits for somebody */
	RANK_JOINING,
	RANK_ALONE, /* no publisher, or no subscriber */
	RANK_SLOW, /* reads, but is far behind; has work that it does not get done */
	RANK_IDLE, /* nothing is published */
	RANK_FLOWS,
};

/**
 * struct cause - one of the things that can hold a channel up
 * @rank: how important
 * @text: sentence, not escaped
 * @json: the same in parts
 */
struct cause {
	enum rank rank;
	char text[WHY_CAUSE_LEN];
	json_t *json;
};

/**
 * struct why - what is found out about a channel
 * @now:      the second picture
 * @before:   the first one
 * @channel:  in @now
 * @sum:      of @channel, now and before
 * @causes:   sorted by rank in the end
 * @n_causes: of @causes
 * @now_ns:   CLOCK_MONOTONIC of @now
 */
struct why {
	struct inspect now;
	struct inspect before;
	const struct inspect_item *channel;
	struct inspect_sum sum[2];
	struct cause causes[WHY_CAUSES_MAX];
	uint32_t n_causes;
	uint64_t now_ns;
};

/* ---- why-cause.c ------------------------------------------------------------------------------- */

uint64_t why_clock_ns(clockid_t clock);

/* Fills and returns @text: "1.5 s", "12 min", "3.0 h". */
const char *why_print_duration(char text[WHY_DURATION_LEN], uint64_t ns);

/* How long ago a time of the same clock was; 0: it was never noted, or a liar has noted it. */
uint64_t why_age_of(uint64_t then_ns, uint64_t now_ns);

/* Adds a sentence. Returns NULL if there are enough that matter more. */
struct cause *why_add_cause(struct why *why, enum rank rank, const char *format, ...)
	__attribute__((__format__(__printf__, 3, 4)));

/* A part of the sentence; @cause may be NULL. */
void why_set_u64(struct cause *cause, const char *name, uint64_t value);

/* ---- why-member.c ------------------------------------------------------------------------------ */

/* Fills and returns @text: "subscriber 17 (pid 4712 aggregate)". */
const char *why_print_who(char text[WHY_WHO_LEN], const struct why *why,
			  const struct inspect_item *member);

/* What the process of a member is doing. */
void why_look_process(const struct why *why, const struct inspect_item *member,
		      struct process *process);

/* A member and its process as a part of the sentence; @cause may be NULL. */
void why_set_member(struct cause *cause, const struct why *why, const struct inspect_item *member);

/* The pair as it was in the first picture, if both of its positions could be read then. */
const struct inspect_item *why_pair_before(const struct why *why, const struct inspect_item *pair);

/* Is its process there, has it joined, and what has it left? */
void why_judge_member(struct why *why, const struct inspect_item *member);

/* ---- verdicts on a channel --------------------------------------------------------------------- */

/* Of a stream, or of calls: who is behind, and holds up whom. */
void why_judge_subscribers(struct why *why);

/* The same of a queue. */
void why_judge_workers(struct why *why);

/* Is anybody there, and does anything move? One for streams and queues, one for states, one for calls. */
void why_judge_traffic(struct why *why);
void why_judge_values(struct why *why);
void why_judge_calls(struct why *why);

#endif
