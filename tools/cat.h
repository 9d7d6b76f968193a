/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_CAT_H
#define SHMB_TOOLS_CAT_H

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <shmbroker/shmbroker.h>

#include "tools/decode.h"

/* Results of its functions beside 0 and 1 (a failure that has been told). */
#define CAT_STOPPED   2
#define CAT_TIMED_OUT 3

/* Key of --wait-for-publishers, which both of its commands have. */
#define CAT_KEY_WAIT_FOR_PUBLISHERS 0x280

struct cat {
	/* how it gets records, and what becomes of one; returns 0, or 1: end */
	uint32_t pattern;
	int32_t (*receive)(struct cat *cat);
	int (*deal_with)(struct cat *cat, uint32_t len);

	/* from the command line */
	const char *channel;
	uint64_t limit;
	bool is_hex;
	bool is_raw;
	bool is_lossy;
	bool is_waiting;
	uint32_t history;
	uint32_t evict_after_ms;
	const char *conflate; /* a field, or "OFFSET:LEN"; NULL: all records */
	uint32_t wait_publishers;
	int64_t deadline_ns;
	uint32_t credit; /* of a worker, as the next ones */
	uint32_t max_attempts;
	char **command; /* NULL-terminated; NULL: print */

	struct shmb_client *client;
	struct shmb_channel *handle;
	struct shmb_subscriber *subscriber;
	struct shmb_view *view;
	struct shmb_waitset *waitset;
	int signal_fd;

	bool is_typed;
	struct decode decode;
	void *data;
	uint32_t cap;

	uint64_t n_records;
	uint64_t lost;
	bool has_failed;
};

/* What all that follow a channel have: its options, and its run. */
error_t cat_parse(int key, char *arg, struct argp_state *state);
int cat_run(struct cat *cat);

/* Print the record in @cat->data. */
void cat_print(const struct cat *cat, uint32_t len, FILE *out);

#endif
