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

/**
 * shmb_fail_lazily() - shmb_fail() for results that callers in a loop expect
 * @result: negative errno value
 * @before: begins the sentence; lives as long as the process, as does @after
 * @value:  the number in it
 * @after:  ends the sentence; NULL: @before is all of it
 *
 * A few stores: the sentence is put together when somebody asks for it.
 *
 * Context: any thread; no allocation.
 * Return: @result.
 */
int32_t shmb_fail_lazily(int32_t result, const char *before, uint64_t value, const char *after);

#endif
