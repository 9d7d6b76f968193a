# Processes killed at every instruction. SHMB_TEST_QUICK=1 takes a sample.
# What they share is compiled once: it knows of no mistake.
check_LTLIBRARIES += %D%/libstep.la %D%/libsuccession.la
step_lib = %D%/libstep.la
succession_lib = %D%/libsuccession.la %D%/libstep.la
%C%_libstep_la_SOURCES = %D%/step.c %D%/step.h %D%/step-machine.c %D%/step-machine.h %D%/mutate.h
%C%_libsuccession_la_SOURCES = %D%/world.c %D%/world.h %D%/succession.c %D%/succession.h \
	%D%/stranger.c %D%/stranger.h

pair_wraps = -Wl,--wrap=shmb_client_drain -Wl,--wrap=shmb_event_free

kill_tests =
# They have nothing but memory and instructions, or a broker on epoll.
kill_once_tests =
kill_long_tests =
kill_once_tests += %D%/kill-publish
%C%_kill_publish_SOURCES = %D%/kill-publish.c
%C%_kill_publish_LDADD = $(step_lib) lib/libshmb.la
kill_once_tests += %D%/kill-consume
%C%_kill_consume_SOURCES = %D%/kill-consume.c
%C%_kill_consume_LDADD = $(step_lib) lib/libshmb.la
kill_once_tests += %D%/kill-pair
%C%_kill_pair_SOURCES = %D%/kill-pair.c
%C%_kill_pair_LDFLAGS = $(AM_LDFLAGS) $(pair_wraps)
%C%_kill_pair_LDADD = $(step_lib) lib/libshmb.la
kill_tests += %D%/kill-attach
%C%_kill_attach_SOURCES = %D%/kill-attach.c
%C%_kill_attach_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_once_tests += %D%/kill-call
%C%_kill_call_SOURCES = %D%/kill-call.c
%C%_kill_call_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_long_tests += %D%/kill-broker
%C%_kill_broker_SOURCES = %D%/kill-broker.c
%C%_kill_broker_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_once_tests += %D%/kill-told
%C%_kill_told_SOURCES = %D%/kill-told.c
%C%_kill_told_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_long_tests += %D%/zombie-broker
%C%_zombie_broker_SOURCES = %D%/zombie-broker.c
%C%_zombie_broker_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_long_tests += %D%/zombie-member
%C%_zombie_member_SOURCES = %D%/zombie-member.c
%C%_zombie_member_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la

kill_tests += %D%/kill-cell
%C%_kill_cell_SOURCES = %D%/kill-cell.c
%C%_kill_cell_LDADD = $(step_lib) daemon/libbroker.la lib/libshmb.la

kill_once_tests += %D%/kill-queue
%C%_kill_queue_SOURCES = %D%/kill-queue.c
%C%_kill_queue_LDADD = $(step_lib) lib/libshmb.la
kill_once_tests += %D%/kill-fds
%C%_kill_fds_SOURCES = %D%/kill-fds.c
%C%_kill_fds_LDADD = $(step_lib) lib/libshmb.la
kill_once_tests += %D%/kill-giving
%C%_kill_giving_SOURCES = %D%/kill-giving.c
%C%_kill_giving_LDADD = $(step_lib) lib/libshmb.la

# And once more, with all records in blocks.
kill_block_tests = %D%/blocks-attach.sh %D%/blocks-member.sh
%D%/blocks-attach.log: %D%/kill-attach
%D%/blocks-member.log: %D%/zombie-member
choosy_logs += $(kill_block_tests:.sh=.log)

# The same test with a mistake built in: it must fail, or it would not find that mistake.
kill_mutants =
kill_mutants += %D%/mutant-payload
%C%_mutant_payload_SOURCES = %D%/kill-publish.c
%C%_mutant_payload_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_PAYLOAD
%C%_mutant_payload_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-zero
%C%_mutant_zero_SOURCES = %D%/kill-publish.c
%C%_mutant_zero_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_ZERO
%C%_mutant_zero_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-batch
%C%_mutant_batch_SOURCES = %D%/kill-publish.c
%C%_mutant_batch_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_BATCH
%C%_mutant_batch_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-intent
%C%_mutant_intent_SOURCES = %D%/kill-publish.c
%C%_mutant_intent_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_INTENT
%C%_mutant_intent_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-mark
%C%_mutant_mark_SOURCES = %D%/kill-publish.c
%C%_mutant_mark_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_MARK
%C%_mutant_mark_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-limit
%C%_mutant_limit_SOURCES = %D%/kill-publish.c
%C%_mutant_limit_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_LIMIT
%C%_mutant_limit_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-ack
%C%_mutant_ack_SOURCES = %D%/kill-consume.c
%C%_mutant_ack_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_ACK
%C%_mutant_ack_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-cursor
%C%_mutant_cursor_SOURCES = %D%/kill-consume.c
%C%_mutant_cursor_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_CURSOR
%C%_mutant_cursor_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-overwritten
%C%_mutant_overwritten_SOURCES = %D%/kill-consume.c
%C%_mutant_overwritten_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_OVERWRITTEN
%C%_mutant_overwritten_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-evicted
%C%_mutant_evicted_SOURCES = %D%/kill-consume.c
%C%_mutant_evicted_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_EVICTED
%C%_mutant_evicted_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-slot
%C%_mutant_slot_SOURCES = %D%/kill-publish.c
%C%_mutant_slot_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_SLOT
%C%_mutant_slot_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-pair-recheck
%C%_mutant_pair_recheck_SOURCES = %D%/kill-pair.c
%C%_mutant_pair_recheck_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_RECHECK
%C%_mutant_pair_recheck_LDFLAGS = $(AM_LDFLAGS) $(pair_wraps)
%C%_mutant_pair_recheck_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-pair-look
%C%_mutant_pair_look_SOURCES = %D%/kill-pair.c
%C%_mutant_pair_look_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_LOOK
%C%_mutant_pair_look_LDFLAGS = $(AM_LDFLAGS) $(pair_wraps)
%C%_mutant_pair_look_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-pair-history
%C%_mutant_pair_history_SOURCES = %D%/kill-pair.c
%C%_mutant_pair_history_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_HISTORY
%C%_mutant_pair_history_LDFLAGS = $(AM_LDFLAGS) $(pair_wraps)
%C%_mutant_pair_history_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-pair-prepare
%C%_mutant_pair_prepare_SOURCES = %D%/kill-pair.c
%C%_mutant_pair_prepare_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_PREPARE
%C%_mutant_pair_prepare_LDFLAGS = $(AM_LDFLAGS) $(pair_wraps)
%C%_mutant_pair_prepare_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-broker-sweep
%C%_mutant_broker_sweep_SOURCES = %D%/kill-broker.c %D%/mutate-broker.c
%C%_mutant_broker_sweep_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=shm_unlink
%C%_mutant_broker_sweep_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-broker-flags
%C%_mutant_broker_flags_SOURCES = %D%/kill-broker.c %D%/mutate-broker.c
%C%_mutant_broker_flags_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=registry_set_flags
%C%_mutant_broker_flags_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-broker-adopt
%C%_mutant_broker_adopt_SOURCES = %D%/kill-broker.c %D%/mutate-broker.c
%C%_mutant_broker_adopt_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=member_adopt
%C%_mutant_broker_adopt_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-broker-announce
%C%_mutant_broker_announce_SOURCES = %D%/kill-broker.c %D%/mutate-broker.c
%C%_mutant_broker_announce_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=adopt_announce
%C%_mutant_broker_announce_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-broker-gate
%C%_mutant_broker_gate_SOURCES = %D%/kill-broker.c %D%/mutate-broker.c
%C%_mutant_broker_gate_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=registry_is_superseded
%C%_mutant_broker_gate_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-broker-resume
%C%_mutant_broker_resume_SOURCES = %D%/kill-broker.c %D%/mutate-broker.c
%C%_mutant_broker_resume_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=member_resume
%C%_mutant_broker_resume_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-broker-entry
%C%_mutant_broker_entry_SOURCES = %D%/kill-broker.c %D%/mutate-broker.c
%C%_mutant_broker_entry_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=registry_add
%C%_mutant_broker_entry_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-broker-unlink
%C%_mutant_broker_unlink_SOURCES = %D%/kill-broker.c %D%/mutate-broker.c
%C%_mutant_broker_unlink_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=registry_remove
%C%_mutant_broker_unlink_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-broker-keep
%C%_mutant_broker_keep_SOURCES = %D%/zombie-broker.c %D%/mutate-broker.c
%C%_mutant_broker_keep_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_KEEP
%C%_mutant_broker_keep_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=registry_remove
%C%_mutant_broker_keep_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-broker-owed
%C%_mutant_broker_owed_SOURCES = %D%/kill-broker.c %D%/mutate-broker.c
%C%_mutant_broker_owed_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=keep_owed
%C%_mutant_broker_owed_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-broker-left
%C%_mutant_broker_left_SOURCES = %D%/kill-broker.c %D%/mutate-broker.c
%C%_mutant_broker_left_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_LEFT
%C%_mutant_broker_left_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=estate_adopt \
	-Wl,--wrap=member_settle_copy
%C%_mutant_broker_left_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-broker-store
%C%_mutant_broker_store_SOURCES = %D%/kill-broker.c %D%/mutate-broker.c
%C%_mutant_broker_store_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=store_send
%C%_mutant_broker_store_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-broker-pair
%C%_mutant_broker_pair_SOURCES = %D%/kill-told.c %D%/mutate-broker.c
%C%_mutant_broker_pair_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=pair_announce
%C%_mutant_broker_pair_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-broker-zombie
%C%_mutant_broker_zombie_SOURCES = %D%/zombie-broker.c %D%/mutate-broker.c
%C%_mutant_broker_zombie_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=registry_is_superseded
%C%_mutant_broker_zombie_LDADD = $(succession_lib) daemon/libbroker.la lib/libshmb.la

kill_mutants += %D%/mutant-term
%C%_mutant_term_SOURCES = %D%/kill-cell.c
%C%_mutant_term_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_TERM
%C%_mutant_term_LDADD = $(step_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-one-slot
%C%_mutant_one_slot_SOURCES = %D%/kill-cell.c
%C%_mutant_one_slot_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_ONE_SLOT
%C%_mutant_one_slot_LDADD = $(step_lib) daemon/libbroker.la lib/libshmb.la
kill_mutants += %D%/mutant-job-mark
%C%_mutant_job_mark_SOURCES = %D%/kill-queue.c
%C%_mutant_job_mark_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_JOB_MARK
%C%_mutant_job_mark_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-low
%C%_mutant_low_SOURCES = %D%/kill-queue.c
%C%_mutant_low_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_LOW
%C%_mutant_low_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-giving
%C%_mutant_giving_SOURCES = %D%/kill-giving.c
%C%_mutant_giving_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_GIVING
%C%_mutant_giving_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-given
%C%_mutant_given_SOURCES = %D%/kill-giving.c
%C%_mutant_given_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_GIVEN
%C%_mutant_given_LDADD = $(step_lib) lib/libshmb.la
kill_mutants += %D%/mutant-orphans
%C%_mutant_orphans_SOURCES = %D%/kill-giving.c
%C%_mutant_orphans_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_ORPHANS
%C%_mutant_orphans_LDADD = $(step_lib) lib/libshmb.la

check_PROGRAMS += $(kill_tests) $(kill_long_tests) $(kill_once_tests)
TESTS += $(kill_tests)
long_once_tests += $(kill_long_tests)
once_tests += $(kill_once_tests) $(kill_block_tests) %D%/mutants.sh
# Built when they are wanted only: they are as much work as all other programs of this directory.
EXTRA_PROGRAMS += $(kill_mutants)
CLEANFILES += $(kill_mutants)
kill_mutants_sample = %D%/mutant-payload %D%/mutant-ack %D%/mutant-pair-recheck %D%/mutant-one-slot \
	%D%/mutant-given
%D%/mutants.log: $(if $(filter 1,$(SHMB_TEST_QUICK)),$(kill_mutants_sample),$(kill_mutants))
choosy_logs += %D%/mutants.log
dist_check_SCRIPTS += $(kill_block_tests) %D%/mutants.sh
CLEANFILES += %D%/mutants.list %D%/mutants.found
