# For scripts/cross: processes of several machines in one segment.
check_PROGRAMS += %D%/peer
%C%_peer_SOURCES = %D%/peer.c
%C%_peer_LDADD = daemon/libbroker.la lib/libshmb.la
