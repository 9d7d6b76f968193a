/* SPDX-License-Identifier: Apache-2.0 */

#include "lib/call.h"

#include <errno.h>
#include <string.h>

#include <shmbroker/schema.h>

#include "lib/error.h"

int shmb_call_lens(const void *schema, uint32_t *ret_request_len, uint32_t *ret_reply_len)
{
	struct shmb_schema_field field;
	struct shmb_schema head;

	*ret_request_len = *ret_reply_len = 0;
	memcpy(&head, schema, sizeof(head));
	for (uint32_t i = 0; i < head.n_fields; i++) {
		bool is_request, is_reply;

		memcpy(&field, (const uint8_t *)schema + SHMB_SCHEMA_LEN(i), sizeof(field));
		if (field.parent != SHMB_FIELD_NO_PARENT)
			continue;
		is_request = !strcmp(field.name, "request");
		is_reply = !strcmp(field.name, "reply");
		if ((!is_request && !is_reply) || field.kind != SHMB_KIND_STRUCT ||
		    field.count != 1)
			return shmb_fail(-EINVAL,
					 "field '%s': the schema of a call channel has the structs "
					 "'request' and 'reply', or one of them, and nothing else",
					 field.name);
		*(is_request ? ret_request_len : ret_reply_len) = field.size;
	}
	return 0;
}

int shmb_call_lens_fit(uint32_t lane_len, const struct shmb_block_limits *blocks,
		       uint32_t request_len, uint32_t reply_len)
{
	uint32_t len_max = shmb_call_len_max(lane_len, blocks);

	if (request_len <= len_max && reply_len <= len_max)
		return 0;
	if (blocks->arena_len)
		return shmb_fail(-EINVAL,
				 "requests of %u and replies of %u bytes are not both within the "
				 "channel's record_len_max of %u",
				 request_len, reply_len, len_max);
	return shmb_fail(-EINVAL,
			 "requests of %u and replies of %u bytes do not both fit into a lane of %u "
			 "bytes, which can have %u: create it with a larger lane_len or a "
			 "record_len_max",
			 request_len, reply_len, lane_len, len_max);
}
