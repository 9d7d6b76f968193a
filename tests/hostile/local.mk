# One side writes whatever it likes into the memory that is its own.
hostile_files = %D%/hostile.c %D%/hostile.h

hostile_tests =
hostile_tests += %D%/hostile-lane
%C%_hostile_lane_SOURCES = %D%/hostile-lane.c $(hostile_files)
%C%_hostile_lane_LDADD = daemon/libbroker.la lib/libshmb.la
#NEXT

check_PROGRAMS += $(hostile_tests)
TESTS += $(hostile_tests)
