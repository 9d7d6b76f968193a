/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_PUB_H
#define SHMB_TOOLS_PUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <shmbroker/shmbroker.h>

#include "tools/decode.h"

struct pub {
	/* from the command line */
	const char *channel;
	char **records;
	int n_records;
	const char *file;
	bool is_raw;
	size_t chunk;
	double rate;
	uint32_t wait_subscribers;
	uint32_t history;
	bool is_queue;
	uint32_t ttl_ms;
	bool is_ordered;
	int64_t full_timeout_ns; /* how long to wait for space; 0: fail */
	bool drops_newest;
	bool is_retained;
	uint32_t priority;

	struct shmb_client *client;
	struct shmb_channel *handle;
	struct shmb_publisher *publisher;
	uint32_t record_len_max;
	bool is_typed;
	struct decode decode;

	uint64_t n_sent;
	bool has_had_subscriber;
	struct timespec start;
};

/* Publish one record's bytes, with a complaint if that fails. Returns 0 or 1. */
int pub_send(struct pub *pub, const void *data, size_t len);

/* Publish everything the command line asks for. Returns 0 or 1. */
int pub_input(struct pub *pub);

#endif
