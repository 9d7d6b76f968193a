# Python and Rust are built by their languages' own tools; see bindings/*/README.md.
include %D%/c/local.mk
include %D%/python/local.mk
include %D%/rust/local.mk
