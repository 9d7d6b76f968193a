# Bottom-up: a file includes only what stands above it (scripts/check-includes.sh reads this list).
libshmb_files = \
	%D%/api.h \
	%D%/clock.h \
	%D%/version.c \
	%D%/ring.c \
	%D%/bell.h \
	%D%/history.c %D%/history.h \
	%D%/queue.c %D%/queue.h \
	%D%/newest.c %D%/newest.h \
	%D%/error.c %D%/error.h \
	%D%/call.c %D%/call.h \
	%D%/block.h \
	%D%/options.c %D%/options.h \
	%D%/schema.c \
	%D%/copy.c %D%/copy.h \
	%D%/copier.c %D%/copier.h \
	%D%/fork.c %D%/fork.h \
	%D%/fd.c %D%/fd.h \
	%D%/control-group.c %D%/control-group.h \
	%D%/map.c %D%/map.h \
	%D%/name.c %D%/name.h \
	%D%/noise.c %D%/noise.h \
	%D%/keyfile.c %D%/keyfile.h \
	%D%/runtime.c %D%/runtime.h \
	%D%/session.c %D%/session.h \
	%D%/spawn.c %D%/spawn.h \
	%D%/connection.c %D%/connection.h \
	%D%/inbox.h %D%/client.h %D%/client-internal.h \
	%D%/inbox.c \
	%D%/client-hear.c \
	%D%/client-request.c \
	%D%/client-connect.c \
	%D%/client-resume.c \
	%D%/client.c \
	%D%/extension.h \
	%D%/channel.c %D%/channel.h \
	%D%/ringer.c %D%/ringer.h \
	%D%/member.h %D%/member-internal.h \
	%D%/member-doorbell.c \
	%D%/member-move.c \
	%D%/member-event.c \
	%D%/member-sleep.c \
	%D%/member.c \
	%D%/fds.c %D%/fds.h \
	%D%/ahead.h \
	%D%/arena.c %D%/arena.h \
	%D%/hold.c %D%/hold.h \
	%D%/publisher.h %D%/subscriber.h \
	%D%/state.c \
	$(publisher_files) \
	$(subscriber_files) \
	%D%/link.c %D%/link.h \
	%D%/caller.c \
	%D%/server.c \
	%D%/poller.h \
	%D%/poller-epoll.c \
	%D%/waitset.c

publisher_files = \
	%D%/pub-internal.h \
	%D%/pub-pair.c \
	%D%/pub-space.c \
	%D%/pub-bell.c \
	%D%/pub-queue.c \
	%D%/pub-block.c \
	%D%/pub-fds.c \
	%D%/pub-send.c \
	%D%/pub-wait.c \
	%D%/publisher.c
subscriber_files = \
	%D%/sub-internal.h %D%/sub-look.h \
	%D%/sub-lane.c \
	%D%/sub-successor.c \
	%D%/sub-cursor.c \
	%D%/sub-look.c \
	%D%/sub-order.c \
	%D%/sub-priority.c \
	%D%/sub-conflate.c \
	%D%/sub-block.c \
	%D%/sub-fds.c \
	%D%/sub-state.c \
	%D%/sub-recv.c \
	%D%/sub-worker.c \
	%D%/sub-peer.c \
	%D%/sub-wait.c \
	%D%/subscriber.c

# Everything, with hidden symbols reachable: what the daemon and the tests link.
noinst_LTLIBRARIES += %D%/libshmb.la
%C%_libshmb_la_SOURCES = $(libshmb_files)
if HAVE_LIBURING
%C%_libshmb_la_SOURCES += %D%/poller-uring.c
else
%C%_libshmb_la_SOURCES += %D%/poller-uring-fallback.c
endif
%C%_libshmb_la_LIBADD = $(URING_LIBS) $(SODIUM_LIBS)

# The installed library: the same objects, and the broker core for the embedded broker, behind
# the version script.
lib_LTLIBRARIES += %D%/libshmbroker.la
%C%_libshmbroker_la_SOURCES =
%C%_libshmbroker_la_LIBADD  = daemon/libbroker.la %D%/libshmb.la
%C%_libshmbroker_la_LDFLAGS = $(AM_LDFLAGS) -no-undefined \
	-version-info $(SHMB_ABI) \
	-Wl,-Bsymbolic-functions -Wl,--version-script=$(top_srcdir)/%D%/libshmbroker.map
EXTRA_%C%_libshmbroker_la_DEPENDENCIES = %D%/libshmbroker.map
EXTRA_DIST += %D%/libshmbroker.map

pkgconfigdir = $(libdir)/pkgconfig
pkgconfig_DATA = %D%/libshmbroker.pc
