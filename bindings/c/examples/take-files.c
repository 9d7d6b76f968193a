/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Takes open files from pass-files of any language, and counts their lines: take-files [COUNT]. It ends
 * after so many files.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shmbroker/schema.h>
#include <shmbroker/shmbroker.h>

#include "file.h"

static void fail(const char *what)
{
	char why[256];

	shmb_last_error(why, sizeof(why));
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

/* The position is the file's own, and perhaps others read it as well. */
static unsigned int count_lines(int fd)
{
	char data[4096];
	unsigned int lines = 0;
	off_t at = 0;
	ssize_t n;

	while ((n = pread(fd, data, sizeof(data), at)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			lines += data[i] == '\n';
		at += n;
	}
	return lines;
}

static void take(struct shmb_subscriber *subscriber, struct file *file)
{
	int32_t fd, n = shmb_subscriber_take_fds(subscriber, &fd, 1);

	if (n < 0)
		fail("take");
	if (n == 0) {
		printf("%.248s: it came without the file\n", file->name);
		return;
	}
	printf("%.248s: %llu bytes, %u lines\n", file->name, (unsigned long long)file->len,
	       count_lines(fd));
	close(fd);
}

int main(int argc, char **argv)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.schema = &file_schema,
						.schema_len = sizeof(file_schema),
						.max_fds = 1 };
	unsigned int count = argc > 1 ? (unsigned int)atoi(argv[1]) : 0, taken = 0;
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_subscriber *subscriber;
	struct file file;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, "example/files", 13, &options, &channel) < 0)
		fail("example/files");
	if (shmb_subscriber_open(channel, NULL, &subscriber) < 0)
		fail("subscribe");

	while (!count || taken < count) {
		int32_t len = shmb_subscriber_recv(subscriber, &file, sizeof(file));

		if (len == -EAGAIN) {
			if (shmb_subscriber_wait(subscriber, SHMB_FOREVER) < 0)
				fail("wait");
			continue;
		}
		if (len < 0)
			fail("receive");
		take(subscriber, &file);
		taken++;
	}

	shmb_subscriber_close(subscriber);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
