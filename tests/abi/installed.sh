#!/bin/sh
# What "make install" leaves is enough to build and run a program, with pkg-config alone.
command -v pkg-config >/dev/null || { echo "no pkg-config"; exit 77; }
set -e
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
unset MAKEFLAGS MFLAGS MAKELEVEL
${MAKE-make} -s -C "$top_builddir" install DESTDIR="$dir" >"$dir/log" 2>&1 ||
	{ cat "$dir/log"; exit 1; }
pc=$(find "$dir" -name libshmbroker.pc)
PKG_CONFIG_PATH=$(dirname "$pc") PKG_CONFIG_SYSROOT_DIR=$dir
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
lib=$(dirname "$(find "$dir" -name libshmbroker.so | head -n1)")
# A library with a sanitizer wants programs with it.
sanitizer=
for name in address thread undefined; do
	if nm -D "$lib/libshmbroker.so" | grep -q "__$(echo $name | cut -c1)\(san\|bsan\)_"; then
		sanitizer="$sanitizer -fsanitize=$name"
	fi
done
$CC $sanitizer -std=c11 -Wall -Wextra -Werror -o "$dir/program" "$top_srcdir/tests/abi/installed.c" \
	$(pkg-config --cflags --libs libshmbroker)
LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$dir/program"
for file in shmbroker.cdef abi.json; do
	[ -n "$(find "$dir" -path "*/shmbroker/$file")" ] || { echo "not installed: $file"; exit 1; }
done
