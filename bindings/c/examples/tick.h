/* SPDX-License-Identifier: Apache-2.0 */
#ifndef EXAMPLES_TICK_H
#define EXAMPLES_TICK_H

/* The record of the examples, the same in every language. */

#include <stdint.h>

#include <shmbroker/schema.h>

struct tick {
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	double price;
	uint32_t count;
	uint32_t flags;
};

SHMB_SCHEMA(tick_schema, struct tick, "example.tick", SHMB_FIELD(struct tick, time_ns),
	    SHMB_FIELD(struct tick, price), SHMB_FIELD(struct tick, count),
	    SHMB_FIELD(struct tick, flags));

#endif
