/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A server and a caller that attach like any other and then say whatever they like in their lanes,
 * beside an honest caller and an honest server. Those must never crash, never stay in a call, never
 * take for the answer of one server what another one says, and end each call once; what goes between
 * the two is answered all the time. What breaks the layout below that hostile-lane looks at.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/clock.h"
#include "lib/link.h"

#include "tests/hostile/hostile.h"

#define ATTACK_NS 200000000ull
#define MS	  1000000ll

static struct shmb_channel *open_calls(struct shmb_client *client)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_CALL,
						.lane_len = LANE_LEN };
	struct shmb_channel *channel = NULL;

	must(shmb_channel_open(client, CHANNEL, strlen(CHANNEL), &options, &channel), "channel");
	return channel;
}

/* ---- the hostile side -------------------------------------------------------------------------- */

/* It is what both begin with. */
static struct shmb_links *links_of(void *caller_or_server)
{
	return caller_or_server;
}

static void say(struct shmb_publisher *sender, uint64_t word, uint32_t kind, uint32_t len)
{
	static uint8_t data[LANE_LEN];

	shmb_publisher_send_headed(sender, word, data, len, shmb_call_record_type(kind, 0));
}

static void random_words(struct shmb_publisher *sender, uint64_t asked)
{
	(void)asked;
	say(sender, random_u64(), random_u64() % 16, random_u64() % 64);
}

/* Which call was put to the honest server last. Nobody could know it. */
static uint64_t *overheard;
/* That one has seen enough of a greedy caller. */
static uint64_t *enough;

static void right_words(struct shmb_publisher *sender, uint64_t asked)
{
	(void)asked;
	say(sender, __atomic_load_n(overheard, __ATOMIC_RELAXED), random_u64() % 6,
	    random_u64() % 64);
}

/* All that was ever asked is answered again and again. */
static void answer_twice(struct shmb_publisher *sender, uint64_t asked)
{
	for (uint32_t kind = SHMB_CALL_REPLY; kind <= SHMB_CALL_FAILURE; kind++)
		say(sender, asked, kind, 8);
}

static void never_end(struct shmb_publisher *sender, uint64_t asked)
{
	say(sender, asked, SHMB_CALL_MORE, random_u64() % 1000);
}

static void cancel_all(struct shmb_publisher *sender, uint64_t asked)
{
	say(sender, random_u64() & 1 ? asked : random_u64() & SHMB_CALL_ID_MASK, SHMB_CALL_CANCEL,
	    0);
}

static void expired(struct shmb_publisher *sender, uint64_t asked)
{
	say(sender, asked | 1ull << SHMB_CALL_DEADLINE_SHIFT, SHMB_CALL_REQUEST, 8);
}

/* Request upon request, and no reply is ever read. */
static void ask_and_not_read(struct shmb_publisher *sender, uint64_t asked)
{
	static uint64_t number;

	(void)asked;
	say(sender, ++number & SHMB_CALL_ID_MASK, SHMB_CALL_REQUEST, 8);
}

static void short_records(struct shmb_publisher *sender, uint64_t asked)
{
	(void)asked;
	shmb_publisher_send_typed(sender, "1234567", (uint32_t)random_u64() % 8,
				  (uint32_t)random_u64() % 65536);
}

static const struct attack {
	const char *name;
	void (*speak)(struct shmb_publisher *sender, uint64_t asked);
	bool is_server;
	bool is_crime; /* of a caller: its server throws it out */
	bool is_greedy; /* until it has been held back for a while */
} attacks[] = {
	{ "random words of a server", random_words, true, false, false },
	{ "a server that answers for another", right_words, true, false, false },
	{ "a server that answers twice", answer_twice, true, false, false },
	{ "a server that never ends", never_end, true, false, false },
	{ "short records of a server", short_records, true, false, false },
	{ "random words of a caller", random_words, false, true, false },
	{ "a flood of cancels", cancel_all, false, false, false },
	{ "a flood of what has expired", expired, false, false, false },
	{ "a caller that reads no replies", ask_and_not_read, false, false, true },
	{ "short records of a caller", short_records, false, true, false },
};

/* What it was asked last, by somebody whom it answers in its own way. */
static uint64_t hear(struct shmb_server *server, uint64_t asked)
{
	const struct shmb_call_view *view = shmb_server_view(server);
	uint8_t data[64];

	while (shmb_server_recv(server, data, sizeof(data), 0) >= 0)
		asked = shmb_call_named(&links_of(server)->calls, view->call)->remote;
	return asked;
}

static char attack(const char *address, uint32_t number)
{
	const struct attack *how = &attacks[number];
	struct shmb_client *client = connect_client(address);
	struct shmb_channel *channel = open_calls(client);
	bool is_long = how->is_crime || how->is_greedy;
	uint64_t end = shmb_clock_now_ns() + (is_long ? 500 : 1) * ATTACK_NS, asked = 1;
	struct shmb_caller *caller = NULL;
	struct shmb_server *server = NULL;
	struct shmb_links *links;
	bool evicted = false;

	if (how->is_server)
		must(shmb_server_open(channel, NULL, &server), "server");
	else
		must(shmb_caller_open(channel, NULL, &caller), "caller");
	links = links_of(how->is_server ? (void *)server : caller);
	while (!evicted && shmb_clock_now_ns() < end &&
	       !(how->is_greedy && __atomic_load_n(enough, __ATOMIC_RELAXED))) {
		if (server)
			asked = hear(server, asked);
		else
			shmb_caller_wait(caller, 8, 0);
		for (uint32_t i = 0; i < links->n; i++) {
			for (uint32_t n = 0; links->all[i]->sender && n < 64; n++)
				how->speak(links->all[i]->sender, asked);
			evicted |= links->all[i]->gone;
		}
	}
	shmb_caller_close(caller);
	shmb_server_close(server);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return evicted ? EVIL_EVICTED : EVIL_GAVE_UP;
}

/* ---- the honest side --------------------------------------------------------------------------- */

static struct {
	struct shmb_caller *caller;
	struct shmb_server *server;
	uint64_t server_id;
	uint64_t n_asked;
	uint64_t n_answered; /* by the honest server */
	uint64_t n_other; /* that ended in some other way */
	uint32_t n_open;
	struct {
		int32_t call;
		uint64_t number;
		uint64_t server_id; /* whom it was put to */
	} open[64];
} honest;

static void ask(void)
{
	uint64_t number = honest.n_asked + 1;
	struct shmb_call *started;
	int32_t call;

	if (honest.n_open == SHMB_ARRAY_LEN(honest.open))
		return;
	call_begins();
	call = shmb_caller_start(honest.caller, 0, &number, sizeof(number), 300 * MS);
	call_ends("start");
	if (call == -ETIMEDOUT)
		return; /* the hostile server reads nothing */
	must(call, "start");
	honest.n_asked++;
	started = shmb_call_named(&links_of(honest.caller)->calls, call);
	honest.open[honest.n_open].call = call;
	honest.open[honest.n_open].number = number;
	honest.open[honest.n_open++].server_id = started->link->peer_id;
	if (started->link->peer_id == honest.server_id)
		__atomic_store_n(overheard, started->id, __ATOMIC_RELAXED);
}

/* Whom the reply does not reach now it is owed, until its caller reads or has gone. */
static struct {
	int32_t call;
	uint64_t number;
} owed[SHMB_CALLS_MAX];
static uint32_t n_owed;

static bool reply(int32_t call, uint64_t number)
{
	int32_t result;

	call_begins();
	result = shmb_server_reply(honest.server, call, 0, &number, sizeof(number), 0, 0);
	call_ends("reply");
	return result != -ETIMEDOUT;
}

static void pay(void)
{
	for (uint32_t n = n_owed < 64 ? n_owed : 64; n > 0; n--) {
		uint32_t i = (uint32_t)(random_u64() % n_owed);

		if (reply(owed[i].call, owed[i].number))
			owed[i] = owed[--n_owed];
	}
}

static void answer(void)
{
	uint64_t numbers[8];
	int32_t len;

	pay();
	call_begins();
	len = shmb_server_recv(honest.server, numbers, sizeof(numbers), 0);
	call_ends("recv of a server");
	if (len == -ETIMEDOUT || len == -EMSGSIZE)
		return;
	must(len, "recv of a server");
	numbers[0] *= 2;
	if (!reply(shmb_server_view(honest.server)->call, numbers[0])) {
		owed[n_owed].call = shmb_server_view(honest.server)->call;
		owed[n_owed++].number = numbers[0];
	}
}

/* One of our calls has something. */
static void receive(void)
{
	const struct shmb_call_view *view = shmb_caller_view(honest.caller);
	uint64_t numbers[128] = { 0 };
	uint32_t i = 0;
	int32_t len;

	call_begins();
	len = shmb_caller_recv(honest.caller, 0, numbers, sizeof(numbers), 0);
	call_ends("recv of a caller");
	if (len == -ETIMEDOUT || len == -ENOENT)
		return;
	while (i < honest.n_open && honest.open[i].call != view->call)
		i++;
	if (i == honest.n_open)
		fail("call %d has ended twice: %d", view->call, len);
	if (len >= 0 && view->peer_id != honest.open[i].server_id)
		fail("one server has answered what another was asked");
	if (len >= 0 && view->peer_id == honest.server_id) {
		if (len != sizeof(numbers[0]) || numbers[0] != 2 * honest.open[i].number)
			fail("a wrong answer of the honest server");
		honest.n_answered++;
	} else if (len >= 0 && view->more) {
		return;
	} else {
		honest.n_other++;
	}
	honest.open[i] = honest.open[--honest.n_open];
}

/*
 * A greedy caller is held back, with most calls left for others, and those are answered meanwhile. Since
 * when, in honest answers; 0: not yet.
 */
static uint64_t held_since;

static void watch_greedy(void)
{
	struct shmb_server_stats stats;

	must(shmb_server_stats(honest.server, &stats, sizeof(stats)), "stats");
	if (stats.n_held && !held_since)
		held_since = honest.n_answered + 1;
	if (held_since && stats.n_open > SHMB_CALLS_MAX / 2)
		fail("one caller has %u calls open", stats.n_open);
	if (held_since && honest.n_answered > held_since + 1000)
		__atomic_store_n(enough, 1, __ATOMIC_RELAXED);
}

static void withstand(struct honest_side *side, uint32_t number)
{
	uint64_t before = honest.n_answered, end;
	char result = 0;

	now_testing(attacks[number].name);
	evil_attack(shmb_broker_address(side->broker), number);
	while (!result) {
		/* They lie open for a while, so that others can hear of them. */
		for (uint32_t i = 0; i < 4; i++)
			ask();
		for (uint32_t i = 0; i < 8; i++)
			receive();
		for (uint32_t i = 0; i < 8; i++) {
			answer();
			receive();
		}
		if (attacks[number].is_greedy)
			watch_greedy();
		result = evil_result();
	}
	end = shmb_clock_now_ns() + 20000 * MS;
	while (honest.n_open) {
		answer();
		receive();
		if (shmb_clock_now_ns() > end)
			fail("%u calls do not end", honest.n_open);
	}
	while (n_owed) {
		answer();
		if (shmb_clock_now_ns() > end)
			fail("%u replies are owed to nobody", n_owed);
	}
	if (honest.n_answered == before)
		fail("the honest server has answered nothing");
	if (attacks[number].is_greedy && !__atomic_load_n(enough, __ATOMIC_RELAXED))
		fail("it was not held back, or others with it");
	if (attacks[number].is_crime && result != EVIL_EVICTED)
		fail("it was not thrown out");
}

int main(void)
{
	struct honest_side side = { 0 };

	overheard = mmap(NULL, 2 * sizeof(*overheard), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (overheard == MAP_FAILED)
		return EXIT_FAILURE;
	enough = overheard + 1;
	evil_start(attack);
	must(shmb_broker_start(NULL, &side.broker), "broker");
	side.client = connect_client(shmb_broker_address(side.broker));
	side.channel = open_calls(side.client);
	must(shmb_server_open(side.channel, NULL, &honest.server), "server");
	must(shmb_caller_open(side.channel, NULL, &honest.caller), "caller");
	honest.server_id = links_of(honest.server)->id;
	honest_withstand(&side, SHMB_ARRAY_LEN(attacks), withstand);
	must(shmb_caller_close(honest.caller), "close");
	must(shmb_server_close(honest.server), "close");
	honest_end(&side);
	printf("hostile-call: %llu honest answers, %llu calls that ended otherwise, %llu calls of "
	       "the library, none of them late\n",
	       (unsigned long long)honest.n_answered, (unsigned long long)honest.n_other,
	       (unsigned long long)n_calls());
	return EXIT_SUCCESS;
}
