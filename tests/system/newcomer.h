/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_NEWCOMER_H
#define SHMB_TESTS_NEWCOMER_H

/* A client that opens one of each and talks to itself, where every call may fail. */

#include <stdint.h>

/**
 * newcomer_comes_and_goes() - open, talk, close
 * @address:     of the broker
 * @backing:     SHMB_BACKING_* of what it creates
 * @patience_ns: with whoever may never answer
 *
 * Return: 0, or the first failure, after which there is a sentence, and all is closed again.
 */
int newcomer_comes_and_goes(const char *address, uint32_t backing, int64_t patience_ns);

#endif
