/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_MODEL_H
#define SHMB_DAEMON_MODEL_H

/*
 * What the broker knows, and how it hangs together:
 *
 *	broker --- clients --- members --- pairs --- 2 views
 *	   |          |           |
 *	   |      connection      |
 *	   +------ channels ------+
 *
 * A client is a process that has joined; it outlives its connection. A member is a publisher or
 * subscriber of a client on a channel. A pair is an active publisher and an active subscriber of
 * one channel. A view is what one of the two clients has been told about the pair. A member whose
 * client has gone may stay for some of its pairs: see keep.h.
 */

#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/protocol.h>

#include "lib/noise.h"
#include "lib/session.h"

#include "daemon/keeper.h"
#include "daemon/list.h"
#include "daemon/lock.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/opener.h"
#include "daemon/peer.h"
#include "daemon/policy.h"
#include "daemon/quota.h"
#include "daemon/registry.h"
#include "daemon/segment.h"
#include "daemon/table.h"

struct arena;
struct broker;
struct channel;
struct client;
struct connection;
struct connection_events;
struct member;
struct pair;

/**
 * struct object - what has an id and an entry in the registry
 * @node:    in broker.objects, by id
 * @kind:    SHMB_ENTRY_*
 * @entry:   slot in the registry, REGISTRY_NO_ENTRY: none
 * @segment: its segment
 */
struct object {
	struct table_node node;
	uint32_t kind;
	uint32_t entry;
	struct segment segment;
};

static inline uint64_t object_id(const struct object *object)
{
	return object->node.key;
}

enum connection_state {
	CONNECTION_ACCEPTED, /* waits for HANDSHAKE_1 */
	CONNECTION_SENT, /* waits for READY */
	CONNECTION_READY, /* waits for JOIN */
	CONNECTION_JOINED,
};

/**
 * struct connection - one control connection
 * @link:	in broker.connections
 * @broker:	broker
 * @events:	who is told of what comes in
 * @io:		its socket in the loop
 * @fd:		the same socket; the loop's, valid until @io is closed
 * @peer:	who it is
 * @user:	who pays
 * @deadline:	when it must have joined
 * @state:	enum connection_state
 * @half_open:	charged to QUOTA_HALF_OPEN
 * @session:	keys
 * @session_id:	named in HANDSHAKE_2 and READY
 * @key:	public key of the client
 * @label:	what it calls itself, NUL-padded
 * @client:	NULL before JOIN
 */
struct connection {
	struct list link;
	struct broker *broker;
	const struct connection_events *events;
	struct loop_conn *io;
	int fd;
	struct peer peer;
	struct quota_user *user;
	struct loop_timer *deadline;
	enum connection_state state;
	bool half_open;
	struct shmb_session session;
	uint64_t session_id;
	uint8_t key[SHMB_KEY_LEN];
	uint8_t label[SHMB_LABEL_LEN_MAX];
	struct client *client;
};

/**
 * struct client - a process that has joined
 * @object:	base; its segment is the bell that the broker rings
 * @link:	in broker.clients
 * @broker:	broker
 * @connection:	NULL while it is away
 * @user:	who pays
 * @uid:	user
 * @pid:	for display
 * @start:	of its process
 * @wake:	what its bell says, unless a predecessor that was stopped rings it still
 * @pidfd:	its process
 * @death:	watches @pidfd
 * @resume_key:	BLAKE2b-256 of its token
 * @away:	when it is forgotten, if it is away and has no members; when it is back: when what
 *		it has not opened again is closed
 * @retry:	when to try again to send what could not be sent for want of something
 * @dead:	its process has ended
 * @leaving:	it has said that it will not come back
 * @members:	by member.client_link
 * @flush_link:	in broker.flushes while it has to be told something as soon as others were
 * @openings:	channels it has open, by opening.client_link
 * @dirty:	views and evictions that it has not been told yet, by view.dirty_link
 */
struct client {
	struct object object;
	struct list link;
	struct broker *broker;
	struct connection *connection;
	struct quota_user *user;
	uint32_t uid;
	uint32_t pid;
	uint64_t start;
	uint32_t wake;
	int pidfd;
	struct loop_watch *death;
	uint8_t resume_key[32];
	struct loop_timer *away;
	struct loop_timer *retry;
	bool dead;
	bool leaving;
	struct list members;
	struct list flush_link;
	struct list openings;
	struct list dirty;
};

/* A client has a channel open, @count times; 0: it had before it came back. */
struct opening {
	struct list client_link;
	struct list channel_link;
	struct client *client;
	struct channel *channel;
	uint32_t count;
};

/**
 * struct channel - a channel
 * @object:	base; its segment is mapped here
 * @link:	in broker.channels
 * @by_name:	in broker.names
 * @broker:	broker
 * @user:	who pays
 * @map:	its segment
 * @epoch:	what its segment's says, unless a predecessor that was stopped writes there still
 * @openings:	who has it open, by opening.channel_link
 * @epoch_link:	in broker.epochs while its epoch has to move as soon as clients were told
 * @pattern, @max_keys, @lane_len, @max_publishers, @max_subscribers, @history, @blocks, @ttl_ms,
 *		@ordered, @max_fds, @schema_len, @name_len, @name: as in layout.h
 * @slots:	members by role - 1 and slot, grown as needed
 * @n_slots:	length of each of @slots
 * @n_members:	attached, by role - 1
 * @n_active:	of them announced
 * @kept:	publishers that have gone, whose lanes are kept, by member.client_link
 * @kept_workers: subscribers of a queue that have gone, whose marks are kept, likewise
 * @estate_link: in broker.estates while what somebody has left may have to go to others
 * @busy:	it stays for now
 * @adopted:	its openers from before a restart may still come back
 * @retained:	it stays although nobody uses it
 * @wanted:	SHMB_MEMORY_*, as its creator or a rule wants it
 * @backing:	SHMB_MEMORY_POSIX or _SEALED: of what is made for its members from now on
 * @patience:	when its publishers move although not all of its subscribers are there
 * @hurry:	that time has come
 */
struct channel {
	struct object object;
	struct list link;
	struct table_node by_name;
	struct broker *broker;
	struct quota_user *user;
	struct shmb_channel_segment *map;
	uint64_t epoch;
	struct list openings;
	struct list epoch_link;
	uint32_t pattern;
	uint32_t max_keys;
	uint32_t lane_len;
	uint32_t max_publishers;
	uint32_t max_subscribers;
	uint32_t history;
	struct shmb_block_limits blocks;
	uint32_t ttl_ms;
	bool ordered;
	uint32_t max_fds;
	uint32_t schema_len;
	uint32_t name_len;
	uint8_t name[SHMB_NAME_LEN_MAX];
	struct member **slots[2];
	uint32_t n_slots[2];
	uint32_t n_members[2];
	uint32_t n_active[2];
	struct list kept;
	struct list kept_workers;
	struct list estate_link;
	bool busy;
	bool adopted;
	bool retained;
	uint32_t wanted;
	uint32_t backing;
	struct loop_timer *patience;
	bool hurry;
};

/**
 * struct view - what one client has been told of one pair, or of its member's eviction or move
 * @dirty_link:	in client.dirty while it has to be told something
 * @client:	whom it is for
 * @pair:	NULL: there is no pair (any more)
 * @mover:	the member that has to move, which owns this view; else NULL
 * @pair_id:	of the pair; 0: an eviction or a move
 * @member_id:	the client's member
 * @reason:	SHMB_GONE_*, when there is no pair any more
 * @shown:	it was told of the pair
 * @known_id:	it was told of another one of the same two, which this one replaces; else 0
 * @due:	of a pair: it has to be told of it, anew or for the first time
 * @next_arena:	and then of the publisher's arenas from this number on
 *
 * Views are made together with the pair, so that telling somebody that it is gone needs no memory.
 */
struct view {
	struct list dirty_link;
	struct client *client;
	struct pair *pair;
	struct member *mover;
	uint64_t pair_id;
	uint64_t member_id;
	uint32_t reason;
	bool shown;
	uint64_t known_id;
	bool due;
	uint32_t next_arena;
};

/**
 * struct member - a publisher or subscriber
 * @object:	base; its segment is the lane or cursor, or none: see member_usable()
 * @next:	the segment that it is to move to, if it has to
 * @client_link: in client.members; if it is kept, in channel.kept or .kept_workers
 * @client:	whose it is; NULL: it has gone, and its segment is kept
 * @channel:	where it is
 * @user:	who pays
 * @uid:	of its client
 * @role:	SHMB_ROLE_*
 * @flags:	SHMB_MEMBER_*
 * @history:	subscriber: how many earlier records it wants of each publisher
 * @partner_id:	publisher: the one subscriber that may read its lane; 0: all of the channel
 * @reply_to:	publisher with a partner: the subscriber of its client that gets the answers; a
 *		copy: the id of the newest pair of which it is, see estate.h
 * @evict_after_ms: subscriber: how long it may hold a publisher up; 0: for ever
 * @slot:	in channel.slots, unless it is kept; in cursors
 * @doorbell:	eventfd that its peers of the same uid ring
 * @generation:	of @doorbell
 * @given:	the client has @doorbell
 * @present:	its client, as connected now, knows this member
 * @charged:	bytes charged for its segment
 * @kept_id:	of a kept one: those with lower ones have gone before
 * @n_records:	in a lane that is kept for late subscribers: so many they get at most
 * @pairs:	by pair.member_links[role - 1]
 * @eviction:	prepared for the day it is thrown out
 * @move:	tells its client of @next
 * @arenas:	of a publisher, by arena.link and number
 */
struct member {
	struct object object;
	struct segment next;
	struct list client_link;
	struct client *client;
	struct channel *channel;
	struct quota_user *user;
	uint32_t uid;
	uint32_t role;
	uint32_t flags;
	uint32_t history;
	uint64_t partner_id;
	uint64_t reply_to;
	uint32_t evict_after_ms;
	uint32_t slot;
	int doorbell;
	uint32_t generation;
	bool given;
	bool present;
	uint64_t charged;
	uint64_t kept_id;
	uint32_t n_records;
	struct list pairs;
	struct view *eviction;
	struct view *move;
	struct list arenas;
};

/**
 * struct arena - memory for the long records of a publisher
 * @object: base
 * @link:   in member.arenas
 * @member: whose it is
 * @number: as its subscribers know it
 * @charged: bytes charged for it
 * @active: its client has mapped it
 * @left:   the publisher's lane has moved since: it only empties it
 */
struct arena {
	struct object object;
	struct list link;
	struct member *member;
	uint32_t number;
	uint64_t charged;
	bool active;
	bool left;
};

/**
 * struct pair - an active publisher and an active subscriber of one channel
 * @object:	  base; its segment is the bell that the publisher rings
 * @members:	  by role - 1
 * @member_links: in member.pairs, by role - 1
 * @views:	  by role - 1 of the member whose client it is for; NULL: of a kept one. If both are, what
 *		  the subscriber has not done is to go to others
 * @user:	  who pays for the bell
 * @sockets:	  peers of different uids: what rings the member of that role - 1: the end it waits
 *		  on and the end the other rings, until they are sent; else -1
 * @generation:	  of @sockets
 * @fds:	  where records may carry fds, by role - 1: the end of the socket for them, until it is
 *		  sent; else -1
 * @stale:	  a segment of it is gone or moving: those who have it go on with it until it is
 *		  replaced, but nobody else is told of it
 * @replaces:	  the two had another one before, which they go on with until they hear of this
 * @evicted:	  the publisher has said that it does not wait for the subscriber any more
 */
struct pair {
	struct object object;
	struct member *members[2];
	struct list member_links[2];
	struct view *views[2];
	struct quota_user *user;
	int sockets[2][2];
	uint32_t generation;
	int fds[2];
	bool stale;
	bool replaces;
	bool evicted;
};

/**
 * struct broker_config - what can be configured
 * @directory:	  holds the lock, the keys and usually the socket
 * @socket_path:  NULL: SHMB_SOCKET_FILE in @directory
 * @key_path:	  private key; NULL: SHMB_PRIVATE_FILE in @directory, made if there is none
 * @socket_mode:  permissions of the socket
 * @listen_fd:	  -1: make the socket; else it exists already, at @socket_path
 * @backend:	  of the loop
 * @idle_exit_ns: 0: never; else stop after so long without connections, clients and members
 * @away_ns:	  how long a client without members may be away; 0: 30 s
 * @handshake_ns: how long a connection may take to prove who it is and join; 0: 10 s
 * @remove_all:	  when it stops, leave nothing behind, not even for clients that live on
 * @store:	  keeps fds while there is no broker; the caller's; NULL: none
 * @keeper:	  program that keeps them if @store has no service manager; NULL: none
 * @replace:	  take the place of a broker that is there and does not go
 * @replace_ns:	  how long such a broker has for going; 0: 2 s
 * @policy:	  who may do what; the caller's
 * @limits:	  of each uid
 * @quota_rules:  exceptions; the caller's
 * @n_quota_rules: length of @quota_rules
 * @log:	  where lines go
 */
struct broker_config {
	const char *directory;
	const char *socket_path;
	const char *key_path;
	uint32_t socket_mode;
	int listen_fd;
	enum loop_backend backend;
	uint64_t idle_exit_ns;
	uint64_t away_ns;
	uint64_t handshake_ns;
	bool remove_all;
	struct store *store;
	const char *keeper;
	bool replace;
	uint64_t replace_ns;
	const struct policy *policy;
	struct quota_limits limits;
	const struct quota_rule *quota_rules;
	uint32_t n_quota_rules;
	struct log log;
};

/**
 * struct broker - all of it
 * @config:	  as given
 * @policy:	  in force
 * @log:	  where lines go
 * @loop:	  runs everything
 * @lock:	  of the directory
 * @maker:	  makes segments
 * @registry:	  what a successor needs
 * @key:	  of this broker
 * @quota:	  who uses what
 * @address:	  path of the socket
 * @listen_fd:	  socket
 * @listener:	  accepts on @listen_fd
 * @made_key:	  it made its key files
 * @made_directory: and its directory
 * @connections:  by connection.link
 * @clients:	  by client.link
 * @channels:	  by channel.link
 * @fences:	  lanes of the dead that somebody can still write, by fence.link
 * @flushes:	  clients to be told next, by client.flush_link
 * @epochs:	  channels whose epoch moves when they were, by channel.epoch_link
 * @estates:	  channels where what somebody has left may have to go to others, by channel.estate_link
 * @executor:	  looks at them again after a failure
 * @n_connections: length of @connections
 * @n_members:	  members of all clients
 * @n_retained:	  channels that stay although nobody uses them
 * @objects:	  by id
 * @names:	  channels by a keyed hash of their name
 * @name_key:	  of that hash
 * @idle:	  fires when nobody has been here for long enough
 * @adoption:	  fires when those from before a restart had their chance to come back
 * @adopting:	  starting where another one ended: whatever is there must stay if this fails
 * @next_session: session_id of the next connection
 * @packet:	  scratch for packets going out
 * @plain:	  scratch for messages coming in
 */
struct broker {
	struct broker_config config;
	const struct policy *policy;
	struct log log;
	struct loop *loop;
	struct lock lock;
	struct segment_maker maker;
	struct registry registry;
	struct keeper keeper;
	struct shmb_noise_keypair key;
	struct quota quota;
	char address[108];
	int listen_fd;
	struct loop_listener *listener;
	bool made_key;
	bool made_directory;
	struct list connections;
	struct list clients;
	struct list channels;
	struct list fences;
	struct list flushes;
	struct list epochs;
	struct list estates;
	struct loop_timer *executor;
	uint32_t n_connections;
	uint32_t n_members;
	uint32_t n_retained;
	struct table objects;
	struct table names;
	uint8_t name_key[16];
	struct loop_timer *idle;
	struct loop_timer *adoption;
	bool adopting;
	uint64_t next_session;
	_Alignas(8) uint8_t packet[SHMB_PACKET_LEN_MAX];
	_Alignas(8) uint8_t plain[SHMB_PACKET_LEN_MAX];
};

static inline bool member_is_kept(const struct member *member)
{
	return !member->client;
}

/* Have both gone? What the subscriber has not done waits for an heir: see estate.h. */
static inline bool pair_is_left(const struct pair *pair)
{
	return member_is_kept(pair->members[0]) && member_is_kept(pair->members[1]);
}

/* Has it a segment that others may have, of the backing that its channel has now? */
static inline bool member_usable(const struct member *member)
{
	const struct segment *segment = &member->object.segment;

	return segment_exists(segment) && segment->backing == member->channel->backing;
}

/* May they be a pair? Both are of one channel. */
static inline bool member_meets(const struct member *publisher, const struct member *subscriber)
{
	return !publisher->partner_id || publisher->partner_id == object_id(&subscriber->object);
}

/* Finds an object of a kind by its id, or NULL. */
static inline struct object *broker_find(const struct broker *broker, uint64_t id, uint32_t kind)
{
	struct table_node *node = table_find(&broker->objects, id);
	struct object *object = node ? shmb_container_of(node, struct object, node) : NULL;

	return object && object->kind == kind ? object : NULL;
}

/*
 * Notes that an object is gone. Its segment goes next, unless a successor may have found the two:
 * then both are the other's.
 */
static inline void broker_unregister(struct broker *broker, struct object *object)
{
	if (!registry_remove(&broker->registry, object->entry))
		segment_forget(&object->segment);
	object->entry = REGISTRY_NO_ENTRY;
}

/* Are its two members of different users? */
static inline bool pair_is_cross(const struct pair *pair)
{
	return pair->members[0]->uid != pair->members[1]->uid;
}

#endif
