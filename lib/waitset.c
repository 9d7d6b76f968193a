/* SPDX-License-Identifier: Apache-2.0 */

/*
 * struct shmb_waitset: sleeping for many subscribers, callers, servers and fds at once.
 *
 * A subscriber, which those that call and serve have inside, is hot or cold. Cold ones are armed: their publishers ring, and the ring makes them
 * hot. Hot ones are looked at; those found empty are armed and cold again. So a wake costs what has
 * happened, not what is in the set. Where something is always ready nobody sleeps; then the poller
 * is asked now and then, or the cold ones would never be heard.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "lib/api.h"
#include "lib/clock.h"
#include "lib/error.h"
#include "lib/fd.h"
#include "lib/link.h"
#include "lib/poller.h"
#include "lib/subscriber.h"

#define BACKSTOP_NS 5000000000ull
#define DEAF_NS	    5000000ull
#define LATE_NS	    1000000000ull /* who has published but not rung yet gets so long */
#define N_EVENTS    64
#define BUSY_WAITS  16u /* so many without sleeping, then the poller is asked what the others have */

/**
 * struct entry - one thing in a wait set
 * @next:	of all entries
 * @next_hot:	of the hot ones
 * @next_linked: of those with @links
 * @kind:	SHMB_READY_*
 * @subscriber:	or NULL, then @fd and @events count
 * @links:	of a caller or server, whose inbox @subscriber is; else NULL
 * @fd:		the caller's
 * @events:	wanted of @fd
 * @pending:	that @fd has had and nobody was told
 * @cookie:	the caller's
 * @is_hot:	is in the hot queue
 * @was_backstop: made hot by the backstop
 * @watched:	fds that the poller polls for this entry
 * @n_watched:	of @watched
 * @doorbell_changes: of the subscriber, when @watched was made
 * @is_deaf:	not all of its doorbells could be watched: it is looked at now and then instead
 */
struct entry {
	struct entry *next;
	struct entry *next_hot;
	struct entry *next_linked;
	uint32_t kind;
	struct shmb_subscriber *subscriber;
	struct shmb_links *links;
	int fd;
	uint32_t events;
	uint32_t pending;
	uint64_t cookie;
	bool is_hot;
	bool was_backstop;
	int *watched;
	uint32_t n_watched;
	uint32_t doorbell_changes;
	bool is_deaf;
};

struct shmb_waitset {
	struct shmb_client *client;
	struct shmb_poller poller;
	bool no_uring;
	struct entry *entries;
	struct entry *linked;
	struct entry *hot;
	struct entry **hot_end;
	uint32_t n_hot;
	uint32_t busy_waits; /* since the poller was last asked */
	bool is_deaf; /* one of the entries is */
	uint32_t connections; /* which control socket is polled */
};

static void make_hot(struct shmb_waitset *waitset, struct entry *entry)
{
	if (entry->is_hot)
		return;
	entry->is_hot = true;
	entry->next_hot = NULL;
	*waitset->hot_end = entry;
	waitset->hot_end = &entry->next_hot;
	waitset->n_hot++;
}

static struct entry *take_hot(struct shmb_waitset *waitset)
{
	struct entry *entry = waitset->hot;

	waitset->hot = entry->next_hot;
	if (!waitset->hot)
		waitset->hot_end = &waitset->hot;
	waitset->n_hot--;
	entry->is_hot = false;
	return entry;
}

static void heat_subscribers(struct shmb_waitset *waitset, bool backstop)
{
	for (struct entry *entry = waitset->entries; entry; entry = entry->next)
		if (entry->subscriber) {
			entry->was_backstop = backstop && !entry->is_hot;
			make_hot(waitset, entry);
		}
}

/* ---- what the poller polls --------------------------------------------------------------------- */

static void unwatch(struct shmb_waitset *waitset, struct entry *entry)
{
	for (uint32_t i = 0; i < entry->n_watched; i++)
		waitset->poller.ops->remove(&waitset->poller, entry->watched[i],
					    (uint64_t)(uintptr_t)entry);
	entry->n_watched = 0;
}

static int watch(struct shmb_waitset *waitset, struct entry *entry, int fd, uint32_t events,
		 bool edge)
{
	int *grown = realloc(entry->watched, (entry->n_watched + 1) * sizeof(*grown));
	int result;

	if (!grown)
		return shmb_fail(-ENOMEM, "no memory for a wait set");
	entry->watched = grown;
	result = waitset->poller.ops->add(&waitset->poller, fd, events, edge,
					  (uint64_t)(uintptr_t)entry);
	if (result == 0)
		grown[entry->n_watched++] = fd;
	return result;
}

/* Watch what must be watched for an entry now. */
static int rewatch(struct shmb_waitset *waitset, struct entry *entry)
{
	struct shmb_member *member;
	int result = 0;

	unwatch(waitset, entry);
	if (!entry->subscriber)
		return watch(waitset, entry, entry->fd, entry->events, false);
	member = shmb_subscriber_member(entry->subscriber);
	entry->doorbell_changes = member->doorbell_changes;
	for (uint32_t i = 0; i < member->n_doorbells && result == 0; i++)
		result = watch(waitset, entry, member->doorbells[i].fd, EPOLLIN, true);
	/* What it does itself may make it ready, too: see shmb_links_wake(). */
	if (entry->links && result == 0)
		result = watch(waitset, entry, member->inbox.wake_fd, EPOLLIN, true);
	return result;
}

/* The control socket is another one after each reconnection. */
static void watch_control(struct shmb_waitset *waitset)
{
	struct shmb_client *client = waitset->client;

	pthread_mutex_lock(&client->lock);
	if (client->connected && waitset->connections != client->connections &&
	    waitset->poller.ops->add(&waitset->poller, client->connection.fd, EPOLLIN, true,
				     (uint64_t)(uintptr_t)waitset) == 0)
		waitset->connections = client->connections;
	pthread_mutex_unlock(&client->lock);
}

static void close_poller(struct shmb_waitset *waitset)
{
	if (waitset->poller.ops)
		waitset->poller.ops->close(&waitset->poller);
	waitset->poller.ops = NULL;
	for (struct entry *entry = waitset->entries; entry; entry = entry->next)
		entry->n_watched = 0;
	waitset->connections = 0;
}

static int open_with(struct shmb_waitset *waitset, const struct shmb_poller_ops *ops)
{
	int result = ops->open(&waitset->poller);

	if (result < 0)
		return result;
	waitset->poller.ops = ops;
	for (struct entry *entry = waitset->entries; entry && result == 0; entry = entry->next)
		result = rewatch(waitset, entry);
	if (result < 0)
		close_poller(waitset);
	return result;
}

/* Made by the thread that waits, at its first wait: a ring belongs to one thread. */
static int open_poller(struct shmb_waitset *waitset)
{
	const char *chosen = secure_getenv("SHMBROKER_IO");
	bool only_uring = chosen && !strcmp(chosen, "uring");
	int result = -ENOSYS;

	if (waitset->poller.ops)
		return 0;
	if (!waitset->no_uring && !(chosen && !strcmp(chosen, "epoll")))
		result = open_with(waitset, &shmb_poller_uring);
	if (result < 0 && only_uring)
		return shmb_fail(result, "SHMBROKER_IO=uring, but io_uring: %s", strerror(-result));
	if (result < 0)
		result = open_with(waitset, &shmb_poller_epoll);
	return result;
}

/* ---- waiting ----------------------------------------------------------------------------------- */

/* Its doorbells are others by now, or were not all watched. */
static void follow_doorbells(struct shmb_waitset *waitset, struct entry *entry)
{
	struct shmb_member *member = shmb_subscriber_member(entry->subscriber);

	if (entry->is_deaf || member->doorbell_changes != entry->doorbell_changes)
		entry->is_deaf = rewatch(waitset, entry) < 0;
}

static int is_ready(const struct entry *entry)
{
	return entry->links ? shmb_links_ready(entry->links)
			    : shmb_subscriber_ready(entry->subscriber);
}

/* Is a hot subscriber ready? If not it is armed. Returns 1 ready (or failed), 0 armed. */
static int look(struct shmb_waitset *waitset, struct entry *entry)
{
	int result = is_ready(entry);

	/* Look before arming: whoever rings sees the doorbells that we poll. */
	follow_doorbells(waitset, entry);
	if (result == 1 && entry->was_backstop)
		shmb_subscriber_count_backstop(entry->subscriber);
	entry->was_backstop = false;
	if (result == 0)
		result = shmb_subscriber_arm_fd(entry->subscriber);
	/* News are no request and no reply, but have to be taken in before it sleeps. */
	while (result == 1 && entry->links && shmb_links_have_news(entry->links)) {
		result = is_ready(entry);
		if (result == 0)
			result = shmb_subscriber_arm_fd(entry->subscriber);
	}
	follow_doorbells(waitset, entry);
	waitset->is_deaf = waitset->is_deaf || entry->is_deaf;
	return result != 0;
}

/* Tell the caller of what is ready; each hot entry has one turn. */
static uint32_t collect(struct shmb_waitset *waitset, struct shmb_ready *ready, uint32_t max)
{
	uint32_t n = 0;

	for (uint32_t turns = waitset->n_hot; turns > 0 && n < max; turns--) {
		struct entry *entry = take_hot(waitset);

		if (entry->subscriber) {
			if (!look(waitset, entry)) {
				if (entry->is_deaf)
					make_hot(waitset, entry);
				continue;
			}
			ready[n++] =
				(struct shmb_ready){ .cookie = entry->cookie, .kind = entry->kind };
			make_hot(waitset, entry);
		} else {
			ready[n++] = (struct shmb_ready){ .cookie = entry->cookie,
							  .kind = entry->kind,
							  .events = entry->pending };
			entry->pending = 0;
		}
	}
	return n;
}

/* Sleep once. Returns how many events came, 0 at the deadline, or an error. */
static int sleep_once(struct shmb_waitset *waitset, uint64_t deadline)
{
	uint64_t cookies[N_EVENTS];
	uint32_t events[N_EVENTS];
	bool control = false;
	int n;

	waitset->busy_waits = 0;
	n = waitset->poller.ops->wait(&waitset->poller, cookies, events, N_EVENTS, deadline);
	if (n < 0 && waitset->poller.ops == &shmb_poller_uring) {
		/* A sandbox that came later, or another thread than before: epoll does not mind. */
		close_poller(waitset);
		waitset->no_uring = true;
		n = open_poller(waitset);
		heat_subscribers(waitset, false);
		return n < 0 ? n : 1;
	}
	for (int i = 0; i < n; i++) {
		struct entry *entry = (struct entry *)(uintptr_t)cookies[i];

		if (cookies[i] == (uint64_t)(uintptr_t)waitset) {
			control = true;
			continue;
		}
		if (entry->subscriber) {
			shmb_subscriber_disarm(entry->subscriber);
			shmb_member_drain_doorbells(shmb_subscriber_member(entry->subscriber));
		} else {
			entry->pending |= events[i];
		}
		make_hot(waitset, entry);
	}
	if (control) {
		pthread_mutex_lock(&waitset->client->lock);
		shmb_client_drain(waitset->client);
		pthread_mutex_unlock(&waitset->client->lock);
		heat_subscribers(waitset, false);
	}
	return n;
}

/*
 * The backstop has ended the sleep. Who is ready was not told so, unless the one who has to ring is
 * just at it: all are still armed, so that ring comes, now or when the scheduler lets it.
 */
static int doubt(struct shmb_waitset *waitset)
{
	struct entry *entry = waitset->entries;
	int result = 0;

	while (entry && !(entry->subscriber && !entry->is_hot && is_ready(entry) == 1))
		entry = entry->next;
	if (entry)
		result = sleep_once(waitset, shmb_clock_now_ns() + LATE_NS);
	if (result >= 0)
		heat_subscribers(waitset, result == 0);
	return result;
}

/* Without a broker: try to find one when it is time, and look at everything once it is there. */
static void seek_broker(struct shmb_waitset *waitset)
{
	struct shmb_client *client = waitset->client;

	if (shmb_client_retry_at_ns(client) != UINT64_MAX) {
		pthread_mutex_lock(&client->lock);
		if (shmb_client_drain(client) == 0)
			heat_subscribers(waitset, false);
		pthread_mutex_unlock(&client->lock);
	}
	if (__atomic_load_n(&client->connections, __ATOMIC_RELAXED) != waitset->connections)
		watch_control(waitset);
}

/* Callers and servers have to do with time themselves. Until when may all sleep that do? */
static uint64_t heat_due(struct shmb_waitset *waitset, uint64_t now_ns, uint64_t until_ns)
{
	for (struct entry *entry = waitset->linked; entry; entry = entry->next_linked) {
		uint64_t due_ns = entry->links->due_ns(entry->links);

		if (due_ns <= now_ns)
			make_hot(waitset, entry);
		if (due_ns < until_ns)
			until_ns = due_ns;
	}
	return until_ns;
}

static int wait_until(struct shmb_waitset *waitset, struct shmb_ready *ready, uint32_t max,
		      uint64_t deadline)
{
	uint64_t fd_shortages = shmb_client_fd_shortages(waitset->client);

	for (;;) {
		uint64_t now = shmb_clock_now_ns(), until = deadline, retry_at;
		uint32_t n;
		int result;

		seek_broker(waitset);
		if (waitset->busy_waits++ >= BUSY_WAITS) {
			result = sleep_once(waitset, 0);
			if (result < 0)
				return result;
		}
		waitset->is_deaf = false;
		until = heat_due(waitset, now, until);
		n = collect(waitset, ready, max);
		if (n)
			return (int)n;
		retry_at = shmb_client_retry_at_ns(waitset->client);
		if (until > now + BACKSTOP_NS)
			until = now + BACKSTOP_NS;
		if (until > retry_at)
			until = retry_at > now ? retry_at : now + 1;
		if (waitset->is_deaf && until > now + DEAF_NS)
			until = now + DEAF_NS;
		/* Even with no time left, take what has come, or a foreign loop would spin. */
		result = sleep_once(waitset, until > now ? until : 0);
		if (result < 0)
			return result;
		if (result == 0 && shmb_clock_now_ns() >= deadline &&
		    shmb_client_fd_shortages(waitset->client) != fd_shortages)
			return shmb_fail(-EMFILE, "no file descriptor is free for what the broker "
						  "sent");
		if (result == 0 && shmb_clock_now_ns() >= deadline)
			return shmb_fail_lazily(
				-ETIMEDOUT, "nothing in the wait set got ready in time", 0, NULL);
		if (result == 0 && until == now + BACKSTOP_NS)
			result = doubt(waitset);
		if (result < 0)
			return result;
	}
}

static int check_usable(struct shmb_waitset *waitset)
{
	if (!waitset)
		return shmb_fail(-EINVAL, "waitset is NULL");
	if (!*waitset->client->fork_guard)
		return shmb_fail(-ECHILD, "this wait set belongs to the parent process");
	return 0;
}

SHMB_API int32_t shmb_waitset_wait(struct shmb_waitset *waitset, struct shmb_ready *ready,
				   uint32_t max, int64_t timeout_ns)
{
	int result = check_usable(waitset);

	if (result < 0)
		return result;
	if (!ready || !max)
		return shmb_fail(-EINVAL, "ready is NULL or max is 0");
	result = open_poller(waitset);
	return result < 0 ? result
			  : wait_until(waitset, ready, max, shmb_clock_deadline_ns(timeout_ns));
}

/* ---- what is in it ----------------------------------------------------------------------------- */

static int add(struct shmb_waitset *waitset, struct entry **ret_entry)
{
	struct entry *entry = calloc(1, sizeof(*entry));

	if (!entry)
		return shmb_fail(-ENOMEM, "no memory for a wait set");
	entry->next = waitset->entries;
	waitset->entries = entry;
	*ret_entry = entry;
	return 0;
}

static void remove_entry(struct shmb_waitset *waitset, struct entry *entry)
{
	struct entry **at = &waitset->entries;

	if (waitset->poller.ops)
		unwatch(waitset, entry);
	while (*at != entry)
		at = &(*at)->next;
	*at = entry->next;
	for (at = &waitset->linked; *at; at = &(*at)->next_linked)
		if (*at == entry) {
			*at = entry->next_linked;
			break;
		}
	/* The queue is short: rotate it once without the entry. */
	for (uint32_t turns = waitset->n_hot; turns > 0; turns--) {
		struct entry *hot = take_hot(waitset);

		if (hot != entry)
			make_hot(waitset, hot);
	}
	if (entry->subscriber) {
		shmb_subscriber_disarm(entry->subscriber);
		shmb_subscriber_set_waitset(entry->subscriber, NULL);
	}
	free(entry->watched);
	free(entry);
}

static int add_subscriber(struct shmb_waitset *waitset, uint32_t kind,
			  struct shmb_subscriber *subscriber, struct shmb_links *links,
			  uint64_t cookie)
{
	struct entry *entry = NULL;
	int result = 0;

	if (shmb_subscriber_member(subscriber)->client != waitset->client)
		return shmb_fail(-EINVAL, "it is of another client than the wait set");
	/* There has to be something to wake it with: see shmb_links_wake(). */
	if (links)
		result = shmb_links_fd(links);
	if (result >= 0)
		result = shmb_subscriber_set_waitset(subscriber, waitset);
	if (result < 0)
		return result;
	result = add(waitset, &entry);
	if (result < 0) {
		shmb_subscriber_set_waitset(subscriber, NULL);
		return result;
	}
	entry->kind = kind;
	entry->subscriber = subscriber;
	entry->links = links;
	entry->cookie = cookie;
	if (links) {
		entry->next_linked = waitset->linked;
		waitset->linked = entry;
	}
	if (waitset->poller.ops)
		result = rewatch(waitset, entry);
	if (result < 0)
		remove_entry(waitset, entry);
	else
		make_hot(waitset, entry);
	return result;
}

static int add_links(struct shmb_waitset *waitset, uint32_t kind, struct shmb_links *links,
		     uint64_t cookie)
{
	return add_subscriber(waitset, kind, links->inbox, links, cookie);
}

static int check_member(struct shmb_waitset *waitset, const void *member)
{
	int result = check_usable(waitset);

	return result < 0 || member ? result
				    : shmb_fail(-EINVAL, "what is to be in the wait set is NULL");
}

SHMB_API int32_t shmb_waitset_add(struct shmb_waitset *waitset, struct shmb_subscriber *subscriber,
				  uint64_t cookie)
{
	int result = check_member(waitset, subscriber);

	return result < 0
		       ? result
		       : add_subscriber(waitset, SHMB_READY_SUBSCRIBER, subscriber, NULL, cookie);
}

SHMB_API int32_t shmb_waitset_add_caller(struct shmb_waitset *waitset, struct shmb_caller *caller,
					 uint64_t cookie)
{
	int result = check_member(waitset, caller);

	return result < 0
		       ? result
		       : add_links(waitset, SHMB_READY_CALLER, shmb_caller_links(caller), cookie);
}

SHMB_API int32_t shmb_waitset_add_server(struct shmb_waitset *waitset, struct shmb_server *server,
					 uint64_t cookie)
{
	int result = check_member(waitset, server);

	return result < 0
		       ? result
		       : add_links(waitset, SHMB_READY_SERVER, shmb_server_links(server), cookie);
}

SHMB_API int32_t shmb_waitset_add_fd(struct shmb_waitset *waitset, int32_t fd, uint32_t events,
				     uint64_t cookie)
{
	struct entry *entry;
	int result = check_usable(waitset);

	for (entry = result == 0 ? waitset->entries : NULL; entry; entry = entry->next)
		if (!entry->subscriber && entry->fd == fd)
			return shmb_fail(-EEXIST, "fd %d is in the wait set already", fd);
	if (result == 0)
		result = add(waitset, &entry);
	if (result < 0)
		return result;
	entry->kind = SHMB_READY_FD;
	entry->fd = fd;
	entry->events = events;
	entry->cookie = cookie;
	/* epoll knows at once whether an fd can be polled; io_uring would only say so later. */
	if (!waitset->poller.ops || waitset->poller.ops == &shmb_poller_uring) {
		struct epoll_event event = { .events = events };
		int probe = epoll_create1(EPOLL_CLOEXEC);

		if (probe >= 0 && epoll_ctl(probe, EPOLL_CTL_ADD, fd, &event) < 0)
			result = shmb_fail(-errno, "fd %d cannot be in a wait set: %s", fd,
					   strerror(errno));
		shmb_fd_close(probe);
	}
	if (result == 0 && waitset->poller.ops)
		result = rewatch(waitset, entry);
	if (result < 0)
		remove_entry(waitset, entry);
	return result;
}

static int remove_subscriber(struct shmb_waitset *waitset, const struct shmb_subscriber *subscriber)
{
	int result = check_usable(waitset);

	for (struct entry *entry = result == 0 ? waitset->entries : NULL; entry;
	     entry = entry->next)
		if (subscriber && entry->subscriber == subscriber) {
			remove_entry(waitset, entry);
			return 0;
		}
	return result < 0 ? result : shmb_fail(-ENOENT, "it is not in the wait set");
}

SHMB_API int32_t shmb_waitset_remove(struct shmb_waitset *waitset,
				     struct shmb_subscriber *subscriber)
{
	return remove_subscriber(waitset, subscriber);
}

SHMB_API int32_t shmb_waitset_remove_caller(struct shmb_waitset *waitset,
					    struct shmb_caller *caller)
{
	return remove_subscriber(waitset, caller ? shmb_caller_links(caller)->inbox : NULL);
}

SHMB_API int32_t shmb_waitset_remove_server(struct shmb_waitset *waitset,
					    struct shmb_server *server)
{
	return remove_subscriber(waitset, server ? shmb_server_links(server)->inbox : NULL);
}

SHMB_API int32_t shmb_waitset_remove_fd(struct shmb_waitset *waitset, int32_t fd)
{
	int result = check_usable(waitset);

	for (struct entry *entry = result == 0 ? waitset->entries : NULL; entry;
	     entry = entry->next)
		if (!entry->subscriber && entry->fd == fd) {
			remove_entry(waitset, entry);
			return 0;
		}
	return result < 0 ? result : shmb_fail(-ENOENT, "fd %d is not in the wait set", fd);
}

/* ---- opening and closing ----------------------------------------------------------------------- */

SHMB_API int32_t shmb_waitset_open(struct shmb_client *client, struct shmb_waitset **ret_waitset)
{
	struct shmb_waitset *waitset;

	if (!client || !ret_waitset)
		return shmb_fail(-EINVAL, "client or ret_waitset is NULL");
	if (!*client->fork_guard)
		return shmb_fail(-ECHILD, "this client belongs to the parent process");
	waitset = calloc(1, sizeof(*waitset));
	if (!waitset)
		return shmb_fail(-ENOMEM, "no memory for a wait set");
	waitset->client = client;
	waitset->poller.epoll_fd = -1;
	waitset->hot_end = &waitset->hot;
	pthread_mutex_lock(&client->lock);
	client->n_children++;
	pthread_mutex_unlock(&client->lock);
	*ret_waitset = waitset;
	return 0;
}

SHMB_API int32_t shmb_waitset_close(struct shmb_waitset *waitset)
{
	if (!waitset)
		return 0;
	if (*waitset->client->fork_guard) {
		while (waitset->entries)
			remove_entry(waitset, waitset->entries);
		pthread_mutex_lock(&waitset->client->lock);
		waitset->client->n_children--;
		pthread_mutex_unlock(&waitset->client->lock);
		close_poller(waitset);
	}
	free(waitset);
	return 0;
}

SHMB_API int32_t shmb_waitset_fd(struct shmb_waitset *waitset)
{
	int result = check_usable(waitset);

	if (result == 0 && waitset->poller.ops != &shmb_poller_epoll) {
		/* The fd of a ring with deferred work is not readable when work waits. */
		close_poller(waitset);
		waitset->no_uring = true;
		result = open_with(waitset, &shmb_poller_epoll);
		if (result == 0) {
			seek_broker(waitset);
			heat_subscribers(waitset, false);
		}
	}
	return result < 0 ? result : waitset->poller.epoll_fd;
}

SHMB_API const char *shmb_waitset_backend(struct shmb_waitset *waitset)
{
	if (check_usable(waitset) < 0 || open_poller(waitset) < 0)
		return "none";
	return waitset->poller.ops->name;
}
