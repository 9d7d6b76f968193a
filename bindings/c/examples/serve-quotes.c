/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Serves a typed call channel: the quote of a symbol, made up from its letters. As many calls as asked
 * for: serve-quotes [COUNT]. Ask it with: shmctl call example/quotes symbol=ACME
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shmbroker/shmbroker.h>

#include "quote.h"

static void fail(const char *what)
{
	char why[256];

	shmb_last_error(why, sizeof(why));
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

static int32_t answer(struct shmb_server *server, const struct query *query)
{
	int32_t call = shmb_server_view(server)->call;
	struct quote quote = { .count = (uint32_t)strnlen(query->symbol, sizeof(query->symbol)) };

	if (!quote.count)
		return shmb_server_fail(server, call, ENOENT, "which symbol?", 13, 1000000000);
	for (uint32_t i = 0; i < quote.count; i++)
		quote.price += (unsigned char)query->symbol[i] / 4.0;
	return shmb_server_reply(server, call, 0, &quote, sizeof(quote), 0, 1000000000);
}

int main(int argc, char **argv)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_CALL,
						.schema = &lookup_schema,
						.schema_len = sizeof(lookup_schema) };
	unsigned int count = argc > 1 ? (unsigned int)atoi(argv[1]) : 0;
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_server *server;
	struct query query;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, "example/quotes", 14, &options, &channel) < 0)
		fail("example/quotes");
	if (shmb_server_open(channel, NULL, &server) < 0)
		fail("serve");

	for (unsigned int i = 0; !count || i < count; i++) {
		/* Others than of this length are not let through. */
		if (shmb_server_recv(server, &query, sizeof(query), SHMB_FOREVER) < 0)
			fail("recv");
		if (answer(server, &query) < 0)
			fprintf(stderr, "process %u got no answer\n",
				shmb_server_view(server)->pid);
	}

	shmb_server_close(server);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
