/* SPDX-License-Identifier: Apache-2.0 */

/* A caller and a server of a call channel, in a soak. */

#include "soak.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shmbroker/shmbroker.h>

#define MS     1000000ll
#define N_OPEN 8u /* calls that a caller has open at a time */
#define N_WORK 4u /* calls that a server has in work at a time */
#define ANSWER (1u << 31) /* in the name of what a reply holds */

static struct shmb_client *client;
static struct shmb_channel *channel;

static bool connect_and_open(struct history *history, unsigned number)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = history->address,
					       .connect_timeout_ns = 2000 * MS };
	struct shmb_channel_options wanted = { .options_len = sizeof(wanted),
					       .flags = SHMB_CHANNEL_CREATE,
					       .pattern = SHMB_CHANNEL_CALL,
					       .lane_len = LANE_LEN,
					       .backing = number % N_CHANNELS ? SHMB_BACKING_SEALED
									      : SHMB_BACKING_AUTO };
	const char *name = number % N_CHANNELS ? "soak/calls/1" : "soak/calls/0";

	options.address_len = (uint32_t)strlen(history->address);
	if (shmb_client_open(&options, &client) < 0)
		return false;
	if (shmb_channel_open(client, name, (uint32_t)strlen(name), &wanted, &channel) == 0)
		return true;
	shmb_client_close(client);
	return false;
}

static void close_all(void)
{
	shmb_channel_close(channel);
	shmb_client_close(client);
}

/* ---- callers ------------------------------------------------------------------------------------ */

/* A call as its caller knows it. */
struct open_call {
	int32_t call;
	uint64_t number;
};

static bool callers_end(struct history *history, unsigned number)
{
	return soak_is_set(&history->leave[number]) || soak_is_set(&history->stop);
}

/* A call has a reply or an end. Returns whether the caller can go on. */
static bool receive(struct dialogue *mine, uint32_t id, struct shmb_caller *caller,
		    struct open_call *open, uint32_t *n, int64_t timeout_ns)
{
	uint8_t reply[RECORD_MAX], expected[RECORD_MAX];
	int32_t result = shmb_caller_recv(caller, 0, reply, sizeof(reply), timeout_ns);
	int32_t call = shmb_caller_view(caller)->call;
	uint32_t i = 0;

	if (result == -ETIMEDOUT || result == -EMFILE)
		return true;
	if (result < 0 && result != -ETIME && result != -ECONNRESET)
		return false;
	while (i < *n && open[i].call != call)
		i++;
	if (i == *n) {
		mine->again++;
		return true;
	}
	if (result >= 0) {
		mine->answered++;
		mine->torn +=
			soak_fill(expected, id | ANSWER, open[i].number) != (uint32_t)result ||
			memcmp(reply, expected, (size_t)result) != 0;
		mine->unasked += !__atomic_load_n(&mine->handed[open[i].number], __ATOMIC_ACQUIRE);
	} else if (result == -ECONNRESET) {
		mine->resets++;
	}
	mine->ended++;
	open[i] = open[--*n];
	return true;
}

/* One more, of a limited time or not. Returns whether the caller can go on. */
static bool start(struct dialogue *mine, uint32_t id, struct shmb_caller *caller,
		  struct open_call *open, uint32_t *n, uint64_t *random)
{
	int64_t timeout_ns =
		soak_random(random) % 4 ? SHMB_FOREVER : (int64_t)(soak_random(random) % 50) * MS;
	uint8_t request[RECORD_MAX];
	uint64_t number = mine->tried;
	uint32_t len = soak_fill(request, id, number);
	int32_t call = shmb_caller_wait(caller, len, 50 * MS);

	if (call == 0) {
		__atomic_store_n(&mine->tried, number + 1, __ATOMIC_RELEASE);
		call = shmb_caller_start(caller, 0, request, len, timeout_ns);
	}
	if (call > 0)
		open[(*n)++] = (struct open_call){ call, number };
	return call > 0 || call == -ETIMEDOUT || call == -EMFILE;
}

static void ask(struct history *history, unsigned number, struct dialogue *mine,
		struct shmb_caller *caller, uint64_t random)
{
	uint32_t id = (uint32_t)(mine - history->dialogues), n = 0;
	struct open_call open[N_OPEN];
	bool good = true;

	while (good && !callers_end(history, number) && mine->tried < N_ASKED) {
		if (n < N_OPEN && soak_random(&random) % 2)
			good = start(mine, id, caller, open, &n, &random);
		else if (n && soak_random(&random) % 16 == 0 &&
			 shmb_caller_cancel(caller, open[0].call) == 0) {
			mine->cancelled++;
			open[0] = open[--n];
		} else if (n) {
			good = receive(mine, id, caller, open, &n, 20 * MS);
		}
	}
	/* Each has an end, if the caller lives: nobody else ends a call that has all the time. */
	while (good && n)
		good = receive(mine, id, caller, open, &n, 200 * MS);
	if (good)
		__atomic_store_n(&mine->finished, 1, __ATOMIC_RELEASE);
}

void soak_caller(struct history *history, unsigned number, uint64_t random)
{
	while (!callers_end(history, number)) {
		struct shmb_caller *caller;
		uint32_t id;

		if (!connect_and_open(history, number)) {
			soak_nap(20);
			continue;
		}
		id = __atomic_fetch_add(&history->n_dialogues, 1, __ATOMIC_SEQ_CST);
		if (id >= N_DIALOGUES)
			_exit(3);
		if (shmb_caller_open(channel, NULL, &caller) == 0) {
			ask(history, number, &history->dialogues[id], caller, soak_random(&random));
			shmb_caller_close(caller);
		} else {
			soak_nap(20);
		}
		close_all();
	}
}

/* ---- servers ------------------------------------------------------------------------------------ */

/* A call that is in work. */
struct work {
	int32_t call;
	uint32_t id;
	uint64_t number;
};

/* Which one is it? */
static void judge(struct history *history, const uint8_t *request, int32_t len, struct work *work)
{
	uint8_t expected[RECORD_MAX];
	struct dialogue *dialogue;

	memcpy(&work->id, request, sizeof(work->id));
	memcpy(&work->number, request + 8, sizeof(work->number));
	if (work->id >= N_DIALOGUES || work->number >= N_ASKED)
		_exit(5);
	dialogue = &history->dialogues[work->id];
	if (soak_fill(expected, work->id, work->number) != (uint32_t)len ||
	    memcmp(request, expected, (size_t)len) != 0)
		__atomic_fetch_add(&dialogue->torn, 1, __ATOMIC_RELAXED);
	/* A request is for one server, once. */
	if (__atomic_fetch_add(&dialogue->handed[work->number], 1, __ATOMIC_ACQ_REL))
		__atomic_fetch_add(&dialogue->again, 1, __ATOMIC_RELAXED);
}

/* Returns as shmb_server_reply(). */
static int32_t answer(struct shmb_server *server, const struct work *work)
{
	uint8_t reply[RECORD_MAX];
	uint64_t number = work->number;

#ifdef SOAK_MUTANT_CALL
	number ^= number % 16 ==
		  9; /* a mistake: now and then it answers what another one has asked */
#endif
	return shmb_server_reply(server, work->call, 0, reply,
				 soak_fill(reply, work->id | ANSWER, number), 0, 100 * MS);
}

static void serve(struct history *history, unsigned number, struct shmb_server *server,
		  uint64_t random)
{
	uint8_t request[RECORD_MAX];
	struct work work[N_WORK];
	int32_t result = 0;
	uint32_t n = 0;

	while (result != -ESTALE && !soak_is_set(&history->leave[number]) &&
	       !soak_is_set(&history->drain)) {
		result = n < N_WORK ? shmb_server_recv(server, request, sizeof(request),
						       n ? 0 : 50 * MS)
				    : -ETIMEDOUT;
		if (result >= 0) {
			work[n].call = shmb_server_view(server)->call;
			judge(history, request, result, &work[n++]);
		} else if (result == -ETIMEDOUT && n) {
			uint32_t i = (uint32_t)(soak_random(&random) % n);

			if (soak_random(&random) % 64 == 0)
				soak_nap((long)(soak_random(&random) % 4));
			result = answer(server, &work[i]);
			if (result != -ETIMEDOUT)
				work[i] = work[--n];
		}
	}
}

void soak_server(struct history *history, unsigned number, uint64_t random)
{
	while (!soak_is_set(&history->leave[number]) && !soak_is_set(&history->drain)) {
		struct shmb_server *server;

		if (!connect_and_open(history, number)) {
			soak_nap(20);
			continue;
		}
		if (shmb_server_open(channel, NULL, &server) == 0) {
			serve(history, number, server, soak_random(&random));
			shmb_server_close(server);
		} else {
			soak_nap(20);
		}
		close_all();
	}
}
