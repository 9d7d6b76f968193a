/* SPDX-License-Identifier: Apache-2.0 */

/* A hostile configuration: it is refused with a sentence, or it makes a policy that answers. */

#include <errno.h>

#include "daemon/conf.h"

#include "tests/fuzz/fuzz.h"

static void ask(const struct policy *policy)
{
	static const char *const names[] = { "a", "a/b", "market/eu/tick", "x..y//", "" };
	static const uint8_t key[SHMB_KEY_LEN] = { 1 };
	static const uint32_t groups[] = { 0, 100 };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		for (uint32_t uid = 0; uid < 2; uid++) {
			struct policy_subject subject = {
				.uid = uid, .gid = uid, .groups = groups, .n_groups = 2, .key = key
			};
			const struct policy_rule *rule = NULL;
			uint32_t len = (uint32_t)strlen(names[i]);
			bool may = policy_check(policy, &subject, POLICY_PUBLISH, names[i], len,
						&rule);

			/* Nothing is allowed by nobody. */
			FUZZ_CHECK(!may || policy->single_user ||
				   (rule && (rule->allow & POLICY_PUBLISH) &&
				    !(rule->deny & POLICY_PUBLISH)));
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct conf conf;
	char *text = malloc(size + 1);
	int r;

	FUZZ_CHECK(text);
	memcpy(text, data, size);
	text[size] = '\0';
	r = conf_parse(text, "/nonexistent/shmbrokerd.conf", &conf);
	FUZZ_CHECK(r == 0 || r == -EINVAL || r == -ENOMEM);
	if (r == 0) {
		FUZZ_CHECK(!(conf.socket_mode & ~0666u));
		FUZZ_CHECK(!conf.directory || conf.directory[0] == '/');
		ask(&conf.policy);
		conf_free(&conf);
	}
	free(text);
	return 0;
}
