# Unit tests: one program per module of lib/ and daemon/, named after it.
if HAVE_CHECK
unit_tests =
unit_tests += %D%/test-noise
%C%_test_noise_SOURCES = %D%/test-noise.c
unit_tests += %D%/test-copy
%C%_test_copy_SOURCES = %D%/test-copy.c
unit_tests += %D%/test-loop
%C%_test_loop_SOURCES = %D%/test-loop.c
unit_tests += %D%/test-schema
%C%_test_schema_SOURCES = %D%/test-schema.c

unit_ldadd = daemon/libbroker.la lib/libshmb.la $(CHECK_LIBS)
%C%_test_noise_LDADD = $(unit_ldadd)
%C%_test_copy_LDADD = $(unit_ldadd)
%C%_test_loop_LDADD = $(unit_ldadd)
%C%_test_schema_LDADD = $(unit_ldadd)

check_PROGRAMS += $(unit_tests)
TESTS += $(unit_tests)
endif
