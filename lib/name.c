/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdbool.h>

#include <shmbroker/layout.h>

#include "lib/error.h"
#include "lib/name.h"

static bool name_byte_ok(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

/* "." and ".." would be read as paths by whoever turns a name into a file name. */
static int32_t part_check(const char *name, uint32_t begin, uint32_t end)
{
	uint32_t len = end - begin;

	if (len == 0)
		return shmb_fail(-EINVAL, "the name has an empty part at byte %u", begin);
	if (name[begin] == '.' && (len == 1 || (len == 2 && name[begin + 1] == '.')))
		return shmb_fail(-EINVAL, "the name has the part \"%.*s\" at byte %u", (int)len,
				 name + begin, begin);
	return 0;
}

int32_t shmb_name_check(const char *name, uint32_t name_len)
{
	uint32_t begin = 0;
	int32_t r;

	if (!name || name_len == 0)
		return shmb_fail(-EINVAL, "the name is empty");
	if (name_len > SHMB_NAME_LEN_MAX)
		return shmb_fail(-EINVAL, "the name has %u bytes, at most %u are allowed", name_len,
				 SHMB_NAME_LEN_MAX);
	for (uint32_t i = 0; i < name_len; i++) {
		unsigned char c = (unsigned char)name[i];

		if (c == '/') {
			r = part_check(name, begin, i);
			if (r < 0)
				return r;
			begin = i + 1;
		} else if (!name_byte_ok(c)) {
			return shmb_fail(-EINVAL,
					 "the name has the byte 0x%02x at %u; parts are made of "
					 "[a-z0-9._-]",
					 c, i);
		}
	}
	return part_check(name, begin, name_len);
}
