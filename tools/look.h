/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_LOOK_H
#define SHMB_TOOLS_LOOK_H

#include "tools/inspect.h"

/* Find the broker's registry and take a picture, with a complaint if that fails. Returns 0 or 1. */
int look_open(struct inspect *inspect);

/* Take the next picture of the same place; quiet if the broker has gone. Returns 0 or 1. */
int look_again(struct inspect *inspect);

/* Complain about what could not be read. Returns 1 if there was something. */
int look_complain(const struct inspect *inspect);

/* The same for what belongs to one channel; the rest may have trouble of its own. */
int look_complain_about(const struct inspect *inspect, const struct inspect_item *channel);

/* 0: nobody listens on the broker's socket; 1: somebody does, or cannot be asked. */
int look_broker(void);

/* What a member is called in its channel: "publisher", "server", ... */
const char *look_role(const struct inspect *inspect, const struct inspect_item *member);

/* "stream", or "pattern 7". */
void look_pattern(uint32_t pattern, char name[24]);

/* What lies behind what is made for a channel's members now. */
const char *look_backing(const struct shmb_registry_entry *channel);

/* Command line of a client, escaped, to free(); "" if it has gone or may not be seen. */
char *look_command_line(const struct shmb_registry_entry *client);

/**
 * look_huge_len() - how much of a segment is in huge pages, as its writer maps it
 * @client:  of the writer
 * @segment: whose
 * @ret_len: stores the bytes
 *
 * Return: false if the writer may not be looked at.
 */
bool look_huge_len(const struct shmb_registry_entry *client,
		   const struct shmb_registry_entry *segment, uint64_t *ret_len);

#define LOOK_NODES_MAX 1024u

/**
 * look_node_lens() - from which NUMA nodes the memory of a segment has come
 * @client:  of the writer
 * @segment: whose
 * @lens:    stores the bytes of each node
 *
 * Return: false if the writer may not be looked at, or the kernel does not say.
 */
bool look_node_lens(const struct shmb_registry_entry *client,
		    const struct shmb_registry_entry *segment, uint64_t lens[LOOK_NODES_MAX]);

/* 1 the process of this client entry lives, 0 it has gone or its pid is another process's now. */
int look_is_alive(const struct shmb_registry_entry *client);

#endif
