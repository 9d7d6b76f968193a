/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Queues whose publishers go, and whose workers go before they have done what they had: the broker hands
 * on what neither of the two can. Nothing is lost, nothing comes to two who live, nothing that is done
 * comes again, nothing stays.
 */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include <shmbroker/layout.h>

#include "tests/unit/daemon.h"

static char instance[17];

#include "tests/unit/kept.h"

/* ---- actors ------------------------------------------------------------------------------------ */

enum op {
	SEND,
	TAKE,
	DONE,
	FAIL,
	SETTLE,
	LEAVE
};

struct order {
	enum op op;
	uint64_t value;
};

struct answer {
	int32_t result;
	uint64_t id;
	uint64_t job;
	uint32_t attempt;
};

/* A process that is a publisher or a worker and does what it is told. */
struct actor {
	pid_t pid;
	int socket;
};

static uint32_t open_flags = SHMB_CHANNEL_CREATE;

static struct shmb_channel *queue_of(struct shmb_client *of)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = open_flags,
						.pattern = SHMB_CHANNEL_QUEUE,
						.lane_len = 65536,
						.backing = backing_of_run() };
	struct shmb_channel *channel = NULL;

	ok(shmb_channel_open(of, "estate", 6, &options, &channel));
	return channel;
}

/* Of different lengths, so that lanes fill up and wrap. */
static uint32_t len_of(uint64_t id)
{
	return 8 + (uint32_t)(id * 137 % 1500);
}

static void publish(struct shmb_publisher *publisher, const struct order *order,
		    struct answer *answer)
{
	uint64_t record[256] = { order->value };

	if (order->op == SEND)
		answer->result = shmb_publisher_send(publisher, record, len_of(order->value));
	else if (order->op == SETTLE)
		answer->result = shmb_publisher_wait_done(publisher, 0);
	else
		answer->result = shmb_publisher_close(publisher);
}

static void work(struct shmb_subscriber *worker, const struct order *order, struct answer *answer)
{
	static uint64_t record[256];

	if (order->op == TAKE) {
		answer->result = shmb_subscriber_take(worker, record, sizeof(record));
		answer->id = record[0];
		answer->job = shmb_subscriber_view(worker)->term;
		answer->attempt = shmb_subscriber_view(worker)->attempt;
		if (answer->result >= 0 && answer->result != (int32_t)len_of(answer->id))
			answer->result = -EBADMSG;
	} else if (order->op == DONE) {
		answer->result = shmb_subscriber_done(worker, order->value);
		if (answer->result < 0)
			fprintf(stderr, "%s\n", why());
	} else if (order->op == FAIL) {
		answer->result = shmb_subscriber_fail(worker, order->value);
	} else {
		answer->result = shmb_subscriber_close(worker);
	}
}

static void act(int fd, bool is_worker, uint32_t credit)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options),
						   .credit = credit };
	struct shmb_channel *channel = queue_of(connect_to(address));
	struct shmb_publisher *publisher = NULL;
	struct shmb_subscriber *worker = NULL;
	struct answer answer = { 0 };
	struct order order = { .op = SEND };

	if (is_worker)
		answer.result = shmb_subscriber_open(channel, &options, &worker);
	else
		answer.result = shmb_publisher_open(channel, NULL, &publisher);
	if (answer.result < 0)
		fprintf(stderr, "%s\n", why());
	while (write(fd, &answer, sizeof(answer)) == sizeof(answer) && order.op != LEAVE &&
	       read(fd, &order, sizeof(order)) == sizeof(order)) {
		memset(&answer, 0, sizeof(answer));
		if (is_worker)
			work(worker, &order, &answer);
		else
			publish(publisher, &order, &answer);
	}
	_exit(0);
}

static struct actor start_actor(bool is_worker, uint32_t credit)
{
	struct actor actor;
	struct answer answer;
	int sockets[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	actor.pid = fork();
	ck_assert_int_ge(actor.pid, 0);
	if (actor.pid == 0) {
		close(sockets[0]);
		alarm(300);
		act(sockets[1], is_worker, credit);
	}
	close(sockets[1]);
	actor.socket = sockets[0];
	ck_assert_int_eq(read(actor.socket, &answer, sizeof(answer)), sizeof(answer));
	ck_assert_int_eq(answer.result, 0);
	return actor;
}

static struct actor start_worker(uint32_t credit)
{
	return start_actor(true, credit);
}

static struct actor start_publisher(void)
{
	return start_actor(false, 0);
}

static struct answer tell(const struct actor *actor, enum op op, uint64_t value)
{
	struct order order = { .op = op, .value = value };
	struct answer answer;

	ck_assert_int_eq(write(actor->socket, &order, sizeof(order)), sizeof(order));
	ck_assert_int_eq(read(actor->socket, &answer, sizeof(answer)), sizeof(answer));
	return answer;
}

static void kill_actor(struct actor *actor)
{
	kill(actor->pid, SIGKILL);
	ck_assert_int_eq(waitpid(actor->pid, NULL, 0), actor->pid);
	close(actor->socket);
}

/* It closes what it has, and ends. */
static void end_actor(struct actor *actor)
{
	ck_assert_int_eq(tell(actor, LEAVE, 0).result, 0);
	close(actor->socket);
	ck_assert_int_eq(waitpid(actor->pid, NULL, 0), actor->pid);
}

static void send_all(const struct actor *publisher, uint64_t first, uint64_t end)
{
	for (uint64_t id = first; id < end; id++) {
		struct answer answer = { .result = -EAGAIN };

		for (int i = 0; i < 5000 && answer.result == -EAGAIN; i++) {
			answer = tell(publisher, SEND, id);
			if (answer.result)
				usleep(1000);
		}
		ck_assert_int_eq(answer.result, 0);
	}
}

/* Takes one that must come. */
static struct answer take(const struct actor *worker)
{
	struct answer answer = { .result = -EAGAIN };

	for (int i = 0; i < 10000 && answer.result == -EAGAIN; i++) {
		answer = tell(worker, TAKE, 0);
		if (answer.result == -EAGAIN)
			usleep(1000);
	}
	ck_assert_int_ge(answer.result, 0);
	return answer;
}

static void take_nothing(const struct actor *worker)
{
	ck_assert_int_eq(tell(worker, TAKE, 0).result, -EAGAIN);
}

static void finish(const struct actor *worker, const struct answer *taken)
{
	ck_assert_int_eq(tell(worker, DONE, taken->job).result, 0);
}

/* These come in this order, as that attempt, and are done. */
static void take_all(const struct actor *worker, uint64_t first, uint64_t end, uint32_t attempt)
{
	for (uint64_t id = first; id < end; id++) {
		struct answer answer = take(worker);

		ck_assert_uint_eq(answer.id, id);
		ck_assert_uint_eq(answer.attempt, attempt);
		finish(worker, &answer);
	}
}

/* ---- brokers ----------------------------------------------------------------------------------- */

static void set_up_estate(void)
{
	set_up_dir();
	read_instance(instance);
	open_flags = SHMB_CHANNEL_CREATE;
}

/* Faster than to wait until it ends by itself. */
static void tear_down_estate(void)
{
	int status;

	/* The registry. */
	for (int i = 0; i < 5000 && count_objects(instance) > 1; i++)
		usleep(1000);
	ck_assert_int_eq(count_objects(instance), 1);
	kill(daemon_pid, SIGTERM);
	ck_assert_int_eq(waitpid(daemon_pid, &status, 0), daemon_pid);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(count_objects(instance), 0);
	tear_down_dir();
}

static void restart_daemon(void)
{
	kill_daemon();
	start_daemon();
}

/* Nothing of those who have gone is there any more. */
static void keeps_nothing(void)
{
	keeps(0);
	await_entries(SHMB_ENTRY_SUBSCRIBER, SHMB_MEMBER_KEPT, 0);
}

/* The broker has heard that so many are left of these. */
static void await_members(uint32_t kind, unsigned wanted)
{
	for (int i = 0; i < 5000; i++) {
		if (count_entries(kind, SHMB_MEMBER_ACTIVE) -
			    count_entries(kind, SHMB_MEMBER_ACTIVE | SHMB_MEMBER_KEPT) ==
		    wanted)
			return;
		usleep(1000);
	}
	ck_abort_msg("there are not %u members of kind %u", wanted, kind);
}

/* ---- one after the other ----------------------------------------------------------------------- */

/* A worker has 20, has taken 10 of them, and done every other one of these. */
static void give_20(const struct actor *publisher, const struct actor *worker)
{
	send_all(publisher, 0, 20);
	for (uint64_t id = 0; id < 10; id++) {
		struct answer answer = take(worker);

		ck_assert_uint_eq(answer.id, id);
		if (id % 2)
			finish(worker, &answer);
	}
}

static void inherit_20(const struct actor *heir)
{
	for (uint64_t id = 0; id < 20; id++)
		if (id >= 10 || id % 2 == 0)
			take_all(heir, id, id + 1, id < 10 ? 2 : 1);
	take_nothing(heir);
}

/* In which order the two go, whether they are killed, and whether the heir is there before. */
START_TEST(what_both_leave_an_heir_gets)
{
	bool worker_first = _i & 1, killed = _i & 2, early = _i & 4;
	struct actor publisher = start_publisher(), worker = start_worker(32), heir;
	struct actor *first = worker_first ? &worker : &publisher;
	struct actor *second = worker_first ? &publisher : &worker;

	give_20(&publisher, &worker);
	if (early)
		heir = start_worker(32);
	(killed ? kill_actor : end_actor)(first);
	await_members(worker_first ? SHMB_ENTRY_SUBSCRIBER : SHMB_ENTRY_PUBLISHER,
		      worker_first ? early : 0);
	if (!early)
		heir = start_worker(32);
	(killed ? kill_actor : end_actor)(second);
	inherit_20(&heir);
	keeps_nothing();
	end_actor(&heir);
}
END_TEST

/* Nobody is there for a while, but the channel is open, or retained. */
START_TEST(what_both_leave_waits_for_an_heir)
{
	struct actor publisher, worker, heir;
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel;

	open_flags |= _i ? SHMB_CHANNEL_RETAIN : 0;
	channel = queue_of(own);
	publisher = start_publisher();
	worker = start_worker(32);
	give_20(&publisher, &worker);
	if (_i)
		ok(shmb_channel_close(channel));
	kill_actor(&publisher);
	kill_actor(&worker);
	await_entries(SHMB_ENTRY_SUBSCRIBER, SHMB_MEMBER_KEPT, 1);
	keeps(1);
	restart_daemon();
	keeps(1);
	heir = start_worker(32);
	inherit_20(&heir);
	keeps_nothing();
	end_actor(&heir);
	if (_i)
		ok(shmb_channel_remove(own, "estate", 6));
	else
		ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}
END_TEST

START_TEST(without_anybody_it_goes)
{
	struct actor publisher = start_publisher(), worker = start_worker(32);

	give_20(&publisher, &worker);
	if (_i)
		restart_daemon();
	kill_actor(&publisher);
	kill_actor(&worker);
	/* Nobody is there who would hurry the broker. */
	for (int i = 0; i < 30000 && count_entries(SHMB_ENTRY_CHANNEL, 0); i++)
		usleep(1000);
	await_entries(SHMB_ENTRY_CHANNEL, 0, 0);
	keeps_nothing();
}
END_TEST

/* The publisher has given some of it to others when it dies: these come once. */
START_TEST(what_is_given_already_is_not_given_again)
{
	struct actor publisher = start_publisher(), worker = start_worker(32), heir;
	struct answer first = { .result = -EAGAIN };
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = queue_of(own);
	uint64_t seen = 0;

	give_20(&publisher, &worker);
	heir = start_worker(5);
	kill_actor(&worker);
	await_members(SHMB_ENTRY_SUBSCRIBER, 1);
	for (int i = 0; i < 5000 && first.result == -EAGAIN; i++) {
		ck_assert_int_eq(tell(&publisher, SETTLE, 0).result, -ETIMEDOUT);
		first = tell(&heir, TAKE, 0);
		usleep(1000);
	}
	ck_assert_int_ge(first.result, 0);
	seen |= 1 << first.id;
	if (_i)
		restart_daemon();
	kill_actor(&publisher);
	/* One is taken, and not done. */
	for (int i = 0; i < 14; i++) {
		struct answer answer = take(&heir);

		ck_assert_uint_lt(answer.id, 20);
		ck_assert(!(seen & 1 << answer.id));
		ck_assert(answer.id >= 10 || answer.id % 2 == 0);
		ck_assert_uint_eq(answer.attempt, answer.id < 10 ? 2 : 1);
		seen |= 1 << answer.id;
		finish(&heir, &answer);
	}
	take_nothing(&heir);
	/* That one is the next heir's. */
	kill_actor(&heir);
	heir = start_worker(5);
	take_all(&heir, first.id, first.id + 1, first.attempt + 1);
	take_nothing(&heir);
	keeps_nothing();
	end_actor(&heir);
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}
END_TEST

/* Each heir takes some, does one, and dies. */
START_TEST(heirs_of_heirs_inherit)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = queue_of(own);
	struct actor publisher = start_publisher(), worker = start_worker(32);

	send_all(&publisher, 0, 10);
	kill_actor(&publisher);
	for (uint32_t generation = 0; generation < 10; generation++) {
		struct answer answer = take(&worker);

		ck_assert_uint_eq(answer.id, generation);
		/* The one behind it was looked at by the one before. */
		ck_assert_uint_eq(answer.attempt, generation ? 2 : 1);
		finish(&worker, &answer);
		if (generation < 9)
			take(&worker);
		if (_i && generation % 4 == 3)
			restart_daemon();
		kill_actor(&worker);
		worker = start_worker(32);
	}
	take_nothing(&worker);
	keeps_nothing();
	end_actor(&worker);
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}
END_TEST

START_TEST(heirs_share)
{
	struct actor publisher = start_publisher(), worker = start_worker(64), heirs[3];
	uint64_t seen = 0;

	send_all(&publisher, 0, 30);
	for (int i = 0; i < 3; i++)
		heirs[i] = start_worker(1);
	kill_actor(&publisher);
	kill_actor(&worker);
	for (int i = 0; i < 30; i++) {
		struct answer answer = take(&heirs[i % 3]);

		ck_assert(!(seen & 1 << answer.id));
		seen |= 1 << answer.id;
		finish(&heirs[i % 3], &answer);
	}
	ck_assert_uint_eq(seen, (1 << 30) - 1);
	for (int i = 0; i < 3; i++)
		take_nothing(&heirs[i]);
	keeps_nothing();
	for (int i = 0; i < 3; i++)
		end_actor(&heirs[i]);
}
END_TEST

/* More publishers than the channel may have at once, and than there are slots for those who have gone. */
START_TEST(many_publishers_come_and_go)
{
	struct actor worker = start_worker(64), heir;
	unsigned n = 140, refused = 0;
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel = queue_of(own);
	struct shmb_publisher *publisher;
	bool seen[256] = { false };
	uint64_t n_sent = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t record[256] = { n_sent };

		if (shmb_publisher_open(channel, NULL, &publisher) == -EDQUOT) {
			refused++;
			continue;
		}
		ok(shmb_publisher_send(publisher, record, len_of(n_sent)));
		n_sent++;
		ok(shmb_publisher_close(publisher));
	}
	/* All slots but one. */
	ck_assert_uint_eq(n_sent, 127);
	ck_assert_uint_eq(refused, n - n_sent);
	heir = start_worker(64);
	kill_actor(&worker);
	for (uint64_t i = 0; i < n_sent; i++) {
		struct answer answer = take(&heir);

		ck_assert(!seen[answer.id]);
		seen[answer.id] = true;
		finish(&heir, &answer);
	}
	take_nothing(&heir);
	keeps_nothing();
	ok(shmb_publisher_open(channel, NULL, &publisher));
	ok(shmb_publisher_close(publisher));
	end_actor(&heir);
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
}
END_TEST

/* ---- all of it at random, against a model ------------------------------------------------------- */

#define WORKERS	   3
#define PUBLISHERS 2
#define IDS_MAX	   8192

struct held {
	uint64_t id;
	uint64_t job;
};

static struct {
	struct actor workers[WORKERS];
	struct actor publishers[PUBLISHERS];
	struct held held[WORKERS][IDS_MAX];
	uint32_t n_held[WORKERS];
	int8_t holder[IDS_MAX]; /* -1: nobody */
	bool done[IDS_MAX];
	uint32_t attempts[IDS_MAX];
	uint64_t n_ids;
	uint64_t n_done;
	uint32_t n_restarts;
} model;

static void forget_held(int i)
{
	for (uint32_t k = 0; k < model.n_held[i]; k++)
		model.holder[model.held[i][k].id] = -1;
	model.n_held[i] = 0;
}

static bool step_take(int i)
{
	struct answer answer = tell(&model.workers[i], TAKE, 0);

	if (answer.result == -EAGAIN)
		return false;
	ck_assert_int_ge(answer.result, 0);
	ck_assert_uint_lt(answer.id, model.n_ids);
	ck_assert_msg(!model.done[answer.id], "%llu was done", (unsigned long long)answer.id);
	ck_assert_msg(model.holder[answer.id] < 0, "%d and %d both have %llu",
		      model.holder[answer.id], i, (unsigned long long)answer.id);
	ck_assert_uint_eq(answer.attempt, ++model.attempts[answer.id]);
	model.holder[answer.id] = (int8_t)i;
	model.held[i][model.n_held[i]++] = (struct held){ answer.id, answer.job };
	return true;
}

static void step_end(int i, enum op op)
{
	uint32_t k;
	struct held held;

	if (!model.n_held[i])
		return;
	k = (uint32_t)rand() % model.n_held[i];
	held = model.held[i][k];
	ck_assert_int_eq(tell(&model.workers[i], op, held.job).result, 0);
	model.held[i][k] = model.held[i][--model.n_held[i]];
	model.holder[held.id] = -1;
	model.done[held.id] = op == DONE;
	model.n_done += op == DONE;
}

static void step_send(int p)
{
	if (model.n_ids == IDS_MAX)
		return;
	if (tell(&model.publishers[p], SEND, model.n_ids).result == 0)
		model.n_ids++;
}

static void go(struct actor *actor)
{
	(rand() % 2 ? kill_actor : end_actor)(actor);
}

static void drain(void);

/* Whoever goes, goes at once, or while there is no broker. */
static void step_deaths(void)
{
	bool away = rand() % 3 == 0;
	unsigned workers = (unsigned)rand() % (1 << WORKERS);
	unsigned publishers = (unsigned)rand() % (1 << PUBLISHERS);

	/* The channel has room for so many that have left work. */
	if (count_entries(SHMB_ENTRY_PUBLISHER, SHMB_MEMBER_KEPT) > 100)
		drain();
	if (away)
		kill_daemon();
	model.n_restarts += away;
	for (int i = 0; i < WORKERS; i++)
		if (workers & 1 << i) {
			(away ? kill_actor : go)(&model.workers[i]);
			forget_held(i);
		}
	for (int p = 0; p < PUBLISHERS; p++)
		if (publishers & 1 << p)
			(away ? kill_actor : go)(&model.publishers[p]);
	if (away)
		start_daemon();
	for (int p = 0; p < PUBLISHERS; p++)
		if (publishers & 1 << p)
			model.publishers[p] = start_publisher();
	for (int i = 0; i < WORKERS; i++)
		if (workers & 1 << i)
			model.workers[i] = start_worker(8);
}

static void step(void)
{
	int i = rand() % WORKERS, p = rand() % PUBLISHERS, what = rand() % 300;

	if (what < 130)
		step_send(p);
	else if (what < 210)
		step_take(i);
	else if (what < 270)
		step_end(i, DONE);
	else if (what < 290)
		step_end(i, FAIL);
	else if (what < 297)
		tell(&model.publishers[p], SETTLE, 0);
	else
		step_deaths();
}

static void drain(void)
{
	for (int idle = 0; model.n_done < model.n_ids && idle < 5000; idle++) {
		bool any = false;

		for (int p = 0; p < PUBLISHERS; p++)
			tell(&model.publishers[p], SETTLE, 0);
		for (int i = 0; i < WORKERS; i++) {
			while (step_take(i))
				any = true;
			while (model.n_held[i])
				step_end(i, DONE);
		}
		if (any)
			idle = 0;
		else
			usleep(1000);
	}
	for (uint64_t id = 0; id < model.n_ids; id++)
		ck_assert_msg(model.done[id], "%llu was lost", (unsigned long long)id);
}

START_TEST(nothing_is_lost_whoever_dies)
{
	struct shmb_client *own = connect_to(address);
	struct shmb_channel *channel;
	int steps = getenv("SHMB_TEST_QUICK") ? 1500 : 4000;
	unsigned seed = getenv("SHMB_TEST_SEED") ? (unsigned)atoi(getenv("SHMB_TEST_SEED"))
						 : (unsigned)time(NULL);

	printf("seed %u\n", seed);
	fflush(stdout);
	srand(seed);
	memset(&model, 0, sizeof(model));
	memset(model.holder, 0xff, sizeof(model.holder));
	/* So that all of them may be gone for a while. */
	open_flags |= SHMB_CHANNEL_RETAIN;
	channel = queue_of(own);
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(own));
	for (int i = 0; i < WORKERS; i++)
		model.workers[i] = start_worker(8);
	for (int p = 0; p < PUBLISHERS; p++)
		model.publishers[p] = start_publisher();
	for (int n = 0; n < steps; n++)
		step();
	drain();
	printf("%llu records, %llu done, %u restarts\n", (unsigned long long)model.n_ids,
	       (unsigned long long)model.n_done, model.n_restarts);
	for (int p = 0; p < PUBLISHERS; p++)
		end_actor(&model.publishers[p]);
	for (int i = 0; i < WORKERS; i++)
		end_actor(&model.workers[i]);
	keeps_nothing();
	own = connect_to(address);
	ok(shmb_channel_remove(own, "estate", 6));
	ok(shmb_client_close(own));
}
END_TEST

int main(void)
{
	TCase *cases[1] = { tcase_create("estate") };

	tcase_set_timeout(cases[0], 240);
	tcase_add_checked_fixture(cases[0], set_up_estate, tear_down_estate);
	tcase_add_loop_test(cases[0], what_both_leave_an_heir_gets, 0, 8);
	tcase_add_loop_test(cases[0], what_both_leave_waits_for_an_heir, 0, 2);
	tcase_add_loop_test(cases[0], without_anybody_it_goes, 0, 2);
	tcase_add_loop_test(cases[0], what_is_given_already_is_not_given_again, 0, 2);
	tcase_add_loop_test(cases[0], heirs_of_heirs_inherit, 0, 2);
	tcase_add_test(cases[0], heirs_share);
	tcase_add_test(cases[0], many_publishers_come_and_go);
	tcase_add_test(cases[0], nothing_is_lost_whoever_dies);
	return run_suite("estate", cases, 1);
}
