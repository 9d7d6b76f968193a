/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_OPENER_H
#define SHMB_DAEMON_OPENER_H

/*
 * A thread that opens segments for writing, on behalf of clients. It has given up the right to
 * truncate files (Landlock), and an fd keeps the rights of the thread that opened it: whoever gets
 * such an fd cannot shrink the segment under its readers. Kernels before 6.2 cannot do this.
 */

#include <stdbool.h>

struct opener;

/**
 * opener_new() - start the thread
 * @ret_opener: stores the opener
 *
 * Return: 0, -ENOMEM, -EAGAIN.
 */
int opener_new(struct opener **ret_opener);

/* Ends the thread. Returns NULL. */
struct opener *opener_free(struct opener *opener);

/* Whether what it opens cannot be truncated. */
bool opener_protects(const struct opener *opener);

/**
 * opener_open() - open a file for reading and writing
 * @opener: opener
 * @path:   of a regular file, not a link
 *
 * Context: one thread at a time; waits for the other thread, which only opens.
 * Return: an fd or a negative errno value.
 */
int opener_open(struct opener *opener, const char *path);

#endif
