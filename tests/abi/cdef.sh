#!/bin/sh
# shmbroker.cdef: no directives, declares all that the library exports, compiles as C, and cffi's
# parser sees the same sizes in it as the compiler.
set -e
cdef=$top_builddir/include/shmbroker.cdef
if grep -n -e '^#' -e __attribute__ -e __builtin "$cdef"; then
	echo "a parser of declarations would stumble here"
	exit 1
fi
sed -n 's/^\t\(shmb_[a-z0-9_]*\);/\1/p' "$top_srcdir/lib/libshmbroker.map" |
	while read -r name; do
		grep -q "\\b$name(" "$cdef" || { echo "not declared: $name"; exit 1; }
	done
{ echo '#include <stdint.h>'; cat "$cdef"; } |
	$CC -std=c11 -Wall -Wextra -pedantic -Werror -fsyntax-only -x c -
python3 -c 'import cffi' 2>/dev/null || { echo "python3 has no cffi: not parsed"; exit 0; }
python3 "$top_srcdir/tests/abi/parse-cdef.py" "$cdef" "$top_srcdir/include/abi.json"
