/* SPDX-License-Identifier: Apache-2.0 */

/* Calls through the public API: a caller on one side, a server on the other. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ends.h"

#define TIMEOUT_NS 10000000000ll
#define SPIN_NS	   1000000000u /* as the others who poll: whatever happens */

struct call_ends {
	struct shmb_caller *caller;
	struct shmb_server *server;
	uint8_t buffer[256];
};

static int open_channel(struct bench_workload *work, struct shmb_channel **ret_channel)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_CALL,
						.lane_len = 1u << 16 };
	struct shmb_client *client = bench_client(work);
	char name[2 * BENCH_NAME_LEN_MAX];

	if (!client)
		return -1;
	snprintf(name, sizeof(name), "bench/%s", work->name);
	if (shmb_channel_open(client, name, (uint32_t)strlen(name), &options, ret_channel) < 0)
		return bench_skip(work, "%.90s", bench_last_error());
	return 0;
}

static int open_ends(struct bench_workload *work, unsigned int side)
{
	struct shmb_caller_options caller = {
		.options_len = sizeof(caller),
		.flags = (work->sleeps ? SHMB_CALLER_NO_SPIN : 0) |
			 (work->trusting ? SHMB_CALLER_TRUSTING : 0),
		.spin_ns = SPIN_NS,
	};
	struct shmb_server_options server = {
		.options_len = sizeof(server),
		.flags = (work->sleeps ? SHMB_SERVER_NO_SPIN : 0) |
			 (work->trusting ? SHMB_SERVER_TRUSTING : 0),
		.spin_ns = SPIN_NS,
	};
	struct call_ends *ends = calloc(1, sizeof(*ends));
	struct shmb_channel *channel;
	int32_t result;

	work->state = ends;
	if (!ends)
		return bench_skip(work, "no memory");
	if (open_channel(work, &channel) < 0)
		return -1;
	/* Who is opened on one CPU does not poll: the other side could not run meanwhile. */
	bench_unpin();
	result = side == 0 ? shmb_caller_open(channel, &caller, &ends->caller)
			   : shmb_server_open(channel, &server, &ends->server);
	bench_pin_again();
	if (result < 0)
		return bench_skip(work, "%.90s", bench_last_error());
	return bench_wait_members(work, channel, 1, 1);
}

static double call(struct bench_workload *work, uint64_t ops)
{
	struct call_ends *ends = work->state;
	uint64_t sum = 0, value;

	for (uint64_t i = 0; i < ops; i++) {
		memcpy(ends->buffer, &i, sizeof(i));
		if (shmb_caller_call(ends->caller, 0, ends->buffer, work->size, ends->buffer,
				     sizeof(ends->buffer), TIMEOUT_NS) != (int32_t)work->size)
			bench_die("cannot call: %s", bench_last_error());
		memcpy(&value, ends->buffer, sizeof(value));
		sum += value;
	}
	bench_check_sum(work, sum, ops);
	return 0;
}

static double serve(struct bench_workload *work, uint64_t ops)
{
	struct call_ends *ends = work->state;
	const struct shmb_call_view *view = shmb_server_view(ends->server);

	for (uint64_t i = 0; i < ops; i++) {
		int32_t len = shmb_server_recv(ends->server, ends->buffer, sizeof(ends->buffer),
					       SHMB_FOREVER);

		if (len != (int32_t)work->size ||
		    shmb_server_reply(ends->server, view->call, 0, ends->buffer, (uint32_t)len, 0,
				      TIMEOUT_NS) < 0)
			bench_die("cannot serve: %s", bench_last_error());
	}
	return 0;
}

static const struct bench_driver driver = { .open = open_ends, .run = { call, serve } };

void bench_add_call(void)
{
	bench_add("rtt", NULL, "shmb-call", "shmbroker, call", &driver, 48);
	bench_add("rtt", NULL, "shmb-call-trusting", "shmbroker, call, trusting", &driver, 48)
		->trusting = true;
	bench_add_sleep("one-core", "shmb-call", "shmbroker, call", &driver);
	bench_add_sleep("two-cores", "shmb-call", "shmbroker, call", &driver);
}
