/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a publisher learns of subscribers (channel_changed(), shmb_member_sync(), shmb_client_drain(),
 * lib/bell.h): the broker sends what fits into the socket and says whether it owes more, then moves
 * the epoch; the publisher looks at the epoch before each record, and at the socket if it moved.
 * Once it has acted on an epoch it knows all subscribers of that epoch, and each of them begins
 * where the publisher thinks.
 * BUG_EPOCH_FIRST, BUG_BACKLOG, BUG_EPOCH_LATE, BUG_START: must fail.
 */
#define WORDS	8
#define WRITERS 2
#include "store-buffer.pml"

#define SUBSCRIBERS 2
#define RECORDS	    3
#define EPOCH	    0
#define BACKLOG	    1
#define ATTACHED    2 /* one per subscriber */
#define START	    4
#define BROKER	    0
#define PUBLISHER   1

chan socket = [1] of { byte };
bool known[SUBSCRIBERS];
byte begins[SUBSCRIBERS];
bool finished;

/* As many pairs as subscribers at once; one message fits into the socket. */
proctype broker()
{
	byte sent, epoch;
	byte announced = 0;

	do
	:: announced < SUBSCRIBERS ->
		if
		:: announced++
		:: announced = SUBSCRIBERS
		fi;
#ifdef BUG_EPOCH_FIRST
		store_release(BROKER, EPOCH, announced);
		fence(BROKER);
#endif
		do
		:: sent < announced && nfull(socket) -> socket!sent; sent++
		:: sent < announced && full(socket) -> break
		:: sent == announced -> break
		od;
		store_release(BROKER, BACKLOG, sent < announced);
		store_release(BROKER, EPOCH, announced);
		/* Later, when the socket is writable. */
		do
		:: sent < announced -> fence(BROKER); socket!sent; sent++
		:: else -> break
		od;
		store_release(BROKER, BACKLOG, 0)
	:: else -> break
	od
}

inline on_pair(who)
{
	begins[who] = position;
#ifdef BUG_START
	store_release(PUBLISHER, ATTACHED + who, 1);
	store(PUBLISHER, START + who, position);
#else
	store(PUBLISHER, START + who, position);
	store_release(PUBLISHER, ATTACHED + who, 1);
#endif
	known[who] = true
}

proctype publisher()
{
	byte position = 1, epoch, seen, owed, pair;

	do
	:: position <= RECORDS ->
		load(PUBLISHER, EPOCH, epoch);
		if
		:: epoch != seen ->
			do
			:: true ->
				load(PUBLISHER, BACKLOG, owed);
#ifdef BUG_BACKLOG
				owed = 0;
#endif
				fence(PUBLISHER);
				if
				:: atomic { nempty(socket) -> socket?pair };
					on_pair(pair)
				:: empty(socket) && !owed -> break
				:: empty(socket) && owed ->
					nempty(socket) || memory[BACKLOG] == 0
				fi
			od;
#ifdef BUG_EPOCH_LATE
			load(PUBLISHER, EPOCH, epoch);
#endif
			seen = epoch
		:: else
		fi;
		assert(seen < 1 || known[0]);
		assert(seen < 2 || known[1]);
		position++
	:: else -> break
	od;
	finished = true
}

proctype subscriber(byte self)
{
	byte start;

end:	memory[ATTACHED + self] == 1;
	start = memory[START + self];
	assert(start == begins[self])
}

/* Nobody takes the messages any more once the publisher has written all its records. */
proctype rest()
{
	byte pair;

end:	do
	:: atomic { finished && nempty(socket) -> socket?pair }
	od
}

init {
	atomic {
		run processor(BROKER);
		run processor(PUBLISHER);
		run broker();
		run publisher();
		run subscriber(0);
		run subscriber(1);
		run rest()
	}
}
