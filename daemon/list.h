/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_LIST_H
#define SHMB_DAEMON_LIST_H

/* Circular lists of links embedded in the objects they chain. A link alone is its own list. */

#include <stdbool.h>

#include "lib/api.h"

struct list {
	struct list *next;
	struct list *prev;
};

static inline void list_init(struct list *list)
{
	list->next = list;
	list->prev = list;
}

static inline bool list_empty(const struct list *list)
{
	return list->next == list;
}

static inline void list_append(struct list *list, struct list *link)
{
	link->next = list;
	link->prev = list->prev;
	list->prev->next = link;
	list->prev = link;
}

/* The link may be alone; it is afterwards. */
static inline void list_remove(struct list *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	list_init(link);
}

#define list_entry(link, type, member) shmb_container_of(link, type, member)

/* The loop's body may remove the link it is at, and no other. */
#define list_for_each(link, safe, list)                                      \
	for ((link) = (list)->next, (safe) = (link)->next; (link) != (list); \
	     (link) = (safe), (safe) = (link)->next)

#endif
