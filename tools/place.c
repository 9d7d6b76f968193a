/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Finds the directory of a broker and what it says about itself, without talking to it: it may be
 * stopped, killed, or stuck. Nothing in there is trusted.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/command.h"
#include "tools/place.h"

#define SOCKET_FILE "control.sock"
#define LOCK_FILE   "broker.lock"

int place_read_file(const char *path, void *data, size_t cap)
{
	/* O_NONBLOCK: a fifo in the file's place must not stop us. */
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = fstat(fd, &st);
	if (n == 0)
		n = S_ISREG(st.st_mode) ? pread(fd, data, cap, 0) : (errno = EINVAL, -1);
	n = n < 0 ? -errno : n;
	close(fd);
	return n;
}

int place_is_listening(const char *address)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int fd, r;

	if (strlen(address) >= sizeof(name.sun_path))
		return -ENAMETOOLONG;
	strcpy(name.sun_path, address);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = connect(fd, (struct sockaddr *)&name, sizeof(name)) < 0 ? -errno : 1;
	close(fd);
	return r == -EAGAIN ? 1 : r; /* busy, so somebody is there */
}

static const char *search(char *address, size_t cap)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");

	snprintf(address, cap, "%s/%s", PLACE_SYSTEM_DIR, SOCKET_FILE);
	if (access(address, F_OK) == 0)
		return address;
	if (dir && *dir == '/')
		snprintf(address, cap, "%s/shmbroker/%s", dir, SOCKET_FILE);
	else
		snprintf(address, cap, "/tmp/shmbroker-%u/%s", (unsigned)getuid(), SOCKET_FILE);
	return address;
}

static int find_instance(struct place *place, char *why, size_t cap)
{
	char path[PATH_MAX + 16], digits[17] = "";
	int r;

	snprintf(path, sizeof(path), "%s/%s", place->dir, LOCK_FILE);
	r = place_read_file(path, digits, sizeof(digits) - 1);
	if (r == -ENOENT) {
		snprintf(why, cap, "no broker has run at %s", place->address);
		return r;
	}
	if (r < 0) {
		snprintf(why, cap, "cannot read %s: %s", path,
			 r == -EINVAL || r == -ELOOP ? "it is not a regular file" : strerror(-r));
		return r;
	}
	if (strspn(digits, "0123456789abcdef") == 16)
		place->instance = strtoull(digits, NULL, 16);
	if (place->instance == 0) {
		snprintf(why, cap,
			 "%s is not the lock file of a broker: it does not start with 16 "
			 "hex digits",
			 path);
		return -EINVAL;
	}
	return 0;
}

int place_find(struct place *place, char *why, size_t cap)
{
	const char *address = common.address ? common.address : getenv("SHMBROKER_ADDRESS");
	char *slash;
	int r;

	memset(place, 0, sizeof(*place));
	if (!address || *address == '\0')
		address = search(place->address, sizeof(place->address));
	if (strlen(address) >= sizeof(place->address)) {
		snprintf(why, cap, "the broker's address is too long");
		return -ENAMETOOLONG;
	}
	if (address != place->address)
		strcpy(place->address, address);
	strcpy(place->dir, place->address);
	slash = strrchr(place->dir, '/');
	if (slash)
		slash[slash == place->dir] = '\0';
	else
		strcpy(place->dir, ".");
	r = find_instance(place, why, cap);
	if (r < 0)
		return r;
	strcpy(place->segments_dir, PLACE_SHM_DIR);
	snprintf(place->registry, sizeof(place->registry), "%s/shmb.%016" PRIx64 ".registry",
		 PLACE_SHM_DIR, place->instance);
	return 0;
}
