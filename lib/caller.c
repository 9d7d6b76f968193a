/* SPDX-License-Identifier: Apache-2.0 */

/*
 * struct shmb_caller: requests to the servers of a channel, and what comes back.
 *
 * A call is a slot here and a number in each of its records. A reply counts only if it comes on the
 * lane of the server that was asked, for a call that is open; everything else is dropped. So a server
 * can neither answer for another one nor twice.
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

#define SERVER_LOOK_NS	5000000ull /* nobody rings when a server comes: look every few ms */
#define SERVER_RETRY_NS 100000000ull /* no lane could be opened to it */
#define OTHERS_MAX	64u /* records of no use, then it is looked whether it is time to stop */
#define ROOM_LOOK_NS	5000000ull /* replies have to be read while we wait for room */

struct shmb_caller {
	struct shmb_links links;
	struct shmb_call_view view;
	bool fail_fast;
	uint64_t n_calls;
	uint64_t n_replies;
	uint64_t n_late;
	uint64_t n_timeouts;
	uint64_t n_resets;
};

static void end_call(struct shmb_caller *caller, struct shmb_call *call)
{
	if (shmb_unlikely(call->queued))
		shmb_links_dequeue(&caller->links, call);
	shmb_call_end(&caller->links.calls, call);
}

/* ---- cancelling -------------------------------------------------------------------------------- */

/* The number of a call stays taken until its server has been told. Returns false if there is no room. */
static bool tell_cancelled(struct shmb_caller *caller, struct shmb_call *call)
{
	struct shmb_link *link = call->link;
	int32_t result = shmb_publisher_send_headed(link->sender, call->id, NULL, 0,
						    shmb_call_record_type(SHMB_CALL_CANCEL, 0));

	/* No room, or it is lent. */
	if (result == -EAGAIN || result == -EBUSY)
		return false;
	end_call(caller, call);
	return true;
}

/* Its server is told now, or when there is room again. Nobody knows of the call any more. */
static void cancel(struct shmb_caller *caller, struct shmb_call *call)
{
	struct shmb_part *part;

	if (shmb_unlikely(call->queued))
		shmb_links_dequeue(&caller->links, call);
	while ((part = shmb_call_take(&caller->links.calls, call)))
		free(part);
	if (!call->link || !call->link->sender || tell_cancelled(caller, call)) {
		if (call->open)
			end_call(caller, call);
		return;
	}
	call->cancelled = true;
	call->link->n_cancels++;
}

static void tell_all_cancelled(struct shmb_caller *caller, struct shmb_link *link)
{
	struct shmb_calls *calls = &caller->links.calls;

	for (uint32_t i = 0; i < calls->n && link->n_cancels; i++) {
		struct shmb_call *call = calls->all[i];

		if (!call->open || !call->cancelled || call->link != link)
			continue;
		if (!tell_cancelled(caller, call))
			return;
		link->n_cancels--;
	}
}

/* ---- news -------------------------------------------------------------------------------------- */

static void on_gone(struct shmb_links *links, struct shmb_link *link)
{
	struct shmb_caller *caller = shmb_container_of(links, struct shmb_caller, links);

	for (uint32_t i = 0; i < links->calls.n; i++) {
		struct shmb_call *call = links->calls.all[i];

		if (!call->open || call->link != link)
			continue;
		link->n_calls--;
		call->link = NULL;
		call->gone_id = link->peer_id;
		call->gone_uid = link->uid;
		call->gone_pid = link->pid;
		if (call->cancelled) {
			end_call(caller, call);
			continue;
		}
		if (call->answered)
			continue;
		caller->n_resets++;
		call->error = -ECONNRESET;
		shmb_links_enqueue(&caller->links, call);
	}
	link->n_cancels = 0;
}

/* The call that a record answers, or NULL. */
static inline struct shmb_call *find_call(struct shmb_caller *caller, struct shmb_peer *peer,
					  const struct shmb_record *record, uint64_t head)
{
	struct shmb_call *call;

	if (shmb_unlikely(record->type >> SHMB_CALL_KIND_SHIFT < SHMB_CALL_REPLY ||
			  record->type >> SHMB_CALL_KIND_SHIFT > SHMB_CALL_FAILURE))
		return NULL;
	call = shmb_call_find(&caller->links.calls, head & SHMB_CALL_ID_MASK);
	if (shmb_unlikely(!call || !call->link || call->cancelled || call->answered ||
			  call->link != shmb_links_peer(&caller->links, peer)))
		return NULL;
	return call;
}

/* Has a reply the length of the schema's? Returns 0 or -EBADMSG. */
static inline int fits(const struct shmb_caller *caller, const struct shmb_record *record)
{
	return shmb_likely(!caller->links.recv_len || record->len == caller->links.recv_len ||
			   record->type >> SHMB_CALL_KIND_SHIFT > SHMB_CALL_MORE)
		       ? 0
		       : -EBADMSG;
}

/* Keeps a record for who will ask for it. One that was overwritten meanwhile was never there. */
static void keep(struct shmb_caller *caller, struct shmb_call *call, struct shmb_peer *peer,
		 const struct shmb_record *record)
{
	int result = call->error ? call->error : fits(caller, record);

	if (result == 0)
		result = shmb_call_keep(&caller->links.calls, call, record);

	if (!shmb_subscriber_pass(caller->links.inbox, peer, record) && result == 0) {
		/* Its server has parted from us, so the call ends that way. */
		struct shmb_part *part;

		while ((part = shmb_call_take(&caller->links.calls, call)))
			free(part);
		return;
	}
	if (result < 0)
		call->error = result;
	else
		call->answered = record->type >> SHMB_CALL_KIND_SHIFT != SHMB_CALL_MORE;
	shmb_links_enqueue(&caller->links, call);
}

/*
 * Reads all there is, so that it comes before what is said of those who have gone. What lies there now
 * is no more than the lanes hold; who goes on writing is not waited for.
 */
static void read_all(struct shmb_links *links)
{
	struct shmb_caller *caller = shmb_container_of(links, struct shmb_caller, links);
	uint64_t left = (uint64_t)shmb_subscriber_n_lanes(caller->links.inbox) *
			caller->links.channel->lane_len;
	struct shmb_record record;
	struct shmb_peer *peer;
	uint64_t head;

	while (left && shmb_subscriber_look(caller->links.inbox, &record, &head, &peer) > 0) {
		struct shmb_call *call = find_call(caller, peer, &record, head);

		left -= record.span < left ? record.span : left;
		if (call) {
			keep(caller, call, peer, &record);
		} else {
			caller->n_late++;
			shmb_subscriber_pass(caller->links.inbox, peer, &record);
		}
	}
}

static SHMB_SELDOM int take_news(struct shmb_caller *caller)
{
	return shmb_links_take_news(&caller->links);
}

/* ---- sending ----------------------------------------------------------------------------------- */

/* The server with the fewest open calls that is not full; of several, each in turn. */
static struct shmb_link *choose(struct shmb_links *links)
{
	struct shmb_link *best = NULL;
	uint32_t at = 0;

	for (uint32_t i = 0; i < links->n; i++) {
		uint32_t index = (links->next + i) % links->n;
		struct shmb_link *link = links->all[index];

		if (!shmb_link_is_usable(link) || link->full ||
		    (best && link->n_calls >= best->n_calls))
			continue;
		best = link;
		at = index;
	}
	if (best)
		links->next = at + 1;
	return best;
}

/* Nobody is there. Returns 0 to look again. */
static int wait_for_server(struct shmb_caller *caller, uint64_t deadline_ns)
{
	struct shmb_links *links = &caller->links;
	uint64_t now = shmb_clock_now_ns();
	uint64_t until = now + (links->last_error ? SERVER_RETRY_NS : SERVER_LOOK_NS);
	int result;

	if (caller->fail_fast && !links->last_error)
		return shmb_fail(-EHOSTUNREACH, "the channel has no server");
	if (now >= deadline_ns || caller->fail_fast)
		return links->last_error
			       ? links->last_error
			       : shmb_fail(-ETIMEDOUT, "no server came to the channel in time");
	result = shmb_links_wait(links, until < deadline_ns ? until : deadline_ns);
	return result < 0 ? result : take_news(caller);
}

/* One that is full; from now on none is called so. NULL: none is. */
static struct shmb_link *find_full(struct shmb_links *links)
{
	struct shmb_link *full = NULL;

	for (uint32_t i = 0; i < links->n; i++) {
		if (links->all[i]->full && shmb_link_is_usable(links->all[i]))
			full = links->all[i];
		links->all[i]->full = false;
	}
	return full;
}

/* The lanes of all servers are full: they are slow, or wait for us to read their replies. */
static int wait_for_room(struct shmb_caller *caller, struct shmb_link *link, uint32_t len,
			 uint64_t deadline_ns)
{
	uint64_t now = shmb_clock_now_ns(), left = shmb_clock_left_ns(deadline_ns, now);
	int32_t result;

	if (!left)
		return shmb_fail(
			-ETIMEDOUT,
			"the server did not read what it was sent in time: it is slow, or has too "
			"many calls of this caller open, of which there are %u",
			link->n_calls);
	result = shmb_publisher_wait(link->sender, len,
				     (int64_t)(left < ROOM_LOOK_NS ? left : ROOM_LOOK_NS));
	return result == 0 || result == -ETIMEDOUT || result == -ESTALE ? take_news(caller)
									: result;
}

static inline int32_t send_request(struct shmb_caller *caller, struct shmb_call *call,
				   uint32_t type, const void *request, uint32_t len,
				   uint64_t deadline)
{
	if (shmb_unlikely(call->link->n_cancels))
		tell_all_cancelled(caller, call->link);
	return shmb_publisher_send_headed(call->link->sender,
					  call->id | deadline << SHMB_CALL_DEADLINE_SHIFT, request,
					  len, shmb_call_record_type(SHMB_CALL_REQUEST, type));
}

/**
 * struct request - what goes to one of the servers
 * @type:     the application's
 * @data:     payload; NULL and @loan: only memory for it is wanted
 * @len:      its bytes
 * @deadline: as in its word
 * @loan:     it is to be written in place
 * @call:     filled, unless it is a loan
 */
struct request {
	uint32_t type;
	const void *data;
	uint32_t len;
	uint64_t deadline;
	bool loan;
	struct shmb_call *call;
};

/* Returns 0; -EAGAIN: that server has no room; or another error. */
static int put_request(struct shmb_caller *caller, struct shmb_link *link, struct request *request)
{
	struct shmb_call *call;
	int32_t result;

	if (request->loan) {
		if (link->n_cancels)
			tell_all_cancelled(caller, link);
		result = shmb_publisher_loan(link->sender, request->len);
		if (result == 0)
			shmb_links_lend(&caller->links, link, request->len, &caller->view);
		return result;
	}
	call = shmb_call_new(&caller->links.calls, link);
	if (!call)
		return -EBUSY;
	result = send_request(caller, call, request->type, request->data, request->len,
			      request->deadline);
	if (result < 0)
		end_call(caller, call);
	else
		request->call = call;
	return result;
}

/* What does not go to one server at once: until it goes to one, or the time is up. */
static SHMB_SELDOM int begin_slowly(struct shmb_caller *caller, struct request *request,
				    uint64_t deadline_ns)
{
	bool done = false;
	int result = 0;

	while (result == 0 && !done) {
		struct shmb_link *link = choose(&caller->links);

		if (!link) {
			link = find_full(&caller->links);
			result = link ? wait_for_room(caller, link, request->len, deadline_ns)
				      : wait_for_server(caller, deadline_ns);
			continue;
		}
		result = put_request(caller, link, request);
		done = result == 0;
		link->full = result == -EAGAIN;
		if (result == -EAGAIN)
			result = 0;
		else if (result == -ESTALE)
			result = take_news(caller);
	}
	find_full(&caller->links);
	return result;
}

static int check_request(const struct shmb_caller *caller, uint32_t type, const void *request,
			 uint32_t len)
{
	if (!caller)
		return shmb_fail(-EINVAL, "caller is NULL");
	if (type > SHMB_CALL_TYPE_MASK || (!request && len))
		return shmb_fail(-EINVAL, "request is NULL, or type %u is over %u", type,
				 SHMB_CALL_TYPE_MASK);
	if (shmb_unlikely(caller->links.loan != NULL))
		return shmb_fail(-EBUSY, "a loan is out: start or cancel it first");
	return shmb_links_check_len(&caller->links, len);
}

static inline int begin(struct shmb_caller *caller, uint32_t type, const void *request,
			uint32_t len, int64_t timeout_ns, struct shmb_call **ret_call)
{
	struct shmb_links *links = &caller->links;
	struct shmb_link *link;
	uint64_t deadline = shmb_call_deadline_of(timeout_ns);
	int result = 0;

	if (shmb_links_have_news(links))
		result = take_news(caller);
	if (shmb_unlikely(result < 0))
		return result;
	link = shmb_likely(links->n == 1) && shmb_link_is_usable(links->all[0]) ? links->all[0]
										: choose(links);
	if (shmb_likely(link != NULL)) {
		*ret_call = shmb_call_new(&links->calls, link);
		if (shmb_unlikely(!*ret_call))
			return -EBUSY;
		result = send_request(caller, *ret_call, type, request, len, deadline);
		if (shmb_unlikely(result < 0))
			end_call(caller, *ret_call);
	}
	if (shmb_unlikely(!link || result == -EAGAIN || result == -ESTALE)) {
		struct request slow = {
			.type = type, .data = request, .len = len, .deadline = deadline
		};

		result = begin_slowly(caller, &slow, shmb_clock_deadline_ns(timeout_ns));
		*ret_call = slow.call;
	}
	if (shmb_unlikely(result < 0))
		return result;
	caller->n_calls++;
	(*ret_call)->timeout_ns = timeout_ns;
	return 0;
}

/* ---- receiving --------------------------------------------------------------------------------- */

static int32_t fail_remotely(struct shmb_caller *caller, const uint8_t *data, uint32_t len,
			     void *reply, uint32_t cap)
{
	uint32_t text_len = len < sizeof(int32_t) ? 0 : len - (uint32_t)sizeof(int32_t);
	const char *text = text_len ? (const char *)data + sizeof(int32_t) : "";

	caller->view.code = 0;
	if (len >= sizeof(int32_t))
		memcpy(&caller->view.code, data, sizeof(int32_t));
	caller->view.len = text_len;
	if (reply && text_len)
		memcpy(reply, text, text_len < cap ? text_len : cap);
	return shmb_fail(-EREMOTEIO, "the server has failed with code %d: %.*s", caller->view.code,
			 (int)(text_len < 300 ? text_len : 300), text);
}

/* Hands out a part that was kept. */
static int32_t hand_out(struct shmb_caller *caller, struct shmb_call *call,
			const struct shmb_place *to)
{
	struct shmb_part *part = call->parts;
	uint32_t kind = part->kind;
	int32_t result;

	caller->view.type = part->type;
	caller->view.len = part->len;
	caller->view.more = kind == SHMB_CALL_MORE;
	if (kind <= SHMB_CALL_MORE && part->len > to->cap)
		return shmb_fail(-EMSGSIZE, "the reply has %u bytes, the buffer %u", part->len,
				 to->cap);
	shmb_call_take(&caller->links.calls, call);
	if (kind == SHMB_CALL_FAILURE)
		result = fail_remotely(caller, part->data, part->len, to->data,
				       to->hold ? 0 : to->cap);
	else if (kind == SHMB_CALL_END)
		result = shmb_fail(-ENODATA, "the server has ended the call");
	else
		result = shmb_links_put_part(&caller->links, part, to, &caller->view);
	if (kind <= SHMB_CALL_MORE)
		caller->n_replies++;
	else
		free(part);
	if (kind != SHMB_CALL_MORE)
		end_call(caller, call);
	else if (!call->parts && !call->error)
		shmb_links_dequeue(&caller->links, call);
	return result;
}

static void describe(struct shmb_caller *caller, const struct shmb_call *call)
{
	caller->view.call = shmb_call_name(call);
	if (shmb_unlikely(!call->link)) {
		caller->view.pid = call->gone_pid;
		caller->view.uid = call->gone_uid;
		caller->view.peer_id = call->gone_id;
		return;
	}
	caller->view.pid = call->link->pid;
	caller->view.uid = call->link->uid;
	caller->view.peer_id = call->link->peer_id;
}

/* What a call has for who asks: a part, or why it has ended. -EAGAIN: nothing. */
static int32_t ask(struct shmb_caller *caller, struct shmb_call *call, const struct shmb_place *to)
{
	int32_t result;

	describe(caller, call);
	if (call->parts)
		return hand_out(caller, call, to);
	if (!call->error)
		return -EAGAIN;
	result = call->error;
	caller->view.len = caller->view.more = 0;
	if (result == -ECONNRESET)
		end_call(caller, call);
	else
		cancel(caller, call);
	if (result == -ECONNRESET)
		return shmb_fail(result, "the server has gone");
	if (result == -EBADMSG)
		return shmb_fail(result,
				 "a reply has come that has not the %u bytes of this channel's",
				 caller->links.recv_len);
	return shmb_fail(result, "replies have come for longer than there is room for them here");
}

/*
 * A record has come: the reply that is waited for goes to its place directly. Returns its bytes, or its
 * hold, or an error; -EAGAIN: it was something else.
 */
static inline int32_t take(struct shmb_caller *caller, const struct shmb_call *wanted,
			   struct shmb_peer *peer, const struct shmb_record *record, uint64_t head,
			   const struct shmb_place *to)
{
	struct shmb_call *call = find_call(caller, peer, record, head);
	uint32_t kind = record->type >> SHMB_CALL_KIND_SHIFT;
	int32_t result;

	if (shmb_unlikely(!call)) {
		caller->n_late++;
		shmb_subscriber_pass(caller->links.inbox, peer, record);
		return -EAGAIN;
	}
	if (shmb_unlikely((wanted && call != wanted) || call->parts || call->error ||
			  record->len > to->cap || kind > SHMB_CALL_MORE ||
			  fits(caller, record) < 0)) {
		keep(caller, call, peer, record);
		return -EAGAIN;
	}
	result = shmb_links_put(&caller->links, peer, record, to, &caller->view);
	if (shmb_unlikely(result < 0))
		return result;
	describe(caller, call);
	caller->view.len = record->len;
	caller->view.type = record->type & SHMB_CALL_TYPE_MASK;
	caller->view.more = kind == SHMB_CALL_MORE;
	caller->n_replies++;
	if (shmb_likely(kind == SHMB_CALL_REPLY))
		end_call(caller, call);
	return result;
}

static int32_t expire(struct shmb_caller *caller, struct shmb_call *call)
{
	caller->n_timeouts++;
	describe(caller, call);
	caller->view.len = caller->view.more = 0;
	cancel(caller, call);
	return shmb_fail(-ETIME, "the call was not answered in time");
}

/* The first call that ends by itself, UINT64_MAX: none will. */
static uint64_t first_deadline_ns(struct shmb_caller *caller, struct shmb_call **ret_call)
{
	const struct shmb_calls *calls = &caller->links.calls;
	uint64_t first = UINT64_MAX;

	for (uint32_t i = 0; i < calls->n; i++) {
		struct shmb_call *call = calls->all[i];

		if (!call->open || call->cancelled)
			continue;
		if (!call->deadline_ns)
			call->deadline_ns = shmb_clock_deadline_ns(call->timeout_ns);
		if (call->deadline_ns < first) {
			first = call->deadline_ns;
			*ret_call = call;
		}
	}
	return first;
}

static uint64_t due_ns(struct shmb_links *links)
{
	struct shmb_call *first;

	return first_deadline_ns(shmb_container_of(links, struct shmb_caller, links), &first);
}

/* When the first of the calls ends by itself that are waited for, and which. */
static uint64_t ends_at_ns(struct shmb_caller *caller, struct shmb_call *wanted,
			   struct shmb_call **ret_call)
{
	*ret_call = wanted;
	if (!wanted)
		return first_deadline_ns(caller, ret_call);
	if (!wanted->deadline_ns)
		wanted->deadline_ns = shmb_clock_deadline_ns(wanted->timeout_ns);
	return wanted->deadline_ns;
}

/*
 * Sleeps until something may have come, unless records come that are not what we wait for: then it is
 * only looked whether it is time to stop. Returns 0, -ETIMEDOUT, -ETIME or another error.
 */
static SHMB_SELDOM int32_t wait_for_reply(struct shmb_caller *caller, struct shmb_call *wanted,
					  uint64_t deadline_ns, bool sleep)
{
	struct shmb_call *first;
	uint64_t ends_ns = ends_at_ns(caller, wanted, &first), now;

	if (ends_ns == UINT64_MAX && deadline_ns == UINT64_MAX)
		return sleep ? shmb_links_wait(&caller->links, UINT64_MAX) : 0;
	now = shmb_clock_now_ns();
	if (now >= ends_ns)
		return expire(caller, first);
	if (now >= deadline_ns)
		return shmb_fail_lazily(-ETIMEDOUT, "no reply came in time", 0, NULL);
	if (!sleep)
		return 0;
	return shmb_links_wait(&caller->links, ends_ns < deadline_ns ? ends_ns : deadline_ns);
}

static bool any_open(const struct shmb_caller *caller)
{
	return caller->links.calls.n_open != 0;
}

/* @wanted NULL: any. */
static int32_t receive(struct shmb_caller *caller, struct shmb_call *wanted,
		       const struct shmb_place *to, uint64_t deadline_ns)
{
	struct shmb_record record;
	struct shmb_peer *peer;
	uint32_t n_others = 0;
	uint64_t head;
	int32_t result;

	shmb_links_begin_wait(&caller->links);
	for (;;) {
		struct shmb_call *call = wanted ? wanted : caller->links.queue;

		if (shmb_unlikely(call && (call->parts || call->error)))
			return ask(caller, call, to);
		result = shmb_subscriber_look(caller->links.inbox, &record, &head, &peer);
		if (shmb_likely(result > 0)) {
			shmb_links_end_wait(&caller->links);
			result = take(caller, wanted, peer, &record, head, to);
			if (shmb_likely(result != -EAGAIN))
				return result;
			/* A server may send for ever what nobody has asked for. */
			result = ++n_others % OTHERS_MAX
					 ? 0
					 : wait_for_reply(caller, wanted, deadline_ns, false);
			if (result < 0)
				return result;
			continue;
		}
		if (shmb_unlikely(result < 0))
			return result;
		if (shmb_links_have_news(&caller->links))
			result = take_news(caller);
		else if (shmb_likely(shmb_links_poll(&caller->links)))
			continue;
		else if (shmb_unlikely(!wanted && !any_open(caller)))
			return shmb_fail(-ENOENT, "no call is open");
		else
			result = wait_for_reply(caller, wanted, deadline_ns, true);
		if (shmb_unlikely(result < 0))
			return result;
	}
}

SHMB_API int32_t shmb_caller_call(struct shmb_caller *caller, uint32_t type, const void *request,
				  uint32_t len, void *reply, uint32_t cap, int64_t timeout_ns)
{
	const struct shmb_place to = { .data = reply, .cap = cap };
	struct shmb_call *call = NULL;
	int32_t result = check_request(caller, type, request, len);

	if (shmb_unlikely(result < 0 || (!reply && cap)))
		return result < 0 ? result : shmb_fail(-EINVAL, "reply is NULL");
	result = begin(caller, type, request, len, timeout_ns, &call);
	if (shmb_unlikely(result < 0))
		return result;
	result = receive(caller, call, &to, UINT64_MAX);
	if (shmb_likely(result >= 0 && !caller->view.more))
		return result;
	if (result == -ETIME)
		return shmb_fail(-ETIMEDOUT, "the call was not answered in time");
	if (result >= 0 || (result == -EMSGSIZE && caller->view.more)) {
		cancel(caller, call);
		return shmb_fail(-EPROTO, "the server replies more than once: start the call");
	}
	/* The inbox is of no use any more. */
	if (result == -ESTALE || result == -ECHILD)
		end_call(caller, call);
	return result;
}

SHMB_API int32_t shmb_caller_wait(struct shmb_caller *caller, uint32_t len, int64_t timeout_ns)
{
	int32_t result = check_request(caller, 0, "", len);
	uint64_t deadline_ns = 0;

	if (result == 0 && shmb_links_have_news(&caller->links))
		result = take_news(caller);
	while (result == 0) {
		struct shmb_link *link = choose(&caller->links);

		if (link) {
			if (link->n_cancels)
				tell_all_cancelled(caller, link);
			result = shmb_publisher_wait(link->sender, len, 0);
			if (result != -ETIMEDOUT && result != -ESTALE)
				return result;
			link->full = true;
			result = result == -ESTALE ? take_news(caller) : 0;
			continue;
		}
		if (!deadline_ns)
			deadline_ns = shmb_clock_deadline_ns(timeout_ns);
		link = find_full(&caller->links);
		result = link ? wait_for_room(caller, link, len, deadline_ns)
			      : wait_for_server(caller, deadline_ns);
	}
	find_full(&caller->links);
	return result;
}

SHMB_API int32_t shmb_caller_start(struct shmb_caller *caller, uint32_t type, const void *request,
				   uint32_t len, int64_t timeout_ns)
{
	struct shmb_call *call = NULL;
	int32_t result = check_request(caller, type, request, len);

	if (result == 0)
		result = begin(caller, type, request, len, timeout_ns, &call);
	if (result < 0)
		return result;
	call->deadline_ns = shmb_clock_deadline_ns(timeout_ns);
	return shmb_call_name(call);
}

SHMB_API int32_t shmb_caller_loan(struct shmb_caller *caller, uint32_t len, int64_t timeout_ns)
{
	struct request request = { .len = len, .loan = true };
	int32_t result = check_request(caller, 0, "", len);

	if (result == 0 && shmb_links_have_news(&caller->links))
		result = take_news(caller);
	return result < 0 ? result
			  : begin_slowly(caller, &request, shmb_clock_deadline_ns(timeout_ns));
}

SHMB_API int32_t shmb_caller_start_loan(struct shmb_caller *caller, uint32_t type, uint32_t len,
					int64_t timeout_ns)
{
	struct shmb_call *call;
	struct shmb_link *link;
	uint64_t word;
	int32_t result;

	if (!caller)
		return shmb_fail(-EINVAL, "caller is NULL");
	result = shmb_links_check_loan(&caller->links, type, len);
	if (result == 0 && shmb_links_have_news(&caller->links))
		result = take_news(caller);
	if (result < 0)
		return result;
	link = caller->links.loan;
	call = link->gone ? NULL : shmb_call_new(&caller->links.calls, link);
	if (!call && !link->gone)
		return -EBUSY;
	word = shmb_call_deadline_of(timeout_ns) << SHMB_CALL_DEADLINE_SHIFT;
	result =
		call ? shmb_publisher_publish_headed(link->sender, call->id | word, len,
						     shmb_call_record_type(SHMB_CALL_REQUEST, type))
		     : -ESTALE;
	if (result < 0) {
		if (call)
			end_call(caller, call);
		if (result == -ECHILD)
			return result;
		shmb_links_cancel_loan(&caller->links);
		return shmb_fail(-ECONNRESET, "the server has gone");
	}
	shmb_links_end_loan(&caller->links);
	caller->n_calls++;
	call->timeout_ns = timeout_ns;
	call->deadline_ns = shmb_clock_deadline_ns(timeout_ns);
	return shmb_call_name(call);
}

SHMB_API int32_t shmb_caller_cancel_loan(struct shmb_caller *caller)
{
	return caller ? shmb_links_cancel_loan(&caller->links)
		      : shmb_fail(-EINVAL, "caller is NULL");
}

/* A call that somebody may ask for or cancel, or NULL. */
static struct shmb_call *find_named(const struct shmb_caller *caller, int32_t name)
{
	struct shmb_call *call = name > 0 ? shmb_call_named(&caller->links.calls, name) : NULL;

	return call && !call->cancelled ? call : NULL;
}

static int32_t receive_named(struct shmb_caller *caller, int32_t call, const struct shmb_place *to,
			     int64_t timeout_ns)
{
	struct shmb_call *wanted = call ? find_named(caller, call) : NULL;

	if (call && !wanted)
		return shmb_fail(-ENOENT, "there is no call %d", call);
	return receive(caller, wanted, to, shmb_clock_deadline_ns(timeout_ns));
}

SHMB_API int32_t shmb_caller_recv(struct shmb_caller *caller, int32_t call, void *reply,
				  uint32_t cap, int64_t timeout_ns)
{
	const struct shmb_place to = { .data = reply, .cap = cap };

	if (!caller || (!reply && cap))
		return shmb_fail(-EINVAL, "caller or reply is NULL");
	return receive_named(caller, call, &to, timeout_ns);
}

SHMB_API int32_t shmb_caller_recv_hold(struct shmb_caller *caller, int32_t call, int64_t timeout_ns)
{
	const struct shmb_place to = { .cap = UINT32_MAX, .hold = true };
	int result;

	if (!caller)
		return shmb_fail(-EINVAL, "caller is NULL");
	result = shmb_links_check_hold(&caller->links);
	return result < 0 ? result : receive_named(caller, call, &to, timeout_ns);
}

SHMB_API int32_t shmb_caller_unhold(struct shmb_caller *caller, uint32_t hold)
{
	return caller ? shmb_subscriber_unhold(caller->links.inbox, hold)
		      : shmb_fail(-EINVAL, "caller is NULL");
}

SHMB_API int32_t shmb_caller_cancel(struct shmb_caller *caller, int32_t call)
{
	struct shmb_call *wanted;

	if (!caller)
		return shmb_fail(-EINVAL, "caller is NULL");
	wanted = find_named(caller, call);
	if (!wanted)
		return shmb_fail(-ENOENT, "there is no call %d", call);
	cancel(caller, wanted);
	return 0;
}

/* ---- event loops ------------------------------------------------------------------------------- */

SHMB_API int32_t shmb_caller_fd(struct shmb_caller *caller)
{
	return caller ? shmb_links_fd(&caller->links) : shmb_fail(-EINVAL, "caller is NULL");
}

SHMB_API int32_t shmb_caller_arm(struct shmb_caller *caller)
{
	if (!caller)
		return shmb_fail(-EINVAL, "caller is NULL");
	return caller->links.queue ? 1 : shmb_subscriber_arm(caller->links.inbox);
}

/* ---- opening and closing ----------------------------------------------------------------------- */

SHMB_API int32_t shmb_caller_open(struct shmb_channel *channel,
				  const struct shmb_caller_options *given,
				  struct shmb_caller **ret_caller)
{
	const uint32_t known = SHMB_CALLER_FAIL_FAST | SHMB_CALLER_NO_SPIN | SHMB_CALLER_TRUSTING;
	struct shmb_caller_options options;
	struct shmb_caller *caller;
	int32_t result;

	if (!channel || !ret_caller)
		return shmb_fail(-EINVAL, "channel or ret_caller is NULL");
	result = shmb_options_take(&options, sizeof(options), given, "caller");
	if (result < 0)
		return result;
	if (options.flags & ~known || options.pad)
		return shmb_fail(-EINVAL, "unknown caller flags 0x%x", options.flags & ~known);
	caller = calloc(1, sizeof(*caller));
	if (!caller)
		return shmb_fail(-ENOMEM, "no memory for a caller");
	caller->fail_fast = options.flags & SHMB_CALLER_FAIL_FAST;
	caller->links.flags = options.flags & SHMB_CALLER_TRUSTING ? SHMB_PUBLISHER_TRUSTING : 0;
	caller->links.on_noted = read_all;
	caller->links.on_gone = on_gone;
	caller->links.due_ns = due_ns;
	result = shmb_links_open(&caller->links, channel, options.flags & SHMB_CALLER_NO_SPIN,
				 options.spin_ns);
	if (result < 0) {
		shmb_links_close(&caller->links);
		free(caller);
		return result;
	}
	*ret_caller = caller;
	return 0;
}

SHMB_API int32_t shmb_caller_close(struct shmb_caller *caller)
{
	int result;

	if (!caller)
		return 0;
	/* Servers hear that we have gone, which ends all calls. */
	result = shmb_links_close(&caller->links);
	if (result == 0)
		free(caller);
	return result;
}

struct shmb_links *shmb_caller_links(struct shmb_caller *caller)
{
	return &caller->links;
}

SHMB_API struct shmb_call_view *shmb_caller_view(struct shmb_caller *caller)
{
	return caller ? &caller->view : NULL;
}

SHMB_API int32_t shmb_caller_stats(struct shmb_caller *caller, struct shmb_caller_stats *stats,
				   uint32_t cap)
{
	struct shmb_caller_stats all = { 0 };

	if (!caller || !stats)
		return shmb_fail(-EINVAL, "caller or stats is NULL");
	all.caller_id = caller->links.id;
	all.calls = caller->n_calls;
	all.replies = caller->n_replies;
	all.late = caller->n_late;
	all.timeouts = caller->n_timeouts;
	all.resets = caller->n_resets;
	all.n_open = caller->links.calls.n_open;
	for (uint32_t i = 0; i < caller->links.n; i++)
		all.n_servers += shmb_link_is_usable(caller->links.all[i]);
	memcpy(stats, &all, cap < sizeof(all) ? cap : sizeof(all));
	return 0;
}
