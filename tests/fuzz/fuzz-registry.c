/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A registry and its segments with fuzzed bytes in them: what shmctl makes of them, and what a
 * broker that takes over the registry does. The script changes an honest picture of a channel with
 * one publisher and one subscriber; then the length of each file.
 */

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "daemon/registry.h"
#include "tools/inspect.h"

#include "tests/fuzz/fuzz.h"

#define DIR	  "/dev/shm"
#define N_ENTRIES 8u
#define FILE_LEN  8192u

enum {
	FILE_REGISTRY,
	FILE_CHANNEL,
	FILE_LANE,
	FILE_CURSOR,
	FILE_BELL,
	N_FILES
};

struct picture {
	struct shmb_registry_segment head;
	struct shmb_registry_entry entries[N_ENTRIES];
};

static uint64_t instance;
static char names[N_FILES][SHMB_SEGMENT_NAME_LEN_MAX];

static void cleanup(void)
{
	char path[512];

	for (int i = 0; i < N_FILES; i++) {
		snprintf(path, sizeof(path), DIR "%s", names[i]);
		unlink(path);
	}
}

static void prepare(void)
{
	instance = 0xf022000000000000ull + (uint64_t)getpid();
	registry_name(instance, names[FILE_REGISTRY]);
	for (int i = 1; i < N_FILES; i++)
		snprintf(names[i], sizeof(names[i]), "/shmb.%016llx.%d",
			 (unsigned long long)instance, i);
	atexit(cleanup);
}

static struct shmb_segment_header header(uint32_t kind)
{
	return (struct shmb_segment_header){
		.magic = SHMB_SEGMENT_MAGIC,
		.byte_order = SHMB_BYTE_ORDER,
		.version = 1,
		.kind = kind,
		.block_len = SHMB_BLOCK_LEN,
		.segment_len = FILE_LEN,
		.instance = instance,
	};
}

static void draw(struct picture *picture)
{
	static const uint32_t kinds[] = { SHMB_ENTRY_CHANNEL, SHMB_ENTRY_PUBLISHER,
					  SHMB_ENTRY_SUBSCRIBER, SHMB_ENTRY_PAIR,
					  SHMB_ENTRY_CLIENT };

	memset(picture, 0, sizeof(*picture));
	picture->head.header = header(SHMB_SEGMENT_REGISTRY);
	picture->head.entry_len = sizeof(struct shmb_registry_entry);
	picture->head.next_id = 10;
	for (uint32_t i = 0; i < 5; i++) {
		struct shmb_registry_entry *entry = &picture->entries[i];

		*entry = (struct shmb_registry_entry){ .state = SHMB_ENTRY_LIVE,
						       .kind = kinds[i],
						       .id = i + 1,
						       .channel_id = 1,
						       .client_id = 5,
						       .publisher_id = 2,
						       .subscriber_id = 3,
						       .segment_len = FILE_LEN,
						       .flags = SHMB_MEMBER_ACTIVE,
						       .name_len = 4,
						       .name = "name" };
		memcpy(entry->segment, names[i < 4 ? i + 1 : FILE_BELL], sizeof(entry->segment));
	}
}

static void put_file(struct fuzz_script *script, const char *name, void *data, size_t len)
{
	char path[512];
	int fd;

	fuzz_mutate(script, data, len);
	snprintf(path, sizeof(path), DIR "%s", name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	FUZZ_CHECK(fd >= 0 && write(fd, data, len) == (ssize_t)len);
	if (fuzz_number(script, 1) & 1)
		FUZZ_CHECK(ftruncate(fd, (off_t)fuzz_number(script, 2)) == 0);
	close(fd);
}

static void put_segments(struct fuzz_script *script)
{
	static const uint32_t kinds[] = { 0, SHMB_SEGMENT_CHANNEL, SHMB_SEGMENT_LANE,
					  SHMB_SEGMENT_CURSOR, SHMB_SEGMENT_BELL };
	static _Alignas(8) uint8_t data[FILE_LEN];

	for (int i = 1; i < N_FILES; i++) {
		struct shmb_segment_header head = header(kinds[i]);

		memset(data, 0, sizeof(data));
		memcpy(data, &head, sizeof(head));
		put_file(script, names[i], data, sizeof(data));
	}
}

static void inspect(void)
{
	const struct inspect_item *item;
	char path[512], why[INSPECT_WHY_LEN];
	struct inspect_sum sum;
	struct inspect picture;
	uint8_t word[64];

	snprintf(path, sizeof(path), DIR "%s", names[FILE_REGISTRY]);
	if (inspect_open(&picture, path, DIR, 0) < 0) {
		FUZZ_CHECK(picture.why[0]);
		return;
	}
	FUZZ_CHECK(picture.n_items + picture.n_broken_entries <= N_ENTRIES);
	for (uint32_t i = 0; i < picture.n_items; i++) {
		item = &picture.items[i];
		FUZZ_CHECK(item->entry.kind >= 1 && item->entry.kind <= SHMB_ENTRY_PAIR);
		FUZZ_CHECK(item->entry.name_len <= sizeof(item->entry.name));
		FUZZ_CHECK(inspect_find(&picture, item->entry.kind, item->entry.id));
		inspect_segment(&picture, item, item->entry.slot, word, sizeof(word), why);
		if (item->entry.kind == SHMB_ENTRY_CHANNEL)
			inspect_sum(&picture, item, &sum);
	}
	inspect_channel(&picture, "name");
	inspect_close(&picture);
}

/* A broker takes over: what it keeps makes sense, and it can go on to note new things. */
static void take_over(void)
{
	struct shmb_registry_entry entry, added = { .kind = SHMB_ENTRY_CLIENT, .segment = "/x" };
	struct registry registry;
	uint32_t slot;

	if (registry_load(&registry, instance) < 0)
		return;
	registry_start(&registry, "/run/shmbroker/broker.sock");
	for (uint32_t i = 0; i < registry.n_entries; i++) {
		if (!registry_get(&registry, i, &entry))
			continue;
		FUZZ_CHECK(entry.kind >= SHMB_ENTRY_CLIENT && entry.kind <= SHMB_ENTRY_PAIR);
		FUZZ_CHECK(entry.id && entry.name_len <= SHMB_NAME_LEN_MAX);
		FUZZ_CHECK(memchr(entry.segment, '\0', sizeof(entry.segment)));
	}
	for (int i = 0; i < 12; i++) {
		added.id = registry_next_id(&registry);
		if (registry_add(&registry, &added, &slot) < 0)
			break;
		FUZZ_CHECK(registry_get(&registry, slot, &entry) && entry.id == added.id);
		/* A number that was there already would be two objects' own. */
		FUZZ_CHECK(added.id != 0);
		registry_set_flags(&registry, slot, 1);
		registry_remove(&registry, slot % 3 ? slot : REGISTRY_NO_ENTRY);
	}
	registry_release(&registry);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_script script = { data, size };
	static struct picture picture;
	int before = fuzz_free_fd();

	if (!instance)
		prepare();
	draw(&picture);
	/* Twice: sixteen changes of one byte are few for so many fields. */
	fuzz_mutate(&script, picture.entries, sizeof(picture.entries));
	put_file(&script, names[FILE_REGISTRY], &picture, sizeof(picture));
	put_segments(&script);
	inspect();
	take_over();
	FUZZ_CHECK(fuzz_free_fd() == before);
	return 0;
}
