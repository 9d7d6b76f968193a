# Hand-written mdoc(7).
dist_man_MANS += \
	%D%/libshmbroker.3 \
	%D%/shmbroker-layout.5 \
	%D%/shmbroker-reliability.7 \
	%D%/shmbroker.7 \
	%D%/shmbrokerd.8 \
	%D%/shmbrokerd.conf.5
dist_man_MANS += %D%/shmctl.1
