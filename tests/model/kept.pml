/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes that are kept (daemon/keep.h): a publisher comes, publishes and ends, in order or not, while a
 * subscriber may be slow, and brokers are killed between any two stores. In the end the subscriber has
 * every record once, and the broker keeps nothing.
 * The registry and the lane outlive brokers; what is in the subscriber's socket may, or may not, if the
 * broker is replaced rather than killed.
 * BUG_FREE: the lane goes with its publisher; BUG_SHOWN: what was sent counts as taken; BUG_TWICE: the
 * subscriber forgets what it has read; BUG_ONCE: it says so once only; BUG_ORDER: the publisher's entry
 * is given up before it is kept. Must fail.
 */
#ifndef BROKERS
#define BROKERS 3
#endif
#ifndef RECORDS
#define RECORDS 2
#endif

#define NONE   0
#define ACTIVE 1
#define KEPT   2

#define PAIR	  1
#define PAIR_GONE 2
#define UNPAIR	  3

/* The registry. */
byte publisher = NONE;
bool pair;

/* The publisher's process and its lane. */
bool came;
bool lives;
byte published;

/* The broker: what it forgets when it is killed. */
byte broker = 1;
byte step;
bool present; /* the subscriber has resumed */
bool shown;
bool left; /* the publisher has said so */
bool drained; /* the subscriber has */

/* The subscriber. */
chan socket = [6] of { byte };
bool knows; /* it has mapped the lane */
bool attached; /* its slot says so */
bool gone; /* it has heard that the publisher is */
bool kept; /* that the broker keeps the lane */
bool remembers; /* it has read it, and the broker may not know */
bool in_hand; /* it looks at its socket before it connects again */
byte position; /* in the lane */
byte received;

inline forget_broker()
{
	present = false;
	shown = false;
	left = false;
	drained = false;
	step = 0
}

/* As pair_free(). */
inline end_pair()
{
	pair = false;
	if
	:: present && shown -> socket!UNPAIR
	:: else
	fi;
	shown = false
}

proctype brokers()
{
	bool owed;

end:	do
	/* The publisher comes: first its pair, then it. */
	:: atomic { step == 0 && !came -> pair = true; step = 1 }
	:: atomic { step == 1 -> publisher = ACTIVE; step = 2 }
	:: atomic {
			step == 2 -> came = true; lives = true; step = 0;
			if
			:: present -> socket!PAIR; shown = true
			:: else
			fi
		}
	/* It has gone, or died: see member_free(), and member_settle_kept() after a restart. */
	:: atomic {
			step == 0 && publisher == ACTIVE && came && (left || !lives) ->
			owed = pair && !attached && published > 0;
#ifdef BUG_FREE
			owed = false;
#endif
#ifdef BUG_SHOWN
			owed = owed && !shown;
#endif
			if
			:: owed -> step = 3
			:: else -> step = 5
			fi
		}
#ifdef BUG_ORDER
	:: atomic { step == 3 -> publisher = NONE; step = 6 }
	:: atomic { step == 6 -> publisher = KEPT; step = 4 }
#else
	:: atomic { step == 3 -> publisher = KEPT; step = 4 }
#endif
	:: atomic {
			step == 4 -> step = 0;
			if
			:: present -> socket!PAIR_GONE; shown = true
			:: else
			fi
		}
	:: atomic { step == 5 -> publisher = NONE; step = 7 }
	:: atomic { step == 7 -> end_pair(); step = 0 }
	/* What is left of a publisher whose entry is gone; of one that was never active. */
	:: atomic { step == 0 && pair && publisher == NONE && came -> end_pair() }
	/* The subscriber has read it. */
	:: atomic {
			step == 0 && drained -> drained = false;
			if
			:: pair && publisher == KEPT -> step = 8
			:: else
			fi
		}
	:: atomic { step == 8 -> end_pair(); step = 9 }
	:: atomic { step == 9 -> publisher = NONE; step = 0 }
	:: atomic { step == 0 && publisher == KEPT && !pair -> publisher = NONE }
	/* Killed, or replaced: then its last words do not count. */
	:: atomic {
			broker < BROKERS -> broker++;
			forget_broker();
			if
			:: !came -> pair = false; publisher = NONE
			:: else
			fi;
			if
			:: in_hand = true
			:: do
			   :: nempty(socket) -> socket?_
			   :: empty(socket) -> break
			   od
			fi
		}
	od
}

proctype publishes()
{
	do
	:: atomic { lives && published < RECORDS -> published++ }
	:: atomic { lives && published > 0 -> left = true; break }
	:: atomic { lives -> break }
	od;
	/* After a farewell, or without. */
	atomic { lives = false }
}

proctype subscribes()
{
	byte event;

end:	do
	/* What a broker has said before it died is heard before the next one is asked. */
	:: atomic {
			!present && step == 0 && empty(socket) -> in_hand = false;
			present = true;
			if
			:: pair && publisher == KEPT -> socket!PAIR_GONE; shown = true
			:: pair && publisher == ACTIVE && came -> socket!PAIR; shown = true
			:: else ->
				if
				:: knows || remembers -> socket!UNPAIR
				:: else
				fi
			fi
		}
	:: atomic {
			(present || in_hand) && nempty(socket) -> socket?event;
			if
			:: event == PAIR && !knows -> knows = true; position = 0
			:: event == PAIR_GONE && remembers ->
#ifndef BUG_ONCE
				drained = present
#else
				skip
#endif
			:: event == PAIR_GONE && !remembers ->
				if
				:: !knows -> knows = true; position = 0
				:: else
				fi;
				gone = true;
				kept = true
			:: event == UNPAIR -> remembers = false; kept = false; gone = knows
			:: else
			fi
		}
	:: atomic { knows && !gone && !attached -> attached = true }
	:: atomic {
			knows && position < published -> assert(position == received);
			position++;
			received++
		}
	:: atomic {
			knows && gone && position == published -> knows = false;
			if
			:: kept -> drained = present;
#ifndef BUG_TWICE
				remembers = true
#else
				skip
#endif
			:: else
			fi
		}
	od
}

proctype watcher()
{
	timeout -> assert(received == published && publisher == NONE && !pair && !knows &&
			  !remembers)
}

init {
	atomic {
		run brokers();
		run publishes();
		run subscribes();
		run watcher()
	}
}
