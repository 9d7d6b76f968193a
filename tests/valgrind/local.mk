once_tests += %D%/memcheck.sh
EXTRA_DIST += %D%/memcheck.sh
