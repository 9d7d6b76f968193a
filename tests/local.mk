# One local.mk per kind of test.
TEST_EXTENSIONS = .sh .sys .py
# make check SHMB_TEST_WRAPPER=COMMAND runs every test through that command. One that hangs must not
# keep the others from being run.
test_seconds_max = 900
LOG_COMPILER = timeout -k 10 $(test_seconds_max) $(SHMB_TEST_WRAPPER)
SH_LOG_COMPILER = $(LOG_COMPILER)
PY_LOG_COMPILER = $(LOG_COMPILER)

# All of one side in one translation unit, for tests that reach into it.
EXTRA_DIST += %D%/publisher-files.h %D%/subscriber-files.h

include %D%/system/local.mk
include %D%/unit/local.mk
include %D%/abi/local.mk
include %D%/kill/local.mk
include %D%/hostile/local.mk
include %D%/fuzz/local.mk
include %D%/model/local.mk
include %D%/cross/local.mk
include %D%/soak/local.mk
include %D%/tsan/local.mk
include %D%/valgrind/local.mk
include %D%/bench/local.mk

AM_TESTS_ENVIRONMENT = \
	top_srcdir='$(abs_top_srcdir)'; top_builddir='$(abs_top_builddir)'; \
	CC='$(CC)'; CXX=$${CXX-g++}; CK_DEFAULT_TIMEOUT=60; \
	SHMB_TEST_WRAPPER='$(SHMB_TEST_WRAPPER)'; \
	export top_srcdir top_builddir CC CXX CK_DEFAULT_TIMEOUT SHMB_TEST_WRAPPER;

# As check, which builds all programs first; but each test starts as soon as what it runs is built. Make
# goes through the whole list before it comes back to what has been built meanwhile: not with what is long.
check-early: all
	@rm -f $(TEST_LOGS) $(TEST_LOGS:.log=.trs) $(TEST_SUITE_LOG)
	@$(MAKE) $(AM_MAKEFLAGS) $(filter-out %.sh,$(filter $(long_tests) $(long_once_tests),$(TESTS)))
	@$(MAKE) $(AM_MAKEFLAGS) $(TEST_SUITE_LOG)
# Make sees the program that is a test, but not those that a script runs: all, if nobody says which.
$(filter-out $(choosy_logs),$(filter %.log,$(TESTS:.sh=.log) $(TESTS:.sys=.log))): $(check_PROGRAMS)
.PHONY: check-early

check-loop: ; @n=0; while $(MAKE) check; do n=$$((n+1)); echo "passed $$n times"; done
.PHONY: check-loop

# $(once_tests) and $(long_once_tests) judge the same bytes and sources in every build, whatever the kernel offers:
#	make check TESTS="`make -s varied-tests`"
varied-tests:
	@for test in $(TESTS); do \
		case ' $(once_tests) $(long_once_tests) ' in *" $$test "*) ;; *) echo "$$test" ;; esac; \
	done
unit-tests: ; @echo $(unit_tests)
.PHONY: varied-tests unit-tests
