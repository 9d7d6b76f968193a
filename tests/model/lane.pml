/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane (ring.h): headers that are polled, the zero word behind the last record, a pad record at
 * the end of the ring, the cursor, a writer that may be killed anywhere. A record has a header and
 * a word of payload; the ring has five words, so every lap ends with a pad. The zero word of the next
 * record is stored ahead where there is room for it.
 * BUG_ZERO, BUG_WRAP_ZERO, BUG_LIMIT, BUG_AHEAD: must fail; BUG_RELEASE must with PSO.
 */
#define RING	5
#define CURSOR	5
#define WORDS	6
#define WRITERS 2
#include "store-buffer.pml"

#define RECORDS 12
#define PAD	100
#define PAYLOAD 50
#define PUBLISHER  0
#define SUBSCRIBER 1

#ifdef BUG_RELEASE
#define publish store
#else
#define publish store_release
#endif
#ifdef BUG_LIMIT
#define LIMIT (head + RING)
#else
#define LIMIT (head + RING - 1)
#endif

bool dead, done;

#ifdef BUG_AHEAD
#define AHEAD_LIMIT (LIMIT + 2)
#else
#define AHEAD_LIMIT LIMIT
#endif

#define MAY_DIE if :: skip :: dead = true; goto out fi
#define OVER	((dead || done) && EMPTY(PUBLISHER))

proctype publisher()
{
	byte n, position, head, zeroed;

	do
	:: n == RECORDS -> break
	:: else ->
		MAY_DIE;
		if
		:: position % RING == RING - 1 ->
			do
			:: position + 3 > LIMIT ->
				memory[CURSOR] != head;
				load(PUBLISHER, CURSOR, head)
			:: else -> break
			od;
#ifndef BUG_WRAP_ZERO
			store(PUBLISHER, 0, 0);
#endif
			MAY_DIE;
			publish(PUBLISHER, position % RING, PAD);
			position++
		:: else
		fi;
		do
		:: position + 2 > LIMIT ->
			memory[CURSOR] != head;
			load(PUBLISHER, CURSOR, head)
		:: else -> break
		od;
		MAY_DIE;
		store(PUBLISHER, position % RING + 1, PAYLOAD + n);
		MAY_DIE;
#ifndef BUG_ZERO
		if
		:: zeroed != position + 2 -> store(PUBLISHER, (position + 2) % RING, 0)
		:: else
		fi;
#endif
		MAY_DIE;
		publish(PUBLISHER, position % RING, n + 1);
		position = position + 2;
		MAY_DIE;
		if
		:: position + 2 <= AHEAD_LIMIT && position % RING + 2 <= RING ->
			store(PUBLISHER, (position + 2) % RING, 0);
			zeroed = position + 2
		:: else
		fi;
		n++
	od;
	done = true;
out:	skip
}

proctype subscriber()
{
	byte n, position, header, payload;

	do
	:: memory[position % RING] != 0 ->
		load(SUBSCRIBER, position % RING, header);
		if
		:: header == PAD ->
			assert(position % RING == RING - 1);
			position++
		:: else ->
			assert(header == n + 1);
			load(SUBSCRIBER, position % RING + 1, payload);
			assert(payload == PAYLOAD + n);
			n++;
			position = position + 2;
			store_release(SUBSCRIBER, CURSOR, position)
		fi
	:: OVER && memory[position % RING] == 0 ->
		assert(dead || n == RECORDS);
		break
	od
}

init {
	atomic {
		run processor(PUBLISHER);
		run processor(SUBSCRIBER);
		run publisher();
		run subscriber()
	}
}
