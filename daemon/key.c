/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <shmbroker/cell.h>

#include "lib/fd.h"

#include "daemon/key.h"

/* Who lives and puts again meanwhile is hostile, or thrown out in the middle of a put. */
#define COPY_TRIES 4
/* No honest publisher has put so often; above it the next one could run out of versions. */
#define VERSION_MAX (1ull << 62)

static struct shmb_state_key *key_at(const struct channel *channel, uint32_t index)
{
	uint8_t *base = (uint8_t *)channel->map + shmb_state_keys_offset(channel->schema_len);

	return (struct shmb_state_key *)(void *)base + index;
}

static uint32_t cell_len(const struct channel *channel)
{
	return channel->lane_len / channel->max_keys;
}

/* The channel's own cell. */
static uint8_t *cell_at(const struct channel *channel, uint32_t index)
{
	return (uint8_t *)channel->map +
	       shmb_state_cells_offset(channel->schema_len, channel->max_keys) +
	       (uint64_t)index * cell_len(channel);
}

struct shmb_state_key *key_owned(const struct channel *channel, uint32_t index, uint64_t id)
{
	struct shmb_state_key *key;

	if (channel->pattern != SHMB_PATTERN_STATE || index >= channel->max_keys)
		return NULL;
	key = key_at(channel, index);
	return key->owner == id ? key : NULL;
}

uint64_t key_version(const struct channel *channel, uint32_t index)
{
	const struct shmb_cell_slot *slot;

	return shmb_cell_current(cell_at(channel, index), cell_len(channel), &slot);
}

void key_set_source(struct shmb_state_key *key)
{
	/*
	 * Killed before: the last value is where it was, and the owner tries again. pairs with the
	 * acquire load of a reader: the value was in the cell before the owner told us
	 */
	__atomic_store_n(&key->source, key->owner, __ATOMIC_RELEASE);
}

/* ---- inheriting -------------------------------------------------------------------------------- */

static bool read_at(int fd, void *to, uint64_t len, uint64_t offset)
{
	uint64_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (uint8_t *)to + done, len - done, (off_t)(offset + done));

		if (n <= 0 && !(n < 0 && errno == EINTR))
			return false;
		done += n > 0 ? (uint64_t)n : 0;
	}
	return true;
}

/* The head of the current slot of a cell in a file, and where it is. Returns false if there is none. */
static bool read_head(int fd, uint64_t cell, uint32_t len, struct shmb_cell_slot *ret_head,
		      uint64_t *ret_offset)
{
	struct shmb_cell_slot other;

	if (!read_at(fd, ret_head, sizeof(*ret_head), cell) ||
	    !read_at(fd, &other, sizeof(other), cell + len / 2))
		return false;
	*ret_offset = cell;
	if (other.version > ret_head->version) {
		*ret_head = other;
		*ret_offset = cell + len / 2;
	}
	return ret_head->version && ret_head->version <= VERSION_MAX &&
	       (ret_head->len <= shmb_cell_value_len_max(len) ||
		ret_head->len == SHMB_CELL_NO_VALUE);
}

/* Copies the value straight into the slot that is not current. Returns false if it cannot be had. */
static bool read_value(int fd, uint64_t cell, uint32_t len, void *to,
		       struct shmb_cell_slot *ret_head)
{
	uint64_t offset, version;

	for (int tries = 0; tries < COPY_TRIES; tries++) {
		if (!read_head(fd, cell, len, ret_head, &offset))
			return false;
		if (ret_head->len != SHMB_CELL_NO_VALUE &&
		    !read_at(fd, to, ret_head->len, offset + sizeof(*ret_head)))
			return false;
		if (!read_at(fd, &version, sizeof(version), offset))
			return false;
		if (version == ret_head->version)
			return true;
	}
	return false;
}

/* The channel's cell gets the value that is in the owner's, or none if it cannot be read. */
static void copy_value(const struct channel *channel, uint32_t index, int fd, bool always)
{
	uint64_t cell = SHMB_BLOCK_LEN + (uint64_t)index * cell_len(channel), current;
	struct shmb_cell_slot head = { .len = SHMB_CELL_NO_VALUE };
	uint8_t *own = cell_at(channel, index);
	const struct shmb_cell_slot *slot;
	uint32_t len = cell_len(channel), free_slot;
	uint64_t term = key_at(channel, index)->term;
	void *to;

	current = shmb_cell_current(own, len, &slot);
	free_slot = current && (const uint8_t *)slot == own ? 1 : 0;
	to = shmb_cell_begin(own, len, free_slot);
	if (fd < 0 || !read_value(fd, cell, len, to, &head)) {
		if (!always)
			return;
		head = (struct shmb_cell_slot){ .len = SHMB_CELL_NO_VALUE };
		/* A copy of the same claim is the last that could be read. */
		if (fd < 0 && current && slot->term == term)
			return;
	}
	if (head.version == current && slot->term == term)
		return; /* we have it */
	/* It cannot be lower but for publishers that lie. */
	if (head.version <= current)
		head.version = current + 1;
	shmb_cell_end(own, len, free_slot, head.version, term, head.len);
}

static int open_segment(const struct segment *segment)
{
	return segment ? segment_open_read(segment) : -ESTALE;
}

static void disclaim(const struct channel *channel, uint32_t index, int fd)
{
	struct shmb_state_key *key = key_at(channel, index);

	if (key->source && fd < 0)
		log_line(&channel->broker->log, LOG_WARNING, "value-lost",
			 "channel=%llu key=%u publisher=%llu error=%d",
			 (unsigned long long)object_id(&channel->object), index,
			 (unsigned long long)key->source, -fd);
	if (key->source)
		copy_value(channel, index, fd, true);
	/*
	 * Killed before: a successor finds its owner gone, and does it again. pairs with the acquire
	 * load of a reader: the value is in the channel's cell
	 */
	__atomic_store_n(&key->source, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&key->owner, 0, __ATOMIC_RELAXED);
}

int key_claim(struct channel *channel, uint64_t id, const void *name, uint32_t key_len,
	      uint32_t *ret_index, uint64_t *ret_owner)
{
	struct shmb_state_key *key = NULL;
	uint32_t index;

	for (index = 0; index < channel->max_keys; index++) {
		key = key_at(channel, index);
		if (!key->key_len ||
		    (key->key_len == key_len && memcmp(key->key, name, key_len) == 0))
			break;
	}
	if (index == channel->max_keys)
		return -EUSERS;
	*ret_index = index;
	/*
	 * One that has gone: a predecessor of ours was stopped while it granted this, and went on when
	 * we had it all.
	 */
	if (key->owner && key->owner != id &&
	    !broker_find(channel->broker, key->owner, SHMB_ENTRY_PUBLISHER))
		disclaim(channel, index, -ESTALE);
	*ret_owner = key->owner;
	if (key->owner)
		return key->owner == id ? 0 : -EBUSY;
	if (!key->key_len) {
		memcpy(key->key, name, key_len);
		/* Killed before: the entry is free still. pairs with the acquire load of a reader */
		__atomic_store_n(&key->key_len, key_len, __ATOMIC_RELEASE);
	}
	/* Killed between the two: a term was skipped. */
	__atomic_store_n(&key->term, registry_next_id(&channel->broker->registry),
			 __ATOMIC_RELAXED);
	__atomic_store_n(&key->owner, id, __ATOMIC_RELAXED);
	return 0;
}

void key_disclaim(const struct channel *channel, uint32_t index, const struct segment *segment)
{
	int fd = open_segment(segment);

	disclaim(channel, index, fd);
	shmb_fd_close(fd);
}

void key_disclaim_all(const struct channel *channel, uint64_t id, const struct segment *segment)
{
	int fd = open_segment(segment);

	for (uint32_t i = 0; i < channel->max_keys; i++)
		if (key_at(channel, i)->owner == id)
			disclaim(channel, i, fd);
	shmb_fd_close(fd);
}

void key_copy_all(const struct channel *channel, uint64_t id, const struct segment *segment)
{
	int fd = open_segment(segment);

	/*
	 * AE: pairs with the fence in shmb_publisher_changed(): either we see what it has put, or it
	 * sees that the epoch has moved.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (uint32_t i = 0; fd >= 0 && i < channel->max_keys; i++)
		if (key_at(channel, i)->source == id)
			copy_value(channel, i, fd, false);
	shmb_fd_close(fd);
}

void key_drop_copies(const struct channel *channel, uint64_t id)
{
	const struct shmb_cell_slot *slot;

	for (uint32_t i = 0; i < channel->max_keys; i++) {
		uint8_t *own = cell_at(channel, i);
		uint64_t current = shmb_cell_current(own, cell_len(channel), &slot);

		if (key_at(channel, i)->source != id || !current ||
		    slot->term != key_at(channel, i)->term)
			continue;
		/* No claim has this term: it is nobody's copy. */
		shmb_cell_write(own, cell_len(channel), (const uint8_t *)slot == own ? 1 : 0,
				current + 1, 0, NULL, SHMB_CELL_NO_VALUE);
	}
}

void key_settle(const struct channel *channel)
{
	for (uint32_t i = 0; i < channel->max_keys; i++) {
		uint64_t owner = key_at(channel, i)->owner;

		if (owner && !broker_find(channel->broker, owner, SHMB_ENTRY_PUBLISHER))
			disclaim(channel, i, -ESTALE);
	}
}
