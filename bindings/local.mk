# Each binding is built by its language's own tool; see bindings/*/README.md.
include %D%/rust/local.mk
