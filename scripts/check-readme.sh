#!/bin/bash
# Run the code blocks of README.md as they are printed.
#
#	top_builddir=build scripts/check-readme.sh [python] [rust] [c] [sh]
#
# Each block runs against the build, with a broker of its own. The sh block is the one under "Five
# minutes", without its first two lines. The counts are printed as unittest prints them.
set -uo pipefail
top_srcdir=$(cd "${top_srcdir:-$(dirname "$0")/..}" && pwd)
top_builddir=$(cd "${top_builddir:-$top_srcdir/build}" && pwd) || exit 99
[ $# -gt 0 ] || set -- python rust c sh
[ -x "$top_builddir/shmbrokerd" ] || { echo "no shmbrokerd in $top_builddir"; exit 77; }

work=$(mktemp -d "${TMPDIR:-/tmp}/shmb-readme.XXXXXX") || exit 99
broker=
cleanup() {
	[ -z "$broker" ] || { kill "$broker"; wait "$broker"; } 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT

export LD_LIBRARY_PATH="$top_builddir/lib/.libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export PATH="$top_builddir:$PATH"
mkfifo "$work/ready"
shmbrokerd --user --directory "$work/run" --idle-exit 0 --ready-fd 3 3>"$work/ready" 2>"$work/log" &
broker=$!
read -r answer <"$work/ready"
[ "$answer" = ready ] || { echo "the broker says: $answer"; cat "$work/log"; exit 1; }
export SHMBROKER_ADDRESS="$work/run/control.sock"

# block LANGUAGE [HEADING]: the first block of that language, below that heading.
block() {
	awk -v language="$1" -v heading="${2:-}" '
		/^## / { below = $0 == "## " heading }
		/^```/ && inside { exit }
		inside { print }
		$0 == "```" language && (heading == "" || below) { inside = 1 }' "$top_srcdir/README.md"
}

skip() { echo "skipped: $*"; return 77; }

run_python() {
	local python=${PYTHON:-python3} source=$top_srcdir/bindings/python
	block python >"$work/readme.py"
	if ! [ -f "$source/setup.py" ] && ! "$python" -c 'import shmbroker' 2>/dev/null; then
		skip "this tree has no Python binding"
		return
	fi
	if ! "$python" -c 'import shmbroker' 2>/dev/null; then
		"$python" -c 'import os, sys, sysconfig, setuptools
assert os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null ||
			{ skip "$python cannot build extensions"; return; }
		(cd "$source" && SHMBROKER_BUILDDIR=$top_builddir "$python" setup.py -q build \
			--build-base "$work/base" --build-lib "$work/lib") >"$work/python.log" 2>&1 ||
			{ cat "$work/python.log"; return 1; }
	fi
	PYTHONPATH="$work/lib${PYTHONPATH:+:$PYTHONPATH}" timeout 60 "$python" "$work/readme.py" |
		diff - <(printf '0 100.0\n1 100.25\n2 100.5\n')
}

run_rust() {
	local crate=$top_srcdir/bindings/rust/shmbroker
	[ -d "$crate" ] || { skip "this tree has no Rust binding"; return; }
	cargo --version >/dev/null 2>&1 || { skip "no cargo"; return; }
	mkdir -p "$work/rust/src"
	block rust >"$work/rust/src/main.rs"
	cat >"$work/rust/Cargo.toml" <<-END
		[package]
		name = "readme"
		version = "0.0.0"
		edition = "2021"
		[dependencies]
		shmbroker = { path = "$crate" }
	END
	(cd "$work/rust" && SHMBROKER_LIB_DIR=$top_builddir/lib/.libs \
		CARGO_TARGET_DIR=$work/target cargo build --offline -q) >"$work/rust.log" 2>&1 ||
		{ cat "$work/rust.log"; return 1; }
	timeout 60 "$work/target/debug/readme" | diff - <(printf '0 100\n1 100.25\n2 100.5\n')
}

run_c() {
	block c >"$work/readme.c"
	${CC:-cc} -std=c11 -Wall -Wextra -Werror -I"$top_srcdir/include" -I"$top_builddir/include" \
		-o "$work/readme" "$work/readme.c" -L"$top_builddir/lib/.libs" -lshmbroker || return 1
	timeout 60 "$work/readme" | diff - <(echo '1 100.25')
}

run_sh() {
	[ -x "$top_builddir/shmctl" ] || { skip "no shmctl in $top_builddir"; return; }
	block sh 'Five minutes' | sed 1,2d >"$work/readme.sh"
	# The doctor may find something on this machine; the rest must work.
	timeout 60 bash "$work/readme.sh" >"$work/sh.out" 2>&1 &&
		grep -qx hello "$work/sh.out" && grep -qx world "$work/sh.out" &&
		grep -q '^demo/hello' "$work/sh.out" && return
	cat "$work/sh.out"
	return 1
}

ran=0 failed=0 skipped=0
for language; do
	echo "== $language"
	ran=$((ran + 1))
	"run_$language"
	case $? in
	0) ;;
	77) skipped=$((skipped + 1)) ;;
	*) failed=$((failed + 1)); echo "failed: the $language block of README.md" ;;
	esac
done
echo "Ran $ran tests"
[ $failed = 0 ] && echo "OK (skipped=$skipped)" || echo "FAILED (failures=$failed, skipped=$skipped)"
[ $failed = 0 ]
