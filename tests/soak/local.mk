# A seeded hand that kills, stops and starves any process, and a judge of the history.
soak_files = %D%/soak.c %D%/worker.c %D%/hand.c %D%/call.c %D%/check.c %D%/soak.h
soak_ldadd = daemon/libbroker.la lib/libshmb.la

check_PROGRAMS += %D%/soak
%C%_soak_SOURCES = $(soak_files)
%C%_soak_LDADD = $(soak_ldadd)

# The same with a mistake built in: the judge must find it.
soak_mutants = %D%/mutant-ack %D%/mutant-zero %D%/mutant-job %D%/mutant-call %D%/mutant-keeper
EXTRA_PROGRAMS += $(soak_mutants)
CLEANFILES += $(soak_mutants)
%C%_mutant_ack_SOURCES = $(soak_files)
%C%_mutant_ack_CPPFLAGS = $(AM_CPPFLAGS) -DSOAK_MUTANT_ACK
%C%_mutant_ack_LDADD = $(soak_ldadd)
%C%_mutant_zero_SOURCES = $(soak_files) $(publisher_files)
%C%_mutant_zero_CPPFLAGS = $(AM_CPPFLAGS) -include $(top_srcdir)/tests/kill/mutate.h \
	-DSHMB_MUTATE_ZERO
%C%_mutant_zero_LDADD = $(soak_ldadd)
%C%_mutant_job_SOURCES = $(soak_files) lib/queue.c
%C%_mutant_job_CPPFLAGS = $(AM_CPPFLAGS) -include $(top_srcdir)/tests/kill/mutate.h \
	-DSHMB_MUTATE_JOB_MARK
%C%_mutant_job_LDADD = $(soak_ldadd)
%C%_mutant_keeper_SOURCES = $(soak_files)
%C%_mutant_keeper_CPPFLAGS = $(AM_CPPFLAGS) -DSOAK_MUTANT_KEEPER
%C%_mutant_keeper_LDADD = $(soak_ldadd)
%C%_mutant_call_SOURCES = $(soak_files)
%C%_mutant_call_CPPFLAGS = $(AM_CPPFLAGS) -DSOAK_MUTANT_CALL
%C%_mutant_call_LDADD = $(soak_ldadd)

once_tests += %D%/chaos.sh
EXTRA_DIST += %D%/chaos.sh
%D%/chaos.log: %D%/soak $(if $(filter 1,$(SHMB_TEST_QUICK)),,$(soak_mutants))
choosy_logs += %D%/chaos.log
