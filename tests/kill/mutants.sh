#!/bin/sh
# Each mutant-* is a kill test with one mistake built in. It must fail, by its own judgement: a
# crash of the test, or a skip, is no answer.

# Which test it is, of the same sources but for the mistake.
test_of() {
	sed -n "s|^%C%_$(echo "$1" | tr - _)_SOURCES = %D%/\([a-z-]*\)\.c\( .*\)*$|\1|p" \
		"$top_srcdir/tests/kill/local.mk"
}

judge() {
	# The others end as soon as they find it, and a sample may pass it by.
	case $1 in
	mutant-broker-owed) sample="--quick kept" ;;
	mutant-broker-left) sample="--some left" ;;
	mutant-broker-store) sample="--quick taken" ;;
	mutant-broker-*) sample=--quick ;;
	*) sample= ;;
	esac
	text=$(SHMB_TEST_QUICK=0 "$top_builddir/tests/kill/$1" $sample 2>&1)
	case $? in
	1) echo "found: $1: by $(test_of "$1"): $(echo "$text" | grep -v "^fd\|^$\|^," | tail -n 2 | head -n 1)" ;;
	77) echo "skipped: $1: $(echo "$text" | tail -n 1)" ;;
	*) echo "NOT FOUND: $1: by $(test_of "$1"): $text" ;;
	esac
}

if [ "$1" = --judge ]; then
	judge "$2"
	exit 0
fi
least=35
for mutant in "$top_builddir"/tests/kill/mutant-*; do
	name=${mutant##*/}
	case $name in *.*) continue ;; esac
	# Those of the broker take long: each needs a broker of its own for every instruction.
	case $SHMB_TEST_QUICK:$name in 1:mutant-broker-*) continue ;; esac
	echo "$name"
done >"$top_builddir/tests/kill/mutants.list"
[ "$SHMB_TEST_QUICK" = 1 ] && least=5 # make builds a sample
found=$top_builddir/tests/kill/mutants.found
xargs -n 1 -P 3 sh "$0" --judge <"$top_builddir/tests/kill/mutants.list" >"$found"
cat "$found"
n=$(grep -c '^found: ' "$found")
echo "$n mistakes found"
echo "counted: $n mistakes found by killing"
grep '^skipped: ' "$found" && exit 77
[ "$n" -ge "$least" ] && [ "$n" -eq "$(grep -c . "$top_builddir/tests/kill/mutants.list")" ]
