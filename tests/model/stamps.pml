/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One order for the records of several publishers, without a word that two of them write: each stamps
 * its records with the time of a clock that is the same for all, and says before in a word of its own
 * that a stamp of at least so much is on its way. A subscriber takes the smallest stamp once the clock
 * has passed it and no publisher can come with a smaller one. Times can be the same: then the number of
 * the publisher decides. A publisher may be killed anywhere; the broker overrules the word of the dead.
 * BUG_NO_BOUND, BUG_RECORD_FIRST, BUG_NO_FENCE, BUG_BOUND_EARLY, BUG_BOUND_LATE, BUG_SAME_TIME, BUG_DEATH:
 * must fail; of these BUG_BOUND_EARLY with PSO.
 */
#ifndef PUBLISHERS
#define PUBLISHERS 2
#endif
#ifndef RECORDS
#define RECORDS 3
#endif
/* They need not be as many. */
#define RECORDS_OF(p) (p == 1 && RECORDS > 1 -> RECORDS - 1 : RECORDS)
#define BOUND(p)     (p)
#define RECORD(p, k) (PUBLISHERS + (p) * (RECORDS + 1) + (k)) /* the last one stays 0 */
#define WORDS	     (PUBLISHERS * (2 + RECORDS))
#define WRITERS	     PUBLISHERS
#include "store-buffer.pml"

byte clock = 1;
byte n_published[PUBLISHERS]; /* with the one that is on its way */
bool dead[PUBLISHERS], done[PUBLISHERS], overruled[PUBLISHERS];

#ifdef BUG_BOUND_EARLY
#define lift store
#define publish store
#else
#define lift store_release
#define publish store_release
#endif

#ifdef BUG_NO_FENCE
#define BOUND_IS_SEEN(p) true
#else
#define BOUND_IS_SEEN(p) EMPTY(p)
#endif

#define MAY_DIE if :: skip :: dead[self] = true; goto out fi

/* No two of one publisher are the same. Time goes on when somebody looks, or not. */
inline read_clock()
{
	atomic {
		if
		:: clock > own
		:: clock++
		fi;
		stamp = clock;
		own = stamp
	}
}

proctype publisher(byte self)
{
	byte own, stamp;

	do
	:: n_published[self] == RECORDS_OF(self) -> break
	:: else ->
		MAY_DIE;
#ifdef BUG_BOUND_LATE
		stamp = own + 1;
		read_clock();
		MAY_DIE;
		store(self, BOUND(self), stamp);
#else
		store(self, BOUND(self), own + 1);
		MAY_DIE;
		BOUND_IS_SEEN(self);
		read_clock();
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
#define BEFORE(s, p, t, q) ((s) < (t) || ((s) == (t) && (p) < (q)))

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
	:: (bound && bound <= candidate && !over) || (stamp && BEFORE(stamp, p, candidate, from)) ->
		held = true
	:: else
	fi
}

proctype subscriber()
{
	byte taken[PUBLISHERS];
	byte candidate, from, last, last_from, p, bound, stamp;
	bool held, over;

	do
	:: true ->
		candidate = 0;
		held = false;
		for (p : 0 .. PUBLISHERS - 1) {
			stamp = memory[RECORD(p, taken[p])];
			if
			:: stamp && (!candidate || BEFORE(stamp, p, candidate, from)) ->
				candidate = stamp; from = p
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
#ifndef BUG_SAME_TIME
			if
			:: clock > candidate
			:: else -> clock++
			fi;
#endif
			for (p : 0 .. PUBLISHERS - 1) {
				if
				:: p != from -> look_at(p)
				:: else
				fi
			}
			if
			:: !held ->
				assert(BEFORE(last, last_from, candidate, from));
				last = candidate;
				last_from = from;
				taken[from]++
			:: else ->
				/* Nor does this one; what it waits for comes, or is overruled. */
				NEXT(1 - from) || !memory[BOUND(1 - from)] ||
					memory[BOUND(1 - from)] > candidate || overruled[1 - from]
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
