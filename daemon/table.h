/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_TABLE_H
#define SHMB_DAEMON_TABLE_H

/* A hash table of nodes embedded in the objects they find. Keys need not be unique. */

#include <stddef.h>
#include <stdint.h>

struct table_node {
	uint64_t key;
	struct table_node *next;
};

struct table {
	struct table_node **buckets;
	size_t n_buckets;
	size_t n_nodes;
};

/**
 * table_add() - add a node
 * @table: zeroed at first
 * @node:  in no table
 * @key:   spread over all bits only if a peer can choose it
 *
 * Return: 0 or -ENOMEM.
 */
int table_add(struct table *table, struct table_node *node, uint64_t key);

/* Takes a node out that is in. */
void table_remove(struct table *table, struct table_node *node);

/* The first node with that key, or NULL. */
struct table_node *table_find(const struct table *table, uint64_t key);

/* The next node with the same key, or NULL. */
struct table_node *table_next(const struct table_node *node);

/* Forgets all nodes. */
void table_deinit(struct table *table);

#endif
