/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Receives a file that is streamed as records, and checks every byte against the source:
 *
 *	type 1	u64 bytes of the file, 32 bytes SHA-256 of it
 *	type 2	the next bytes
 *	type 3	the end
 *
 * Usage: receive-file CHANNEL SOURCE. The exit code is 0 if all bytes came and were right.
 */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include <shmbroker/shmbroker.h>

#define TYPE_HEADER 1
#define TYPE_DATA   2
#define TYPE_END    3

struct transfer {
	FILE *source;
	crypto_hash_sha256_state hash;
	uint64_t expected_len;
	uint8_t expected_hash[crypto_hash_sha256_BYTES];
	uint64_t len;
	uint64_t records;
	bool begun;
	bool ended;
};

static void fail(const char *what)
{
	char why[256] = "";

	shmb_last_error(why, sizeof(why));
	fprintf(stderr, "receive-file: %s: %s\n", what, why);
	exit(1);
}

static void wrong(const char *what, uint64_t at)
{
	fprintf(stderr, "receive-file: %s at byte %llu\n", what, (unsigned long long)at);
	exit(1);
}

static void take(struct transfer *transfer, uint32_t type, const uint8_t *data, uint32_t len)
{
	static uint8_t from_source[65536];

	switch (type) {
	case TYPE_HEADER:
		if (len != 8 + sizeof(transfer->expected_hash))
			wrong("a header of the wrong length", 0);
		memcpy(&transfer->expected_len, data, 8);
		memcpy(transfer->expected_hash, data + 8, sizeof(transfer->expected_hash));
		transfer->begun = true;
		break;
	case TYPE_DATA:
		if (!transfer->begun || len > sizeof(from_source))
			wrong("data before the header, or too much of it", transfer->len);
		if (fread(from_source, 1, len, transfer->source) != len ||
		    memcmp(from_source, data, len))
			wrong("other bytes than in the source", transfer->len);
		crypto_hash_sha256_update(&transfer->hash, data, len);
		transfer->len += len;
		transfer->records++;
		break;
	case TYPE_END:
		transfer->ended = true;
		break;
	default:
		wrong("a record of unknown type", transfer->len);
	}
}

static void receive(struct shmb_subscriber *subscriber, struct transfer *transfer)
{
	const struct shmb_view *view = shmb_subscriber_view(subscriber);
	static uint8_t data[65536];

	while (!transfer->ended) {
		int32_t len = shmb_subscriber_recv(subscriber, data, sizeof(data));

		if (len == -EAGAIN) {
			/* The publisher may take its time to start, but not to go on. */
			if (shmb_subscriber_wait(subscriber,
						 transfer->begun ? 10000000000 : 60000000000) < 0)
				fail("wait");
			continue;
		}
		if (len < 0)
			fail("receive");
		take(transfer, view->type, data, (uint32_t)len);
	}
}

int main(int argc, char **argv)
{
	struct transfer transfer = { 0 };
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_subscriber *subscriber;
	struct shmb_subscriber_stats stats;
	uint8_t hash[crypto_hash_sha256_BYTES];
	char hex[2 * sizeof(hash) + 1];

	if (argc != 3) {
		fprintf(stderr, "usage: receive-file CHANNEL SOURCE\n");
		return 2;
	}
	transfer.source = fopen(argv[2], "re");
	if (!transfer.source) {
		fprintf(stderr, "receive-file: %s: %s\n", argv[2], strerror(errno));
		return 1;
	}
	crypto_hash_sha256_init(&transfer.hash);
	if (shmb_client_open(NULL, &client) < 0)
		fail("connect");
	if (shmb_channel_open(client, argv[1], (uint32_t)strlen(argv[1]), NULL, &channel) < 0)
		fail(argv[1]);
	if (shmb_subscriber_open(channel, NULL, &subscriber) < 0)
		fail("subscribe");

	receive(subscriber, &transfer);

	crypto_hash_sha256_final(&transfer.hash, hash);
	sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash));
	shmb_subscriber_stats(subscriber, &stats, sizeof(stats));
	if (transfer.len != transfer.expected_len || stats.lost ||
	    memcmp(hash, transfer.expected_hash, sizeof(hash)))
		wrong("the file differs", transfer.len);
	printf("C subscriber: %llu bytes in %llu records, every byte equal to the source, %llu lost\n"
	       "C subscriber: sha256 %s\n",
	       (unsigned long long)transfer.len, (unsigned long long)transfer.records,
	       (unsigned long long)stats.lost, hex);
	fclose(transfer.source);
	shmb_subscriber_close(subscriber);
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
