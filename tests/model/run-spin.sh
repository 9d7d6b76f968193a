#!/bin/sh
# Explores the Spin models under both kinds of store buffers, then each with a mistake built in,
# which must fail.
spin=$(command -v spin) || { echo "skipped: spin is not installed"; exit 77; }
${CC:-cc} --version >/dev/null 2>&1 || { echo "skipped: no C compiler"; exit 77; }
quick=${SHMB_TEST_QUICK:-0}
models=$(cd "$top_srcdir/tests/model" && pwd)
directory=$(mktemp -d) || exit 1
trap 'rm -rf "$directory"' EXIT
cd "$directory" || exit 1
status=0 states=0 mistakes=0 optimise=1

# verify MODEL DEFINES...: prints "errors states"; nothing if the search did not get to its end
verify() {
	model=$1
	shift
	"$spin" -a "$@" "$models/$model.pml" >spin.log 2>&1 &&
		${CC:-cc} -O$optimise -w -DSAFETY -DCOLLAPSE -DMEMLIM=1000 -o pan pan.c >cc.log 2>&1 &&
		timeout 60 ./pan -m200000 >pan.log || return
	grep -q 'max search depth too small\|memory limit' pan.log && return
	sed -n 's/.*errors: \([0-9]*\).*/\1/p; s/ *\([0-9.e+]*\) states, stored.*/\1/p' pan.log |
		tr '\n' ' '
}

correct() {
	result=$(verify "$@")
	case $result in
	"0 "*)
		n=${result#0 }
		n=${n% }
		states=$((states + n))
		echo "holds: $*: $n states"
		;;
	*)
		status=1
		echo "DOES NOT HOLD: $*: ${result:-no result}"
		cat spin.log cc.log pan.log 2>/dev/null | head -20
		;;
	esac
}

# In the short run only the first mistake of each model.
wrong() {
	model=$1
	shift
	first=$1
	for bug; do
		[ "$quick" = 1 ] && [ "$bug" != "$first" ] && continue
		result=$(verify "$model" -DPSO "-DBUG_$bug")
		case $result in
		"1 "*) mistakes=$((mistakes + 1)); echo "found: $model: $bug" ;;
		*) status=1; echo "NOT FOUND: $model: $bug: ${result:-no result}" ;;
		esac
	done
}

brokers=5 records=2 minimum=4500000 expected=24
[ "$quick" = 1 ] && brokers=4 records=1 minimum=250000 expected=5
for model in doorbell lane attach; do
	[ "$quick" = 1 ] || correct $model
	correct $model -DPSO
done
[ "$quick" = 1 ] || correct stamps -DRECORDS=$records
correct stamps -DPSO -DRECORDS=$records
correct readopt -DPSO -DBROKERS=$brokers
optimise=0
wrong lane ZERO WRAP_ZERO LIMIT AHEAD RELEASE
wrong attach EPOCH_FIRST BACKLOG EPOCH_LATE START
wrong doorbell RINGER_FENCE SLEEPER_FENCE WAKE_FIRST WAKE_LATE DEATH
wrong readopt OLDER RETIRE FORGET
wrong stamps NO_BOUND RECORD_FIRST NO_FENCE BOUND_EARLY BOUND_LATE SAME_TIME DEATH
echo "counted: $states states of the Spin models"
echo "counted: $mistakes mistakes in Spin models found"
[ "$states" -ge "$minimum" ] && [ "$mistakes" -eq "$expected" ] || status=1
exit $status
