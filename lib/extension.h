/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_EXTENSION_H
#define SHMB_LIB_EXTENSION_H

/* What comes before the payload of each record, on channels whose options need it. */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/layout.h>

/* Its bytes, on a channel with such options. */
static inline uint32_t shmb_ext_len(uint32_t ttl_ms, bool ordered, uint32_t max_fds)
{
	return ttl_ms || ordered || max_fds ? (uint32_t)sizeof(struct shmb_record_ext) : 0;
}

/* What the header of each record has set where it has so many bytes. */
static inline uint32_t shmb_ext_record_flags(uint32_t ext_len)
{
	return ext_len ? (uint32_t)SHMB_RECORD_EXT : 0;
}

#endif
