/* SPDX-License-Identifier: Apache-2.0 */

/*
 * struct shmb_server: requests of all callers, in turns, and the answers to them.
 *
 * A call is a slot here, which its last reply frees: so there is one end of it and never two. That it
 * was cancelled is a record behind the request, which is seen when somebody looks: requests that lie
 * before it are copied out and wait for shmb_server_recv().
 *
 * Whoever does not read what it has asked for must not use up all calls: each caller has a share of its
 * own, and beyond that as much as is left for the others. Who has that many open is not listened to
 * until one of them has ended.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/api.h"
#include "lib/clock.h"
#include "lib/copy.h"
#include "lib/error.h"
#include "lib/link.h"
#include "lib/options.h"

#define ROOM_LOOK_NS 100000000ull /* is the caller we wait for still there? */
#define OTHERS_MAX   64u /* records of no use, then it is looked whether it is time to stop */
#define READ_STEP    16u /* bytes of ring that a record takes at least */
#define FRESH_MAX    16u /* requests between two looks at the clock, each polled for */
#define HELD_LOOK_MS 100u /* does a caller that is held back wait for its calls no longer? */

struct shmb_server {
	struct shmb_links links;
	struct shmb_call_view view;
	int32_t loan_call; /* whose reply is lent */
	uint32_t share; /* so many calls may each caller that there can be have open */
	uint32_t common; /* so many beyond that may all of them together */
	uint32_t n_common; /* of those */
	uint32_t n_held; /* callers that have as many open as they may, and want more */
	uint64_t looked_ms; /* when that was last looked at */
	uint64_t now_ms; /* when it was last looked */
	uint64_t n_requests;
	uint64_t n_replies;
	uint64_t n_expired;
	uint64_t n_cancelled;
};

/* ---- who may have how many open ---------------------------------------------------------------- */

/* As dbus-broker does it with users: as much as is left. */
static inline bool may_open(const struct shmb_server *server, const struct shmb_link *link)
{
	if (shmb_likely(link->n_calls < server->share))
		return true;
	return link->n_calls - server->share < server->common - server->n_common;
}

/* One of its calls is about to end. */
static inline void forget_share(struct shmb_server *server, const struct shmb_link *link)
{
	server->n_common -= link->n_calls > server->share;
}

static void hold_back(struct shmb_server *server, struct shmb_peer *peer, struct shmb_link *link)
{
	server->n_held += !link->held;
	link->held = true;
	shmb_subscriber_hold_back(server->links.inbox, peer, true);
}

/* All are listened to again, and those that still want too much are found out. */
static SHMB_SELDOM void listen_again(struct shmb_server *server)
{
	struct shmb_links *links = &server->links;

	for (uint32_t i = 0; i < links->n; i++)
		links->all[i]->held = false;
	for (uint32_t i = 0; i < shmb_subscriber_n_lanes(links->inbox); i++) {
		struct shmb_peer *peer = shmb_subscriber_peer(links->inbox, i);

		if (peer)
			shmb_subscriber_hold_back(links->inbox, peer, false);
	}
	server->n_held = 0;
	shmb_links_wake(links);
}

static inline void drop(struct shmb_server *server, struct shmb_call *call)
{
	if (shmb_likely(call->link != NULL))
		forget_share(server, call->link);
	shmb_call_end(&server->links.calls, call);
}

static inline void end_call(struct shmb_server *server, struct shmb_call *call)
{
	const struct shmb_link *link = call->link;
	bool others = server->n_held && link && (link->held || link->n_calls > server->share);

	drop(server, call);
	if (shmb_unlikely(others))
		listen_again(server);
}

static bool is_over(struct shmb_server *server, const struct shmb_call *call)
{
	return call->cancelled ||
	       (call->deadline && shmb_call_left_ms(call->deadline, server->now_ms) < 0);
}

/*
 * Calls that were handed out and that nobody waits for any more are ended, whatever becomes of them:
 * of callers that are held back, or else of those that have gone.
 */
static SHMB_SELDOM void forget_useless(struct shmb_server *server, bool gone)
{
	const struct shmb_calls *calls = &server->links.calls;
	bool any = false;

	for (uint32_t i = 0; i < calls->n; i++) {
		struct shmb_call *call = calls->all[i];

		if (!call->open || call->queued || !is_over(server, call) ||
		    !(gone ? !call->link : call->link && call->link->held))
			continue;
		drop(server, call);
		any = true;
	}
	if (any && server->n_held)
		listen_again(server);
}

/* Does a caller that is held back wait for less than before? */
static SHMB_SELDOM void look_at_held(struct shmb_server *server)
{
	server->now_ms = shmb_call_now_ms();
	if (server->now_ms - server->looked_ms < HELD_LOOK_MS)
		return;
	server->looked_ms = server->now_ms;
	forget_useless(server, false);
}

/* Nobody waits for replies. */
static void set_cancelled(struct shmb_server *server, struct shmb_call *call)
{
	if (!call->cancelled)
		server->n_cancelled++;
	call->cancelled = true;
}

static void on_gone(struct shmb_links *links, struct shmb_link *link)
{
	struct shmb_server *server = shmb_container_of(links, struct shmb_server, links);

	for (uint32_t i = 0; i < links->calls.n; i++) {
		struct shmb_call *call = links->calls.all[i];

		if (!call->open || call->link != link)
			continue;
		set_cancelled(server, call);
		forget_share(server, link);
		link->n_calls--;
		call->link = NULL;
	}
	server->n_held -= link->held;
	link->held = false;
}

static SHMB_SELDOM int take_news(struct shmb_server *server)
{
	return shmb_links_take_news(&server->links);
}

/* ---- what callers send ------------------------------------------------------------------------- */

static void on_cancel(struct shmb_server *server, const struct shmb_link *link, uint64_t remote)
{
	for (uint32_t i = 0; i < server->links.calls.n; i++) {
		struct shmb_call *call = server->links.calls.all[i];

		if (call->open && call->link == link && call->remote == remote)
			set_cancelled(server, call);
	}
}

static inline bool has_expired(struct shmb_server *server, uint64_t deadline)
{
	if (!deadline)
		return false;
	server->now_ms = shmb_call_now_ms();
	return shmb_call_left_ms(deadline, server->now_ms) < 0;
}

/* The clock takes as long as half of the rest: what we have been polling for has only just come. */
static inline bool is_fresh(const struct shmb_server *server)
{
	return server->links.spins && server->links.spins < SHMB_LINKS_SPINS &&
	       server->n_requests % FRESH_MAX;
}

/**
 * struct request - a request that has come
 * @record: where it lies
 * @peer:   whose
 * @link:   of that peer
 * @head:   its word
 */
struct request {
	struct shmb_record record;
	struct shmb_peer *peer;
	struct shmb_link *link;
	uint64_t head;
};

/*
 * Looks at the next record, and deals with it if it is not a request that can be handed out.
 * Returns 1: it is; 0: it is done with; -EAGAIN: there is none; or an error of the inbox.
 */
static inline int look(struct shmb_server *server, struct request *request)
{
	struct shmb_subscriber *inbox = server->links.inbox;
	const struct shmb_record *record = &request->record;
	int result = shmb_subscriber_look(inbox, &request->record, &request->head, &request->peer);
	uint32_t kind;

	if (result <= 0)
		return result ? result : -EAGAIN;
	kind = record->type >> SHMB_CALL_KIND_SHIFT;
	if (shmb_unlikely(kind > SHMB_CALL_CANCEL ||
			  (server->links.recv_len && kind == SHMB_CALL_REQUEST &&
			   record->len != server->links.recv_len))) {
		shmb_subscriber_accuse(inbox, request->peer, EBADMSG);
		return 0;
	}
	request->link = shmb_links_peer(&server->links, request->peer);
	if (shmb_unlikely(!request->link && shmb_links_have_news(&server->links))) {
		/* We are about to hear of the caller; the record stays the next one. */
		result = take_news(server);
		return result < 0 ? result : 0;
	}
	if (shmb_likely(kind == SHMB_CALL_REQUEST && request->link && !request->peer->gone &&
			!request->link->gone)) {
		if (shmb_unlikely(!is_fresh(server) &&
				  has_expired(server, request->head >> SHMB_CALL_DEADLINE_SHIFT))) {
			server->n_expired++;
		} else if (shmb_likely(may_open(server, request->link))) {
			return 1;
		} else {
			hold_back(server, request->peer, request->link);
			return 0;
		}
	} else if (kind == SHMB_CALL_CANCEL && request->link) {
		on_cancel(server, request->link, request->head & SHMB_CALL_ID_MASK);
	} else if (kind == SHMB_CALL_REQUEST) {
		server->n_cancelled++;
	}
	shmb_subscriber_pass(inbox, request->peer, record);
	return 0;
}

static struct shmb_call *new_call(struct shmb_server *server, const struct request *request)
{
	struct shmb_call *call;

	/* All but those of callers that have gone are within the shares. */
	if (shmb_unlikely(server->links.calls.n_open == SHMB_CALLS_MAX))
		forget_useless(server, true);
	call = shmb_call_new(&server->links.calls, request->link);
	if (shmb_unlikely(!call))
		return NULL;
	server->n_common += request->link->n_calls > server->share;
	call->remote = request->head & SHMB_CALL_ID_MASK;
	call->deadline = request->head >> SHMB_CALL_DEADLINE_SHIFT;
	return call;
}

/* Reads what lies there now, or as much of it as there is room to keep. */
static int read_ahead(struct shmb_server *server)
{
	uint64_t left = (uint64_t)shmb_subscriber_n_lanes(server->links.inbox) *
			server->links.channel->lane_len;
	struct request request;
	int result;

	for (; left; left -= left < READ_STEP ? left : READ_STEP) {
		struct shmb_call *call;

		result = look(server, &request);
		if (result == 0)
			continue;
		if (result < 0)
			return result == -EAGAIN ? 0 : result;
		call = new_call(server, &request);
		if (!call)
			return 0;
		if (shmb_call_keep(&server->links.calls, call, &request.record) < 0) {
			end_call(server, call);
			return 0;
		}
		if (shmb_subscriber_pass(server->links.inbox, request.peer, &request.record))
			shmb_links_enqueue(&server->links, call);
		else
			end_call(server, call);
	}
	return 0;
}

/* ---- receiving --------------------------------------------------------------------------------- */

static inline void describe(struct shmb_server *server, const struct shmb_call *call, uint32_t type,
			    uint32_t len)
{
	struct shmb_call_view *view = &server->view;

	view->len = len;
	view->call = shmb_call_name(call);
	view->type = type;
	view->pid = call->link->pid;
	view->uid = call->link->uid;
	view->peer_id = call->link->peer_id;
	view->deadline_ns = 0;
	if (call->deadline)
		view->deadline_ns = (server->now_ms +
				     (uint64_t)shmb_call_left_ms(call->deadline, server->now_ms)) *
				    1000000u;
	server->n_requests++;
}

static int32_t too_long(struct shmb_server *server, uint32_t len, uint32_t cap)
{
	server->view.len = len;
	return shmb_fail(-EMSGSIZE, "the request has %u bytes, the buffer %u", len, cap);
}

/* One that was copied out ahead. Returns as recv_request(); -EAGAIN: it is of no use any more. */
static SHMB_SELDOM int32_t recv_queued(struct shmb_server *server, const struct shmb_place *to)
{
	struct shmb_call *call = server->links.queue;
	struct shmb_part *part = call->parts;

	if (!call->cancelled && has_expired(server, call->deadline)) {
		server->n_expired++;
		call->cancelled = true;
	}
	if (call->cancelled) {
		shmb_links_dequeue(&server->links, call);
		end_call(server, call);
		return -EAGAIN;
	}
	if (part->len > to->cap)
		return too_long(server, part->len, to->cap);
	shmb_links_dequeue(&server->links, call);
	shmb_call_take(&server->links.calls, call);
	describe(server, call, part->type, part->len);
	return shmb_links_put_part(&server->links, part, to, &server->view);
}

/* One that has just come. Returns its bytes, or its hold, or an error; -EAGAIN: look again. */
static inline int32_t recv_request(struct shmb_server *server, struct request *request,
				   const struct shmb_place *to)
{
	const struct shmb_record *record = &request->record;
	struct shmb_call *call;
	int32_t result;

	if (shmb_unlikely(record->len > to->cap))
		return too_long(server, record->len, to->cap);
	call = new_call(server, request);
	if (shmb_unlikely(!call))
		return -EBUSY;
	result = shmb_links_put(&server->links, request->peer, record, to, &server->view);
	if (shmb_unlikely(result < 0)) {
		end_call(server, call);
		return result;
	}
	describe(server, call, record->type & SHMB_CALL_TYPE_MASK, record->len);
	return result;
}

/* Looks at those that are held back, if it is time to. */
static uint64_t due_ns(struct shmb_links *links)
{
	struct shmb_server *server = shmb_container_of(links, struct shmb_server, links);

	if (shmb_likely(!server->n_held))
		return UINT64_MAX;
	look_at_held(server);
	return server->n_held ? (server->looked_ms + HELD_LOOK_MS) * 1000000u : 0;
}

static uint64_t until(struct shmb_server *server, uint64_t deadline_ns)
{
	uint64_t due = due_ns(&server->links);

	return due < deadline_ns ? due : deadline_ns;
}

static int32_t receive(struct shmb_server *server, const struct shmb_place *to, int64_t timeout_ns)
{
	struct request request;
	uint64_t deadline_ns = 0; /* not known yet */
	uint32_t n_others = 0;
	int32_t result;

	shmb_links_begin_wait(&server->links);
	for (;;) {
		if (shmb_links_have_news(&server->links)) {
			result = take_news(server);
			if (result < 0)
				return result;
		}
		if (shmb_unlikely(server->n_held))
			look_at_held(server);
		if (shmb_unlikely(server->links.queue != NULL)) {
			result = recv_queued(server, to);
			if (result != -EAGAIN)
				return result;
			continue;
		}
		result = look(server, &request);
		if (shmb_likely(result > 0)) {
			shmb_links_end_wait(&server->links);
			result = recv_request(server, &request, to);
			if (shmb_likely(result != -EAGAIN))
				return result;
			continue;
		}
		if (result == -EAGAIN && shmb_likely(shmb_links_poll(&server->links)))
			continue;
		/* A caller may send for ever what is of no use. */
		if (result == 0 && ++n_others % OTHERS_MAX)
			continue;
		if (result == 0 || result == -EAGAIN) {
			if (!deadline_ns)
				deadline_ns = shmb_clock_deadline_ns(timeout_ns);
			if (deadline_ns != UINT64_MAX && shmb_clock_now_ns() >= deadline_ns)
				return shmb_fail_lazily(-ETIMEDOUT, "no request came in time", 0,
							NULL);
			if (result == -EAGAIN)
				result =
					shmb_links_wait(&server->links, until(server, deadline_ns));
		}
		if (shmb_unlikely(result < 0))
			return result;
	}
}

SHMB_API int32_t shmb_server_recv(struct shmb_server *server, void *data, uint32_t cap,
				  int64_t timeout_ns)
{
	const struct shmb_place to = { .data = data, .cap = cap };

	if (shmb_unlikely(!server || (!data && cap)))
		return shmb_fail(-EINVAL, "server or data is NULL");
	return receive(server, &to, timeout_ns);
}

SHMB_API int32_t shmb_server_recv_hold(struct shmb_server *server, int64_t timeout_ns)
{
	const struct shmb_place to = { .cap = UINT32_MAX, .hold = true };
	int result;

	if (!server)
		return shmb_fail(-EINVAL, "server is NULL");
	result = shmb_links_check_hold(&server->links);
	return result < 0 ? result : receive(server, &to, timeout_ns);
}

SHMB_API int32_t shmb_server_unhold(struct shmb_server *server, uint32_t hold)
{
	return server ? shmb_subscriber_unhold(server->links.inbox, hold)
		      : shmb_fail(-EINVAL, "server is NULL");
}

SHMB_API int32_t shmb_server_cancelled(struct shmb_server *server, int32_t name)
{
	struct shmb_call *call;
	int result = 0;

	if (!server)
		return shmb_fail(-EINVAL, "server is NULL");
	if (shmb_links_have_news(&server->links))
		result = take_news(server);
	if (result == 0)
		result = read_ahead(server);
	call = name > 0 ? shmb_call_named(&server->links.calls, name) : NULL;
	if (!call || call->parts)
		return shmb_fail(-ENOENT, "there is no call %d", name);
	return result < 0 ? result : call->cancelled || has_expired(server, call->deadline);
}

/* ---- replying ---------------------------------------------------------------------------------- */

/* No room: the caller does not read, or is gone. Returns 0 to try again, or why not. */
static SHMB_SELDOM int wait_for_room(struct shmb_server *server, struct shmb_link *link,
				     uint32_t len, uint64_t deadline_ns)
{
	uint64_t now = shmb_clock_now_ns(), left = shmb_clock_left_ns(deadline_ns, now);
	int32_t result;

	if (!left)
		return shmb_fail(-ETIMEDOUT, "the caller did not read what it was sent in time");
	result = shmb_publisher_wait(link->sender, len,
				     (int64_t)(left < ROOM_LOOK_NS ? left : ROOM_LOOK_NS));
	return result == 0 || result == -ETIMEDOUT || result == -ESTALE ? take_news(server)
									: result;
}

static int32_t end_uselessly(struct shmb_server *server, struct shmb_call *call)
{
	bool gone = !call->link;

	set_cancelled(server, call);
	end_call(server, call);
	return gone ? shmb_fail(-ECONNRESET, "the caller has gone")
		    : shmb_fail(-ECANCELED, "the call was cancelled");
}

/**
 * struct answer - what goes to the caller of a call
 * @record_type: of its record
 * @data:	 payload; NULL and @loan: only memory for it is wanted
 * @len:	 its bytes
 * @loan:	 it is to be written in place
 */
struct answer {
	uint32_t record_type;
	const void *data;
	uint32_t len;
	bool loan;
};

static int32_t put_answer(struct shmb_server *server, struct shmb_call *call,
			  const struct answer *answer)
{
	int32_t result;

	if (shmb_likely(!answer->loan))
		return shmb_publisher_send_headed(call->link->sender, call->remote, answer->data,
						  answer->len, answer->record_type);
	result = shmb_publisher_loan(call->link->sender, answer->len);
	if (result == 0)
		shmb_links_lend(&server->links, call->link, answer->len, &server->view);
	return result;
}

/* It was sent. */
static inline void end_answered(struct shmb_server *server, struct shmb_call *call,
				uint32_t record_type)
{
	server->n_replies++;
	if (record_type >> SHMB_CALL_KIND_SHIFT != SHMB_CALL_MORE)
		end_call(server, call);
}

static int32_t answer_call(struct shmb_server *server, struct shmb_call *call,
			   const struct answer *answer, int64_t timeout_ns)
{
	uint64_t deadline_ns = timeout_ns ? 0 : 1; /* 0: not known yet */
	int32_t result = 0;

	if (shmb_unlikely(server->links.loan != NULL))
		return shmb_fail(-EBUSY, "a loan is out: send or cancel it first");
	if (shmb_links_have_news(&server->links))
		result = take_news(server);
	while (result == 0) {
		if (shmb_unlikely(
			    call->cancelled || !call->link ||
			    (!call->link->sender && !shmb_links_reach(&server->links, call->link))))
			return end_uselessly(server, call);
		result = put_answer(server, call, answer);
		if (shmb_likely(result == 0))
			break;
		if (!deadline_ns)
			deadline_ns = shmb_clock_deadline_ns(timeout_ns);
		if (result == -EAGAIN)
			result = wait_for_room(server, call->link, answer->len, deadline_ns);
		else if (result == -ESTALE)
			result = take_news(server);
	}
	if (shmb_unlikely(result < 0))
		return result;
	if (shmb_likely(!answer->loan))
		end_answered(server, call, answer->record_type);
	return 0;
}

/* A call that was handed out, or NULL. */
static inline struct shmb_call *find_named(const struct shmb_server *server, int32_t name)
{
	struct shmb_call *call = name > 0 ? shmb_call_named(&server->links.calls, name) : NULL;

	return call && !call->parts ? call : NULL;
}

SHMB_API int32_t shmb_server_reply(struct shmb_server *server, int32_t name, uint32_t type,
				   const void *data, uint32_t len, uint32_t flags,
				   int64_t timeout_ns)
{
	uint32_t kind = flags & SHMB_REPLY_MORE ? SHMB_CALL_MORE : SHMB_CALL_REPLY;
	struct shmb_call *call;
	int32_t result;

	if (shmb_unlikely(!server || (!data && len) || type > SHMB_CALL_TYPE_MASK ||
			  flags & ~SHMB_REPLY_MORE))
		return shmb_fail(-EINVAL,
				 "server or data is NULL, type %u is over %u, or flags are 0x%x",
				 type, SHMB_CALL_TYPE_MASK, flags);
	result = shmb_links_check_len(&server->links, len);
	if (shmb_unlikely(result < 0))
		return result;
	call = find_named(server, name);
	if (shmb_unlikely(!call))
		return shmb_fail(-ENOENT, "there is no call %d", name);
	return answer_call(server, call,
			   &(struct answer){ .record_type = shmb_call_record_type(kind, type),
					     .data = data,
					     .len = len },
			   timeout_ns);
}

SHMB_API int32_t shmb_server_loan(struct shmb_server *server, int32_t name, uint32_t len,
				  int64_t timeout_ns)
{
	struct shmb_call *call;
	int32_t result;

	if (!server)
		return shmb_fail(-EINVAL, "server is NULL");
	result = shmb_links_check_len(&server->links, len);
	if (result < 0)
		return result;
	call = find_named(server, name);
	if (!call)
		return shmb_fail(-ENOENT, "there is no call %d", name);
	result =
		answer_call(server, call, &(struct answer){ .len = len, .loan = true }, timeout_ns);
	if (result == 0)
		server->loan_call = server->view.call = name;
	return result;
}

SHMB_API int32_t shmb_server_reply_loan(struct shmb_server *server, uint32_t type, uint32_t len,
					uint32_t flags)
{
	uint32_t kind = flags & SHMB_REPLY_MORE ? SHMB_CALL_MORE : SHMB_CALL_REPLY;
	uint32_t record_type = shmb_call_record_type(kind, type);
	struct shmb_call *call;
	int32_t result;

	if (!server || flags & ~SHMB_REPLY_MORE)
		return shmb_fail(-EINVAL, "server is NULL, or flags are 0x%x", flags);
	result = shmb_links_check_loan(&server->links, type, len);
	if (result == 0 && shmb_links_have_news(&server->links))
		result = take_news(server);
	if (result < 0)
		return result;
	call = find_named(server, server->loan_call);
	if (call && call->link && !call->cancelled) {
		result = shmb_publisher_publish_headed(call->link->sender, call->remote, len,
						       record_type);
		if (result == 0) {
			shmb_links_end_loan(&server->links);
			end_answered(server, call, record_type);
			return 0;
		}
		if (result != -ESTALE)
			return result;
		result = take_news(server);
		if (result < 0)
			return result;
	}
	shmb_links_cancel_loan(&server->links);
	return call ? end_uselessly(server, call)
		    : shmb_fail(-ENOENT, "there is no call %d", server->loan_call);
}

SHMB_API int32_t shmb_server_cancel_loan(struct shmb_server *server)
{
	return server ? shmb_links_cancel_loan(&server->links)
		      : shmb_fail(-EINVAL, "server is NULL");
}

SHMB_API int32_t shmb_server_end(struct shmb_server *server, int32_t name, int64_t timeout_ns)
{
	struct shmb_call *call = server ? find_named(server, name) : NULL;

	if (!call)
		return server ? shmb_fail(-ENOENT, "there is no call %d", name)
			      : shmb_fail(-EINVAL, "server is NULL");
	return answer_call(
		server, call,
		&(struct answer){ .record_type = shmb_call_record_type(SHMB_CALL_END, 0) },
		timeout_ns);
}

SHMB_API int32_t shmb_server_fail(struct shmb_server *server, int32_t name, int32_t code,
				  const char *text, uint32_t len, int64_t timeout_ns)
{
	struct shmb_call *call = server ? find_named(server, name) : NULL;
	uint8_t payload[sizeof(code) + SHMB_CALL_TEXT_LEN_MAX];

	if (!server || (!text && len) || len > SHMB_CALL_TEXT_LEN_MAX)
		return shmb_fail(-EINVAL, "server or text is NULL, or %u bytes are over %u", len,
				 SHMB_CALL_TEXT_LEN_MAX);
	if (!call)
		return shmb_fail(-ENOENT, "there is no call %d", name);
	memcpy(payload, &code, sizeof(code));
	if (len)
		memcpy(payload + sizeof(code), text, len);
	return answer_call(
		server, call,
		&(struct answer){ .record_type = shmb_call_record_type(SHMB_CALL_FAILURE, 0),
				  .data = payload,
				  .len = (uint32_t)sizeof(code) + len },
		timeout_ns);
}

/* ---- event loops ------------------------------------------------------------------------------- */

SHMB_API int32_t shmb_server_fd(struct shmb_server *server)
{
	return server ? shmb_links_fd(&server->links) : shmb_fail(-EINVAL, "server is NULL");
}

SHMB_API int32_t shmb_server_arm(struct shmb_server *server)
{
	if (!server)
		return shmb_fail(-EINVAL, "server is NULL");
	return server->links.queue ? 1 : shmb_subscriber_arm(server->links.inbox);
}

/* ---- opening and closing ----------------------------------------------------------------------- */

SHMB_API int32_t shmb_server_open(struct shmb_channel *channel,
				  const struct shmb_server_options *given,
				  struct shmb_server **ret_server)
{
	const uint32_t known = SHMB_SERVER_NO_SPIN | SHMB_SERVER_TRUSTING;
	struct shmb_server_options options;
	struct shmb_server *server;
	int32_t result;

	if (!channel || !ret_server)
		return shmb_fail(-EINVAL, "channel or ret_server is NULL");
	result = shmb_options_take(&options, sizeof(options), given, "server");
	if (result < 0)
		return result;
	if (options.flags & ~known || options.pad)
		return shmb_fail(-EINVAL, "unknown server flags 0x%x", options.flags & ~known);
	server = calloc(1, sizeof(*server));
	if (!server)
		return shmb_fail(-ENOMEM, "no memory for a server");
	server->now_ms = shmb_call_now_ms();
	server->share = SHMB_CALLS_MAX / 2 / channel->max_subscribers;
	server->common = SHMB_CALLS_MAX - server->share * channel->max_subscribers;
	server->links.server = true;
	server->links.flags = options.flags & SHMB_SERVER_TRUSTING ? SHMB_PUBLISHER_TRUSTING : 0;
	server->links.on_gone = on_gone;
	server->links.due_ns = due_ns;
	result = shmb_links_open(&server->links, channel, options.flags & SHMB_SERVER_NO_SPIN,
				 options.spin_ns);
	if (result < 0) {
		shmb_links_close(&server->links);
		free(server);
		return result;
	}
	*ret_server = server;
	return 0;
}

SHMB_API int32_t shmb_server_close(struct shmb_server *server)
{
	int result;

	if (!server)
		return 0;
	/* Callers hear that we have gone, which ends all calls. */
	result = shmb_links_close(&server->links);
	if (result == 0)
		free(server);
	return result;
}

struct shmb_links *shmb_server_links(struct shmb_server *server)
{
	return &server->links;
}

SHMB_API struct shmb_call_view *shmb_server_view(struct shmb_server *server)
{
	return server ? &server->view : NULL;
}

SHMB_API int32_t shmb_server_stats(struct shmb_server *server, struct shmb_server_stats *stats,
				   uint32_t cap)
{
	struct shmb_server_stats all = { 0 };

	if (!server || !stats)
		return shmb_fail(-EINVAL, "server or stats is NULL");
	all.server_id = server->links.id;
	all.requests = server->n_requests;
	all.replies = server->n_replies;
	all.expired = server->n_expired;
	all.cancelled = server->n_cancelled;
	all.n_open = server->links.calls.n_open;
	all.n_held = server->n_held;
	for (uint32_t i = 0; i < server->links.n; i++)
		all.n_callers += shmb_link_is_usable(server->links.all[i]);
	memcpy(stats, &all, cap < sizeof(all) ? cap : sizeof(all));
	return 0;
}
