/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_PLACE_H
#define SHMB_TOOLS_PLACE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#define PLACE_SHM_DIR	 "/dev/shm"
#define PLACE_SYSTEM_DIR "/run/shmbroker"

/**
 * struct place - where a broker is, or was
 * @dir:	  its directory
 * @address:	  its control socket
 * @instance:	  of the directory, 0 if no broker has ever run there
 * @registry:	  path of the registry
 * @segments_dir: where the objects lie that the registry names
 */
struct place {
	char dir[PATH_MAX];
	char address[PATH_MAX];
	uint64_t instance;
	char registry[PATH_MAX];
	char segments_dir[PATH_MAX];
};

/**
 * place_find() - where is the broker?
 * @place: filled; @why: filled on failure with a sentence
 *
 * --address, else $SHMBROKER_ADDRESS, else the system broker if its socket is there, else this
 * user's broker: the order in which the library looks for it.
 *
 * Return: 0; -ENOENT: no broker has ever run there; -EINVAL: its lock file is none; -EACCES, ...
 */
int place_find(struct place *place, char *why, size_t cap);

/* Does somebody listen on the socket? 1, or a negative errno value why not. */
int place_is_listening(const char *address);

/**
 * place_read_file() - read a small file that somebody else may have made
 * @path: not followed if it is a link, not read if it is no regular file
 *
 * Return: bytes read, at most @cap, or a negative errno value (-ELOOP: a link, -EINVAL: not regular).
 */
int place_read_file(const char *path, void *data, size_t cap);

#endif
