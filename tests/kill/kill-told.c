/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if the broker is killed when it could not tell a subscriber yet where its publisher goes on?
 *
 * A sealed channel's memory goes with the broker, so both have to move when another one has come. The
 * subscriber has, but does not listen any more: its control socket is full. Then the publisher is not
 * told either that it may move, and goes on where it is read. So when the broker is killed now, all of
 * its records come without a broker, in order, and after the next one has come, too.
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/bell.h"
#include "lib/client.h"
#include "lib/clock.h"

#include "tests/kill/world.h"

#define PATIENCE_NS 10000000000ull
#define PING_NS	    20000000000ll
#define N_CLOGS_MAX 5000u
#define N_SENT	    20u

static struct step_row row = { .name = "a publisher that must not move",
			       .min = { [STEP_KILL] = 2 } };
static struct step step;

/* One side of the sealed channel; the reader publishes on another one, which makes its socket full. */
static struct {
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_channel *apart;
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscriber;
	uint64_t n;
} reader, writer;

static void begin(void)
{
	reader.client = world_connect();
	reader.channel = world_open_sealed(reader.client);
	reader.apart = world_open_apart(reader.client);
	world_must(shmb_publisher_open(reader.apart, NULL, &reader.publisher), "publish, apart");
	world_must(shmb_subscriber_open(reader.channel, NULL, &reader.subscriber), "subscribe");
	writer.client = world_connect();
	writer.channel = world_open_sealed(writer.client);
	writer.apart = world_open_apart(writer.client);
	world_must(shmb_publisher_open(writer.channel, NULL, &writer.publisher), "publish");
}

static void end(void)
{
	world_must(shmb_publisher_close(writer.publisher), "close publisher");
	world_must(shmb_subscriber_close(reader.subscriber), "close subscriber");
	world_must(shmb_publisher_close(reader.publisher), "close publisher, apart");
	world_must(shmb_channel_close(writer.apart), "close channel, apart");
	world_must(shmb_channel_close(reader.apart), "close channel, apart");
	world_must(shmb_channel_close(writer.channel), "close channel");
	world_must(shmb_channel_close(reader.channel), "close channel");
	world_must(shmb_client_close(writer.client), "close client");
	world_must(shmb_client_close(reader.client), "close client");
}

static void send_some(void)
{
	for (uint32_t i = 0; i < N_SENT; i++, writer.n++) {
		struct world_record record = { writer.n, world_mix(writer.n) };

		world_must(shmb_publisher_send(writer.publisher, &record, sizeof(record)), "send");
		usleep(1000);
	}
}

/* All that was sent, and a look at what the broker says. */
static void receive_all(void)
{
	uint64_t until = shmb_clock_now_ns() + PATIENCE_NS;

	for (;;) {
		struct world_record record;
		int32_t result = shmb_subscriber_recv(reader.subscriber, &record, sizeof(record));

		if (result == -EAGAIN && reader.n == writer.n)
			return;
		if (result == -EAGAIN && shmb_clock_now_ns() < until) {
			usleep(200);
			continue;
		}
		world_must(result, "receive");
		if (record.number != reader.n || record.mixed != world_mix(record.number))
			step_fail(&step, "record %llu came, not %llu",
				  (unsigned long long)record.number, (unsigned long long)reader.n);
		reader.n++;
	}
}

static void kill_broker(void)
{
	kill(world.broker_pid, SIGKILL);
	if (waitpid(world.broker_pid, NULL, 0) != world.broker_pid)
		step_fail(&step, "no broker to kill");
	row.n[STEP_KILL]++;
}

static void start_broker(void)
{
	world_start_broker(&(struct world_broker){ .uring = true });
	world_ping();
}

/* Subscribers of its own channel come and go, until the broker can say nothing more to it. */
static void clog_reader(void)
{
	const struct shmb_client *client = reader.client;
	struct shmb_subscriber *subscriber = NULL;

	for (uint32_t i = 0;
	     SHMB_LOAD_ACQUIRE(&client->bell->backlog) != shmb_bell_backlog(client->broker_epoch);
	     i++) {
		if (i == N_CLOGS_MAX)
			step_fail(&step, "the reader's socket does not get full");
		world_must(shmb_subscriber_open(writer.apart, NULL, &subscriber), "crowd");
		world_must(shmb_subscriber_close(subscriber), "crowd");
		world_must(shmb_client_ping(writer.client, PING_NS), "ping");
	}
}

int main(void)
{
	world_begin(&step);
	snprintf(step.scenario, sizeof(step.scenario), "with its first broker");
	world_start_broker(&(struct world_broker){ .uring = true });
	world_open_pair();
	begin();
	send_some();
	receive_all();
	kill_broker();
	start_broker();
	/* It comes back, and has another cursor then. The writer only comes back: it does not look. */
	world_must(shmb_client_ping(reader.client, PING_NS), "ping");
	receive_all();
	world_must(shmb_client_ping(writer.client, PING_NS), "ping");
	clog_reader();
	snprintf(step.scenario, sizeof(step.scenario), "while the reader cannot be told");
	send_some();
	kill_broker();
	snprintf(step.scenario, sizeof(step.scenario), "without a broker");
	send_some();
	receive_all();
	start_broker();
	snprintf(step.scenario, sizeof(step.scenario), "with the next broker");
	world_must(shmb_client_ping(reader.client, PING_NS), "ping");
	world_must(shmb_client_ping(writer.client, PING_NS), "ping");
	send_some();
	receive_all();
	end();
	world_close_pair();
	world_stop_broker(world.broker_pid);
	world_end();
	step_table("kill-told", &row, 1, 1);
	return EXIT_SUCCESS;
}
