# One side writes whatever it likes into the memory that is its own.
hostile_files = %D%/hostile.c %D%/hostile.h

hostile_tests =
hostile_tests += %D%/hostile-lane
%C%_hostile_lane_SOURCES = %D%/hostile-lane.c $(hostile_files)
%C%_hostile_lane_LDADD = daemon/libbroker.la lib/libshmb.la
hostile_tests += %D%/hostile-cell
%C%_hostile_cell_SOURCES = %D%/hostile-cell.c $(hostile_files)
%C%_hostile_cell_LDADD = daemon/libbroker.la lib/libshmb.la
hostile_tests += %D%/hostile-queue
%C%_hostile_queue_SOURCES = %D%/hostile-queue.c $(hostile_files)
%C%_hostile_queue_LDADD = daemon/libbroker.la lib/libshmb.la
hostile_tests += %D%/hostile-call
%C%_hostile_call_SOURCES = %D%/hostile-call.c $(hostile_files)
%C%_hostile_call_LDADD = daemon/libbroker.la lib/libshmb.la
hostile_tests += %D%/hostile-cursor
%C%_hostile_cursor_SOURCES = %D%/hostile-cursor.c $(hostile_files)
%C%_hostile_cursor_LDADD = daemon/libbroker.la lib/libshmb.la
hostile_tests += %D%/hostile-probe
%C%_hostile_probe_SOURCES = %D%/hostile-probe.c $(hostile_files)
%C%_hostile_probe_LDADD = daemon/libbroker.la lib/libshmb.la
%C%_hostile_probe_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=shmb_map_reader -Wl,--wrap=shmb_map_writer
if HAVE_CHECK
hostile_tests += %D%/hostile-broker
%C%_hostile_broker_SOURCES = %D%/hostile-broker.c tests/unit/fixture.h
%C%_hostile_broker_LDADD = lib/libshmb.la daemon/libbroker.la lib/libshmb.la $(CHECK_LIBS)
hostile_tests += %D%/hostile-fds
%C%_hostile_fds_SOURCES = %D%/hostile-fds.c tests/unit/fixture.h tests/unit/gate.h
%C%_hostile_fds_LDADD = daemon/libbroker.la lib/libshmb.la $(CHECK_LIBS)
endif

check_PROGRAMS += $(hostile_tests)
TESTS += $(hostile_tests)
