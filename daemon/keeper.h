/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_KEEPER_H
#define SHMB_DAEMON_KEEPER_H

/*
 * A process that keeps fds of sealed segments while there is no broker, where no service manager does.
 *
 * It is the broker's own program, started with the first sealed segment, and it does what a service
 * manager does: it is told FDSTORE=1 and FDSTOREREMOVE=1, here over a socket that only the two have,
 * and the fds are found with it by whoever comes next. There is no name, no request and no answer: the
 * registry says which process it is, a successor opens what is in /proc/PID/fd of it, and the kernel
 * lets only the same user do that. The memfds bear their names themselves.
 *
 * Each broker has a keeper of its own. A successor first makes that of its predecessor deaf, so that
 * nothing is on the way, and nothing that a predecessor says that was only stopped counts any more.
 * It ends it when all that it has adopted is with its own keeper, and that is in the registry.
 *
 * Killed keeper: its broker starts another one and gives it everything. Killed with its broker: members
 * move to new segments. A keeper without a broker ends when nobody writes any of what it has, and no
 * broker has come for a while, or when the registry is gone.
 */

#include <stdint.h>
#include <sys/types.h>

#include "daemon/loop.h"
#include "daemon/registry.h"

struct broker;

/* What it is started with, before the name of the registry. */
#define KEEPER_OPTION "--keep"

/* How long a keeper waits for a broker although everybody has gone. */
#define KEEPER_LINGER_MS 120000

/**
 * struct keeper - the keeper of a broker
 * @pid:    of it
 * @pidfd:  of it; -1: there is none
 * @fd:	    what it is told goes there
 * @entry:  in the registry
 * @death:  watches @pidfd
 * @unused: looks whether there is still something to keep
 * @mute:   nothing is said yet: all there is will be said later
 */
struct keeper {
	pid_t pid;
	int pidfd;
	int fd;
	uint32_t entry;
	struct loop_watch *death;
	struct loop_timer *unused;
	bool mute;
};

/* Without a service manager, the store of the broker is a keeper from now on, if it may have one. */
void keeper_init(struct broker *broker);

/**
 * keeper_take() - what keepers of predecessors have goes to the store, as what a service manager has kept
 * @broker: its registry is loaded, and its epoch counted
 *
 * Return: 0, also if there are none; -EMFILE, -ENOMEM, another negative errno value: they still have
 *	   it, and can be asked again.
 */
int keeper_take(struct broker *broker);

/* Everything was adopted: it is kept anew, and keepers of predecessors end. */
void keeper_settle(struct broker *broker);

/**
 * keeper_deinit() - let go of the keeper
 * @broker: that ends
 * @keep:   it stays, for a successor; else it has ended when this returns
 */
void keeper_deinit(struct broker *broker, bool keep);

/**
 * keeper_main() - be a keeper
 * @registry:  name of the broker's registry
 * @linger_ms: how long to wait for a broker although nobody is left
 *
 * Its standard input is the socket.
 *
 * Return: exit status.
 */
int keeper_main(const char *registry, int linger_ms);

#endif
