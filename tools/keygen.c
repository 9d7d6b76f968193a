/* SPDX-License-Identifier: Apache-2.0 */

/*
 * shmctl keygen: make the key with which a client proves who it is.
 *
 * The private key goes to a new file that only its owner can read, and nowhere else: it is never
 * printed. The public line goes to stdout, or to a file, for the broker's administrator.
 */

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/command.h"
#include "tools/print.h"

#define PRIVATE_MAGIC "shmbroker-private-key-v1\n"
#define KEY_TEXT_LEN  43 /* 32 bytes in base64url without padding */

struct arguments {
	const char *private_path;
	const char *public_path;
	char name[64];
};

static int write_new(const char *path, mode_t mode, const char *text, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	ssize_t n;

	if (fd < 0 && errno == EEXIST) {
		complain("%s exists; keygen never overwrites", path);
		return 1;
	}
	if (fd < 0) {
		complain("cannot create %s: %m", path);
		return 1;
	}
	/* Whatever the umask is. */
	n = fchmod(fd, mode) < 0 ? -1 : write(fd, text, len);
	if (n == (ssize_t)len)
		n = fsync(fd) < 0 ? -1 : n;
	if (n != (ssize_t)len) {
		complain("cannot write %s: %m", path);
		unlink(path);
		close(fd);
		return 1;
	}
	if (close(fd) < 0) {
		complain("cannot write %s: %m", path);
		unlink(path);
		return 1;
	}
	return 0;
}

/* [a-z0-9._-]+ made of the file's name. */
static void make_name(const char *path, char name[64])
{
	const char *base = strrchr(path, '/');
	size_t len = 0;

	base = base ? base + 1 : path;
	for (; *base && len < 63; base++) {
		char c = *base >= 'A' && *base <= 'Z' ? *base - 'A' + 'a' : *base;

		name[len++] = strchr("abcdefghijklmnopqrstuvwxyz0123456789._-", c) ? c : '-';
	}
	name[len] = '\0';
	if (len > 4 && strcmp(name + len - 4, ".key") == 0)
		name[len - 4] = '\0';
}

static int generate(const struct arguments *arguments)
{
	unsigned char public_key[crypto_box_PUBLICKEYBYTES], private_key[crypto_box_SECRETKEYBYTES];
	char public_text[KEY_TEXT_LEN + 1], private_text[KEY_TEXT_LEN + 1];
	char private_file[128], public_line[160];
	int status, len;

	if (sodium_init() < 0 || crypto_box_keypair(public_key, private_key) != 0) {
		complain("cannot make a key");
		return 1;
	}
	sodium_bin2base64(private_text, sizeof(private_text), private_key, sizeof(private_key),
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	sodium_bin2base64(public_text, sizeof(public_text), public_key, sizeof(public_key),
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	len = snprintf(private_file, sizeof(private_file), PRIVATE_MAGIC "x25519:%s\n",
		       private_text);
	status = write_new(arguments->private_path, 0600, private_file, len);
	sodium_memzero(private_key, sizeof(private_key));
	sodium_memzero(private_text, sizeof(private_text));
	sodium_memzero(private_file, sizeof(private_file));
	if (status)
		return status;
	len = snprintf(public_line, sizeof(public_line), "x25519:%s %s\n", public_text,
		       arguments->name);
	if (!arguments->public_path) {
		fputs(public_line, stdout);
		return 0;
	}
	status = write_new(arguments->public_path, 0644, public_line, len);
	if (status)
		unlink(arguments->private_path); /* half a pair is of no use */
	return status;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *arguments = state->input;

	switch (key) {
	case 'p':
		arguments->public_path = arg;
		return 0;
	case 'n':
		if (strlen(arg) >= sizeof(arguments->name) || *arg == '\0' ||
		    arg[strspn(arg, "abcdefghijklmnopqrstuvwxyz0123456789._-")] != '\0')
			argp_error(state, "a key's name is 1 to 63 of a-z 0-9 . _ -");
		strcpy(arguments->name, arg);
		return 0;
	case ARGP_KEY_ARG:
		if (arguments->private_path)
			argp_error(state, "one key at a time");
		if (*arg == '\0')
			argp_error(state, "the file needs a name");
		arguments->private_path = arg;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "where should the private key go?");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int command_keygen(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "public", 'p', "FILE", 0, "Write the public line there, not to stdout", 0 },
		{ "name", 'n', "NAME", 0, "Name in the public line (default: FILE's name)", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "FILE",
		.doc = "Make a client key: the private key goes to FILE, which must not exist, "
		       "mode 0600; the public line is what the broker's administrator needs.\v"
		       "A program uses the key through its option key_file, or when "
		       "SHMBROKER_KEY names the file.",
	};
	struct arguments arguments = { 0 };

	argp_parse(&argp, argc, argv, 0, NULL, &arguments);
	if (arguments.name[0] == '\0')
		make_name(arguments.private_path, arguments.name);
	return generate(&arguments);
}
