#!/bin/sh
# Each mutant-* is a kill test with one mistake built in. It must fail, by its own judgement: a
# crash of the test, or a skip, is no answer.
status=0 n=0

# Which test it is, of the same sources but for the mistake.
test_of() {
	sed -n "s|^%C%_$(echo "$1" | tr - _)_SOURCES = %D%/\([a-z-]*\)\.c .*|\1|p" \
		"$top_srcdir/tests/kill/local.mk"
}

for mutant in "$top_builddir"/tests/kill/mutant-*; do
	case ${mutant##*/} in
	*.*) continue ;;
	mutant-broker-*) sample=--quick ;;
	*) sample= ;;
	esac
	text=$("$mutant" $sample 2>&1)
	case $? in
	1) n=$((n + 1)); echo "found: ${mutant##*/}: by $(test_of "${mutant##*/}"): $(echo "$text" | grep -v "^fd\|^$\|^," | tail -n 2 | head -n 1)" ;;
	77) exit 77 ;;
	*) status=1; echo "NOT FOUND: ${mutant##*/}: by $(test_of "${mutant##*/}"): $text" ;;
	esac
done
echo "$n mistakes found"
echo "counted: $n mistakes found by killing"
[ "$n" -ge 26 ] || status=1
exit $status
