# ThreadSanitizer on threads that share one mapping. It builds its own program.
once_tests += %D%/run.sh
EXTRA_DIST += %D%/run.sh %D%/weak.h %D%/lane-threads.c %D%/cell-threads.c
choosy_logs += %D%/run.log
