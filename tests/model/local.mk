# Every interleaving, and every order that the memory model allows. SHMB_TEST_QUICK=1: fewer.
# Sanitizers do not understand stacks that are switched, and would find nothing.
model_files = %D%/dfs.c %D%/dfs.h %D%/model.h

model_tests =
model_tests += %D%/model-lane
%C%_model_lane_SOURCES = %D%/model-lane.c $(model_files)
%C%_model_lane_CFLAGS = $(AM_CFLAGS) -O3
model_tests += %D%/model-mark
%C%_model_mark_SOURCES = %D%/model-lane.c $(model_files)
%C%_model_mark_CPPFLAGS = $(AM_CPPFLAGS) -DMODEL_N_MARKS=1u
%C%_model_mark_CFLAGS = $(AM_CFLAGS) -O3
model_tests += %D%/model-bell
%C%_model_bell_SOURCES = %D%/model-bell.c $(model_files)
%C%_model_bell_CFLAGS = $(AM_CFLAGS) -O3
model_tests += %D%/model-cell
%C%_model_cell_SOURCES = %D%/model-cell.c %D%/dfs.c %D%/dfs.h
%C%_model_cell_CFLAGS = $(AM_CFLAGS) -O3
model_tests += %D%/model-queue
%C%_model_queue_SOURCES = %D%/model-queue.c %D%/dfs.c %D%/dfs.h
%C%_model_queue_CFLAGS = $(AM_CFLAGS) -O3
model_tests += %D%/model-block
%C%_model_block_SOURCES = %D%/model-block.c %D%/dfs.c %D%/dfs.h
%C%_model_block_CFLAGS = $(AM_CFLAGS) -O3
model_tests += %D%/model-call
%C%_model_call_SOURCES = %D%/model-call.c $(model_files)
%C%_model_call_CFLAGS = $(AM_CFLAGS) -O3

if !SANITIZED
check_PROGRAMS += $(model_tests)
once_tests += $(model_tests) %D%/mutants.sh %D%/run-spin.sh
endif
%D%/mutants.log: $(model_tests)
choosy_logs += %D%/mutants.log %D%/run-spin.log
dist_check_SCRIPTS += %D%/mutants.sh %D%/run-spin.sh
EXTRA_DIST += %D%/stamps.pml %D%/store-buffer.pml %D%/doorbell.pml %D%/lane.pml %D%/attach.pml %D%/readopt.pml %D%/kept.pml
