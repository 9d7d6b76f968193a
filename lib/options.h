/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_OPTIONS_H
#define SHMB_LIB_OPTIONS_H

/*
 * Option structs of the public API, which grow at their end from version to version. A program that
 * was built with an older or a newer header than this library is understood as long as it asks for
 * nothing that the library does not know.
 */

#include <stdint.h>

/**
 * shmb_options_take() - copy a caller's options into a struct of this library's size
 * @ours:     filled; zeroes where the caller has said nothing
 * @ours_len: its bytes
 * @theirs:   what the caller gave; its first field is its length; NULL: all defaults
 * @what:     for the sentence: "channel"
 *
 * Return: 0; -EINVAL: an impossible length, or fields this library does not know are set.
 */
int shmb_options_take(void *ours, uint32_t ours_len, const void *theirs, const char *what);

#endif
