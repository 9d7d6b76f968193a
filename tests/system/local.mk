# System tests: each runs against a broker of its own.
system_tests = \
	%D%/shmctl-usage.sys \
	%D%/shmctl-place.sys \
	%D%/shmctl-inspect.sys \
	%D%/shmctl-killed-broker.sys \
	%D%/shmctl-why.sys \
	%D%/shmctl-evict.sys \
	%D%/shmctl-select.sys \
	%D%/shmctl-pub-cat.sys \
	%D%/shmctl-typed.sys \
	%D%/shmctl-live.sys \
	%D%/shmctl-queue.sys \
	%D%/shmctl-blocks.sys \
	%D%/shmctl-state.sys \
	%D%/shmctl-call.sys \
	%D%/shmctl-ping.sys \
	%D%/shmctl-keygen.sys \
	%D%/shmctl-doctor.sys \
	%D%/without-uring.sys \
	%D%/as-nobody.sys

SYS_LOG_COMPILER = $(LOG_COMPILER) $(SHELL) $(top_srcdir)/%D%/with-broker.sh
TESTS += $(system_tests)
EXTRA_DIST += $(system_tests) %D%/with-broker.sh %D%/functions.sh
$(filter-out %/as-nobody.log,$(system_tests:.sys=.log)): \
	%D%/forge %D%/holder %D%/without-uring %D%/backend
choosy_logs += $(filter-out %/as-nobody.log,$(system_tests:.sys=.log))

check_PROGRAMS += %D%/forge %D%/holder
%C%_forge_SOURCES = %D%/forge.c
%C%_holder_SOURCES = %D%/holder.c
%C%_holder_LDADD = lib/libshmbroker.la

# The broker as a service of the system, with clients of several users; only root can be them all.
if HAVE_CHECK
place_files = %D%/place.c %D%/place.h
place_ldadd = daemon/libbroker.la lib/libshmb.la $(CHECK_LIBS)

service_tests =
service_tests += %D%/test-service
%C%_test_service_SOURCES = %D%/test-service.c $(place_files)
%C%_test_service_LDADD = $(place_ldadd)
service_tests += %D%/test-users
%C%_test_users_SOURCES = %D%/test-users.c $(place_files) tests/unit/jobs.h
%C%_test_users_LDADD = $(place_ldadd)
service_tests += %D%/test-probe
%C%_test_probe_SOURCES = %D%/test-probe.c $(place_files)
%C%_test_probe_LDADD = $(place_ldadd)
%C%_test_probe_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=shmb_map_reader -Wl,--wrap=shmb_map_writer
service_tests += %D%/test-keys
%C%_test_keys_SOURCES = %D%/test-keys.c $(place_files)
%C%_test_keys_LDADD = $(place_ldadd)

check_PROGRAMS += $(service_tests)
TESTS += $(service_tests)
endif

once_tests += %D%/installed-units.sh %D%/wall-clock.sh
EXTRA_DIST += %D%/installed-units.sh %D%/wall-clock.sh %D%/wall-clock.c
check_PROGRAMS += %D%/without-uring %D%/backend
%C%_without_uring_SOURCES = %D%/without-uring.c
%C%_backend_SOURCES = %D%/backend.c
%C%_backend_LDADD = lib/libshmbroker.la

# What a broker and its clients do to each other under stress.
if HAVE_CHECK
stress_tests =
stress_once_tests =
# With io_uring and with epoll in one run.
stress_long_tests = %D%/test-faults
%C%_test_faults_SOURCES = %D%/test-faults.c %D%/fault-worker.c %D%/fault-worker.h %D%/inject.c \
	%D%/inject.h %D%/newcomer.c %D%/newcomer.h %D%/held.c %D%/held.h %D%/process.h \
	tests/unit/fixture.h tests/unit/gate.h
%C%_test_faults_LDADD = daemon/libbroker.la lib/libshmb.la $(CHECK_LIBS)
stress_once_tests += %D%/scale
%C%_scale_SOURCES = %D%/scale.c %D%/process.h tests/unit/fixture.h
%C%_scale_LDADD = daemon/libbroker.la lib/libshmb.la $(CHECK_LIBS)
stress_tests += %D%/shortage
%C%_shortage_SOURCES = %D%/shortage.c %D%/process.h tests/unit/fixture.h tests/unit/gate.h
%C%_shortage_LDADD = daemon/libbroker.la lib/libshmb.la $(CHECK_LIBS)
stress_tests += %D%/churn
%C%_churn_SOURCES = %D%/churn.c %D%/process.h tests/unit/fixture.h tests/unit/gate.h
%C%_churn_LDADD = daemon/libbroker.la lib/libshmb.la $(CHECK_LIBS)
stress_tests += %D%/test-undertaking
%C%_test_undertaking_SOURCES = %D%/test-undertaking.c %D%/process.h tests/unit/fixture.h tests/unit/gate.h
%C%_test_undertaking_LDADD = daemon/libbroker.la lib/libshmb.la $(CHECK_LIBS)

check_PROGRAMS += $(stress_tests) $(stress_long_tests) $(stress_once_tests)
TESTS += %D%/sealed-undertaking.sh
EXTRA_DIST += %D%/sealed-undertaking.sh
%D%/sealed-undertaking.log: %D%/test-undertaking
choosy_logs += %D%/sealed-undertaking.log
TESTS += $(stress_tests)
long_once_tests += $(stress_long_tests)
once_tests += $(stress_once_tests)
endif
