#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The same test on sealed channels.
SHMB_TEST_BACKING=sealed exec tests/unit/test-call-block
