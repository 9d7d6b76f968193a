/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_ERROR_H
#define SHMB_LIB_ERROR_H

/* The sentence behind the last failure in this thread: shmb_last_error(). */

#include <stdint.h>

/**
 * shmb_fail() - note why something failed
 * @result: negative errno value
 * @format: a sentence with the name, the limit and the value; no full stop, no newline
 *
 * Context: any thread; no allocation.
 * Return: @result, so that callers can return shmb_fail(-EINVAL, ...).
 */
int32_t shmb_fail(int32_t result, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
