/* SPDX-License-Identifier: Apache-2.0 */

/* shmctl rm: let retained channels go. */

#include <string.h>

#include "tools/command.h"

struct channels {
	char **names;
	int n;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct channels *channels = state->input;

	(void)arg;
	switch (key) {
	case ARGP_KEY_ARGS:
		channels->names = state->argv + state->next;
		channels->n = state->argc - state->next;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "which channel? 'shmctl ls' lists them");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int command_rm(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = parse,
		.args_doc = "CHANNEL...",
		.doc = "Let retained channels go: what publishers that have gone have left there now, "
		       "each channel as soon as nobody has it open any more.",
		.children = common_children,
		.help_filter = command_help_filter,
	};
	struct channels channels = { 0 };
	struct shmb_client *client;
	int status = 0;

	argp_parse(&argp, argc, argv, 0, NULL, &channels);
	if (command_connect(&client))
		return 1;
	for (int i = 0; i < channels.n; i++) {
		int32_t r = shmb_channel_remove(client, channels.names[i],
						(uint32_t)strlen(channels.names[i]));

		if (r < 0)
			status = command_failed(channels.names[i], r);
	}
	shmb_client_close(client);
	return status;
}
