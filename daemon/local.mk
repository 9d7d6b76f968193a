# The broker core: the daemon, the per-user daemon and the embedded broker are this same code.
# Bottom-up: a file includes only what stands above it (scripts/check-includes.sh reads this list).
noinst_LTLIBRARIES += %D%/libbroker.la
%C%_libbroker_la_SOURCES = \
	%D%/loop-internal.h \
	%D%/loop.c %D%/loop.h \
	%D%/loop-timer.c \
	%D%/loop-reaper.c \
	%D%/loop-listen.c \
	%D%/loop-conn.c \
	%D%/loop-epoll.c \
	%D%/list.h \
	%D%/table.c %D%/table.h \
	%D%/log.c %D%/log.h \
	%D%/quota.c %D%/quota.h \
	%D%/policy.c %D%/policy.h \
	%D%/peer.c %D%/peer.h \
	%D%/opener.c %D%/opener.h \
	%D%/store.c %D%/store.h \
	%D%/segment.c %D%/segment.h \
	%D%/parcel.c %D%/parcel.h \
	%D%/lock.c %D%/lock.h \
	%D%/registry.c %D%/registry.h \
	%D%/keeper.h \
	%D%/model.h \
	%D%/keeper.c %D%/keeper-main.c \
	%D%/idle.c %D%/idle.h \
	%D%/fence.c %D%/fence.h \
	%D%/listener.c %D%/listener.h \
	%D%/connection.c %D%/connection.h \
	%D%/bell.c %D%/bell.h \
	%D%/view.c %D%/view.h \
	%D%/pair.c %D%/pair.h \
	%D%/keep.c %D%/keep.h \
	%D%/key.c %D%/key.h \
	%D%/directory.c %D%/directory.h \
	%D%/channel.c %D%/channel.h \
	%D%/arena.c %D%/arena.h \
	%D%/member-internal.h \
	%D%/member.c %D%/member.h \
	%D%/member-slot.c \
	%D%/member-adopt.c \
	%D%/member-pairs.c \
	%D%/member-move.c \
	%D%/member-kept.c \
	%D%/estate.c %D%/estate.h \
	%D%/client.c %D%/client.h \
	%D%/request.c %D%/request.h \
	%D%/request-channel.c \
	%D%/request-member.c \
	%D%/request-pair.c \
	%D%/request-key.c \
	%D%/control.c %D%/control.h \
	%D%/adopt.c %D%/adopt.h \
	%D%/broker.c %D%/broker.h \
	%D%/embedded.c
if HAVE_LIBURING
%C%_libbroker_la_SOURCES += %D%/loop-uring.c
else
%C%_libbroker_la_SOURCES += %D%/loop-uring-fallback.c
endif

# The configuration file is the daemon's alone: the library does not depend on its parser.
sbin_PROGRAMS += shmbrokerd
shmbrokerd_SOURCES = %D%/conf.c %D%/conf.h %D%/main.c
shmbrokerd_CFLAGS = $(AM_CFLAGS) $(CONFUSE_CFLAGS)
shmbrokerd_LDADD = %D%/libbroker.la lib/libshmb.la $(CONFUSE_LIBS)

shmbconfdir = $(sysconfdir)/shmbroker
dist_shmbconf_DATA = %D%/data/shmbrokerd.conf
systemdsystemunit_DATA = %D%/data/shmbrokerd.service
dist_systemdsystemunit_DATA = %D%/data/shmbrokerd.socket
EXTRA_DIST += %D%/data/shmbrokerd.service.in %D%/data/shmbroker.tmpfiles \
	%D%/data/shmbroker.sysusers
CLEANFILES += %D%/data/shmbrokerd.service

%D%/data/shmbrokerd.service: %D%/data/shmbrokerd.service.in
	$(AM_V_GEN)$(MKDIR_P) %D%/data && \
	$(SED) -e 's|@sbindir[@]|$(sbindir)|g' -e 's|@sysconfdir[@]|$(sysconfdir)|g' \
		'$(srcdir)/%D%/data/shmbrokerd.service.in' > $@.tmp && mv $@.tmp $@

# systemd's names for these differ from ours, and their directories are not below a prefix.
install-data-local:
	$(MKDIR_P) '$(DESTDIR)$(prefix)/lib/tmpfiles.d' '$(DESTDIR)$(prefix)/lib/sysusers.d'
	$(INSTALL_DATA) '$(srcdir)/%D%/data/shmbroker.tmpfiles' \
		'$(DESTDIR)$(prefix)/lib/tmpfiles.d/shmbroker.conf'
	$(INSTALL_DATA) '$(srcdir)/%D%/data/shmbroker.sysusers' \
		'$(DESTDIR)$(prefix)/lib/sysusers.d/shmbroker.conf'
uninstall-local:
	rm -f '$(DESTDIR)$(prefix)/lib/tmpfiles.d/shmbroker.conf' \
		'$(DESTDIR)$(prefix)/lib/sysusers.d/shmbroker.conf'
