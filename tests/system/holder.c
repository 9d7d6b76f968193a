/* SPDX-License-Identifier: Apache-2.0 */

/*
 * holder CHANNEL [LANE_LEN [sealed]]: keep a typed channel open until stdin ends, so that scripts
 * can publish and receive on it. Prints "ready" when it is there.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shmbroker/schema.h>
#include <shmbroker/shmbroker.h>

struct point {
	int32_t x, y;
};
struct order {
	uint64_t id;
	double price;
	float ratio;
	int16_t delta[4];
	char side[8];
	struct point at;
	_Bool live;
	uint8_t kind;
	uint8_t rest[6];
};
SHMB_SCHEMA(schema, struct order, "test.order", SHMB_FIELD(struct order, id),
	    SHMB_FIELD(struct order, price), SHMB_FIELD(struct order, ratio),
	    SHMB_ARRAY(struct order, delta), SHMB_ARRAY(struct order, side),
	    SHMB_STRUCT(struct order, at), SHMB_FIELD_IN(5, struct point, x),
	    SHMB_FIELD_IN(5, struct point, y), SHMB_FIELD(struct order, live),
	    SHMB_FIELD(struct order, kind), SHMB_ARRAY(struct order, rest));

int main(int argc, char **argv)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.schema = &schema,
						.schema_len = sizeof(schema),
						.lane_len = argc > 2 ? atoi(argv[2]) : 0,
						.backing = argc > 3 ? SHMB_BACKING_SEALED
								    : SHMB_BACKING_AUTO };
	struct shmb_channel *channel;
	struct shmb_client *client;
	char why[256] = "";
	char line[64];

	if (argc < 2 || shmb_client_open(NULL, &client) < 0 ||
	    shmb_channel_open(client, argv[1], strlen(argv[1]), &options, &channel) < 0) {
		shmb_last_error(why, sizeof(why));
		fprintf(stderr, "holder: %s\n", why);
		return 1;
	}
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		;
	shmb_channel_close(channel);
	shmb_client_close(client);
	return 0;
}
