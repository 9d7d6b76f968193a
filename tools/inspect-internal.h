/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_INSPECT_INTERNAL_H
#define SHMB_TOOLS_INSPECT_INTERNAL_H

/* Between inspect.c and inspect-segment.c. @why has INSPECT_WHY_LEN bytes everywhere. */

#include <stdint.h>

#include <shmbroker/schema.h>
#include <shmbroker/version.h>

struct inspect;

/* snprintf() into @why. */
void inspect_say(char *why, const char *format, ...) __attribute__((__format__(__printf__, 2, 3)));

/* Open a regular file for reading. Returns the fd or a negative errno value. */
int inspect_open_file(const char *path, uint64_t *ret_len, char *why);

/* pread(2) all of it: 0, -EBADMSG at the end of the file, or a negative errno value. */
int inspect_pread(int fd, void *data, size_t len, uint64_t offset);

/* 0 or -EBADMSG. @instance 0: any. */
int inspect_check_header(const struct shmb_segment_header *header, const char *path, uint32_t kind,
			 uint64_t instance, char *why);

/* Fill in the numbers of all items. */
void inspect_read_segments(struct inspect *inspect);

#endif
