/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Serves calls: UPPER answers with the text in capitals, COUNT with the numbers from 1 on, one after
 * the other. As many calls as asked for: serve [COUNT]. Run call (of any language) beside it.
 */

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <shmbroker/shmbroker.h>

enum {
	UPPER = 1,
	COUNT = 2
};

static void fail(const char *what)
{
	char why[256];

	shmb_last_error(why, sizeof(why));
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

static int32_t answer(struct shmb_server *server, char *text, uint32_t len)
{
	const struct shmb_call_view *view = shmb_server_view(server);
	int32_t call = view->call, result = 0;

	switch (view->type) {
	case UPPER:
		for (uint32_t i = 0; i < len; i++)
			text[i] = (char)toupper((unsigned char)text[i]);
		return shmb_server_reply(server, call, 0, text, len, 0, 1000000000);
	case COUNT:
		for (uint64_t i = 1; i <= 5 && result == 0; i++)
			result = shmb_server_reply(server, call, 0, &i, sizeof(i), SHMB_REPLY_MORE,
						   1000000000);
		return result < 0 ? result : shmb_server_end(server, call, 1000000000);
	default:
		return shmb_server_fail(server, call, ENOSYS, "no such method", 14, 1000000000);
	}
}

int main(int argc, char **argv)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_CALL };
	unsigned int count = argc > 1 ? (unsigned int)atoi(argv[1]) : 0;
	static char text[1u << 16];
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_server *server;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, "example/calls", 13, &options, &channel) < 0)
		fail("example/calls");
	if (shmb_server_open(channel, NULL, &server) < 0)
		fail("serve");

	for (unsigned int i = 0; !count || i < count; i++) {
		int32_t len = shmb_server_recv(server, text, sizeof(text), SHMB_FOREVER);

		if (len < 0)
			fail("recv");
		/* A caller that went away, or does not read, is no reason to stop. */
		if (answer(server, text, (uint32_t)len) < 0)
			fprintf(stderr, "process %u got no answer\n",
				shmb_server_view(server)->pid);
	}

	shmb_server_close(server);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
