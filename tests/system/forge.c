/* SPDX-License-Identifier: Apache-2.0 */

/*
 * forge DIR [FAULT]: write a registry and the segments of one channel into DIR, as a broker with
 * one publisher and one subscriber would leave them, with one fault if asked. For tests of what
 * reads other people's segments. Prints the path of the registry.
 */

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <shmbroker/schema.h>
#include <shmbroker/version.h>

#define INSTANCE 0x00c0ffee00c0ffeeull
#define LANE_LEN 8192u

enum {
	CLIENT = 1,
	CHANNEL,
	PUBLISHER,
	SUBSCRIBER,
	PAIR,
	N_ENTRIES = PAIR,
};

struct tick {
	uint64_t time_ns;
	double price;
	char side[8];
};
SHMB_SCHEMA(schema, struct tick, "market.tick", SHMB_FIELD(struct tick, time_ns),
	    SHMB_FIELD(struct tick, price), SHMB_ARRAY(struct tick, side));

static const char *dir, *fault;

static struct shmb_registry_segment registry;
static struct shmb_registry_entry entries[N_ENTRIES];
static struct shmb_channel_segment channel;
static struct shmb_lane_segment lane;
static struct shmb_cursor_segment cursor;
static struct shmb_cursor_lane slot;
static struct shmb_bell_segment bell;

static int is(const char *name)
{
	return strcmp(fault, name) == 0;
}

static void fill_header(struct shmb_segment_header *header, uint32_t kind, uint64_t len,
			uint64_t id)
{
	*header = (struct shmb_segment_header){ .magic = SHMB_SEGMENT_MAGIC,
						.byte_order = SHMB_BYTE_ORDER,
						.version = SHMB_LAYOUT_VERSION,
						.kind = kind,
						.block_len = SHMB_BLOCK_LEN,
						.segment_len = len,
						.instance = INSTANCE,
						.segment_id = id,
						.owner_id = id };
}

static struct shmb_registry_entry *fill_entry(uint32_t id, uint32_t kind, uint64_t len)
{
	struct shmb_registry_entry *entry = &entries[id - 1];

	entry->state = SHMB_ENTRY_LIVE;
	entry->kind = kind;
	entry->id = id;
	entry->segment_len = len;
	entry->flags = SHMB_MEMBER_ACTIVE;
	snprintf((char *)entry->segment, sizeof(entry->segment), "/shmb.%016" PRIx64 ".%032" PRIx32,
		 (uint64_t)INSTANCE, id);
	return entry;
}

static void fill_name(struct shmb_registry_entry *entry, const char *name)
{
	entry->name_len = strlen(name);
	memcpy(entry->name, name, entry->name_len);
}

static void fill_entries(void)
{
	struct shmb_registry_entry *entry = fill_entry(CLIENT, SHMB_ENTRY_CLIENT, SHMB_BLOCK_LEN);

	fill_name(entry, is("label-evil") ? "\033]0;pwned\007" : "forged");
	entry->pid = 4000000; /* above the largest pid */
	entry = fill_entry(CHANNEL, SHMB_ENTRY_CHANNEL, SHMB_BLOCK_LEN + sizeof(schema));
	fill_name(entry, is("name-evil") ? "evil\033[2J\n\xe2\x80\xae" : "market/ticks");
	entry->pattern = SHMB_PATTERN_STREAM;
	entry->lane_len = LANE_LEN;
	entry->max_publishers = entry->max_subscribers = 4;
	entry->schema_len = sizeof(schema);
	entry = fill_entry(PUBLISHER, SHMB_ENTRY_PUBLISHER, SHMB_BLOCK_LEN + LANE_LEN);
	entry->channel_id = CHANNEL;
	entry->client_id = CLIENT;
	entry = fill_entry(SUBSCRIBER, SHMB_ENTRY_SUBSCRIBER, SHMB_BLOCK_LEN + 4 * sizeof(slot));
	entry->channel_id = CHANNEL;
	entry->client_id = CLIENT;
	entry = fill_entry(PAIR, SHMB_ENTRY_PAIR, SHMB_BLOCK_LEN);
	entry->channel_id = CHANNEL;
	entry->publisher_id = PUBLISHER;
	entry->subscriber_id = SUBSCRIBER;
}

static void fill_segments(void)
{
	fill_header(&registry.header, SHMB_SEGMENT_REGISTRY, sizeof(registry), 1);
	registry.entry_len = sizeof(entries[0]);
	fill_header(&channel.header, SHMB_SEGMENT_CHANNEL, entries[CHANNEL - 1].segment_len,
		    CHANNEL);
	channel.epoch = 3;
	fill_header(&lane.header, SHMB_SEGMENT_LANE, SHMB_BLOCK_LEN + LANE_LEN, PUBLISHER);
	lane.position_hint = 3200;
	lane.sequence_hint = 100;
	lane.rings = 7;
	fill_header(&cursor.header, SHMB_SEGMENT_CURSOR, entries[SUBSCRIBER - 1].segment_len,
		    SUBSCRIBER);
	cursor.sleep = 5 << 2 | SHMB_SLEEP_FUTEX;
	cursor.sleeps = 5;
	slot = (struct shmb_cursor_lane){
		.position = 2880, .sequence = 90, .lost = 2, .pair_id = PAIR
	};
	fill_header(&bell.header, SHMB_SEGMENT_BELL, SHMB_BLOCK_LEN, PAIR);
}

/* Faults of the bytes; those of the files are in write_all(). */
static void spoil(void)
{
	if (is("registry-magic"))
		registry.header.magic = 1;
	if (is("registry-order")) {
		registry.header.magic = __builtin_bswap64(SHMB_SEGMENT_MAGIC);
		registry.header.byte_order = __builtin_bswap32(SHMB_BYTE_ORDER);
	}
	if (is("registry-version"))
		registry.header.version = 99;
	if (is("registry-kind"))
		registry.header.kind = SHMB_SEGMENT_BELL;
	if (is("registry-entry-len"))
		registry.entry_len = 1024;
	if (is("lane-magic"))
		lane.header.magic = 1;
	if (is("lane-version"))
		lane.header.version = 99;
	if (is("lane-instance"))
		lane.header.instance = 1;
	if (is("lane-size"))
		lane.header.segment_len = 1ull << 40;
	if (is("lane-path"))
		strcpy((char *)entries[PUBLISHER - 1].segment, "/../../etc/passwd");
	if (is("lane-unterminated"))
		memset(entries[PUBLISHER - 1].segment, 'x', SHMB_SEGMENT_NAME_LEN_MAX);
	if (is("name-len"))
		entries[CHANNEL - 1].name_len = 4096;
	if (is("slot-wild"))
		entries[PUBLISHER - 1].slot = UINT32_MAX;
	if (is("schema-wild"))
		entries[CHANNEL - 1].schema_len = 12864;
	if (is("counters-wild")) {
		lane.position_hint = lane.sequence_hint = lane.dropped = UINT64_MAX;
		slot.lost = UINT64_MAX;
		cursor.sleep = UINT32_MAX;
	}
	if (is("kind-wild"))
		entries[CLIENT - 1].kind = 77;
	if (is("joining"))
		entries[SUBSCRIBER - 1].flags = entries[PUBLISHER - 1].flags = 0;
}

static void write_file(const char *name, const void *block, size_t block_len, const void *rest,
		       size_t rest_len, size_t len)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name[0] == '/' ? name + 1 : name);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || pwrite(fd, block, block_len, 0) != (ssize_t)block_len ||
	    pwrite(fd, rest, rest_len, block_len) != (ssize_t)rest_len || ftruncate(fd, len) < 0) {
		perror(path);
		exit(99);
	}
	close(fd);
}

static void write_segment(uint32_t id, const void *block, const void *rest, size_t rest_len)
{
	write_file((const char *)entries[id - 1].segment, block, SHMB_BLOCK_LEN, rest, rest_len,
		   entries[id - 1].segment_len);
}

static void write_lane(void)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s%s", dir, (const char *)entries[PUBLISHER - 1].segment);
	if (is("lane-missing") || is("lane-path") || is("lane-unterminated"))
		return;
	if (is("lane-symlink") && symlink("/etc/passwd", path) == 0)
		return;
	if (is("lane-fifo") && mkfifo(path, 0600) == 0)
		return;
	write_segment(PUBLISHER, &lane, "", 0);
	if (is("lane-short") && truncate(path, 100) == 0)
		return;
	if (is("lane-long") && truncate(path, 1 << 20) == 0)
		return;
}

int main(int argc, char **argv)
{
	char name[64], path[4096];

	if (argc < 2)
		return 99;
	dir = argv[1];
	fault = argc > 2 ? argv[2] : "";
	fill_entries();
	fill_segments();
	spoil();
	snprintf(name, sizeof(name), "shmb.%016" PRIx64 ".registry", (uint64_t)INSTANCE);
	write_file(name, &registry, sizeof(registry), entries, sizeof(entries),
		   is("registry-short") ? 1000 : sizeof(registry) + sizeof(entries));
	write_segment(CHANNEL, &channel, &schema, sizeof(schema));
	write_lane();
	write_segment(SUBSCRIBER, &cursor, &slot, sizeof(slot));
	write_segment(PAIR, &bell, "", 0);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	puts(path);
	return 0;
}
