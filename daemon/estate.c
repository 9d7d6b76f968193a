/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <shmbroker/ring.h>

#include "lib/clock.h"
#include "lib/fd.h"
#include "lib/queue.h"

#include "daemon/channel.h"
#include "daemon/estate.h"
#include "daemon/keep.h"
#include "daemon/member.h"
#include "daemon/pair.h"

#define RETRY_NS  (100 * 1000000ull)
#define CHUNK_LEN (1u << 16)

/**
 * struct source - a private copy of the lane of a publisher that has gone, as far as it is needed
 * @publisher: that has gone
 * @fd:	       of the lane, while it is read
 * @base:      the copy
 * @len:       of @base
 * @begin:     the ring is there from this position on
 * @end:       up to this one
 */
struct source {
	const struct member *publisher;
	int fd;
	uint8_t *base;
	uint64_t len;
	uint64_t begin;
	uint64_t end;
};

/* A record that is not done. */
struct item {
	struct shmb_ticket ticket;
	const struct member *publisher;
};

/**
 * struct estate - what is left of some pairs, as much as one lane can hold
 * @heirs:     the workers that are there
 * @n_heirs:   of them
 * @pairs:     all pairs that are left, by id
 * @n_pairs:   of them
 * @first:     of these the first one of the estate
 * @end:       and the one behind the last
 * @sources:   lanes of their publishers
 * @n_sources: of them
 * @items:     what is not done
 * @n_items:   of them
 * @len:       bytes that they take in a lane
 */
struct estate {
	struct member **heirs;
	uint32_t n_heirs;
	struct pair **pairs;
	uint32_t n_pairs;
	uint32_t first;
	uint32_t end;
	struct source *sources;
	uint32_t n_sources;
	struct item *items;
	uint32_t n_items;
	uint64_t len;
};

static int read_all(int fd, uint8_t *to, uint64_t len, uint64_t offset)
{
	while (len) {
		ssize_t n = pread(fd, to, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EINVAL;
		to += n;
		len -= (uint64_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int write_all(int fd, const uint8_t *from, uint64_t len, uint64_t offset)
{
	while (len) {
		ssize_t n = pwrite(fd, from, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
		from += n;
		len -= (uint64_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

/* ---- what is left ------------------------------------------------------------------------------ */

static const struct source *find_source(const struct estate *estate, const struct member *publisher)
{
	for (uint32_t i = 0; i < estate->n_sources; i++)
		if (estate->sources[i].publisher == publisher)
			return &estate->sources[i];
	return NULL;
}

/* The lane of a publisher, to be read. NULL: no memory. */
static struct source *get_source(struct estate *estate, const struct member *publisher)
{
	struct source *source = (struct source *)(uintptr_t)find_source(estate, publisher), *grown;

	if (source)
		return source;
	grown = realloc(estate->sources, (estate->n_sources + 1) * sizeof(*grown));
	if (!grown)
		return NULL;
	estate->sources = grown;
	source = &grown[estate->n_sources];
	*source = (struct source){ .publisher = publisher,
				   .fd = -1,
				   .len = publisher->object.segment.len };
	source->base = mmap(NULL, source->len, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (source->base == MAP_FAILED)
		return NULL;
	estate->n_sources++;
	return source;
}

static void source_begin(struct source *source, uint64_t position)
{
	source->begin = source->end = position & ~(uint64_t)(CHUNK_LEN - 1);
}

/* Has the ring up to a position, but no more than one lap of it. */
static int source_load(struct source *source, uint64_t end)
{
	uint64_t ring_len = source->len - SHMB_BLOCK_LEN;

	while (source->end < end && source->end - source->begin < ring_len) {
		uint64_t offset = SHMB_BLOCK_LEN + (source->end & (ring_len - 1));
		uint64_t len = ring_len < CHUNK_LEN ? ring_len : CHUNK_LEN;
		int r = read_all(source->fd, source->base + offset, len, offset);

		if (r < 0)
			return r;
		source->end += len;
	}
	return 0;
}

/* Has the next header, which may lie behind a pad. */
static int load_header(struct source *source, uint64_t position)
{
	uint64_t mask = source->len - SHMB_BLOCK_LEN - 1, header;
	int r = source_load(source, position + sizeof(header));

	memcpy(&header, source->base + SHMB_BLOCK_LEN + (position & mask), sizeof(header));
	if (r == 0 && header & SHMB_RECORD_PAD)
		r = source_load(source, (position | mask) + 1 + sizeof(header));
	return r;
}

/* What the worker has not done. Whoever wrote the lane may have written anything. */
static int walk(struct source *source, const struct shmb_lane_mark *at, struct shmb_left *left)
{
	struct shmb_lane_segment *lane = (void *)source->base;
	uint64_t ring_len = source->len - SHMB_BLOCK_LEN, end;
	struct shmb_lane_reader reader;
	struct shmb_record record;
	int r;

	shmb_lane_reader_init(&reader, lane, (uint32_t)ring_len, at->position, at->sequence);
	reader.record_flags = (uint32_t)SHMB_RECORD_EXT;
	left->given_from = lane->given_from;
	left->given_to = lane->given_to;
	source_begin(source, reader.position);
	end = reader.position + ring_len;
	for (;;) {
		r = load_header(source, reader.position);
		if (r < 0)
			return r;
		if (reader.position >= end || shmb_lane_peek(&reader, &record) != 1)
			return 0;
		r = source_load(source, reader.position + record.span);
		if (r < 0)
			return r;
		if (shmb_left_add(left, &record, reader.position) < 0)
			return 0;
		shmb_lane_skip(&reader, &record);
	}
}

static int read_left(struct source *source, const struct pair *pair, struct shmb_left *left)
{
	struct shmb_lane_mark at;
	int r;

	left->worker = object_id(&pair->members[1]->object);
	r = keep_marks(pair, &at, &left->work);
	if (r <= 0)
		return r;
	source->fd = segment_open_read(&source->publisher->object.segment);
	r = source->fd < 0 ? source->fd : read_all(source->fd, source->base, SHMB_BLOCK_LEN, 0);
	if (r == 0)
		r = walk(source, &at, left);
	source->fd = shmb_fd_close(source->fd);
	return r;
}

/* What is left of the next pair is added. */
static int add_pair(struct estate *estate)
{
	const struct pair *pair = estate->pairs[estate->end];
	struct source *source = get_source(estate, pair->members[0]);
	struct shmb_left *left = source ? calloc(1, sizeof(*left)) : NULL;
	struct item *grown;
	int r = left ? read_left(source, pair, left) : -ENOMEM;

	if (r < 0) {
		free(left);
		return r;
	}
	grown = realloc(estate->items, (estate->n_items + left->n + 1) * sizeof(*grown));
	if (grown)
		estate->items = grown;
	for (uint32_t i = 0; grown && i < left->n; i++) {
		grown[estate->n_items++] = (struct item){ left->tickets[i], pair->members[0] };
		estate->len +=
			shmb_record_span(left->tickets[i].len + sizeof(struct shmb_queue_address));
	}
	free(left);
	if (!grown)
		return -ENOMEM;
	estate->end++;
	return 0;
}

/* Those of the last pair go into the next lane. */
static void drop_items(struct estate *estate, uint32_t n)
{
	estate->end--;
	while (estate->n_items > n) {
		const struct shmb_ticket *ticket = &estate->items[--estate->n_items].ticket;

		estate->len -= shmb_record_span(ticket->len + sizeof(struct shmb_queue_address));
	}
}

/* The next one begins where this one ends. */
static void estate_next(struct estate *estate)
{
	for (uint32_t i = 0; i < estate->n_sources; i++)
		munmap(estate->sources[i].base, estate->sources[i].len);
	estate->n_sources = 0;
	estate->n_items = 0;
	estate->len = 0;
	estate->first = estate->end;
}

static void estate_deinit(struct estate *estate)
{
	estate_next(estate);
	free(estate->heirs);
	free(estate->pairs);
	free(estate->sources);
	free(estate->items);
}

static int compare_pairs(const void *a, const void *b)
{
	uint64_t left = object_id(&(*(struct pair *const *)a)->object);
	uint64_t right = object_id(&(*(struct pair *const *)b)->object);

	return left < right ? -1 : left > right;
}

/* All pairs of the channel that are left. */
static int find_pairs(struct estate *estate, const struct channel *channel)
{
	struct list *link, *safe, *inner, *inner_safe;

	list_for_each(link, safe, &channel->kept)
	{
		struct member *publisher = list_entry(link, struct member, client_link);

		list_for_each(inner, inner_safe, &publisher->pairs)
		{
			struct pair *pair = list_entry(inner, struct pair, member_links[0]);
			struct pair **grown;

			if (!pair_is_left(pair))
				continue;
			grown = realloc(estate->pairs, (estate->n_pairs + 1) * sizeof(*grown));
			if (!grown)
				return -ENOMEM;
			estate->pairs = grown;
			grown[estate->n_pairs++] = pair;
		}
	}
	if (estate->n_pairs)
		qsort(estate->pairs, estate->n_pairs, sizeof(*estate->pairs), compare_pairs);
	return 0;
}

/* ---- heirs ------------------------------------------------------------------------------------- */

static bool is_heir(const struct member *subscriber)
{
	return subscriber && subscriber->flags & SHMB_MEMBER_ACTIVE;
}

static bool has_heirs(const struct channel *channel)
{
	for (uint32_t i = 0; i < channel->n_slots[1]; i++)
		if (is_heir(channel->slots[1][i]))
			return true;
	return false;
}

/* The workers that are there. */
static int find_heirs(struct estate *estate, const struct channel *channel)
{
	estate->heirs = calloc((size_t)channel->n_slots[1] + 1, sizeof(struct member *));
	for (uint32_t i = 0; estate->heirs && i < channel->n_slots[1]; i++)
		if (is_heir(channel->slots[1][i]))
			estate->heirs[estate->n_heirs++] = channel->slots[1][i];
	return estate->heirs ? 0 : -ENOMEM;
}

/* In the order in which they were published, publishers in that in which they have gone. */
static int compare_items(const void *a, const void *b)
{
	const struct item *left = a, *right = b;

	if (left->publisher != right->publisher)
		return left->publisher->kept_id < right->publisher->kept_id ? -1 : 1;
	return left->ticket.position < right->ticket.position
		       ? -1
		       : left->ticket.position > right->ticket.position;
}

/* One more record behind those in the copy. Its bytes are in the source, as they were published. */
static int copy_record(const struct source *source, const struct shmb_ticket *ticket,
		       struct shmb_lane_writer *writer, int fd,
		       const struct shmb_queue_address *address)
{
	const uint8_t *ring = source->base + SHMB_BLOCK_LEN;
	uint32_t len = ticket->len + (uint32_t)sizeof(*address);
	uint64_t span = shmb_record_span(len);
	uint64_t header = SHMB_RECORD_VALID | SHMB_RECORD_EXT | len |
			  (uint64_t)ticket->type << SHMB_RECORD_TYPE_SHIFT |
			  writer->sequence << SHMB_RECORD_SEQ_SHIFT;
	uint8_t *record = calloc(1, span);
	int r;

	if (!record)
		return -ENOMEM;
	memcpy(record, &header, sizeof(header));
	memcpy(record + sizeof(header), address, sizeof(*address));
	memcpy(record + sizeof(header) + sizeof(*address),
	       ring + (ticket->position & writer->mask) + SHMB_RECORD_HEADER_LEN + sizeof(*address),
	       ticket->len);
	r = write_all(fd, record, span, SHMB_BLOCK_LEN + writer->position);
	free(record);
	writer->position += span;
	writer->sequence++;
	return r;
}

/* In turns, so that nobody has to do all of it. */
static int fill_copy(const struct estate *estate, struct member *copy)
{
	struct broker *broker = copy->channel->broker;
	struct segment *segment = &copy->object.segment;
	struct shmb_lane_writer writer = { .mask = (uint64_t)copy->channel->lane_len - 1 };
	uint64_t hints[2];
	int fd = segment_open_write(&broker->maker, segment), r = 0;

	if (fd < 0)
		return fd;
	for (uint32_t i = 0; r == 0 && i < estate->n_items; i++) {
		const struct item *item = &estate->items[i];
		struct shmb_queue_address address = {
			.worker = object_id(&estate->heirs[i % estate->n_heirs]->object),
			.number = i / estate->n_heirs,
			.attempts = item->ticket.attempts,
		};

		r = copy_record(find_source(estate, item->publisher), &item->ticket, &writer, fd,
				&address);
	}
	hints[0] = writer.position;
	hints[1] = writer.sequence;
	if (r == 0)
		r = write_all(fd, (const uint8_t *)hints, sizeof(hints),
			      offsetof(struct shmb_lane_segment, position_hint));
	shmb_fd_close(fd);
	if (r < 0)
		return r;
	r = segment_restrict(segment);
	segment_fence(segment);
	return r;
}

/* Two who have gone are done with each other. */
static void end_pair(struct pair *pair)
{
	struct member *publisher = pair->members[0], *worker = pair->members[1];

	pair_free(pair, NULL, SHMB_GONE_DIED);
	member_put(worker);
	member_put(publisher);
}

static void drop_copy(struct member *copy)
{
	struct list *link, *safe;

	list_for_each(link, safe, &copy->pairs)
		pair_free(list_entry(link, struct pair, member_links[0]), NULL, SHMB_GONE_DIED);
	member_put(copy);
}

/* Does the lane of a publisher go with the pairs of the estate? */
static bool any_lane_goes(const struct estate *estate)
{
	for (uint32_t i = 0; i < estate->n_sources; i++) {
		const struct member *publisher = estate->sources[i].publisher;
		uint64_t last = object_id(&estate->pairs[estate->end - 1]->object);
		struct list *link, *safe;
		bool goes = true;

		list_for_each(link, safe, &publisher->pairs)
		{
			struct pair *pair = list_entry(link, struct pair, member_links[0]);

			goes = goes && pair_is_left(pair) && object_id(&pair->object) <= last;
		}
		if (goes)
			return true;
	}
	return false;
}

/* Killed anywhere in here: a successor finds the estate as it was, or the copy. */
static int bequeath(struct estate *estate)
{
	const struct pair *last = estate->pairs[estate->end - 1];
	struct member *copy;
	int r;

	qsort(estate->items, estate->n_items, sizeof(*estate->items), compare_items);
	r = member_copy(last, any_lane_goes(estate), &copy);
	if (r < 0)
		return r;
	r = fill_copy(estate, copy);
	for (uint32_t i = 0; r == 0 && i < estate->n_heirs && i < estate->n_items; i++)
		r = pair_new(copy, estate->heirs[i], copy->user);
	if (r < 0) {
		drop_copy(copy);
		return r;
	}
	log_line(&copy->channel->broker->log, LOG_INFO, "work-inherited",
		 "channel=%llu copy=%llu pairs=%u records=%u workers=%u",
		 (unsigned long long)object_id(&copy->channel->object),
		 (unsigned long long)object_id(&copy->object), estate->end - estate->first,
		 estate->n_items, estate->n_heirs);
	member_settle_copy(copy);
	return 0;
}

/* What has been collected goes to the heirs. */
static int settle_pairs(struct estate *estate)
{
	int r = estate->n_items ? bequeath(estate) : 0;

	for (uint32_t i = estate->first; r == 0 && i < estate->end; i++)
		end_pair(estate->pairs[i]);
	if (r == 0)
		estate_next(estate);
	return r;
}

static bool is_too_much(const struct estate *estate, const struct channel *channel)
{
	/* The zero word behind the last one, and the marks that a worker has for a lane. */
	return estate->len > channel->lane_len - 8 ||
	       estate->n_items > SHMB_QUEUE_CREDIT_MAX * estate->n_heirs;
}

/*
 * What is left of one pair was in one ring, and there were marks for it: it fits, unless somebody has
 * written what nobody honest would.
 */
static int settle_next(struct estate *estate, const struct channel *channel)
{
	const struct pair *pair = estate->pairs[estate->end];
	uint32_t n = estate->n_items;
	int r = add_pair(estate);

	if (r == 0 && is_too_much(estate, channel)) {
		drop_items(estate, n);
		if (estate->end > estate->first)
			return settle_pairs(estate); /* and then that pair again */
		r = -EINVAL;
	}
	if (r == 0 || (!shmb_fd_conclusive(-r) && r != -ESTALE))
		return r;
	log_line(&channel->broker->log, LOG_ERROR, "work-lost",
		 "channel=%llu publisher=%llu worker=%llu error=%d",
		 (unsigned long long)object_id(&channel->object),
		 (unsigned long long)object_id(&pair->members[0]->object),
		 (unsigned long long)object_id(&pair->members[1]->object), -r);
	estate->end++;
	return 0;
}

static int settle_channel(struct channel *channel)
{
	struct estate estate = { 0 };
	int r;

	if (!has_heirs(channel))
		return 0;
	/*
	 * pairs with the fence in check_heard() of a worker that was thrown out and lives: its epoch has
	 * moved, so either we see its marks, or it sees that.
	 */
	shmb_fence();
	r = find_heirs(&estate, channel);
	if (r == 0)
		r = find_pairs(&estate, channel);
	while (r == 0 && estate.end < estate.n_pairs)
		r = settle_next(&estate, channel);
	if (r == 0)
		r = settle_pairs(&estate);
	estate_deinit(&estate);
	return r;
}

static void on_retry(void *data)
{
	struct broker *broker = data;

	broker->executor = loop_timer_cancel(broker->executor);
	estate_settle(broker);
}

void estate_settle(struct broker *broker)
{
	struct list again;
	int r;

	list_init(&again);
	while (!list_empty(&broker->estates) && !registry_is_superseded(&broker->registry)) {
		struct channel *channel =
			list_entry(broker->estates.next, struct channel, estate_link);

		list_remove(&channel->estate_link);
		/* It may be unused when the last of what is kept has gone. */
		channel->busy = true;
		if (channel_is_unused(channel))
			member_drop_left(channel);
		r = settle_channel(channel);
		channel->busy = false;
		list_remove(&channel->estate_link);
		if (r < 0)
			list_append(&again, &channel->estate_link);
		else
			channel_put(channel);
	}
	if (list_empty(&again))
		return;
	while (!list_empty(&again)) {
		struct list *link = again.next;

		list_remove(link);
		list_append(&broker->estates, link);
	}
	if (!broker->executor)
		loop_timer_at(broker->loop, shmb_clock_now_ns() + RETRY_NS, on_retry, broker,
			      &broker->executor);
}

/* The copy holds what is left of these. */
static void end_copied(struct channel *channel, const struct member *copy)
{
	struct list *link, *safe, *inner, *inner_safe;

	list_for_each(link, safe, &channel->kept)
	{
		const struct member *publisher = list_entry(link, struct member, client_link);

		if (!(publisher->flags & SHMB_MEMBER_KEPT) || publisher->kept_id >= copy->kept_id)
			continue;
		list_for_each(inner, inner_safe, &publisher->pairs)
		{
			struct pair *pair = list_entry(inner, struct pair, member_links[0]);
			const struct member *worker = pair->members[1];

			if (worker->flags & SHMB_MEMBER_KEPT && worker->kept_id < copy->kept_id &&
			    object_id(&pair->object) <= copy->reply_to)
				pair_free(pair, NULL, SHMB_GONE_DIED);
		}
	}
}

void estate_adopt(struct channel *channel)
{
	struct list *link, *safe;

	if (channel->pattern != SHMB_PATTERN_QUEUE)
		return;
	list_for_each(link, safe, &channel->kept)
	{
		const struct member *copy = list_entry(link, struct member, client_link);

		if (copy->reply_to)
			end_copied(channel, copy);
	}
}
