/* SPDX-License-Identifier: Apache-2.0 */

#include "lib/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "lib/clock.h"
#include "lib/copy.h"
#include "lib/error.h"

#define PARTS_MAX 4u /* so many lanes, or of the longest, may wait for somebody to ask for them */
#define PARTS_MIN (1u << 20)

/* ---- calls ------------------------------------------------------------------------------------- */

static int grow(struct shmb_calls *calls)
{
	uint32_t n = calls->n ? 2 * calls->n : 16;
	struct shmb_call **all;

	if (n > SHMB_CALLS_MAX)
		return shmb_fail(-EBUSY, "%u calls are open", SHMB_CALLS_MAX);
	all = realloc(calls->all, n * sizeof(*all));
	if (!all)
		return shmb_fail(-ENOMEM, "no memory for a call");
	calls->all = all;
	while (calls->n < n) {
		struct shmb_call *call = calloc(1, sizeof(*call));

		if (!call)
			return calls->n_free ? 0 : shmb_fail(-ENOMEM, "no memory for a call");
		call->id = calls->n;
		calls->free[(calls->first + calls->n_free++) % SHMB_CALLS_MAX] = (uint16_t)calls->n;
		all[calls->n++] = call;
	}
	return 0;
}

struct shmb_call *shmb_call_new(struct shmb_calls *calls, struct shmb_link *link)
{
	struct shmb_call *call;

	if (shmb_unlikely(!calls->n_free) && grow(calls) < 0)
		return NULL;
	call = calls->all[calls->free[calls->first % SHMB_CALLS_MAX]];
	calls->first++;
	calls->n_free--;
	calls->n_open++;
	/* Never 0 in the low 31 bits: that is the name in the API. */
	do
		call->id = (call->id + SHMB_CALLS_MAX) & SHMB_CALL_ID_MASK;
	while (shmb_unlikely(!(call->id & INT32_MAX)));
	call->link = link;
	call->deadline_ns = 0;
	call->parts = NULL;
	call->parts_end = &call->parts;
	call->error = 0;
	call->open = true;
	call->answered = call->cancelled = call->queued = false;
	link->n_calls++;
	return call;
}

void shmb_call_end(struct shmb_calls *calls, struct shmb_call *call)
{
	struct shmb_part *part;

	while (shmb_unlikely((part = shmb_call_take(calls, call)) != NULL))
		free(part);
	if (call->link)
		call->link->n_calls--;
	call->open = false;
	calls->n_open--;
	calls->free[(calls->first + calls->n_free++) % SHMB_CALLS_MAX] =
		(uint16_t)(call->id % SHMB_CALLS_MAX);
}

int shmb_call_keep(struct shmb_calls *calls, struct shmb_call *call,
		   const struct shmb_record *record)
{
	uint32_t len = record->len;
	struct shmb_part *part;

	if (calls->parts_len + len > calls->parts_len_max)
		return -ENOBUFS;
	part = malloc(sizeof(*part) + len);
	if (!part)
		return -ENOMEM;
	part->next = NULL;
	part->kind = record->type >> SHMB_CALL_KIND_SHIFT;
	part->type = record->type & SHMB_CALL_TYPE_MASK;
	part->len = len;
	shmb_copy(part->data, record->data, len);
	*call->parts_end = part;
	call->parts_end = &part->next;
	calls->parts_len += sizeof(*part) + len;
	return 0;
}

struct shmb_part *shmb_call_take(struct shmb_calls *calls, struct shmb_call *call)
{
	struct shmb_part *part = call->parts;

	if (!part)
		return NULL;
	call->parts = part->next;
	if (!call->parts)
		call->parts_end = &call->parts;
	calls->parts_len -= sizeof(*part) + part->len;
	return part;
}

/* ---- peers ------------------------------------------------------------------------------------- */

static struct shmb_link *find(const struct shmb_links *links, uint64_t peer_id)
{
	for (uint32_t i = 0; i < links->n; i++)
		if (links->all[i]->peer_id == peer_id)
			return links->all[i];
	return NULL;
}

struct shmb_link *shmb_links_find(struct shmb_links *links, struct shmb_peer *peer)
{
	peer->link = find(links, peer->reply_to);
	return peer->link;
}

static struct shmb_link *add(struct shmb_links *links, uint64_t peer_id, uint32_t uid, uint32_t pid)
{
	struct shmb_link *link;

	if (links->n == links->cap) {
		uint32_t cap = links->cap ? 2 * links->cap : 4;
		struct shmb_link **all = realloc(links->all, cap * sizeof(*all));

		if (!all)
			return NULL;
		links->all = all;
		links->cap = cap;
	}
	link = calloc(1, sizeof(*link));
	if (!link)
		return NULL;
	link->peer_id = peer_id;
	link->uid = uid;
	link->pid = pid;
	links->all[links->n++] = link;
	return link;
}

bool shmb_links_reach(struct shmb_links *links, struct shmb_link *link)
{
	int result;

	if (link->sender || link->gone)
		return !link->gone;
	result = shmb_publisher_open_private(links->channel, links->flags, link->peer_id, links->id,
					     &link->sender);
	if (result == -ESTALE)
		link->gone = true;
	else if (result < 0)
		links->last_error = result;
	else
		link->met = shmb_publisher_n_pairs(link->sender) > 0;
	return link->sender != NULL;
}

static void remove_link(struct shmb_links *links, uint32_t index)
{
	struct shmb_link *link = links->all[index];

	for (uint32_t i = 0; i < shmb_subscriber_n_lanes(links->inbox); i++) {
		struct shmb_peer *peer = shmb_subscriber_peer(links->inbox, i);

		if (peer && peer->link == link)
			peer->link = NULL;
	}
	shmb_publisher_close(link->sender);
	free(link);
	links->all[index] = links->all[--links->n];
}

/* The servers, as the broker tells them to callers. */
static void read_directory(struct shmb_links *links)
{
	const struct shmb_channel *channel = links->channel;
	const uint8_t *base =
		(const uint8_t *)channel->segment + shmb_call_servers_offset(channel->schema_len);
	const struct shmb_call_server *servers = (const void *)base;

	for (uint32_t i = 0; i < channel->max_subscribers; i++) {
		uint32_t uid, pid;
		uint64_t id = shmb_call_server_load(&servers[i], &uid, &pid);
		struct shmb_link *link;

		if (!id)
			continue;
		link = find(links, id);
		if (!link)
			link = add(links, id, uid, pid);
		if (link)
			link->named = true;
	}
}

/* Whose lane is whose. Callers are known by them. */
static void read_lanes(struct shmb_links *links)
{
	for (uint32_t i = 0; i < shmb_subscriber_n_lanes(links->inbox); i++) {
		struct shmb_peer *peer = shmb_subscriber_peer(links->inbox, i);
		struct shmb_link *link;

		if (!peer)
			continue;
		link = find(links, peer->reply_to);
		if (!link && links->server && !peer->gone)
			link = add(links, peer->reply_to, peer->uid, peer->pid);
		peer->link = link;
		if (!link)
			continue;
		link->named |= links->server;
		link->lane = link->heard = true;
	}
}

static int note(struct shmb_links *links)
{
	int result = shmb_subscriber_note(links->inbox);

	for (uint32_t i = 0; result == 0 && i < links->n; i++) {
		struct shmb_link *link = links->all[i];

		if (!link->sender || link->gone)
			continue;
		if (shmb_publisher_sync(link->sender) < 0 ||
		    (link->met && !shmb_publisher_n_pairs(link->sender)))
			link->gone = true;
		link->met |= shmb_publisher_n_pairs(link->sender) > 0;
	}
	return result;
}

/*
 * A caller that cannot be answered is told by the broker that we part. Without a broker it cannot be
 * told, and its lane is opened with the first reply.
 */
static void refuse(struct shmb_links *links, struct shmb_link *link)
{
	if (links->last_error == -ENOTCONN || links->last_error == -ETIMEDOUT)
		return;
	for (uint32_t i = 0; i < shmb_subscriber_n_lanes(links->inbox); i++) {
		struct shmb_peer *peer = shmb_subscriber_peer(links->inbox, i);

		if (peer && peer->link == link)
			shmb_subscriber_accuse(links->inbox, peer, 0);
	}
	link->gone = true;
}

static void settle(struct shmb_links *links)
{
	for (uint32_t i = 0; i < links->n; i++)
		links->all[i]->named = links->all[i]->lane = false;
	links->last_error = 0;
	if (!links->server)
		read_directory(links);
	read_lanes(links);
	for (uint32_t i = links->n; i-- > 0;) {
		struct shmb_link *link = links->all[i];

		/* What could not be opened for want of something is tried again when there is news. */
		if (link->named && !shmb_links_reach(links, link) && links->server && !link->gone)
			refuse(links, link);
		if ((link->heard && !link->lane) || (!link->named && !link->met))
			link->gone = true;
		if (!link->gone)
			continue;
		if (link->n_calls)
			links->on_gone(links, link);
		/* Somebody is writing there. */
		if (link == links->loan)
			continue;
		shmb_publisher_close(link->sender);
		link->sender = NULL;
		if (!link->named)
			remove_link(links, i);
	}
}

int shmb_links_take_news(struct shmb_links *links)
{
	int result = note(links);

	if (result < 0)
		return result;
	if (links->on_noted)
		links->on_noted(links);
	settle(links);
	return 0;
}

/* ---- waiting ----------------------------------------------------------------------------------- */

void shmb_links_dequeue(struct shmb_links *links, struct shmb_call *call)
{
	struct shmb_call **at = &links->queue;

	if (!call->queued)
		return;
	while (*at != call)
		at = &(*at)->next_queued;
	*at = call->next_queued;
	if (!*at)
		links->queue_end = at;
	call->queued = false;
}

int shmb_links_ready(struct shmb_links *links)
{
	uint64_t due_ns;
	int result;

	do {
		result = shmb_links_have_news(links) ? shmb_links_take_news(links) : 0;
		if (result == 0)
			result = links->queue ? 1 : shmb_subscriber_ready(links->inbox);
		/* It may have heard of them with the look. */
	} while (result == 1 && shmb_links_have_news(links));
	if (result)
		return result;
	due_ns = links->due_ns(links);
	return due_ns != UINT64_MAX && shmb_clock_now_ns() >= due_ns;
}

int shmb_links_refuse_len(const struct shmb_links *links, uint32_t len)
{
	const char *what = links->server ? "replies" : "requests";

	if (links->send_len)
		return shmb_fail(-EINVAL, "%s of this channel have %u bytes, not %u", what,
				 links->send_len, len);
	return shmb_fail(
		-EMSGSIZE,
		"%s of this channel have at most %u bytes, not %u: create it with a larger "
		"record_len_max, or send several",
		what, links->len_max, len);
}

/* ---- loans ------------------------------------------------------------------------------------- */

void shmb_links_lend(struct shmb_links *links, struct shmb_link *link, uint32_t len,
		     struct shmb_call_view *view)
{
	links->loan = link;
	links->loan_len = len;
	view->data = shmb_publisher_view(link->sender)->data;
	view->len = len;
}

int shmb_links_check_loan(const struct shmb_links *links, uint32_t type, uint32_t len)
{
	if (!links->loan)
		return shmb_fail(-EINVAL, "nothing is loaned");
	if (type > SHMB_CALL_TYPE_MASK)
		return shmb_fail(-EINVAL, "type %u is over %u", type, SHMB_CALL_TYPE_MASK);
	if (len > links->loan_len)
		return shmb_fail(-EINVAL, "%u bytes were loaned, not %u", links->loan_len, len);
	return shmb_links_check_len(links, len);
}

void shmb_links_end_loan(struct shmb_links *links)
{
	struct shmb_link *link = links->loan;

	links->loan = NULL;
	/* What has gone meanwhile was kept for it. */
	if (!link->gone)
		return;
	shmb_publisher_close(link->sender);
	link->sender = NULL;
}

int32_t shmb_links_cancel_loan(struct shmb_links *links)
{
	int32_t result;

	if (!links->loan)
		return shmb_fail(-EINVAL, "nothing is loaned");
	result = shmb_publisher_cancel(links->loan->sender);
	if (result < 0)
		return result;
	shmb_links_end_loan(links);
	return 0;
}

/* ---- holds ------------------------------------------------------------------------------------- */

int shmb_links_check_hold(const struct shmb_links *links)
{
	if (shmb_subscriber_may_keep(links->inbox))
		return 0;
	return shmb_fail(-EDQUOT, "the channel allows each %s %u holds",
			 links->server ? "server" : "caller", links->channel->blocks.max_holds);
}

int32_t shmb_links_hold(struct shmb_links *links, struct shmb_peer *peer,
			const struct shmb_record *record, struct shmb_call_view *view)
{
	const void *data;
	int32_t hold;

	hold = shmb_subscriber_keep(links->inbox, peer, record, &data);
	if (hold < 0)
		return hold == -ESTALE ? -EAGAIN : hold;
	view->data = (uint64_t)(uintptr_t)data;
	return hold;
}

int32_t shmb_links_put_part(struct shmb_links *links, struct shmb_part *part,
			    const struct shmb_place *to, struct shmb_call_view *view)
{
	int32_t len = (int32_t)part->len;

	if (to->hold) {
		view->data = (uint64_t)(uintptr_t)part->data;
		return shmb_subscriber_adopt(links->inbox, part);
	}
	if (len)
		shmb_copy(to->data, part->data, part->len);
	free(part);
	return len;
}

int shmb_links_fd(struct shmb_links *links)
{
	int fd = shmb_subscriber_fd(links->inbox);

	return fd < 0 ? fd : shmb_member_poll_fd(shmb_subscriber_member(links->inbox));
}

void shmb_links_wake(const struct shmb_links *links)
{
	if (links->member->inbox.wake_fd >= 0)
		eventfd_write(links->member->inbox.wake_fd, 1);
}

int shmb_links_wait(struct shmb_links *links, uint64_t deadline_ns)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	uint64_t now;
	int result;

	now = deadline_ns == UINT64_MAX ? 0 : shmb_clock_now_ns();
	result = shmb_subscriber_wait(links->inbox,
				      deadline_ns == UINT64_MAX
					      ? SHMB_FOREVER
					      : (int64_t)shmb_clock_left_ns(deadline_ns, now));
	/* Nothing to sleep on. */
	if (result == -EMFILE)
		nanosleep(&pause, NULL);
	return result == -ETIMEDOUT || result == -EMFILE ? 0 : result;
}

/* ---- opening and closing ----------------------------------------------------------------------- */

int shmb_links_open(struct shmb_links *links, struct shmb_channel *channel, bool no_spin,
		    uint32_t spin_ns)
{
	struct shmb_subscriber_options options = {
		.options_len = sizeof(options),
		.flags = SHMB_SUBSCRIBER_NO_HISTORY | (no_spin ? SHMB_SUBSCRIBER_NO_SPIN : 0),
		.spin_ns = spin_ns,
	};
	int result;

	if (!*channel->client->fork_guard)
		return shmb_fail(-ECHILD, "this channel belongs to the parent process");
	if (channel->pattern != SHMB_PATTERN_CALL)
		return shmb_fail(-EOPNOTSUPP, "the channel is not a call channel");
	links->channel = channel;
	links->queue_end = &links->queue;
	links->send_len = links->server ? channel->reply_len : channel->request_len;
	links->len_max = shmb_call_len_max(channel->lane_len, &channel->blocks);
	links->recv_len = links->server ? channel->request_len : channel->reply_len;
	links->calls.parts_len_max =
		(uint64_t)PARTS_MAX *
		(channel->lane_len > links->len_max ? channel->lane_len : links->len_max);
	if (links->calls.parts_len_max < PARTS_MIN)
		links->calls.parts_len_max = PARTS_MIN;
	result = shmb_subscriber_open_private(
		channel, &options, links->server ? SHMB_MEMBER_SERVER : 0, &links->inbox);
	if (result < 0)
		return result;
	links->member = shmb_subscriber_member(links->inbox);
	links->id = links->member->id;
	links->spin = shmb_subscriber_spins(links->inbox);
	return shmb_links_take_news(links);
}

int shmb_links_close(struct shmb_links *links)
{
	/* First of all: who waits for us knows by that, and what we have sent is there by then. */
	int result = shmb_subscriber_close(links->inbox);

	if (result < 0)
		return result;
	for (uint32_t i = 0; i < links->n; i++) {
		shmb_publisher_close(links->all[i]->sender);
		free(links->all[i]);
	}
	free(links->all);
	for (uint32_t i = 0; i < links->calls.n; i++) {
		struct shmb_call *call = links->calls.all[i];
		struct shmb_part *part;

		while ((part = shmb_call_take(&links->calls, call)))
			free(part);
		free(call);
	}
	free(links->calls.all);
	return 0;
}
