/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_ARENA_H
#define SHMB_DAEMON_ARENA_H

#include "daemon/model.h"

/**
 * arena_new() - make one more arena for a publisher
 * @publisher: active, and not about to move
 * @number:    higher than that of any other
 * @len:       bytes, a multiple of SHMB_ARENA_PAGE_LEN
 * @ret_arena: stores the arena, of which nobody else knows
 *
 * Return: 0; -EINVAL; -EBUSY: it is about to move; -EDQUOT: the channel or the user may not have so
 *	   much; -ENOSPC; -ENOMEM; -EMFILE; another negative errno value.
 */
int arena_new(struct member *publisher, uint32_t number, uint64_t len, struct arena **ret_arena);

/**
 * arena_activate() - let the subscribers have it
 * @arena: its client has allocated and mapped it
 *
 * Return: 0; -EALREADY; -EBUSY: the publisher is about to move; -EINVAL, -ENOMEM: it is not allocated;
 *	   -ENOSPC: no room in the registry.
 */
int arena_activate(struct arena *arena);

/**
 * arena_adopt() - take over what an earlier broker has noted
 * @publisher: of it
 * @entry:     of it
 * @slot:      of @entry
 *
 * Return: 0; -ENOENT: it is lost, and its publisher has to move; another negative errno value.
 */
int arena_adopt(struct member *publisher, const struct shmb_registry_entry *entry, uint32_t slot);

/* Nobody new gets it; those who have mapped it keep it. */
void arena_free(struct arena *arena);

/* All arenas of a publisher that is freed. */
void arena_free_all(struct member *publisher);

/* The publisher's process has ended: lets the bytes of all of them be final. */
void arena_fence_all(struct member *publisher);

/* The publisher's lane has moved: what it needs from now on it gets anew. */
void arena_leave_all(struct member *publisher);

#endif
