/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One side of a lane or of a channel, built for several machines: processes of all of them share
 * one segment. scripts/cross brings them together.
 *
 *	peer make DIR			segments as a broker of this machine makes them
 *	peer publish DIR RECORDS READERS
 *	peer read DIR SLOT RECORDS
 *	peer refused DIR		by the byte order of the lane
 *	peer send ADDRESS RECORDS
 *	peer recv ADDRESS RECORDS
 *	peer differ ADDRESS		the channel has a record that this machine lays out otherwise
 *	peer huge			a lane longer than the address space has room for
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <shmbroker/schema.h>
#include <shmbroker/shmbroker.h>
#include <shmbroker/version.h>

#include "lib/bell.h"
#include "lib/map.h"

#define LANE_LEN    (1u << 14)
#define LANE_ID	    7u
#define CURSOR_ID   100u
#define PATIENCE_NS 60000000000ll
#define READERS_MAX 4u

/* What every ABI of a mixed machine should lay out alike, and what not. */
struct tick {
	uint64_t time_ns;
	uint32_t count;
	uint16_t parts[2];
	double price;
};
SHMB_SCHEMA(tick_schema, struct tick, "cross.tick", SHMB_FIELD(struct tick, time_ns),
	    SHMB_FIELD(struct tick, count), SHMB_ARRAY(struct tick, parts),
	    SHMB_FIELD(struct tick, price));

struct shifted {
	uint32_t count;
	uint64_t time_ns;
};
SHMB_SCHEMA(shifted_schema, struct shifted, "cross.shifted", SHMB_FIELD(struct shifted, count),
	    SHMB_FIELD(struct shifted, time_ns));

static void die(const char *what)
{
	char why[512] = "";

	shmb_last_error(why, sizeof(why));
	fprintf(stderr, "peer, %zu bit: %s: %s\n", sizeof(void *) * 8, what,
		*why ? why : strerror(errno));
	exit(EXIT_FAILURE);
}

static int32_t must(int32_t result, const char *what)
{
	if (result < 0)
		die(what);
	return result;
}

/* Let the others run, but not for ever. */
static void pause_until(uint64_t *deadline_ns)
{
	struct timespec now;
	uint64_t now_ns;

	clock_gettime(CLOCK_MONOTONIC, &now);
	now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	if (!*deadline_ns)
		*deadline_ns = now_ns + PATIENCE_NS;
	if (now_ns > *deadline_ns)
		die("nothing happens");
	usleep(1);
}

/* ---- one lane, without a broker ----------------------------------------------------------------- */

static uint32_t record_len(uint64_t number)
{
	return (uint32_t)(number * 37 % 1500);
}

/* The same on every machine, whatever its byte order. */
static void record_fill(uint8_t *bytes, uint64_t number, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(number * 31 + i * 7 + (number >> 8));
}

static int open_at(const char *dir, const char *name, int flags)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, flags | O_CLOEXEC, 0600);
	if (fd < 0)
		die(path);
	return fd;
}

static void make_segment(const char *dir, const char *name, uint32_t kind, uint64_t id,
			 uint64_t len)
{
	struct shmb_segment_header header = { .magic = SHMB_SEGMENT_MAGIC,
					      .byte_order = SHMB_BYTE_ORDER,
					      .version = SHMB_LAYOUT_VERSION,
					      .kind = kind,
					      .block_len = SHMB_BLOCK_LEN,
					      .segment_len = len,
					      .segment_id = id };
	int fd = open_at(dir, name, O_RDWR | O_CREAT | O_EXCL);

	if (ftruncate(fd, (off_t)len) < 0 ||
	    pwrite(fd, &header, sizeof(header), 0) != sizeof(header))
		die("a segment");
	close(fd);
}

static void cursor_name(char name[24], unsigned slot)
{
	snprintf(name, 24, "cursor-%u", slot);
}

static void make(const char *dir)
{
	char name[24];

	make_segment(dir, "lane", SHMB_SEGMENT_LANE, LANE_ID, SHMB_BLOCK_LEN + LANE_LEN);
	for (unsigned slot = 0; slot < READERS_MAX; slot++) {
		cursor_name(name, slot);
		make_segment(dir, name, SHMB_SEGMENT_CURSOR, CURSOR_ID + slot,
			     SHMB_BLOCK_LEN + sizeof(struct shmb_cursor_lane));
	}
}

/* As from a grant. */
static int map_segment(struct shmb_map *map, const char *dir, const char *name, uint32_t kind,
		       uint64_t id, int writable)
{
	int fd = open_at(dir, name, writable ? O_RDWR : O_RDONLY), result;
	struct shmb_fd_descriptor descriptor = {
		.kind = SHMB_FD_SHM,
		.access = writable ? SHMB_FD_READ_WRITE : SHMB_FD_READ,
		.segment_id = id,
	};
	struct stat status;

	if (fstat(fd, &status) < 0)
		die(name);
	descriptor.st_dev = status.st_dev;
	descriptor.st_ino = status.st_ino;
	descriptor.segment_len = (uint64_t)status.st_size;
	descriptor.owner_uid = status.st_uid;
	descriptor.mode = status.st_mode & 07777;
	result = writable ? shmb_map_writer(map, fd, &descriptor, kind)
			  : shmb_map_reader(map, fd, &descriptor, kind);
	close(fd);
	return result;
}

static const struct shmb_cursor_lane *reader_slot(const struct shmb_map *cursor)
{
	return (const void *)((const uint8_t *)cursor->base + SHMB_BLOCK_LEN);
}

static void publish(const char *dir, uint64_t n_records, unsigned n_readers)
{
	struct shmb_map lane, cursors[READERS_MAX];
	struct shmb_lane_writer writer;
	uint64_t deadline = 0;
	char name[24];

	must(map_segment(&lane, dir, "lane", SHMB_SEGMENT_LANE, LANE_ID, 1), "the lane");
	for (unsigned i = 0; i < n_readers; i++) {
		cursor_name(name, i);
		must(map_segment(&cursors[i], dir, name, SHMB_SEGMENT_CURSOR, CURSOR_ID + i, 0),
		     name);
	}
	shmb_lane_writer_init(&writer, lane.base, LANE_LEN);
	writer.limit = 0;
	for (uint64_t number = 0; number < n_records;) {
		uint32_t len = record_len(number);
		uint8_t *payload = shmb_lane_claim(&writer, len);

		if (payload) {
			record_fill(payload, number, len);
			shmb_lane_commit(&writer, len, (uint32_t)number, 0);
			number++;
			deadline = 0;
			continue;
		}
		writer.limit = UINT64_MAX;
		for (unsigned i = 0; i < n_readers; i++) {
			uint64_t end =
				shmb_cursor_position(reader_slot(&cursors[i])) + LANE_LEN - 8;

			if (end < writer.limit)
				writer.limit = end;
		}
		pause_until(&deadline);
	}
}

static void read_lane(const char *dir, unsigned slot, uint64_t n_records)
{
	static uint8_t expected[LANE_LEN];
	struct shmb_map lane, cursor;
	struct shmb_lane_reader reader;
	struct shmb_cursor_lane *own;
	uint64_t deadline = 0;
	char name[24];

	cursor_name(name, slot);
	must(map_segment(&lane, dir, "lane", SHMB_SEGMENT_LANE, LANE_ID, 0), "the lane");
	must(map_segment(&cursor, dir, name, SHMB_SEGMENT_CURSOR, CURSOR_ID + slot, 1), name);
	own = (void *)((uint8_t *)cursor.base + SHMB_BLOCK_LEN);
	shmb_lane_reader_init(&reader, lane.base, LANE_LEN, 0, 0);
	for (uint64_t number = 0; number < n_records;) {
		struct shmb_record record;
		int result = shmb_lane_peek(&reader, &record);

		if (result < 0)
			die("the lane's bytes are no records");
		if (result == 0) {
			pause_until(&deadline);
			continue;
		}
		record_fill(expected, number, record_len(number));
		if (record.len != record_len(number) || record.type != (number & 0xffff) ||
		    memcmp(record.data, expected, record.len) != 0) {
			fprintf(stderr, "record %llu is wrong\n", (unsigned long long)number);
			exit(EXIT_FAILURE);
		}
		shmb_lane_skip(&reader, &record);
		shmb_cursor_store(own, reader.position, reader.sequence);
		number++;
		deadline = 0;
	}
}

static void refused(const char *dir)
{
	struct shmb_map lane;
	char why[512] = "";

	if (map_segment(&lane, dir, "lane", SHMB_SEGMENT_LANE, LANE_ID, 0) != -EBADMSG)
		die("a lane of another byte order is not refused");
	shmb_last_error(why, sizeof(why));
	if (!strstr(why, "another byte order"))
		die("what was said of a lane of another byte order");
}

/* ---- one channel, through a broker -------------------------------------------------------------- */

static struct shmb_client *connect_to(const char *address)
{
	struct shmb_client_options options = { .options_len = sizeof(options),
					       .address = address,
					       .address_len = (uint32_t)strlen(address) };
	struct shmb_client *client = NULL;

	must(shmb_client_open(&options, &client), "the client");
	return client;
}

static int32_t open_channel(struct shmb_client *client, const char *name, const void *schema,
			    uint32_t schema_len, uint32_t lane_len, struct shmb_channel **channel)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = lane_len,
						.schema = schema,
						.schema_len = schema_len };

	return shmb_channel_open(client, name, (uint32_t)strlen(name), &options, channel);
}

static struct tick tick_of(uint32_t number)
{
	return (struct tick){ .time_ns = 0x0102030405060708ull * number,
			      .count = number,
			      .parts = { (uint16_t)number, (uint16_t)~number },
			      .price = number / 4.0 };
}

static void send_ticks(struct shmb_channel *channel, uint32_t n_records, uint32_t n_readers)
{
	struct shmb_publisher *publisher;

	must(shmb_publisher_open(channel, NULL, &publisher), "the publisher");
	must(shmb_channel_wait_members(channel, 1, n_readers, PATIENCE_NS), "the readers");
	for (uint32_t i = 0; i < n_records; i++) {
		struct tick tick = tick_of(i);

		must(shmb_publisher_send_wait(publisher, &tick, sizeof(tick), PATIENCE_NS),
		     "sending");
	}
	/* The readers go when they have all. */
	for (uint64_t deadline = 0; shmb_channel_wait_members(channel, 0, 1, 0) == 0;)
		pause_until(&deadline);
	must(shmb_publisher_close(publisher), "closing");
}

static void recv_ticks(struct shmb_channel *channel, uint32_t n_records)
{
	struct shmb_subscriber *subscriber;

	must(shmb_subscriber_open(channel, NULL, &subscriber), "the subscriber");
	for (uint32_t i = 0; i < n_records; i++) {
		struct tick tick, expected = tick_of(i);

		must(shmb_subscriber_wait(subscriber, PATIENCE_NS), "waiting");
		must(shmb_subscriber_recv(subscriber, &tick, sizeof(tick)), "receiving");
		if (memcmp(&tick, &expected, sizeof(tick)) != 0) {
			fprintf(stderr, "record %u is wrong\n", i);
			exit(EXIT_FAILURE);
		}
	}
	must(shmb_subscriber_close(subscriber), "closing");
}

static void stream(const char *address, int sends, uint32_t n_records, uint32_t n_readers)
{
	struct shmb_client *client = connect_to(address);
	struct shmb_channel *channel;

	must(open_channel(client, "cross/tick", &tick_schema, sizeof(tick_schema), LANE_LEN,
			  &channel),
	     "the channel");
	if (sends)
		send_ticks(channel, n_records, n_readers);
	else
		recv_ticks(channel, n_records);
	must(shmb_channel_close(channel), "closing");
	must(shmb_client_close(client), "closing");
}

/* Opens the channel with this machine's struct, and stays until the input ends; or is refused. */
static void differ(const char *address)
{
	struct shmb_client *client = connect_to(address);
	struct shmb_channel *channel;
	char why[512] = "";

	if (open_channel(client, "cross/shifted", &shifted_schema, sizeof(shifted_schema), 0,
			 &channel) == 0) {
		puts("open");
		fflush(stdout);
		(void)getchar();
		return;
	}
	shmb_last_error(why, sizeof(why));
	puts(why);
}

/* ---- one machine -------------------------------------------------------------------------------- */

static void huge(void)
{
	struct rlimit limit = { 512u << 20, 512u << 20 };
	struct shmb_broker *broker;
	struct shmb_client *client;
	struct shmb_channel *channel;
	struct shmb_publisher *publisher;
	char why[512] = "";

	must(shmb_broker_start(NULL, &broker), "a broker");
	client = connect_to(shmb_broker_address(broker));
	must(open_channel(client, "cross/huge", NULL, 0, 1u << 30, &channel), "the channel");
	/* Where the whole address space is less, nobody has to say so. */
	if (setrlimit(RLIMIT_AS, &limit) < 0)
		die("RLIMIT_AS");
	if (shmb_publisher_open(channel, NULL, &publisher) != -ENOMEM)
		die("a lane of 1 GiB fits into 512 MiB");
	shmb_last_error(why, sizeof(why));
	if (!strstr(why, "no address space for a segment of 1073745920 bytes"))
		die("what was said of a lane without room");
	must(shmb_channel_close(channel), "closing");
	must(shmb_client_close(client), "closing");
	must(shmb_broker_stop(broker), "stopping");
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	const char *where = argc > 2 ? argv[2] : "";
	unsigned long third = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
	unsigned long fourth = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;

	if (strcmp(what, "make") == 0)
		make(where);
	else if (strcmp(what, "publish") == 0)
		publish(where, third, (unsigned)fourth);
	else if (strcmp(what, "read") == 0)
		read_lane(where, (unsigned)third, fourth);
	else if (strcmp(what, "refused") == 0)
		refused(where);
	else if (strcmp(what, "send") == 0)
		stream(where, 1, (uint32_t)third, (uint32_t)fourth);
	else if (strcmp(what, "recv") == 0)
		stream(where, 0, (uint32_t)third, 0);
	else if (strcmp(what, "differ") == 0)
		differ(where);
	else if (strcmp(what, "huge") == 0)
		huge();
	else
		die("make, publish, read, refused, send, recv, differ or huge?");
	return EXIT_SUCCESS;
}
