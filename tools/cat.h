/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_CAT_H
#define SHMB_TOOLS_CAT_H

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/shmbroker.h>

#include "tools/decode.h"

/* Results of its functions beside 0 and 1 (a failure that has been told). */
#define CAT_STOPPED   2
#define CAT_TIMED_OUT 3

struct cat {
	/* from the command line */
	const char *channel;
	uint64_t limit;
	bool is_hex;
	bool is_raw;
	bool is_lossy;
	bool is_waiting;
	uint32_t history;
	uint32_t wait_publishers;
	int64_t deadline_ns;

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

/* Print the record in @cat->data. */
void cat_print(struct cat *cat, uint32_t len);

#endif
