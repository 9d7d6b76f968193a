/* SPDX-License-Identifier: Apache-2.0 */

/* Options and errors that all subcommands share. */

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/command.h"
#include "tools/print.h"

struct common common;

enum {
	KEY_REGISTRY = 0x100,
	KEY_JSON,
};

static error_t parse_common(int key, char *arg, struct argp_state *state)
{
	(void)state;
	switch (key) {
	case 'a':
		common.address = arg;
		return 0;
	case KEY_REGISTRY:
		common.registry = arg;
		return 0;
	case KEY_JSON:
		common.is_json = true;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

#define COMMON_OPTIONS                                                    \
	{ "address", 'a', "PATH", 0, "Control socket of the broker", 0 }, \
	{                                                                 \
		"registry", KEY_REGISTRY, "FILE", OPTION_HIDDEN, NULL, 0  \
	}

static const struct argp_option plain_options[] = { COMMON_OPTIONS, { 0 } };
static const struct argp_option json_options[] = { COMMON_OPTIONS,
						   { "json", KEY_JSON, NULL, 0, "Print JSON", 0 },
						   { 0 } };
static const struct argp plain_argp = { .options = plain_options, .parser = parse_common };
static const struct argp json_argp = { .options = json_options, .parser = parse_common };
const struct argp_child common_children[] = { { &plain_argp, 0, NULL, 0 }, { 0 } };
const struct argp_child common_json_children[] = { { &json_argp, 0, NULL, 0 }, { 0 } };

char *command_help_filter(int key, const char *text, void *input)
{
	(void)input;
	return key == ARGP_KEY_HELP_DUP_ARGS_NOTE ? NULL : (char *)text;
}

uint64_t command_number(struct argp_state *state, const char *what, const char *text, uint64_t min,
			uint64_t max)
{
	unsigned long long value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || value < min || value > max)
		argp_error(state, "%s: '%s' is not a number from %" PRIu64 " to %" PRIu64, what,
			   text, min, max);
	return value;
}

double command_seconds(struct argp_state *state, const char *what, const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (*text == '\0' || *end || !isfinite(value) || value < 0 || value > 1e8)
		argp_error(state, "%s: '%s' is not a number of seconds", what, text);
	return value;
}

int command_connect(struct shmb_client **ret_client)
{
	struct shmb_client_options options = {
		.options_len = sizeof(options),
		.label = "shmctl",
		.label_len = strlen("shmctl"),
		.address = common.address,
		.address_len = common.address ? strlen(common.address) : 0,
	};
	int32_t r = shmb_client_open(&options, ret_client);

	return r < 0 ? command_failed("cannot connect", r) : 0;
}

int command_failed(const char *what, int32_t result)
{
	char why[512] = "";

	/* Some results carry no sentence of their own; then the general one has to do. */
	if (shmb_last_error(why, sizeof(why)) <= 0 || why[0] == '\0')
		complain("%s: %s", what, shmb_strerror(result));
	else
		complain("%s: %s", what, why);
	return 1;
}

error_t command_parse_channel(int key, char *arg, struct argp_state *state)
{
	const char **name = state->input;

	switch (key) {
	case ARGP_KEY_ARG:
		if (*name)
			argp_error(state, "one channel at a time");
		*name = arg;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "which channel? 'shmctl ls' lists them");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}
