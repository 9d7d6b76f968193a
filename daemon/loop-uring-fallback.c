/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Stands in for the io_uring back end in a build without liburing: it can never be opened, so the
 * loop runs on epoll.
 */

#include <errno.h>

#include "daemon/loop-internal.h"

static int uring_open(struct loop *loop)
{
	(void)loop;
	return -ENOSYS;
}

const struct loop_engine loop_engine_uring = {
	.name = "io_uring",
	.open = uring_open,
};
