/* SPDX-License-Identifier: Apache-2.0 */

/* Stands in for poller-uring.c where the library is built without liburing. */

#include <errno.h>
#include <stddef.h>

#include "lib/poller.h"

static int uring_open(struct shmb_poller *poller)
{
	(void)poller;
	return -ENOSYS;
}

const struct shmb_poller_ops shmb_poller_uring = {
	.name = "io_uring",
	.open = uring_open,
};
