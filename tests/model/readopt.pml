/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doorbells over broker restarts (struct shmb_ringer): each broker makes a new doorbell, gives it to
 * the listener (RESUME) and its other end to the ringer (PAIR), in either order, and may die before
 * either arrives. Whenever the ringer rings, the listener has one of those doorbells open.
 * A set of doorbells is a bit mask of generations.
 * BUG_OLDER: the ringer forgets what is older than any that the listener may know; BUG_RETIRE: the
 * listener closes all but the newest; BUG_FORGET: the ringer keeps only the newest. Must fail.
 */
#define WORDS	2
#define WRITERS 2
#include "store-buffer.pml"

#ifndef BROKERS
#define BROKERS 4
#endif
#define LISTENS	 0 /* the newest generation that the listener listens to */
#define USED	 1 /* the oldest generation that the ringer rings */
#define LISTENER 0
#define RINGER	 1

chan to_listener = [2] of { byte };
chan to_ringer = [2] of { byte };
byte open = 1; /* of the listener */
byte rung = 1; /* by the ringer */

#define HAS(mask, generation) (((mask) >> (generation)) & 1)

proctype brokers()
{
	byte generation;

	for (generation : 1 .. BROKERS - 1) {
		/* Each of them may arrive or be lost with the broker. */
		if
		:: to_listener!generation;
			if
			:: to_ringer!generation
			:: skip
			fi
		:: to_ringer!generation;
			if
			:: to_listener!generation
			:: skip
			fi
		:: skip
		fi
	}
}

/* As shmb_member_retire_doorbells(). */
inline retire(oldest, newest)
{
	d_step {
		i_ = 0;
		do
		:: i_ < newest && i_ < oldest -> open = open & ~(1 << i_); i_++
		:: else -> break
		od;
		i_ = 0
	}
}

proctype listener()
{
	byte newest, generation, oldest;

end:	do
	:: to_listener?generation ->
		open = open | (1 << generation);
		newest = generation;
		load(LISTENER, USED, oldest);
		retire(oldest, newest);
		store(LISTENER, LISTENS, newest)
	:: nempty(to_ringer) || memory[USED] != oldest ->
		/* It arms. */
		load(LISTENER, USED, oldest);
#ifdef BUG_RETIRE
		oldest = newest;
#endif
		retire(oldest, newest)
	od
}

/* As shmb_ringer_settle(). */
inline settle(listens)
{
	d_step {
#ifdef BUG_OLDER
		/* The newest up to what the listener says. */
		i_ = listens;
		do
		:: i_ > 0 && !HAS(rung, i_) -> i_--
		:: else -> break
		od;
		if
		:: HAS(rung, i_) -> rung = (rung >> i_) << i_
		:: else
		fi;
#else
		if
		:: HAS(rung, listens) -> rung = (rung >> listens) << listens
		:: else
		fi;
#endif
		i_ = 0;
		do
		:: !HAS(rung, i_) -> i_++
		:: else -> break
		od;
		used = i_;
		i_ = 0
	}
}

proctype ringer()
{
	byte generation, listens, used;

end:	do
	:: to_ringer?generation ->
#ifdef BUG_FORGET
		rung = 0;
#endif
		rung = rung | (1 << generation);
		load(RINGER, LISTENS, listens);
		settle(listens);
		store(RINGER, USED, used)
	:: memory[LISTENS] != listens ->
		/* It rings. */
		load(RINGER, LISTENS, listens);
		settle(listens);
		store(RINGER, USED, used)
	od
}

/* A ring may come at any time. */
proctype watcher()
{
end:	do
	:: atomic { (rung & open) == 0 -> assert(false) }
	od
}

init {
	atomic {
		run processor(LISTENER);
		run processor(RINGER);
		run brokers();
		run listener();
		run ringer();
		run watcher()
	}
}
