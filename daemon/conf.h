/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_CONF_H
#define SHMB_DAEMON_CONF_H

/* The configuration file of shmbrokerd; see shmbrokerd.conf(5). */

#include "daemon/policy.h"
#include "daemon/quota.h"

/**
 * struct conf - what a file says
 * @directory:	 NULL: the default
 * @key_file:	 NULL: the default
 * @socket_mode: permissions of the socket
 * @idle_exit_s: 0: never
 * @limits:	 of each uid
 * @quota_rules: exceptions
 * @n_quota_rules: length of @quota_rules
 * @policy:	 rules
 */
struct conf {
	char *directory;
	char *key_file;
	uint32_t socket_mode;
	uint32_t idle_exit_s;
	struct quota_limits limits;
	struct quota_rule *quota_rules;
	uint32_t n_quota_rules;
	struct policy policy;
};

/**
 * conf_default() - what an empty file says: nobody may do anything
 * @conf: filled; give to conf_free()
 */
void conf_default(struct conf *conf);

/**
 * conf_load() - read a file
 * @path: of the file; owned by root or this user, and not writable by others
 * @conf: filled; give to conf_free()
 *
 * Return: 0; -ENOENT; -EACCES; -EINVAL; -ENOMEM; with a sentence that begins with file:line.
 */
int conf_load(const char *path, struct conf *conf);

/**
 * conf_parse() - as conf_load(), from text
 * @text: NUL-terminated
 * @name: what errors call it; keys are looked for in clients.d/ beside it
 * @conf: filled; give to conf_free()
 */
int conf_parse(const char *text, const char *name, struct conf *conf);

void conf_free(struct conf *conf);

#endif
