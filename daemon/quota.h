/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_QUOTA_H
#define SHMB_DAEMON_QUOTA_H

/*
 * What each uid may use. Everything is charged to the uid that caused it, before it is made, and
 * released when it is gone. Root is not exempt.
 */

#include <stdbool.h>
#include <stdint.h>

#include "daemon/table.h"

#define QUOTA_UNLIMITED UINT64_MAX

enum quota_kind {
	QUOTA_CONNECTIONS,
	QUOTA_HALF_OPEN,
	QUOTA_CLIENTS,
	QUOTA_CHANNELS,
	QUOTA_MEMBERS,
	QUOTA_BYTES,
	QUOTA_FD_PAIRS, /* of a publisher and a subscriber, whose records may carry fds */
	QUOTA_N_KINDS,
};

/**
 * struct quota_limits - of one uid
 * @max:	    by enum quota_kind
 * @handshakes_per_s: 0: as many as it likes
 * @handshake_burst: so many at once
 */
struct quota_limits {
	uint64_t max[QUOTA_N_KINDS];
	uint32_t handshakes_per_s;
	uint32_t handshake_burst;
};

/* Limits of one uid that differ from the default. */
struct quota_rule {
	uint32_t uid;
	struct quota_limits limits;
};

struct quota;

/**
 * struct quota_user - what a uid uses
 * @node:	 in the table, by uid
 * @quota:	 whose table
 * @limits:	 its limits
 * @used:	 by enum quota_kind
 * @tokens:	 handshakes it may make at once, in millionths
 * @refilled_ns: when @tokens was computed
 * @n_refs:	 who points here
 */
struct quota_user {
	struct table_node node;
	const struct quota *quota;
	struct quota_limits limits;
	uint64_t used[QUOTA_N_KINDS];
	uint64_t tokens;
	uint64_t refilled_ns;
	uint32_t n_refs;
};

/**
 * struct quota - of all uids
 * @users:	    by uid
 * @default_limits: of a uid without a rule
 * @rules:	    exceptions; the caller's, must outlive the quota
 * @n_rules:	    length of @rules
 * @make_room:	    gives up something of a user that it can do without, members or bytes, and
 *		    returns whether there was anything; may be NULL
 * @data:	    for @make_room
 */
struct quota {
	struct table users;
	struct quota_limits default_limits;
	const struct quota_rule *rules;
	uint32_t n_rules;
	bool (*make_room)(void *data, const struct quota_user *user);
	void *data;
};

/* What a uid may use where every client is the same user. */
void quota_limits_user(struct quota_limits *limits);

/* What a uid may use by default where clients do not trust each other. */
void quota_limits_system(struct quota_limits *limits);

/**
 * quota_user_get() - find or make a uid's account
 * @quota: quota
 * @uid:   uid
 *
 * Return: the account, to be given back to quota_user_put(); NULL: no memory.
 */
struct quota_user *quota_user_get(struct quota *quota, uint32_t uid);

/* Gives an account back. A uid that is out of tokens keeps it, so that it gains nothing by that. */
void quota_user_put(struct quota *quota, struct quota_user *user);

/**
 * quota_charge() - use some
 * @user:   account
 * @kind:   of what
 * @amount: how much
 *
 * Return: 0; -EDQUOT: nothing was charged.
 */
int quota_charge(struct quota_user *user, enum quota_kind kind, uint64_t amount);

/* Uses some, whatever the limit is: less was given back, or is about to be. */
void quota_owe(struct quota_user *user, enum quota_kind kind, uint64_t amount);

/* Gives back what was charged. */
void quota_release(struct quota_user *user, enum quota_kind kind, uint64_t amount);

/* May this uid make another handshake now? */
bool quota_admit_handshake(struct quota_user *user, uint64_t now_ns);

/* New limits after a reload; what is used stays used. */
void quota_reload(struct quota *quota, const struct quota_limits *default_limits,
		  const struct quota_rule *rules, uint32_t n_rules);

void quota_deinit(struct quota *quota);

#endif
