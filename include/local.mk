shmbincludedir = $(includedir)/shmbroker
shmbinclude_HEADERS = \
	%D%/shmbroker/layout.h \
	%D%/shmbroker/protocol.h \
	%D%/shmbroker/ring.h \
	%D%/shmbroker/schema.h \
	%D%/shmbroker/shmbroker.h
nodist_shmbinclude_HEADERS = %D%/shmbroker/version.h
