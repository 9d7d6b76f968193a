/* SPDX-License-Identifier: Apache-2.0 */

/* What ls, show and top share: from the command line's options to a picture of the system. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <shmbroker/schema.h>

#include "tools/command.h"
#include "tools/look.h"
#include "tools/place.h"
#include "tools/print.h"
#include "tools/process.h"

#define COMPLAINTS_MAX 10

static struct place place;

static int open_registry_file(struct inspect *inspect, const char *path)
{
	const char *slash = strrchr(path, '/');
	int len = slash ? slash - path + (slash == path) : 1;

	snprintf(place.segments_dir, sizeof(place.segments_dir), "%.*s", len, slash ? path : ".");
	snprintf(place.registry, sizeof(place.registry), "%s", path);
	if (inspect_open(inspect, place.registry, place.segments_dir, 0) == 0)
		return 0;
	complain("%s", inspect->why);
	return 1;
}

static void explain_missing(const struct inspect *inspect, int r, int is_listening)
{
	struct stat st;

	if (r == -ENOENT && is_listening == 1)
		complain("a broker listens on %s, but its registry %s is missing", place.address,
			 place.registry);
	else if (r == -ENOENT)
		complain("no broker runs at %s, and none has left anything there", place.address);
	else if (r == -EACCES && stat(place.registry, &st) == 0)
		complain("may not read %s: it belongs to uid %u; run shmctl as that user or as "
			 "root",
			 place.registry, (unsigned)st.st_uid);
	else
		complain("%s", inspect->why);
}

int look_open(struct inspect *inspect)
{
	char why[INSPECT_WHY_LEN + PATH_MAX];
	int is_listening, r;

	if (common.registry)
		return open_registry_file(inspect, common.registry);
	if (place_find(&place, why, sizeof(why)) < 0) {
		complain("%s", why);
		return 1;
	}
	is_listening = place_is_listening(place.address);
	r = inspect_open(inspect, place.registry, place.segments_dir, place.instance);
	if (r < 0) {
		explain_missing(inspect, r, is_listening);
		return 1;
	}
	if (is_listening == -EACCES || is_listening == -EPERM)
		complain("may not connect to %s; showing its registry", place.address);
	else if (is_listening < 0)
		complain("no broker runs at %s; showing what it left", place.address);
	return 0;
}

int look_again(struct inspect *inspect)
{
	return inspect_open(inspect, place.registry, place.segments_dir, place.instance) < 0;
}

int look_complain(const struct inspect *inspect)
{
	uint32_t n = 0;

	if (inspect->n_broken_entries > 0)
		complain("the registry has entries that make no sense: left out %" PRIu32,
			 inspect->n_broken_entries);
	for (uint32_t i = 0; i < inspect->n_items && n < COMPLAINTS_MAX; i++) {
		if (inspect->items[i].why[0] == '\0')
			continue;
		complain("%s", inspect->items[i].why);
		n++;
	}
	if (inspect->n_bad > n)
		complain("and %" PRIu32 " more of these", inspect->n_bad - n);
	return inspect->n_bad + inspect->n_broken_entries > 0;
}

int look_complain_about(const struct inspect *inspect, const struct inspect_item *channel)
{
	int status = 0;

	for (uint32_t i = 0; i < inspect->n_items; i++) {
		const struct inspect_item *item = &inspect->items[i];

		if (item->why[0] &&
		    (item == channel || item->entry.channel_id == channel->entry.id)) {
			complain("%s", item->why);
			status = 1;
		}
	}
	return status;
}

int look_broker(void)
{
	int is_listening = common.registry ? 1 : place_is_listening(place.address);

	return is_listening != -ECONNREFUSED && is_listening != -ENOENT;
}

const char *look_role(const struct inspect *inspect, const struct inspect_item *member)
{
	const struct inspect_item *channel =
		inspect_find(inspect, SHMB_ENTRY_CHANNEL, member->entry.channel_id);
	bool is_call = channel && channel->entry.pattern == SHMB_PATTERN_CALL;

	if (member->entry.kind == SHMB_ENTRY_PUBLISHER)
		return is_call ? "lane" : "publisher";
	if (!is_call)
		return "subscriber";
	return member->entry.flags & SHMB_MEMBER_SERVER ? "server" : "caller";
}

void look_pattern(uint32_t pattern, char name[24])
{
	if (pattern == SHMB_PATTERN_STREAM)
		strcpy(name, "stream");
	else if (pattern == SHMB_PATTERN_QUEUE)
		strcpy(name, "queue");
	else if (pattern == SHMB_PATTERN_CALL)
		strcpy(name, "call");
	else if (pattern == SHMB_PATTERN_STATE)
		strcpy(name, "state");
	else
		snprintf(name, 24, "pattern %" PRIu32, pattern);
}

const char *look_backing(const struct shmb_registry_entry *channel)
{
	bool sealed = channel->flags & SHMB_ENTRY_SEALED;

	if (channel->backing == SHMB_MEMORY_AUTO)
		return sealed ? "sealed (auto)" : "posix (auto)";
	return sealed ? "sealed" : "posix";
}

int look_is_alive(const struct shmb_registry_entry *client)
{
	uint64_t start = process_start(client->pid);

	return start != 0 && (client->process_start == 0 || start == client->process_start);
}

char *look_command_line(const struct shmb_registry_entry *client)
{
	char path[40], text[512];
	int n;

	if (!look_is_alive(client))
		return strdup("");
	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/cmdline", client->pid);
	n = place_read_file(path, text, sizeof(text));
	if (n <= 0)
		return strdup("");
	while (n > 0 && text[n - 1] == '\0')
		n--;
	for (int i = 0; i < n; i++) {
		if (text[i] == '\0')
			text[i] = ' ';
	}
	return print_escape(text, n);
}

/* Does this first line of an entry in /proc/PID/smaps speak of the segment? */
static bool is_mapping_of(const char *line, const struct shmb_registry_entry *segment)
{
	const char *name = (const char *)segment->segment;
	unsigned long long inode;

	if (sscanf(line, "%*x-%*x %*s %*x %*x:%*x %llu", &inode) != 1)
		return false;
	if (!strncmp(name, "memfd:", 6))
		return inode == strtoull(name + 6, NULL, 10) && strstr(line, "/memfd:");
	return strstr(line, name) != NULL;
}

bool look_huge_len(const struct shmb_registry_entry *client,
		   const struct shmb_registry_entry *segment, uint64_t *ret_len)
{
	char path[40], line[PATH_MAX + 128];
	unsigned long long kib;
	bool found = false, is_ours = false;
	FILE *maps;

	*ret_len = 0;
	if (!look_is_alive(client))
		return false;
	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/smaps", client->pid);
	maps = fopen(path, "re");
	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "ShmemPmdMapped: %llu", &kib) == 1) {
			*ret_len += is_ours ? kib * 1024 : 0;
			found |= is_ours;
		} else if (strchr(line, '-') && !strstr(line, ": ")) {
			is_ours = is_mapping_of(line, segment);
		}
	}
	if (maps)
		fclose(maps);
	return found;
}

/* Where the writer has mapped the segment; 0: nowhere. */
static unsigned long long address_of(const struct shmb_registry_entry *client,
				     const struct shmb_registry_entry *segment)
{
	unsigned long long address = 0;
	char path[40], line[PATH_MAX + 128];
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/maps", client->pid);
	maps = fopen(path, "re");
	while (maps && !address && fgets(line, sizeof(line), maps))
		if (is_mapping_of(line, segment))
			address = strtoull(line, NULL, 16);
	if (maps)
		fclose(maps);
	return address;
}

/* One line of /proc/PID/numa_maps: "7f0000000000 prefer:0 file=... N0=3 N1=253 kernelpagesize_kB=4". */
static bool add_node_lens(const char *line, uint64_t lens[LOOK_NODES_MAX])
{
	const char *unit = strstr(line, " kernelpagesize_kB=");
	uint64_t page_len = unit ? 1024 * strtoull(strchr(unit, '=') + 1, NULL, 10) : 0;
	bool any = false;

	for (const char *at = strstr(line, " N"); at; at = strstr(at + 1, " N")) {
		unsigned long long pages;
		unsigned node;

		if (sscanf(at, " N%u=%llu", &node, &pages) != 2 || node >= LOOK_NODES_MAX)
			continue;
		lens[node] += pages * page_len;
		any = true;
	}
	return any;
}

bool look_node_lens(const struct shmb_registry_entry *client,
		    const struct shmb_registry_entry *segment, uint64_t lens[LOOK_NODES_MAX])
{
	char path[40], line[PATH_MAX + 4096];
	unsigned long long address;
	bool found = false;
	FILE *maps;

	memset(lens, 0, LOOK_NODES_MAX * sizeof(*lens));
	address = look_is_alive(client) ? address_of(client, segment) : 0;
	if (!address)
		return false;
	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/numa_maps", client->pid);
	maps = fopen(path, "re");
	while (maps && !found && fgets(line, sizeof(line), maps))
		if (strtoull(line, NULL, 16) == address)
			found = add_node_lens(line, lens);
	if (maps)
		fclose(maps);
	return found;
}
