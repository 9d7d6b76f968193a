/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The functions of ring.h and cell.h as symbols, for languages that cannot inline C. The headers are compiled a
 * second time with external linkage, so there is one source for both.
 */

#include "lib/api.h"

#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#define SHMB_INLINE SHMB_API
#include <shmbroker/cell.h>
#include <shmbroker/ring.h>
