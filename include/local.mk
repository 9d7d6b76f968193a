shmbincludedir = $(includedir)/shmbroker
shmbinclude_HEADERS = \
	%D%/shmbroker/cell.h \
	%D%/shmbroker/layout.h \
	%D%/shmbroker/protocol.h \
	%D%/shmbroker/ring.h \
	%D%/shmbroker/schema.h \
	%D%/shmbroker/shmbroker.h
nodist_shmbinclude_HEADERS = %D%/shmbroker/version.h

# For languages that do not read C headers: declarations without macros, and every offset.
shmbdatadir = $(datadir)/shmbroker
nodist_shmbdata_DATA = %D%/shmbroker.cdef
dist_shmbdata_DATA = %D%/abi.json

%D%/shmbroker.cdef: $(shmbinclude_HEADERS) scripts/make-cdef.awk
	$(AM_V_GEN)$(MKDIR_P) %D% && { \
		printf '#include <shmbroker/%s.h>\n' shmbroker schema ring cell | \
			$(CC) -E -x c -DSHMB_INLINE= -I$(top_srcdir)/include -Iinclude - && \
		echo --- && cat $(top_srcdir)/%D%/shmbroker/layout.h $(top_srcdir)/%D%/shmbroker/schema.h \
			$(top_srcdir)/%D%/shmbroker/shmbroker.h; \
	} >$@.pre && $(AWK) -f $(top_srcdir)/scripts/make-cdef.awk $@.pre >$@.new && \
		rm $@.pre && mv $@.new $@
CLEANFILES += %D%/shmbroker.cdef
EXTRA_DIST += scripts/make-cdef.awk
