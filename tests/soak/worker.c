/* SPDX-License-Identifier: Apache-2.0 */

/* A publisher or subscriber of a soak, which writes down what it does and gets. */

#include "soak.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <shmbroker/shmbroker.h>

#include "lib/member.h"
#include "lib/subscriber.h"

#define MS	 1000000ll
#define QUIET_MS 300 /* of silence, before a draining subscriber believes that it has all */

struct head {
	uint32_t publication;
	uint32_t len;
	uint64_t number;
};

static struct shmb_client *client;
static struct shmb_channel *channel;

void soak_nap(long ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000 }, NULL);
}

static uint64_t tick(struct history *history)
{
	return __atomic_add_fetch(&history->tick, 1, __ATOMIC_SEQ_CST);
}

uint32_t soak_fill(uint8_t record[RECORD_MAX], uint32_t publication, uint64_t number)
{
	uint64_t random = (uint64_t)publication << 32 ^ number;
	struct head head = { publication, 0, number };

	head.len = (uint32_t)(sizeof(head) + soak_random(&random) % (RECORD_MAX - sizeof(head)));
	memcpy(record, &head, sizeof(head));
	for (uint32_t i = sizeof(head); i < head.len; i++)
		record[i] = (uint8_t)(random >> i % 8 * 8) + (uint8_t)i;
	return head.len;
}

static bool connect_and_open(struct history *history, unsigned number)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = history->address,
					       .connect_timeout_ns = 2000 * MS };
	struct shmb_channel_options wanted = { .options_len = sizeof(wanted),
					       .flags = SHMB_CHANNEL_CREATE,
					       .lane_len = LANE_LEN,
					       .backing = number % N_CHANNELS ? SHMB_BACKING_SEALED
									      : SHMB_BACKING_AUTO };
	char name[32];
	int len = snprintf(name, sizeof(name), "soak/%u", number % N_CHANNELS);

	options.address_len = (uint32_t)strlen(history->address);
	if (shmb_client_open(&options, &client) < 0)
		return false;
	if (shmb_channel_open(client, name, (uint32_t)len, &wanted, &channel) == 0)
		return true;
	shmb_client_close(client);
	return false;
}

static void close_all(void)
{
	shmb_channel_close(channel);
	shmb_client_close(client);
}

/* Is it in another segment than when it was looked at last? What is sealed from the start needs not move. */
static void note_move(struct history *history, unsigned number, const struct shmb_member *member,
		      uint64_t *own_id)
{
	if (number % N_CHANNELS && *own_id && *own_id != member->own_id)
		__atomic_fetch_add(&history->moves, 1, __ATOMIC_SEQ_CST);
	*own_id = member->own_id;
}

/* ---- publishers --------------------------------------------------------------------------------- */

static bool publishers_end(struct history *history, unsigned number)
{
	return soak_is_set(&history->leave[number]) || soak_is_set(&history->stop);
}

static void publish(struct history *history, unsigned number, struct publication *mine,
		    struct shmb_publisher *publisher, uint64_t random)
{
	uint32_t id = (uint32_t)(mine - history->publications);
	uint8_t record[RECORD_MAX];
	uint64_t own_id = 0;
	int32_t result = 0;

	while (!publishers_end(history, number) && (result == 0 || result == -ETIMEDOUT)) {
		uint32_t len = soak_fill(record, id, mine->acked);

		/* A publisher begins with its member. */
		note_move(history, number, (struct shmb_member *)(void *)publisher, &own_id);
		mine->tried = mine->acked + 1;
#ifdef SOAK_MUTANT_ACK
		mine->acked++; /* a mistake: it acknowledges what is not yet published */
		result = shmb_publisher_send_wait(publisher, record, len, 200 * MS);
		continue;
#endif
		result = shmb_publisher_send_wait(publisher, record, len, 200 * MS);
		if (result == 0) {
			mine->acked_len += len;
			__atomic_store_n(&mine->acked, mine->acked + 1, __ATOMIC_RELEASE);
		}
		if (soak_random(&random) % 64 == 0)
			soak_nap((long)(soak_random(&random) % 4));
	}
}

static void publisher(struct history *history, unsigned number, uint64_t random)
{
	while (!publishers_end(history, number)) {
		uint32_t id;
		struct publication *mine;
		struct shmb_publisher *handle;

		if (!connect_and_open(history, number)) {
			soak_nap(20);
			continue;
		}
		id = __atomic_fetch_add(&history->n_publications, 1, __ATOMIC_SEQ_CST);
		if (id >= N_PUBLICATIONS)
			_exit(3);
		mine = &history->publications[id];
		mine->channel = number % N_CHANNELS;
		mine->began = tick(history);
		if (shmb_publisher_open(channel, NULL, &handle) == 0) {
			__atomic_store_n(&mine->state, 1, __ATOMIC_RELEASE);
			publish(history, number, mine, handle, random);
			shmb_publisher_close(handle);
		} else {
			soak_nap(20);
		}
		close_all();
	}
}

/* ---- subscribers -------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void wrong(struct session *mine, const char *format,
							...)
{
	va_list args;

	if (*mine->wrong)
		return; /* what follows may come of it */
	va_start(args, format);
	vsnprintf(mine->wrong, sizeof(mine->wrong), format, args);
	va_end(args);
}

static struct seen *seen_of(struct session *mine, uint32_t publication)
{
	for (uint32_t i = mine->n_seen; i-- > 0;)
		if (mine->seen[i].publication == publication)
			return &mine->seen[i];
	return NULL;
}

static void receive(struct session *mine, const uint8_t *record, int32_t len, uint64_t sequence)
{
	uint8_t expected[RECORD_MAX];
	struct head head;
	struct seen *seen;

	mine->records++;
	if (len < (int32_t)sizeof(head)) {
		wrong(mine, "a record of %d bytes", len);
		return;
	}
	memcpy(&head, record, sizeof(head));
	if (soak_fill(expected, head.publication, head.number) != (uint32_t)len ||
	    memcmp(record, expected, (size_t)len) != 0) {
		wrong(mine, "publication %u, record %llu has wrong bytes", head.publication,
		      (unsigned long long)head.number);
		return;
	}
	if (head.number != sequence)
		wrong(mine, "publication %u, record %llu is said to be number %llu",
		      head.publication, (unsigned long long)head.number,
		      (unsigned long long)sequence);
	seen = seen_of(mine, head.publication);
	if (!seen) {
		seen = &mine->seen[mine->n_seen++];
		*seen = (struct seen){ head.publication, head.number, head.number };
	}
	if (head.number < seen->next)
		wrong(mine, "publication %u, record %llu comes again, after %llu", head.publication,
		      (unsigned long long)head.number, (unsigned long long)seen->next - 1);
	else if (head.number > seen->next && !mine->lossy)
		wrong(mine, "publication %u, record %llu follows %llu", head.publication,
		      (unsigned long long)head.number, (unsigned long long)seen->next - 1);
	else
		mine->gaps += head.number - seen->next;
	seen->next = head.number + 1;
}

/* Returns true when it has drained everything. */
static bool subscribe(struct history *history, unsigned number, struct session *mine,
		      struct shmb_subscriber *subscriber, uint64_t random)
{
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	uint8_t record[RECORD_MAX];
	uint64_t own_id = 0;
	int quiet_ms = 0;

	while (!soak_is_set(&history->leave[number]) && mine->n_seen < N_SEEN) {
		int32_t len = shmb_subscriber_recv(subscriber, record, sizeof(record));

		note_move(history, number, shmb_subscriber_member(subscriber), &own_id);
		if (len >= 0) {
			receive(mine, record, len, view->sequence);
			quiet_ms = 0;
			if (soak_random(&random) % 256 == 0)
				soak_nap((long)(soak_random(&random) % 8));
			continue;
		}
		if (len == -ESTALE || len == -ENOTCONN)
			return false;
		if (len != -EAGAIN) {
			wrong(mine, "receiving: %d", len);
			return false;
		}
		if (shmb_subscriber_wait(subscriber, 50 * MS) == -ETIMEDOUT)
			quiet_ms += 50;
		/* Who is not connected has not heard of everybody yet. */
		if (!shmb_client_connected(client))
			quiet_ms = 0;
		if (soak_is_set(&history->drain) && quiet_ms >= QUIET_MS)
			return true;
	}
	return false;
}

static void subscriber(struct history *history, unsigned number, uint64_t random)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options) };
	bool drained = false;

	if (number >= FIRST_SUBMITTER - N_CHANNELS)
		options.flags = SHMB_SUBSCRIBER_LOSSY;
	while (!drained && !soak_is_set(&history->leave[number])) {
		struct shmb_subscriber_stats stats;
		struct shmb_subscriber *handle;
		struct session *mine;
		uint32_t id;

		if (soak_is_set(&history->drain))
			return;
		if (!connect_and_open(history, number)) {
			soak_nap(20);
			continue;
		}
		if (shmb_subscriber_open(channel, &options, &handle) < 0) {
			close_all();
			soak_nap(20);
			continue;
		}
		id = __atomic_fetch_add(&history->n_sessions, 1, __ATOMIC_SEQ_CST);
		if (id >= N_SESSIONS)
			_exit(3);
		mine = &history->sessions[id];
		mine->channel = number % N_CHANNELS;
		mine->lossy = options.flags != 0;
		mine->opened = tick(history);
		mine->state = 1;
		drained = subscribe(history, number, mine, handle, random);
		if (shmb_subscriber_stats(handle, &stats, sizeof(stats)) == 0) {
			mine->lost = stats.lost;
			mine->backstops = stats.backstops;
		}
		shmb_subscriber_close(handle);
		close_all();
		if (drained)
			__atomic_store_n(&mine->state, 2, __ATOMIC_RELEASE);
	}
}

_Noreturn void soak_worker(struct history *history, unsigned number, uint64_t random)
{
	if (number < N_PUBLISHERS)
		publisher(history, number, random);
	else if (number < FIRST_SUBMITTER)
		subscriber(history, number, random);
	else if (number < FIRST_HAND)
		soak_submitter(history, number, random);
	else if (number < FIRST_CALLER)
		soak_hand(history, number, random);
	else if (number < FIRST_SERVER)
		soak_caller(history, number, random);
	else
		soak_server(history, number, random);
	_exit(0);
}
