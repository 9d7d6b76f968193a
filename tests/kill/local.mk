# Processes killed at every instruction. SHMB_TEST_QUICK=1 takes a sample.
step_files = %D%/step.c %D%/step.h %D%/mutate.h

kill_tests = %D%/kill-publish
%C%_kill_publish_SOURCES = %D%/kill-publish.c $(step_files)
%C%_kill_publish_LDADD = lib/libshmb.la

# The same test with a mistake built in: it must fail, or it would not find that mistake.
kill_mutants =
kill_mutants += %D%/mutant-payload
%C%_mutant_payload_SOURCES = %D%/kill-publish.c $(step_files)
%C%_mutant_payload_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_PAYLOAD
%C%_mutant_payload_LDADD = lib/libshmb.la
kill_mutants += %D%/mutant-zero
%C%_mutant_zero_SOURCES = %D%/kill-publish.c $(step_files)
%C%_mutant_zero_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_ZERO
%C%_mutant_zero_LDADD = lib/libshmb.la
kill_mutants += %D%/mutant-batch
%C%_mutant_batch_SOURCES = %D%/kill-publish.c $(step_files)
%C%_mutant_batch_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_BATCH
%C%_mutant_batch_LDADD = lib/libshmb.la
kill_mutants += %D%/mutant-intent
%C%_mutant_intent_SOURCES = %D%/kill-publish.c $(step_files)
%C%_mutant_intent_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_INTENT
%C%_mutant_intent_LDADD = lib/libshmb.la
kill_mutants += %D%/mutant-mark
%C%_mutant_mark_SOURCES = %D%/kill-publish.c $(step_files)
%C%_mutant_mark_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_MARK
%C%_mutant_mark_LDADD = lib/libshmb.la
kill_mutants += %D%/mutant-limit
%C%_mutant_limit_SOURCES = %D%/kill-publish.c $(step_files)
%C%_mutant_limit_CPPFLAGS = $(AM_CPPFLAGS) -DSHMB_MUTATE_LIMIT
%C%_mutant_limit_LDADD = lib/libshmb.la

check_PROGRAMS += $(kill_tests) $(kill_mutants)
TESTS += $(kill_tests) %D%/mutants.sh
dist_check_SCRIPTS += %D%/mutants.sh
