/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_SUBSCRIBER_FILES_H
#define SHMB_TESTS_SUBSCRIBER_FILES_H

/*
 * All of the library's subscriber in the test's own translation unit: its static functions are in reach, and
 * what the test has defined before counts in them.
 */

#include "lib/sub-block.c"
#include "lib/sub-cursor.c"
#include "lib/sub-fds.c"
#include "lib/sub-lane.c"
#include "lib/sub-look.c"
#include "lib/sub-order.c"
#include "lib/sub-peer.c"
#include "lib/sub-recv.c"
#include "lib/sub-state.c"
#include "lib/sub-successor.c"
#include "lib/sub-wait.c"
#include "lib/sub-worker.c"
#include "lib/subscriber.c"

#endif
