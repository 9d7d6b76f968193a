/* SPDX-License-Identifier: Apache-2.0 */

/*
 * struct shmb_client: the public calls, and finding out which broker is meant. There is no thread behind
 * a client: whoever needs the broker, or sees that it has something to say, takes the lock and reads the
 * socket.
 *
 * client-connect.c connects, client-request.c asks, client-hear.c hears, client-resume.c comes back after
 * a broker restart; inbox.c has what members are told.
 */

#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/api.h"
#include "lib/client-internal.h"
#include "lib/clock.h"
#include "lib/error.h"
#include "lib/fd.h"
#include "lib/fork.h"
#include "lib/keyfile.h"
#include "lib/options.h"
#include "lib/runtime.h"

#define DEFAULT_TIMEOUT_NS 5000000000ll

/* The command's name, for shmctl. */
static void default_label(char *label, size_t cap)
{
	int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? 0 : read(fd, label, cap - 1);

	shmb_fd_close(fd);
	label[len > 0 ? len : 0] = '\0';
	label[strcspn(label, "\n")] = '\0';
}

/* Which broker: the one that was named, the system's, or the user's own. */
static int choose_address(struct shmb_client *client, const struct shmb_client_options *options)
{
	const char *chosen = secure_getenv("SHMBROKER_ADDRESS");
	char dir[sizeof(client->address)];
	int result;

	if (options->address) {
		if (options->address_len == 0 || options->address_len >= sizeof(client->address))
			return shmb_fail(-EINVAL, "an address has 1 to %zu bytes, not %u",
					 sizeof(client->address) - 1, options->address_len);
		memcpy(client->address, options->address, options->address_len);
		client->address[options->address_len] = '\0';
	} else if (chosen && *chosen) {
		if (strlen(chosen) >= sizeof(client->address))
			return shmb_fail(-EINVAL, "SHMBROKER_ADDRESS is longer than %zu bytes",
					 sizeof(client->address) - 1);
		strcpy(client->address, chosen);
	} else if (access(SHMB_SYSTEM_DIR "/" SHMB_SOCKET_FILE, F_OK) == 0) {
		strcpy(client->address, SHMB_SYSTEM_DIR "/" SHMB_SOCKET_FILE);
	} else {
		result = shmb_runtime_user_dir(dir, sizeof(dir));
		if (result == 0)
			result = shmb_runtime_join(client->address, sizeof(client->address), dir,
						   SHMB_SOCKET_FILE);
		if (result < 0)
			return shmb_fail(result,
					 "the user's runtime directory has too long a name");
		client->start = !(client->flags & SHMB_CLIENT_NO_START);
	}
	if (client->address[0] != '/')
		return shmb_fail(-EINVAL, "%s: an address is an absolute path", client->address);
	return 0;
}

static int choose_keys(struct shmb_client *client, const struct shmb_client_options *options)
{
	const char *own = options->key_file;
	const char *slash = strrchr(client->address, '/');

	if (!own)
		own = secure_getenv("SHMBROKER_KEY");
	if (options->broker_key_file) {
		if (strlen(options->broker_key_file) >= sizeof(client->broker_key_file))
			return shmb_fail(-ENAMETOOLONG, "the broker key file has too long a name");
		strcpy(client->broker_key_file, options->broker_key_file);
	} else {
		snprintf(client->broker_key_file, sizeof(client->broker_key_file), "%.*s/%s",
			 (int)(slash - client->address), client->address, SHMB_PUBLIC_FILE);
	}
	if (own && *own)
		return shmb_keyfile_load_private(own, &client->keypair);
	return shmb_noise_keypair_generate(&client->keypair);
}

static int take_options(struct shmb_client *client, const struct shmb_client_options *options)
{
	if (options->flags & ~(SHMB_CLIENT_NO_START | SHMB_CLIENT_ALLOW_RELAY))
		return shmb_fail(-EINVAL, "unknown client flags 0x%x", options->flags);
	if (options->label && options->label_len > SHMB_LABEL_LEN_MAX)
		return shmb_fail(-EINVAL, "a label has at most %u bytes, not %u",
				 SHMB_LABEL_LEN_MAX, options->label_len);
	if (options->label) {
		memcpy(client->label, options->label, options->label_len);
		client->label[options->label_len] = '\0';
	} else {
		default_label(client->label, sizeof(client->label));
	}
	client->timeout_ns =
		options->connect_timeout_ns ? options->connect_timeout_ns : DEFAULT_TIMEOUT_NS;
	client->flags = options->flags;
	return 0;
}

static int init(struct shmb_client *client, const struct shmb_client_options *given)
{
	struct shmb_client_options options;
	int result;

	client->connection.fd = client->connection.listener = -1;
	client->retry_delay_ns = CLIENT_RETRY_MIN_NS;
	result = shmb_options_take(&options, sizeof(options), given, "client");
	if (result == 0)
		result = take_options(client, &options);
	if (result < 0)
		return result;
	if (sodium_init() < 0)
		return shmb_fail(-EIO, "libsodium does not start");
	client->fork_guard = shmb_fork_guard();
	if (!client->fork_guard)
		return shmb_fail(-ENOMEM, "no memory for a client");
	result = choose_address(client, &options);
	if (result == 0)
		result = choose_keys(client, &options);
	return result;
}

static void deinit(struct shmb_client *client)
{
	shmb_connection_close(&client->connection);
	shmb_map_deinit(&client->bell_map);
	sodium_memzero(&client->keypair, sizeof(client->keypair));
	sodium_memzero(client->token, sizeof(client->token));
	pthread_mutex_destroy(&client->lock);
	free(client->farewells);
	free(client);
}

SHMB_API int32_t shmb_client_open(const struct shmb_client_options *options,
				  struct shmb_client **ret_client)
{
	struct shmb_client *client;
	int result;

	if (!ret_client)
		return shmb_fail(-EINVAL, "ret_client is NULL");
	client = calloc(1, sizeof(*client));
	if (!client)
		return shmb_fail(-ENOMEM, "no memory for a client");
	pthread_mutex_init(&client->lock, NULL);
	result = init(client, options);
	if (result == 0)
		result = shmb_client_connect_first(client);
	if (result < 0) {
		deinit(client);
		return result;
	}
	*ret_client = client;
	return 0;
}

/*
 * The broker hears it before it hears that we hang up, and does not wait for us to come back: it may
 * have opened something for us that we have never heard of.
 */
static void say_goodbye(struct shmb_client *client)
{
	struct shmb_msg_id self = { .id = client->id };
	struct timespec pause = { .tv_nsec = 2000000 };
	uint64_t deadline;
	int result = 0;

	if (client->timeout_ns < 0 || client->timeout_ns > DEFAULT_TIMEOUT_NS)
		client->timeout_ns = DEFAULT_TIMEOUT_NS;
	deadline = shmb_clock_deadline_ns(client->timeout_ns);
	if (client->connected && !shmb_connection_is_dead(&client->connection))
		shmb_client_tell(client, SHMB_MSG_CLOSE, &self, sizeof(self));
	else
		shmb_client_hang_up(client);
	/* It was replaced meanwhile, or is there again. */
	while (!client->connected && shmb_clock_now_ns() < deadline) {
		result = shmb_client_connect_once(client, deadline);
		/* It is there, and busy. */
		if (result == -ETIMEDOUT && client->pending && nanosleep(&pause, NULL) == 0)
			continue;
		if (result < 0 || client->stale)
			return;
		shmb_client_say_farewells(client);
		shmb_client_tell(client, SHMB_MSG_CLOSE, &self, sizeof(self));
	}
}

SHMB_API int32_t shmb_client_close(struct shmb_client *client)
{
	if (!client)
		return 0;
	if (*client->fork_guard && client->n_children)
		return shmb_fail(-EBUSY, "%u channels or wait sets of the client are open",
				 client->n_children);
	/* In a forked child the mappings are not there, and the socket is the parent's. */
	if (!*client->fork_guard)
		client->bell_map.base = NULL;
	else if (client->id && !client->stale)
		say_goodbye(client);
	/* A child that was forked meanwhile may keep the socket open for long. */
	if (*client->fork_guard && client->connection.fd >= 0)
		shutdown(client->connection.fd, SHUT_RDWR);
	deinit(client);
	return 0;
}

SHMB_API int32_t shmb_client_ping(struct shmb_client *client, int64_t timeout_ns)
{
	int64_t usual;
	int result;

	if (!client)
		return shmb_fail(-EINVAL, "client is NULL");
	if (!*client->fork_guard)
		return shmb_fail(-ECHILD, "this client belongs to the parent process");
	pthread_mutex_lock(&client->lock);
	usual = client->timeout_ns;
	client->timeout_ns = timeout_ns;
	result = shmb_client_request_ok(client, SHMB_MSG_PING, NULL, 0);
	client->timeout_ns = usual;
	pthread_mutex_unlock(&client->lock);
	return result;
}

SHMB_API int32_t shmb_client_connected(struct shmb_client *client)
{
	int32_t connected;

	if (!client)
		return shmb_fail(-EINVAL, "client is NULL");
	if (!*client->fork_guard)
		return shmb_fail(-ECHILD, "this client belongs to the parent process");
	pthread_mutex_lock(&client->lock);
	connected = shmb_client_drain(client) == 0;
	pthread_mutex_unlock(&client->lock);
	return connected;
}
