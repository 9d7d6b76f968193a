/* SPDX-License-Identifier: Apache-2.0 */

/* Calls what serve (of any language) serves: call [TEXT]. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shmbroker/shmbroker.h>

enum {
	UPPER = 1,
	COUNT = 2
};

#define TIMEOUT_NS 10000000000ll

static void fail(const char *what)
{
	char why[256];

	shmb_last_error(why, sizeof(why));
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

int main(int argc, char **argv)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_CALL };
	const char *text = argc > 1 ? argv[1] : "hello";
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_caller *caller;
	char reply[1024];
	uint64_t number;
	int32_t result, call;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, "example/calls", 13, &options, &channel) < 0)
		fail("example/calls");
	if (shmb_caller_open(channel, NULL, &caller) < 0)
		fail("call");

	/* One request, one reply. */
	result = shmb_caller_call(caller, UPPER, text, (uint32_t)strlen(text), reply, sizeof(reply),
				  TIMEOUT_NS);
	if (result < 0)
		fail("upper");
	printf("%.*s\n", (int)result, reply);

	/* One request, several replies. */
	call = shmb_caller_start(caller, COUNT, NULL, 0, TIMEOUT_NS);
	if (call < 0)
		fail("count");
	while ((result = shmb_caller_recv(caller, call, &number, sizeof(number), SHMB_FOREVER)) ==
	       sizeof(number))
		printf("%llu\n", (unsigned long long)number);
	if (result != -ENODATA)
		fail("count");

	shmb_caller_close(caller);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
