# One local.mk per kind of test.
TEST_EXTENSIONS = .sh .sys .py

include %D%/unit/local.mk
include %D%/abi/local.mk
include %D%/kill/local.mk
include %D%/hostile/local.mk
include %D%/system/local.mk
include %D%/fuzz/local.mk
include %D%/model/local.mk
include %D%/bench/local.mk

AM_TESTS_ENVIRONMENT = \
	top_srcdir='$(abs_top_srcdir)'; top_builddir='$(abs_top_builddir)'; \
	CC='$(CC)'; CXX=$${CXX-g++}; CK_DEFAULT_TIMEOUT=20; \
	export top_srcdir top_builddir CC CXX CK_DEFAULT_TIMEOUT;

check-loop: ; @n=0; while $(MAKE) check; do n=$$((n+1)); echo "passed $$n times"; done
.PHONY: check-loop
