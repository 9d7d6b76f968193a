/* SPDX-License-Identifier: Apache-2.0 */

/*
 * shmctl: look at a shmbroker system and talk on it from the shell.
 *
 * It is an ordinary client: what it does through the broker, any program can do. What it shows of
 * others it reads from their shared memory without mapping it, so it also works when the broker
 * is stopped, was killed, or is stuck.
 */

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/command.h"
#include "tools/print.h"

static const struct {
	const char *name;
	int (*function)(int argc, char **argv);
	const char *description;
} commands[] = {
	{ "ls", command_ls, "list channels" },
	{ "show", command_show, "show one channel: schema, members, positions, memory" },
	{ "why", command_why, "say who or what holds a channel up" },
	{ "top", command_top, "watch the traffic of all channels" },
	{ "cat", command_cat, "print the records of a channel as they come" },
	{ "pub", command_pub, "publish records on a channel" },
	{ "work", command_work, "take the records of a queue, print them or run a command" },
	{ "get", command_get, "print latest values of a state channel" },
	{ "set", command_set, "put a value on a state channel" },
	{ "watch", command_watch, "print the values of a state channel as they change" },
	{ "call", command_call, "call a server of a call channel" },
	{ "rm", command_rm, "let retained channels go" },
	{ "ping", command_ping, "measure wake-up and round-trip times on this machine" },
	{ "doctor", command_doctor, "check this machine and the broker" },
	{ "keygen", command_keygen, "make a client key" },
	{ "version", command_version, "print versions" },
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static char *help_filter(int key, const char *text, void *input)
{
	char *list = NULL;
	size_t len;
	FILE *file;

	if (key != ARGP_KEY_HELP_PRE_DOC)
		return command_help_filter(key, text, input);
	file = open_memstream(&list, &len);
	if (!file)
		return (char *)text;
	fprintf(file, "%s\n\n", text);
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(file, "  %-8s %s\n", commands[i].name, commands[i].description);
	fputs("\n'shmctl COMMAND --help' tells more about each.", file);
	fclose(file);
	return list;
}

static error_t parse_main(int key, char *arg, struct argp_state *state)
{
	int *first = state->input;

	(void)arg;
	switch (key) {
	case ARGP_KEY_ARG:
		/* The rest belongs to the subcommand. */
		*first = state->next - 1;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_state_help(state, stderr, ARGP_HELP_STD_HELP & ~ARGP_HELP_EXIT_OK);
		exit(EXIT_USAGE);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp main_argp = {
	.parser = parse_main,
	.args_doc = "COMMAND [ARGUMENT...]",
	.doc = "Look at shared-memory channels and talk on them.",
	.children = common_children,
	.help_filter = help_filter,
};

int command_version(int argc, char **argv)
{
	static const struct argp argp = { .doc = "Print the versions of shmctl, of the library it "
						 "runs with, and of what they speak.",
					  .children = common_json_children,
					  .help_filter = command_help_filter };

	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	if (common.is_json)
		return print_json(json_pack("{s:s, s:s, s:i, s:i, s:i}", "shmctl",
					    SHMB_VERSION_STRING, "library", shmb_version(), "abi",
					    (int)shmb_abi_version(), "layout", SHMB_LAYOUT_VERSION,
					    "protocol", SHMB_PROTOCOL_VERSION),
				  JSON_INDENT(2));
	printf("shmctl %s\nlibshmbroker %s (ABI %d)\nlayout %d, protocol %d\n", SHMB_VERSION_STRING,
	       shmb_version(), (int)shmb_abi_version(), SHMB_LAYOUT_VERSION, SHMB_PROTOCOL_VERSION);
	return 0;
}

/* A full disk or a closed pipe must not look like success. */
static int finish(int status)
{
	if (fflush(stdout) || ferror(stdout)) {
		complain("cannot write the output: %m");
		return EXIT_FAILURE;
	}
	return status;
}

int main(int argc, char **argv)
{
	char name[32];
	int first = 0;

	/* One write() a line: several of us may share a terminal or a log. */
	setvbuf(stderr, NULL, _IOLBF, BUFSIZ);
	setlocale(LC_CTYPE, "");
	argp_program_version = "shmctl " SHMB_VERSION_STRING;
	argp_err_exit_status = EXIT_USAGE;
	argp_parse(&main_argp, argc, argv, ARGP_IN_ORDER, NULL, &first);
	for (size_t i = 0; i < N_COMMANDS; i++) {
		if (strcmp(argv[first], commands[i].name) != 0)
			continue;
		snprintf(name, sizeof(name), "shmctl %s", commands[i].name);
		argv[first] = name;
		return finish(commands[i].function(argc - first, argv + first));
	}
	complain("there is no command '%s'; 'shmctl --help' lists them", argv[first]);
	return EXIT_USAGE;
}
