# Unit tests: one program per module of lib/ and daemon/, named after it.
if HAVE_CHECK
unit_tests =
long_unit_tests =
unit_tests += %D%/test-decode
%C%_test_decode_SOURCES = %D%/test-decode.c \
	tools/decode.c tools/decode-scalar.c tools/encode.c tools/print.c
%C%_test_decode_CPPFLAGS = $(AM_CPPFLAGS) -D_GNU_SOURCE
%C%_test_decode_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
%C%_test_decode_LDADD = lib/libshmb.la $(CHECK_LIBS) $(JANSSON_LIBS)
unit_tests += %D%/test-noise
%C%_test_noise_SOURCES = %D%/test-noise.c
unit_tests += %D%/test-copier
%C%_test_copier_SOURCES = %D%/test-copier.c
unit_tests += %D%/test-copy
%C%_test_copy_SOURCES = %D%/test-copy.c
unit_tests += %D%/test-loop
%C%_test_loop_SOURCES = %D%/test-loop.c
unit_tests += %D%/test-poller
%C%_test_poller_SOURCES = %D%/test-poller.c %D%/fixture.h
unit_tests += %D%/test-error
%C%_test_error_SOURCES = %D%/test-error.c
unit_tests += %D%/test-name
%C%_test_name_SOURCES = %D%/test-name.c
unit_tests += %D%/test-fd
%C%_test_fd_SOURCES = %D%/test-fd.c
unit_tests += %D%/test-keyfile
%C%_test_keyfile_SOURCES = %D%/test-keyfile.c
unit_tests += %D%/test-runtime
%C%_test_runtime_SOURCES = %D%/test-runtime.c
unit_tests += %D%/test-session
%C%_test_session_SOURCES = %D%/test-session.c
unit_tests += %D%/test-schema
%C%_test_schema_SOURCES = %D%/test-schema.c
unit_tests += %D%/test-registry
%C%_test_registry_SOURCES = %D%/test-registry.c
unit_tests += %D%/test-segment
%C%_test_segment_SOURCES = %D%/test-segment.c %D%/fixture.h
unit_tests += %D%/test-quota
%C%_test_quota_SOURCES = %D%/test-quota.c
unit_tests += %D%/test-policy
%C%_test_policy_SOURCES = %D%/test-policy.c
unit_tests += %D%/test-broker
%C%_test_broker_SOURCES = %D%/test-broker.c %D%/raw-client.c %D%/raw-client.h
unit_tests += %D%/test-conf
%C%_test_conf_SOURCES = %D%/test-conf.c daemon/conf.c
unit_tests += %D%/test-ring
%C%_test_ring_SOURCES = %D%/test-ring.c
unit_tests += %D%/test-client
%C%_test_client_SOURCES = %D%/test-client.c %D%/fixture.h
unit_tests += %D%/test-stream
%C%_test_stream_SOURCES = %D%/test-stream.c %D%/fixture.h
unit_tests += %D%/test-evict
%C%_test_evict_SOURCES = %D%/test-evict.c %D%/fixture.h
unit_tests += %D%/test-order
%C%_test_order_SOURCES = %D%/test-order.c %D%/fixture.h
unit_tests += %D%/test-expiry
%C%_test_expiry_SOURCES = %D%/test-expiry.c %D%/fixture.h
unit_tests += %D%/test-fds
%C%_test_fds_SOURCES = %D%/test-fds.c %D%/daemon.h %D%/fixture.h %D%/gate.h
unit_tests += %D%/test-priority
%C%_test_priority_SOURCES = %D%/test-priority.c %D%/fixture.h
unit_tests += %D%/test-conflate
%C%_test_conflate_SOURCES = %D%/test-conflate.c %D%/fixture.h
unit_tests += %D%/test-history
%C%_test_history_SOURCES = %D%/test-history.c %D%/fixture.h
unit_tests += %D%/test-block
%C%_test_block_SOURCES = %D%/test-block.c %D%/fixture.h
unit_tests += %D%/test-state
%C%_test_state_SOURCES = %D%/test-state.c %D%/fixture.h
unit_tests += %D%/test-queue
%C%_test_queue_SOURCES = %D%/test-queue.c %D%/fixture.h
unit_tests += %D%/test-call
%C%_test_call_SOURCES = %D%/test-call.c %D%/fixture.h
unit_tests += %D%/test-call-block
%C%_test_call_block_SOURCES = %D%/test-call-block.c %D%/fixture.h
unit_tests += %D%/test-waitset
%C%_test_waitset_SOURCES = %D%/test-waitset.c %D%/fixture.h
long_unit_tests += %D%/test-keeper
%C%_test_keeper_SOURCES = %D%/test-keeper.c %D%/daemon.h %D%/fixture.h %D%/gate.h
long_unit_tests += %D%/test-kept
%C%_test_kept_SOURCES = %D%/test-kept.c %D%/kept.h %D%/daemon.h %D%/fixture.h %D%/gate.h
long_unit_tests += %D%/test-retained
%C%_test_retained_SOURCES = %D%/test-retained.c %D%/kept.h %D%/daemon.h %D%/fixture.h %D%/gate.h
long_unit_tests += %D%/test-slow
%C%_test_slow_SOURCES = %D%/test-slow.c %D%/kept.h %D%/daemon.h %D%/fixture.h %D%/gate.h
long_unit_tests += %D%/test-estate
%C%_test_estate_SOURCES = %D%/test-estate.c %D%/kept.h %D%/daemon.h %D%/fixture.h %D%/gate.h
long_unit_tests += %D%/test-restart
%C%_test_restart_SOURCES = %D%/test-restart.c %D%/daemon.h %D%/fixture.h %D%/gate.h %D%/jobs.h

unit_ldadd = daemon/libbroker.la lib/libshmb.la $(CHECK_LIBS)
%C%_test_noise_LDADD = $(unit_ldadd)
%C%_test_ring_LDADD = $(unit_ldadd)
%C%_test_copy_LDADD = $(unit_ldadd)
%C%_test_copier_LDADD = $(unit_ldadd)
%C%_test_loop_LDADD = $(unit_ldadd)
%C%_test_loop_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=recv
%C%_test_poller_LDADD = $(unit_ldadd)
%C%_test_poller_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=io_uring_submit \
	-Wl,--wrap=io_uring_submit_and_wait_timeout
%C%_test_error_LDADD = $(unit_ldadd)
%C%_test_name_LDADD = $(unit_ldadd)
%C%_test_fd_LDADD = $(unit_ldadd)
%C%_test_keyfile_LDADD = $(unit_ldadd)
%C%_test_runtime_LDADD = $(unit_ldadd)
%C%_test_session_LDADD = $(unit_ldadd)
%C%_test_schema_LDADD = $(unit_ldadd)
%C%_test_registry_LDADD = $(unit_ldadd)
%C%_test_segment_LDADD = $(unit_ldadd)
%C%_test_quota_LDADD = $(unit_ldadd)
%C%_test_policy_LDADD = $(unit_ldadd)
%C%_test_broker_LDADD = $(unit_ldadd)
%C%_test_conf_LDADD = $(unit_ldadd) $(CONFUSE_LIBS)
%C%_test_client_LDADD = $(unit_ldadd)
%C%_test_keeper_LDADD = $(unit_ldadd)
%C%_test_stream_LDADD = $(unit_ldadd)
%C%_test_evict_LDADD = $(unit_ldadd)
%C%_test_order_LDADD = $(unit_ldadd)
%C%_test_expiry_LDADD = $(unit_ldadd)
%C%_test_fds_LDADD = $(unit_ldadd)
%C%_test_priority_LDADD = $(unit_ldadd)
%C%_test_conflate_LDADD = $(unit_ldadd)
%C%_test_history_LDADD = $(unit_ldadd)
%C%_test_block_LDADD = $(unit_ldadd)
%C%_test_state_LDADD = $(unit_ldadd)
%C%_test_queue_LDADD = $(unit_ldadd)
%C%_test_call_LDADD = $(unit_ldadd)
%C%_test_call_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=syscall -Wl,--wrap=write \
	-Wl,--wrap=send -Wl,--wrap=sched_yield
%C%_test_call_block_LDADD = $(unit_ldadd)
%C%_test_waitset_LDADD = $(unit_ldadd)
%C%_test_waitset_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=epoll_ctl
%C%_test_restart_LDADD = $(unit_ldadd)
%C%_test_kept_LDADD = $(unit_ldadd)
%C%_test_retained_LDADD = $(unit_ldadd)
%C%_test_slow_LDADD = $(unit_ldadd)
%C%_test_estate_LDADD = $(unit_ldadd)
%C%_test_restart_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=shmb_map_writer

check_PROGRAMS += $(long_unit_tests) $(unit_tests)
# The same programs once more, with what the channels' memory is made of.
sealed_tests = %D%/sealed-stream.sh %D%/sealed-waitset.sh %D%/sealed-history.sh \
	%D%/sealed-state.sh %D%/sealed-queue.sh %D%/sealed-block.sh %D%/sealed-call.sh %D%/sealed-call-block.sh \
	%D%/sealed-evict.sh %D%/sealed-expiry.sh %D%/sealed-order.sh %D%/sealed-fds.sh
# And once more, with all records in blocks.
block_tests = %D%/blocks-stream.sh %D%/blocks-history.sh %D%/blocks-waitset.sh
long_scripts = %D%/blocks-restart.sh %D%/sealed-restart.sh %D%/sealed-kept.sh %D%/sealed-retained.sh \
	%D%/sealed-estate.sh
long_tests += $(long_scripts) $(long_unit_tests)
TESTS += $(unit_tests) $(sealed_tests) $(block_tests)
dist_check_SCRIPTS += $(long_scripts) $(sealed_tests) $(block_tests)
endif

unit_logs = $(sealed_tests:.sh=.log) $(block_tests:.sh=.log) $(long_scripts:.sh=.log)
$(filter %D%/sealed-%,$(unit_logs)): %D%/sealed-%.log: %D%/test-%
$(filter %D%/blocks-%,$(unit_logs)): %D%/blocks-%.log: %D%/test-%
choosy_logs += $(unit_logs)
