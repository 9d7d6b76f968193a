/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_POLICY_H
#define SHMB_DAEMON_POLICY_H

/*
 * Who may do what: a pure function of credentials and rules. All rules that match are looked at;
 * one that denies wins, else one that allows, else the answer is no.
 */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/protocol.h>

#define POLICY_CREATE	 (1u << 0)
#define POLICY_PUBLISH	 (1u << 1)
#define POLICY_SUBSCRIBE (1u << 2)
#define POLICY_INSPECT	 (1u << 3)
#define POLICY_ADMIN	 (1u << 4)

#define POLICY_EVICT_NEVER UINT32_MAX /* a subscriber may hold publishers up for ever */

/**
 * struct policy_subject - who asks
 * @uid:      as the kernel gave it when the connection was made
 * @gid:      likewise
 * @groups:   supplementary groups, @n_groups of them
 * @n_groups: length of @groups
 * @key:      public key that the client has proved to hold
 */
struct policy_subject {
	uint32_t uid;
	uint32_t gid;
	const uint32_t *groups;
	uint32_t n_groups;
	const uint8_t *key;
};

/**
 * struct policy_rule - one rule; an empty list matches everybody
 * @name:	for people
 * @channels:	globs: '*' stands for what it likes in one part, a last part "**" for the rest
 * @n_channels: length of @channels; 0 matches no channel
 * @uids:	any of these
 * @n_uids:	length of @uids
 * @gids:	and any of these
 * @n_gids:	length of @gids
 * @keys:	and any of these, SHMB_KEY_LEN bytes each
 * @n_keys:	length of @keys
 * @allow:	POLICY_* bits
 * @deny:	POLICY_* bits
 * @backing:	of its channels: SHMB_MEMORY_* + 1; 0: it says nothing about that
 * @has_evict_after: it says how long subscribers may hold publishers up
 * @evict_after_ms: so long at most, or POLICY_EVICT_NEVER; 0: they may only be lossy
 * @has_priority: it says which priority publishers may have
 * @priority_max: so high at most
 * @has_fds:	it says how many fds records of a new channel may carry
 * @fds_max:	so many at most
 */
struct policy_rule {
	char *name;
	char **channels;
	uint32_t n_channels;
	uint32_t *uids;
	uint32_t n_uids;
	uint32_t *gids;
	uint32_t n_gids;
	uint8_t (*keys)[SHMB_KEY_LEN];
	uint32_t n_keys;
	uint32_t allow;
	uint32_t deny;
	uint32_t backing;
	bool has_evict_after;
	uint32_t evict_after_ms;
	bool has_priority;
	uint32_t priority_max;
	bool has_fds;
	uint32_t fds_max;
};

/**
 * struct policy - all of it
 * @single_user: only @uid and root may connect, and may do everything; no rules
 * @uid:	 that user
 * @rules:	 @n_rules of them
 * @n_rules:	 length of @rules
 */
struct policy {
	bool single_user;
	uint32_t uid;
	struct policy_rule *rules;
	uint32_t n_rules;
};

/* Does a glob match a channel's name? Linear in both, whatever they are. */
bool policy_glob_match(const char *glob, const char *name, uint32_t name_len);

/* May anybody of this uid connect at all? */
bool policy_admits(const struct policy *policy, uint32_t uid);

/**
 * policy_check() - may it?
 * @policy:   policy
 * @subject:  who
 * @op:	      one POLICY_* bit
 * @name:     of the channel
 * @name_len: its bytes
 * @ret_rule: stores the rule that decided, NULL if none did; may be NULL
 *
 * Return: the answer.
 */
bool policy_check(const struct policy *policy, const struct policy_subject *subject, uint32_t op,
		  const char *name, uint32_t name_len, const struct policy_rule **ret_rule);

/* The backing of a new channel: what the first rule says that says something, else @wanted. */
uint32_t policy_backing(const struct policy *policy, const char *name, uint32_t name_len,
			uint32_t wanted);

/*
 * How long a subscriber may hold publishers up: what the first rule says that matches it and says
 * something, else POLICY_EVICT_NEVER; 0: it may only be lossy.
 */
uint32_t policy_evict_after_ms(const struct policy *policy, const struct policy_subject *subject,
			       const char *name, uint32_t name_len);

/* The highest priority of a publisher: what the first rule says that matches it and says something. */
uint32_t policy_priority_max(const struct policy *policy, const struct policy_subject *subject,
			     const char *name, uint32_t name_len);

/*
 * How many fds records may carry of a channel that is created: what the first rule says that matches and
 * says something; else as many as there can be where all are one user, and none where they are not.
 */
uint32_t policy_fds_max(const struct policy *policy, const struct policy_subject *subject,
			const char *name, uint32_t name_len);

/* Frees the rules. */
void policy_deinit(struct policy *policy);

#endif
