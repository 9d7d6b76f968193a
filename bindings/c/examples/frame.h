/* SPDX-License-Identifier: Apache-2.0 */
#ifndef EXAMPLES_FRAME_H
#define EXAMPLES_FRAME_H

/* What publish-frames and hold-frames exchange: grey pictures, behind a head of 16 bytes. */

#include <stdint.h>

#define FRAME_CHANNEL "example/frames"
#define FRAME_WIDTH   1920u
#define FRAME_HEIGHT  1080u
#define FRAME_LEN     (16u + FRAME_WIDTH * FRAME_HEIGHT)

struct frame {
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	uint32_t count;
	uint32_t zero;
	uint8_t pixels[FRAME_HEIGHT][FRAME_WIDTH];
};

#endif
