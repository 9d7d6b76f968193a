/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMBROKER_CELL_H
#define SHMBROKER_CELL_H

/*
 * A cell: the latest value of one key, one writer, any number of readers that it never waits for.
 *
 * Of its two slots the one that is not current is written; a version of 0 marks it meanwhile. So a
 * writer killed at any instruction leaves the last whole value where it was, and a reader has to try
 * again only if the writer was there twice while it copied. Labels continue those of ring.h:
 *
 *	word	       | stored by  | loaded by	      | order		      | labels
 *	---------------+------------+-----------------+-----------------------+--------
 *	slot version   | writer	    | reader	      | release -> acquire    | AA -> AB
 *	slot bytes     | writer	    | reader	      | fence -> fence	      | AC -> AD
 */

#include <errno.h>
#include <string.h>

#include <shmbroker/ring.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef SHMB_CELL_COPY
#define SHMB_CELL_COPY(to, from, len) memcpy((to), (from), (len))
#endif

/* A reader that has met the writer so often gives up: it would not be slower than any other. */
#ifndef SHMB_CELL_TRIES
#define SHMB_CELL_TRIES 64
#endif

/* Bytes of the longest value of a cell. */
SHMB_INLINE uint32_t shmb_cell_value_len_max(uint32_t cell_len)
{
	return cell_len / 2 - (uint32_t)sizeof(struct shmb_cell_slot);
}

/* Bytes of a cell for values of up to @value_len bytes; 0: too long. */
SHMB_INLINE uint32_t shmb_cell_len_for(uint32_t value_len)
{
	uint64_t len =
		2 * (((uint64_t)value_len + sizeof(struct shmb_cell_slot) + 31) & ~(uint64_t)31);

	return len <= SHMB_CELL_LEN_MAX ? (uint32_t)len : 0;
}

/* Where the directory of a state channel begins in its segment. */
SHMB_INLINE uint64_t shmb_state_keys_offset(uint32_t schema_len)
{
	return (SHMB_BLOCK_LEN + (uint64_t)schema_len + 63) & ~(uint64_t)63;
}

/* Where the cells begin in the segment of a state channel. */
SHMB_INLINE uint64_t shmb_state_cells_offset(uint32_t schema_len, uint32_t max_keys)
{
	return shmb_state_keys_offset(schema_len) +
	       (uint64_t)max_keys * sizeof(struct shmb_state_key);
}

/**
 * shmb_cell_begin() - begin to put a value
 * @cell:     of @cell_len bytes, writable
 * @cell_len: from the grant
 * @slot:     0 or 1: the one that is not current
 *
 * Return: room for shmb_cell_value_len_max() bytes.
 */
SHMB_INLINE void *shmb_cell_begin(void *cell, uint32_t cell_len, uint32_t slot)
{
	struct shmb_cell_slot *head =
		(struct shmb_cell_slot *)(void *)((uint8_t *)cell + slot * (cell_len / 2));

	/* Killed from here on: the other slot is current, as it has been since the last put. */
	SHMB_STORE(&head->version, 0);
	/* AC: pairs with AD in shmb_cell_read(): who copied bytes stored below sees the 0. */
	SHMB_FENCE_RELEASE();
	return head + 1;
}

/**
 * shmb_cell_end() - what was begun is the latest value
 * @cell:     as in shmb_cell_begin()
 * @cell_len: as there
 * @slot:     as there
 * @version:  higher than that of the other slot
 * @term:     of the claim
 * @len:      bytes of the value, at most shmb_cell_value_len_max(); or SHMB_CELL_NO_VALUE
 *
 * Context: wait-free. Killed before its last store: readers have the value before; after: this one.
 */
SHMB_INLINE void shmb_cell_end(void *cell, uint32_t cell_len, uint32_t slot, uint64_t version,
			       uint64_t term, uint32_t len)
{
	struct shmb_cell_slot *head =
		(struct shmb_cell_slot *)(void *)((uint8_t *)cell + slot * (cell_len / 2));

	SHMB_STORE(&head->term, term);
	SHMB_STORE(&head->len, len);
	/* AA: pairs with AB in shmb_cell_current(): the value is there. */
	SHMB_STORE_RELEASE(&head->version, version);
}

/* Begins, copies @len bytes of @data, unless it is SHMB_CELL_NO_VALUE, and ends. */
SHMB_INLINE void shmb_cell_write(void *cell, uint32_t cell_len, uint32_t slot, uint64_t version,
				 uint64_t term, const void *data, uint32_t len)
{
	void *value = shmb_cell_begin(cell, cell_len, slot);

	if (len != SHMB_CELL_NO_VALUE)
		SHMB_CELL_COPY(value, data, len);
	shmb_cell_end(cell, cell_len, slot, version, term, len);
}

/* The newest whole value's version, and where it is; 0: there never was one. */
SHMB_INLINE uint64_t shmb_cell_current(const void *cell, uint32_t cell_len,
				       const struct shmb_cell_slot **ret_slot)
{
	const struct shmb_cell_slot *even = (const struct shmb_cell_slot *)cell;
	const struct shmb_cell_slot *odd =
		(const struct shmb_cell_slot *)(const void *)((const uint8_t *)cell + cell_len / 2);
	/* AB: pairs with AA in shmb_cell_end(): the value of this version is there. */
	uint64_t version = SHMB_LOAD_ACQUIRE(&even->version);
	/* AB: pairs with AA in shmb_cell_end(). */
	uint64_t other = SHMB_LOAD_ACQUIRE(&odd->version);

	*ret_slot = other > version ? odd : even;
	return other > version ? other : version;
}

/**
 * shmb_cell_read() - copy the latest value out
 * @cell:	 of @cell_len bytes
 * @cell_len:	 from the grant
 * @data:	 room for the value
 * @cap:	 bytes of @data
 * @ret_version: stores its version, 0 if there is none
 * @ret_term:	 stores its term
 *
 * Context: never waits for the writer; bounded.
 * Return: bytes of the value, copied if they fit into @cap; -ENODATA: there is none, or it was
 *	   erased; -EAGAIN: it was overwritten each time while it was copied; -EBADMSG: no length
 *	   that fits a cell.
 */
SHMB_INLINE int shmb_cell_read(const void *cell, uint32_t cell_len, void *data, uint32_t cap,
			       uint64_t *ret_version, uint64_t *ret_term)
{
	const struct shmb_cell_slot *slot;
	int empty = 0;

	for (int tries = 0; tries < SHMB_CELL_TRIES; tries++) {
		uint64_t version = shmb_cell_current(cell, cell_len, &slot);
		uint32_t len = SHMB_LOAD(&slot->len);
		uint64_t term = SHMB_LOAD(&slot->term);

		*ret_version = version;
		*ret_term = term;
		if (len <= cap && len <= shmb_cell_value_len_max(cell_len))
			SHMB_CELL_COPY(data, (const uint8_t *)(slot + 1), len);
		/* AD: pairs with AC in shmb_cell_begin(): were these bytes those of the version? */
		SHMB_FENCE_ACQUIRE();
		if (__builtin_expect(version == 0 || SHMB_LOAD(&slot->version) != version, 0)) {
			/* Also 0 for a moment if one put ended and the next began between the loads. */
			empty += version == 0;
			continue;
		}
		if (len == SHMB_CELL_NO_VALUE)
			return -ENODATA;
		return len <= shmb_cell_value_len_max(cell_len) ? (int)len : -EBADMSG;
	}
	return empty == SHMB_CELL_TRIES ? -ENODATA : -EAGAIN;
}

#ifdef __cplusplus
}
#endif

#endif
