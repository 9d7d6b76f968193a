# The benchmark: "make bench". Never part of "make check": its figures need a quiet machine.
EXTRA_PROGRAMS += %D%/shmb-bench %D%/shmb-scale
%C%_shmb_scale_SOURCES = %D%/scale.c
%C%_shmb_scale_LDADD = lib/libshmbroker.la
%C%_shmb_bench_SOURCES = \
	%D%/bench.h \
	%D%/main.c \
	%D%/quiet.c \
	%D%/pair.c \
	%D%/stats.c \
	%D%/report.c \
	%D%/aims.c \
	%D%/json.c \
	%D%/plot.c \
	%D%/single.c \
	%D%/ends.c %D%/ends.h \
	%D%/lane.h \
	%D%/work-floors.c \
	%D%/work-lane.c \
	%D%/work-shmb.c \
	%D%/work-kernel.c \
	%D%/work-local.c \
	%D%/work-queue.c \
	%D%/work-state.c \
	%D%/work-block.c \
	%D%/work-call.c
if HAVE_ZMQ
%C%_shmb_bench_SOURCES += %D%/work-zmq.c
else
%C%_shmb_bench_SOURCES += %D%/work-zmq-fallback.c
endif
%C%_shmb_bench_CPPFLAGS = $(AM_CPPFLAGS) -iquote $(srcdir)/%D%
%C%_shmb_bench_CFLAGS = $(AM_CFLAGS) $(ZMQ_CFLAGS) $(JANSSON_CFLAGS)
# The installed library, not the objects: callers pay for symbols too.
%C%_shmb_bench_LDADD = lib/libshmbroker.la $(ZMQ_LIBS) $(JANSSON_LIBS)
EXTRA_DIST += %D%/plot.gp %D%/work-zmq.c %D%/work-zmq-fallback.c
CLEANFILES += %D%/shmb-bench$(EXEEXT) %D%/shmb-scale$(EXEEXT) bench.json bench.json.gp bench-rtt.svg bench-stream.svg \
	bench-bandwidth.svg

# Runs of several users or trees would disturb each other: the lock is the machine's.
BENCH_FLAGS =
bench: %D%/shmb-bench$(EXEEXT) %D%/shmb-scale$(EXEEXT) shmbrokerd$(EXEEXT)
	flock "$${TMPDIR:-/tmp}/shmb-bench.lock" \
		%D%/shmb-bench --json bench.json $(BENCH_FLAGS)
	if command -v gnuplot >/dev/null; then \
		gnuplot -e "data = 'bench.json.gp'; kind = 'svg'" $(srcdir)/%D%/plot.gp; fi
	flock "$${TMPDIR:-/tmp}/shmb-bench.lock" %D%/shmb-scale ./shmbrokerd
.PHONY: bench
