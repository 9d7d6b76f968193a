#!/bin/sh
# ThreadSanitizer on both sides of a lane and of a cell: no race as it is, a race with each order weakened.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# With the addresses of every run alike: ThreadSanitizer cannot place its shadow everywhere.
run() {
	if setarch -R true 2>/dev/null; then
		setarch -R "$@"
	else
		"$@"
	fi
}

# build PROGRAM NAME DEFINITION...: copies are calls, for only those are seen, not string instructions
build() {
	program=$1 name=$2
	shift 2
	$CC -std=gnu11 -O1 -g -Wall -Wextra -Werror -Wno-tsan -fsanitize=thread -fno-builtin -pthread \
		-I"$top_srcdir" -I"$top_srcdir/include" -I"$top_builddir/include" "$@" \
		"$top_srcdir/tests/tsan/$program-threads.c" -o "$dir/$name"
}

TSAN_OPTIONS='exitcode=66'
export TSAN_OPTIONS
echo 'int main(void) { return 0; }' >"$dir/try.c"
if ! $CC -fsanitize=thread "$dir/try.c" -o "$dir/try" 2>/dev/null || ! run "$dir/try"; then
	echo 'this compiler and kernel cannot run ThreadSanitizer'
	exit 77
fi

for program in lane cell; do
	build $program right || exit 1
	run "$dir/right" >"$dir/right.out" 2>&1 || {
		echo "a race in the code of the $program as it is:"
		cat "$dir/right.out"
		exit 1
	}
	echo "no race in the code of the $program as it is"
done

# weakened PROGRAM NAME DEFINITION
weakened() {
	build "$1" "$2" "$3" || exit 1
	run "$dir/$2" >"$dir/$2.out" 2>&1
	if grep -q 'data race' "$dir/$2.out"; then
		echo "race found: $1, $2"
	else
		echo "NO RACE FOUND: $1, $2"
		exit 1
	fi
}

# The short run has one of each program.
weakened lane header-store '-DWEAK_STORE="writer->ring"'
weakened cell version-store '-DWEAK_STORE="head->version"'
[ "${SHMB_TEST_QUICK:-0}" != 1 ] || exit 0
weakened lane header-load '-DWEAK_LOAD="reader->ring"'
weakened lane cursor-store '-DWEAK_STORE="slot->position"'
weakened lane cursor-load '-DWEAK_LOAD="slot->position"'
weakened lane start-store '-DWEAK_STORE="bell->attached"'
weakened lane start-load '-DWEAK_LOAD="bell->attached"'
weakened cell version-load '-DWEAK_LOAD="->version"'
