/* SPDX-License-Identifier: Apache-2.0 */

/*
 * struct shmb_server: requests of all callers, in turns, and the answers to them.
 *
 * A call is a slot here, which its last reply frees: so there is one end of it and never two. That it
 * was cancelled is a record behind the request, which is seen when somebody looks: requests that lie
 * before it are copied out and wait for shmb_server_recv().
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
#define TEXT_LEN_MAX 1024u
#define FRESH_MAX    16u /* requests between two looks at the clock, each polled for */

struct shmb_server {
	struct shmb_links links;
	struct shmb_call_view view;
	struct shmb_call *queue; /* requests that were copied out ahead */
	struct shmb_call **queue_end;
	uint64_t now_ms; /* when it was last looked */
	uint64_t n_requests;
	uint64_t n_replies;
	uint64_t n_expired;
	uint64_t n_cancelled;
};

static void enqueue(struct shmb_server *server, struct shmb_call *call)
{
	call->next_queued = NULL;
	*server->queue_end = call;
	server->queue_end = &call->next_queued;
}

static struct shmb_call *dequeue(struct shmb_server *server)
{
	struct shmb_call *call = server->queue;

	server->queue = call->next_queued;
	if (!server->queue)
		server->queue_end = &server->queue;
	return call;
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
		link->n_calls--;
		call->link = NULL;
	}
}

static SHMB_SELDOM int take_news(struct shmb_server *server)
{
	int result = shmb_links_note(&server->links);

	if (result == 0)
		shmb_links_settle(&server->links);
	return result;
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
	int result = shmb_subscriber_look(inbox, &request->record, &request->peer);
	uint32_t kind;

	if (result <= 0)
		return result ? result : -EAGAIN;
	kind = record->type >> SHMB_CALL_KIND_SHIFT;
	if (shmb_unlikely(record->len < SHMB_CALL_HEADER_LEN || kind > SHMB_CALL_CANCEL)) {
		shmb_subscriber_accuse(inbox, request->peer, EBADMSG);
		return 0;
	}
	request->head = SHMB_LOAD((const uint64_t *)(const void *)record->data);
	request->link = shmb_links_peer(&server->links, request->peer);
	if (shmb_unlikely(!request->link && shmb_member_is_news(server->links.member))) {
		/* We are about to hear of the caller; the record stays the next one. */
		result = take_news(server);
		return result < 0 ? result : 0;
	}
	if (shmb_likely(kind == SHMB_CALL_REQUEST && request->link && !request->peer->gone &&
			!request->link->gone)) {
		if (shmb_likely(is_fresh(server) ||
				!has_expired(server, request->head >> SHMB_CALL_DEADLINE_SHIFT)))
			return 1;
		server->n_expired++;
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
	struct shmb_call *call = shmb_call_new(&server->links.calls, request->link);

	if (shmb_unlikely(!call))
		return NULL;
	call->remote = request->head & SHMB_CALL_ID_MASK;
	call->deadline = request->head >> SHMB_CALL_DEADLINE_SHIFT;
	return call;
}

/* Reads on until there is nothing, or no room to keep what there is. */
static int read_ahead(struct shmb_server *server)
{
	struct request request;
	int result;

	for (;;) {
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
			shmb_call_end(&server->links.calls, call);
			return 0;
		}
		if (shmb_subscriber_pass(server->links.inbox, request.peer, &request.record))
			enqueue(server, call);
		else
			shmb_call_end(&server->links.calls, call);
	}
}

/* ---- receiving --------------------------------------------------------------------------------- */

static inline int32_t describe(struct shmb_server *server, const struct shmb_call *call,
			       uint32_t type, uint32_t len)
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
	return (int32_t)len;
}

static int32_t too_long(struct shmb_server *server, uint32_t len, uint32_t cap)
{
	server->view.len = len;
	return shmb_fail(-EMSGSIZE, "the request has %u bytes, the buffer %u", len, cap);
}

/* One that was copied out ahead. Returns its bytes; -EAGAIN: it is of no use any more. */
static SHMB_SELDOM int32_t recv_queued(struct shmb_server *server, void *data, uint32_t cap)
{
	struct shmb_call *call = server->queue;
	struct shmb_part *part = call->parts;
	int32_t len;

	if (!call->cancelled && has_expired(server, call->deadline)) {
		server->n_expired++;
		call->cancelled = true;
	}
	if (call->cancelled) {
		dequeue(server);
		shmb_call_end(&server->links.calls, call);
		return -EAGAIN;
	}
	if (part->len > cap)
		return too_long(server, part->len, cap);
	dequeue(server);
	shmb_call_take(&server->links.calls, call);
	if (part->len)
		shmb_copy(data, part->data, part->len);
	len = describe(server, call, part->type, part->len);
	free(part);
	return len;
}

/* One that lies in a lane. Returns as shmb_server_recv(); -EAGAIN: look again. */
static inline int32_t recv_request(struct shmb_server *server, struct request *request, void *data,
				   uint32_t cap)
{
	uint32_t len = request->record.len - SHMB_CALL_HEADER_LEN;
	struct shmb_call *call;

	if (shmb_unlikely(len > cap))
		return too_long(server, len, cap);
	call = new_call(server, request);
	if (shmb_unlikely(!call))
		return -EBUSY;
	shmb_copy(data, request->record.data + SHMB_CALL_HEADER_LEN, len);
	if (shmb_unlikely(
		    !shmb_subscriber_pass(server->links.inbox, request->peer, &request->record))) {
		shmb_call_end(&server->links.calls, call);
		return -EAGAIN;
	}
	return describe(server, call, request->record.type & SHMB_CALL_TYPE_MASK, len);
}

SHMB_API int32_t shmb_server_recv(struct shmb_server *server, void *data, uint32_t cap,
				  int64_t timeout_ns)
{
	struct request request;
	uint64_t deadline_ns = 0; /* not known yet */
	int32_t result;

	if (shmb_unlikely(!server || (!data && cap)))
		return shmb_fail(-EINVAL, "server or data is NULL");
	shmb_links_begin_wait(&server->links);
	for (;;) {
		if (shmb_unlikely(shmb_member_is_news(server->links.member))) {
			result = take_news(server);
			if (result < 0)
				return result;
		}
		if (shmb_unlikely(server->queue != NULL)) {
			result = recv_queued(server, data, cap);
			if (result != -EAGAIN)
				return result;
			continue;
		}
		result = look(server, &request);
		if (shmb_likely(result > 0)) {
			shmb_links_end_wait(&server->links);
			result = recv_request(server, &request, data, cap);
			if (shmb_likely(result != -EAGAIN))
				return result;
			continue;
		}
		if (result == 0 ||
		    (result == -EAGAIN && shmb_likely(shmb_links_poll(&server->links))))
			continue;
		if (result == -EAGAIN) {
			if (!deadline_ns)
				deadline_ns = shmb_clock_deadline_ns(timeout_ns);
			if (deadline_ns != UINT64_MAX && shmb_clock_now_ns() >= deadline_ns)
				return shmb_fail_lazily(-ETIMEDOUT, "no request came in time", 0,
							NULL);
			result = shmb_links_wait(&server->links, deadline_ns);
		}
		if (shmb_unlikely(result < 0))
			return result;
	}
}

SHMB_API int32_t shmb_server_cancelled(struct shmb_server *server, int32_t name)
{
	struct shmb_call *call;
	int result = 0;

	if (!server)
		return shmb_fail(-EINVAL, "server is NULL");
	if (shmb_member_is_news(server->links.member))
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
	result = shmb_publisher_wait(link->sender, len + SHMB_CALL_HEADER_LEN,
				     (int64_t)(left < ROOM_LOOK_NS ? left : ROOM_LOOK_NS));
	return result == 0 || result == -ETIMEDOUT || result == -ESTALE ? take_news(server)
									: result;
}

static int32_t end_uselessly(struct shmb_server *server, struct shmb_call *call)
{
	bool gone = !call->link;

	set_cancelled(server, call);
	shmb_call_end(&server->links.calls, call);
	return gone ? shmb_fail(-ECONNRESET, "the caller has gone")
		    : shmb_fail(-ECANCELED, "the call was cancelled");
}

static int32_t answer(struct shmb_server *server, struct shmb_call *call, uint32_t record_type,
		      const void *data, uint32_t len, int64_t timeout_ns)
{
	uint64_t deadline_ns = timeout_ns ? 0 : 1; /* 0: not known yet */
	int32_t result = 0;

	if (shmb_unlikely(shmb_member_is_news(server->links.member)))
		result = take_news(server);
	while (result == 0) {
		if (shmb_unlikely(
			    call->cancelled || !call->link ||
			    (!call->link->sender && !shmb_links_reach(&server->links, call->link))))
			return end_uselessly(server, call);
		result = shmb_publisher_send_headed(call->link->sender, call->remote, data, len,
						    record_type);
		if (shmb_likely(result == 0))
			break;
		if (!deadline_ns)
			deadline_ns = shmb_clock_deadline_ns(timeout_ns);
		if (result == -EAGAIN)
			result = wait_for_room(server, call->link, len, deadline_ns);
		else if (result == -ESTALE)
			result = take_news(server);
	}
	if (shmb_unlikely(result < 0))
		return result;
	server->n_replies++;
	if (record_type >> SHMB_CALL_KIND_SHIFT != SHMB_CALL_MORE)
		shmb_call_end(&server->links.calls, call);
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

	if (shmb_unlikely(!server || (!data && len) || type > SHMB_CALL_TYPE_MASK ||
			  flags & ~SHMB_REPLY_MORE))
		return shmb_fail(-EINVAL,
				 "server or data is NULL, type %u is over %u, or flags are 0x%x",
				 type, SHMB_CALL_TYPE_MASK, flags);
	call = find_named(server, name);
	if (shmb_unlikely(!call))
		return shmb_fail(-ENOENT, "there is no call %d", name);
	return answer(server, call, shmb_call_record_type(kind, type), data, len, timeout_ns);
}

SHMB_API int32_t shmb_server_end(struct shmb_server *server, int32_t name, int64_t timeout_ns)
{
	struct shmb_call *call = server ? find_named(server, name) : NULL;

	if (!call)
		return server ? shmb_fail(-ENOENT, "there is no call %d", name)
			      : shmb_fail(-EINVAL, "server is NULL");
	return answer(server, call, shmb_call_record_type(SHMB_CALL_END, 0), NULL, 0, timeout_ns);
}

SHMB_API int32_t shmb_server_fail(struct shmb_server *server, int32_t name, int32_t code,
				  const char *text, uint32_t len, int64_t timeout_ns)
{
	struct shmb_call *call = server ? find_named(server, name) : NULL;
	uint8_t payload[sizeof(code) + TEXT_LEN_MAX];

	if (!server || (!text && len) || len > TEXT_LEN_MAX)
		return shmb_fail(-EINVAL, "server or text is NULL, or %u bytes are over %u", len,
				 TEXT_LEN_MAX);
	if (!call)
		return shmb_fail(-ENOENT, "there is no call %d", name);
	memcpy(payload, &code, sizeof(code));
	if (len)
		memcpy(payload + sizeof(code), text, len);
	return answer(server, call, shmb_call_record_type(SHMB_CALL_FAILURE, 0), payload,
		      (uint32_t)sizeof(code) + len, timeout_ns);
}

/* ---- event loops ------------------------------------------------------------------------------- */

SHMB_API int32_t shmb_server_fd(struct shmb_server *server)
{
	return server ? shmb_subscriber_fd(server->links.inbox)
		      : shmb_fail(-EINVAL, "server is NULL");
}

SHMB_API int32_t shmb_server_arm(struct shmb_server *server)
{
	if (!server)
		return shmb_fail(-EINVAL, "server is NULL");
	return server->queue ? 1 : shmb_subscriber_arm(server->links.inbox);
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
	server->queue_end = &server->queue;
	server->now_ms = shmb_call_now_ms();
	server->links.server = true;
	server->links.flags = options.flags & SHMB_SERVER_TRUSTING ? SHMB_PUBLISHER_TRUSTING : 0;
	server->links.on_gone = on_gone;
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
	if (!server)
		return 0;
	/* Callers hear that we have gone, which ends all calls. */
	shmb_links_close(&server->links);
	free(server);
	return 0;
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
	for (uint32_t i = 0; i < server->links.n; i++)
		all.n_callers += shmb_link_is_usable(server->links.all[i]);
	memcpy(stats, &all, cap < sizeof(all) ? cap : sizeof(all));
	return 0;
}
