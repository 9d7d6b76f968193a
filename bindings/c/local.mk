# C examples: built with everything, run by the tests, not installed.
noinst_PROGRAMS += %D%/examples/publish %D%/examples/subscribe %D%/examples/receive-file
%C%_examples_publish_SOURCES = %D%/examples/publish.c %D%/examples/tick.h
%C%_examples_publish_LDADD = lib/libshmbroker.la
%C%_examples_subscribe_SOURCES = %D%/examples/subscribe.c %D%/examples/tick.h
%C%_examples_subscribe_LDADD = lib/libshmbroker.la
%C%_examples_receive_file_SOURCES = %D%/examples/receive-file.c
%C%_examples_receive_file_LDADD = lib/libshmbroker.la $(SODIUM_LIBS)
