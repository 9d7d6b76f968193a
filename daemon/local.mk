# The broker core: the daemon, the per-user daemon and the embedded broker are this same code.
noinst_LTLIBRARIES += %D%/libbroker.la
%C%_libbroker_la_SOURCES = \
	%D%/loop.c %D%/loop.h
if HAVE_LIBURING
%C%_libbroker_la_SOURCES += %D%/loop-uring.c
else
%C%_libbroker_la_SOURCES += %D%/loop-uring-fallback.c
endif
%C%_libbroker_la_LIBADD = lib/libshmb.la
