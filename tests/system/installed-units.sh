#!/bin/sh
# The files of the service: installed where they were configured to be, with the paths of this
# configuration in them, and understood by systemd where there is one.
tmp=$(mktemp -d "${TMPDIR:-/tmp}/shmb-units.XXXXXX") || exit 99
trap 'rm -rf "$tmp"' EXIT
trap 'exit 99' HUP INT TERM

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# Ask the build where things go, rather than guess; tests may run with any prefix.
where() {
	sed -n "s/^$1 = //p" "$top_builddir/Makefile" | head -n 1 | {
		read -r value
		while :; do
			case $value in
			*'${'*'}'*)
				name=${value#*'${'}
				name=${name%%'}'*}
				inner=$(sed -n "s/^$name = //p" "$top_builddir/Makefile" | head -n 1)
				value=${value%%'${'*}$inner${value#*'}'}
				;;
			*) break ;;
			esac
		done
		printf '%s\n' "$value"
	}
}
prefix=$(where prefix)
sbindir=$(where sbindir)
sysconfdir=$(where sysconfdir)
units=$(where systemdsystemunitdir)
[ -n "$prefix$sbindir$sysconfdir$units" ] || fail "no directories in the Makefile"

unset MAKEFLAGS MFLAGS MAKELEVEL
make -C "$top_builddir" -s DESTDIR="$tmp" install-sbinPROGRAMS \
	install-systemdsystemunitDATA install-dist_shmbconfDATA install-dist_systemdsystemunitDATA \
	install-data-local >"$tmp/log" 2>&1 || { cat "$tmp/log" >&2; fail "make install"; }

for file in "$sbindir/shmbrokerd" "$sysconfdir/shmbroker/shmbrokerd.conf" \
	"$units/shmbrokerd.service" "$units/shmbrokerd.socket" \
	"$prefix/lib/tmpfiles.d/shmbroker.conf" "$prefix/lib/sysusers.d/shmbroker.conf"; do
	[ -f "$tmp$file" ] || fail "$file is not installed"
done
service=$tmp$units/shmbrokerd.service
socket=$tmp$units/shmbrokerd.socket
grep -q '@[a-z]*@' "$service" && fail "the service has names that were not replaced"
grep -q "^ExecStart=$sbindir/shmbrokerd --config $sysconfdir/shmbroker/shmbrokerd.conf " \
	"$service" || fail "the service starts another program"

# One directory, in the unit and in the file that makes it, and one socket in it.
dir=$(sed -n 's/^ExecStart=.* --directory //p' "$service")
[ -n "$dir" ] || fail "the service has no directory"
grep -q "^ListenSequentialPacket=$dir/control.sock\$" "$socket" ||
	fail "the socket is not in $dir"
grep -q "^d $dir 0755 shmbroker shmbroker " "$tmp$prefix/lib/tmpfiles.d/shmbroker.conf" ||
	fail "nobody makes $dir"
grep -q "^u shmbroker " "$tmp$prefix/lib/sysusers.d/shmbroker.conf" || fail "nobody makes the user"
grep -q "^User=shmbroker\$" "$service" || fail "the service has no user"
[ "$(stat -c %a "$tmp$sysconfdir/shmbroker/shmbrokerd.conf")" = 644 ] ||
	fail "the configuration can be written by others"

# With the program where it is now, which it must be to be understood.
if ! command -v systemd-analyze >/dev/null 2>&1 || ! [ -e /usr/lib/systemd/system/sysinit.target ]
then
	echo "no systemd: the units were not verified"
	exit 0
fi
mkdir "$tmp/verify" || exit 99
cp "$socket" "$tmp/verify/"
sed "s|^ExecStart=|&$tmp|" "$service" >"$tmp/verify/shmbrokerd.service"
SYSTEMD_UNIT_PATH="$tmp/verify:" systemd-analyze verify --man=no \
	"$tmp/verify/shmbrokerd.socket" "$tmp/verify/shmbrokerd.service" >"$tmp/said" 2>&1
status=$?
if [ $status -ne 0 ] || [ -s "$tmp/said" ]; then
	cat "$tmp/said" >&2
	fail "systemd-analyze verify: exit code $status"
fi
