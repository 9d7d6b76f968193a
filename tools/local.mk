# shmctl: an ordinary client of the installed library.
bin_PROGRAMS += shmctl
# Bottom-up: a file includes only what stands above it (scripts/check-includes.sh reads this list).
shmctl_SOURCES = \
	%D%/print.c %D%/print.h \
	%D%/decode.h %D%/decode-scalar.c %D%/decode.c %D%/encode.c \
	%D%/command.c %D%/command.h \
	%D%/place.c %D%/place.h \
	%D%/inspect-internal.h %D%/inspect.h %D%/inspect.c %D%/inspect-segment.c \
	%D%/process.c %D%/process.h \
	%D%/look.c %D%/look.h \
	%D%/ls.c \
	%D%/show.h %D%/show.c %D%/show-json.c \
	%D%/why.h %D%/why-cause.c %D%/why-member.c %D%/why-subscriber.c %D%/why-worker.c \
	%D%/why-traffic.c %D%/why.c \
	%D%/top.c \
	%D%/pub.h %D%/pub.c %D%/pub-input.c \
	%D%/cat.h %D%/cat.c %D%/cat-print.c \
	%D%/work.c \
	%D%/ping.h %D%/ping.c %D%/ping-raw.c %D%/ping-peer.c \
	%D%/doctor.h %D%/doctor.c %D%/doctor-kernel.c %D%/doctor-machine.c %D%/doctor-memory.c \
	%D%/doctor-broker.c \
	%D%/state.c \
	%D%/call.c \
	%D%/rm.c \
	%D%/keygen.c \
	%D%/shmctl.c
shmctl_CPPFLAGS = $(AM_CPPFLAGS) -D_GNU_SOURCE
shmctl_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS) $(NCURSES_CFLAGS)
shmctl_LDADD = lib/libshmbroker.la $(JANSSON_LIBS) $(NCURSES_LIBS) $(SODIUM_LIBS)

bashcompletiondir = $(datadir)/bash-completion/completions
bashcompletion_DATA = %D%/completion/shmctl
EXTRA_DIST += %D%/shmctl.bash-completion
CLEANFILES += %D%/completion/shmctl
# bash-completion finds it by the command's name.
%D%/completion/shmctl: %D%/shmctl.bash-completion
	$(AM_V_GEN)$(MKDIR_P) $(@D) && cp $(srcdir)/%D%/shmctl.bash-completion $@
