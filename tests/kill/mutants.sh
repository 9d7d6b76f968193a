#!/bin/sh
# Each mutant-* is a kill test with one mistake built in. It must fail, by its own judgement: a
# crash of the test, or a skip, is no answer.
status=0 n=0
for mutant in "$top_builddir"/tests/kill/mutant-*; do
	case ${mutant##*/} in *.*) continue ;; esac
	text=$("$mutant" 2>&1)
	case $? in
	1) n=$((n + 1)); echo "found: ${mutant##*/}: ${text%%
*}" ;;
	77) exit 77 ;;
	*) status=1; echo "NOT FOUND: ${mutant##*/}: $text" ;;
	esac
done
echo "$n mistakes found"
[ "$n" -ge 10 ] || status=1
exit $status
