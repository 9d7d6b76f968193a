/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Reads the registry: the array of entries in which the broker keeps what exists. The numbers
 * behind each entry come from inspect-segment.c.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/inspect-internal.h"
#include "tools/inspect.h"

#define REGISTRY_LEN_MAX (1ull << 28)
#define READ_TRIES	 5

void inspect_say(char *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, INSPECT_WHY_LEN, format, args);
	va_end(args);
}

int inspect_open_file(const char *path, uint64_t *ret_len, char *why)
{
	/* O_NONBLOCK: a fifo in its place must not stop us. */
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	int r;

	if (fd < 0) {
		r = -errno;
		inspect_say(why, "cannot open %s: %s", path,
			    r == -ELOOP ? "it is a symbolic link" : strerror(-r));
		return r;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		inspect_say(why, "%s is not a regular file", path);
		close(fd);
		return -EBADMSG;
	}
	*ret_len = st.st_size;
	return fd;
}

int inspect_pread(int fd, void *data, size_t len, uint64_t offset)
{
	char *at = data;
	ssize_t n;

	while (len > 0) {
		n = pread(fd, at, len, offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EBADMSG;
		at += n;
		offset += n;
		len -= n;
	}
	return 0;
}

static const char *kind_name(uint32_t kind)
{
	static const char *const names[] = {
		"an unknown segment", "a registry", "a channel", "a lane",
		"a cursor",	      "a bell",	    "an arena"
	};

	return names[kind < sizeof(names) / sizeof(names[0]) ? kind : 0];
}

int inspect_check_header(const struct shmb_segment_header *header, const char *path, uint32_t kind,
			 uint64_t instance, char *why)
{
	if (header->magic != SHMB_SEGMENT_MAGIC &&
	    header->magic != __builtin_bswap64(SHMB_SEGMENT_MAGIC))
		inspect_say(why, "%s is not a shmbroker segment: wrong magic", path);
	else if (header->byte_order != SHMB_BYTE_ORDER)
		inspect_say(why, "%s was written with another byte order", path);
	else if (header->version != SHMB_LAYOUT_VERSION)
		inspect_say(why, "%s has layout version %" PRIu32 ", this shmctl reads version %d",
			    path, header->version, SHMB_LAYOUT_VERSION);
	else if (header->kind != kind)
		inspect_say(why, "%s is %s, not %s", path, kind_name(header->kind),
			    kind_name(kind));
	else if (header->block_len != SHMB_BLOCK_LEN)
		inspect_say(why, "%s has a first block of %" PRIu32 " bytes, not %u", path,
			    header->block_len, SHMB_BLOCK_LEN);
	else if (instance != 0 && header->instance != instance)
		inspect_say(why, "%s belongs to instance %016" PRIx64 ", not %016" PRIx64, path,
			    header->instance, instance);
	else
		return 0;
	return -EBADMSG;
}

static bool is_printable(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (bytes[i] <= 0x20 || bytes[i] >= 0x7f || bytes[i] == '/')
			return false;
	}
	return true;
}

/* Names end in their arrays and segments cannot lead out of the directory. */
static bool is_sane(const struct shmb_registry_entry *entry, uint64_t instance)
{
	size_t len = strnlen((const char *)entry->segment, sizeof(entry->segment));
	char prefix[32];

	if (entry->kind < SHMB_ENTRY_CLIENT || entry->kind > SHMB_ENTRY_ARENA || entry->id == 0 ||
	    entry->name_len > sizeof(entry->name) || len == sizeof(entry->segment))
		return false;
	if (entry->kind == SHMB_ENTRY_CHANNEL &&
	    (entry->name_len == 0 || entry->schema_len > SHMB_SCHEMA_LEN_MAX))
		return false;
	/* Who comes after its publisher has gone needs no bell. */
	if (entry->kind == SHMB_ENTRY_PAIR && entry->segment_len == 0)
		return len == 0;
	if (entry->backing == SHMB_MEMORY_SEALED && entry->kind != SHMB_ENTRY_CHANNEL)
		return len > 6 && memcmp(entry->segment, "memfd:", 6) == 0 &&
		       is_printable(entry->segment, len);
	snprintf(prefix, sizeof(prefix), "/shmb.%016" PRIx64 ".", instance);
	return strncmp((const char *)entry->segment, prefix, strlen(prefix)) == 0 &&
	       is_printable(entry->segment + 1, len - 1);
}

static int compare_items(const void *left, const void *right)
{
	const struct shmb_registry_entry *a = &((const struct inspect_item *)left)->entry;
	const struct shmb_registry_entry *b = &((const struct inspect_item *)right)->entry;

	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

/* The broker may be writing: read until two readings agree, or be content with the last one. */
static int read_entries(int fd, struct shmb_registry_entry *entries, size_t len)
{
	void *again = malloc(len ? len : 1);
	int r = again ? inspect_pread(fd, entries, len, SHMB_BLOCK_LEN) : -ENOMEM;

	for (int i = 0; r == 0 && i < READ_TRIES; i++) {
		r = inspect_pread(fd, again, len, SHMB_BLOCK_LEN);
		if (r == 0 && memcmp(entries, again, len) == 0)
			break;
		memcpy(entries, again, len);
	}
	free(again);
	return r;
}

static int keep_entries(struct inspect *inspect, const struct shmb_registry_entry *entries,
			size_t n_entries)
{
	size_t n_live = 0;

	for (size_t i = 0; i < n_entries; i++)
		n_live += entries[i].state == SHMB_ENTRY_LIVE;
	inspect->items = calloc(n_live ? n_live : 1, sizeof(inspect->items[0]));
	if (!inspect->items)
		return -ENOMEM;
	for (size_t i = 0; i < n_entries; i++) {
		if (entries[i].state != SHMB_ENTRY_LIVE || entries[i].kind == SHMB_ENTRY_KEEPER)
			continue;
		if (is_sane(&entries[i], inspect->head.header.instance))
			inspect->items[inspect->n_items++].entry = entries[i];
		else
			inspect->n_broken_entries++;
	}
	qsort(inspect->items, inspect->n_items, sizeof(inspect->items[0]), compare_items);
	return 0;
}

static int read_registry(struct inspect *inspect, int fd, const char *path, uint64_t instance)
{
	const struct shmb_registry_segment *head = &inspect->head;
	struct shmb_registry_entry *entries;
	size_t n_entries;
	int r;

	if (inspect->registry_len < sizeof(*head) || inspect->registry_len > REGISTRY_LEN_MAX) {
		inspect_say(inspect->why, "%s is not a registry: %" PRIu64 " bytes long", path,
			    inspect->registry_len);
		return -EBADMSG;
	}
	r = inspect_pread(fd, &inspect->head, sizeof(*head), 0);
	if (r == 0)
		r = inspect_check_header(&head->header, path, SHMB_SEGMENT_REGISTRY, instance,
					 inspect->why);
	if (r < 0)
		return r;
	if (head->entry_len != sizeof(struct shmb_registry_entry) ||
	    head->address_len > sizeof(head->address)) {
		inspect_say(inspect->why,
			    "%s has entries of %" PRIu32 " bytes, this shmctl reads %zu", path,
			    head->entry_len, sizeof(struct shmb_registry_entry));
		return -EBADMSG;
	}
	n_entries = (inspect->registry_len - SHMB_BLOCK_LEN) / sizeof(*entries);
	entries = calloc(n_entries ? n_entries : 1, sizeof(*entries));
	r = entries ? read_entries(fd, entries, n_entries * sizeof(*entries)) : -ENOMEM;
	if (r == 0)
		r = keep_entries(inspect, entries, n_entries);
	free(entries);
	return r;
}

static int take_picture(struct inspect *inspect, const char *registry, const char *dir,
			uint64_t instance)
{
	int fd, r;

	memset(inspect, 0, sizeof(*inspect));
	snprintf(inspect->dir, sizeof(inspect->dir), "%s", dir);
	fd = inspect_open_file(registry, &inspect->registry_len, inspect->why);
	if (fd < 0)
		return fd;
	r = read_registry(inspect, fd, registry, instance);
	close(fd);
	if (r < 0 && inspect->why[0] == '\0')
		inspect_say(inspect->why, "cannot read %s: %s", registry,
			    r == -EBADMSG ? "it has become shorter" : strerror(-r));
	if (r < 0) {
		inspect_close(inspect);
		return r;
	}
	inspect_read_segments(inspect);
	return 0;
}

int inspect_open(struct inspect *inspect, const char *registry, const char *dir, uint64_t instance)
{
	int r = take_picture(inspect, registry, dir, instance);

	/* Members that left while we looked make unreadable segments; real trouble stays. */
	for (int i = 1; r == 0 && inspect->n_bad > 0 && i < READ_TRIES; i++) {
		inspect_close(inspect);
		r = take_picture(inspect, registry, dir, instance);
	}
	return r;
}

void inspect_close(struct inspect *inspect)
{
	free(inspect->items);
	free(inspect->memfds);
	inspect->items = NULL;
	inspect->memfds = NULL;
	inspect->n_items = inspect->n_memfds = 0;
}

const struct inspect_item *inspect_find(const struct inspect *inspect, uint32_t kind, uint64_t id)
{
	struct inspect_item key;

	key.entry.kind = kind;
	key.entry.id = id;
	return bsearch(&key, inspect->items, inspect->n_items, sizeof(key), compare_items);
}

const struct inspect_item *inspect_next(const struct inspect *inspect,
					const struct inspect_item *item, uint32_t kind,
					uint64_t channel_id)
{
	item = item ? item + 1 : inspect->items;
	for (; item < inspect->items + inspect->n_items; item++) {
		if (item->entry.kind == kind &&
		    (channel_id == 0 || item->entry.channel_id == channel_id))
			return item;
	}
	return NULL;
}

const struct inspect_item *inspect_holdee(const struct inspect *inspect, uint64_t channel_id,
					  const struct shmb_cursor_hold *hold)
{
	uint32_t slot = (hold->block & ~SHMB_HOLD_VALID) >> SHMB_HOLD_SLOT_SHIFT;
	const struct inspect_item *item = NULL;

	while ((item = inspect_next(inspect, item, SHMB_ENTRY_PUBLISHER, channel_id))) {
		if (item->entry.slot == slot)
			return item;
	}
	return NULL;
}

const struct inspect_item *inspect_channel(const struct inspect *inspect, const char *name)
{
	const struct inspect_item *item = NULL;

	while ((item = inspect_next(inspect, item, SHMB_ENTRY_CHANNEL, 0))) {
		if (item->entry.name_len == strlen(name) &&
		    memcmp(item->entry.name, name, item->entry.name_len) == 0)
			return item;
	}
	return NULL;
}
