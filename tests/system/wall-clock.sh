#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Somebody sets the wall clock, by ten years forth and back: nothing but displayed times may change.
# First by what the programs call, then with a clock that jumps each time that it is read.
cd "$top_builddir" || exit 1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

# Functions whose timeouts are on the wall clock, or that read nothing else.
wall='time|gettimeofday|ftime|pthread_(timedjoin_np|mutex_timedlock|rwlock_timed..lock)'
wall="$wall|sem_timedwait|mq_timed(send|receive)|mtx_timedlock|cnd_timedwait|timespec_get"
for program in lib/.libs/libshmbroker.so shmbrokerd; do
	called=$(nm -D -u "$program" | sed 's/.* //; s/@.*//' | grep -Ex "$wall")
	[ -z "$called" ] || {
		echo "$program calls" $called
		exit 1
	}
done
# A condition waits by the clock that it was made with.
for source in $(grep -rlE 'pthread_cond_timedwait' "$top_srcdir/lib" "$top_srcdir/daemon"); do
	grep -q 'pthread_condattr_setclock(.*CLOCK_MONOTONIC)' "$source" || {
		echo "$source waits by the wall clock"
		exit 1
	}
done
# When something was created is for people to read.
read=$(grep -rnE 'CLOCK_(REALTIME|TAI)|TIMER_ABSTIME' "$top_srcdir/lib" "$top_srcdir/daemon" |
	grep -v 'created_ns = ')
[ -z "$read" ] || {
	echo "$read"
	exit 1
}

${CC:-cc} -shared -fPIC -O1 -o "$dir/wall-clock.so" "$top_srcdir/tests/system/wall-clock.c" || exit 1
seconds=2 tests="stream client"
[ "${SHMB_TEST_QUICK:-0}" != 1 ] || seconds=1 tests=client
export SHMB_TEST_QUICK=1 ASAN_OPTIONS="verify_asan_link_order=0:$ASAN_OPTIONS"
# steps COMMAND...
steps() {
	LD_PRELOAD=$dir/wall-clock.so "$@" >"$dir/log" 2>&1 || {
		cat "$dir/log"
		echo "with a clock that jumps: $*"
		exit 1
	}
}
seen=$(LD_PRELOAD=$dir/wall-clock.so date +%Y)
[ "$seen" != "$(date +%Y)" ] || {
	echo 'the clock does not jump'
	exit 1
}
for test in $tests; do
	[ ! -x tests/unit/test-$test ] || steps tests/unit/test-$test
done
steps tests/soak/soak --seconds $seconds
