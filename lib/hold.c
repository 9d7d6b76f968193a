/* SPDX-License-Identifier: Apache-2.0 */

#include "lib/hold.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/error.h"

/* ---- arenas ------------------------------------------------------------------------------------ */

static bool is_over(const struct shmb_foreign_arena *arena)
{
	const struct shmb_arena_segment *words = arena->map.base;

	/* Its publisher says so; if it lies, its own records cannot be read any more. */
	return arena->n_users == 0 && (arena->left || SHMB_LOAD(&words->retired) == 1);
}

static void let_go_of_arenas(struct shmb_holder *holder)
{
	struct shmb_foreign_arena **at = &holder->arenas, *arena;

	while ((arena = *at)) {
		if (is_over(arena)) {
			*at = arena->next;
			shmb_map_deinit(&arena->map);
			free(arena);
		} else {
			at = &arena->next;
		}
	}
}

int shmb_holder_add(struct shmb_holder *holder, uint64_t publisher_id, uint32_t number, int fd,
		    const struct shmb_fd_descriptor *descriptor)
{
	struct shmb_foreign_arena *arena;
	int result;

	for (arena = holder->arenas; arena; arena = arena->next)
		if (arena->publisher_id == publisher_id && arena->number == number)
			return 0;
	if (number > SHMB_ARENA_NUMBER_MAX || descriptor->segment_len % SHMB_ARENA_PAGE_LEN ||
	    descriptor->segment_len > holder->limits.arena_len)
		return shmb_fail(-EPROTO, "the broker announced an arena that does not fit the "
					  "channel");
	arena = calloc(1, sizeof(*arena));
	if (!arena)
		return shmb_fail(-ENOMEM, "no memory for an arena");
	result = shmb_map_reader(&arena->map, fd, descriptor, SHMB_SEGMENT_ARENA);
	if (result < 0) {
		free(arena);
		return result;
	}
	arena->publisher_id = publisher_id;
	arena->number = number;
	arena->next = holder->arenas;
	holder->arenas = arena;
	let_go_of_arenas(holder);
	return 0;
}

void shmb_holder_forget(struct shmb_holder *holder, uint64_t publisher_id)
{
	for (struct shmb_foreign_arena *arena = holder->arenas; arena; arena = arena->next)
		if (arena->publisher_id == publisher_id)
			arena->left = true;
	let_go_of_arenas(holder);
}

int shmb_holder_find(const struct shmb_holder *holder, uint64_t publisher_id,
		     struct shmb_record *record, struct shmb_foreign_arena **ret_arena,
		     uint32_t *ret_page)
{
	const struct shmb_block_descriptor *words = (const void *)record->data;
	uint32_t number = SHMB_LOAD(&words->arena), page = SHMB_LOAD(&words->page);
	uint32_t len = SHMB_LOAD(&words->len);
	struct shmb_foreign_arena *arena;
	bool later = false;
	uint64_t n_pages;

	if (!holder->limits.arena_len || number > SHMB_ARENA_NUMBER_MAX ||
	    len > holder->limits.record_len_max)
		return -EBADMSG;
	for (arena = holder->arenas; arena; arena = arena->next) {
		if (arena->publisher_id != publisher_id)
			continue;
		if (arena->number == number)
			break;
		later |= arena->number > number;
	}
	/* They are announced in the order of their numbers. */
	if (!arena)
		return later ? -ESTALE : 0;
	n_pages = arena->map.len / SHMB_ARENA_PAGE_LEN - 1;
	if (page >= n_pages || shmb_block_pages(len) > n_pages - page)
		return -EBADMSG;
	_Static_assert(SHMB_ARENA_PAGE_LEN == SHMB_BLOCK_LEN, "the first block takes one page");
	record->data = (const uint8_t *)arena->map.base + SHMB_BLOCK_LEN +
		       (uint64_t)page * SHMB_ARENA_PAGE_LEN;
	record->len = len;
	*ret_arena = arena;
	*ret_page = page;
	return 1;
}

/* ---- holds ------------------------------------------------------------------------------------- */

struct shmb_hold *shmb_holder_take(struct shmb_holder *holder)
{
	struct shmb_hold *hold = holder->holds;

	while (hold->used)
		hold++;
	*hold = (struct shmb_hold){ .used = true };
	return hold;
}

void shmb_holder_give(struct shmb_holder *holder, struct shmb_hold *hold)
{
	if (hold->arena)
		hold->arena->n_users--;
	free(hold->copy);
	*hold = (struct shmb_hold){ 0 };
	let_go_of_arenas(holder);
}

void shmb_holder_free(struct shmb_holder *holder, bool abandon)
{
	if (!holder)
		return;
	for (unsigned i = 0; i <= SHMB_HOLDS_MAX; i++)
		free(holder->holds[i].copy);
	while (holder->arenas) {
		struct shmb_foreign_arena *arena = holder->arenas;

		holder->arenas = arena->next;
		if (!abandon)
			shmb_map_deinit(&arena->map);
		free(arena);
	}
	free(holder);
}
