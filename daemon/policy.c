/* SPDX-License-Identifier: Apache-2.0 */

#include <stdlib.h>
#include <string.h>

#include "daemon/policy.h"

/*
 * Matches one part, '*' standing for any bytes but '/'. Going back only to the last '*' is enough,
 * because an earlier one could not take more than the later one can.
 */
static bool part_match(const char *glob, const char *glob_end, const char *name,
		       const char *name_end)
{
	const char *star = NULL, *resume = NULL;

	while (name < name_end) {
		if (glob < glob_end && *glob == '*') {
			star = glob++;
			resume = name;
		} else if (glob < glob_end && *glob == *name) {
			glob++;
			name++;
		} else if (star) {
			glob = star + 1;
			name = ++resume;
		} else {
			return false;
		}
	}
	while (glob < glob_end && *glob == '*')
		glob++;
	return glob == glob_end;
}

static const char *part_end(const char *p, const char *end)
{
	const char *slash = memchr(p, '/', (size_t)(end - p));

	return slash ? slash : end;
}

bool policy_glob_match(const char *glob, const char *name, uint32_t name_len)
{
	const char *glob_end = glob + strlen(glob), *name_end = name + name_len;
	const char *g, *n;

	for (;;) {
		g = part_end(glob, glob_end);
		n = part_end(name, name_end);
		if (g == glob_end && g - glob == 2 && memcmp(glob, "**", 2) == 0)
			return true;
		if (!part_match(glob, g, name, n))
			return false;
		if (g == glob_end || n == name_end)
			return g == glob_end && n == name_end;
		glob = g + 1;
		name = n + 1;
	}
}

bool policy_admits(const struct policy *policy, uint32_t uid)
{
	return !policy->single_user || uid == 0 || uid == policy->uid;
}

static bool id_in(uint32_t id, const uint32_t *ids, uint32_t n_ids)
{
	for (uint32_t i = 0; i < n_ids; i++)
		if (ids[i] == id)
			return true;
	return false;
}

static bool rule_matches_groups(const struct policy_rule *rule,
				const struct policy_subject *subject)
{
	if (rule->n_gids == 0 || id_in(subject->gid, rule->gids, rule->n_gids))
		return true;
	for (uint32_t i = 0; i < subject->n_groups; i++)
		if (id_in(subject->groups[i], rule->gids, rule->n_gids))
			return true;
	return false;
}

static bool rule_matches_key(const struct policy_rule *rule, const struct policy_subject *subject)
{
	if (rule->n_keys == 0)
		return true;
	/* Public keys: nothing is learnt from how long this takes. */
	for (uint32_t i = 0; i < rule->n_keys; i++)
		if (subject->key && memcmp(rule->keys[i], subject->key, SHMB_KEY_LEN) == 0)
			return true;
	return false;
}

static bool rule_matches(const struct policy_rule *rule, const struct policy_subject *subject,
			 const char *name, uint32_t name_len)
{
	if (rule->n_uids && !id_in(subject->uid, rule->uids, rule->n_uids))
		return false;
	if (!rule_matches_groups(rule, subject) || !rule_matches_key(rule, subject))
		return false;
	for (uint32_t i = 0; i < rule->n_channels; i++)
		if (policy_glob_match(rule->channels[i], name, name_len))
			return true;
	return false;
}

bool policy_check(const struct policy *policy, const struct policy_subject *subject, uint32_t op,
		  const char *name, uint32_t name_len, const struct policy_rule **ret_rule)
{
	const struct policy_rule *decided = NULL;
	bool allowed = policy->single_user && policy_admits(policy, subject->uid);

	for (uint32_t i = 0; i < policy->n_rules; i++) {
		const struct policy_rule *rule = &policy->rules[i];

		if (!((rule->allow | rule->deny) & op) ||
		    !rule_matches(rule, subject, name, name_len))
			continue;
		if (rule->deny & op) {
			decided = rule;
			allowed = false;
			break;
		}
		if (!decided)
			decided = rule;
		allowed = true;
	}
	if (ret_rule)
		*ret_rule = decided;
	return allowed;
}

static void rule_deinit(struct policy_rule *rule)
{
	for (uint32_t i = 0; i < rule->n_channels; i++)
		free(rule->channels[i]);
	free(rule->channels);
	free(rule->name);
	free(rule->uids);
	free(rule->gids);
	free(rule->keys);
}

uint32_t policy_backing(const struct policy *policy, const char *name, uint32_t name_len,
			uint32_t wanted)
{
	for (uint32_t i = 0; i < policy->n_rules; i++) {
		const struct policy_rule *rule = &policy->rules[i];

		for (uint32_t k = 0; rule->backing && k < rule->n_channels; k++)
			if (policy_glob_match(rule->channels[k], name, name_len))
				return rule->backing - 1;
	}
	return wanted;
}

uint32_t policy_evict_after_ms(const struct policy *policy, const struct policy_subject *subject,
			       const char *name, uint32_t name_len)
{
	for (uint32_t i = 0; i < policy->n_rules; i++)
		if (policy->rules[i].has_evict_after &&
		    rule_matches(&policy->rules[i], subject, name, name_len))
			return policy->rules[i].evict_after_ms;
	return POLICY_EVICT_NEVER;
}

uint32_t policy_priority_max(const struct policy *policy, const struct policy_subject *subject,
			     const char *name, uint32_t name_len)
{
	for (uint32_t i = 0; i < policy->n_rules; i++)
		if (policy->rules[i].has_priority &&
		    rule_matches(&policy->rules[i], subject, name, name_len))
			return policy->rules[i].priority_max;
	return SHMB_MEMBER_PRIORITY_MASK >> SHMB_MEMBER_PRIORITY_SHIFT;
}

uint32_t policy_fds_max(const struct policy *policy, const struct policy_subject *subject,
			const char *name, uint32_t name_len)
{
	for (uint32_t i = 0; i < policy->n_rules; i++)
		if (policy->rules[i].has_fds &&
		    rule_matches(&policy->rules[i], subject, name, name_len))
			return policy->rules[i].fds_max;
	return policy->single_user ? SHMB_FDS_MAX : 0;
}

void policy_deinit(struct policy *policy)
{
	for (uint32_t i = 0; i < policy->n_rules; i++)
		rule_deinit(&policy->rules[i]);
	free(policy->rules);
	policy->rules = NULL;
	policy->n_rules = 0;
}
