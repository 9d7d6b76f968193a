/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/system/held.h"

#include "tests/system/process.h"

/* Mappings of shared memory and of rings. */
static unsigned shared_mappings(pid_t pid)
{
	char path[32], line[512];
	unsigned n = 0;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	while (maps && fgets(line, sizeof(line), maps))
		n += strstr(line, "/shmb.") || strstr(line, "memfd:") || strstr(line, "io_uring");
	if (maps)
		fclose(maps);
	return n;
}

struct held held_by(pid_t pid)
{
	return (struct held){ process_entries(pid, "fd"), shared_mappings(pid) };
}

struct held held_settled(pid_t pid)
{
	struct held held = held_by(pid), again;

	for (int i = 0, same = 0; i < 400 && same < 40; i++) {
		usleep(5000);
		again = held_by(pid);
		same = again.fds == held.fds && again.mappings == held.mappings ? same + 1 : 0;
		held = again;
	}
	return held;
}

bool held_is_back(pid_t pid, const struct held *before)
{
	struct held now = held_by(pid);

	return now.fds <= before->fds && now.mappings <= before->mappings;
}
