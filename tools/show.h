/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_SHOW_H
#define SHMB_TOOLS_SHOW_H

#include "tools/decode.h"
#include "tools/inspect.h"

/* "awake", "asleep on futexes", ... */
const char *show_sleep_mode(uint32_t mode);

/* Read and check a channel's schema, with a complaint if that fails. Returns 0 or 1. */
int show_schema(const struct inspect *inspect, const struct inspect_item *channel,
		struct decode *decode);

/* Print a channel as JSON; @decode is NULL if it has no (readable) schema. Returns 0 or 1. */
int show_as_json(const struct inspect *inspect, const struct inspect_item *channel,
		 struct decode *decode);

#endif
