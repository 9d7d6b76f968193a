/* SPDX-License-Identifier: Apache-2.0 */

/* Publishing: a record that is copied, many of them, or one that is written in place. */

#include <errno.h>
#include <string.h>

#include "lib/ahead.h"
#include "lib/clock.h"
#include "lib/extension.h"
#include "lib/pub-internal.h"

int pub_check_len(const struct shmb_publisher *publisher, uint32_t len)
{
	if (publisher->state)
		return shmb_fail(-EOPNOTSUPP,
				 "on a state channel values are put, not records sent");
	if (publisher->record_len && len != publisher->record_len)
		return shmb_fail(-EINVAL, "a record of this channel has %u bytes, this one %u",
				 publisher->record_len, len);
	if (len > publisher->record_len_max)
		return shmb_fail(-EMSGSIZE,
				 "a record of this channel has at most %u bytes, this one "
				 "%u: create it with a larger %s",
				 publisher->record_len_max, len,
				 publisher->arena ? "record_len_max" : "lane_len");
	return 0;
}

void pub_note_full(struct shmb_publisher *publisher)
{
	struct shmb_lane_segment *lane = publisher->writer.lane;

	if (publisher->full_sequence == publisher->writer.sequence)
		return;
	publisher->full_sequence = publisher->writer.sequence;
	SHMB_STORE(&lane->full_since_ns, shmb_clock_now_ns());
	SHMB_STORE(&lane->full_sequence, publisher->full_sequence);
}

static int refuse(struct shmb_publisher *publisher)
{
	pub_note_full(publisher);
	publisher->refused++;
	SHMB_STORE(&publisher->writer.lane->refused, publisher->refused);
	if (publisher->queue && !pub_choose(publisher))
		return shmb_fail_lazily(-EAGAIN, "no worker has credit for a record", 0, NULL);
	if (publisher->fds_short)
		return shmb_fail_lazily(-EAGAIN,
					"a reliable subscriber has not taken earlier file "
					"descriptors, or too many are on their way",
					0, NULL);
	if (publisher->no_block) {
		publisher->no_block = false;
		return shmb_fail_lazily(-EAGAIN,
					"all blocks are in use or held: the publisher has ",
					publisher->arena->len, " bytes of them");
	}
	return shmb_fail_lazily(-EAGAIN, "the lane is full: a reliable subscriber is ",
				publisher->writer.mask + 1, " bytes behind");
}

/*
 * The first of a publication: a record with at least this stamp is on its way. A subscriber that does
 * not see it may deliver what was published before its look, since our stamp is of later.
 * Killed behind it: subscribers wait for the record until the broker says that we have gone.
 */
static void announce_stamp(struct shmb_publisher *publisher)
{
	if (!publisher->ordered)
		return;
	SHMB_STORE(&publisher->writer.lane->order_bound, publisher->stamp + 1);
	/* AI: pairs with AJ in sub_next_ordered(): who does not see it has looked before we read the clock. */
	shmb_fence();
}

/* All of it is visible. */
static void withdraw_stamp(struct shmb_publisher *publisher)
{
	if (publisher->ordered)
		/* AK: pairs with AL in is_awaited(): who sees that nothing is on its way sees the record. */
		SHMB_STORE_RELEASE(&publisher->writer.lane->order_bound, 0);
}

/* Stamp the extension of the record whose payload is at @payload. */
static void extend(struct shmb_publisher *publisher, uint8_t *payload)
{
	struct shmb_record_ext *ext = (struct shmb_record_ext *)(void *)payload - 1;
	uint64_t now;

	/* No two of ours are the same. */
	do
		now = shmb_clock_now_ns();
	while (shmb_unlikely(now <= publisher->stamp && publisher->ordered));
	publisher->stamp = now;
	SHMB_STORE(&ext->published_ns, now);
	SHMB_STORE(&ext->fds, publisher->fds_number << SHMB_FDS_NUMBER_SHIFT | publisher->n_fds);
}

/* Room for a record that somebody will get; NULL: there is none, or nobody. */
static inline uint8_t *claim_record(struct shmb_publisher *publisher, uint32_t len)
{
	uint8_t *payload;

	if (shmb_unlikely(publisher->queue != NULL)) {
		publisher->queue->chosen = pub_choose(publisher);
		if (!publisher->queue->chosen)
			return NULL;
	}
	payload = pub_claim(publisher, len + publisher->ext_len);
	return shmb_likely(payload) ? payload + publisher->ext_len : NULL;
}

/* As commit_record(), where something comes before the payload. */
static SHMB_SELDOM bool commit_extended(struct shmb_publisher *publisher, uint8_t *payload,
					uint32_t len, uint32_t type, int more)
{
	struct shmb_ticket ticket = { .position = publisher->writer.position,
				      .len = len,
				      .type = type };

	if (publisher->queue) {
		struct pub_pair *pair = publisher->queue->chosen;

		if (shmb_unlikely(!pair))
			pair = pub_choose(publisher);
		if (!pair)
			return false;
		pub_address(publisher, pair, payload - publisher->ext_len, &ticket);
	} else {
		if (!more)
			announce_stamp(publisher);
		extend(publisher, payload);
	}
	shmb_lane_commit(&publisher->writer, len + publisher->ext_len, type, more);
	if (!more)
		withdraw_stamp(publisher);
	return true;
}

/* It is written. Returns false if who was to get it has gone, and nobody else has credit. */
static inline bool commit_record(struct shmb_publisher *publisher, uint8_t *payload, uint32_t len,
				 uint32_t type, int more)
{
	if (shmb_unlikely(publisher->ext_len))
		return commit_extended(publisher, payload, len, type, more);
	shmb_lane_commit(&publisher->writer, len, type, more);
	return true;
}

/* Count one that is not published if that is how it is wanted. */
static int full(struct shmb_publisher *publisher)
{
	if (!(publisher->flags & SHMB_PUBLISHER_DROP_NEWEST))
		return refuse(publisher);
	pub_note_full(publisher);
	publisher->dropped++;
	SHMB_STORE(&publisher->writer.lane->dropped, publisher->dropped);
	return 0;
}

/* There is no room for a record. */
static int no_room(struct shmb_publisher *publisher, uint32_t len)
{
	if (len > publisher->inline_len_max && publisher->shortage)
		return publisher->shortage; /* with its sentence */
	return full(publisher);
}

static __attribute__((__noinline__)) int32_t
send_block(struct shmb_publisher *publisher, const void *data, uint32_t len, uint32_t type)
{
	uint8_t *payload = pub_place_block(publisher, len);

	if (shmb_unlikely(!payload))
		return no_room(publisher, len);
	shmb_copier_copy(&publisher->copier, payload, data, len);
	pub_commit_block(publisher, len, type);
	pub_ring_sleepers(publisher);
	return 0;
}

static inline void commit(struct shmb_publisher *publisher, uint32_t len, uint32_t type)
{
	shmb_lane_commit(&publisher->writer, len, type, 0);
	if (shmb_likely(len <= publisher->ahead_max))
		shmb_ahead(&publisher->writer, shmb_record_span(len));
	pub_ring_sleepers(publisher);
}

SHMB_API int32_t shmb_publisher_send_typed(struct shmb_publisher *publisher, const void *data,
					   uint32_t len, uint32_t type)
{
	int result = pub_enter(publisher, len);
	uint8_t *payload;

	if (shmb_unlikely(result < 0))
		return result;
	if (shmb_unlikely((!data && len) || type > 0xffff))
		return shmb_fail(-EINVAL, "data is NULL, or type %u is over 65535", type);
	if (shmb_unlikely(len > publisher->inline_len_max))
		return send_block(publisher, data, len, type);
	payload = claim_record(publisher, len);
	if (shmb_unlikely(!payload))
		return full(publisher);
	shmb_copier_copy(&publisher->copier, payload, data, len);
	if (shmb_unlikely(!commit_record(publisher, payload, len, type, 0)))
		return full(publisher);
	if (shmb_likely(len <= publisher->ahead_max))
		shmb_ahead(&publisher->writer, shmb_record_span(len + publisher->ext_len));
	pub_ring_sleepers(publisher);
	return 0;
}

SHMB_API int32_t shmb_publisher_send_fds(struct shmb_publisher *publisher, const void *data,
					 uint32_t len, uint32_t type, const int32_t *fds,
					 uint32_t n_fds)
{
	int result;
	uint8_t *payload;

	if (n_fds == 0)
		return shmb_publisher_send_typed(publisher, data, len, type);
	result = pub_enter(publisher, len);
	if (result == 0)
		result = pub_check_fds(publisher, fds, n_fds);
	if (result < 0)
		return result;
	if ((!data && len) || type > 0xffff)
		return shmb_fail(-EINVAL, "data is NULL, or type %u is over 65535", type);
	payload = claim_record(publisher, len);
	if (!payload)
		return full(publisher);
	shmb_copier_copy(&publisher->copier, payload, data, len);
	/* Killed behind it: subscribers have a packet that no record names, and discard it. */
	result = pub_send_packets(publisher, fds, n_fds);
	if (result < 0)
		return result == -EAGAIN ? full(publisher) : result;
	commit_record(publisher, payload, len, type, 0);
	publisher->n_fds = 0;
	pub_ring_sleepers(publisher);
	return 0;
}

/* The record in the block comes with a word in the lane. */
static void commit_headed_block(struct shmb_publisher *publisher, uint64_t head, uint32_t len,
				uint32_t type)
{
	memcpy((uint8_t *)publisher->descriptor - sizeof(head), &head, sizeof(head));
	pub_commit_block(publisher, len, type);
	pub_ring_sleepers(publisher);
}

static SHMB_SELDOM int32_t send_headed_block(struct shmb_publisher *publisher, uint64_t head,
					     const void *data, uint32_t len, uint32_t type)
{
	uint8_t *payload = pub_place_block(publisher, len);

	if (!payload)
		return no_room(publisher, len);
	shmb_copier_copy(&publisher->copier, payload, data, len);
	commit_headed_block(publisher, head, len, type);
	return 0;
}

int32_t shmb_publisher_send_headed(struct shmb_publisher *publisher, uint64_t head,
				   const void *data, uint32_t len, uint32_t type)
{
	int result = pub_enter(publisher, len);
	uint8_t *payload;

	if (shmb_unlikely(result < 0))
		return result;
	if (shmb_unlikely(len > publisher->inline_len_max))
		return send_headed_block(publisher, head, data, len, type);
	payload = pub_claim(publisher, len + (uint32_t)sizeof(head));
	if (shmb_unlikely(!payload))
		return full(publisher);
	memcpy(payload, &head, sizeof(head));
	shmb_copier_copy(&publisher->copier, payload + sizeof(head), data, len);
	commit(publisher, len + (uint32_t)sizeof(head), type);
	return 0;
}

SHMB_API int32_t shmb_publisher_send(struct shmb_publisher *publisher, const void *data,
				     uint32_t len)
{
	return shmb_publisher_send_typed(publisher, data, len, 0);
}

/* Lengths first, so that nothing is sent if one of them is wrong. */
static int check_lens(const struct shmb_publisher *publisher, const uint32_t *lens, uint32_t count)
{
	int result = 0;

	for (uint32_t i = 0; lens && i < count && result == 0; i++)
		result = pub_check_len(publisher, lens[i]);
	return result;
}

SHMB_API int32_t shmb_publisher_send_many(struct shmb_publisher *publisher, const void *data,
					  uint32_t len, const uint32_t *lens, uint32_t count)
{
	uint64_t batch_max = publisher ? (publisher->writer.mask + 1) / 2 : 0;
	const uint8_t *from = data;
	int result = pub_enter(publisher, lens && count ? lens[0] : len);
	uint32_t sent = 0;
	uint64_t start;

	if (result == 0 && count > INT32_MAX)
		result = shmb_fail(-EINVAL, "at most %d records at once", INT32_MAX);
	if (result == 0 && !data && (lens || len))
		result = shmb_fail(-EINVAL, "data is NULL");
	if (result == 0)
		result = check_lens(publisher, lens, count);
	if (result < 0 || count == 0)
		return result;
	start = publisher->writer.position;
	announce_stamp(publisher);
	while (sent < count) {
		uint32_t this_len = lens ? lens[sent] : len;
		uint8_t *payload;

		if (shmb_unlikely(this_len > publisher->inline_len_max)) {
			/* It may take long: what comes before does not wait for it. */
			shmb_lane_flush(&publisher->writer);
			payload = pub_place_block(publisher, this_len);
			if (!payload)
				break;
			shmb_copier_copy(&publisher->copier, payload, from, this_len);
			pub_commit_block(publisher, this_len, 0);
			from += this_len;
			sent++;
			continue;
		}
		payload = claim_record(publisher, this_len);
		if (shmb_unlikely(!payload)) {
			/* Readers cannot make room for a batch they do not see. */
			shmb_lane_flush(&publisher->writer);
			payload = claim_record(publisher, this_len);
			if (!payload)
				break;
		}
		shmb_copier_copy(&publisher->copier, payload, from, this_len);
		if (shmb_unlikely(!commit_record(publisher, payload, this_len, 0, 1)))
			break;
		from += this_len;
		sent++;
		/* A batch must not run into its own start, nor keep readers waiting for ever. */
		if (shmb_unlikely(publisher->writer.position - start > batch_max)) {
			shmb_lane_flush(&publisher->writer);
			pub_ring_sleepers(publisher);
			start = publisher->writer.position;
		}
	}
	shmb_lane_flush(&publisher->writer);
	withdraw_stamp(publisher);
	if (shmb_likely(publisher->writer.position - start <= publisher->ahead_max))
		shmb_ahead(&publisher->writer, publisher->writer.position - start);
	pub_ring_sleepers(publisher);
	if (sent < count && publisher->flags & SHMB_PUBLISHER_DROP_NEWEST) {
		pub_note_full(publisher);
		publisher->dropped += count - sent;
		SHMB_STORE(&publisher->writer.lane->dropped, publisher->dropped);
		return (int32_t)count;
	}
	return sent ? (int32_t)sent : refuse(publisher);
}

/* Where a record of this length goes. NULL: there is no room. */
static inline uint8_t *place(struct shmb_publisher *publisher, uint32_t len)
{
	if (shmb_unlikely(len > publisher->inline_len_max))
		return pub_place_block(publisher, len);
	return claim_record(publisher, len);
}

/* And of one that comes with a word. */
static uint8_t *place_headed(struct shmb_publisher *publisher, uint32_t len)
{
	uint8_t *head;

	if (len > publisher->inline_len_max)
		return pub_place_block(publisher, len);
	head = pub_claim(publisher, len + publisher->head_len);
	return head ? head + publisher->head_len : NULL;
}

SHMB_API int32_t shmb_publisher_loan(struct shmb_publisher *publisher, uint32_t len)
{
	int result = pub_enter(publisher, len);
	uint8_t *payload;

	if (result < 0)
		return result;
	payload = publisher->head_len ? place_headed(publisher, len) : place(publisher, len);
	if (!payload)
		return len > publisher->inline_len_max && publisher->shortage ? publisher->shortage
									      : refuse(publisher);
	publisher->loaned = publisher->member.pinned = true;
	publisher->loan_len = len;
	publisher->view.data = (uint64_t)(uintptr_t)payload;
	publisher->view.len = len;
	publisher->view.count = 1;
	publisher->view.sequence = publisher->writer.sequence;
	return 0;
}

static int enter_loan(struct shmb_publisher *publisher)
{
	if (!publisher)
		return shmb_fail(-EINVAL, "publisher is NULL");
	if (!*publisher->member.fork_guard)
		return shmb_fail(-ECHILD, "this handle belongs to the parent process");
	if (!publisher->loaned)
		return shmb_fail(-EINVAL, "nothing is loaned");
	return 0;
}

/* May so much of what was loaned be published? */
static int enter_publish(struct shmb_publisher *publisher, uint32_t len)
{
	int result = enter_loan(publisher);

	if (result == 0 && len > publisher->loan_len)
		result = shmb_fail(-EINVAL, "%u bytes were loaned, not %u", publisher->loan_len,
				   len);
	if (result == 0)
		result = pub_check_len(publisher, len);
	if (result == 0)
		result = publisher->member.evicted ? shmb_member_enter_slow(&publisher->member) : 0;
	return result;
}

SHMB_API int32_t shmb_publisher_publish(struct shmb_publisher *publisher, uint32_t len)
{
	int result = enter_publish(publisher, len);

	if (result < 0)
		return result;
	if (publisher->block) {
		publisher->loaned = publisher->member.pinned = false;
		pub_commit_block(publisher, len, 0);
		pub_ring_sleepers(publisher);
		return 0;
	}
	if (!commit_record(publisher, (uint8_t *)(uintptr_t)publisher->view.data, len, 0, 0))
		return refuse(publisher);
	publisher->loaned = publisher->member.pinned = false;
	if (shmb_likely(len <= SHMB_AHEAD_MAX))
		shmb_ahead(&publisher->writer, shmb_record_span(len));
	pub_ring_sleepers(publisher);
	return 0;
}

SHMB_API int32_t shmb_publisher_publish_fds(struct shmb_publisher *publisher, uint32_t len,
					    const int32_t *fds, uint32_t n_fds)
{
	int result = enter_publish(publisher, len);

	if (result == 0 && n_fds)
		result = pub_check_fds(publisher, fds, n_fds);
	if (result == 0 && n_fds)
		result = pub_send_packets(publisher, fds, n_fds);
	if (result == -EAGAIN)
		return refuse(publisher);
	if (result == 0)
		result = shmb_publisher_publish(publisher, len);
	publisher->n_fds = 0;
	return result;
}

int32_t shmb_publisher_publish_headed(struct shmb_publisher *publisher, uint64_t head, uint32_t len,
				      uint32_t type)
{
	int result = enter_loan(publisher);

	if (result == 0 && publisher->member.evicted)
		result = shmb_member_enter_slow(&publisher->member);
	if (result < 0)
		return result;
	publisher->loaned = publisher->member.pinned = false;
	if (publisher->block) {
		commit_headed_block(publisher, head, len, type);
		return 0;
	}
	memcpy((uint8_t *)(uintptr_t)publisher->view.data - sizeof(head), &head, sizeof(head));
	commit(publisher, len + (uint32_t)sizeof(head), type);
	return 0;
}

SHMB_API int32_t shmb_publisher_cancel(struct shmb_publisher *publisher)
{
	int result = enter_loan(publisher);

	/* Nobody knows of the bytes behind the position: they are simply used again. */
	if (result == 0)
		publisher->loaned = publisher->member.pinned = false;
	if (result == 0 && publisher->block)
		shmb_arena_give(publisher->arena, publisher->block);
	if (result == 0)
		publisher->block = NULL;
	return result;
}
