/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_CONTROL_H
#define SHMB_DAEMON_CONTROL_H

/* What clients ask for: decode, call, answer. */

#include "daemon/connection.h"

extern const struct connection_events control_events;

#endif
