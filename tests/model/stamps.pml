/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One order for the records of several publishers, without a lane that all of them write: each takes
 * a stamp from a common counter (the one word with several writers; a lie in it skews the order,
 * never a record), and says before in a word of its own that a stamp of at least so much is on its
 * way. A subscriber takes the smallest stamp once no publisher can come with a smaller one. A
 * publisher may be killed anywhere; the broker overrules the word of the dead.
 * BUG_NO_BOUND, BUG_RECORD_FIRST, BUG_BOUND_EARLY, BUG_BOUND_LATE, BUG_DEATH: must fail; of these
 * BUG_BOUND_EARLY with PSO.
 */
#ifndef PUBLISHERS
#define PUBLISHERS 2
#endif
#ifndef RECORDS
#define RECORDS 3
#endif
#define BOUND(p)     (p)
#define RECORD(p, k) (PUBLISHERS + (p) * (RECORDS + 1) + (k)) /* the last one stays 0 */
#define WORDS	     (PUBLISHERS * (2 + RECORDS))
#define WRITERS	     PUBLISHERS
#include "store-buffer.pml"

byte counter = 1;
byte n_published[PUBLISHERS]; /* with the one that is on its way */
bool dead[PUBLISHERS], done[PUBLISHERS], overruled[PUBLISHERS];

#ifdef BUG_BOUND_EARLY
#define lift store
#define publish store
#else
#define lift store_release
#define publish store_release
#endif

#define MAY_DIE if :: skip :: dead[self] = true; goto out fi

proctype publisher(byte self)
{
	byte bound, stamp;

	do
	:: n_published[self] == RECORDS -> break
	:: else ->
		MAY_DIE;
		bound = counter;
#ifdef BUG_BOUND_LATE
		atomic { EMPTY(self) -> stamp = counter; counter++ };
		MAY_DIE;
		store(self, BOUND(self), bound);
#else
		store(self, BOUND(self), bound);
		MAY_DIE;
		/* A locked instruction, which waits for what was stored before. */
		atomic { EMPTY(self) -> stamp = counter; counter++ };
#endif
		MAY_DIE;
		publish(self, RECORD(self, n_published[self]), stamp);
		n_published[self]++;
		MAY_DIE;
		lift(self, BOUND(self), 0)
	od;
	done[self] = true;
out:	skip
}

/* Sees a death after everything that the dead had stored. */
proctype broker()
{
	byte p;

end:	do
	:: p < PUBLISHERS ->
		if
		:: dead[p] && EMPTY(p) ->
#ifndef BUG_DEATH
			overruled[p] = true;
#endif
			p++
		:: done[p] && EMPTY(p) -> p++
		fi
	:: else -> break
	od
}

#define NEXT(p) memory[RECORD(p, taken[p])]
#define OVER(p) ((overruled[p] || done[p]) && EMPTY(p))

/* May publisher p still come with a stamp below that of the candidate? */
inline look_at(p)
{
	over = overruled[p];
#ifdef BUG_RECORD_FIRST
	stamp = memory[RECORD(p, taken[p])];
#endif
	bound = memory[BOUND(p)];
#ifdef BUG_NO_BOUND
	bound = 0;
#endif
#ifndef BUG_RECORD_FIRST
	stamp = memory[RECORD(p, taken[p])];
#endif
	if
	:: (bound && bound < candidate && !over) || (stamp && stamp < candidate) -> held = true
	:: else
	fi
}

proctype subscriber()
{
	byte taken[PUBLISHERS];
	byte candidate, from, last, p, bound, stamp;
	bool held, over;

	do
	:: true ->
		candidate = 0;
		held = false;
		for (p : 0 .. PUBLISHERS - 1) {
			stamp = memory[RECORD(p, taken[p])];
			if
			:: stamp && (!candidate || stamp < candidate) -> candidate = stamp; from = p
			:: else
			fi
		}
		if
		:: !candidate ->
			/* A look that found nothing need not be repeated before something changes. */
			if
			:: NEXT(0) || NEXT(1)
			:: OVER(0) && OVER(1) && !NEXT(0) && !NEXT(1) -> break
			fi
		:: else ->
			for (p : 0 .. PUBLISHERS - 1) {
				if
				:: p != from -> look_at(p)
				:: else
				fi
			}
			if
			:: !held ->
				assert(candidate > last);
				last = candidate;
				taken[from]++
			:: else ->
				/* Nor does this one; what it waits for comes, or is overruled. */
				NEXT(1 - from) || !memory[BOUND(1 - from)] ||
					memory[BOUND(1 - from)] >= candidate || overruled[1 - from]
			fi
		fi;
		candidate = 0; from = 0; p = 0; bound = 0; stamp = 0; held = false; over = false
	od;
	assert(taken[0] == n_published[0] && taken[1] == n_published[1])
}

init {
	atomic {
		run processor(0);
		run processor(1);
		run publisher(0);
		run publisher(1);
		run broker();
		run subscriber()
	}
}
