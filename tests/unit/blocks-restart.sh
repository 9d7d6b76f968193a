#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The same test with all records in blocks, on both backings.
set -e
SHMB_TEST_BLOCKS=1 tests/unit/test-restart
SHMB_TEST_BLOCKS=1 SHMB_TEST_BACKING=sealed exec tests/unit/test-restart
