/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>

#include "lib/api.h"

#include "daemon/quota.h"

#define TOKEN	  1000000ull
#define SECOND_NS 1000000000ull

static struct quota_user *user_of(struct table_node *node)
{
	return shmb_container_of(node, struct quota_user, node);
}

void quota_limits_user(struct quota_limits *limits)
{
	*limits = (struct quota_limits){ .max = {
						 [QUOTA_CONNECTIONS] = 16384,
						 [QUOTA_HALF_OPEN] = 1024,
						 [QUOTA_CLIENTS] = 65536,
						 [QUOTA_CHANNELS] = 65536,
						 [QUOTA_MEMBERS] = 65536,
						 [QUOTA_BYTES] = QUOTA_UNLIMITED,
						 [QUOTA_FD_PAIRS] = 65536,
					 } };
}

void quota_limits_system(struct quota_limits *limits)
{
	*limits = (struct quota_limits){
		.max = {
			[QUOTA_CONNECTIONS] = 64,
			[QUOTA_HALF_OPEN] = 16,
			[QUOTA_CLIENTS] = 128,
			[QUOTA_CHANNELS] = 64,
			[QUOTA_MEMBERS] = 256,
			[QUOTA_BYTES] = 256ull << 20,
			[QUOTA_FD_PAIRS] = 256,
		},
		.handshakes_per_s = 50,
		.handshake_burst = 100,
	};
}

static struct quota_limits limits_of(const struct quota *quota, uint32_t uid)
{
	for (uint32_t i = 0; i < quota->n_rules; i++)
		if (quota->rules[i].uid == uid)
			return quota->rules[i].limits;
	return quota->default_limits;
}

static void quota_refill(struct quota_user *user, uint64_t now_ns)
{
	uint64_t full = user->limits.handshake_burst * TOKEN;
	uint64_t elapsed = now_ns - user->refilled_ns;

	/* Capped first, so that a long absence cannot overflow the product. */
	if (elapsed > 3600 * SECOND_NS)
		elapsed = 3600 * SECOND_NS;
	user->tokens += elapsed / 1000 * user->limits.handshakes_per_s;
	if (user->tokens > full)
		user->tokens = full;
	user->refilled_ns = now_ns;
}

struct quota_user *quota_user_get(struct quota *quota, uint32_t uid)
{
	struct table_node *node = table_find(&quota->users, uid);
	struct quota_user *user;

	if (node) {
		user_of(node)->n_refs++;
		return user_of(node);
	}
	user = calloc(1, sizeof(*user));
	if (!user)
		return NULL;
	user->quota = quota;
	user->limits = limits_of(quota, uid);
	user->tokens = user->limits.handshake_burst * TOKEN;
	user->n_refs = 1;
	if (table_add(&quota->users, &user->node, uid) < 0) {
		free(user);
		return NULL;
	}
	return user;
}

void quota_user_put(struct quota *quota, struct quota_user *user)
{
	if (!user || --user->n_refs > 0)
		return;
	if (user->limits.handshakes_per_s &&
	    user->tokens + TOKEN < user->limits.handshake_burst * TOKEN)
		return;
	table_remove(&quota->users, &user->node);
	free(user);
}

int quota_charge(struct quota_user *user, enum quota_kind kind, uint64_t amount)
{
	const struct quota *quota = user->quota;
	uint64_t max = user->limits.max[kind];

	while (amount > max || user->used[kind] > max - amount)
		if (amount > max || (kind != QUOTA_BYTES && kind != QUOTA_MEMBERS) ||
		    !quota->make_room || !quota->make_room(quota->data, user))
			return -EDQUOT;
	user->used[kind] += amount;
	return 0;
}

void quota_owe(struct quota_user *user, enum quota_kind kind, uint64_t amount)
{
	user->used[kind] += amount;
}

void quota_release(struct quota_user *user, enum quota_kind kind, uint64_t amount)
{
	user->used[kind] -= amount;
}

bool quota_admit_handshake(struct quota_user *user, uint64_t now_ns)
{
	if (user->limits.handshakes_per_s == 0)
		return true;
	quota_refill(user, now_ns);
	if (user->tokens < TOKEN)
		return false;
	user->tokens -= TOKEN;
	return true;
}

void quota_reload(struct quota *quota, const struct quota_limits *default_limits,
		  const struct quota_rule *rules, uint32_t n_rules)
{
	quota->default_limits = *default_limits;
	quota->rules = rules;
	quota->n_rules = n_rules;
	for (size_t i = 0; i < quota->users.n_buckets; i++)
		for (struct table_node *n = quota->users.buckets[i]; n; n = n->next)
			user_of(n)->limits = limits_of(quota, (uint32_t)n->key);
}

void quota_deinit(struct quota *quota)
{
	struct table_node *node, *next;

	for (size_t i = 0; i < quota->users.n_buckets; i++) {
		for (node = quota->users.buckets[i]; node; node = next) {
			next = node->next;
			free(user_of(node));
		}
	}
	table_deinit(&quota->users);
}
