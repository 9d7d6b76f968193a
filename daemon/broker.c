/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/clock.h"
#include "lib/error.h"
#include "lib/fd.h"
#include "lib/keyfile.h"
#include "lib/runtime.h"

#include "daemon/adopt.h"
#include "daemon/broker.h"
#include "daemon/channel.h"
#include "daemon/client.h"
#include "daemon/connection.h"
#include "daemon/control.h"
#include "daemon/fence.h"
#include "daemon/idle.h"
#include "daemon/keeper.h"
#include "daemon/listener.h"
#include "daemon/member.h"

#define AWAY_NS_DEFAULT (30 * 1000000000ull)
/* Long enough for a client that hardly gets to run. How many take so long at once is a quota. */
#define HANDSHAKE_NS_DEFAULT (10 * 1000000000ull)
#define REPLACE_NS_DEFAULT   (2 * 1000000000ull)

static void on_accepted(void *data, int fd)
{
	connection_accept(data, fd, &control_events);
}

static void on_idle(void *data)
{
	struct broker *broker = data;

	log_line(&broker->log, LOG_INFO, "idle-exit", "address=%s", broker->address);
	loop_stop(broker->loop, 0);
}

/* The directory, which is ours or root's, and which nobody else can change. */
static int start_directory(struct broker *broker)
{
	const char *dir = broker->config.directory;
	struct stat st;
	int r;

	if (mkdir(dir, 0700) == 0)
		broker->made_directory = true;
	else if (errno != EEXIST)
		return shmb_fail(-errno, "%s: %s", dir, strerrordesc_np(errno));
	r = shmb_runtime_check_dir(dir);
	if (r < 0)
		return r;
	if (stat(dir, &st) < 0)
		return shmb_fail(-errno, "%s: %s", dir, strerrordesc_np(errno));
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return shmb_fail(-EACCES, "%s: belongs to uid %u", dir, (unsigned)st.st_uid);
	return 0;
}

static int start_address(struct broker *broker)
{
	const char *path = broker->config.socket_path;
	int n;

	if (path)
		n = snprintf(broker->address, sizeof(broker->address), "%s", path);
	else
		n = snprintf(broker->address, sizeof(broker->address), "%s/" SHMB_SOCKET_FILE,
			     broker->config.directory);
	if (n < 0 || (size_t)n >= sizeof(broker->address))
		return shmb_fail(-ENAMETOOLONG, "%s: too long for a socket's path",
				 path ? path : broker->config.directory);
	return 0;
}

/* Finds the predecessor's registry, or begins a new instance. Sets @ret_adopt if there is one. */
static int start_registry(struct broker *broker, bool *ret_adopt)
{
	int r = -ENOENT;

	/* Somebody has tidied up the directory; those who use the memory are still there. */
	if (!broker->maker.instance) {
		r = registry_find(broker->address, broker->config.replace, &broker->maker.instance);
		if (r < 0)
			return shmb_fail(r, "an earlier broker's registry cannot be looked for: %s",
					 strerrordesc_np(-r));
		r = broker->maker.instance ? lock_write(&broker->lock, broker->maker.instance) : 0;
		if (r < 0)
			return r;
		r = -ENOENT;
	}
	if (broker->maker.instance)
		r = registry_load(&broker->registry, broker->maker.instance);
	*ret_adopt = r == 0;
	if (r == 0)
		return 0;
	/* Nobody is buried because we cannot see: the next start may. */
	if (broker->maker.instance && !shmb_fd_conclusive(-r))
		return shmb_fail(r, "the registry cannot be read: %s", strerrordesc_np(-r));
	if (broker->maker.instance) {
		/* Of no use without its registry. */
		registry_name(broker->maker.instance, broker->registry.name);
		adopt_sweep(broker);
		registry_destroy(&broker->registry);
	}
	do
		randombytes_buf(&broker->maker.instance, sizeof(broker->maker.instance));
	while (broker->maker.instance == 0);
	/* The id before the registry, so that one is never left that nobody finds. */
	r = lock_write(&broker->lock, broker->maker.instance);
	if (r < 0)
		return r;
	r = registry_create(&broker->registry, broker->maker.instance);
	if (r < 0)
		return shmb_fail(r, "no registry in shared memory: %s", strerrordesc_np(-r));
	return 0;
}

static int start_key(struct broker *broker)
{
	char path[PATH_MAX];
	int r;

	if (broker->config.key_path) {
		r = shmb_keyfile_load_private(broker->config.key_path, &broker->key);
	} else {
		r = shmb_runtime_join(path, sizeof(path), broker->config.directory,
				      SHMB_PRIVATE_FILE);
		if (r == 0)
			r = shmb_keyfile_load_private(path, &broker->key);
		if (r == -ENOENT) {
			r = shmb_noise_keypair_generate(&broker->key);
			if (r == 0)
				r = shmb_keyfile_write_private(path, &broker->key);
			broker->made_key = r == 0;
		}
	}
	if (r == 0)
		r = shmb_runtime_join(path, sizeof(path), broker->config.directory,
				      SHMB_PUBLIC_FILE);
	if (r == 0)
		r = shmb_keyfile_write_public(path, broker->key.public, "broker");
	return r;
}

/* A broker that was stopped and replaced must not touch anything when it wakes up. */
static bool still_ours(void *data)
{
	struct broker *broker = data;

	return !registry_is_superseded(&broker->registry);
}

static int start_listening(struct broker *broker)
{
	int r;

	if (broker->config.listen_fd >= 0) {
		r = listener_check(broker->config.listen_fd);
		broker->listen_fd = r < 0 ? -1 : broker->config.listen_fd;
	} else {
		r = listener_open(broker->address, broker->config.socket_mode,
				  broker->config.replace, still_ours, broker);
		broker->listen_fd = r < 0 ? -1 : r;
	}
	if (r < 0)
		return r;
	r = loop_listen(broker->loop, broker->listen_fd, on_accepted, broker, &broker->listener);
	return r < 0 ? shmb_fail(r, "cannot listen: %s", strerrordesc_np(-r)) : 0;
}

static int start_idle(struct broker *broker)
{
	int r;

	if (!broker->config.idle_exit_ns)
		return 0;
	r = loop_timer_at(broker->loop, UINT64_MAX, on_idle, broker, &broker->idle);
	if (r == 0)
		idle_check(broker);
	return r;
}

/* The broker that was started last in a directory; 0: unknown. */
static uint32_t last_broker(const char *dir)
{
	uint64_t instance = 0;

	shmb_runtime_instance(dir, &instance);
	return instance ? registry_last_broker(instance) : 0;
}

/*
 * The lock of a broker that was killed while it started its keeper is held by that one until it is
 * executed.
 */
static bool last_is_dead(const char *dir)
{
	uint32_t pid = last_broker(dir);
	int pidfd = pid ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	bool dead = pid && (pidfd < 0 ? errno == ESRCH : peer_is_dead(pidfd));

	shmb_fd_close(pidfd);
	return dead;
}

/* Asks the broker that is there to go, if it is one that can be asked. */
static void ask_to_go(const char *dir)
{
	uint32_t pid = last_broker(dir);
	char comm[32] = "", path[40];
	int pidfd, fd;

	pidfd = pid && pid != (uint32_t)getpid() ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	snprintf(path, sizeof(path), "/proc/%u/comm", pid);
	fd = pidfd < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	/* The number may be another process's by now: an embedded broker is not asked, either. */
	if (fd >= 0 && read(fd, comm, sizeof(comm) - 1) > 0 && strcmp(comm, "shmbrokerd\n") == 0)
		syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0);
	shmb_fd_close(fd);
	shmb_fd_close(pidfd);
}

static int take_lock(struct broker *broker)
{
	const char *dir = broker->config.directory;
	uint64_t until = shmb_clock_now_ns() + broker->config.replace_ns;
	struct timespec pause = { .tv_nsec = 2000000 };
	int r = lock_take(&broker->lock, dir, &broker->maker.instance);

	while (r == -EADDRINUSE && shmb_clock_now_ns() < until && last_is_dead(dir)) {
		nanosleep(&pause, NULL);
		r = lock_take(&broker->lock, dir, &broker->maker.instance);
	}
	if (r != -EADDRINUSE || !broker->config.replace)
		return r;
	ask_to_go(dir);
	while (r == -EADDRINUSE && shmb_clock_now_ns() < until) {
		nanosleep(&pause, NULL);
		r = lock_take(&broker->lock, dir, &broker->maker.instance);
	}
	if (r == -EADDRINUSE)
		r = lock_replace(&broker->lock, dir, &broker->maker.instance);
	return r;
}

/* The opener's thread, and the loop. */
static int start_engine(struct broker *broker)
{
	int r = opener_new(&broker->maker.opener);

	if (r < 0)
		return shmb_fail(r, "no thread to open segments: %s", strerrordesc_np(-r));
	r = loop_new(broker->config.backend, &broker->loop);
	if (r < 0)
		return shmb_fail(r, "no event loop: %s", strerrordesc_np(-r));
	return 0;
}

/* Everything that can be taken up is, or nothing has changed but the epoch. */
static int start_adoption(struct broker *broker, bool tidied)
{
	const struct broker_config *config = &broker->config;
	struct quota_limits none;
	int r;

	/* What is there was allowed when it was made, and lives on under limits that are lower now. */
	for (int i = 0; i < QUOTA_N_KINDS; i++)
		none.max[i] = QUOTA_UNLIMITED;
	none.handshakes_per_s = none.handshake_burst = 0;
	quota_reload(&broker->quota, &none, NULL, 0);
	r = registry_supersede(&broker->registry);
	/* Who had the lock file and has given up the lock is dead, and needs no object of its own. */
	if (r < 0 && r != -ESTALE && !shmb_fd_conclusive(-r) && !config->replace && !tidied)
		r = 0;
	if (r == 0)
		r = keeper_take(broker);
	if (r == 0)
		r = adopt_all(broker);
	if (r == 0)
		keeper_settle(broker);
	quota_reload(&broker->quota, &config->limits, config->quota_rules, config->n_quota_rules);
	if (r < 0)
		return shmb_fail(r, "cannot go on where the last broker ended: %s",
				 strerrordesc_np(-r));
	return 0;
}

/* In this order; broker_free() undoes as much as was done. */
static int broker_start(struct broker *broker)
{
	bool tidied;
	int r;

	r = start_address(broker);
	if (r == 0)
		r = start_directory(broker);
	if (r == 0)
		r = take_lock(broker);
	tidied = !broker->maker.instance;
	if (r == 0)
		r = start_key(broker);
	if (r == 0)
		r = start_engine(broker);
	if (r == 0)
		r = start_registry(broker, &broker->adopting);
	/*
	 * Whoever has taken our lock does so before it loads the registry. If that comes later than
	 * this, then later than our loading it, too, and it leaves us the old object: see
	 * registry_supersede().
	 */
	if (r == 0 && !lock_is_current(&broker->lock))
		r = shmb_fail(-ESTALE, "%s: another broker has taken our place",
			      broker->config.directory);
	if (r < 0)
		return r;
	registry_start(&broker->registry, broker->address);
	loop_set_gate(broker->loop, still_ours, broker);
	if (broker->adopting)
		r = start_adoption(broker, tidied);
	if (r == 0)
		r = start_listening(broker);
	if (r == 0)
		r = start_idle(broker);
	if (r == 0 && !still_ours(broker))
		r = shmb_fail(-ESTALE, "%s: another broker has taken our place", broker->address);
	if (r == 0)
		adopt_announce(broker);
	broker->adopting = broker->adopting && r < 0;
	return r;
}

int broker_new(const struct broker_config *config, struct broker **ret_broker)
{
	struct broker *broker;
	int r;

	if (sodium_init() < 0)
		return shmb_fail(-EIO, "libsodium does not start");
	broker = calloc(1, sizeof(*broker));
	if (!broker)
		return shmb_fail(-ENOMEM, "no memory");
	broker->config = *config;
	if (!broker->config.away_ns)
		broker->config.away_ns = AWAY_NS_DEFAULT;
	if (!broker->config.handshake_ns)
		broker->config.handshake_ns = HANDSHAKE_NS_DEFAULT;
	if (!broker->config.replace_ns)
		broker->config.replace_ns = REPLACE_NS_DEFAULT;
	broker->policy = config->policy;
	broker->log = config->log;
	broker->maker.store = config->store;
	keeper_init(broker);
	broker->lock.fd = -1;
	broker->registry.fd = -1;
	broker->listen_fd = -1;
	list_init(&broker->connections);
	list_init(&broker->clients);
	list_init(&broker->channels);
	list_init(&broker->fences);
	list_init(&broker->flushes);
	list_init(&broker->epochs);
	list_init(&broker->estates);
	quota_reload(&broker->quota, &config->limits, config->quota_rules, config->n_quota_rules);
	broker->quota.make_room = member_make_room;
	broker->quota.data = broker;
	randombytes_buf(broker->name_key, sizeof(broker->name_key));
	r = broker_start(broker);
	if (r < 0) {
		broker_free(broker);
		return r;
	}
	log_line(&broker->log, LOG_NOTICE, "started",
		 "address=%s instance=%016llx epoch=%llu io=%s truncation_barred=%d",
		 broker->address, (unsigned long long)broker->maker.instance,
		 (unsigned long long)registry_epoch(&broker->registry),
		 loop_backend_name(broker->loop), opener_protects(broker->maker.opener));
	*ret_broker = broker;
	return 0;
}

int broker_run(struct broker *broker)
{
	int r = loop_run(broker->loop);

	if (r == -ESTALE)
		log_line(&broker->log, LOG_ERROR, "replaced", "address=%s epoch=%llu",
			 broker->address, (unsigned long long)broker->registry.epoch);
	return r;
}

int broker_fall_back(struct broker **broker)
{
	struct broker_config config = (*broker)->config;

	log_line(&(*broker)->log, LOG_WARNING, "io-fallback", "io=epoll");
	config.backend = LOOP_EPOLL;
	(*broker)->config.remove_all = false;
	*broker = broker_free(*broker);
	return broker_new(&config, broker);
}

void broker_reload(struct broker *broker, const struct policy *policy,
		   const struct quota_limits *limits, const struct quota_rule *rules,
		   uint32_t n_rules)
{
	broker->policy = policy;
	quota_reload(&broker->quota, limits, rules, n_rules);
}

static void stop_listening(struct broker *broker)
{
	if (!broker->listener && broker->listen_fd < 0)
		return;
	/* The name first: who comes now finds no broker, rather than one that hangs up. */
	if (broker->config.listen_fd < 0 && lock_is_current(&broker->lock))
		unlink(broker->address);
	broker->listener = loop_unlisten(broker->listener);
	broker->listen_fd = shmb_fd_close(broker->listen_fd);
}

/*
 * From now on freeing an object leaves its entry and its segment as they are. Without an entry nobody
 * else finds it, and a successor may have swept before we made it.
 */
static void detach_model(struct broker *broker)
{
	struct table_node *node;
	struct object *object;
	struct list *link, *safe, *inner, *inner_safe;

	registry_release(&broker->registry);
	for (size_t i = 0; i < broker->objects.n_buckets; i++)
		for (node = broker->objects.buckets[i]; node; node = node->next) {
			object = shmb_container_of(node, struct object, node);
			if (object->entry != REGISTRY_NO_ENTRY)
				object->segment.name[0] = '\0';
		}
	/* Who is not active goes without a trace in the channel's segment. */
	list_for_each(link, safe, &broker->clients)
		list_for_each(inner, inner_safe, &list_entry(link, struct client, link)->members)
			list_entry(inner, struct member, client_link)
				->flags &= ~SHMB_MEMBER_ACTIVE;
}

/* Frees the model. With @keep, entries and segments stay as if the broker had been killed. */
static void free_model(struct broker *broker, bool keep)
{
	struct list *link, *safe;

	list_for_each(link, safe, &broker->connections)
	{
		struct connection *connection = list_entry(link, struct connection, link);

		if (connection->client)
			connection->client->connection = NULL;
		connection_close(connection);
	}
	if (keep)
		detach_model(broker);
	list_for_each(link, safe, &broker->clients)
		client_free(list_entry(link, struct client, link));
	list_for_each(link, safe, &broker->channels)
	{
		struct channel *channel = list_entry(link, struct channel, link);

		member_forget_kept(channel);
		channel_free(channel, keep);
	}
}

static void remove_files(struct broker *broker)
{
	static const char *const files[] = { SHMB_PRIVATE_FILE, SHMB_PUBLIC_FILE };
	char path[PATH_MAX];

	if (!broker->config.remove_all)
		return;
	for (size_t i = 0; broker->made_key && i < SHMB_ARRAY_LEN(files); i++)
		if (shmb_runtime_join(path, sizeof(path), broker->config.directory, files[i]) == 0)
			unlink(path);
}

struct broker *broker_free(struct broker *broker)
{
	bool keep, locked;

	if (!broker)
		return NULL;
	locked = broker->lock.fd >= 0 && lock_is_current(&broker->lock);
	/* Without its registry we do not know who lives. */
	if (registry_is_superseded(&broker->registry))
		keep = true; /* all of it is another's */
	else if (broker->registry.map)
		keep = broker->adopting || (!broker->config.remove_all &&
					    (!list_empty(&broker->clients) || broker->n_retained));
	else
		keep = broker->maker.instance != 0;
	stop_listening(broker);
	if (broker->registry.map) {
		log_line(&broker->log, LOG_NOTICE, "stopped", "address=%s kept=%d", broker->address,
			 keep);
		free_model(broker, keep);
		if (!keep) {
			adopt_sweep(broker);
			registry_destroy(&broker->registry);
		}
	}
	keeper_deinit(broker, keep);
	fence_forget(broker);
	loop_timer_cancel(broker->idle);
	loop_timer_cancel(broker->adoption);
	loop_timer_cancel(broker->executor);
	loop_free(broker->loop);
	opener_free(broker->maker.opener);
	if (locked)
		remove_files(broker);
	if (keep)
		lock_release(&broker->lock);
	else
		lock_remove(&broker->lock);
	if (broker->config.remove_all && broker->made_directory)
		rmdir(broker->config.directory);
	quota_deinit(&broker->quota);
	table_deinit(&broker->objects);
	table_deinit(&broker->names);
	sodium_memzero(&broker->key, sizeof(broker->key));
	free(broker);
	return NULL;
}
