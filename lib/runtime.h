/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_RUNTIME_H
#define SHMB_LIB_RUNTIME_H

/*
 * Where brokers and clients meet in the file system.
 *
 *	system broker	/run/shmbroker/control.sock	(key and state beside it)
 *	user's broker	$XDG_RUNTIME_DIR/shmbroker/, else /tmp/shmbroker-<uid>/
 *
 * A broker's directory holds control.sock (the socket), broker.pub (its public key), broker.key
 * (its private key, where no other file is configured) and broker.lock (flock(2)ed by the running
 * broker; holds the instance id as 16 hex digits, which names the registry /shmb.<instance>.registry
 * and starts the name of every other segment, /shmb.<instance>.<32 hex digits>).
 */

#include <stddef.h>
#include <stdint.h>

#define SHMB_SYSTEM_DIR	  "/run/shmbroker"
#define SHMB_SOCKET_FILE  "control.sock"
#define SHMB_PUBLIC_FILE  "broker.pub"
#define SHMB_PRIVATE_FILE "broker.key"
#define SHMB_LOCK_FILE	  "broker.lock"

/* Directory of this user's broker (not created). Returns 0 or -ENAMETOOLONG. */
int shmb_runtime_user_dir(char *path, size_t cap);

/* dir + "/" + file. Returns 0 or -ENAMETOOLONG. */
int shmb_runtime_join(char *path, size_t cap, const char *dir, const char *file);

/**
 * shmb_runtime_check_dir() - may we trust what lies in this directory?
 * @path: directory
 *
 * Return: 0; -ENOENT; -EACCES: not a directory, or it or a parent can be changed by somebody other
 *	   than root, this user or the directory's owner (sticky directories like /tmp are allowed as
 *	   parents), with a sentence.
 */
int shmb_runtime_check_dir(const char *path);

/* Instance id of the broker of a directory, from its lock file. Returns 0, -ENOENT or -EINVAL. */
int shmb_runtime_instance(const char *dir, uint64_t *ret_instance);

#endif
