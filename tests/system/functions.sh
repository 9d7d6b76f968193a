# What the system tests share; read by each of them.
shmctl=$top_builddir/shmctl
forge=$top_builddir/tests/system/forge
LC_ALL=C.UTF-8
export LC_ALL

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# expect CODE COMMAND...: run it; its output goes to $tmp/out and $tmp/err.
expect() {
	code=$1
	shift
	"$@" >"$tmp/out" 2>"$tmp/err"
	got=$?
	[ $got -eq "$code" ] && return
	cat "$tmp/out" "$tmp/err" >&2
	fail "exit code $got, not $code: $*"
}

# says FILE TEXT: the file holds this text.
says() {
	grep -qF -- "$2" "$1" && return
	cat "$1" >&2
	fail "$1 does not say: $2"
}

# is FILE TEXT: the file holds exactly this line.
is() {
	printf '%s\n' "$2" | cmp -s - "$1" && return
	cat "$1" >&2
	fail "$1 is not: $2"
}

# until_true COMMAND...: repeat it for up to ten seconds.
until_true() {
	n=0
	until "$@" >/dev/null 2>&1; do
		n=$((n + 1))
		[ $n -lt 200 ] || fail "still not true: $*"
		sleep 0.05
	done
}

# has_members CHANNEL PUBLISHERS SUBSCRIBERS
has_members() {
	"$shmctl" ls | awk -F '\t' -v name="$1" -v pub="$2" -v sub_="$3" \
		'$1 == name && $4 == pub && $5 == sub_ { ok = 1 } END { exit !ok }'
}
