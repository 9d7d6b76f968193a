#!/bin/sh
# Test the Rust binding against the library in the build tree: $top_srcdir, $top_builddir.
set -e
command -v cargo >/dev/null || { echo "no cargo here"; exit 77; }
# rustup has a cargo that only says that it has no toolchain.
cargo --version || { echo "cargo does not run"; exit 77; }
: "${top_srcdir:=$(cd "$(dirname "$0")/../.." && pwd)}"
: "${top_builddir:=$top_srcdir}"
lib=$top_builddir/lib/.libs
[ -e "$lib/libshmbroker.so" ] || { echo "no shared library in $lib"; exit 77; }
# A sanitizer wants to be there before anything else is.
if grep -qE '__(asan|tsan)_init' "$lib/libshmbroker.so"; then
	echo "the library was built with a sanitizer, Rust programs are not"
	exit 77
fi

# A copy: Cargo.lock would be written beside the sources.
copy=$top_builddir/bindings/rust/copy
rm -rf "$copy"
mkdir -p "$copy"
for part in Cargo.toml README.md rustfmt.toml shmbroker shmbroker-sys; do
	cp -Rp "$top_srcdir/bindings/rust/$part" "$copy"
done
cd "$copy"

# Broken links in the documentation are errors too.
export CARGO_TARGET_DIR="$top_builddir/bindings/rust/target" RUSTDOCFLAGS="-D warnings"
export SHMBROKER_LIB_DIR="$lib" SHMBROKER_INCLUDE_DIR="$top_srcdir/include"
# Examples in the documentation are linked without our rpath.
export LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
if [ "${SHMB_TEST_QUICK:-0}" = 1 ]; then
	cargo test --offline --lib --tests --examples
	exit
fi
cargo test --offline
cargo doc --offline --no-deps
