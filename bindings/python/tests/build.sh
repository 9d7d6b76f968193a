#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds the package against the library in $top_builddir into a directory for PYTHONPATH:
#	top_builddir=. bindings/python/tests/build.sh DIRECTORY
# PYTHON chooses the interpreter. Exits with 77 where Python or its headers are missing.

PYTHON=${PYTHON:-python3}
dir=${1:?usage: build.sh DIRECTORY}
builddir=$(cd "${top_builddir:?says where the library was built}" && pwd) || exit 99
mkdir -p "$dir" && dir=$(cd "$dir" && pwd) || exit 99

command -v "$PYTHON" >/dev/null || { echo "skipped: there is no $PYTHON"; exit 77; }
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
	{ echo "skipped: $PYTHON is older than 3.9"; exit 77; }
"$PYTHON" -c 'import setuptools' 2>/dev/null ||
	{ echo "skipped: $PYTHON has no setuptools (python3-setuptools)"; exit 77; }
"$PYTHON" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
	{ echo "skipped: $PYTHON has no headers (python3-dev)"; exit 77; }

cd "$(dirname "$0")/.." || exit 99
base=$(mktemp -d "${TMPDIR:-/tmp}/shmb-python.XXXXXX") || exit 99
trap 'rm -rf "$base"' EXIT
SHMBROKER_BUILDDIR="$builddir" "$PYTHON" setup.py -q build --build-base "$base/base" \
	--build-lib "$dir" >"$base/log" 2>&1 || { cat "$base/log"; exit 1; }
