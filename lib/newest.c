/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/newest.h"

#define CAP_MIN 64u
#define CAP_MAX (1u << 20) /* half of it are keys that are told apart at a time */

void shmb_newest_init(struct shmb_newest *newest, uint32_t key_len)
{
	*newest = (struct shmb_newest){ .n_words = 1 + (key_len + 7) / 8 };
	_Static_assert(sizeof(newest->secret) == crypto_shorthash_KEYBYTES, "");
	crypto_shorthash_keygen(newest->secret);
}

void shmb_newest_deinit(struct shmb_newest *newest)
{
	free(newest->entries);
	newest->entries = NULL;
}

void shmb_newest_clear(struct shmb_newest *newest)
{
	if (newest->n)
		memset(newest->entries, 0, newest->cap * (newest->n_words + 1) * sizeof(uint64_t));
	newest->n = 0;
	newest->retry = 0;
}

/* Where the key is, or where there is room for it. */
static uint64_t *find(const struct shmb_newest *newest, const uint64_t *words)
{
	uint32_t n_words = newest->n_words, i;
	uint64_t hash;

	_Static_assert(sizeof(hash) == crypto_shorthash_BYTES, "");
	crypto_shorthash((uint8_t *)&hash, (const uint8_t *)words, n_words * sizeof(*words),
			 newest->secret);
	for (i = (uint32_t)hash & (newest->cap - 1);; i = (i + 1) & (newest->cap - 1)) {
		uint64_t *entry = &newest->entries[(size_t)i * (n_words + 1)];

		if (!*entry || !memcmp(entry + 1, words, n_words * sizeof(*words)))
			return entry;
	}
}

static void put(struct shmb_newest *newest, const uint64_t *words, uint64_t number)
{
	uint64_t *entry = find(newest, words);

	newest->n += *entry == 0;
	*entry = number;
	memcpy(entry + 1, words, newest->n_words * sizeof(*words));
}

/* So that less than half of it is in use, and nothing of what is passed. */
static int rebuild(struct shmb_newest *newest, uint64_t oldest)
{
	struct shmb_newest before = *newest;
	uint32_t entry_words = newest->n_words + 1, n = 0;

	for (uint32_t i = 0; i < before.cap; i++)
		n += before.entries[(size_t)i * entry_words] > oldest;
	newest->cap = before.cap ? before.cap : CAP_MIN;
	/* It is rebuilt only when a quarter of it has come anew. */
	while (n >= newest->cap / 4 && newest->cap < CAP_MAX)
		newest->cap *= 2;
	newest->entries = n < newest->cap / 8 * 3
				  ? calloc(newest->cap, entry_words * sizeof(uint64_t))
				  : NULL;
	if (!newest->entries) {
		*newest = before;
		newest->retry = oldest + CAP_MAX / 8;
		return -ENOMEM;
	}
	newest->n = 0;
	for (uint32_t i = 0; i < before.cap; i++) {
		const uint64_t *entry = &before.entries[(size_t)i * entry_words];

		if (*entry > oldest)
			put(newest, entry + 1, *entry);
	}
	free(before.entries);
	return 0;
}

int shmb_newest_note(struct shmb_newest *newest, const struct shmb_newest_key *key,
		     uint64_t sequence, uint64_t oldest)
{
	int result = 0;

	if (newest->n >= newest->cap / 2)
		result = oldest < newest->retry ? -ENOMEM : rebuild(newest, oldest);
	if (result == 0)
		put(newest, key->words, sequence + 1);
	return result;
}

int shmb_newest_supersedes(const struct shmb_newest *newest, const struct shmb_newest_key *key,
			   uint64_t sequence)
{
	return newest->n && *find(newest, key->words) > sequence + 1;
}
