/* SPDX-License-Identifier: Apache-2.0 */

/* A program as a user writes it, built by installed.sh against an installed library. */

#include <stdio.h>
#include <string.h>

#include <shmbroker/schema.h>
#include <shmbroker/shmbroker.h>

struct tick {
	uint64_t time_ns;
	double price;
};

SHMB_SCHEMA(tick_schema, struct tick, "test.tick", SHMB_FIELD(struct tick, time_ns),
	    SHMB_FIELD(struct tick, price));

#define TRY(call)                                                  \
	do {                                                       \
		int32_t result_ = (call);                          \
		if (result_ < 0) {                                 \
			char text_[256];                           \
			shmb_last_error(text_, sizeof(text_));     \
			fprintf(stderr, "%s: %s\n", #call, text_); \
			return 1;                                  \
		}                                                  \
	} while (0)

int main(void)
{
	struct shmb_client_options at = { .options_len = sizeof(at) };
	struct shmb_channel_options typed = { .options_len = sizeof(typed),
					      .flags = SHMB_CHANNEL_CREATE,
					      .schema = &tick_schema,
					      .schema_len = sizeof(tick_schema) };
	struct tick sent = { 1, 2.5 }, got = { 0, 0 };
	struct shmb_broker *broker;
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscriber;

	if (strcmp(shmb_version(), SHMB_VERSION_STRING) != 0 ||
	    shmb_abi_version() != SHMB_ABI_VERSION) {
		fprintf(stderr, "header %s, library %s\n", SHMB_VERSION_STRING, shmb_version());
		return 1;
	}
	TRY(shmb_broker_start(NULL, &broker));
	at.address = shmb_broker_address(broker);
	at.address_len = (uint32_t)strlen(at.address);
	TRY(shmb_client_open(&at, &client));
	TRY(shmb_channel_open(client, "test/ticks", 10, &typed, &channel));
	TRY(shmb_subscriber_open(channel, NULL, &subscriber));
	TRY(shmb_publisher_open(channel, NULL, &publisher));
	TRY(shmb_publisher_send(publisher, &sent, sizeof(sent)));
	TRY(shmb_subscriber_wait(subscriber, 5000000000));
	TRY(shmb_subscriber_recv(subscriber, &got, sizeof(got)));
	TRY(shmb_publisher_close(publisher));
	TRY(shmb_subscriber_close(subscriber));
	TRY(shmb_channel_close(channel));
	TRY(shmb_client_close(client));
	TRY(shmb_broker_stop(broker));
	return memcmp(&sent, &got, sizeof(sent)) ? 1 : 0;
}
