/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_NEWEST_H
#define SHMB_LIB_NEWEST_H

/* Which record of each key is the newest: a hash table from keys to sequence numbers. */

#include <stdint.h>

#include <shmbroker/shmbroker.h>

#define SHMB_NEWEST_N_WORDS (1u + SHMB_CONFLATE_LEN_MAX / 8u)

/**
 * struct shmb_newest_key - what records have in common of which the newest counts
 * @words: the record type, then the bytes, then zeroes
 */
struct shmb_newest_key {
	uint64_t words[SHMB_NEWEST_N_WORDS];
};

/**
 * struct shmb_newest - the table
 * @entries: of @n_words + 1 words each: sequence number + 1 or 0, then the key
 * @n_words: that are used of a key
 * @cap:     entries, a power of two, or 0
 * @n:	     of them are in use, also those of records that have been passed
 * @retry:   it is full until records before this number have been passed
 * @secret:  so that nobody chooses keys that fall together
 */
struct shmb_newest {
	uint64_t *entries;
	uint32_t n_words;
	uint32_t cap;
	uint32_t n;
	uint64_t retry;
	uint8_t secret[16];
};

/* For keys of @key_len bytes. */
void shmb_newest_init(struct shmb_newest *newest, uint32_t key_len);

void shmb_newest_deinit(struct shmb_newest *newest);

/* Forgets all. */
void shmb_newest_clear(struct shmb_newest *newest);

/**
 * shmb_newest_note() - there is a newer record of a key
 * @newest:   table
 * @key:      its key
 * @sequence: its number
 * @oldest:   records before this number are of no interest any more
 *
 * Return: 0; -ENOMEM: there is no room, now or at all.
 */
int shmb_newest_note(struct shmb_newest *newest, const struct shmb_newest_key *key,
		     uint64_t sequence, uint64_t oldest);

/* Is there a record of that key with a higher number? */
int shmb_newest_supersedes(const struct shmb_newest *newest, const struct shmb_newest_key *key,
			   uint64_t sequence);

#endif
