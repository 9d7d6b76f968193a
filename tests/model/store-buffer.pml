/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processors with store buffers, for the other models. Before including it: WORDS of memory and
 * WRITERS, each with a buffer. TSO: a buffer drains in order. -DPSO: in any order, but stores to one
 * word stay in order and a release store waits for those before it. A killed process's buffer
 * drains all the same. System calls wait for an empty buffer.
 */
#define STORES 3

typedef buffer {
	byte n;
	byte at[STORES];
	byte value[STORES];
	bit release[STORES]
};

byte memory[WORDS];
buffer buffers[WRITERS];
byte i_;

#define EMPTY(w) (buffers[w].n == 0)

inline put(w, a, v, r)
{
	atomic {
		buffers[w].n < STORES;
		buffers[w].at[buffers[w].n] = a;
		buffers[w].value[buffers[w].n] = v;
		buffers[w].release[buffers[w].n] = r;
		buffers[w].n++
	}
}

#define store(w, a, v)	       put(w, a, v, 0)
#define store_release(w, a, v) put(w, a, v, 1)

/* One's own stores are seen at once. */
inline load(w, a, to)
{
	d_step {
		to = memory[a];
		i_ = 0;
		do
		:: i_ < buffers[w].n ->
			if
			:: buffers[w].at[i_] == a -> to = buffers[w].value[i_]
			:: else
			fi;
			i_++
		:: else -> break
		od;
		i_ = 0
	}
}

inline fence(w)
{
	EMPTY(w)
}

inline drain(w, j)
{
	d_step {
		memory[buffers[w].at[j]] = buffers[w].value[j];
		i_ = j + 1;
		do
		:: i_ < buffers[w].n ->
			buffers[w].at[i_ - 1] = buffers[w].at[i_];
			buffers[w].value[i_ - 1] = buffers[w].value[i_];
			buffers[w].release[i_ - 1] = buffers[w].release[i_];
			i_++
		:: else -> break
		od;
		i_ = 0;
		buffers[w].n--;
		buffers[w].at[buffers[w].n] = 0;
		buffers[w].value[buffers[w].n] = 0;
		buffers[w].release[buffers[w].n] = 0
	}
}

#define FREE(w, j) (buffers[w].n > j && !buffers[w].release[j] && \
		    buffers[w].at[j] != buffers[w].at[0] && \
		    (j < 2 || buffers[w].at[j] != buffers[w].at[1]))

proctype processor(byte w)
{
end:	do
	:: atomic { buffers[w].n > 0 -> drain(w, 0) }
#ifdef PSO
	:: atomic { FREE(w, 1) -> drain(w, 1) }
	:: atomic { FREE(w, 2) -> drain(w, 2) }
#endif
	od
}
