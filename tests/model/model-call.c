/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What is of calls alone, under the model checker: lib/call.h and the lanes themselves. Callers find the
 * servers where the broker says who they are: one comes into the slot of another, the broker dies
 * anywhere and a successor says it anew, and nobody is ever taken for another one. And a server that has
 * answered and goes: its caller, who hears of that, has the answer. What is mirrored here are the lines
 * around: note(), read_all() and settle() of the caller, the broker's moving of the epoch.
 */

#define MODEL_N_MARKS 2u

#include "tests/model/model.h"

#include "lib/call.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

#define ID(n)  (100u + (n))
#define UID(n) (200u + (n))
#define PID(n) (300u + (n))

static struct shmb_call_server slot;

/* ---- who is there ------------------------------------------------------------------------------- */

enum {
	BROKER,
	SUCCESSOR,
	CALLER
};

static void say(unsigned int n)
{
	shmb_call_server_store(&slot, n ? ID(n) : 0, UID(n), PID(n));
}

static void one_goes_and_another_comes(void)
{
	say(0);
	say(2);
	say(0);
	say(3);
}

/* It knows who is there from elsewhere. */
static void settle_it(void)
{
	dfs_await_death();
	say(4);
}

static void look_who_is_there(void)
{
	for (int i = 0; i < 2; i++) {
		uint32_t uid, pid;
		uint64_t id = shmb_call_server_load(&slot, &uid, &pid);

		if (!id)
			continue;
		if (id < ID(1) || id > ID(4))
			dfs_fail("nobody has this id");
		if (uid != UID(id - ID(0)) || pid != PID(id - ID(0)))
			dfs_fail("one server is taken for another");
	}
}

static void check_who_is_there(void)
{
	unsigned int last = dfs_killed(BROKER) ? 4 : 3;
	uint32_t uid, pid;

	if (shmb_call_server_load(&slot, &uid, &pid) != ID(last) || uid != UID(last) ||
	    pid != PID(last))
		dfs_fail("the last word is not there");
}

static void set_up_slot(void)
{
	say(1);
}

/* ---- the last answer ---------------------------------------------------------------------------- */

enum {
	SERVER,
	JUDGE,
	ASKER
};

static uint64_t words[2];
static unsigned int n_answers;

#define SOCKET words[0] /* from the server to the broker: the kernel orders that */
#define EPOCH  words[1]

static void answer_and_go(void)
{
	uint8_t *payload = model_claim();

	model_commit(payload, 0);
	SHMB_STORE_RELEASE(&SOCKET, 1);
}

/* As view_move_epoch(): it has heard that the server has gone, be it that it died. */
static void move_the_epoch(void)
{
	if (dfs_load(&SOCKET, sizeof(SOCKET), DFS_ACQUIRE, DFS_HERE("socket")))
		SHMB_STORE_RELEASE(&EPOCH, 1);
}

static void receive_or_give_up(void)
{
	/* note(): as of now we know who has gone. */
	bool gone = SHMB_LOAD_ACQUIRE(&EPOCH) != 0;

	/* read_all() */
	while (model_receive())
		n_answers++;
	/* settle() */
	if (gone && !n_answers)
		dfs_fail("the server had answered before it went");
}

static void set_up_answer(void)
{
	static const uint8_t lens[] = { 16 };

	model_begin(lens, N(lens));
	n_answers = 0;
	dfs_ignore(&lane.segment.position_hint);
	dfs_ignore(&lane.segment.sequence_hint);
	dfs_ignore(&cursor.slot.sequence);
}

static void check_nothing(void)
{
}

static const struct dfs_scenario scenarios[] = {
	{ "servers in a slot",
	  set_up_slot,
	  { one_goes_and_another_comes, settle_it, look_who_is_there },
	  check_who_is_there,
	  1u << BROKER,
	  3,
	  2,
	  { 2100000, 21000 } },
	{ "a last answer",
	  set_up_answer,
	  { answer_and_go, move_the_epoch, receive_or_give_up },
	  check_nothing,
	  0,
	  4,
	  3,
	  { 16000, 1000 } },
};

int main(int argc, char **argv)
{
	dfs_share(&slot, sizeof(slot));
	dfs_share(words, sizeof(words));
	dfs_share(&lane, sizeof(lane));
	dfs_share(&cursor, sizeof(cursor));
	return dfs_main(argc, argv, scenarios, N(scenarios));
}
