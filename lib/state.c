/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Latest values by key. A publisher has a cell for every key of the channel, and writes those that it
 * has claimed from the broker. The directory in the channel's segment, which only the broker writes,
 * says where the value of a key is: in its owner's cell, or in the channel's own, to which the broker
 * has copied what those have left who have gone. What a publisher writes elsewhere is read by nobody.
 *
 * A subscriber looks each key up once and keeps the address of its cell until the channel's epoch
 * moves; then it looks all of them up again, and only after that unmaps who has gone.
 *
 * A publisher that moves to another segment writes both from the moment subscribers may be told of
 * it until all know it, the new one first. So both hold the latest value, and of several segments of
 * one publisher the highest version of a key is the latest, whatever becomes of the move.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/copy.h"
#define SHMB_CELL_COPY(to, from, len) shmb_copy((to), (from), (len))
#include <shmbroker/cell.h>

#include "lib/error.h"
#include "lib/publisher.h"
#include "lib/subscriber.h"

#define ANY_KEY UINT32_MAX

/* ---- writing ----------------------------------------------------------------------------------- */

/**
 * struct writer_key - a key that a publisher may have claimed
 * @version: of the last value, whoever has put it
 * @term:    of the claim, 0: not claimed
 * @source:  the broker has been told that there is a value
 * @slot:    of its cell, for the next value
 */
struct writer_key {
	uint64_t version;
	uint64_t term;
	bool source;
	uint8_t slot;
};

/**
 * struct shmb_state_writer - what a publisher of a state channel has instead of a ring
 * @member:	   the publisher
 * @max_keys:	   of the channel
 * @cell_len:	   bytes of a cell
 * @value_len_max: bytes of the longest value
 * @value_len:	   bytes of every value; 0: untyped
 * @keys:	   @max_keys of them
 */
struct shmb_state_writer {
	struct shmb_member *member;
	uint32_t max_keys;
	uint32_t cell_len;
	uint32_t value_len_max;
	uint32_t value_len;
	struct writer_key keys[];
};

struct shmb_state_writer *shmb_state_writer_new(struct shmb_member *member)
{
	const struct shmb_channel *channel = member->channel;
	struct shmb_state_writer *writer;

	writer = calloc(1, sizeof(*writer) + channel->max_keys * sizeof(writer->keys[0]));
	if (!writer)
		return NULL;
	writer->member = member;
	writer->max_keys = channel->max_keys;
	writer->cell_len = shmb_channel_cell_len(channel);
	writer->value_len_max = shmb_cell_value_len_max(writer->cell_len);
	writer->value_len = channel->record_len;
	return writer;
}

static int enter_writer(struct shmb_publisher *publisher, struct shmb_state_writer **ret_writer)
{
	struct shmb_state_writer *writer = shmb_publisher_state(publisher);

	*ret_writer = writer;
	if (shmb_unlikely(!writer))
		return publisher ? shmb_fail(-EOPNOTSUPP, "the channel is not a state channel")
				 : shmb_fail(-EINVAL, "publisher is NULL");
	return shmb_member_enter(writer->member);
}

/* A key that this publisher has claimed. */
static int enter_key(struct shmb_publisher *publisher, uint32_t key,
		     struct shmb_state_writer **ret_writer)
{
	int result = enter_writer(publisher, ret_writer);

	if (shmb_unlikely(result < 0))
		return result;
	if (shmb_unlikely(key >= (*ret_writer)->max_keys || !(*ret_writer)->keys[key].term))
		return shmb_fail(-EPERM, "key %u is not claimed by this publisher", key);
	return 0;
}

SHMB_API int32_t shmb_publisher_claim(struct shmb_publisher *publisher, const void *key,
				      uint32_t key_len)
{
	struct shmb_state_writer *writer;
	struct shmb_msg_claim request = { .key_len = key_len };
	struct shmb_received received;
	struct shmb_msg_claimed claimed;
	int result = enter_writer(publisher, &writer);

	if (result < 0)
		return result;
	if (!key || !key_len || key_len > SHMB_STATE_KEY_LEN_MAX)
		return shmb_fail(-EINVAL, "a key has 1 to %u bytes, not %u", SHMB_STATE_KEY_LEN_MAX,
				 key ? key_len : 0);
	request.member_id = writer->member->id;
	memcpy(request.key, key, key_len);
	pthread_mutex_lock(&writer->member->client->lock);
	result = shmb_client_request(writer->member->client, SHMB_MSG_CLAIM, &request,
				     sizeof(request), SHMB_MSG_CLAIMED, sizeof(claimed), &received);
	if (result == 0)
		memcpy(&claimed, received.message.body, sizeof(claimed));
	shmb_received_deinit(&received);
	pthread_mutex_unlock(&writer->member->client->lock);
	if (result == -EDQUOT)
		return shmb_fail(-EDQUOT,
				 "all %u keys of the channel are taken: create it with a larger "
				 "max_keys",
				 writer->max_keys);
	if (result < 0)
		return result;
	if (claimed.index >= writer->max_keys || !claimed.term)
		return shmb_fail(-EPROTO, "the broker gave key %u of %u", claimed.index,
				 writer->max_keys);
	if (writer->keys[claimed.index].term != claimed.term) {
		struct writer_key *mine = &writer->keys[claimed.index];

		mine->term = claimed.term;
		mine->source = false;
		if (claimed.version > mine->version)
			mine->version = claimed.version;
	}
	shmb_publisher_view(publisher)->term = claimed.term;
	return (int32_t)claimed.index;
}

static int tell(struct shmb_state_writer *writer, uint32_t type, uint32_t key)
{
	struct shmb_msg_key request = { .member_id = writer->member->id, .index = key };
	int result;

	pthread_mutex_lock(&writer->member->client->lock);
	result = shmb_client_request_ok(writer->member->client, type, &request, sizeof(request));
	pthread_mutex_unlock(&writer->member->client->lock);
	return result;
}

SHMB_API int32_t shmb_publisher_disclaim(struct shmb_publisher *publisher, uint32_t key)
{
	struct shmb_state_writer *writer;
	int result = enter_key(publisher, key, &writer);

	if (result == 0)
		result = tell(writer, SHMB_MSG_DISCLAIM, key);
	if (result == 0)
		writer->keys[key].term = 0;
	return result;
}

/* Everything is checked but the evicted publisher, whose cells nobody needs. */
static int put(struct shmb_publisher *publisher, struct shmb_state_writer *writer, uint32_t index,
	       const void *data, uint32_t len)
{
	struct writer_key *key = &writer->keys[index];
	const struct shmb_member *member = writer->member;
	uint64_t offset = SHMB_BLOCK_LEN + (uint64_t)index * writer->cell_len;

	key->version++;
	/* Killed between the two: a reader of the old one has the value before, and gets this one. */
	if (shmb_unlikely(member->asked))
		shmb_cell_write((uint8_t *)member->next.base + offset, writer->cell_len, key->slot,
				key->version, key->term, data, len);
	shmb_cell_write((uint8_t *)member->own.base + offset, writer->cell_len, key->slot,
			key->version, key->term, data, len);
	key->slot ^= 1;
	if (shmb_unlikely(!key->source)) {
		/*
		 * Until here the value before is what everybody reads, in whatever segment it is.
		 * Killed before or while we ask: it stays so, or ours is there.
		 */
		int result = tell(writer, SHMB_MSG_SOURCE, index);

		if (result < 0)
			return result;
		key->source = true;
	}
	shmb_publisher_changed(publisher);
	return 0;
}

SHMB_API int32_t shmb_publisher_put(struct shmb_publisher *publisher, uint32_t key,
				    const void *data, uint32_t len)
{
	struct shmb_state_writer *writer;
	int result = enter_key(publisher, key, &writer);

	if (shmb_unlikely(result < 0))
		return result;
	if (shmb_unlikely(!data && len))
		return shmb_fail(-EINVAL, "data is NULL");
	if (shmb_unlikely(writer->value_len && len != writer->value_len))
		return shmb_fail(-EINVAL, "a value of this channel has %u bytes, this one %u",
				 writer->value_len, len);
	if (shmb_unlikely(len > writer->value_len_max))
		return shmb_fail(-EMSGSIZE,
				 "a value of this channel has at most %u bytes, this one %u: "
				 "create it with a larger value_len",
				 writer->value_len_max, len);
	return put(publisher, writer, key, data, len);
}

SHMB_API int32_t shmb_publisher_erase(struct shmb_publisher *publisher, uint32_t key)
{
	struct shmb_state_writer *writer;
	int result = enter_key(publisher, key, &writer);

	return result < 0 ? result : put(publisher, writer, key, NULL, SHMB_CELL_NO_VALUE);
}

/* ---- reading ----------------------------------------------------------------------------------- */

/**
 * struct reader_key - a key as a subscriber last looked it up
 * @cell:   where its value is; NULL: in a segment that has not come yet
 * @source: in whose segment, 0: in the channel's
 * @seen:   the version that was last told of
 */
struct reader_key {
	const void *cell;
	uint64_t source;
	uint64_t seen;
};

/**
 * struct reader_lane - a segment of a publisher, by the order of the subscriber's lanes
 * @words: it; NULL: the publisher has left it
 * @id:	   whose it is
 * @puts:  how many values it had put when the keys were last looked through
 */
struct reader_lane {
	const struct shmb_lane_segment *words;
	uint64_t id;
	uint64_t puts;
};

/**
 * struct shmb_state_reader - what a subscriber of a state channel has instead of lanes to read
 * @subscriber:	   whose it is
 * @member:	   the same
 * @view:	   of the subscriber
 * @directory:	   the broker's, read-only
 * @cells:	   the broker's, read-only
 * @max_keys:	   entries of it
 * @n_keys:	   of them in use
 * @cell_len:	   bytes of a cell
 * @value_len:	   bytes of every value; 0: untyped
 * @seen_epoch:	   for which @keys hold
 * @seen_changes:  for which @keys hold
 * @unresolved:	   some key's publisher is not known yet
 * @moving:	   some publisher has several segments
 * @looked_up:	   @keys hold
 * @dirty:	   some key may have changed, whatever @puts say
 * @next:	   where the next look through the keys begins
 * @only:	   the key that is waited for, or ANY_KEY
 * @n_lanes:	   of @lanes
 * @lanes:	   publishers
 * @keys:	   @max_keys of them
 */
struct shmb_state_reader {
	struct shmb_subscriber *subscriber;
	struct shmb_member *member;
	struct shmb_view *view;
	const struct shmb_state_key *directory;
	const uint8_t *cells;
	uint32_t max_keys;
	uint32_t n_keys;
	uint32_t cell_len;
	uint32_t value_len;
	uint64_t seen_epoch;
	uint32_t seen_changes;
	bool unresolved;
	bool moving;
	bool looked_up;
	bool dirty;
	uint32_t next;
	uint32_t only;
	uint32_t n_lanes;
	struct reader_lane *lanes;
	struct reader_key keys[];
};

struct shmb_state_reader *shmb_state_reader_new(struct shmb_subscriber *subscriber)
{
	struct shmb_member *member = shmb_subscriber_member(subscriber);
	const struct shmb_channel *channel = member->channel;
	struct shmb_state_reader *reader;

	reader = calloc(1, sizeof(*reader) + channel->max_keys * sizeof(reader->keys[0]));
	if (!reader)
		return NULL;
	reader->subscriber = subscriber;
	reader->member = member;
	reader->view = shmb_subscriber_view(subscriber);
	reader->directory = shmb_channel_keys(channel);
	reader->cells = shmb_channel_cells(channel);
	reader->max_keys = channel->max_keys;
	reader->cell_len = shmb_channel_cell_len(channel);
	reader->value_len = channel->record_len;
	reader->only = ANY_KEY;
	return reader;
}

struct shmb_state_reader *shmb_state_reader_free(struct shmb_state_reader *reader)
{
	if (reader)
		free(reader->lanes);
	free(reader);
	return NULL;
}

/* Bytes of a key, 0: there is none (yet). */
static uint32_t key_len(const struct shmb_state_reader *reader, uint32_t index)
{
	/* The acquire pairs with the broker's release in key_claim(): the key is there. */
	uint32_t len = SHMB_LOAD_ACQUIRE(&reader->directory[index].key_len);

	return len <= SHMB_STATE_KEY_LEN_MAX ? len : 0;
}

static int list_lanes(struct shmb_state_reader *reader)
{
	uint32_t n = shmb_subscriber_n_lanes(reader->subscriber);
	struct reader_lane *lanes = calloc(n + 1, sizeof(*lanes));

	if (!lanes)
		return shmb_fail(-ENOMEM, "no memory for the publishers of a state channel");
	reader->moving = false;
	for (uint32_t i = 0; i < n; i++) {
		bool moving = false;

		lanes[i].words = shmb_subscriber_lane(reader->subscriber, i, &lanes[i].id, &moving);
		reader->moving |= moving;
	}
	free(reader->lanes);
	reader->lanes = lanes;
	reader->n_lanes = n;
	return 0;
}

/* Where the publisher has the latest value of a key; NULL: no segment of it is known. */
static const void *find_cell(const struct shmb_state_reader *reader, uint64_t source,
			     uint32_t index)
{
	const struct shmb_cell_slot *slot;
	const void *latest = NULL;
	uint64_t version = 0;

	for (uint32_t i = 0; i < reader->n_lanes; i++) {
		const struct reader_lane *lane = &reader->lanes[i];
		const uint8_t *cell = (const uint8_t *)lane->words + SHMB_BLOCK_LEN +
				      (uint64_t)index * reader->cell_len;
		uint64_t current;

		if (!lane->words || lane->id != source)
			continue;
		if (!reader->moving)
			return cell;
		current = shmb_cell_current(cell, reader->cell_len, &slot);
		if (!latest || current >= version) {
			latest = cell;
			version = current;
		}
	}
	return latest;
}

/*
 * The owner's segment is on its way to us, or the owner has to move first, since we may not have the
 * one that it is in. Until then the last value is the one before, or what the broker has copied.
 */
static void look_up_unknown(struct shmb_state_reader *reader, uint32_t index, const void *own)
{
	struct reader_key *key = &reader->keys[index];
	const struct shmb_cell_slot *slot;

	reader->unresolved = true;
	if (key->cell && key->source)
		key->cell = find_cell(reader, key->source, index);
	if (key->cell && key->source)
		return;
	/* Killed between claim and first value: as before. A copy is of the very claim. */
	if (shmb_cell_current(own, reader->cell_len, &slot) &&
	    SHMB_LOAD(&slot->term) == SHMB_LOAD(&reader->directory[index].term))
		key->cell = own;
	key->source = 0;
}

static void look_up(struct shmb_state_reader *reader, uint32_t index)
{
	struct reader_key *key = &reader->keys[index];
	const void *own = reader->cells + (uint64_t)index * reader->cell_len, *cell = own;
	/*
	 * The acquire pairs with the broker's releases in key_set_source() and disclaim(): the value is
	 * in that cell.
	 */
	uint64_t source = SHMB_LOAD_ACQUIRE(&reader->directory[index].source);

	if (source)
		cell = find_cell(reader, source, index);
	if (shmb_unlikely(!cell)) {
		look_up_unknown(reader, index, own);
		return;
	}
	key->source = source;
	key->cell = cell;
}

/* Takes in keys that were claimed for the first time. */
static void count_keys(struct shmb_state_reader *reader)
{
	while (reader->n_keys < reader->max_keys && key_len(reader, reader->n_keys))
		look_up(reader, reader->n_keys++);
}

/* Where is every key? Nothing points into what has gone afterwards, so it can be unmapped. */
static int look_up_all(struct shmb_state_reader *reader)
{
	uint64_t epoch = reader->member->seen_epoch;
	uint32_t changes = reader->member->changes;
	int result = list_lanes(reader);

	if (result < 0)
		return result;
	count_keys(reader);
	reader->unresolved = false;
	for (uint32_t i = 0; i < reader->n_keys; i++)
		look_up(reader, i);
	if (shmb_subscriber_forget_left(reader->subscriber))
		result = list_lanes(reader);
	if (result < 0) {
		reader->n_lanes = 0;
		return result;
	}
	reader->seen_epoch = epoch;
	reader->seen_changes = changes;
	reader->looked_up = true;
	/* Whoever was killed between a value and its announcement: we look at all cells. */
	reader->dirty = true;
	return 0;
}

/* The member is up to date: are the keys? */
static inline int refresh(struct shmb_state_reader *reader)
{
	if (shmb_unlikely(reader->unresolved && shmb_member_has_news(reader->member)))
		shmb_member_sync(reader->member);
	if (shmb_unlikely(reader->moving && shmb_subscriber_any_left(reader->subscriber)))
		reader->looked_up = false;
	if (shmb_likely(reader->looked_up && reader->seen_epoch == reader->member->seen_epoch &&
			reader->seen_changes == reader->member->changes))
		return 0;
	return look_up_all(reader);
}

static inline int enter(struct shmb_subscriber *subscriber, struct shmb_state_reader **ret_reader)
{
	struct shmb_state_reader *reader = shmb_subscriber_state(subscriber);
	int result;

	*ret_reader = reader;
	if (shmb_unlikely(!reader))
		return subscriber ? shmb_fail(-EOPNOTSUPP, "the channel is not a state channel")
				  : shmb_fail(-EINVAL, "subscriber is NULL");
	result = shmb_member_enter(reader->member);
	return shmb_unlikely(result < 0) ? result : refresh(reader);
}

static int check_key(struct shmb_state_reader *reader, uint32_t index)
{
	if (index < reader->n_keys)
		return 0;
	count_keys(reader);
	return index < reader->n_keys ? 0 : shmb_fail(-EINVAL, "there is no key %u", index);
}

SHMB_API int32_t shmb_subscriber_find(struct shmb_subscriber *subscriber, const void *key,
				      uint32_t len)
{
	struct shmb_state_reader *reader;
	int result = enter(subscriber, &reader);

	if (result < 0)
		return result;
	if (!key || !len)
		return shmb_fail(-EINVAL, "key is NULL or empty");
	count_keys(reader);
	for (uint32_t i = 0; i < reader->n_keys; i++)
		if (key_len(reader, i) == len && memcmp(reader->directory[i].key, key, len) == 0)
			return (int32_t)i;
	return shmb_fail_lazily(-ENOENT, "nobody has claimed this key yet", 0, NULL);
}

SHMB_API int32_t shmb_subscriber_n_keys(struct shmb_subscriber *subscriber)
{
	struct shmb_state_reader *reader;
	int result = enter(subscriber, &reader);

	if (result < 0)
		return result;
	count_keys(reader);
	return (int32_t)reader->n_keys;
}

SHMB_API int32_t shmb_subscriber_key(struct shmb_subscriber *subscriber, uint32_t key, void *name,
				     uint32_t cap)
{
	const struct shmb_state_key *entry;
	struct shmb_state_reader *reader;
	int result = enter(subscriber, &reader);

	if (result == 0)
		result = check_key(reader, key);
	if (result < 0)
		return result;
	entry = &reader->directory[key];
	if (cap && !name)
		return shmb_fail(-EINVAL, "name is NULL");
	if (key_len(reader, key) <= cap)
		memcpy(name, entry->key, key_len(reader, key));
	reader->view->publisher_id = SHMB_LOAD(&entry->owner);
	reader->view->term = SHMB_LOAD(&entry->term);
	return (int32_t)key_len(reader, key);
}

/* Why there is no value. */
static int explain(const struct shmb_state_reader *reader, int result, uint32_t cap)
{
	switch (result) {
	case -ENODATA:
		return shmb_fail_lazily(-ENODATA, "the key has no value", 0, NULL);
	case -EAGAIN:
		return shmb_fail_lazily(-EAGAIN,
					reader->unresolved
						? "the segment of the key's publisher is on its way"
						: "the value changes faster than it can be copied",
					0, NULL);
	case -EBADMSG:
		return shmb_fail(-EBADMSG,
				 "the key's publisher wrote bytes that cannot be a value");
	default:
		return shmb_fail(-EMSGSIZE, "the value has %u bytes, the buffer %u",
				 reader->view->len, cap);
	}
}

static inline int read_key(struct shmb_state_reader *reader, uint32_t index, void *data,
			   uint32_t cap)
{
	struct reader_key *key = &reader->keys[index];
	struct shmb_view *view = reader->view;
	int len;

	if (shmb_unlikely(reader->moving))
		look_up(reader, index);
	if (shmb_unlikely(!key->cell))
		return -EAGAIN;
	len = shmb_cell_read(key->cell, reader->cell_len, data, cap, &view->sequence, &view->term);
	if (shmb_unlikely(len == -EAGAIN))
		return len;
	key->seen = view->sequence;
	view->publisher_id = key->source;
	if (shmb_unlikely(len < 0))
		return len;
	if (shmb_unlikely(reader->value_len && (uint32_t)len != reader->value_len))
		return -EBADMSG;
	view->len = (uint32_t)len;
	return (uint32_t)len <= cap ? len : -EMSGSIZE;
}

SHMB_API int32_t shmb_subscriber_get(struct shmb_subscriber *subscriber, uint32_t key, void *data,
				     uint32_t cap)
{
	struct shmb_state_reader *reader;
	int result = enter(subscriber, &reader);

	if (shmb_unlikely(result < 0))
		return result;
	if (shmb_unlikely(key >= reader->n_keys || (cap && !data))) {
		result = check_key(reader, key);
		if (result < 0)
			return result;
		if (cap && !data)
			return shmb_fail(-EINVAL, "data is NULL");
	}
	result = read_key(reader, key, data, cap);
	return shmb_likely(result >= 0) ? result : explain(reader, result, cap);
}

/* ---- what has changed -------------------------------------------------------------------------- */

static bool key_changed(struct shmb_state_reader *reader, uint32_t index, uint64_t *ret_version)
{
	const struct reader_key *key = &reader->keys[index];
	const struct shmb_cell_slot *slot;

	if (shmb_unlikely(reader->moving))
		look_up(reader, index);
	*ret_version = key->cell ? shmb_cell_current(key->cell, reader->cell_len, &slot) : 0;
	return *ret_version && *ret_version != key->seen;
}

/* Has anybody put anything since the keys were last looked through? */
static bool anything_put(struct shmb_state_reader *reader)
{
	for (uint32_t i = 0; i < reader->n_lanes; i++) {
		struct reader_lane *lane = &reader->lanes[i];
		uint64_t puts;

		if (!lane->words)
			continue;
		/* Z: pairs with Z in shmb_publisher_changed(): the value is in its cell. */
		puts = SHMB_LOAD_ACQUIRE(&lane->words->position_hint);
		reader->dirty |= puts != lane->puts;
		lane->puts = puts;
	}
	return reader->dirty;
}

/* The next key that has changed. Returns 1, its index and version; or 0. */
static int scan(struct shmb_state_reader *reader, uint32_t *ret_index, uint64_t *ret_version)
{
	if (!anything_put(reader))
		return 0;
	for (uint32_t i = 0; i < reader->n_keys; i++) {
		uint32_t index = (reader->next + i) % reader->n_keys;

		if (key_changed(reader, index, ret_version)) {
			*ret_index = index;
			return 1;
		}
	}
	reader->dirty = false;
	return 0;
}

int shmb_state_reader_ready(struct shmb_state_reader *reader)
{
	uint32_t index;
	uint64_t version;
	int result = refresh(reader);

	if (result < 0)
		return result;
	if (reader->only != ANY_KEY)
		return key_changed(reader, reader->only, &version);
	return scan(reader, &index, &version);
}

SHMB_API int32_t shmb_subscriber_next(struct shmb_subscriber *subscriber)
{
	struct shmb_state_reader *reader;
	uint32_t index;
	uint64_t version;
	int result = enter(subscriber, &reader);

	if (result < 0)
		return result;
	if (!scan(reader, &index, &version))
		return shmb_fail_lazily(-EAGAIN, "no key has changed", 0, NULL);
	reader->keys[index].seen = version;
	reader->next = index + 1;
	return (int32_t)index;
}

SHMB_API int32_t shmb_subscriber_wait_key(struct shmb_subscriber *subscriber, uint32_t key,
					  int64_t timeout_ns)
{
	struct shmb_state_reader *reader;
	int32_t result = enter(subscriber, &reader);

	if (result == 0)
		result = check_key(reader, key);
	if (result < 0)
		return result;
	reader->only = key;
	result = shmb_subscriber_wait(subscriber, timeout_ns);
	reader->only = ANY_KEY;
	return result;
}

/* ---- all at once ------------------------------------------------------------------------------- */

_Static_assert(sizeof(struct shmb_state_value) == 32, "values behind it are aligned to 8");

/* One value into @to; @room may be too small. Returns its bytes there, 0: there is none. */
static int64_t snapshot_key(struct shmb_state_reader *reader, uint32_t index, uint8_t *to,
			    uint64_t room)
{
	struct shmb_state_value head = { .key = index };
	uint64_t seen = reader->keys[index].seen;
	uint32_t cap = room > sizeof(head) ? (uint32_t)(room - sizeof(head)) : 0;
	int len = read_key(reader, index, cap ? to + sizeof(head) : NULL, cap);
	uint64_t span;

	reader->keys[index].seen = seen;
	if (len == -ENODATA || len == -EBADMSG)
		return 0;
	if (len < 0 && len != -EMSGSIZE)
		return len;
	span = sizeof(head) + (((uint64_t)reader->view->len + 7) & ~(uint64_t)7);
	if (span > room)
		return (int64_t)span;
	head.len = reader->view->len;
	head.version = reader->view->sequence;
	head.term = reader->view->term;
	head.publisher_id = reader->view->publisher_id;
	memcpy(to, &head, sizeof(head));
	memset(to + sizeof(head) + head.len, 0, span - sizeof(head) - head.len);
	return (int64_t)span;
}

SHMB_API int32_t shmb_subscriber_snapshot(struct shmb_subscriber *subscriber, void *data,
					  uint32_t cap)
{
	struct shmb_state_reader *reader;
	uint64_t needed = 0;
	int32_t n = 0;
	int result = enter(subscriber, &reader);

	if (result < 0)
		return result;
	if (cap && !data)
		return shmb_fail(-EINVAL, "data is NULL");
	for (uint32_t i = 0; i < reader->n_keys; i++) {
		bool full = needed > cap;
		int64_t span = snapshot_key(reader, i, full ? NULL : (uint8_t *)data + needed,
					    full ? 0 : cap - needed);

		if (span < 0)
			return explain(reader, (int)span, cap);
		needed += (uint64_t)span;
		n += span > 0;
	}
	reader->view->len = needed < UINT32_MAX ? (uint32_t)needed : UINT32_MAX;
	if (needed > cap)
		return shmb_fail(-EMSGSIZE, "all values take %u bytes, the buffer has %u",
				 reader->view->len, cap);
	return n;
}
