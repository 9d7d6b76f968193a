/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_FENCE_H
#define SHMB_DAEMON_FENCE_H

/*
 * What a dead publisher has left is read to its end by those who have mapped it. That these bytes
 * are final the kernel can say of a sealed lane: F_SEAL_WRITE is set only if nobody has it mapped
 * for writing. Somebody has if the process had a child that shares its memory, or a helper that was
 * given the fd. Readers take no more than one ring from a lane whose publisher has gone, whoever
 * still writes it; the fence is tried again until it holds, and the log tells.
 */

#include "daemon/model.h"

/*
 * The publisher's process has ended. Holds on to this segment of its, its lane or an arena, if it has to
 * be fenced later.
 */
void fence_segment(const struct member *publisher, struct segment *segment);

/* Gives up on all that could not be fenced yet. */
void fence_forget(struct broker *broker);

#endif
