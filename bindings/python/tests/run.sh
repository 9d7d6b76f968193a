#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds the package against the library in $top_builddir and runs its tests:
#	top_builddir=. bindings/python/tests/run.sh [unittest arguments]
# PYTHON chooses the interpreter. Exits with 77 where Python or its headers are missing.

tests=$(cd "$(dirname "$0")" && pwd)
builddir=$(cd "${top_builddir:?says where the library was built}" && pwd) || exit 99
# A sanitizer wants to be there before the interpreter is.
if grep -qE '__(asan|tsan)_init' "$builddir/lib/.libs/libshmbroker.so" 2>/dev/null; then
	echo "the library was built with a sanitizer, Python was not"
	exit 77
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/shmb-python.XXXXXX") || exit 99
trap 'rm -rf "$dir"' EXIT

top_builddir=$builddir "$tests/build.sh" "$dir" || exit

cd "$tests" || exit 99
export PYTHONPATH="$dir" PYTHONDONTWRITEBYTECODE=1
export SHMBROKER_CFLAGS="-I$tests/../../../include -I$builddir/include"
[ $# -gt 0 ] || set -- discover -v # with the reason of a skip
"${PYTHON:-python3}" -X faulthandler -m unittest "$@"
