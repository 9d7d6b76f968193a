/* SPDX-License-Identifier: Apache-2.0 */
#ifndef EXAMPLES_POSE_H
#define EXAMPLES_POSE_H

/* The value of the examples of state channels, the same in every language. */

#include <stdint.h>

#include <shmbroker/schema.h>

struct pose {
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	double x;
	double y;
};

SHMB_SCHEMA(pose_schema, struct pose, "example.pose", SHMB_FIELD(struct pose, time_ns),
	    SHMB_FIELD(struct pose, x), SHMB_FIELD(struct pose, y));

#endif
