/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Reads the segments that the registry names, and computes what only several of them together
 * tell: how far a subscriber is behind a publisher.
 *
 * A segment's writer may be hostile. Its numbers are shown, never used: what is read where, and
 * how much, follows from the broker's registry and the file's size alone.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/inspect-internal.h"
#include "tools/inspect.h"

static uint32_t segment_kind(uint32_t entry_kind)
{
	switch (entry_kind) {
	case SHMB_ENTRY_CHANNEL:
		return SHMB_SEGMENT_CHANNEL;
	case SHMB_ENTRY_PUBLISHER:
		return SHMB_SEGMENT_LANE;
	case SHMB_ENTRY_SUBSCRIBER:
		return SHMB_SEGMENT_CURSOR;
	case SHMB_ENTRY_ARENA:
		return SHMB_SEGMENT_ARENA;
	default:
		return SHMB_SEGMENT_BELL;
	}
}

/* Members have no segment of their size before they are active. */
static bool is_ready(const struct inspect_item *item)
{
	if (item->entry.kind != SHMB_ENTRY_PUBLISHER && item->entry.kind != SHMB_ENTRY_SUBSCRIBER)
		return true;
	return item->entry.flags & SHMB_MEMBER_ACTIVE;
}

static bool is_sealed(const struct inspect_item *item)
{
	return item->entry.segment[0] && item->entry.segment[0] != '/';
}

static int compare_memfds(const void *left, const void *right)
{
	uint64_t a = ((const struct inspect_memfd *)left)->inode;
	uint64_t b = ((const struct inspect_memfd *)right)->inode;

	return a < b ? -1 : a > b;
}

/* The inode of a memfd behind a link of /proc/PID/fd, or 0. */
static uint64_t memfd_inode(int dir_fd, const char *name)
{
	static const char prefix[] = "/memfd:";
	char link[sizeof(prefix)];
	struct stat st;

	if (readlinkat(dir_fd, name, link, sizeof(link) - 1) != sizeof(link) - 1 ||
	    memcmp(link, prefix, sizeof(link) - 1) != 0 || fstatat(dir_fd, name, &st, 0) < 0)
		return 0;
	return st.st_ino;
}

/* Sealed segments have no name, but the broker has them open. */
static void find_memfds(struct inspect *inspect)
{
	struct dirent *found;
	uint32_t cap = 0;
	char path[32];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/fd", inspect->head.broker_pid);
	dir = opendir(path);
	inspect->memfds_error = dir ? 0 : errno;
	while (dir && (found = readdir(dir))) {
		uint64_t inode = memfd_inode(dirfd(dir), found->d_name);
		struct inspect_memfd *grown = inspect->memfds;

		if (inode && inspect->n_memfds == cap) {
			cap = cap ? 2 * cap : 64;
			grown = realloc(inspect->memfds, cap * sizeof(*grown));
			if (!grown)
				break;
			inspect->memfds = grown;
		}
		if (inode)
			grown[inspect->n_memfds++] =
				(struct inspect_memfd){ .inode = inode, .fd = atoi(found->d_name) };
	}
	if (dir)
		closedir(dir);
	if (inspect->n_memfds)
		qsort(inspect->memfds, inspect->n_memfds, sizeof(*inspect->memfds), compare_memfds);
}

static int open_memfd(const struct inspect *inspect, const char *name, uint64_t *ret_len, char *why)
{
	struct inspect_memfd key = { .inode = strtoull(name + strlen("memfd:"), NULL, 10) };
	const struct inspect_memfd *known = NULL;
	char path[48];
	struct stat st;
	int fd;

	if (inspect->memfds_error) {
		inspect_say(why,
			    "%s is sealed, and the fds of the broker, pid %" PRIu32
			    ", cannot be looked at: %s",
			    name, inspect->head.broker_pid, strerror(inspect->memfds_error));
		return -inspect->memfds_error;
	}
	if (inspect->n_memfds)
		known = bsearch(&key, inspect->memfds, inspect->n_memfds, sizeof(key),
				compare_memfds);
	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/fd/%d", inspect->head.broker_pid,
		 known ? known->fd : -1);
	/* By now that fd may be something else. */
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_ino != key.inode) {
		inspect_say(why, "%s is sealed, and the broker does not have it", name);
		if (fd >= 0)
			close(fd);
		return -ENOENT;
	}
	*ret_len = (uint64_t)st.st_size;
	return fd;
}

static int open_segment(const struct inspect *inspect, const struct inspect_item *item, char *why)
{
	char path[PATH_MAX + SHMB_SEGMENT_NAME_LEN_MAX];
	struct shmb_segment_header header;
	uint64_t len;
	int fd, r;

	snprintf(path, sizeof(path), "%s%s", is_sealed(item) ? "" : inspect->dir,
		 (const char *)item->entry.segment);
	fd = is_sealed(item) ? open_memfd(inspect, path, &len, why)
			     : inspect_open_file(path, &len, why);
	if (fd < 0)
		return fd;
	r = len < SHMB_BLOCK_LEN ? -EBADMSG : inspect_pread(fd, &header, sizeof(header), 0);
	if (r < 0)
		inspect_say(why, "%s is truncated: %" PRIu64 " bytes of %" PRIu64, path, len,
			    item->entry.segment_len);
	else
		r = inspect_check_header(&header, path, segment_kind(item->entry.kind),
					 inspect->head.header.instance, why);
	if (r == 0 && (len != item->entry.segment_len || header.segment_len != len)) {
		inspect_say(why,
			    "%s has %" PRIu64 " bytes, its header says %" PRIu64
			    ", the registry %" PRIu64,
			    path, len, header.segment_len, item->entry.segment_len);
		r = -EBADMSG;
	}
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

int inspect_segment(const struct inspect *inspect, const struct inspect_item *item, uint64_t offset,
		    void *data, size_t len, char *why)
{
	uint64_t size = item->entry.segment_len;
	int fd, r;

	if (len > size || offset > size - len) {
		inspect_say(why, "%s%s is too short", inspect->dir,
			    (const char *)item->entry.segment);
		return -EBADMSG;
	}
	fd = open_segment(inspect, item, why);
	if (fd < 0)
		return fd;
	r = inspect_pread(fd, data, len, offset);
	if (r < 0)
		inspect_say(why, "cannot read %s%s: %s", inspect->dir,
			    (const char *)item->entry.segment, strerror(-r));
	close(fd);
	return r;
}

static void read_channel(const struct inspect *inspect, struct inspect_item *item)
{
	struct shmb_channel_segment block;

	if (inspect_segment(inspect, item, 0, &block, sizeof(block), item->why) < 0)
		return;
	item->channel.epoch = block.epoch;
	item->is_read = true;
}

static bool has_pattern(const struct inspect *inspect, const struct inspect_item *item,
			uint32_t pattern)
{
	const struct inspect_item *channel;

	channel = inspect_find(inspect, SHMB_ENTRY_CHANNEL, item->entry.channel_id);
	return channel && channel->entry.pattern == pattern;
}

/* Has its channel values of keys, which nobody is behind with? */
static bool is_state(const struct inspect *inspect, const struct inspect_item *item)
{
	return has_pattern(inspect, item, SHMB_PATTERN_STATE);
}

static void read_lane(const struct inspect *inspect, struct inspect_item *item)
{
	struct shmb_lane_segment block;

	if (inspect_segment(inspect, item, 0, &block, sizeof(block), item->why) < 0)
		return;
	item->lane = (struct inspect_lane){
		.position = is_state(inspect, item) ? 0 : block.position_hint,
		.sequence = block.sequence_hint,
		.dropped = block.dropped,
		.refused = block.refused,
		.rings = block.rings,
		.evicted = block.evicted,
		.full_since_ns =
			block.full_sequence == block.sequence_hint ? block.full_since_ns : 0,
		.is_waiting = (block.space_wait & SHMB_SLEEP_MODE_MASK) != SHMB_SLEEP_AWAKE,
	};
	item->is_read = true;
}

static void read_cursor(const struct inspect *inspect, struct inspect_item *item)
{
	struct shmb_cursor_segment block;

	if (inspect_segment(inspect, item, 0, &block, sizeof(block), item->why) < 0)
		return;
	item->cursor = (struct inspect_cursor){
		.sleeps = block.sleeps,
		.backstops = block.backstops,
		.updated_ns = block.updated_ns,
		.sleep = block.sleep,
		.sleep_mode = block.sleep & SHMB_SLEEP_MODE_MASK,
		.credit = block.credit,
	};
	for (unsigned i = 0; i <= SHMB_HOLDS_MAX; i++)
		if (block.holds[i].block & SHMB_HOLD_VALID)
			item->cursor.holds[item->cursor.n_holds++] = block.holds[i];
	item->is_read = true;
}

/* There are no numbers in it; but it must be what the registry says. */
static void read_arena(const struct inspect *inspect, struct inspect_item *item)
{
	struct shmb_arena_segment block;

	item->is_read = inspect_segment(inspect, item, 0, &block, sizeof(block), item->why) == 0;
}

/*
 * What the publisher says: where a subscriber that has not stored anything yet will begin, and whether
 * it waits for that one.
 */
static int read_bell(const struct inspect *inspect, struct inspect_item *item)
{
	struct inspect_pair *pair = &item->pair;
	struct shmb_bell_segment bell;
	int r;

	/* It finds its beginning itself. */
	if (!item->entry.segment_len)
		return pair->has_begun ? 0 : -EAGAIN;
	r = inspect_segment(inspect, item, 0, &bell, sizeof(bell), item->why);
	if (r < 0)
		return r;
	pair->is_evicted = bell.evicted;
	if (pair->has_begun)
		return 0;
	pair->position = bell.start_position;
	pair->sequence = bell.start_sequence;
	return bell.attached == 1 ? 0 : -EAGAIN;
}

/* What a worker says of the records of one publisher. */
static void read_work(const struct inspect *inspect, struct inspect_item *item,
		      const struct inspect_item *subscriber, uint32_t slot)
{
	const struct inspect_item *channel =
		inspect_find(inspect, SHMB_ENTRY_CHANNEL, item->entry.channel_id);
	uint64_t n_slots = (uint64_t)channel->entry.max_publishers + SHMB_QUEUE_KEPT_MAX;
	uint64_t offset = SHMB_BLOCK_LEN + n_slots * sizeof(struct shmb_cursor_lane) +
			  slot * sizeof(struct shmb_cursor_work);
	struct shmb_cursor_work work;

	if (inspect_segment(inspect, subscriber, offset, &work, sizeof(work), item->why) < 0)
		return;
	item->pair.done = work.done;
	for (uint32_t i = 0; i < SHMB_QUEUE_CREDIT_MAX; i++) {
		uint32_t number = (uint32_t)(work.marks[i] >> SHMB_QUEUE_MARK_NUMBER_SHIFT);
		uint32_t handed = work.marks[i] & 0xffff;

		/* Others are of earlier records. */
		if (number - (uint32_t)work.done >= SHMB_QUEUE_CREDIT_MAX || !handed ||
		    work.marks[i] & SHMB_QUEUE_MARK_DONE)
			continue;
		item->pair.in_work++;
		if (handed > item->pair.attempts)
			item->pair.attempts = handed;
	}
}

static void read_pair(const struct inspect *inspect, struct inspect_item *item)
{
	const struct shmb_registry_entry *entry = &item->entry;
	const struct inspect_item *publisher, *subscriber;
	struct inspect_pair *pair = &item->pair;
	struct shmb_cursor_lane slot;

	publisher = inspect_find(inspect, SHMB_ENTRY_PUBLISHER, entry->publisher_id);
	subscriber = inspect_find(inspect, SHMB_ENTRY_SUBSCRIBER, entry->subscriber_id);
	/* Either may be joining, or leaving; trouble with their segments is told at them. */
	if (!publisher || !subscriber || !publisher->is_read || !subscriber->is_read)
		return;
	if (inspect_segment(inspect, subscriber,
			    SHMB_BLOCK_LEN + (uint64_t)publisher->entry.slot * sizeof(slot), &slot,
			    sizeof(slot), item->why) < 0)
		return;
	if (slot.pair_id == entry->id) {
		pair->position = slot.position;
		pair->sequence = slot.sequence;
		pair->lost = slot.lost;
		pair->expired = slot.expired;
		pair->conflated = slot.conflated;
		pair->has_begun = true;
		if (has_pattern(inspect, item, SHMB_PATTERN_QUEUE))
			read_work(inspect, item, subscriber, publisher->entry.slot);
	}
	if ((!pair->has_begun || subscriber->entry.evict_after_ms) && read_bell(inspect, item) < 0)
		return;
	item->is_read = true;
	/* The hint is lazy: the reader may be past it. */
	if (publisher->lane.position > pair->position)
		pair->lag_len = publisher->lane.position - pair->position;
	if (publisher->lane.sequence > pair->sequence && !is_state(inspect, item))
		pair->lag_records = publisher->lane.sequence - pair->sequence;
}

void inspect_read_segments(struct inspect *inspect)
{
	for (uint32_t i = 0; i < inspect->n_items; i++) {
		if (!is_sealed(&inspect->items[i]))
			continue;
		find_memfds(inspect);
		break;
	}
	/* Sorted by kind: when a pair comes, both its members have been read. */
	for (uint32_t i = 0; i < inspect->n_items; i++) {
		struct inspect_item *item = &inspect->items[i];

		if (!is_ready(item))
			continue;
		switch (item->entry.kind) {
		case SHMB_ENTRY_CHANNEL:
			read_channel(inspect, item);
			break;
		case SHMB_ENTRY_PUBLISHER:
			read_lane(inspect, item);
			break;
		case SHMB_ENTRY_SUBSCRIBER:
			read_cursor(inspect, item);
			break;
		case SHMB_ENTRY_PAIR:
			read_pair(inspect, item);
			break;
		case SHMB_ENTRY_ARENA:
			read_arena(inspect, item);
			break;
		}
		inspect->n_bad += item->why[0] != '\0';
	}
}

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void sum_item(const struct inspect_item *item, struct inspect_sum *sum)
{
	switch (item->entry.kind) {
	case SHMB_ENTRY_PUBLISHER:
		if (inspect_is_kept(item))
			sum->n_kept++;
		else
			sum->n_publishers++;
		if (!item->is_read || inspect_is_kept(item))
			break;
		sum->records += item->lane.sequence;
		sum->published_len += item->lane.position;
		sum->dropped += item->lane.dropped;
		sum->refused += item->lane.refused;
		sum->rings += item->lane.rings;
		sum->evicted += item->lane.evicted;
		break;
	case SHMB_ENTRY_SUBSCRIBER:
		if (inspect_is_kept(item))
			break;
		sum->n_subscribers++;
		sum->n_servers += (item->entry.flags & SHMB_MEMBER_SERVER) != 0;
		if (!item->is_read)
			break;
		sum->n_sleeping += item->cursor.sleep_mode != SHMB_SLEEP_AWAKE;
		sum->sleeps += item->cursor.sleeps;
		sum->backstops += item->cursor.backstops;
		break;
	case SHMB_ENTRY_PAIR:
		if (!item->is_read)
			break;
		sum->lost += item->pair.lost;
		sum->expired += item->pair.expired;
		sum->conflated += item->pair.conflated;
		sum->lag_len = most(sum->lag_len, item->pair.lag_len);
		sum->lag_records = most(sum->lag_records, item->pair.lag_records);
		break;
	}
}

void inspect_sum(const struct inspect *inspect, const struct inspect_item *channel,
		 struct inspect_sum *sum)
{
	*sum = (struct inspect_sum){ .segments_len = channel->entry.segment_len };
	for (uint32_t i = 0; i < inspect->n_items; i++) {
		const struct inspect_item *item = &inspect->items[i];

		if (item->entry.kind == SHMB_ENTRY_CHANNEL ||
		    item->entry.channel_id != channel->entry.id)
			continue;
		sum->segments_len += item->entry.segment_len;
		sum_item(item, sum);
	}
}
