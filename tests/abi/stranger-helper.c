/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What stranger.py reads: a broker in the directory argv[1], a publisher of numbered records, and a
 * reliable subscriber. It prints "ready", publishes after a line on stdin, and ends with stdin.
 */

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <shmbroker/shmbroker.h>

#define N_RECORDS  50000u
#define LANE_LEN   (1u << 16)
#define RECORD_MAX 4096u
#define END_TYPE   0xffffu
#define NAME	   "stranger/numbers"

static void try(int32_t result, const char *what)
{
	char text[256];

	if (result >= 0)
		return;
	shmb_last_error(text, sizeof(text));
	fprintf(stderr, "%s: %s\n", what, text);
	exit(1);
}

/* Reads to the end record, and checks that nothing is missing. */
static void *receive(void *subscriber)
{
	uint8_t data[RECORD_MAX];
	uint64_t number, expected = 0;
	struct shmb_view *view = shmb_subscriber_view(subscriber);

	for (;;) {
		int32_t len = shmb_subscriber_recv(subscriber, data, sizeof(data));

		if (len == -EAGAIN) {
			try(shmb_subscriber_wait(subscriber, SHMB_FOREVER), "wait");
			continue;
		}
		try(len, "receive");
		memcpy(&number, data, sizeof(number));
		if (number != expected++) {
			fprintf(stderr, "a record is missing\n");
			exit(1);
		}
		if (view->type == END_TYPE)
			return NULL;
	}
}

static void publish(struct shmb_publisher *publisher)
{
	struct timespec pause = { .tv_nsec = 2000000 };
	uint8_t data[RECORD_MAX];

	for (uint64_t i = 0; i <= N_RECORDS; i++) {
		uint32_t len = i < N_RECORDS ? 8 + (uint32_t)(i * 37 % 3001) : 8;
		uint32_t type = i < N_RECORDS ? (uint32_t)i & 0xfff : END_TYPE;
		int32_t result;

		memset(data, (int)(i & 0xff), sizeof(data));
		memcpy(data, &i, sizeof(i));
		while ((result = shmb_publisher_send_typed(publisher, data, len, type)) == -EAGAIN)
			try(shmb_publisher_wait(publisher, len, SHMB_FOREVER), "wait for space");
		try(result, "send");
		/* Let the stranger catch up now and then, also before the end. */
		if (i % 250 == 0 || i + 20 > N_RECORDS)
			nanosleep(&pause, NULL);
	}
}

int main(int argc, char **argv)
{
	struct shmb_broker_options at = { .options_len = sizeof(at), .directory = argv[1] };
	struct shmb_client_options with = { .options_len = sizeof(with) };
	struct shmb_channel_options small = { .options_len = sizeof(small),
					      .flags = SHMB_CHANNEL_CREATE,
					      .lane_len = LANE_LEN,
					      .max_publishers = 3,
					      .max_subscribers = 5,
					      .history = 7 };
	struct shmb_broker *broker;
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscriber;
	pthread_t thread;

	if (argc != 2)
		return 64;
	try(shmb_broker_start(&at, &broker), "broker");
	with.address = shmb_broker_address(broker);
	with.address_len = (uint32_t)strlen(with.address);
	try(shmb_client_open(&with, &client), "client");
	try(shmb_channel_open(client, NAME, sizeof(NAME) - 1, &small, &channel), "channel");
	try(shmb_subscriber_open(channel, NULL, &subscriber), "subscriber");
	try(shmb_publisher_open(channel, NULL, &publisher), "publisher");
	puts("ready");
	fflush(stdout);
	if (getchar() == EOF)
		return 1;
	pthread_create(&thread, NULL, receive, subscriber);
	publish(publisher);
	pthread_join(thread, NULL);
	while (getchar() != EOF)
		;
	try(shmb_publisher_close(publisher), "close");
	try(shmb_subscriber_close(subscriber), "close");
	try(shmb_channel_close(channel), "close");
	try(shmb_client_close(client), "close");
	try(shmb_broker_stop(broker), "stop");
	return 0;
}
