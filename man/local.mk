# Hand-written mdoc(7).
dist_man_MANS += %D%/shmctl.1
