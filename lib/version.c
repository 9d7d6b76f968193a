/* SPDX-License-Identifier: Apache-2.0 */

/* What this library is. */

#include <shmbroker/shmbroker.h>

#include "lib/api.h"

SHMB_API const char *shmb_version(void)
{
	return SHMB_VERSION_STRING;
}

SHMB_API int32_t shmb_abi_version(void)
{
	return SHMB_ABI_VERSION;
}
