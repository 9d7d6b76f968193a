/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Cells under the model checker: cell.h itself. Whatever the interleaving, the memory and the moment
 * of the writer's death, a reader gets a whole value, never an older one than before, and what a put
 * has left is the value before or the new one. And when the writer has died, what its successors in
 * the directory do: the broker inherits, another publisher takes over.
 */

#include "tests/model/dfs.h"

#include <shmbroker/layout.h>

static void copy(void *to, const void *from, uint32_t len);

#define SHMB_CELL_COPY(to, from, len) copy((to), (from), (len))
#define SHMB_CELL_TRIES		      2

#include <shmbroker/cell.h>

#define N(array) (sizeof(array) / sizeof((array)[0]))

#define CELL_LEN 128u
#define N_WORDS	 2u
#define ERASED	 4u /* the version that is no value */

enum {
	FIRST,
	SECOND,
	BROKER,
	N_CELLS
};

static struct {
	uint64_t words[CELL_LEN / 8];
} cells[N_CELLS];

/* As in the directory: whose cell it is; 0: the broker's. */
static uint64_t source;
static uint64_t
	claimed; /* the broker has given the key to the second one, which goes on from here */

static uint64_t n_certain; /* puts that are done */
static uint64_t n_perhaps; /* and the one that is under way */
static unsigned int n_puts, n_reads;
static uint64_t last; /* version that the reader has got */

static uint64_t word_of(uint64_t version, unsigned int i)
{
	return version << 8 | i;
}

/* Lengths change, so that one of another value would be seen. */
static uint32_t len_of(uint64_t version)
{
	if (version == ERASED)
		return SHMB_CELL_NO_VALUE;
	return version % 2 ? 8 * N_WORDS : 8;
}

/* Into a cell, word by word; out of it, as late as the fences allow. */
static void copy(void *to, const void *from, uint32_t len)
{
	uint64_t *words = to;
	bool in = (uint8_t *)to >= (uint8_t *)cells && (uint8_t *)to < (uint8_t *)(cells + N_CELLS);

	for (uint32_t i = 0; i < len / 8; i++) {
		if (in)
			SHMB_STORE(&words[i], ((const uint64_t *)from)[i]);
		else
			dfs_copy(&words[i], (const uint64_t *)from + i);
	}
}

static void put(unsigned int cell, uint64_t version, uint64_t term)
{
	uint64_t words[N_WORDS];

	for (unsigned int i = 0; i < N_WORDS; i++)
		words[i] = word_of(version, i);
	n_perhaps = version;
	shmb_cell_write(&cells[cell], CELL_LEN, version & 1, version, term, words, len_of(version));
	n_certain = version;
}

/* Gets and judges. Returns the version; 0: there is none, or it changes too fast. */
static uint64_t get(unsigned int cell, bool alone)
{
	uint64_t words[N_WORDS] = { 0 }, version = 0, term = 0;
	int len = shmb_cell_read(&cells[cell], CELL_LEN, words, sizeof(words), &version, &term);

	dfs_settle();
	if (len == -EAGAIN && !alone)
		return 0;
	if (len == -EBADMSG || len == -EAGAIN)
		dfs_fail("bytes that cannot be a value");
	if (len == -ENODATA && version == 0)
		return 0;
	if (len != (version == ERASED ? -ENODATA : (int)len_of(version)))
		dfs_fail("the length of another value");
	if (term != version + 7)
		dfs_fail("the term of another value");
	for (int i = 0; i < len / 8; i++)
		if (words[i] != word_of(version, (unsigned int)i))
			dfs_fail("a torn value");
	return version;
}

static void check_version(uint64_t version)
{
	if (version != n_certain && version != n_perhaps)
		dfs_fail("neither the value before nor the new one");
	if (version < last)
		dfs_fail("an older value than before");
}

/* ---- one writer -------------------------------------------------------------------------------- */

static void write_all(void)
{
	for (unsigned int i = 0; i < n_puts; i++)
		put(FIRST, n_certain + 1, n_certain + 1 + 7);
}

static void read_all(void)
{
	for (unsigned int i = 0; i < n_reads; i++) {
		uint64_t version = get(FIRST, false);

		if (version && version < last)
			dfs_fail("an older value than before");
		if (version)
			last = version;
	}
}

static void check_one(void)
{
	check_version(get(FIRST, true));
}

static void begin(unsigned int before, unsigned int puts, unsigned int reads)
{
	n_certain = n_perhaps = last = 0;
	for (unsigned int i = 0; i < before; i++)
		put(FIRST, i + 1, i + 1 + 7);
	n_puts = puts;
	n_reads = reads;
}

static void set_up_empty(void)
{
	begin(0, 3, 3);
}

static void set_up_odd(void)
{
	begin(1, 2, 2);
}

static void set_up_even(void)
{
	begin(2, 3, 2);
}

/* ---- a writer that dies ------------------------------------------------------------------------ */

/* As the broker: key_set_source(), when it is asked. */
static void be_first(void)
{
	put(FIRST, n_certain + 1, n_certain + 1 + 7);
	dfs_await_death();
}

/* As the broker's disclaim() and key_claim(); only when the first one is dead. */
static void be_broker(void)
{
	uint64_t words[N_WORDS], version, term;
	int len;

	dfs_await_death();
	len = shmb_cell_read(&cells[FIRST], CELL_LEN, words, sizeof(words), &version, &term);
	dfs_settle();
	if (len < 0)
		dfs_fail("what the dead one has left cannot be read");
	shmb_cell_write(&cells[BROKER], CELL_LEN, 0, version, term, words, (uint32_t)len);
	SHMB_STORE_RELEASE(&source, 0);
	SHMB_STORE_RELEASE(&claimed, version);
}

/* The successor goes on with the version that it is told. */
static void be_second(void)
{
	uint64_t version = SHMB_LOAD_ACQUIRE(&claimed);

	if (!version)
		return;
	put(SECOND, version + 1, version + 1 + 7);
	SHMB_STORE_RELEASE(&source, SECOND + 1);
}

/* As look_up() and read_key() in lib/state.c. */
static void follow(void)
{
	for (unsigned int i = 0; i < n_reads; i++) {
		uint64_t from = SHMB_LOAD_ACQUIRE(&source);
		uint64_t version = get(from ? (unsigned int)from - 1 : BROKER, false);

		if (version < last)
			dfs_fail("an older value than before, or none");
		last = version;
	}
}

static void check_successor(void)
{
	uint64_t from = SHMB_LOAD(&source);

	if (dfs_killed(0) && from == FIRST + 1)
		dfs_fail("what the dead one has left is not taken over");
	check_version(get(from ? (unsigned int)from - 1 : BROKER, true));
}

static void set_up_death(void)
{
	begin(1, 1, 2);
	source = FIRST + 1;
	claimed = 0;
	SHMB_STORE(&source, FIRST + 1);
}

static const struct dfs_scenario scenarios[] = {
	{ "cell, first values",
	  set_up_empty,
	  { write_all, read_all },
	  check_one,
	  1,
	  4,
	  2,
	  { 6500000, 72000 } },
	{ "cell, odd slot",
	  set_up_odd,
	  { write_all, read_all },
	  check_one,
	  1,
	  4,
	  3,
	  { 1000000, 29000 } },
	{ "cell, even slot",
	  set_up_even,
	  { write_all, read_all },
	  check_one,
	  1,
	  4,
	  2,
	  { 1600000, 30000 } },
	{ "cell, successors",
	  set_up_death,
	  { be_first, be_broker, be_second, follow },
	  check_successor,
	  1,
	  3,
	  4,
	  { 11000000, 34000 } },
};

int main(int argc, char **argv)
{
	dfs_share(cells, sizeof(cells));
	dfs_share(&source, sizeof(source));
	dfs_share(&claimed, sizeof(claimed));
	return dfs_main(argc, argv, scenarios, N(scenarios));
}
