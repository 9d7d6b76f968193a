/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_INSPECT_H
#define SHMB_TOOLS_INSPECT_H

/*
 * A picture of a broker's system, read from its registry and segments. Everything is copied with
 * pread(2) and checked in the copy; nothing is mapped, so no writer can change what was checked,
 * and none can hurt us by truncating an object.
 */

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/layout.h>

#define INSPECT_WHY_LEN 320

struct inspect_lane {
	uint64_t position;
	uint64_t sequence;
	uint64_t dropped;
	uint64_t refused;
	uint64_t rings;
	uint64_t full_since_ns; /* CLOCK_MONOTONIC; 0: it has published since */
	uint64_t evicted; /* subscribers that it has stopped waiting for */
	bool is_waiting; /* asleep until there is space */
};

struct inspect_cursor {
	uint64_t sleeps;
	uint64_t backstops;
	uint64_t updated_ns;
	uint32_t sleep_mode; /* SHMB_SLEEP_* */
	uint32_t sleep; /* the word itself */
	uint32_t credit; /* of a worker */
	uint32_t n_holds;
	struct shmb_cursor_hold holds[SHMB_HOLDS_MAX + 1]; /* those that there are */
};

/* How far a subscriber has read a lane. @lag_* are what the publisher's hints say: at least so much. */
struct inspect_pair {
	uint64_t position;
	uint64_t sequence;
	uint64_t lost;
	uint64_t expired;
	uint64_t conflated;
	uint64_t lag_len;
	uint64_t lag_records;
	bool has_begun; /* the subscriber has stored a position for this pair */
	uint64_t done; /* queues: records for this worker, all before the first that is not */
	uint32_t in_work; /* handed out and not done */
	uint32_t attempts; /* of those in work, the most often handed out here so often */
	bool is_evicted; /* the publisher has stopped waiting for it */
};

struct inspect_channel {
	uint64_t epoch;
};

/**
 * struct inspect_item - a registry entry, and the numbers from its segment
 * @entry:   a copy; its enums, lengths and names have been checked
 * @is_read: one of the structs below holds
 * @why:     if not, and it should: one sentence
 */
struct inspect_item {
	struct shmb_registry_entry entry;
	bool is_read;
	char why[INSPECT_WHY_LEN];
	union {
		struct inspect_lane lane;
		struct inspect_cursor cursor;
		struct inspect_pair pair;
		struct inspect_channel channel;
	};
};

struct inspect_memfd {
	uint64_t inode;
	int fd; /* of the broker, as in /proc/PID/fd */
};

/**
 * struct inspect - the whole picture
 * @head:    the registry's first block
 * @items:   sorted by kind, then id
 * @n_items: how many
 * @n_bad:   how many of them have a @why
 * @n_broken_entries: live entries that make no sense and were left out
 * @registry_len: bytes of the registry
 * @memfds:	 sealed segments that the broker has open, by inode
 * @n_memfds:	 how many
 * @memfds_error: errno if the broker's fds could not be listed
 */
struct inspect {
	struct shmb_registry_segment head;
	struct inspect_item *items;
	uint32_t n_items;
	uint32_t n_bad;
	uint32_t n_broken_entries;
	uint64_t registry_len;
	struct inspect_memfd *memfds;
	uint32_t n_memfds;
	int memfds_error;
	char dir[PATH_MAX];
	char why[INSPECT_WHY_LEN];
};

/**
 * inspect_open() - take a picture
 * @inspect:  filled; @why says one sentence on failure
 * @registry: path of the registry
 * @dir:      where the objects lie that it names
 * @instance: that it must belong to, or 0: any
 *
 * Return: 0; -ENOENT: no registry; -EBADMSG: not a registry that we can read; another negative
 *	   errno value.
 */
int inspect_open(struct inspect *inspect, const char *registry, const char *dir, uint64_t instance);
void inspect_close(struct inspect *inspect);

/* The item of that kind and id, or NULL. */
const struct inspect_item *inspect_find(const struct inspect *inspect, uint32_t kind, uint64_t id);

/* Whose block a hold of a channel's subscriber names, or NULL. */
const struct inspect_item *inspect_holdee(const struct inspect *inspect, uint64_t channel_id,
					  const struct shmb_cursor_hold *hold);

/* The next item of @kind after @item (NULL: the first), of @channel_id unless 0; or NULL. */
const struct inspect_item *inspect_next(const struct inspect *inspect,
					const struct inspect_item *item, uint32_t kind,
					uint64_t channel_id);

/* Has that member gone, and its segment is still there? */
static inline bool inspect_is_kept(const struct inspect_item *member)
{
	return member->entry.flags & SHMB_MEMBER_KEPT;
}

static inline uint32_t inspect_priority(const struct inspect_item *publisher)
{
	return (publisher->entry.flags & SHMB_MEMBER_PRIORITY_MASK) >> SHMB_MEMBER_PRIORITY_SHIFT;
}

/* The channel of that name, or NULL. */
const struct inspect_item *inspect_channel(const struct inspect *inspect, const char *name);

/**
 * inspect_segment() - read from the segment that belongs to an item, with all checks
 * @inspect: picture
 * @item:    whose segment
 * @offset:  where
 * @data:    @len bytes are filled, all or nothing
 * @why:     one sentence on failure, INSPECT_WHY_LEN bytes
 *
 * Return: 0 or a negative errno value.
 */
int inspect_segment(const struct inspect *inspect, const struct inspect_item *item, uint64_t offset,
		    void *data, size_t len, char *why);

/**
 * struct inspect_sum - totals of a channel
 * @n_kept:	 lanes of publishers that have gone
 * @n_servers:	 call channels: of @n_subscribers
 * @records:	 published by the publishers that are there now
 * @published_len: bytes of ring they took
 * @segments_len: bytes of all its segments
 * @lag_len:	 of the subscriber that is furthest behind
 * @lag_records: same
 */
struct inspect_sum {
	uint32_t n_publishers;
	uint32_t n_kept;
	uint32_t n_subscribers;
	uint32_t n_servers;
	uint32_t n_sleeping;
	uint64_t records;
	uint64_t published_len;
	uint64_t segments_len;
	uint64_t lag_len;
	uint64_t lag_records;
	uint64_t lost;
	uint64_t expired;
	uint64_t conflated;
	uint64_t dropped;
	uint64_t refused;
	uint64_t evicted;
	uint64_t rings;
	uint64_t sleeps;
	uint64_t backstops;
};

void inspect_sum(const struct inspect *inspect, const struct inspect_item *channel,
		 struct inspect_sum *sum);

#endif
