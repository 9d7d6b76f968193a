#!/bin/sh
# ThreadSanitizer on both sides of a lane: no race as it is, a race with each order weakened.
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

# build NAME DEFINITION...: copies are calls, for only those are seen, not string instructions
build() {
	name=$1
	shift
	$CC -std=gnu11 -O1 -g -Wall -Wextra -Werror -Wno-tsan -fsanitize=thread -fno-builtin -pthread \
		-I"$top_srcdir" -I"$top_srcdir/include" -I"$top_builddir/include" "$@" \
		"$top_srcdir/tests/tsan/lane-threads.c" -o "$dir/$name"
}

TSAN_OPTIONS='exitcode=66'
export TSAN_OPTIONS
echo 'int main(void) { return 0; }' >"$dir/try.c"
if ! $CC -fsanitize=thread "$dir/try.c" -o "$dir/try" 2>/dev/null || ! run "$dir/try"; then
	echo 'this compiler and kernel cannot run ThreadSanitizer'
	exit 77
fi

build right || exit 1
run "$dir/right" >"$dir/right.out" 2>&1 || {
	echo 'a race in the code as it is:'
	cat "$dir/right.out"
	exit 1
}
echo 'no race in the code as it is'

# weakened NAME DEFINITION
weakened() {
	build "$1" "$2" || exit 1
	run "$dir/$1" >"$dir/$1.out" 2>&1
	if grep -q 'data race' "$dir/$1.out"; then
		echo "race found: $1"
	else
		echo "NO RACE FOUND: $1"
		exit 1
	fi
}

weakened header-store '-DWEAK_STORE="writer->ring"'
weakened header-load '-DWEAK_LOAD="reader->ring"'
weakened cursor-store '-DWEAK_STORE="slot->position"'
weakened cursor-load '-DWEAK_LOAD="slot->position"'
weakened start-store '-DWEAK_STORE="bell->attached"'
weakened start-load '-DWEAK_LOAD="bell->attached"'
