/* SPDX-License-Identifier: Apache-2.0 */

/* What the tests with a hostile process share. */

#include "tests/hostile/hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/clock.h"

#define CALL_NS_MAX 100000000ull
#define N_ROUNDS    4u

struct order {
	uint32_t number;
	char address[128];
};

static const char *testing = "";
static pid_t evil_pid;
static int order_fd, result_fd;
static uint64_t random_state = 88172645463325252ull;
static uint64_t began, calls;

void fail(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "%s: ", testing);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	exit(EXIT_FAILURE);
}

int32_t must(int32_t result, const char *what)
{
	char why[512] = "";

	if (result >= 0)
		return result;
	shmb_last_error(why, sizeof(why));
	fail("%s: %d: %s", what, result, why);
}

void now_testing(const char *attack)
{
	testing = attack;
}

uint64_t random_u64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static void be_evil(char (*attack)(const char *address, uint32_t number), int from, int to)
{
	struct order order;
	char result;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	testing = "hostile process";
	while (read(from, &order, sizeof(order)) == sizeof(order)) {
		result = attack(order.address, order.number);
		if (write(to, &result, 1) != 1)
			break;
	}
	_exit(EXIT_SUCCESS);
}

void evil_start(char (*attack)(const char *address, uint32_t number))
{
	int orders[2], results[2];

	if (pipe2(orders, O_CLOEXEC) < 0 || pipe2(results, O_CLOEXEC | O_NONBLOCK) < 0)
		fail("pipe: %s", strerror(errno));
	evil_pid = fork();
	if (evil_pid == 0) {
		close(orders[1]);
		be_evil(attack, orders[0], results[1]);
	}
	close(orders[0]);
	close(results[1]);
	order_fd = orders[1];
	result_fd = results[0];
}

void evil_attack(const char *address, uint32_t number)
{
	struct order order = { .number = number };

	snprintf(order.address, sizeof(order.address), "%s", address);
	if (write(order_fd, &order, sizeof(order)) != sizeof(order))
		fail("the hostile process has gone");
}

char evil_result(void)
{
	char result = 0;
	ssize_t n = read(result_fd, &result, 1);

	if (n == 0)
		fail("the hostile process has gone");
	return n == 1 ? result : 0;
}

void evil_stop(void)
{
	int status;

	close(order_fd);
	if (waitpid(evil_pid, &status, 0) != evil_pid || status != 0)
		fail("the hostile process ended with status 0x%x", (unsigned int)status);
}

struct shmb_client *connect_client(const char *address)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = address,
					       .address_len = (uint32_t)strlen(address) };
	struct shmb_client *client = NULL;

	must(shmb_client_open(&options, &client), "connect");
	return client;
}

struct shmb_channel *open_channel(struct shmb_client *client)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = LANE_LEN };
	struct shmb_channel *channel = NULL;

	must(shmb_channel_open(client, CHANNEL, (uint32_t)strlen(CHANNEL), &options, &channel),
	     "channel");
	return channel;
}

void fill_honest(struct honest *record, uint64_t number)
{
	record->number = number;
	for (uint64_t i = 0; i < 6; i++)
		record->mixed[i] = (number + i + 1) * 0x9e3779b97f4a7c15ull;
}

bool is_honest(const struct honest *record, uint64_t number)
{
	struct honest wanted;

	fill_honest(&wanted, number);
	return !memcmp(record, &wanted, sizeof(wanted));
}

/* Not the time of day: other processes want the processor, too. */
static uint64_t processor_time_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void call_begins(void)
{
	began = processor_time_ns();
}

void call_ends(const char *what)
{
	uint64_t took = processor_time_ns() - began;

	calls++;
	if (took > CALL_NS_MAX)
		fail("%s took %llu us", what, (unsigned long long)took / 1000);
}

uint64_t n_calls(void)
{
	return calls;
}

char evil_scribble(struct shmb_member *member, void (*scribble)(void *handle), void *handle,
		   uint64_t for_ns)
{
	uint64_t end = shmb_clock_now_ns() + for_ns;

	while (shmb_clock_now_ns() < end) {
		for (uint32_t n = 0; n < 64; n++)
			scribble(handle);
		if (shmb_member_enter(member) == -ESTALE)
			return EVIL_EVICTED;
	}
	return EVIL_GAVE_UP;
}

char evil_leave(struct shmb_client *client, struct shmb_channel *channel,
		struct shmb_publisher *publisher, struct shmb_subscriber *subscriber, char result)
{
	shmb_subscriber_close(subscriber);
	shmb_publisher_close(publisher);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return result;
}

void honest_begin(struct honest_side *side, char (*attack)(const char *address, uint32_t number),
		  struct shmb_channel *(*open)(struct shmb_client *client), bool lossy)
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options),
						   .flags = SHMB_SUBSCRIBER_LOSSY };

	evil_start(attack);
	must(shmb_broker_start(NULL, &side->broker), "broker");
	side->client = connect_client(shmb_broker_address(side->broker));
	side->channel = open(side->client);
	must(shmb_publisher_open(side->channel, NULL, &side->publisher), "publisher");
	must(shmb_subscriber_open(side->channel, NULL, &side->subscribers[0]), "subscriber");
	if (lossy)
		must(shmb_subscriber_open(side->channel, &options, &side->subscribers[1]),
		     "lossy subscriber");
}

/* SHMB_TEST_QUICK=1: one round instead of several. */
static uint32_t n_rounds(void)
{
	const char *quick = getenv("SHMB_TEST_QUICK");

	return quick && !strcmp(quick, "1") ? 1 : N_ROUNDS;
}

void honest_withstand(struct honest_side *side, uint32_t n,
		      void (*withstand)(struct honest_side *side, uint32_t number))
{
	for (uint32_t round = n_rounds(); round > 0; round--)
		for (uint32_t i = 0; i < n; i++)
			withstand(side, i);
}

void honest_end(struct honest_side *side)
{
	evil_stop();
	must(shmb_client_ping(side->client, 5000000000), "the broker has died");
	for (int i = 0; i < 2; i++)
		must(shmb_subscriber_close(side->subscribers[i]), "close");
	must(shmb_publisher_close(side->publisher), "close");
	must(shmb_channel_close(side->channel), "close");
	must(shmb_client_close(side->client), "close");
	must(shmb_broker_stop(side->broker), "stop");
}
