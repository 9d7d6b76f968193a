/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/error.h"
#include "lib/fd.h"
#include "lib/keyfile.h"

#define KEYFILE_LEN_MAX 4096
#define KEY_TEXT_LEN	43 /* base64url of 32 bytes without padding */
#define PRIVATE_HEAD	"shmbroker-private-key-v1\n"
#define KEY_PREFIX	"x25519:"
#define NAME_LEN_MAX	64

/* Owner and mode rules differ; everything else is the same for both kinds of file. */
static int keyfile_check_private(const char *path, const struct stat *st)
{
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return shmb_fail(-EACCES, "%s: belongs to uid %u", path, (unsigned)st->st_uid);
	if (st->st_mode & 077)
		return shmb_fail(-EACCES, "%s: mode 0%o lets others at a private key", path,
				 st->st_mode & 07777);
	if (st->st_nlink != 1)
		return shmb_fail(-EACCES, "%s: has %lu names", path, (unsigned long)st->st_nlink);
	return 0;
}

static int keyfile_check_public(const char *path, const struct stat *st)
{
	char dir[PATH_MAX];
	struct stat parent;
	char *slash;

	if (st->st_mode & 022)
		return shmb_fail(-EACCES, "%s: mode 0%o lets others replace the key", path,
				 st->st_mode & 07777);
	if (st->st_uid == geteuid() || st->st_uid == 0)
		return 0;
	if (strlen(path) >= sizeof(dir))
		return shmb_fail(-EACCES, "%s: name too long", path);
	strcpy(dir, path);
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir ? 1 : 0] = '\0';
	if (stat(slash ? dir : ".", &parent) < 0 || parent.st_uid != st->st_uid)
		return shmb_fail(-EACCES, "%s: belongs to uid %u", path, (unsigned)st->st_uid);
	return 0;
}

static int read_all(int fd, char *text, size_t cap)
{
	size_t len = 0;
	ssize_t n;

	while (len < cap) {
		n = read(fd, text + len, cap - len);
		if (n == 0)
			break;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		len += (size_t)n;
	}
	return (int)len;
}

/* Reads a key file whole, NUL-terminated. */
static int keyfile_read(const char *path, bool private, char text[KEYFILE_LEN_MAX + 1])
{
	struct stat st;
	int fd, n, r;

	/* Without O_NONBLOCK a FIFO in its place would block us here. */
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0) {
		if (errno == ENOENT)
			return shmb_fail(-ENOENT, "%s: no such file", path);
		return shmb_fail(shmb_fd_shortage(errno) ? -errno : -EACCES, "%s: %s", path,
				 errno == ELOOP ? "is a symbolic link" : strerrordesc_np(errno));
	}
	if (fstat(fd, &st) < 0)
		r = shmb_fail(shmb_fd_shortage(errno) ? -errno : -EACCES, "%s: %s", path,
			      strerrordesc_np(errno));
	else if (!S_ISREG(st.st_mode))
		r = shmb_fail(-EACCES, "%s: not a regular file", path);
	else if (private)
		r = keyfile_check_private(path, &st);
	else
		r = keyfile_check_public(path, &st);
	if (r == 0 && st.st_size > KEYFILE_LEN_MAX)
		r = shmb_fail(-EINVAL, "%s: %lld bytes are too many for a key file", path,
			      (long long)st.st_size);
	if (r == 0) {
		n = read_all(fd, text, KEYFILE_LEN_MAX);
		text[n > 0 ? n : 0] = '\0';
		r = n < 0 ? shmb_fail(-EINVAL, "%s: %s", path, strerrordesc_np(-n)) : 0;
		/* What stands behind it would not be looked at. */
		if (r == 0 && strlen(text) != (size_t)n)
			r = shmb_fail(-EINVAL, "%s: has a zero byte", path);
	}
	shmb_fd_close(fd);
	return r;
}

/* Returns what follows the key, or NULL. */
static const char *key_parse(const char *text, uint8_t key[SHMB_NOISE_KEY_LEN])
{
	size_t len = strlen(KEY_PREFIX);
	const char *end;
	size_t n;

	if (strncmp(text, KEY_PREFIX, len) != 0 || strnlen(text + len, KEY_TEXT_LEN) < KEY_TEXT_LEN)
		return NULL;
	if (sodium_base642bin(key, SHMB_NOISE_KEY_LEN, text + len, KEY_TEXT_LEN, NULL, &n, &end,
			      sodium_base64_VARIANT_URLSAFE_NO_PADDING) < 0)
		return NULL;
	if (n != SHMB_NOISE_KEY_LEN || end != text + len + KEY_TEXT_LEN ||
	    sodium_is_zero(key, SHMB_NOISE_KEY_LEN))
		return NULL;
	return end;
}

int shmb_keyfile_load_private(const char *path, struct shmb_noise_keypair *keypair)
{
	char text[KEYFILE_LEN_MAX + 1];
	size_t head = strlen(PRIVATE_HEAD);
	const char *rest = NULL;
	int r;

	r = keyfile_read(path, true, text);
	if (r < 0)
		return r;
	if (strncmp(text, PRIVATE_HEAD, head) == 0)
		rest = key_parse(text + head, keypair->secret);
	if (!rest || strcmp(rest, "\n") != 0 ||
	    shmb_noise_public_from_secret(keypair->public, keypair->secret) < 0) {
		sodium_memzero(keypair, sizeof(*keypair));
		r = shmb_fail(-EINVAL, "%s: not a private key file", path);
	}
	sodium_memzero(text, sizeof(text));
	return r;
}

int shmb_keyfile_load_public(const char *path, uint8_t public_key[SHMB_NOISE_KEY_LEN])
{
	char text[KEYFILE_LEN_MAX + 1];
	const char *rest;
	int r;

	r = keyfile_read(path, false, text);
	if (r < 0)
		return r;
	rest = key_parse(text, public_key);
	if (!rest || (*rest != ' ' && *rest != '\n'))
		return shmb_fail(-EINVAL, "%s: does not begin with a public key", path);
	return 0;
}

static int write_all(int fd, const char *text, size_t len)
{
	ssize_t n;

	while (len > 0) {
		n = write(fd, text, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

/*
 * Nobody ever sees half a key: the file gets its name when it is complete. What a writer leaves that
 * is killed here the next one removes.
 */
static int keyfile_write(const char *path, const char *text, mode_t mode, bool replace)
{
	char temporary[PATH_MAX];
	int fd, r;

	r = snprintf(temporary, sizeof(temporary), "%s.new", path);
	if (r < 0 || (size_t)r >= sizeof(temporary))
		return shmb_fail(-ENAMETOOLONG, "%s: name too long", path);
	unlink(temporary);
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return shmb_fail(-errno, "%s: %s", temporary, strerrordesc_np(errno));
	r = write_all(fd, text, strlen(text));
	if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
		r = -errno;
	if (r == 0 &&
	    renameat2(AT_FDCWD, temporary, AT_FDCWD, path, replace ? 0 : RENAME_NOREPLACE) < 0)
		r = -errno;
	if (r == -EINVAL && !replace) /* a file system without RENAME_NOREPLACE */
		r = link(temporary, path) < 0 ? -errno : 0;
	/* After a rename the name is gone already. */
	unlink(temporary);
	shmb_fd_close(fd);
	if (r < 0)
		return shmb_fail(r, "%s: %s", path, strerrordesc_np(-r));
	return 0;
}

int shmb_keyfile_write_private(const char *path, const struct shmb_noise_keypair *keypair)
{
	char text[256];
	char key[KEY_TEXT_LEN + 1];
	int r;

	sodium_bin2base64(key, sizeof(key), keypair->secret, SHMB_NOISE_KEY_LEN,
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	snprintf(text, sizeof(text), PRIVATE_HEAD KEY_PREFIX "%s\n", key);
	r = keyfile_write(path, text, 0600, false);
	sodium_memzero(key, sizeof(key));
	sodium_memzero(text, sizeof(text));
	return r;
}

int shmb_keyfile_write_public(const char *path, const uint8_t public_key[SHMB_NOISE_KEY_LEN],
			      const char *name)
{
	char text[256];
	char key[KEY_TEXT_LEN + 1];

	if (name[0] == '\0' || strlen(name) > NAME_LEN_MAX ||
	    name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-")] != '\0')
		return shmb_fail(-EINVAL, "%s: not a name for a key", name);
	sodium_bin2base64(key, sizeof(key), public_key, SHMB_NOISE_KEY_LEN,
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	snprintf(text, sizeof(text), KEY_PREFIX "%s %s\n", key, name);
	return keyfile_write(path, text, 0644, true);
}
