/* SPDX-License-Identifier: Apache-2.0 */
#ifndef EXAMPLES_FILE_H
#define EXAMPLES_FILE_H

/* The record of the examples that pass open files, the same in every language. */

#include <stdint.h>

#include <shmbroker/schema.h>

struct file {
	uint64_t len;
	char name[248]; /* padded with zeroes */
};

SHMB_SCHEMA(file_schema, struct file, "example.file", SHMB_FIELD(struct file, len),
	    SHMB_ARRAY(struct file, name));

#endif
