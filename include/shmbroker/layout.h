/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMBROKER_LAYOUT_H
#define SHMBROKER_LAYOUT_H

/*
 * The bytes in shared memory, layout version 1. Data only: little-endian, fixed width, naturally
 * aligned, no pointers, no _Atomic, no bit-fields, no enums, no packing, so that any language can
 * mirror it. shmbroker-layout(5) explains how to read and write these bytes.
 *
 * Every segment has exactly one writing process once it has been handed over:
 *
 *	segment   | written by       | mapped read-only by
 *	----------+------------------+--------------------------------------------
 *	registry  | broker           | nobody; inspectors read(2) it
 *	channel   | broker           | every client that has the channel open; values of those who have
 *		  |		     | gone, too, where the pattern is state
 *	lane      | its publisher    | the subscribers of its channel; cells instead of a ring where
 *		  |		     | the pattern is state; one subscriber where it is call
 *	arena     | its publisher    | the subscribers of its channel
 *	cursor    | its subscriber   | the publishers of its channel
 *	bell      | the ringer       | the one sleeper
 *
 * The broker creates each segment, writes its struct shmb_segment_header before anybody else can
 * see it, and never touches the header again. A reader takes every size and offset from the grant
 * that came over the control socket, never from these bytes.
 */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define SHMB_LAYOUT_ASSERT(expression, text) static_assert(expression, text)
#else
#define SHMB_LAYOUT_ASSERT(expression, text) _Static_assert(expression, text)
#endif
#define SHMB_AT(type, field, offset) \
	SHMB_LAYOUT_ASSERT(offsetof(struct type, field) == (offset), #type "." #field)
#define SHMB_SIZE(type, size) SHMB_LAYOUT_ASSERT(sizeof(struct type) == (size), #type)

#define SHMB_SEGMENT_MAGIC	  0x31474553424d4853ull /* "SHMBSEG1" read as a little-endian u64 */
#define SHMB_BYTE_ORDER		  0x01020304u /* read as 0x04030201: a foreign byte order */
#define SHMB_BLOCK_LEN		  4096u /* the fixed block at the start of a segment */
#define SHMB_NAME_LEN_MAX	  128u
#define SHMB_SEGMENT_NAME_LEN_MAX 64u

#define SHMB_SEGMENT_REGISTRY 1u
#define SHMB_SEGMENT_CHANNEL  2u
#define SHMB_SEGMENT_LANE     3u
#define SHMB_SEGMENT_CURSOR   4u
#define SHMB_SEGMENT_BELL     5u
#define SHMB_SEGMENT_ARENA    6u

/*
 * What lies behind a segment. Registry, channels and the broker's bells, which only the broker can
 * write, are always POSIX shared memory; a channel chooses for lanes, cursors and its other bells.
 */
#define SHMB_MEMORY_AUTO   0u /* POSIX, until its members are of more than one uid; then SEALED */
#define SHMB_MEMORY_POSIX  1u /* a POSIX shared-memory object: a restarted broker finds its name */
#define SHMB_MEMORY_SEALED 2u /* a memfd with seals: nobody can cut it off under its readers */

/**
 * struct shmb_segment_header - the first 128 bytes of every segment
 * @magic:	 SHMB_SEGMENT_MAGIC
 * @byte_order:	 SHMB_BYTE_ORDER as its creator stores it
 * @version:	 layout version, 1
 * @kind:	 SHMB_SEGMENT_*
 * @block_len:	 bytes before the variable part, SHMB_BLOCK_LEN
 * @segment_len: bytes of the whole segment
 * @instance:	 which broker state directory this belongs to (random, survives broker restarts)
 * @segment_id:	 unique inside the instance
 * @owner_id:	 id of the channel, publisher, subscriber, pair or client it belongs to; the same
 *		 as @segment_id, but for later segments of a publisher or subscriber
 */
struct shmb_segment_header {
	uint64_t magic;
	uint32_t byte_order;
	uint32_t version;
	uint32_t kind;
	uint32_t block_len;
	uint64_t segment_len;
	uint64_t instance;
	uint64_t segment_id;
	uint64_t owner_id;
	uint8_t pad[72];
};
SHMB_AT(shmb_segment_header, version, 12);
SHMB_AT(shmb_segment_header, segment_len, 24);
SHMB_AT(shmb_segment_header, owner_id, 48);
SHMB_SIZE(shmb_segment_header, 128);

/* ---- lane: a ring of records, written by one publisher ------------------------------------- */

#define SHMB_LANE_LEN_MIN     (1u << 12)
#define SHMB_LANE_LEN_MAX     (1u << 31)
#define SHMB_LANE_LEN_DEFAULT (1u << 20) /* of a channel whose creator does not say */
#define SHMB_LANE_N_MARKS     16u

/*
 * A record is one u64 header word, then its payload, padded to 8 bytes. It never wraps: a pad
 * record fills the end of the ring. A position is a count of bytes since the lane began; the
 * offset in the ring is position & (lane_len - 1). The header word at the end of the last record
 * is 0: a reader waits there.
 */
#define SHMB_RECORD_HEADER_LEN 8u
#define SHMB_RECORD_LEN_MASK   0x0fffffffull /* bits 0-27: payload bytes */
#define SHMB_RECORD_EXT	       (1ull << 28) /* 16 bytes come first, counted in the length */
#define SHMB_RECORD_BLOCK      (1ull << 29) /* the payload lies in a block: see arenas */
#define SHMB_RECORD_PAD	       (1ull << 30) /* skip to the start of the ring */
#define SHMB_RECORD_VALID      (1ull << 31) /* published */
#define SHMB_RECORD_TYPE_SHIFT 32 /* bits 32-47: the application's record type */
#define SHMB_RECORD_SEQ_SHIFT  48 /* bits 48-63: low bits of the record's sequence number */

/**
 * struct shmb_record_ext - comes before the payload of each record of a channel that is ordered, has a
 *			    time to live, or whose records may carry fds
 * @published_ns: CLOCK_MONOTONIC of when it was published, more than that of the record before
 * @fds:	  how many fds it carries, and the number of the last packet that was sent before it or
 *		  with it: see struct shmb_fds_packet; else 0
 */
struct shmb_record_ext {
	uint64_t published_ns;
	uint64_t fds;
};
SHMB_SIZE(shmb_record_ext, 16);

/*
 * The fds that a record carries come over a socket (AF_UNIX, SOCK_SEQPACKET) that its publisher has to
 * each subscriber: one packet for each record that carries some, with the fds (SCM_RIGHTS), sent before
 * the record is published. A packet whose number is lower than that of a record, or that has the number
 * of a record which carries none, is for nobody.
 */
#define SHMB_FDS_MAX	      64u /* that a record can carry */
#define SHMB_FDS_COUNT_MASK   0xffull /* of @fds in the extension: so many */
#define SHMB_FDS_NUMBER_SHIFT 8 /* bits 8-63: the packet's number, from 1 */

/**
 * struct shmb_fds_packet - what is in such a packet beside the fds
 * @number: grows by one with each packet of a publisher; all subscribers get the same
 * @n_fds:  how many ride with it
 * @zero:   reserved
 */
struct shmb_fds_packet {
	uint64_t number;
	uint32_t n_fds;
	uint32_t zero;
};
SHMB_AT(shmb_fds_packet, n_fds, 8);
SHMB_SIZE(shmb_fds_packet, 16);

/**
 * struct shmb_lane_mark - a record boundary where a lapped reader may go on
 * @position: of a record header, or all ones while the mark is being rewritten
 * @sequence: number of records before it
 */
struct shmb_lane_mark {
	uint64_t position;
	uint64_t sequence;
};

/**
 * struct shmb_lane_segment - the first block of a lane; the ring follows at SHMB_BLOCK_LEN
 * @header:	    see there
 * @position_hint:  a record boundary at or before the publisher's position
 * @sequence_hint:  number of records before @position_hint
 * @dropped:	    records refused because the lane was full and the publisher drops the newest
 * @refused:	    calls that returned -EAGAIN because the lane was full
 * @full_since_ns:  CLOCK_MONOTONIC of when the lane was found full, for display
 * @rings:	    system calls made to wake subscribers
 * @full_sequence:  number of records published by then: more now, and it is not full any more
 * @evicted:	    subscribers that it has stopped waiting for, see the bell's word of that name
 * @given_from:	    queues: the record at this position is given to another worker
 * @given_to:	    by the record at this position, once there is one; 0: none is
 * @orphans_from:   queues: of the records that workers have left of whose end the publisher has heard,
 *		    the oldest that it has not given to another one yet is at this position, or behind
 *		    it; all ones: there is none
 * @intent:	    every byte before this position minus the ring's length may be overwritten
 * @block_floor:    blocks of records that begin before this position may be in use again
 * @order_bound:    ordered channels: a record is being published, with at least this @published_ns; 0:
 *		    none is, and the next will have one of a time after that of whoever sees this
 * @space_wait:	    the publisher's sleep word (see SHMB_SLEEP_*) while it waits for space
 * @doorbell_generation: the newest of its doorbell fds that the publisher listens to
 * @left:	    1: the publisher was closed; for a broker that did not hear it say so
 * @marks:	    where a lapped reader may go on
 */
struct shmb_lane_segment {
	struct shmb_segment_header header;
	uint64_t position_hint;
	uint64_t sequence_hint;
	uint64_t dropped;
	uint64_t refused;
	uint64_t full_since_ns;
	uint64_t rings;
	uint64_t full_sequence;
	uint64_t evicted;
	uint64_t given_from;
	uint64_t given_to;
	uint64_t orphans_from;
	uint8_t pad0[40];
	uint64_t intent;
	uint64_t block_floor;
	uint8_t pad1[48];
	uint64_t order_bound;
	uint8_t pad4[56];
	uint32_t space_wait;
	uint32_t doorbell_generation;
	uint32_t left;
	uint8_t pad2[116];
	struct shmb_lane_mark marks[SHMB_LANE_N_MARKS];
	uint8_t pad3[SHMB_BLOCK_LEN - 768];
};
SHMB_AT(shmb_lane_segment, position_hint, 128);
SHMB_AT(shmb_lane_segment, full_sequence, 176);
SHMB_AT(shmb_lane_segment, evicted, 184);
SHMB_AT(shmb_lane_segment, given_from, 192);
SHMB_AT(shmb_lane_segment, given_to, 200);
SHMB_AT(shmb_lane_segment, orphans_from, 208);
SHMB_AT(shmb_lane_segment, intent, 256);
SHMB_AT(shmb_lane_segment, block_floor, 264);
SHMB_AT(shmb_lane_segment, order_bound, 320);
SHMB_AT(shmb_lane_segment, space_wait, 384);
SHMB_AT(shmb_lane_segment, doorbell_generation, 388);
SHMB_AT(shmb_lane_segment, left, 392);
SHMB_AT(shmb_lane_segment, marks, 512);
SHMB_SIZE(shmb_lane_segment, SHMB_BLOCK_LEN);

/* ---- arenas: memory for long records --------------------------------------------------------- */

/*
 * A channel may allow records that are longer than its lanes could hold. Those longer than
 * inline_len_max lie in a block: some pages of an arena, a segment of the publisher's of which there
 * can be several. Their record in the lane has the flag SHMB_RECORD_BLOCK, and 16 bytes that say
 * where the payload is; on a call channel they come behind the word of the call, which stays in the
 * lane. Which pages are free only the publisher knows.
 *
 * A block is used again once every reliable subscriber's position has passed its record and no hold of
 * any subscriber names it. Before that the publisher stores @block_floor in its lane.
 */
#define SHMB_ARENA_PAGE_LEN	  4096u
#define SHMB_ARENA_LEN_MAX	  (1ull << 38) /* all arenas of a publisher */
#define SHMB_ARENA_NUMBER_MAX	  ((1u << 24) - 1)
#define SHMB_ARENA_RECORD_LEN_MAX (1u << 30)
#define SHMB_ARENA_HUGE_PAGES	  (1u << 0) /* as flags: in huge pages, where the kernel gives some */
#define SHMB_ARENA_NUMA_NODE_MAX  1023u

/**
 * struct shmb_block_limits - what a channel says of blocks
 * @arena_len:	    bytes of all arenas of a publisher; 0: there are no blocks
 * @record_len_max: bytes of the longest record
 * @inline_len_max: longer ones lie in blocks
 * @max_holds:	    so many blocks each subscriber may hold, at most SHMB_HOLDS_MAX
 * @flags:	    SHMB_ARENA_*
 * @numa_node:	    1 + the node whose memory it is to be; 0: any
 * @zero:	    reserved
 */
struct shmb_block_limits {
	uint64_t arena_len;
	uint32_t record_len_max;
	uint32_t inline_len_max;
	uint32_t max_holds;
	uint32_t flags;
	uint32_t numa_node;
	uint32_t zero;
};
SHMB_AT(shmb_block_limits, record_len_max, 8);
SHMB_AT(shmb_block_limits, numa_node, 24);
SHMB_SIZE(shmb_block_limits, 32);

/**
 * struct shmb_block_descriptor - the last 16 bytes of a record with SHMB_RECORD_BLOCK
 * @arena: number of the arena among those of the publisher
 * @page:  where in it the payload begins, counted from behind its first block
 * @len:   bytes of the payload
 * @zero:  reserved
 */
struct shmb_block_descriptor {
	uint32_t arena;
	uint32_t page;
	uint32_t len;
	uint32_t zero;
};
SHMB_AT(shmb_block_descriptor, len, 8);
SHMB_SIZE(shmb_block_descriptor, 16);

/**
 * struct shmb_arena_segment - the first block of an arena; its pages follow
 * @header: see there
 * @number: counts the arenas of a publisher, from 0
 * @retired: 1: no record refers to it any more that can still be read
 */
struct shmb_arena_segment {
	struct shmb_segment_header header;
	uint32_t number;
	uint32_t retired;
	uint8_t pad[SHMB_BLOCK_LEN - 136];
};
SHMB_AT(shmb_arena_segment, number, 128);
SHMB_AT(shmb_arena_segment, retired, 132);
SHMB_SIZE(shmb_arena_segment, SHMB_BLOCK_LEN);

/* ---- cells: latest values of a state channel -------------------------------------------------- */

/*
 * A cell holds the latest value of one key: two slots of cell_len / 2 bytes, each a struct
 * shmb_cell_slot and then the value. The slot that is not current is written, so one of them always
 * holds the last whole value.
 *
 * Behind the first block of its segment a publisher of a state channel has one cell for each key, in
 * the order of the channel's directory; its @position_hint and @sequence_hint count what was put. The
 * channel's segment has as many behind its directory, for the values of those who have gone.
 */
#define SHMB_CELL_LEN_MIN  64u /* and a multiple of it */
#define SHMB_CELL_LEN_MAX  (1u << 24)
#define SHMB_CELLS_LEN_MAX (1u << 26) /* all cells of a publisher: a broker may have to copy them */
#define SHMB_CELL_NO_VALUE 0x7fffffffu /* as @len: the value was erased */

/**
 * struct shmb_cell_slot - one of the two halves of a cell
 * @version: counts what was put for the key, from 1, whoever puts it; 0: empty, or being written. The
 *	     slot with the higher one is current
 * @term:    under which claim it was put
 * @len:     bytes of the value behind it, or SHMB_CELL_NO_VALUE
 * @zero:    reserved
 */
struct shmb_cell_slot {
	uint64_t version;
	uint64_t term;
	uint32_t len;
	uint32_t zero;
};
SHMB_AT(shmb_cell_slot, len, 16);
SHMB_SIZE(shmb_cell_slot, 24);

/* ---- cursor: how far one subscriber has read each lane ------------------------------------- */

/*
 * A sleep word is epoch << 2 | mode: its owner bumps the epoch each time it falls asleep, so
 * that a ringer rings once per sleep.
 */
#define SHMB_SLEEP_MODE_MASK 3u
#define SHMB_SLEEP_AWAKE     0u
#define SHMB_SLEEP_FUTEX     1u /* asleep on the wake words of its bells */
#define SHMB_SLEEP_FD	     2u /* asleep on its doorbell fd */

/**
 * struct shmb_cursor_lane - one slot per publisher slot of the channel, at SHMB_BLOCK_LEN
 * @position: read up to here
 * @sequence: records received or skipped so far, counted as the lane counts them
 * @lost:     records skipped because the publisher lapped this reader
 * @pair_id:  which pair these numbers belong to; 0 while they change, stored after them
 * @doorbell_generation: which of the publisher's doorbell fds the subscriber rings
 * @expired:  records skipped because they were too old, of those that @sequence counts
 * @conflated: records skipped because a newer one of their key was there, of those that @sequence counts
 */
struct shmb_cursor_lane {
	uint64_t position;
	uint64_t sequence;
	uint64_t lost;
	uint64_t pair_id;
	uint32_t doorbell_generation;
	uint8_t pad0[4];
	uint64_t expired;
	uint64_t conflated;
	uint8_t pad1[8];
};
SHMB_AT(shmb_cursor_lane, pair_id, 24);
SHMB_AT(shmb_cursor_lane, doorbell_generation, 32);
SHMB_AT(shmb_cursor_lane, expired, 40);
SHMB_AT(shmb_cursor_lane, conflated, 48);
SHMB_SIZE(shmb_cursor_lane, 64);

/**
 * struct shmb_cursor_hold - a block that a subscriber holds although its position has passed it
 * @block:    which: SHMB_HOLD_*; 0: none. Stored last
 * @since_ns: CLOCK_MONOTONIC, for display
 * @sequence: number of its record, for display
 * @len:      bytes of its payload, for display
 * @zero:     reserved
 */
struct shmb_cursor_hold {
	uint64_t block;
	uint64_t since_ns;
	uint64_t sequence;
	uint32_t len;
	uint32_t zero;
};
SHMB_AT(shmb_cursor_hold, len, 24);
SHMB_SIZE(shmb_cursor_hold, 32);

#define SHMB_HOLDS_MAX	      64u
#define SHMB_HOLD_VALID	      (1ull << 63)
#define SHMB_HOLD_SLOT_SHIFT  50 /* bits 50-61: the publisher's slot */
#define SHMB_HOLD_ARENA_SHIFT 26 /* bits 26-49: number of the arena; below it: the page */

/**
 * struct shmb_cursor_segment - the first block of a cursor
 * @header:	see there
 * @sleep:	the subscriber's sleep word
 * @doorbell_generation: the newest of its doorbell fds that it listens to
 * @left:	1: the subscriber was closed, and holds nobody back any more
 * @sleeps:	times it went to sleep
 * @backstops:	times the bounded sleep ended by itself and found data: each one is a lost wake-up
 * @updated_ns: CLOCK_MONOTONIC of the last sleep, for display
 * @credit:	queues: so many records of each publisher it may have that are not done
 * @holds:	blocks that it holds; one more than it may, for the one that it looks at
 */
struct shmb_cursor_segment {
	struct shmb_segment_header header;
	uint32_t sleep;
	uint32_t doorbell_generation;
	uint32_t left;
	uint8_t pad0[116];
	uint64_t sleeps;
	uint64_t backstops;
	uint64_t updated_ns;
	uint32_t credit;
	uint8_t pad1[228];
	struct shmb_cursor_hold holds[SHMB_HOLDS_MAX + 1];
	uint8_t pad2[SHMB_BLOCK_LEN - 2592];
};
SHMB_AT(shmb_cursor_segment, sleep, 128);
SHMB_AT(shmb_cursor_segment, doorbell_generation, 132);
SHMB_AT(shmb_cursor_segment, left, 136);
SHMB_AT(shmb_cursor_segment, sleeps, 256);
SHMB_AT(shmb_cursor_segment, credit, 280);
SHMB_AT(shmb_cursor_segment, holds, 512);
SHMB_SIZE(shmb_cursor_segment, SHMB_BLOCK_LEN);

/* ---- queues --------------------------------------------------------------------------------- */

/*
 * On a channel of the pattern SHMB_PATTERN_QUEUE every record is for one subscriber, a worker, which
 * its publisher has chosen. All read it, the others only step over it. A worker has done with what
 * lies before its position in the cursor, as ever; of what lies behind it its marks tell.
 */
#define SHMB_QUEUE_CREDIT_MAX 64u /* a power of two */
#define SHMB_QUEUE_KEPT_MAX   64u /* slots of a cursor for publishers that have gone */

/**
 * struct shmb_queue_address - comes before the payload of a record of a queue
 * @worker:   id of the subscriber that it is for; 0 once it was given to another one anew
 * @number:   of the record among those for this worker from this lane, from 0
 * @attempts: how often it has been handed to workers that have died with it
 */
struct shmb_queue_address {
	uint64_t worker;
	uint32_t number;
	uint32_t attempts;
};
SHMB_AT(shmb_queue_address, number, 8);
SHMB_SIZE(shmb_queue_address, 16);

#define SHMB_QUEUE_MARK_DONE	     0x10000u
#define SHMB_QUEUE_MARK_NUMBER_SHIFT 32 /* bits 0-15: how often this worker has been handed it */

/**
 * struct shmb_cursor_work - one for each slot, behind the slots of a queue's cursor, of which there are
 *			     SHMB_QUEUE_KEPT_MAX more than the channel has publishers
 * @done:  of the records for this worker all with numbers below this are done
 * @marks: of record n at n modulo their number, once it has been handed out; later ones replace it
 *
 * They belong to the pair of the slot.
 */
struct shmb_cursor_work {
	uint64_t done;
	uint8_t pad[56];
	uint64_t marks[SHMB_QUEUE_CREDIT_MAX];
};
SHMB_AT(shmb_cursor_work, marks, 64);
SHMB_SIZE(shmb_cursor_work, 576);

/* ---- bell: written by one ringer for one sleeper -------------------------------------------- */

/**
 * struct shmb_bell_segment - a bell
 * @header:		 see there
 * @wake:		 the futex word: bumped before each wake-up
 * @backlog:		 broker's bells only: 2 * @broker_epoch + 1 while the control socket still owes
 *			 messages of that broker, else 0
 * @broker_epoch:	 broker's bells only: as in the registry; a connection to a broker of a lower
 *			 epoch is of no use any more, even if that broker is still there
 * @attached:		 publisher's bells only: 1 once @start_position and @start_sequence hold
 * @doorbell_generation: publisher's bells only: which of the doorbell fds the ringer uses
 * @start_position:	 where the subscriber begins to read the lane
 * @start_sequence:	 number of records before it
 * @evicted:		 publisher's bells only: 1: the publisher has stopped waiting for this
 *			 reliable subscriber, which it may lap from now on
 * @orphaned:		 publisher's bells of queues only: 1: the publisher has heard that the worker
 *			 has gone, and what that one has left begins where the lane's @orphans_from says
 */
struct shmb_bell_segment {
	struct shmb_segment_header header;
	uint32_t wake;
	uint32_t backlog;
	uint64_t broker_epoch;
	uint8_t pad0[112];
	uint32_t attached;
	uint32_t doorbell_generation;
	uint64_t start_position;
	uint64_t start_sequence;
	uint32_t evicted;
	uint32_t orphaned;
	uint8_t pad1[SHMB_BLOCK_LEN - 288];
};
SHMB_AT(shmb_bell_segment, wake, 128);
SHMB_AT(shmb_bell_segment, broker_epoch, 136);
SHMB_AT(shmb_bell_segment, attached, 256);
SHMB_AT(shmb_bell_segment, start_position, 264);
SHMB_AT(shmb_bell_segment, evicted, 280);
SHMB_AT(shmb_bell_segment, orphaned, 284);
SHMB_SIZE(shmb_bell_segment, SHMB_BLOCK_LEN);

/* ---- channel --------------------------------------------------------------------------------- */

#define SHMB_PATTERN_STREAM 1u
#define SHMB_PATTERN_QUEUE  2u /* each record is for one subscriber */
#define SHMB_PATTERN_CALL   3u /* requests and replies, see below */
#define SHMB_PATTERN_STATE  4u /* latest values by key */

#define SHMB_STATE_KEY_LEN_MAX 64u
#define SHMB_STATE_KEYS_MAX    4096u

/**
 * struct shmb_state_key - one key of a state channel, written by the broker
 * @owner:   publisher that may write it now; 0: nobody
 * @source:  as @owner, once its value is in the owner's cell of this key's index; 0: it is in the
 *	     channel's cell of this index, if there is one
 * @term:    of the last claim; grows with each, across all keys and restarts of the broker
 * @key_len: bytes of @key; stored last, 0: free
 * @key:     not terminated
 *
 * @max_keys of them follow the schema of a state channel, at the next multiple of 64 bytes; behind
 * them its cells. An entry stays with its key for as long as there is the channel.
 */
struct shmb_state_key {
	uint64_t owner;
	uint64_t source;
	uint64_t term;
	uint32_t key_len;
	uint8_t pad[36];
	uint8_t key[SHMB_STATE_KEY_LEN_MAX];
};
SHMB_AT(shmb_state_key, key_len, 24);
SHMB_AT(shmb_state_key, key, 64);
SHMB_SIZE(shmb_state_key, 128);

/*
 * On a channel of the pattern SHMB_PATTERN_CALL the subscribers are its callers and its servers, and
 * each lane is private: its publisher is the end of a caller that sends requests to one server, or the
 * end of a server that sends replies to one caller. Nobody else can read it.
 *
 * The payload of each record begins with one word: which call it belongs to, as its caller numbers
 * them, and in a request until when it is of use. A long request or reply lies in a block; failures
 * never do, so that inline_len_max is at least what one takes. The upper 4 bits of the record's type say what it
 * is, the lower 12 are the application's.
 */
#define SHMB_CALL_HEADER_LEN	 8u
#define SHMB_CALL_ID_MASK	 0xffffffffffull /* bits 0-39 of the word, never 0 */
#define SHMB_CALL_DEADLINE_SHIFT 40 /* bits 40-63: CLOCK_MONOTONIC in ms; 0: none, or far away */
#define SHMB_CALL_DEADLINE_MASK	 0xffffffu
#define SHMB_CALL_KIND_SHIFT	 12
#define SHMB_CALL_TYPE_MASK	 0xfffu
#define SHMB_CALL_REQUEST	 0u
#define SHMB_CALL_CANCEL	 1u /* the caller has no more use for the replies */
#define SHMB_CALL_REPLY		 2u /* the last one */
#define SHMB_CALL_MORE		 3u /* a reply, and it is not the last one */
#define SHMB_CALL_END		 4u /* there is no reply any more */
#define SHMB_CALL_FAILURE	 5u /* there is no reply any more: an i32 code, then a sentence */
#define SHMB_CALL_TEXT_LEN_MAX	 1024u /* bytes of that sentence */
#define SHMB_CALLS_MAX		 4096u /* that a caller may have open at once */

/**
 * struct shmb_call_server - a server of the channel, written by the broker
 * @id:	 of the subscriber with which it gets requests; stored last, 0: free
 * @uid: user
 * @pid: process
 *
 * @max_subscribers of them, by the slot of the subscriber, follow the schema of a call channel, at the
 * next multiple of 64 bytes.
 */
struct shmb_call_server {
	uint64_t id;
	uint32_t uid;
	uint32_t pid;
};
SHMB_AT(shmb_call_server, uid, 8);
SHMB_SIZE(shmb_call_server, 16);

/**
 * struct shmb_channel_segment - the first block of a channel; its schema follows, if it has one
 * @header:	    see there
 * @epoch:	    moves whenever membership or rights change, after the control messages were sent
 * @channel_id:	    unique inside the instance
 * @pattern:	    SHMB_PATTERN_*
 * @lane_len:	    bytes of each publisher's ring, a power of two; of all its cells if the pattern
 *		    is state
 * @max_publishers: publisher slots, hence slots in each cursor
 * @max_subscribers: limit
 * @schema_len:	    bytes at SHMB_BLOCK_LEN, 0: records are untyped
 * @name_len:	    bytes of @name
 * @n_publishers:   publishers active now; call: callers
 * @n_subscribers:  subscribers active now; call: servers
 * @history:	    records of each publisher that a late subscriber gets
 * @backing:	    SHMB_MEMORY_POSIX or _SEALED: of what is made for its members from now on
 * @max_keys:	    state: entries of the directory, cells of each publisher
 * @retained:	    1: it stays although nobody uses it
 * @blocks:	    for records that are longer than a lane could hold
 * @ttl_ms:	    records that were published longer ago are skipped; 0: none
 * @ordered:	    1: subscribers receive the records of all publishers in one order
 * @max_fds:	    so many fds may a record carry; 0: none
 * @name:	    not terminated
 */
struct shmb_channel_segment {
	struct shmb_segment_header header;
	uint64_t epoch;
	uint8_t pad0[120];
	uint64_t channel_id;
	uint32_t pattern;
	uint32_t lane_len;
	uint32_t max_publishers;
	uint32_t max_subscribers;
	uint32_t schema_len;
	uint32_t name_len;
	uint32_t n_publishers;
	uint32_t n_subscribers;
	uint32_t history;
	uint32_t backing;
	uint32_t max_keys;
	uint32_t ttl_ms;
	uint32_t ordered;
	uint32_t retained;
	struct shmb_block_limits blocks;
	uint32_t max_fds;
	uint8_t pad3[28];
	uint8_t name[SHMB_NAME_LEN_MAX];
	uint8_t pad2[SHMB_BLOCK_LEN - 512];
};
SHMB_AT(shmb_channel_segment, epoch, 128);
SHMB_AT(shmb_channel_segment, channel_id, 256);
SHMB_AT(shmb_channel_segment, n_subscribers, 292);
SHMB_AT(shmb_channel_segment, history, 296);
SHMB_AT(shmb_channel_segment, backing, 300);
SHMB_AT(shmb_channel_segment, max_keys, 304);
SHMB_AT(shmb_channel_segment, ttl_ms, 308);
SHMB_AT(shmb_channel_segment, ordered, 312);
SHMB_AT(shmb_channel_segment, retained, 316);
SHMB_AT(shmb_channel_segment, blocks, 320);
SHMB_AT(shmb_channel_segment, max_fds, 352);
SHMB_AT(shmb_channel_segment, name, 384);
SHMB_SIZE(shmb_channel_segment, SHMB_BLOCK_LEN);

/* ---- registry -------------------------------------------------------------------------------- */

#define SHMB_ENTRY_FREE 0u
#define SHMB_ENTRY_LIVE 1u

#define SHMB_ENTRY_CLIENT     1u
#define SHMB_ENTRY_CHANNEL    2u
#define SHMB_ENTRY_PUBLISHER  3u
#define SHMB_ENTRY_SUBSCRIBER 4u
#define SHMB_ENTRY_PAIR	      5u
#define SHMB_ENTRY_ARENA      6u
#define SHMB_ENTRY_KEEPER     7u /* a process of the broker that keeps sealed segments */

#define SHMB_MEMBER_LOSSY  (1u << 0) /* subscriber: may be lapped, never holds a publisher back */
#define SHMB_MEMBER_ACTIVE (1u << 1) /* its segment is allocated and announced */
#define SHMB_MEMBER_TRUSTING \
	(1u << 3) /* publisher: its user's subscribers may map its lane writable */
#define SHMB_MEMBER_KEPT	   (1u << 4) /* it has gone, its segment is there for its pairs */
#define SHMB_MEMBER_HISTORY	   (1u << 5) /* as KEPT: its lane is there for late subscribers, too */
#define SHMB_MEMBER_SERVER	   (1u << 8) /* subscriber of a call channel: it gets requests */
#define SHMB_MEMBER_PRIORITY_SHIFT 24u
#define SHMB_MEMBER_PRIORITY_MASK  (7u << 24) /* publisher: its priority, 0 the lowest */
#define SHMB_ENTRY_SEALED	   (1u << 2) /* channel: what is made for its members is sealed by now */
#define SHMB_ENTRY_ORDERED	   (1u << 4) /* channel: as in its segment */
#define SHMB_ENTRY_RETAINED	   (1u << 6) /* channel: it stays although nobody uses it */

/**
 * struct shmb_registry_entry - one thing the broker knows; an array of them at SHMB_BLOCK_LEN
 * @state:	    SHMB_ENTRY_LIVE is stored last; SHMB_ENTRY_FREE first
 * @kind:	    SHMB_ENTRY_*
 * @id:		    unique inside the instance
 * @channel_id:	    of a publisher, subscriber, pair or arena
 * @client_id:	    of a publisher or subscriber; if it is KEPT that client may not exist, 0: it is the
 *		    broker's, which has copied what a worker has left
 * @publisher_id:   of a pair or arena
 * @subscriber_id:  of a pair
 * @segment_len:    bytes of @segment
 * @process_start:  client, keeper: start time of its process as in /proc/PID/stat
 * @process_inode:  client, keeper: inode of its pidfd, 0 where the kernel has no pidfs
 * @created_ns:	    CLOCK_REALTIME, for display
 * @pid:	    client, keeper; publisher, subscriber: of its client
 * @uid:	    client, keeper; publisher, subscriber: of its client; channel: the creator's
 * @gid:	    client
 * @flags:	    publisher, subscriber: SHMB_MEMBER_*; channel: SHMB_ENTRY_SEALED, _ORDERED, _RETAINED
 * @slot:	    publisher, subscriber: its slot in the channel; arena: its number
 * @pattern:	    channel
 * @lane_len:	    channel
 * @max_publishers: channel
 * @max_subscribers: channel
 * @schema_len:	    channel
 * @name_len:	    bytes of @name
 * @history:	    channel: as in its segment; subscriber: how many of these records it wants
 * @resume_key:	    client: BLAKE2b-256 of the token with which it may come back
 * @segment:	    name of the shared-memory object, or "memfd:" and its inode; NUL-terminated
 * @name:	    channel: its name; client: its label; not terminated
 * @segment_id:	    of @segment; 0: @id
 * @backing:	    channel: SHMB_MEMORY_* as wanted; others: POSIX (or 0) or SEALED, of @segment
 * @max_keys:	    channel: as in its segment
 * @blocks:	    channel: as in its segment
 * @partner_id:	    publisher: the one subscriber that may read its lane; 0: all of the channel
 * @reply_to:	    publisher with a partner: the subscriber of its client that gets the answers; the
 *		    broker's: it holds what is left of pairs with at most this id, whose members have lower
 *		    kept_ids than its own
 * @evict_after_ms: subscriber: its publishers stop waiting for it after so long; 0: never
 * @ttl_ms:	    channel: as in its segment
 * @kept_id:	    of one that is KEPT: higher than that of those who went before
 * @max_fds:	    channel: as in its segment
 */
struct shmb_registry_entry {
	uint32_t state;
	uint32_t kind;
	uint64_t id;
	uint64_t channel_id;
	uint64_t client_id;
	uint64_t publisher_id;
	uint64_t subscriber_id;
	uint64_t segment_len;
	uint64_t process_start;
	uint64_t process_inode;
	uint64_t created_ns;
	uint32_t pid;
	uint32_t uid;
	uint32_t gid;
	uint32_t flags;
	uint32_t slot;
	uint32_t pattern;
	uint32_t lane_len;
	uint32_t max_publishers;
	uint32_t max_subscribers;
	uint32_t schema_len;
	uint32_t name_len;
	uint32_t history;
	uint8_t resume_key[32];
	uint8_t segment[SHMB_SEGMENT_NAME_LEN_MAX];
	uint8_t name[SHMB_NAME_LEN_MAX];
	uint64_t segment_id;
	uint32_t backing;
	uint32_t max_keys;
	struct shmb_block_limits blocks;
	uint64_t partner_id;
	uint64_t reply_to;
	uint32_t evict_after_ms;
	uint32_t ttl_ms;
	uint64_t kept_id;
	uint32_t max_fds;
	uint8_t pad1[76];
};
SHMB_AT(shmb_registry_entry, id, 8);
SHMB_AT(shmb_registry_entry, pid, 80);
SHMB_AT(shmb_registry_entry, history, 124);
SHMB_AT(shmb_registry_entry, resume_key, 128);
SHMB_AT(shmb_registry_entry, segment, 160);
SHMB_AT(shmb_registry_entry, name, 224);
SHMB_AT(shmb_registry_entry, segment_id, 352);
SHMB_AT(shmb_registry_entry, backing, 360);
SHMB_AT(shmb_registry_entry, max_keys, 364);
SHMB_AT(shmb_registry_entry, blocks, 368);
SHMB_AT(shmb_registry_entry, partner_id, 400);
SHMB_AT(shmb_registry_entry, evict_after_ms, 416);
SHMB_AT(shmb_registry_entry, ttl_ms, 420);
SHMB_AT(shmb_registry_entry, kept_id, 424);
SHMB_AT(shmb_registry_entry, max_fds, 432);
SHMB_SIZE(shmb_registry_entry, 512);

/**
 * struct shmb_registry_segment - the first block of the registry
 * @header:	   see there; @header.segment_len is only what it was at creation, the file grows
 * @broker_epoch:  how often a broker has started on this registry
 * @next_id:	   ids below this may be in use
 * @started_ns:	   CLOCK_BOOTTIME of the last start
 * @broker_pid:	   the broker that wrote last
 * @entry_len:	   bytes of an entry, 512
 * @address_len:   bytes of @address
 * @address:	   path of the control socket, not terminated
 */
struct shmb_registry_segment {
	struct shmb_segment_header header;
	uint64_t broker_epoch;
	uint64_t next_id;
	uint64_t started_ns;
	uint32_t broker_pid;
	uint32_t entry_len;
	uint32_t address_len;
	uint8_t pad0[4];
	uint8_t address[108];
	uint8_t pad1[SHMB_BLOCK_LEN - 276];
};
SHMB_AT(shmb_registry_segment, broker_epoch, 128);
SHMB_AT(shmb_registry_segment, address, 168);
SHMB_SIZE(shmb_registry_segment, SHMB_BLOCK_LEN);

#endif
