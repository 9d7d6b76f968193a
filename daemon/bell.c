/* SPDX-License-Identifier: Apache-2.0 */

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/bell.h"

#include "daemon/bell.h"

#define WAKE_MAX 64

void bell_ring(struct client *client)
{
	struct shmb_bell_segment *bell = client->object.segment.map;

	/*
	 * Who is about to sleep finds in the kernel that the word has moved, and does not. If a
	 * predecessor that was stopped rings it, too, it has not that number.
	 * pairs with the client's acquire load of it before its last look at its socket
	 */
	__atomic_store_n(&bell->wake, ++client->wake, __ATOMIC_RELEASE);
	syscall(SYS_futex, &bell->wake, FUTEX_WAKE, WAKE_MAX, NULL, NULL, 0);
}

void bell_set_epoch(struct client *client)
{
	struct shmb_bell_segment *bell = client->object.segment.map;

	/*
	 * Killed before: the client keeps to a predecessor's connection, which ends with that. What a
	 * predecessor that was stopped stores later is lower, and counts for nothing.
	 * pairs with the client's acquire load before it heeds what it has received
	 */
	__atomic_store_n(&bell->broker_epoch, client->broker->registry.epoch, __ATOMIC_RELEASE);
}

void bell_set_backlog(struct client *client, bool backlog)
{
	struct shmb_bell_segment *bell = client->object.segment.map;

	/* pairs with the client's acquire load after it has emptied its socket */
	__atomic_store_n(&bell->backlog,
			 backlog ? shmb_bell_backlog(client->broker->registry.epoch) : 0,
			 __ATOMIC_RELEASE);
}
