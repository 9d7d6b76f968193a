/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_CONTROL_GROUP_H
#define SHMB_LIB_CONTROL_GROUP_H

/* Memory control groups, of version 1 and 2. */

#include <stdint.h>

/**
 * shmb_control_group_room() - how much memory this process may still be charged for
 *
 * Counts what the kernel can take back from the page cache as free.
 *
 * Return: bytes; UINT64_MAX: no limit that we know of.
 */
uint64_t shmb_control_group_room(void);

#endif
