# The ABI: bytes, symbols, headers, and what is installed.
check_PROGRAMS += %D%/layout
%C%_layout_SOURCES = %D%/layout.c
nodist_%C%_layout_SOURCES = %D%/layout-list.h %D%/api-list.h

check_PROGRAMS += %D%/stranger-helper
%C%_stranger_helper_SOURCES = %D%/stranger-helper.c
%C%_stranger_helper_LDADD = lib/libshmbroker.la

layout_headers = \
	$(top_srcdir)/include/shmbroker/layout.h \
	$(top_srcdir)/include/shmbroker/protocol.h \
	$(top_srcdir)/include/shmbroker/schema.h
api_headers = \
	$(top_srcdir)/include/shmbroker/ring.h \
	$(top_srcdir)/include/shmbroker/shmbroker.h

%D%/layout-list.h: %D%/list-layout.awk $(layout_headers)
	$(AM_V_GEN)$(MKDIR_P) %D% && \
		$(AWK) -f $(top_srcdir)/%D%/list-layout.awk $(layout_headers) >$@.new && mv $@.new $@
%D%/api-list.h: %D%/list-layout.awk $(api_headers)
	$(AM_V_GEN)$(MKDIR_P) %D% && \
		$(AWK) -f $(top_srcdir)/%D%/list-layout.awk $(api_headers) >$@.new && mv $@.new $@
$(builddir)/%D%/layout.$(OBJEXT): %D%/layout-list.h %D%/api-list.h
CLEANFILES += %D%/layout-list.h %D%/api-list.h

# After a deliberate change of the ABI: write down what it is now.
abi-files: %D%/layout$(EXEEXT)
	%D%/layout >$(top_srcdir)/%D%/layout.golden
	%D%/layout --json $(top_srcdir)/lib/libshmbroker.map >$(top_srcdir)/include/abi.json
.PHONY: abi-files

abi_tests = %D%/layout.sh %D%/symbols.sh %D%/headers.sh %D%/cdef.sh %D%/installed.sh \
	%D%/run-stranger.sh
once_tests += $(abi_tests)
$(abi_tests:.sh=.log): %D%/layout %D%/stranger-helper
choosy_logs += $(abi_tests:.sh=.log)
EXTRA_DIST += $(abi_tests) %D%/list-layout.awk %D%/layout.golden %D%/installed.c \
	%D%/parse-cdef.py %D%/stranger.py %D%/check-layout-page.awk
