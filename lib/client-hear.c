/* SPDX-License-Identifier: Apache-2.0 */

/* Hearing the broker: who it is now, what it has said, and whether it owes more. */

#include <errno.h>

#include "lib/api.h"
#include "lib/bell.h"
#include "lib/client-internal.h"
#include "lib/clock.h"
#include "lib/error.h"

#define BACKLOG_NS	 1000000000ull
#define BACKLOG_SLICE_NS 20000ull

/*
 * Has another broker taken the place of the one we are connected to? A lower epoch is what one that
 * was stopped and replaced while it began has stored late.
 */
static bool has_successor(const struct shmb_client *client)
{
	uint64_t epoch;

	/* Who has never joined has no bell that would say so. */
	if (!client->bell)
		return shmb_connection_is_elsewhere(&client->connection, client->address);
	/* S: pairs with the broker's release in bell_set_epoch(). */
	epoch = SHMB_LOAD_ACQUIRE(&client->bell->broker_epoch);
	return shmb_unlikely(client->broker_epoch && epoch > client->broker_epoch);
}

/*
 * One that was replaced may be stopped, and wake up any time: nothing that it says counts. But one
 * that has died said it all before, and its successor does not tell of those who have died meanwhile.
 */
bool shmb_client_is_replaced(const struct shmb_client *client)
{
	return has_successor(client) && !shmb_connection_is_over(&client->connection);
}

/* As shmb_connection_receive(), with an eye on who the broker is, and on what was lost. */
int shmb_client_receive(struct shmb_client *client, struct shmb_received *received,
			uint64_t deadline_ns)
{
	int result;

	do {
		uint64_t slice = deadline_ns ? shmb_clock_now_ns() + CLIENT_RECEIVE_SLICE_NS : 0;
		bool last = has_successor(client);

		if (shmb_client_is_replaced(client))
			return shmb_fail(-ENOTCONN, "the broker has been replaced");
		result = shmb_connection_receive(&client->connection, received,
						 slice < deadline_ns ? slice : deadline_ns);
		/* The kernel may close the sockets of a dead process, and say so, much later. */
		if (result == -EAGAIN && last)
			return shmb_fail(-ENOTCONN, "the broker has died");
	} while (result == -EAGAIN && deadline_ns && shmb_clock_now_ns() < deadline_ns);
	if (result == -EMFILE)
		__atomic_fetch_add(&client->fd_shortages, 1, __ATOMIC_RELAXED);
	return result;
}

uint64_t shmb_client_fd_shortages(struct shmb_client *client)
{
	return __atomic_load_n(&client->fd_shortages, __ATOMIC_RELAXED);
}

/* Take in one message, if one has come: an event, or an answer that nobody waits for. */
int shmb_client_take_one(struct shmb_client *client, struct shmb_received *received,
			 uint64_t deadline_ns)
{
	int result = shmb_client_receive(client, received, deadline_ns);

	if (result < 0)
		return result;
	if (received->message.request_id == 0)
		result = shmb_inbox_deliver(client, received);
	else
		shmb_client_take_late(client, received);
	shmb_received_deinit(received);
	return result;
}

/*
 * Messages that belong to the epoch we have seen may still be to come: until when to wait for the
 * next one. Returns 0 if the broker owes nothing.
 */
static uint64_t backlog_deadline(struct shmb_client *client, uint64_t *give_up, uint64_t *slice)
{
	uint32_t wake = SHMB_LOAD(&client->bell->wake);
	uint64_t now;

	/* R: pairs with the broker's release of backlog in bell_set_backlog(). */
	if (SHMB_LOAD_ACQUIRE(&client->bell->backlog) != shmb_bell_backlog(client->broker_epoch)) {
		client->overdue = false;
		return 0;
	}
	now = shmb_clock_now_ns();
	/* A broker that is stopped keeps nobody waiting a second time. When it goes on it rings. */
	if (!*give_up)
		*give_up = client->overdue && wake == client->overdue_wake ? now : now + BACKLOG_NS;
	/* The last message may be here already and only the word not yet: look again soon. */
	*slice = *slice ? 2 * *slice : BACKLOG_SLICE_NS;
	if (now >= *give_up) {
		client->overdue = true;
		client->overdue_wake = wake;
		return 0;
	}
	return now + *slice < *give_up ? now + *slice : *give_up;
}

int shmb_client_drain(struct shmb_client *client)
{
	struct shmb_received received;
	uint64_t give_up = 0, slice = 0;
	int result = client->connected ? 0 : shmb_client_reconnect(client);

	while (result == 0) {
		uint64_t deadline = backlog_deadline(client, &give_up, &slice);

		result = shmb_client_take_one(client, &received, deadline);
		if (result == -EAGAIN) {
			if (!deadline)
				return 0;
			result = 0;
			continue;
		}
		if (result == 0)
			slice = 0;
		if (result < 0) {
			shmb_client_hang_up(client);
			result = shmb_client_reconnect(client);
		}
	}
	return result;
}
