/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Passes open files on to whoever takes them: pass-files FILE... Run take-files of any language before:
 * it can read them although it may not be allowed to open them.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

static void pass(struct shmb_publisher *publisher, const char *name)
{
	int32_t fd = open(name, O_RDONLY | O_CLOEXEC), result;
	struct file file = { 0 };
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0) {
		fprintf(stderr, "%s: %s\n", name, strerror(errno));
		exit(1);
	}
	file.len = (uint64_t)st.st_size;
	snprintf(file.name, sizeof(file.name), "%s", name);
	/* Some dozens at most are on their way. */
	while ((result = shmb_publisher_send_fds(publisher, &file, sizeof(file), 0, &fd, 1)) ==
	       -EAGAIN)
		if (shmb_publisher_wait(publisher, sizeof(file), SHMB_FOREVER) < 0)
			fail("wait");
	if (result < 0)
		fail(name);
	/* Each subscriber has its own. */
	close(fd);
}

int main(int argc, char **argv)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.schema = &file_schema,
						.schema_len = sizeof(file_schema),
						.max_fds = 1 };
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;

	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, "example/files", 13, &options, &channel) < 0)
		fail("example/files");
	if (shmb_publisher_open(channel, NULL, &publisher) < 0)
		fail("publish");
	if (shmb_channel_wait_members(channel, 0, 1, SHMB_FOREVER) < 0)
		fail("wait");

	for (int i = 1; i < argc; i++)
		pass(publisher, argv[i]);

	shmb_publisher_close(publisher);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
