/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMBROKER_RING_H
#define SHMBROKER_RING_H

/*
 * The hot path of a lane, inline. The library exports every function here under the same name for
 * languages that cannot inline C (lib/ring.c).
 *
 * The algorithm: a reader polls the header word of the next record itself, so that a small record
 * and the news of it travel in one cache line; there is no shared tail index. The word at the
 * publisher's position is always 0. A record becomes visible by one release store of its header.
 *
 * A record needs a 0 behind it before it is published, and one in four small records has it in a
 * line that is not the writer's yet: readers share it from the last lap, or because their processor
 * has fetched it ahead. The line would travel while the record waits. So the writer stores the 0 that
 * the next record will need, if that is as long as this one, right after it has published this one.
 * On AMD (Zen, shared cache) 8 bytes there and back take 159 ns rather than 176.
 *
 *	word	       | stored by  | loaded by	      | order		      | labels
 *	---------------+------------+-----------------+-----------------------+--------
 *	record header  | publisher  | subscribers     | release -> acquire    | A -> B
 *	cursor position| subscriber | publisher       | release -> acquire    | C -> D
 *	lane intent    | publisher  | lossy readers   | fence -> fence	      | E -> F
 *	lane marks     | publisher  | lossy readers   | seqlock on position   | G -> H
 *	sleep word     | subscriber | publisher       | fence <-> fence	      | I <-> J
 *	position hint  | publisher  | inspectors      | relaxed, a hint only  |
 *
 * Who may run at the same time: one writer and any number of readers of a lane; never two writers,
 * and never two threads with one struct shmb_lane_reader.
 *
 * What a SIGKILL leaves behind: a process is killed between two stores, never inside one. Before
 * A the record does not exist: the words at and behind the position are 0 or unread payload.
 * After A it is complete. Nothing else needs to be repaired: hints may be old, intent may be too
 * high (lossy readers resynchronise too early), a pad record may stand alone.
 *
 * A reader's rules: geometry comes from the grant, not from the lane; each shared word is loaded
 * once into a local, checked, and the local is used.
 */

#include <errno.h>
#include <stdint.h>

#include <shmbroker/layout.h>

#ifndef SHMB_INLINE
#define SHMB_INLINE static inline
/* What a lap needs a few times at most stays out of the way of what each record needs. */
#define SHMB_INLINE_SELDOM static __attribute__((__noinline__, __cold__, __unused__))
#else
#define SHMB_INLINE_SELDOM SHMB_INLINE
#endif

/*
 * Every access to shared memory goes through these, so that a model checker or a fuzzer can stand
 * in for the machine.
 */
#ifndef SHMB_LOAD
#define SHMB_LOAD(pointer)		   __atomic_load_n((pointer), __ATOMIC_RELAXED)
#define SHMB_LOAD_ACQUIRE(pointer)	   __atomic_load_n((pointer), __ATOMIC_ACQUIRE)
#define SHMB_STORE(pointer, value)	   __atomic_store_n((pointer), (value), __ATOMIC_RELAXED)
#define SHMB_STORE_RELEASE(pointer, value) __atomic_store_n((pointer), (value), __ATOMIC_RELEASE)
#define SHMB_FENCE_ACQUIRE()		   __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define SHMB_FENCE_RELEASE()		   __atomic_thread_fence(__ATOMIC_RELEASE)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/**
 * shmb_fence() - full barrier: stores before it are visible before loads after it run
 *
 * x86-64: a locked read-modify-write of the stack, 2 ns; compilers may emit mfence instead, which
 * takes 20 ns and drains what was on its way to the other side.
 */
SHMB_INLINE void shmb_fence(void)
{
#if defined(SHMB_FENCE)
	SHMB_FENCE();
#elif defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
	__asm__ volatile("lock; orl $0, (%%rsp)" ::: "memory", "cc");
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* The processor's hint that this is a spin loop. */
SHMB_INLINE void shmb_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
	__asm__ volatile("yield" ::: "memory");
#else
	__asm__ volatile("" ::: "memory");
#endif
}

/* Bytes that a record of @len payload bytes takes in the ring. */
SHMB_INLINE uint64_t shmb_record_span(uint64_t len)
{
	return (len + SHMB_RECORD_HEADER_LEN + 7) & ~(uint64_t)7;
}

/* The longest record: it and the pad record in front of it fit into the ring together. */
SHMB_INLINE uint32_t shmb_record_len_max(uint32_t lane_len)
{
	uint32_t len = lane_len / 2 - 16;

	return len < SHMB_RECORD_LEN_MASK ? len : (uint32_t)SHMB_RECORD_LEN_MASK;
}

/* ---- writer ------------------------------------------------------------------------------------ */

/**
 * struct shmb_lane_writer - the publisher's private state of its lane
 * @lane:	    first block, writable
 * @ring:	    @mask + 1 bytes, writable
 * @mask:	    bytes of the ring - 1
 * @position:	    where the next header goes
 * @sequence:	    records written
 * @limit:	    a record may end here: the slowest reliable reader plus the ring, less the zero word
 * @intent:	    what the lane says
 * @zeroed:	    position of one more word that is 0, behind a next record as long as the last
 * @batch_position: of the first record of an open batch
 * @batch_sequence: number of records before it
 * @batch_header:   its header, stored last; 0: no batch is open
 * @next_mark:	    which mark is rewritten next
 * @record_flags:   0; SHMB_RECORD_EXT where 16 bytes come before each payload
 */
struct shmb_lane_writer {
	struct shmb_lane_segment *lane;
	uint8_t *ring;
	uint64_t mask;
	uint64_t position;
	uint64_t sequence;
	uint64_t limit;
	uint64_t intent;
	uint64_t zeroed;
	uint64_t batch_position;
	uint64_t batch_sequence;
	uint64_t batch_header;
	uint32_t next_mark;
	uint32_t record_flags;
};

SHMB_INLINE uint64_t *shmb_lane_word(uint8_t *ring, uint64_t offset)
{
	return (uint64_t *)(void *)(ring + offset);
}

/**
 * shmb_lane_writer_init() - start to write a fresh lane
 * @writer:   filled
 * @lane:     zeroed but for its header, followed by the ring
 * @lane_len: bytes of the ring, a power of two
 */
SHMB_INLINE void shmb_lane_writer_init(struct shmb_lane_writer *writer,
				       struct shmb_lane_segment *lane, uint32_t lane_len)
{
	writer->lane = lane;
	writer->ring = (uint8_t *)lane + SHMB_BLOCK_LEN;
	writer->mask = (uint64_t)lane_len - 1;
	writer->position = 0;
	writer->sequence = 0;
	writer->limit = UINT64_MAX;
	writer->intent = 0;
	writer->zeroed = 0;
	writer->batch_position = 0;
	writer->batch_sequence = 0;
	writer->batch_header = 0;
	writer->next_mark = 0;
	writer->record_flags = 0;
}

/*
 * Announce that bytes up to @end will be overwritten, some way ahead so that it is rare, but never
 * so far that a reader which has caught up would believe itself lapped. Such a reader stands where
 * an open batch begins: the rest is not published.
 *
 * Killed before or after any of these stores: readers that are nearly lapped resynchronise early.
 * Returns 0 if the open batch would overwrite its own start.
 */
SHMB_INLINE_SELDOM int shmb_lane_raise_intent(struct shmb_lane_writer *writer, uint64_t end)
{
	struct shmb_lane_mark *mark = &writer->lane->marks[writer->next_mark];
	uint64_t position = writer->batch_header ? writer->batch_position : writer->position;
	uint64_t sequence = writer->batch_header ? writer->batch_sequence : writer->sequence;
	uint64_t ring_len = writer->mask + 1;
	uint64_t intent = end + ring_len / 16;

	if (end > position + ring_len)
		return 0;
	if (intent > position + ring_len)
		intent = position + ring_len;
	writer->next_mark = (writer->next_mark + 1) % SHMB_LANE_N_MARKS;

	SHMB_STORE(&mark->position, UINT64_MAX);
	/* G: pairs with H in shmb_lane_resync(): a reader sees the old pair, none, or the new. */
	SHMB_FENCE_RELEASE();
	SHMB_STORE(&mark->sequence, sequence);
	/* G: pairs with H in shmb_lane_resync(). */
	SHMB_STORE_RELEASE(&mark->position, position);

	/* E: pairs with F in shmb_lane_resync(): whoever sees this intent sees the mark. */
	SHMB_STORE_RELEASE(&writer->lane->intent, intent);
	/* E: pairs with F in shmb_lane_lapped(): a reader of bytes stored below sees this intent. */
	SHMB_FENCE_RELEASE();
	writer->intent = intent;
	return 1;
}

/* Fill the end of the ring with a pad record, if a record of @span bytes fits behind it. */
SHMB_INLINE_SELDOM int shmb_lane_wrap(struct shmb_lane_writer *writer, uint64_t span)
{
	uint64_t offset = writer->position & writer->mask;
	uint64_t rest = writer->mask + 1 - offset;
	uint64_t end = writer->position + rest + span;
	uint64_t header = SHMB_RECORD_VALID | SHMB_RECORD_PAD | (rest - SHMB_RECORD_HEADER_LEN);

	if (end > writer->limit)
		return 0;
	if (end + 8 > writer->intent && !shmb_lane_raise_intent(writer, end + 8))
		return 0;
	SHMB_STORE(shmb_lane_word(writer->ring, 0), 0);
	if (writer->batch_header)
		SHMB_STORE(shmb_lane_word(writer->ring, offset), header);
	else
		/* A: pairs with B in shmb_lane_peek(): the zero word behind it is there. */
		SHMB_STORE_RELEASE(shmb_lane_word(writer->ring, offset), header);
	writer->position += rest;
	return 1;
}

/**
 * shmb_lane_claim() - find room for one record
 * @writer: writer
 * @len:    payload bytes, at most shmb_record_len_max()
 *
 * Context: wait-free. Nothing becomes visible but perhaps a pad record.
 * Return: where the payload goes, NULL if the limit or an open batch does not allow it: read the
 *	   cursors, raise the limit, flush, try again.
 */
SHMB_INLINE uint8_t *shmb_lane_claim(struct shmb_lane_writer *writer, uint32_t len)
{
	uint64_t span = shmb_record_span(len);
	uint64_t end;

	if (__builtin_expect((writer->position & writer->mask) + span > writer->mask + 1, 0) &&
	    !shmb_lane_wrap(writer, span))
		return NULL;
	end = writer->position + span;
	if (__builtin_expect(end > writer->limit, 0))
		return NULL;
	if (__builtin_expect(end + 8 > writer->intent, 0) &&
	    !shmb_lane_raise_intent(writer, end + 8))
		return NULL;
	/* The caller may write payload over it, and then commit less than that. */
	if (writer->zeroed != end)
		writer->zeroed = 0;
	return writer->ring + (writer->position & writer->mask) + SHMB_RECORD_HEADER_LEN;
}

/**
 * shmb_lane_flush() - make an open batch visible
 * @writer: writer
 *
 * Context: wait-free. Killed before it: none of the batch exists; after it: all of it does.
 */
SHMB_INLINE void shmb_lane_flush(struct shmb_lane_writer *writer)
{
	if (writer->batch_header) {
		/* A: pairs with B in shmb_lane_peek(): the whole batch is there. */
		SHMB_STORE_RELEASE(
			shmb_lane_word(writer->ring, writer->batch_position & writer->mask),
			writer->batch_header);
		writer->batch_header = 0;
	}
	/* Hints for inspectors. Killed before: they are one publication behind. */
	SHMB_STORE(&writer->lane->position_hint, writer->position);
	SHMB_STORE(&writer->lane->sequence_hint, writer->sequence);
}

/*
 * Store the 0 that the next record needs if it takes @span bytes, too. It lies where nobody reads any
 * more: below the limit and the intent. Killed before or after: there is nothing but unread bytes.
 */
SHMB_INLINE void shmb_lane_zero_ahead(struct shmb_lane_writer *writer, uint64_t span)
{
	uint64_t end = writer->position + span;

	if (end > writer->limit || end + 8 > writer->intent ||
	    (writer->position & writer->mask) + span > writer->mask + 1)
		return;
	SHMB_STORE(shmb_lane_word(writer->ring, end & writer->mask), 0);
	writer->zeroed = end;
}

/**
 * shmb_lane_commit_as() - finish the claimed record, as one of a kind
 * @writer: writer
 * @len:    payload bytes, at most what was claimed
 * @type:   the application's record type, 16 bits
 * @flags:  0; SHMB_RECORD_BLOCK: the payload ends with a descriptor
 * @more:   1: keep it invisible until shmb_lane_flush() or a commit without @more
 *
 * Context: wait-free.
 */
SHMB_INLINE void shmb_lane_commit_as(struct shmb_lane_writer *writer, uint32_t len, uint32_t type,
				     uint64_t flags, int more)
{
	uint64_t span = shmb_record_span(len);
	uint64_t header = SHMB_RECORD_VALID | writer->record_flags | flags | len |
			  (uint64_t)(type & 0xffff) << SHMB_RECORD_TYPE_SHIFT |
			  writer->sequence << SHMB_RECORD_SEQ_SHIFT;
	uint64_t position = writer->position;

	/* Before the header: whoever sees the record finds 0, or a later record, behind it. */
	if (position + span != writer->zeroed)
		SHMB_STORE(shmb_lane_word(writer->ring, (position + span) & writer->mask), 0);
	writer->position = position + span;
	writer->sequence++;

	if (__builtin_expect(writer->batch_header != 0, 0)) {
		SHMB_STORE(shmb_lane_word(writer->ring, position & writer->mask), header);
	} else if (more) {
		writer->batch_position = position;
		writer->batch_sequence = writer->sequence - 1;
		writer->batch_header = header;
	} else {
		/* A: pairs with B in shmb_lane_peek(): payload and zero word are there. */
		SHMB_STORE_RELEASE(shmb_lane_word(writer->ring, position & writer->mask), header);
	}
	if (!more)
		shmb_lane_flush(writer);
	shmb_lane_zero_ahead(writer, span);
}

/**
 * shmb_lane_commit() - finish the claimed record
 * @writer: writer
 * @len:    payload bytes, at most what was claimed
 * @type:   the application's record type, 16 bits
 * @more:   1: keep it invisible until shmb_lane_flush() or a commit without @more
 *
 * Context: wait-free.
 */
SHMB_INLINE void shmb_lane_commit(struct shmb_lane_writer *writer, uint32_t len, uint32_t type,
				  int more)
{
	shmb_lane_commit_as(writer, len, type, 0, more);
}

/* ---- reader ------------------------------------------------------------------------------------ */

/**
 * struct shmb_lane_reader - a subscriber's private state of one lane
 * @lane:	    first block, read-only
 * @ring:	    @mask + 1 bytes, read-only
 * @mask:	    bytes of the ring - 1
 * @position:	    of the next header
 * @sequence:	    which number the next record must have
 * @record_len_max: the longest record there can be
 * @record_flags:   0; SHMB_RECORD_EXT where 16 bytes come before each payload
 */
struct shmb_lane_reader {
	const struct shmb_lane_segment *lane;
	const uint8_t *ring;
	uint64_t mask;
	uint64_t position;
	uint64_t sequence;
	uint32_t record_len_max;
	uint32_t record_flags;
};

/**
 * struct shmb_record - where a record lies
 * @data: payload, in shared memory
 * @len:  its bytes
 * @type: the application's record type
 * @span: bytes it takes in the ring
 * @flags: 0; SHMB_RECORD_BLOCK: the payload ends with a struct shmb_block_descriptor
 */
struct shmb_record {
	const uint8_t *data;
	uint32_t len;
	uint32_t type;
	uint64_t span;
	uint64_t flags;
};

/**
 * shmb_lane_reader_init() - start to read a lane
 * @reader:   filled
 * @lane:     first block; the ring follows
 * @lane_len: bytes of the ring, from the grant
 * @position: of a record header, from the bell
 * @sequence: number of records before it, from the bell
 */
SHMB_INLINE void shmb_lane_reader_init(struct shmb_lane_reader *reader,
				       const struct shmb_lane_segment *lane, uint32_t lane_len,
				       uint64_t position, uint64_t sequence)
{
	reader->lane = lane;
	reader->ring = (const uint8_t *)lane + SHMB_BLOCK_LEN;
	reader->mask = (uint64_t)lane_len - 1;
	reader->position = position & ~(uint64_t)7;
	reader->sequence = sequence;
	reader->record_len_max = shmb_record_len_max(lane_len);
	reader->record_flags = 0;
}

/**
 * shmb_lane_peek() - look at the next record
 * @reader: reader; skips a pad record
 * @record: filled
 *
 * A reader that may be lapped must ask shmb_lane_lapped() after it has copied the payload (and
 * after a failure), and trust nothing if it was.
 *
 * Context: wait-free: at most two headers are looked at.
 * Return: 1; 0: there is none; -EBADMSG: the bytes cannot be a record.
 */
SHMB_INLINE int shmb_lane_peek(struct shmb_lane_reader *reader, struct shmb_record *record)
{
	const uint64_t marks = SHMB_RECORD_VALID | SHMB_RECORD_PAD | SHMB_RECORD_EXT |
			       SHMB_RECORD_BLOCK | (uint64_t)0xffff << SHMB_RECORD_SEQ_SHIFT;
	uint64_t offset, header, span;
	uint32_t len;
	int pads = 0;

	record->flags = 0;
	for (;;) {
		offset = reader->position & reader->mask;
		/* B: pairs with A in shmb_lane_commit(): the one load of this header. */
		header = SHMB_LOAD_ACQUIRE((const uint64_t *)(const void *)(reader->ring + offset));
		len = (uint32_t)(header & SHMB_RECORD_LEN_MASK);
		span = shmb_record_span(len);
		if (__builtin_expect((header & marks) ==
					     (SHMB_RECORD_VALID | reader->record_flags |
					      reader->sequence << SHMB_RECORD_SEQ_SHIFT),
				     1))
			break;
		if (!(header & SHMB_RECORD_VALID))
			return 0;
		if ((header & marks) ==
			    (SHMB_RECORD_VALID | SHMB_RECORD_BLOCK | reader->record_flags |
			     reader->sequence << SHMB_RECORD_SEQ_SHIFT) &&
		    len >= sizeof(struct shmb_block_descriptor)) {
			record->flags = SHMB_RECORD_BLOCK;
			break;
		}
		/* A pad reaches exactly to the end, so two in a row would be a loop. */
		if (!(header & SHMB_RECORD_PAD) || span != reader->mask + 1 - offset || pads++)
			return -EBADMSG;
		reader->position += span;
	}
	if (__builtin_expect(len > reader->record_len_max || span > reader->mask + 1 - offset, 0))
		return -EBADMSG;
	record->data = reader->ring + offset + SHMB_RECORD_HEADER_LEN;
	record->len = len;
	record->type = (uint32_t)(header >> SHMB_RECORD_TYPE_SHIFT) & 0xffff;
	record->span = span;
	return 1;
}

/* Step over a record. The publisher learns of it from the cursor, when its owner stores it there. */
SHMB_INLINE void shmb_lane_skip(struct shmb_lane_reader *reader, const struct shmb_record *record)
{
	reader->position += record->span;
	reader->sequence++;
}

/**
 * shmb_lane_lapped() - may what was just read have been overwritten meanwhile?
 * @reader: reader that does not hold the publisher back
 *
 * Context: wait-free.
 * Return: 1: forget it, call shmb_lane_resync(); 0: it was whole.
 */
SHMB_INLINE int shmb_lane_lapped(const struct shmb_lane_reader *reader)
{
	/* F: pairs with E in shmb_lane_raise_intent(): if we read new bytes, we see the intent. */
	SHMB_FENCE_ACQUIRE();
	return SHMB_LOAD(&reader->lane->intent) > reader->position + reader->mask + 1;
}

/**
 * shmb_lane_resync() - go on at a newer record after having been lapped
 * @reader:   reader
 * @ret_lost: stores how many records were skipped
 *
 * Takes the oldest mark that is at least a quarter of the ring away from being overwritten, so
 * that the reader has time, else the newest.
 *
 * Context: wait-free. Source: the resynchronisation of broadcast buffers, with the record count
 * kept beside the boundary so that the loss is exact.
 * Return: 0; -EAGAIN: the marks are being rewritten, try later.
 */
SHMB_INLINE int shmb_lane_resync(struct shmb_lane_reader *reader, uint64_t *ret_lost)
{
	/* F: pairs with E in shmb_lane_raise_intent(): the mark of this intent is there. */
	uint64_t intent = SHMB_LOAD_ACQUIRE(&reader->lane->intent);
	uint64_t ring_len = reader->mask + 1;
	uint64_t position = 0, sequence = 0;
	int found = 0, comfortable = 0;

	for (unsigned int i = 0; i < SHMB_LANE_N_MARKS; i++) {
		const struct shmb_lane_mark *mark = &reader->lane->marks[i];
		/* H: pairs with G in shmb_lane_raise_intent(). */
		uint64_t at = SHMB_LOAD_ACQUIRE(&mark->position);
		uint64_t number = SHMB_LOAD(&mark->sequence);
		int is_comfortable;

		/* H: pairs with G in shmb_lane_raise_intent(): both words are of one mark. */
		SHMB_FENCE_ACQUIRE();
		if (at != SHMB_LOAD(&mark->position) || at == UINT64_MAX || at & 7)
			continue;
		if (at <= reader->position || number < reader->sequence || at > intent)
			continue;
		/* No record is shorter than its header: a mark that says so counts what never was. */
		if (number - reader->sequence > (at - reader->position) / SHMB_RECORD_HEADER_LEN)
			continue;
		is_comfortable = intent - at <= ring_len - ring_len / 4;
		if (!found || is_comfortable > comfortable ||
		    (is_comfortable == comfortable && (at < position) == comfortable)) {
			position = at;
			sequence = number;
			comfortable = is_comfortable;
			found = 1;
		}
	}
	if (!found)
		return -EAGAIN;
	*ret_lost = sequence - reader->sequence;
	reader->position = position;
	reader->sequence = sequence;
	return 0;
}

/**
 * shmb_lane_peek_lossy() - shmb_lane_peek() for a reader that may be lapped
 * @reader: reader
 * @record: filled
 * @lost:   grows by the records that were skipped
 *
 * The record can be lapped while it is copied: ask shmb_lane_lapped() afterwards.
 *
 * Context: wait-free; gives up after a few laps.
 * Return: 1; 0: there is none, or it is being lapped faster than it can follow; -EBADMSG.
 */
SHMB_INLINE int shmb_lane_peek_lossy(struct shmb_lane_reader *reader, struct shmb_record *record,
				     uint64_t *lost)
{
	for (int tries = 0; tries < 8; tries++) {
		uint64_t position = reader->position, skipped = 0;
		int result = shmb_lane_peek(reader, record);
		uint64_t behind_pad = reader->position;

		/* What peek() did, a step over a pad included, counts only if it saw whole words. */
		reader->position = position;
		if (!shmb_lane_lapped(reader)) {
			reader->position = behind_pad;
			return result;
		}
		result = shmb_lane_resync(reader, &skipped);
		if (result == 0)
			*lost += skipped;
	}
	return 0;
}

#ifdef __cplusplus
}
#endif

#endif
