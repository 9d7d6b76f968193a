# shmctl: an ordinary client of the installed library.
