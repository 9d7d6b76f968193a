# The broker core: the daemon, the per-user daemon and the embedded broker are this same code.
noinst_LTLIBRARIES += %D%/libbroker.la
%C%_libbroker_la_SOURCES = \
	%D%/loop-internal.h \
	%D%/loop.c %D%/loop.h \
	%D%/loop-timer.c \
	%D%/loop-reaper.c \
	%D%/loop-listen.c \
	%D%/loop-conn.c \
	%D%/loop-epoll.c
if HAVE_LIBURING
%C%_libbroker_la_SOURCES += %D%/loop-uring.c
else
%C%_libbroker_la_SOURCES += %D%/loop-uring-fallback.c
endif
