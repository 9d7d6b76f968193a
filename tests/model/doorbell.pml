/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeping and ringing (lib/bell.h): a publisher that may be killed anywhere, a subscriber that
 * sleeps on a futex, a broker that rings for the dead. A lost wake-up is a deadlock.
 * BUG_RINGER_FENCE, BUG_SLEEPER_FENCE, BUG_WAKE_FIRST, BUG_WAKE_LATE, BUG_DEATH: must fail.
 */
#define WORDS	4
#define WRITERS 2
#include "store-buffer.pml"

#define RECORDS 4
#define HEADER	0 /* stands for the lane: how many records are visible */
#define SLEEP	1
#define WAKE	2
#define RINGER	0
#define SLEEPER 1

byte broker_wake;
bool asleep, done, dead, buried;

#define MAY_DIE if :: skip :: dead = true; goto out fi
#define OVER	((done || buried) && EMPTY(RINGER))

proctype publisher()
{
	byte n, sleep, rung, wake;

	do
	:: n < RECORDS ->
		MAY_DIE;
		n++;
		store_release(RINGER, HEADER, n);
		MAY_DIE;
#ifndef BUG_RINGER_FENCE
		fence(RINGER);
#endif
		load(RINGER, SLEEP, sleep);
		if
		:: sleep % 2 && sleep != rung ->
			rung = sleep;
			MAY_DIE;
#ifdef BUG_WAKE_FIRST
			atomic { EMPTY(RINGER) -> asleep = false };
			wake++;
			store(RINGER, WAKE, wake);
#else
			wake++;
			store(RINGER, WAKE, wake);
			MAY_DIE;
			atomic { EMPTY(RINGER) -> asleep = false };
#endif
		:: else
		fi
	:: else -> break
	od;
	done = true;
out:	skip
}

proctype subscriber()
{
	byte seen, n, wake, broker, epoch;

	do
	:: n == RECORDS -> break
	:: else ->
		broker = broker_wake;
		load(SLEEPER, HEADER, seen);
		if
		:: seen != n -> n = seen
		:: else ->
			load(SLEEPER, WAKE, wake);
			epoch = epoch + 2;
			store(SLEEPER, SLEEP, epoch + 1);
#ifndef BUG_SLEEPER_FENCE
			fence(SLEEPER);
#endif
			load(SLEEPER, HEADER, seen);
#ifdef BUG_WAKE_LATE
			load(SLEEPER, WAKE, wake);
#endif
			if
			:: seen != n
			:: else ->
				atomic {
					EMPTY(SLEEPER);
					if
					:: memory[WAKE] == wake && broker_wake == broker ->
						asleep = true
					:: else
					fi
				};
				if
				:: !asleep
				:: asleep && OVER && memory[HEADER] == n -> break
				fi
			fi;
			store(SLEEPER, SLEEP, epoch)
		fi
	od
}

/* Sees the death after everything that the dead had stored. */
proctype broker()
{
	if
	:: done
	:: dead && EMPTY(RINGER) ->
#ifndef BUG_DEATH
		broker_wake++;
		asleep = false;
#endif
		buried = true
	fi
}

init {
	atomic {
		run processor(RINGER);
		run processor(SLEEPER);
		run publisher();
		run subscriber();
		run broker()
	}
}
