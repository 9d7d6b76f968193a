/* SPDX-License-Identifier: Apache-2.0 */

/* Causes: sentences and the same in parts, sorted by how important they are. */

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tools/print.h"
#include "tools/why.h"

static const char *const rank_names[] = {
	"full", "dead",	   "slept", "evicted", "unread", "broker",
	"kept", "joining", "alone", "slow",    "idle",	 "flows"
};

uint64_t why_clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

const char *why_print_duration(char text[WHY_DURATION_LEN], uint64_t ns)
{
	double seconds = (double)ns / 1e9;

	if (seconds < 120)
		snprintf(text, WHY_DURATION_LEN, "%.1f s", seconds);
	else if (seconds < 7200)
		snprintf(text, WHY_DURATION_LEN, "%.0f min", seconds / 60);
	else
		snprintf(text, WHY_DURATION_LEN, "%.1f h", seconds / 3600);
	return text;
}

/* 0: a time that was never noted, or that a liar has noted. */
uint64_t why_age_of(uint64_t then_ns, uint64_t now_ns)
{
	return then_ns && then_ns <= now_ns ? now_ns - then_ns : 0;
}

/* Returns NULL if there are enough that matter more. What comes first of a rank stays first. */
struct cause *why_add_cause(struct why *why, enum rank rank, const char *format, ...)
{
	struct cause *cause;
	va_list args;

	if (why->n_causes == WHY_CAUSES_MAX && why->causes[WHY_CAUSES_MAX - 1].rank <= rank)
		return NULL;
	if (why->n_causes == WHY_CAUSES_MAX)
		json_decref(why->causes[--why->n_causes].json);
	cause = &why->causes[why->n_causes];
	while (cause > why->causes && cause[-1].rank > rank) {
		*cause = cause[-1];
		cause--;
	}
	why->n_causes++;
	*cause = (struct cause){ .rank = rank, .json = json_object() };
	va_start(args, format);
	vsnprintf(cause->text, sizeof(cause->text), format, args);
	va_end(args);
	json_object_set_new(cause->json, "cause", json_string(rank_names[rank]));
	json_object_set_new(cause->json, "sentence",
			    print_json_text(cause->text, strlen(cause->text)));
	return cause;
}

void why_set_u64(struct cause *cause, const char *name, uint64_t value)
{
	if (cause)
		json_object_set_new(cause->json, name, print_json_u64(value));
}
