# What the sources themselves must keep to.
source_checks = \
	%D%/check-atomics.sh \
	%D%/check-format.sh \
	%D%/check-includes.sh \
	%D%/check-man.sh
once_tests += $(source_checks)
%D%/check-man.log: tests/abi/layout
choosy_logs += $(source_checks:.sh=.log)
EXTRA_DIST += .clang-format $(source_checks) %D%/check-readme.sh
EXTRA_DIST += LICENSE %D%/setup %D%/soak %D%/compare-kills tests/torture/compare.cc %D%/demo %D%/cross %D%/fuzz %D%/test README.md CONTRIBUTING.md NEWS.md SECURITY.md
