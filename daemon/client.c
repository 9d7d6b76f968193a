/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/clock.h"
#include "lib/fd.h"

#include "daemon/bell.h"
#include "daemon/channel.h"
#include "daemon/client.h"
#include "daemon/connection.h"
#include "daemon/estate.h"
#include "daemon/idle.h"
#include "daemon/member.h"
#include "daemon/view.h"

#define BELL_LEN sizeof(struct shmb_bell_segment)
/* One broker rings with other numbers than its predecessors. */
#define WAKE_SHIFT 20

static struct segment_spec bell_spec(uint64_t id, unsigned flags)
{
	return (struct segment_spec){ .kind = SHMB_SEGMENT_BELL,
				      .backing = SHMB_MEMORY_POSIX,
				      .id = id,
				      .owner_id = id,
				      .len = BELL_LEN,
				      .flags = flags };
}

static void on_death(void *data)
{
	struct client *client = data;
	struct broker *broker = client->broker;

	log_line(&client->broker->log, LOG_INFO, "client-died", "client=%llu pid=%u uid=%u",
		 (unsigned long long)object_id(&client->object), client->pid, client->uid);
	client->dead = true;
	client_free(client);
	estate_settle(broker);
}

static void on_away(void *data)
{
	struct client *client = data;
	struct broker *broker = client->broker;

	client->away = loop_timer_cancel(client->away);
	if (client->connection) {
		channel_close_expected(client);
		estate_settle(broker);
		return;
	}
	log_line(&client->broker->log, LOG_INFO, "client-forgotten", "client=%llu pid=%u",
		 (unsigned long long)object_id(&client->object), client->pid);
	client_free(client);
	estate_settle(broker);
}

static void token_hash(uint8_t hash[32], const uint8_t token[SHMB_TOKEN_LEN])
{
	crypto_generichash(hash, 32, token, SHMB_TOKEN_LEN, NULL, 0);
}

static int client_charge(struct client *client)
{
	if (quota_charge(client->user, QUOTA_CLIENTS, 1) < 0)
		return -EDQUOT;
	if (quota_charge(client->user, QUOTA_BYTES, BELL_LEN) < 0) {
		quota_release(client->user, QUOTA_CLIENTS, 1);
		return -EDQUOT;
	}
	return 0;
}

/* A client without segment and entry, with @pidfd, which is closed if there is none. */
static int client_alloc(struct broker *broker, uint64_t id, uint32_t uid, int pidfd,
			struct client **ret_client)
{
	struct client *client = calloc(1, sizeof(*client));
	int r = -ENOMEM;

	if (!client)
		goto fail_pidfd;
	client->object.kind = SHMB_ENTRY_CLIENT;
	client->object.entry = REGISTRY_NO_ENTRY;
	client->broker = broker;
	client->wake = (uint32_t)broker->registry.epoch << WAKE_SHIFT;
	client->uid = uid;
	client->pidfd = -1;
	list_init(&client->members);
	list_init(&client->flush_link);
	list_init(&client->openings);
	list_init(&client->dirty);
	client->user = quota_user_get(&broker->quota, uid);
	if (!client->user)
		goto fail;
	if (table_add(&broker->objects, &client->object.node, id) < 0)
		goto fail_user;
	r = client_charge(client);
	if (r < 0)
		goto fail_table;
	client->pidfd = pidfd;
	list_append(&broker->clients, &client->link);
	*ret_client = client;
	return 0;
fail_table:
	table_remove(&broker->objects, &client->object.node);
fail_user:
	quota_user_put(&broker->quota, client->user);
fail:
	free(client);
fail_pidfd:
	shmb_fd_close(pidfd);
	return r;
}

static int client_watch(struct client *client)
{
	return loop_watch(client->broker->loop, client->pidfd, true, on_death, client,
			  &client->death);
}

static void client_connect(struct client *client, struct connection *connection)
{
	client->connection = connection;
	client->leaving = false;
	client->away = loop_timer_cancel(client->away);
	connection_joined(connection, client);
}

int client_new(struct connection *connection, uint8_t token[SHMB_TOKEN_LEN],
	       struct client **ret_client)
{
	struct broker *broker = connection->broker;
	const struct peer *peer = &connection->peer;
	struct shmb_registry_entry entry = {
		.kind = SHMB_ENTRY_CLIENT,
		.id = registry_next_id(&broker->registry),
		.segment_len = BELL_LEN,
		.process_start = peer->start,
		.process_inode = peer->inode,
		.pid = peer->pid,
		.uid = peer->uid,
		.gid = peer->gid,
		.name_len = (uint32_t)strnlen((const char *)connection->label, SHMB_LABEL_LEN_MAX),
	};
	struct segment_spec spec = bell_spec(entry.id, SEGMENT_ALLOCATE | SEGMENT_MAP);
	struct client *client;
	int pidfd, r;

	pidfd = fcntl(peer->pidfd, F_DUPFD_CLOEXEC, 0);
	if (pidfd < 0)
		return -errno;
	r = client_alloc(broker, entry.id, peer->uid, pidfd, &client);
	if (r < 0)
		return r;
	client->pid = peer->pid;
	client->start = peer->start;
	randombytes_buf(token, SHMB_TOKEN_LEN);
	token_hash(client->resume_key, token);
	memcpy(entry.resume_key, client->resume_key, sizeof(entry.resume_key));
	memcpy(entry.name, connection->label, entry.name_len);
	r = segment_create(&broker->maker, &spec, &client->object.segment);
	if (r == 0)
		bell_set_epoch(client);
	memcpy(entry.segment, client->object.segment.name, sizeof(entry.segment));
	if (r == 0)
		r = registry_add(&broker->registry, &entry, &client->object.entry);
	if (r == 0)
		r = client_watch(client);
	if (r < 0) {
		client_free(client);
		return r;
	}
	client_connect(client, connection);
	*ret_client = client;
	return 0;
}

struct client *client_rejoin(struct connection *connection, uint64_t id,
			     const uint8_t token[SHMB_TOKEN_LEN])
{
	struct object *object = broker_find(connection->broker, id, SHMB_ENTRY_CLIENT);
	struct client *client;
	uint8_t hash[32];

	if (!object)
		return NULL;
	client = shmb_container_of(object, struct client, object);
	token_hash(hash, token);
	if (sodium_memcmp(hash, client->resume_key, sizeof(hash)) != 0)
		return NULL;
	/* The token proves it; a process that has got hold of it is still not the one we watch. */
	if (client->uid != connection->peer.uid || client->pid != connection->peer.pid ||
	    client->start != connection->peer.start)
		return NULL;
	if (client->connection) {
		connection_close(client->connection);
		client->connection = NULL;
		view_forget(client);
	}
	client_connect(client, connection);
	channel_expect_reopening(client);
	if (!list_empty(&client->openings))
		loop_timer_at(client->broker->loop,
			      shmb_clock_now_ns() + client->broker->config.away_ns, on_away, client,
			      &client->away);
	return client;
}

int client_adopt(struct broker *broker, const struct shmb_registry_entry *entry, uint32_t slot)
{
	struct segment_spec spec = bell_spec(entry->id, SEGMENT_MAP);
	struct client *client;
	int pidfd, r;

	pidfd = peer_reopen(entry->pid, entry->process_start, entry->process_inode);
	if (pidfd < 0)
		return pidfd;
	r = client_alloc(broker, entry->id, entry->uid, pidfd, &client);
	if (r < 0)
		return r;
	client->pid = entry->pid;
	client->start = entry->process_start;
	memcpy(client->resume_key, entry->resume_key, sizeof(client->resume_key));
	r = segment_adopt(&broker->maker, (const char *)entry->segment, &spec,
			  &client->object.segment);
	if (r == 0)
		r = client_watch(client);
	if (r < 0) {
		/* Somebody else may take it up. */
		segment_forget(&client->object.segment);
		client_free(client);
		return r;
	}
	client->object.entry = slot;
	return 0;
}

void client_check_away(struct client *client)
{
	uint64_t away_ns = client->broker->config.away_ns;

	if (client->connection || client->away || !list_empty(&client->members))
		return;
	/* Without the timer it is forgotten when it dies. */
	loop_timer_at(client->broker->loop, shmb_clock_now_ns() + away_ns, on_away, client,
		      &client->away);
}

/* Its client may not even know of a member that is not active; it can only ask for a new one. */
static void free_inactive(struct client *client)
{
	struct list *link, *safe;

	list_for_each(link, safe, &client->members)
	{
		struct member *member = list_entry(link, struct member, client_link);

		if (!(member->flags & SHMB_MEMBER_ACTIVE))
			member_free(member, SHMB_GONE_DIED);
	}
}

void client_disconnected(struct client *client)
{
	client->connection = NULL;
	free_inactive(client);
	client->away = loop_timer_cancel(client->away);
	view_forget(client);
	/* It has closed some, perhaps, and could not say so: its channels are open until it is forgotten. */
	if (!client->leaving)
		member_free_left(client);
	if (client->leaving || (list_empty(&client->members) && list_empty(&client->openings)))
		client_free(client);
	else
		client_check_away(client);
}

void client_free(struct client *client)
{
	struct broker *broker = client->broker;
	struct list *link, *safe;

	if (client->connection)
		connection_close(client->connection);
	client->connection = NULL;
	client->death = loop_unwatch(client->death);
	client->away = loop_timer_cancel(client->away);
	list_for_each(link, safe, &client->members)
		member_free(list_entry(link, struct member, client_link), SHMB_GONE_DIED);
	channel_close_all(client);
	view_forget(client);
	broker_unregister(broker, &client->object);
	segment_destroy(&client->object.segment);
	table_remove(&broker->objects, &client->object.node);
	list_remove(&client->link);
	list_remove(&client->flush_link);
	quota_release(client->user, QUOTA_CLIENTS, 1);
	quota_release(client->user, QUOTA_BYTES, BELL_LEN);
	quota_user_put(&broker->quota, client->user);
	shmb_fd_close(client->pidfd);
	free(client);
	idle_check(broker);
	/* Nobody is left who could come back for a channel. */
	if (broker->adoption && list_empty(&broker->clients))
		loop_timer_move(broker->adoption, 0);
}
