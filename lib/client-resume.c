/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Coming back after a broker restart. When the connection ends nothing else does: lanes are between
 * publishers and subscribers. The next call that looks at the broker tries to reconnect, joins with the
 * token it was given, and asks for everything it has again; the broker then tells what has changed
 * meanwhile.
 */

#include <errno.h>
#include <stdlib.h>

#include <shmbroker/ring.h>

#include "lib/client-internal.h"
#include "lib/clock.h"
#include "lib/error.h"

#define RETRY_MAX_NS 500000000ull

void shmb_client_add(struct shmb_client *client, struct shmb_resumable *resumable)
{
	struct shmb_resumable **at = &client->resumables;

	while (*at)
		at = &(*at)->next;
	resumable->next = NULL;
	*at = resumable;
}

void shmb_client_remove(struct shmb_client *client, struct shmb_resumable *resumable)
{
	struct shmb_resumable **at = &client->resumables;

	while (*at && *at != resumable)
		at = &(*at)->next;
	if (*at)
		*at = resumable->next;
}

static int resume_all(struct shmb_client *client)
{
	int result = 0;

	client->resuming = true;
	for (struct shmb_resumable *at = client->resumables; at && result == 0; at = at->next)
		result = at->resume(at);
	client->resuming = false;
	return result;
}

static bool is_open(const struct shmb_client *client, uint64_t channel_id)
{
	for (const struct shmb_resumable *at = client->resumables; at; at = at->next)
		if (at->channel_id == channel_id)
			return true;
	return false;
}

/*
 * What was closed meanwhile: the broker would keep it until this process ends, and a reliable
 * subscriber that nobody reads stops its publishers. A channel counts handles from what was
 * resumed: one that is still open is not closed.
 */
void shmb_client_say_farewells(struct shmb_client *client)
{
	uint32_t n = client->n_farewells;
	struct shmb_farewell *farewells = client->farewells;

	client->farewells = NULL;
	client->n_farewells = 0;
	for (uint32_t i = 0; i < n; i++)
		if (farewells[i].type != SHMB_MSG_CLOSE || !is_open(client, farewells[i].body.id))
			shmb_client_farewell(client, farewells[i].type, farewells[i].body.id);
	free(farewells);
}

/* Come back after the connection has ended, if it is time to try. */
int shmb_client_reconnect(struct shmb_client *client)
{
	uint64_t now = shmb_clock_now_ns();
	uint32_t wake = client->bell ? SHMB_LOAD(&client->bell->wake) : 0;
	int result;

	if (client->stale)
		return shmb_fail(-ESTALE, "the broker has forgotten this client: open it anew");
	/* A broker that has started rings the bells of all it has adopted: then do not wait. */
	if (now < client->retry_at_ns && wake == client->tried_wake)
		return shmb_fail(-ENOTCONN, "there is no broker now at %s", client->address);
	client->tried_wake = wake;
	result = shmb_client_connect_or_start(client, now + 1000000000ull);
	if (result == 0 && !client->stale)
		result = resume_all(client);
	if (result == 0 && !client->stale) {
		shmb_client_say_farewells(client);
		return 0;
	}
	/* As somebody else we must not go on over this connection. */
	shmb_client_hang_up(client);
	if (result == -ESTALE)
		client->stale = true;
	if (client->stale)
		return shmb_client_reconnect(client);
	/* Whoever sleeps wakes up for the next attempt, so attempts must get rare. */
	client->retry_delay_ns = client->retry_delay_ns * 2 > RETRY_MAX_NS
					 ? RETRY_MAX_NS
					 : client->retry_delay_ns * 2;
	__atomic_store_n(&client->retry_at_ns, shmb_clock_now_ns() + client->retry_delay_ns,
			 __ATOMIC_RELAXED);
	return shmb_fail(-ENOTCONN, "there is no broker now at %s", client->address);
}

uint64_t shmb_client_retry_at_ns(struct shmb_client *client)
{
	/* A hint for how long to sleep: any mixture of old and new values will do. */
	if (__atomic_load_n(&client->connected, __ATOMIC_RELAXED) ||
	    __atomic_load_n(&client->stale, __ATOMIC_RELAXED))
		return UINT64_MAX;
	return __atomic_load_n(&client->retry_at_ns, __ATOMIC_RELAXED);
}
