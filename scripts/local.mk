source_checks = %D%/check-atomics.sh %D%/check-format.sh %D%/check-includes.sh
EXTRA_DIST += .clang-format $(source_checks)
