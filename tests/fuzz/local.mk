# Parsers of what others write, under fuzzed bytes. Here their corpora are replayed; scripts/fuzz
# builds the same programs with libFuzzer in place of replay.c.
LDFLAGS_FUZZ =
fuzz_targets =
fuzz_driver = %D%/replay.c %D%/fuzz.h

fuzz_targets += %D%/fuzz-lane
%C%_fuzz_lane_SOURCES = %D%/fuzz-lane.c $(fuzz_driver)
%C%_fuzz_lane_LDADD = lib/libshmb.la
%C%_fuzz_lane_LDFLAGS = $(AM_LDFLAGS) $(LDFLAGS_FUZZ)
fuzz_targets += %D%/fuzz-cursor
%C%_fuzz_cursor_SOURCES = %D%/fuzz-cursor.c $(fuzz_driver)
%C%_fuzz_cursor_LDADD = lib/libshmb.la
%C%_fuzz_cursor_LDFLAGS = $(AM_LDFLAGS) $(LDFLAGS_FUZZ)
fuzz_targets += %D%/fuzz-queue
%C%_fuzz_queue_SOURCES = %D%/fuzz-queue.c $(fuzz_driver)
%C%_fuzz_queue_LDADD = lib/libshmb.la
%C%_fuzz_queue_LDFLAGS = $(AM_LDFLAGS) $(LDFLAGS_FUZZ)
fuzz_targets += %D%/fuzz-handshake
%C%_fuzz_handshake_SOURCES = %D%/fuzz-handshake.c $(fuzz_driver)
%C%_fuzz_handshake_LDADD = lib/libshmb.la $(SODIUM_LIBS)
%C%_fuzz_handshake_LDFLAGS = $(AM_LDFLAGS) $(LDFLAGS_FUZZ)
fuzz_targets += %D%/fuzz-schema
%C%_fuzz_schema_SOURCES = %D%/fuzz-schema.c $(fuzz_driver) \
	tools/decode.c tools/decode-scalar.c tools/encode.c tools/print.c
%C%_fuzz_schema_CPPFLAGS = $(AM_CPPFLAGS) -D_GNU_SOURCE
%C%_fuzz_schema_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
%C%_fuzz_schema_LDADD = lib/libshmb.la $(JANSSON_LIBS)
%C%_fuzz_schema_LDFLAGS = $(AM_LDFLAGS) $(LDFLAGS_FUZZ)
fuzz_targets += %D%/fuzz-conf
%C%_fuzz_conf_SOURCES = %D%/fuzz-conf.c daemon/conf.c $(fuzz_driver)
%C%_fuzz_conf_LDADD = daemon/libbroker.la lib/libshmb.la $(CONFUSE_LIBS)
%C%_fuzz_conf_LDFLAGS = $(AM_LDFLAGS) $(LDFLAGS_FUZZ)
fuzz_targets += %D%/fuzz-keyfile
%C%_fuzz_keyfile_SOURCES = %D%/fuzz-keyfile.c $(fuzz_driver)
%C%_fuzz_keyfile_LDADD = lib/libshmb.la
%C%_fuzz_keyfile_LDFLAGS = $(AM_LDFLAGS) $(LDFLAGS_FUZZ)

fuzz_targets += %D%/fuzz-registry
%C%_fuzz_registry_SOURCES = %D%/fuzz-registry.c $(fuzz_driver) \
	tools/inspect.c tools/inspect-segment.c
%C%_fuzz_registry_CPPFLAGS = $(AM_CPPFLAGS) -D_GNU_SOURCE
%C%_fuzz_registry_LDADD = daemon/libbroker.la lib/libshmb.la
%C%_fuzz_registry_LDFLAGS = $(AM_LDFLAGS) $(LDFLAGS_FUZZ)
fuzz_targets += %D%/fuzz-message
%C%_fuzz_message_SOURCES = %D%/fuzz-message.c $(fuzz_driver)
%C%_fuzz_message_LDADD = daemon/libbroker.la lib/libshmb.la $(SODIUM_LIBS)
%C%_fuzz_message_LDFLAGS = $(AM_LDFLAGS) $(LDFLAGS_FUZZ)
fuzz_targets += %D%/fuzz-grant
%C%_fuzz_grant_SOURCES = %D%/fuzz-grant.c $(fuzz_driver)
%C%_fuzz_grant_LDADD = lib/libshmb.la $(SODIUM_LIBS)
%C%_fuzz_grant_LDFLAGS = $(AM_LDFLAGS) $(LDFLAGS_FUZZ)

check_PROGRAMS += $(fuzz_targets)
TESTS += %D%/replay.sh
EXTRA_DIST += %D%/replay.sh %D%/corpus-conf %D%/corpus-cursor %D%/corpus-grant \
	%D%/corpus-handshake %D%/corpus-keyfile %D%/corpus-lane %D%/corpus-message \
	%D%/corpus-queue %D%/corpus-registry %D%/corpus-schema
%D%/replay.log: $(fuzz_targets)
choosy_logs += %D%/replay.log
