/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_PUBLISHER_FILES_H
#define SHMB_TESTS_PUBLISHER_FILES_H

/*
 * All of the library's publisher in the test's own translation unit: its static functions are in reach, and
 * what the test has defined before counts in them.
 */

#include "lib/pub-bell.c"
#include "lib/pub-block.c"
#include "lib/pub-fds.c"
#include "lib/pub-pair.c"
#include "lib/pub-queue.c"
#include "lib/pub-send.c"
#include "lib/pub-space.c"
#include "lib/pub-wait.c"
#include "lib/publisher.c"

#endif
