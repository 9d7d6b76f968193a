#!/bin/sh
# The page shmbroker-layout(5) is enough to write a reader: stranger.py was written from it.
command -v python3 >/dev/null || { echo "no python3"; exit 77; }
python3 -c 'import sys; sys.exit(sys.version_info < (3, 7))' || { echo "python3 is too old"; exit 77; }
exec python3 "$top_srcdir/tests/abi/stranger.py" "$top_builddir/tests/abi/stranger-helper"
