/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>

#include "daemon/table.h"

#define BUCKETS_MIN 64

/* Neighbouring keys, which ids are, land in distant buckets. */
static size_t bucket_of(uint64_t key, size_t n_buckets)
{
	return (size_t)((key * 0x9e3779b97f4a7c15ull) >> 32) & (n_buckets - 1);
}

static int table_grow(struct table *table)
{
	size_t n = table->n_buckets ? table->n_buckets * 2 : BUCKETS_MIN;
	struct table_node **buckets = calloc(n, sizeof(struct table_node *));
	struct table_node *node, *next;

	if (!buckets)
		return -ENOMEM;
	for (size_t i = 0; i < table->n_buckets; i++) {
		for (node = table->buckets[i]; node; node = next) {
			next = node->next;
			node->next = buckets[bucket_of(node->key, n)];
			buckets[bucket_of(node->key, n)] = node;
		}
	}
	free(table->buckets);
	table->buckets = buckets;
	table->n_buckets = n;
	return 0;
}

int table_add(struct table *table, struct table_node *node, uint64_t key)
{
	size_t i;

	/* A table that cannot grow still works, only slower. */
	if (table->n_nodes >= table->n_buckets && table_grow(table) < 0 && !table->buckets)
		return -ENOMEM;
	i = bucket_of(key, table->n_buckets);
	node->key = key;
	node->next = table->buckets[i];
	table->buckets[i] = node;
	table->n_nodes++;
	return 0;
}

void table_remove(struct table *table, struct table_node *node)
{
	struct table_node **link = &table->buckets[bucket_of(node->key, table->n_buckets)];

	while (*link != node)
		link = &(*link)->next;
	*link = node->next;
	node->next = NULL;
	table->n_nodes--;
}

struct table_node *table_find(const struct table *table, uint64_t key)
{
	struct table_node *node;

	if (!table->buckets)
		return NULL;
	node = table->buckets[bucket_of(key, table->n_buckets)];
	while (node && node->key != key)
		node = node->next;
	return node;
}

struct table_node *table_next(const struct table_node *node)
{
	uint64_t key = node->key;
	struct table_node *next = node->next;

	while (next && next->key != key)
		next = next->next;
	return next;
}

void table_deinit(struct table *table)
{
	free(table->buckets);
	*table = (struct table){ 0 };
}
