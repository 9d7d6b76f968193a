/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_FORK_H
#define SHMB_LIB_FORK_H

/*
 * Are we the process that made the handle, or its forked child? One page that the kernel wipes at
 * fork answers with a load; getpid() would be a system call.
 */

#include <stdint.h>

/**
 * shmb_fork_guard() - a byte that is 1 here and 0 in every forked child
 *
 * Context: any thread.
 * Return: its address, valid as long as the process; NULL if there is no memory.
 */
const uint8_t *shmb_fork_guard(void);

#endif
