/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_IDLE_H
#define SHMB_DAEMON_IDLE_H

/* A broker that was started on demand ends when nobody needs it. */

#include "daemon/model.h"

/* Somebody came or went, or the broker has just started: starts or stops the clock. */
void idle_check(struct broker *broker);

#endif
