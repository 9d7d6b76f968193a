#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The same test on sealed channels, whose segments have no names.
SHMB_TEST_BACKING=sealed exec tests/system/test-undertaking
