#!/bin/sh
# Each acquire, release and fence of ring.h, cell.h, lib/bell.h, lib/queue.c, lib/block.h and
# lib/call.h, weakened to relaxed one at a time, must make a model fail; those below cannot, and it is said why. So must each
# store of cell.h that is left out, of a mark of a queue, of a block or hold, and of a server.
# SHMB_TEST_QUICK=1 takes every third of them.
every=1 least=54
[ "${SHMB_TEST_QUICK:-0}" = 1 ] && every=3 least=18
SHMB_TEST_QUICK=1
export SHMB_TEST_QUICK


# Prints why a site cannot be caught, if it cannot.
spare() {
	case $1 in
	"receive_and_sleep acquire &broker_bell.wake")
		echo "for what is on the socket; who only sleeps takes the lock of the futex"
		;;
	"shmb_block_is_held acquire &cursor->holds[i].block")
		echo "the stores below wait for what it says, on every processor; not for compilers"
		;;
	esac
}

caught=0 spared=0 status=0 n=0
list=$(
	for model in model-lane model-mark model-bell; do
		"$top_builddir/tests/model/$model" --list || echo FAILED
	done | sort -u
	"$top_builddir/tests/model/model-cell" --list | grep '^shmb_'
	"$top_builddir/tests/model/model-queue" --list | grep -v '^shmb_bell_\|^shmb_cursor_'
	"$top_builddir/tests/model/model-queue" --list-stores |
		sed -n '/marks/s/^\(mark\|shmb_jobs_publish\) /without &/p'
	"$top_builddir/tests/model/model-block" --list | grep '^shmb_block_'
	"$top_builddir/tests/model/model-block" --list-stores | sed -n 's/^\(shmb_block\|keep_\|hold_\)/without &/p'
	"$top_builddir/tests/model/model-call" --list | grep '^shmb_call_\|^answer_\|^move_the_\|^receive_or_'
	"$top_builddir/tests/model/model-call" --list-stores | sed -n 's/^shmb_call_/without &/p'
	"$top_builddir/tests/model/model-cell" --list-stores | sed -n 's/^\(shmb_\|copy\)/without &/p'
)
while IFS= read -r site; do
	n=$((n + 1))
	[ $((n % every)) = 0 ] || continue
	why=$(spare "$site")
	if [ "$why" ]; then
		spared=$((spared + 1))
		echo "spared: $site: $why"
		continue
	fi
	by=
	case $site in
	shmb_lane_*) models="model-lane model-mark" ;;
	*marks* | *" &work->done" | move_and_bury* | "tell "*) models=model-queue ;;
	*block* | *keep_* | *hold_*) models=model-block ;;
	*shmb_call_* | answer_* | move_the_* | receive_or_*) models=model-call ;;
	shmb_cell_* | without*) models=model-cell ;;
	*) models="model-bell model-lane" ;;
	esac
	mistake=--weaken
	[ "$site" = "${site#without }" ] || mistake=--drop
	for model in $models; do
		"$top_builddir/tests/model/$model" $mistake "${site#without }" >"$model.mutant.log"
		case $? in
		0) ;;
		1)
			by=$(sed -n '/all good/d; s/: [0-9]* executions.*s: /: /p' "$model.mutant.log")
			break
			;;
		*) status=1 ;;
		esac
	done
	rm -f ./model-*.mutant.log
	if [ "$by" ]; then
		caught=$((caught + 1))
		echo "caught: $site: $by"
	else
		echo "NOT CAUGHT: $site"
		status=1
	fi
done <<END
$list
END
echo "$caught caught, $spared spared"
echo "counted: $caught weakened orders and missing stores caught by the model checker"
[ "$caught" -ge $least ] && [ "$spared" -le 2 ] || status=1
exit $status
