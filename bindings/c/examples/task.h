/* SPDX-License-Identifier: Apache-2.0 */
#ifndef EXAMPLES_TASK_H
#define EXAMPLES_TASK_H

/* The record of the examples of queues, the same in every language. */

#include <stdint.h>

#include <shmbroker/schema.h>

struct task {
	uint64_t number;
};

SHMB_SCHEMA(task_schema, struct task, "example.task", SHMB_FIELD(struct task, number));

#endif
