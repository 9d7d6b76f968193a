/* SPDX-License-Identifier: Apache-2.0 */

/* Options of older and newer programs; see options.h. */

#include "lib/options.h"

#include <errno.h>
#include <string.h>

#include "lib/error.h"

#define LEN_MAX 4096u /* a length that was never set is found out, most of the time */

int shmb_options_take(void *ours, uint32_t ours_len, const void *theirs, const char *what)
{
	const uint8_t *bytes = theirs;
	uint32_t len;

	memset(ours, 0, ours_len);
	if (!theirs)
		return 0;
	memcpy(&len, theirs, sizeof(len));
	if (len < sizeof(len) || len > LEN_MAX)
		return shmb_fail(-EINVAL, "%s options of %u bytes: options_len is not set", what,
				 len);
	for (uint32_t i = ours_len; i < len; i++)
		if (bytes[i])
			return shmb_fail(-EINVAL,
					 "%s options ask for something that this library "
					 "(%u of %u bytes) does not know",
					 what, ours_len, len);
	memcpy(ours, theirs, len < ours_len ? len : ours_len);
	return 0;
}
