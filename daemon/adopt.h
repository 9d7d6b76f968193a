/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_ADOPT_H
#define SHMB_DAEMON_ADOPT_H

/* Taking up what a killed broker has left. */

#include "daemon/model.h"

/**
 * adopt_all() - rebuild the model from the registry
 * @broker: its registry is loaded; nobody can connect yet
 *
 * What belongs to dead processes, and what makes no sense, is removed, also objects that the
 * registry does not name.
 *
 * Return: 0 or a negative errno value.
 */
int adopt_all(struct broker *broker);

/* Removes all objects of an instance that nobody knows any more. */
void adopt_sweep(struct broker *broker);

/* Lets everybody know that there is a broker again. */
void adopt_announce(struct broker *broker);

#endif
