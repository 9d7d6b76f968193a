#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The same test with all records in blocks.
SHMB_TEST_BLOCKS=1 exec tests/kill/kill-attach
