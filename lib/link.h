/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_LIB_LINK_H
#define SHMB_LIB_LINK_H

/*
 * What callers and servers have in common: a subscriber on which all private lanes of their peers
 * end, a link to each peer, with a private lane of our own, and the calls that are open.
 *
 * A caller finds its servers in the channel's segment and opens a lane to each. A server hears of a
 * caller by that lane, and opens one for the answers. Who goes is heard of as everywhere: from the
 * broker, after the epoch has moved.
 */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include <shmbroker/shmbroker.h>

#include "lib/call.h"
#include "lib/copy.h"
#include "lib/publisher.h"
#include "lib/subscriber.h"

/**
 * struct shmb_link - a peer
 * @peer_id:  its subscriber
 * @uid:      user
 * @pid:      process
 * @sender:   our lane to it; NULL: it could not be opened (yet), or is closed
 * @met:      it has read from @sender
 * @heard:    it has had a lane to us
 * @gone:     nothing comes and nothing can be sent any more; it goes when nobody names it
 * @named:    scratch: the directory or a lane names it
 * @lane:     scratch: it has a lane to us
 * @n_calls:  open calls
 * @n_cancels: of them, cancelled and not told yet
 * @full:     caller, scratch: there is no room for the request
 * @held:     server: it has as many calls open as it may, and its lane is not read
 */
struct shmb_link {
	uint64_t peer_id;
	uint32_t uid;
	uint32_t pid;
	struct shmb_publisher *sender;
	bool met;
	bool heard;
	bool gone;
	bool named;
	bool lane;
	uint32_t n_calls;
	uint32_t n_cancels;
	bool full;
	bool held;
};

/**
 * struct shmb_part - a request or reply that was copied out before somebody asked for it
 * @next: younger one
 * @kind: SHMB_CALL_*
 * @type: the application's
 * @len:  bytes of @data
 * @data: payload
 */
struct shmb_part {
	struct shmb_part *next;
	uint32_t kind;
	uint32_t type;
	uint32_t len;
	_Alignas(16) uint8_t data[];
};

/**
 * struct shmb_call - an open call
 * @id:		as it is numbered here; the low 31 bits of it are its name in the API
 * @remote:	server: as the caller numbers it
 * @link:	the peer; NULL: it has gone
 * @gone_id:	caller: the id of the peer that has gone
 * @gone_uid:	user
 * @gone_pid:	process
 * @deadline_ns: caller: when it ends; 0: not known yet
 * @timeout_ns:	caller: after which time
 * @deadline:	server: as in the request's word
 * @parts:	what has come and was not asked for yet
 * @parts_end:	where the next one goes
 * @error:	caller: why it has ended; 0: it has not
 * @open:	it is in use
 * @answered:	caller: its end is among @parts
 * @cancelled:	caller: the server is still to be told; server: nobody waits for replies
 * @queued:	is in @queue of the links
 * @next_queued: there
 */
struct shmb_call {
	uint64_t id;
	uint64_t remote;
	struct shmb_link *link;
	uint64_t gone_id;
	uint32_t gone_uid;
	uint32_t gone_pid;
	uint64_t deadline_ns;
	int64_t timeout_ns;
	uint64_t deadline;
	struct shmb_part *parts;
	struct shmb_part **parts_end;
	int32_t error;
	bool open;
	bool answered;
	bool cancelled;
	bool queued;
	struct shmb_call *next_queued;
};

/**
 * struct shmb_calls - all calls that are open
 * @all:   by the low bits of their ids; they stay where they are
 * @n:	   length of @all
 * @n_open: of them in use
 * @free:  indices that are not in use, in a ring of SHMB_CALLS_MAX; reused as late as possible
 * @first: of @free
 * @n_free: of @free
 * @parts_len: bytes in parts
 * @parts_len_max: limit
 */
struct shmb_calls {
	struct shmb_call **all;
	uint32_t n;
	uint32_t n_open;
	uint16_t free[SHMB_CALLS_MAX];
	uint32_t first;
	uint32_t n_free;
	uint64_t parts_len;
	uint64_t parts_len_max;
};

/**
 * struct shmb_links - all peers
 * @channel: call channel
 * @inbox:   their lanes end here
 * @member:  inside of @inbox
 * @id:	     of @inbox
 * @server:  we are a server
 * @flags:   SHMB_PUBLISHER_TRUSTING or 0, of the lanes
 * @send_len: bytes of each request (server: reply) that we send; 0: they are untyped
 * @recv_len: of each that we receive
 * @len_max: of the longest
 * @spin:    poll without looking at the clock before sleeping
 * @misses:  how often that was in vain, in a row
 * @waits:   counts waits
 * @spins:   polls left in this wait
 * @all:     peers
 * @n:	     length of @all
 * @cap:     room in @all
 * @next:    where the choice among equals begins
 * @loan:    memory in our lane to it, or in a block, is being written; NULL: none is
 * @loan_len: its bytes
 * @last_error: why a lane could not be opened; 0: all could
 * @on_noted: somebody may have gone, and what it had said is to be read; NULL: that is not needed
 * @on_gone: a peer has gone: end its calls
 * @due_ns:  when there may be something although nothing has come; UINT64_MAX: never
 * @calls:   open calls
 * @queue:   of them, those that have something for who asks for any
 * @queue_end: where the next one goes
 */
struct shmb_links {
	struct shmb_channel *channel;
	struct shmb_subscriber *inbox;
	const struct shmb_member *member;
	uint64_t id;
	bool server;
	uint32_t flags;
	uint32_t send_len;
	uint32_t recv_len;
	uint32_t len_max;
	bool spin;
	uint32_t misses;
	uint32_t waits;
	uint32_t spins;
	struct shmb_link **all;
	uint32_t n;
	uint32_t cap;
	uint32_t next;
	struct shmb_link *loan;
	uint32_t loan_len;
	int last_error;
	void (*on_noted)(struct shmb_links *links);
	void (*on_gone)(struct shmb_links *links, struct shmb_link *link);
	uint64_t (*due_ns)(struct shmb_links *links);
	struct shmb_calls calls;
	struct shmb_call *queue;
	struct shmb_call **queue_end;
};

/**
 * shmb_links_open() - become a caller or a server
 * @links:   zeroes, but for server, flags and on_gone; filled
 * @channel: channel
 * @no_spin: never poll
 * @spin_ns: as in struct shmb_subscriber_options
 *
 * Return: 0; -EOPNOTSUPP: it is no call channel; as shmb_subscriber_open().
 */
int shmb_links_open(struct shmb_links *links, struct shmb_channel *channel, bool no_spin,
		    uint32_t spin_ns);

/* Frees everything but @links itself. Returns 0; -EBUSY: it is in a wait set, and stays as it is. */
int shmb_links_close(struct shmb_links *links);

/* Is it time for shmb_links_take_news()? */
static inline bool shmb_links_have_news(const struct shmb_links *links)
{
	return shmb_unlikely(shmb_member_is_news(links->member));
}

/*
 * Takes in what the broker has said: meets who has come, and parts from who has gone, once what those
 * have sent has been read. Returns 0 or -ECHILD.
 */
int shmb_links_take_news(struct shmb_links *links);

/*
 * Is there something for who asks for any? Takes in news first; may say so in vain if what has come is
 * of no use. Returns 1, 0, or an error of the inbox.
 */
int shmb_links_ready(struct shmb_links *links);

/* What wait sets need of callers and servers. */
struct shmb_links *shmb_caller_links(struct shmb_caller *caller);
struct shmb_links *shmb_server_links(struct shmb_server *server);

/* The last of those that have something for who asks, unless it is one of them already. */
static inline void shmb_links_enqueue(struct shmb_links *links, struct shmb_call *call)
{
	if (call->queued)
		return;
	call->queued = true;
	call->next_queued = NULL;
	*links->queue_end = call;
	links->queue_end = &call->next_queued;
}

/* Why what we would send cannot have this length. Returns -EINVAL or -EMSGSIZE. */
int shmb_links_refuse_len(const struct shmb_links *links, uint32_t len);

/* Can what we send have this length? Returns 0, -EINVAL or -EMSGSIZE. */
static inline int shmb_links_check_len(const struct shmb_links *links, uint32_t len)
{
	if (shmb_likely(len <= links->len_max && (!links->send_len || len == links->send_len)))
		return 0;
	return shmb_links_refuse_len(links, len);
}

/* The memory that the sender of a link has lent is what somebody writes; the view says where. */
void shmb_links_lend(struct shmb_links *links, struct shmb_link *link, uint32_t len,
		     struct shmb_call_view *view);

/* Can so many bytes of the loan be sent? Returns 0, -EINVAL or -EMSGSIZE. */
int shmb_links_check_loan(const struct shmb_links *links, uint32_t type, uint32_t len);

/* It was sent. */
void shmb_links_end_loan(struct shmb_links *links);

/* It will not be. Returns 0, -EINVAL or -ECHILD. */
int32_t shmb_links_cancel_loan(struct shmb_links *links);

/**
 * struct shmb_place - where a request or a reply goes that somebody has asked for
 * @data: it is copied there
 * @cap:	bytes of @data; UINT32_MAX if it is held
 * @hold: it is held instead
 */
struct shmb_place {
	void *data;
	uint32_t cap;
	bool hold;
};

/* May one more be held? Returns 0 or -EDQUOT. */
int shmb_links_check_hold(const struct shmb_links *links);

/* Holds what has come. Returns as shmb_links_put(). */
SHMB_SELDOM int32_t shmb_links_hold(struct shmb_links *links, struct shmb_peer *peer,
				    const struct shmb_record *record, struct shmb_call_view *view);

/*
 * Puts what has come where it is wanted, and is done with the record. Returns its bytes, or the hold,
 * and the view says where that is; -EAGAIN: it was overwritten meanwhile, look again; -ENOMEM.
 */
static inline int32_t shmb_links_put(struct shmb_links *links, struct shmb_peer *peer,
				     const struct shmb_record *record, const struct shmb_place *to,
				     struct shmb_call_view *view)
{
	if (shmb_unlikely(to->hold))
		return shmb_links_hold(links, peer, record, view);
	shmb_copy(to->data, record->data, record->len);
	if (shmb_unlikely(!shmb_subscriber_pass(links->inbox, peer, record)))
		return -EAGAIN;
	return (int32_t)record->len;
}

/* The same for a part that was taken, which is ours. */
int32_t shmb_links_put_part(struct shmb_links *links, struct shmb_part *part,
			    const struct shmb_place *to, struct shmb_call_view *view);

/* The fd of shmb_caller_fd() and shmb_server_fd(). */
int shmb_links_fd(struct shmb_links *links);

/* Who sleeps on that fd looks again: there may be something although nothing has come. */
void shmb_links_wake(const struct shmb_links *links);

/* It has nothing for who asks any more. */
void shmb_links_dequeue(struct shmb_links *links, struct shmb_call *call);

#define SHMB_LINKS_SPINS      64u /* polls before the clock is looked at */
#define SHMB_LINKS_MISSES_MAX 6u /* at worst one wait of 64 polls */

/*
 * A quick answer is there before the clock could have been read. If it seldom is, this is tried
 * seldom. Before the first look of a wait.
 */
static inline void shmb_links_begin_wait(struct shmb_links *links)
{
	links->spins =
		!links->spin || ++links->waits & ((1u << links->misses) - 1) ? 0 : SHMB_LINKS_SPINS;
}

/* Nothing was found: look again? */
static inline bool shmb_links_poll(struct shmb_links *links)
{
	if (!links->spins)
		return false;
	if (!--links->spins && links->misses < SHMB_LINKS_MISSES_MAX)
		links->misses++;
	shmb_pause();
	return true;
}

/* Something was found. */
static inline void shmb_links_end_wait(struct shmb_links *links)
{
	if (!links->spins)
		return;
	links->misses = 0;
	/* Polling is worth it. */
	if (links->spins != SHMB_LINKS_SPINS)
		shmb_subscriber_count_quick(links->inbox);
}

/* Sleeps until a record has come, or news, or the deadline. Returns 0, or an error of the inbox. */
int shmb_links_wait(struct shmb_links *links, uint64_t deadline_ns);

/* The peer whose lane it is; NULL: it is not known (any more). */
struct shmb_link *shmb_links_find(struct shmb_links *links, struct shmb_peer *peer);

static inline struct shmb_link *shmb_links_peer(struct shmb_links *links, struct shmb_peer *peer)
{
	return shmb_likely(peer->link != NULL) ? peer->link : shmb_links_find(links, peer);
}

/* Opens our lane to it, if that has not been done. Returns whether there is one. */
bool shmb_links_reach(struct shmb_links *links, struct shmb_link *link);

/* Can something be sent to it? */
static inline bool shmb_link_is_usable(const struct shmb_link *link)
{
	return link->met && !link->gone;
}

/* A call in use, or NULL if SHMB_CALLS_MAX are or there is no memory. */
struct shmb_call *shmb_call_new(struct shmb_calls *calls, struct shmb_link *link);

/* Ends it, and forgets its parts. */
void shmb_call_end(struct shmb_calls *calls, struct shmb_call *call);

/* By its whole number; NULL: there is none. */
static inline struct shmb_call *shmb_call_find(const struct shmb_calls *calls, uint64_t id)
{
	uint32_t index = (uint32_t)id % SHMB_CALLS_MAX;
	struct shmb_call *call = index < calls->n ? calls->all[index] : NULL;

	return call && call->open && call->id == id ? call : NULL;
}

/* By its name in the API. */
static inline struct shmb_call *shmb_call_named(const struct shmb_calls *calls, int32_t name)
{
	uint32_t index = (uint32_t)name % SHMB_CALLS_MAX;
	struct shmb_call *call = index < calls->n ? calls->all[index] : NULL;

	return call && call->open && (int32_t)(call->id & INT32_MAX) == name ? call : NULL;
}

static inline int32_t shmb_call_name(const struct shmb_call *call)
{
	return (int32_t)(call->id & INT32_MAX);
}

/* Copies the payload of a record. Returns -ENOMEM; -ENOBUFS: too much waits already. */
int shmb_call_keep(struct shmb_calls *calls, struct shmb_call *call,
		   const struct shmb_record *record);

/* Takes the oldest part; the caller frees it. NULL: there is none. */
struct shmb_part *shmb_call_take(struct shmb_calls *calls, struct shmb_call *call);

#endif
