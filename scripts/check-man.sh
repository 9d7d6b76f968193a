#!/bin/sh
# Every exported function is in the NAME and the SYNOPSIS of a man page, every option of shmbrokerd
# and every key of its configuration in their pages, and mandoc has nothing to say.
cd "$top_srcdir" || exit 1
bad=0
for name in $(sed -n 's/^\t\(shmb_[a-z0-9_]*\);/\1/p' lib/libshmbroker.map); do
	grep -qE "^\.Nm $name( ,)?$" man/*.3 || { echo "in no NAME: $name"; bad=1; }
	grep -qE "^\.(Fo|Fn) $name\b" man/*.3 || { echo "in no SYNOPSIS: $name"; bad=1; }
done
# What a page declares exists, with the parameters of the header.
cat include/shmbroker/*.h | tr -s '\n\t ' ' ' >"${TMPDIR:-/tmp}/headers.$$"
trap 'rm -f "${TMPDIR:-/tmp}/headers.$$"' EXIT
awk '/^\.Ft / { type = $0; sub(/^\.Ft "?/, "", type); sub(/"$/, "", type) }
	/^\.Fo shmb_/ { call = type (type ~ /\*$/ ? "" : " ") $2 "("; n = 0 }
	/^\.Fa "/ && call { a = $0; sub(/^\.Fa "/, "", a); sub(/"$/, "", a); call = call (n++ ? ", " : "") a }
	/^\.Fc/ && call { print call ")"; call = "" }' man/*.3 |
	while read -r call; do
		grep -qF "$call" "${TMPDIR:-/tmp}/headers.$$" || { echo "not in a header: $call"; exit 1; }
	done || bad=1
for option in $(sed -n 's/^\t{ "\([a-z-]*\)", OPTION_.*/\1/p' daemon/main.c); do
	grep -q "Fl -$option" man/shmbrokerd.8 || { echo "not in shmbrokerd(8): --$option"; bad=1; }
done
for key in $(grep -o 'CFG_[A-Z_]*("[a-z-]*"' daemon/conf.c | sed 's/.*"\(.*\)"/\1/'); do
	grep -qE "^\.It Ic $key|^\.Ic $key" man/shmbrokerd.conf.5 ||
		{ echo "not in shmbrokerd.conf(5): $key"; bad=1; }
done
# Offsets in the description of the layout are those of the structs.
tests/abi/check-layout-page.awk tests/abi/layout.golden man/shmbroker-layout.5 || bad=1
if command -v mandoc >/dev/null; then
	# Whether other pages are installed is no matter of ours.
	mandoc -T lint man/*.[1-8] 2>/dev/null | grep -v -e 'referenced manual not found' && bad=1
fi
exit $bad
