/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_COMMAND_H
#define SHMB_TOOLS_COMMAND_H

/* What all subcommands share. Each is one file with one function of this type. */

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/shmbroker.h>

/* Exit codes: 0 it worked, 1 it failed and a sentence on stderr says why, 2 wrong usage. */
#define EXIT_USAGE 2

/**
 * struct common - options that mean the same everywhere
 * @address:  control socket of the broker, or NULL: search
 * @registry: file to inspect in place of the broker's registry; its segments lie beside it
 * @is_json:  print JSON
 */
struct common {
	const char *address;
	const char *registry;
	bool is_json;
};

extern struct common common;

/* Put one into a subcommand's .children: --address, and --address and --json. */
extern const struct argp_child common_children[];
extern const struct argp_child common_json_children[];

/* Into its .help_filter: leaves out what --help need not say. */
char *command_help_filter(int key, const char *text, void *input);

int command_call(int argc, char **argv);
int command_cat(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_get(int argc, char **argv);
int command_keygen(int argc, char **argv);
int command_ls(int argc, char **argv);
int command_ping(int argc, char **argv);
int command_pub(int argc, char **argv);
int command_rm(int argc, char **argv);
int command_set(int argc, char **argv);
int command_show(int argc, char **argv);
int command_top(int argc, char **argv);
int command_version(int argc, char **argv);
int command_watch(int argc, char **argv);
int command_why(int argc, char **argv);
int command_work(int argc, char **argv);

/* Parser of a subcommand that takes one channel; its input is where the name goes, NULL before. */
error_t command_parse_channel(int key, char *arg, struct argp_state *state);

/* A number from the command line, or usage error: @what names the option. */
uint64_t command_number(struct argp_state *state, const char *what, const char *text, uint64_t min,
			uint64_t max);
double command_seconds(struct argp_state *state, const char *what, const char *text);

/* Connect as shmctl, with a complaint if that fails. Returns 0 or 1. */
int command_connect(struct shmb_client **ret_client);

/* Complain about the last call of the library that failed: "<what>: <why>". Returns 1. */
int command_failed(const char *what, int32_t result);

#endif
