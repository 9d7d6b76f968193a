/* SPDX-License-Identifier: Apache-2.0 */

/*
 * shmctl work: a worker of a queue. It follows a channel as cat does, but takes records, and says
 * what has become of each: printed, or what a command says that gets it on stdin.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/cat.h"
#include "tools/command.h"
#include "tools/print.h"

enum {
	KEY_CREDIT = 0x300,
	KEY_MAX_ATTEMPTS,
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct cat *cat = state->input;

	switch (key) {
	case KEY_CREDIT:
		cat->credit = command_number(state, "--credit", arg, 1, 64);
		return 0;
	case KEY_MAX_ATTEMPTS:
		cat->max_attempts = command_number(state, "--max-attempts", arg, 1, UINT32_MAX);
		return 0;
	case ARGP_KEY_ARG:
		/* The rest is the command and its arguments. */
		if (cat->channel) {
			cat->command = &state->argv[state->next - 1];
			state->next = state->argc;
			return 0;
		}
		return cat_parse(key, arg, state);
	default:
		return cat_parse(key, arg, state);
	}
}

static int32_t take(struct cat *cat)
{
	return shmb_subscriber_take(cat->subscriber, cat->data, cat->cap);
}

/* In the child: the record comes on stdin, and signals are as the shell has them. */
static void run_command(const struct cat *cat, int fd)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(fd, STDIN_FILENO) >= 0)
		execvp(cat->command[0], cat->command);
	complain("cannot run %s: %m", cat->command[0]);
	_exit(127);
}

/* Who does not read all of its stdin may still have done its work. */
static void feed(const struct cat *cat, int fd, uint32_t len)
{
	void (*before)(int) = signal(SIGPIPE, SIG_IGN);
	FILE *out = fdopen(fd, "w");

	if (out) {
		cat_print(cat, len, out);
		fclose(out);
	} else {
		close(fd);
	}
	signal(SIGPIPE, before);
}

/* Returns 0: it has done it; 1: it has failed; -1: it could not be run. */
static int give_to_command(const struct cat *cat, uint32_t len)
{
	int fds[2], status;
	pid_t pid;

	fflush(stdout);
	if (pipe(fds) < 0) {
		complain("cannot make a pipe: %m");
		return -1;
	}
	pid = fork();
	if (pid == 0) {
		close(fds[1]);
		run_command(cat, fds[0]);
	}
	close(fds[0]);
	if (pid < 0) {
		complain("cannot fork: %m");
		close(fds[1]);
		return -1;
	}
	feed(cat, fds[1], len);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return -1;
	return status != 0;
}

static int deal_with(struct cat *cat, uint32_t len)
{
	uint64_t job = cat->view->term;
	int status = 0;
	int32_t r;

	if (cat->command) {
		status = give_to_command(cat, len);
	} else {
		cat_print(cat, len, stdout);
		/* Who is told that it is done must have it. */
		if (fflush(stdout) || ferror(stdout))
			status = -1;
	}
	r = status ? shmb_subscriber_fail(cat->subscriber, job)
		   : shmb_subscriber_done(cat->subscriber, job);
	if (r < 0)
		return command_failed("cannot say what has become of a record", r);
	/* One that has failed comes again, and is not counted. */
	cat->n_records -= status != 0;
	return status < 0;
}

int command_work(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "count", 'n', "COUNT", 0, "End after so many records", 0 },
		{ "credit", KEY_CREDIT, "N", 0,
		  "Of each publisher, have at most N records that are not done (1 to 64)", 0 },
		{ "max-attempts", KEY_MAX_ATTEMPTS, "N", 0,
		  "Send a record that has failed N times to the queue CHANNEL/dead", 0 },
		{ "hex", 'x', NULL, 0, "Give payloads as hexadecimal digits", 0 },
		{ "raw", 'r', NULL, 0, "Give payloads as they are", 0 },
		{ "timeout", 't', "SECONDS", 0, "End after this time", 0 },
		{ "wait", 'w', NULL, 0, "Wait until the queue exists", 0 },
		{ "wait-for-publishers", CAT_KEY_WAIT_FOR_PUBLISHERS, "N", 0,
		  "First wait until so many publishers are there", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "CHANNEL [COMMAND [ARGUMENT...]]",
		.doc = "Work on a queue: take its records, one after the other, and print each, a "
		       "line as of cat, or run COMMAND with it on stdin."
		       "\vA record is done when it is printed, or when COMMAND succeeds. If COMMAND "
		       "fails, it comes again. What is not done when shmctl ends other workers "
		       "get.",
		.children = common_json_children,
		.help_filter = command_help_filter,
	};
	struct cat *cat = calloc(1, sizeof(*cat));
	int status;

	if (!cat) {
		complain("out of memory");
		return 1;
	}
	cat->pattern = SHMB_CHANNEL_QUEUE;
	cat->receive = take;
	cat->deal_with = deal_with;
	/* Options behind COMMAND are its own. */
	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, cat);
	status = cat_run(cat);
	free(cat);
	return status;
}
