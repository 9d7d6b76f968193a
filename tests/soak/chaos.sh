#!/bin/sh
# Some seconds of chaos with a new seed, which is printed; and what the judge must find.
cd "$top_builddir" || exit 1
seconds=8
[ -z "$SHMB_TEST_QUICK" ] || seconds=2
export top_builddir
first=$(tests/soak/soak --seed 1 --seconds 5 --plan | cksum)
[ "$first" = "$(tests/soak/soak --seed 1 --seconds 5 --plan | cksum)" ] || {
	echo 'the same seed makes another plan'
	exit 1
}
tests/soak/soak --seconds $seconds || exit
[ -z "$SHMB_TEST_QUICK" ] || exit 0
# One of several users, for root: what they share becomes sealed while they come and go.
tests/soak/soak --seed $(($(date +%s) / 3 * 3 + 2)) --seconds 2 || exit
# finds MUTANT SEED SECONDS
finds() {
	text=$(tests/soak/$1 --seed $2 --seconds $3 --strict 2>&1)
	[ $? = 1 ] && echo "$text" | grep -q 'promises were broken' || return
	echo "found: $1: $(echo "$text" | grep -v '^soak\|^without' | head -n 1)"
}
for mutant in mutant-ack mutant-zero mutant-job mutant-call mutant-keeper; do
	# A worker has to die with jobs that are done behind one that is not.
	[ $mutant = mutant-job ] && seconds=12 || seconds=4
	[ $mutant = mutant-call ] && seconds=1
	finds $mutant 1 $seconds && continue
	# While a broker had no keeper yet that was killed, nothing was promised.
	[ $mutant = mutant-keeper ] && finds $mutant 2 $seconds && continue
	[ $mutant = mutant-keeper ] && finds $mutant 3 $seconds && continue
	echo "NOT FOUND: $mutant: $text"
	exit 1
done
