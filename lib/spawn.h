/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_SPAWN_H
#define SHMB_LIB_SPAWN_H

/* Starting the user's own broker when there is none. */

#include <stdint.h>

/**
 * shmb_spawn_broker() - start shmbrokerd --user and wait until it listens
 * @deadline_ns: when to give up waiting
 *
 * Runs $SHMBROKER_DAEMON, else the one beside this library's installation, else the one in $PATH.
 * The broker belongs to nobody: it survives the caller and goes when it is idle. If another process
 * starts one at the same time, one of both wins and both callers are happy.
 *
 * Context: any thread; blocks.
 * Return: 0: one is running; -ENOENT: no shmbrokerd found; -ETIMEDOUT; -ECONNREFUSED: it did not
 *	   start, with its own sentence.
 */
int shmb_spawn_broker(uint64_t deadline_ns);

#endif
