#!/bin/sh
# Unit tests under valgrind's memcheck: those that need no kernel feature that it does not know.
if ! command -v valgrind >/dev/null; then
	echo 'valgrind is not installed'
	exit 77
fi
tests='error name'
[ -n "$SHMB_TEST_QUICK" ] || tests="$tests schema client keyfile policy quota conf ring"
if [ ! -x "$top_builddir/tests/unit/test-schema" ]; then
	echo 'there are no unit tests without Check'
	exit 77
fi
SHMB_TEST_QUICK=1 SHMBROKER_IO=epoll CK_FORK=no
export SHMB_TEST_QUICK SHMBROKER_IO CK_FORK
for test in $tests; do
	valgrind -q --fair-sched=yes --error-exitcode=9 --leak-check=full \
		--errors-for-leak-kinds=definite "$top_builddir/tests/unit/test-$test" || {
		echo "test-$test fails under valgrind"
		exit 1
	}
done
