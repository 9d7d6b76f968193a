/* SPDX-License-Identifier: Apache-2.0 */

/* A hostile configuration: it is refused with a sentence, or it makes a policy that answers. */

#include <errno.h>
#include <fcntl.h>

#include "daemon/conf.h"

#include "tests/fuzz/fuzz.h"

static char path[48];

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

static void cleanup(void)
{
	unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd, r, before = fuzz_free_fd();
	struct conf conf;

	if (!path[0]) {
		snprintf(path, sizeof(path), "/tmp/shmb-fuzz-conf-%d", (int)getpid());
		atexit(cleanup);
	}
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	close(fd);
	r = conf_load(path, &conf);
	FUZZ_CHECK(r == 0 || r == -EINVAL || r == -ENOMEM);
	if (r == 0) {
		/* All of it was read. */
		FUZZ_CHECK(!memchr(data, 0, size));
		FUZZ_CHECK(!(conf.socket_mode & ~0666u));
		FUZZ_CHECK(!conf.directory || conf.directory[0] == '/');
		ask(&conf.policy);
		conf_free(&conf);
	}
	FUZZ_CHECK(fuzz_free_fd() == before);
	return 0;
}
