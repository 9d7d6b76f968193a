# Bottom-up: a file includes only what stands above it (scripts/check-includes.sh reads this list).
libshmb_files = \
	%D%/api.h \
	%D%/schema.c \
	%D%/copy.c %D%/copy.h \
	%D%/noise.c %D%/noise.h

# Everything, with hidden symbols reachable: what the daemon and the tests link.
noinst_LTLIBRARIES += %D%/libshmb.la
%C%_libshmb_la_SOURCES = $(libshmb_files)
%C%_libshmb_la_LIBADD = $(URING_LIBS) $(SODIUM_LIBS)

# The installed library: the same objects, and the broker core for the embedded broker, behind
# the version script.
lib_LTLIBRARIES += %D%/libshmbroker.la
%C%_libshmbroker_la_SOURCES =
%C%_libshmbroker_la_LIBADD  = daemon/libbroker.la %D%/libshmb.la
%C%_libshmbroker_la_LDFLAGS = $(AM_LDFLAGS) -no-undefined \
	-version-info $(SHMB_ABI) \
	-Wl,--version-script=$(top_srcdir)/%D%/libshmbroker.map
EXTRA_%C%_libshmbroker_la_DEPENDENCIES = %D%/libshmbroker.map
EXTRA_DIST += %D%/libshmbroker.map

pkgconfigdir = $(libdir)/pkgconfig
pkgconfig_DATA = %D%/libshmbroker.pc
