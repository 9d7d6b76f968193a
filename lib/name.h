/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_NAME_H
#define SHMB_LIB_NAME_H

/* Names of channels: parts of [a-z0-9._-]+ separated by '/', 1 to 128 bytes; no "." or "..". */

#include <stdint.h>

/**
 * shmb_name_check() - may a channel be called that?
 * @name:     @name_len bytes
 * @name_len: bytes
 *
 * Return: 0; -EINVAL with a sentence that names the offending byte or part.
 */
int32_t shmb_name_check(const char *name, uint32_t name_len);

#endif
