# C examples: built with everything, run by the tests, not installed.
noinst_PROGRAMS += %D%/examples/publish %D%/examples/subscribe %D%/examples/receive-file
%C%_examples_publish_SOURCES = %D%/examples/publish.c %D%/examples/tick.h
%C%_examples_publish_LDADD = lib/libshmbroker.la
%C%_examples_subscribe_SOURCES = %D%/examples/subscribe.c %D%/examples/tick.h
%C%_examples_subscribe_LDADD = lib/libshmbroker.la
%C%_examples_receive_file_SOURCES = %D%/examples/receive-file.c
%C%_examples_receive_file_LDADD = lib/libshmbroker.la $(SODIUM_LIBS)
noinst_PROGRAMS += %D%/examples/set-state %D%/examples/watch-state
%C%_examples_set_state_SOURCES = %D%/examples/set-state.c %D%/examples/pose.h
%C%_examples_set_state_LDADD = lib/libshmbroker.la
%C%_examples_watch_state_SOURCES = %D%/examples/watch-state.c %D%/examples/pose.h
%C%_examples_watch_state_LDADD = lib/libshmbroker.la
noinst_PROGRAMS += %D%/examples/submit %D%/examples/work
%C%_examples_submit_SOURCES = %D%/examples/submit.c %D%/examples/task.h
%C%_examples_submit_LDADD = lib/libshmbroker.la
%C%_examples_work_SOURCES = %D%/examples/work.c %D%/examples/task.h
%C%_examples_work_LDADD = lib/libshmbroker.la
