/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_REGISTRY_H
#define SHMB_DAEMON_REGISTRY_H

/*
 * The broker's memory: a shared-memory object with an entry for everything that exists, from which
 * a restarted broker takes up where its predecessor was killed, and which inspectors read.
 *
 * A broker can be killed between any two instructions. An entry is therefore written while it is
 * FREE, and becomes LIVE with one store; it is given up with one store, too. What belongs to an
 * entry (its segment) is made before it and removed after it, so that what a killed broker leaves
 * is a segment that no entry names, never an entry without its segment.
 *
 * A broker can also be stopped between any two instructions, be replaced, and go on. Its successor
 * counts one more epoch before it looks at the entries, and so whatever the old one has noted before
 * it finds the epoch as it was is known to the successor. So the old one says nothing to anybody,
 * and removes no segment, but after such a look; what it is about to say or to remove then is no
 * news.
 */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/layout.h>

#define REGISTRY_NO_ENTRY UINT32_MAX

/**
 * struct registry - the registry of a running broker
 * @name:      of the object
 * @fd:	       of the object
 * @map:       its bytes
 * @len:       of @map
 * @n_entries: that @map has room for
 * @free:      stack of free entries, @n_free of them
 * @n_free:    length of @free
 * @epoch:     of this broker
 */
struct registry {
	char name[SHMB_SEGMENT_NAME_LEN_MAX];
	int fd;
	struct shmb_registry_segment *map;
	uint64_t len;
	uint32_t n_entries;
	uint32_t *free;
	uint32_t n_free;
	uint64_t epoch;
};

/* Name of the registry of an instance. */
void registry_name(uint64_t instance, char name[SHMB_SEGMENT_NAME_LEN_MAX]);

/**
 * registry_create() - make an empty one
 * @registry: filled
 * @instance: not used before
 *
 * Return: 0, -EEXIST, -ENOSPC or another negative errno value.
 */
int registry_create(struct registry *registry, uint64_t instance);

/**
 * registry_load() - take over that of an earlier broker
 * @registry: filled; entries that make no sense are freed
 * @instance: of that broker
 *
 * Return: 0; -ENOENT; -EINVAL: it is not one; another negative errno value.
 */
int registry_load(struct registry *registry, uint64_t instance);

/**
 * registry_find() - the instance of an earlier broker whose lock file is gone
 * @address: of its socket
 * @replace: also if it is still running
 * @ret_instance: the one that was started last there by this user; 0: none
 *
 * Return: 0; a negative errno value if there may be one that cannot be seen now.
 */
int registry_find(const char *address, bool replace, uint64_t *ret_instance);

/* The pid of the broker that has started last on a registry, which may be in use; 0: unknown. */
uint32_t registry_last_broker(uint64_t instance);

/* Notes that a broker has started: one more epoch. */
void registry_start(struct registry *registry, const char *address);

/**
 * registry_supersede() - leave a predecessor that may still run with an object of its own
 * @registry: loaded, and started: the predecessor can see that
 *
 * It may have been stopped between any two stores. What it does when it wakes up happens to the old
 * object, which nobody looks at any more.
 *
 * Return: 0; -ESTALE: we have been replaced ourselves; -ENOSPC, -ENOMEM, another negative errno
 *	   value: the old object is still in use.
 */
int registry_supersede(struct registry *registry);

/*
 * Has another broker started on it? Then nothing that we hold is ours any more. If not, it will see
 * all that we have noted before.
 */
bool registry_is_superseded(const struct registry *registry);

/* A number that no object of this instance has ever had. */
uint64_t registry_next_id(struct registry *registry);

/* How often a broker has started on this registry. */
uint64_t registry_epoch(const struct registry *registry);

/**
 * registry_add() - note that something exists
 * @registry: registry
 * @entry:    all but its state
 * @ret_slot: stores where it is
 *
 * Return: 0, -ENOSPC, -ENOMEM, or -ESTALE: we have been replaced.
 */
int registry_add(struct registry *registry, const struct shmb_registry_entry *entry,
		 uint32_t *ret_slot);

/* Changes the flags of an entry. */
void registry_set_flags(struct registry *registry, uint32_t slot, uint32_t flags);

/* Notes that a publisher is kept, and that it has gone after those with lower ids. */
void registry_keep(struct registry *registry, uint32_t slot, uint32_t flags, uint64_t kept_id);

/*
 * Notes that something is gone; nothing to do once the registry was released. Returns false if we
 * have been replaced: a successor may have found it, and its segment is not ours to remove.
 */
bool registry_remove(struct registry *registry, uint32_t slot);

/* Is there something? Copies it out. */
bool registry_get(const struct registry *registry, uint32_t slot,
		  struct shmb_registry_entry *ret_entry);

/* Unmaps it; the object stays for a successor. */
void registry_release(struct registry *registry);

/* Unmaps and removes it. */
void registry_destroy(struct registry *registry);

#endif
