/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What is left of the memory control group that will be charged for a segment. A fallocate beyond
 * it does not fail: it gets its caller killed. Limits of all groups up to the root count. In a
 * container without a cgroup namespace the path is the host's and leads nowhere, but the root that
 * is mounted there is the container's own.
 */

#include "lib/control-group.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/fd.h"

struct hierarchy {
	const char *root;
	const char *limit;
	const char *usage;
	const char *cache[2]; /* keys in memory.stat, of the group and those below it */
};

static const struct hierarchy version_1 = { "/sys/fs/cgroup/memory",
					    "memory.limit_in_bytes",
					    "memory.usage_in_bytes",
					    { "\ntotal_active_file ", "\ntotal_inactive_file " } };
static const struct hierarchy version_2 = {
	"/sys/fs/cgroup", "memory.max", "memory.current", { "\nactive_file ", "\ninactive_file " }
};

/* Text of a file in the group's directory; empty if there is none. */
static void read_text(const char *dir, const char *file, char *text, size_t cap)
{
	char path[PATH_MAX];
	size_t len = 0;
	ssize_t n;
	int fd;

	text[0] = '\0';
	if (snprintf(path, sizeof(path), "%s/%s", dir, file) >= (int)sizeof(path))
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	while (len < cap - 1 && (n = read(fd, text + len, cap - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	shmb_fd_close(fd);
}

static bool read_number(const char *dir, const char *file, uint64_t *ret)
{
	char text[32];

	read_text(dir, file, text, sizeof(text));
	*ret = strtoull(text, NULL, 10);
	return text[0] >= '0' && text[0] <= '9'; /* not "max" */
}

static uint64_t room_of(const struct hierarchy *hierarchy, const char *dir)
{
	uint64_t limit, usage, cache = 0;
	char stat[8192];

	if (!read_number(dir, hierarchy->limit, &limit) ||
	    !read_number(dir, hierarchy->usage, &usage))
		return UINT64_MAX;
	if (limit > UINT64_MAX / 4)
		return UINT64_MAX; /* version 1 says "none" that way */
	read_text(dir, "memory.stat", stat, sizeof(stat));
	for (int i = 0; i < 2; i++) {
		const char *line = strstr(stat, hierarchy->cache[i]);

		if (line)
			cache += strtoull(line + strlen(hierarchy->cache[i]), NULL, 10);
	}
	usage = usage > cache ? usage - cache : 0;
	return limit > usage ? limit - usage : 0;
}

/* The least of a group and all above it. */
static uint64_t room_up_to_root(const struct hierarchy *hierarchy, const char *group)
{
	uint64_t least = UINT64_MAX, room;
	char dir[PATH_MAX];
	size_t root_len = strlen(hierarchy->root);

	if (snprintf(dir, sizeof(dir), "%s%s", hierarchy->root, group) >= (int)sizeof(dir))
		return UINT64_MAX;
	for (;;) {
		room = room_of(hierarchy, dir);
		if (room < least)
			least = room;
		if (strlen(dir) <= root_len)
			return least;
		*strrchr(dir, '/') = '\0';
	}
}

uint64_t shmb_control_group_room(void)
{
	FILE *file = fopen("/proc/self/cgroup", "re");
	uint64_t least = UINT64_MAX, room;
	char line[PATH_MAX + 256];

	if (!file)
		return UINT64_MAX;
	while (fgets(line, sizeof(line), file)) {
		char *controllers = strchr(line, ':');
		char *group = controllers ? strchr(controllers + 1, ':') : NULL;
		const struct hierarchy *hierarchy = NULL;

		if (!group || group[1] != '/')
			continue;
		*group++ = '\0';
		group[strcspn(group, "\n")] = '\0';
		if (controllers[1] == '\0')
			hierarchy = &version_2;
		else if (strstr(controllers, "memory"))
			hierarchy = &version_1;
		room = hierarchy ? room_up_to_root(hierarchy, group) : UINT64_MAX;
		if (room < least)
			least = room;
	}
	fclose(file);
	return least;
}
