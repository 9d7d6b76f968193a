#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The same test with all records in blocks, on both backings: it mostly waits, so at the same time.
SHMB_TEST_BLOCKS=1
export SHMB_TEST_BLOCKS
SHMB_TEST_BACKING=sealed tests/unit/test-restart >tests/unit/blocks-restart.sealed 2>&1 &
tests/unit/test-restart
status=$?
wait $! || status=$?
cat tests/unit/blocks-restart.sealed
rm tests/unit/blocks-restart.sealed
exit $status
