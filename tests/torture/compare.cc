/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One sender and one receiver over several means of communication; one of the two is killed at a
 * random moment and then started again. Does the other go on? Does what the sender was told is sent
 * arrive? Built and run by scripts/compare-kills. Nothing here is tuned for or against anybody: each
 * is used as its documentation begins.
 *
 *	compare MEANS ROUNDS SEED PLACE	prints one row of the table
 */

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string>

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/date_time/posix_time/posix_time_types.hpp>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <zmq.h>

#include <shmbroker/shmbroker.h>

namespace ipc = boost::interprocess;

static const unsigned WARM = 100; /* records before the kill, and after it */
static const int PATIENCE_MS = 3000;
static const int QUIET_MS = 300;
static const int SHARED_MS = 100; /* one call waits so long */
static const uint32_t LEN = 256;

struct Record {
	uint32_t generation;
	uint32_t sum;
	uint64_t number;
	uint8_t bytes[LEN - 16];
};

/* Written by one process each: survives their deaths. */
struct Notes {
	volatile uint64_t acked[2]; /* by generation of the sender */
	volatile uint64_t next[2]; /* of the receiver that lives */
	volatile uint64_t received;
	volatile uint64_t bad;
};

static Notes *notes;
static std::string place;

class Means {
public:
	virtual ~Means() {}
	virtual bool open(bool sends) = 0;
	/* Returns 1: taken, 0: not now, -1: never again. */
	virtual int send(const Record &record) = 0;
	virtual int recv(Record &record) = 0;
	/* Before a round, as an operator would start afresh. */
	virtual void fresh() {}
};

class Shmbroker : public Means {
	shmb_client *client;
	shmb_channel *channel;
	shmb_publisher *publisher;
	shmb_subscriber *subscriber;

public:
	bool open(bool sends) override
	{
		shmb_channel_options options = {};

		options.options_len = sizeof(options);
		options.flags = SHMB_CHANNEL_CREATE;
		options.lane_len = 65536;
		if (shmb_client_open(nullptr, &client) < 0 ||
		    shmb_channel_open(client, "compare", 7, &options, &channel) < 0)
			return false;
		if (!sends)
			return shmb_subscriber_open(channel, nullptr, &subscriber) == 0;
		return shmb_publisher_open(channel, nullptr, &publisher) == 0 &&
		       shmb_channel_wait_members(channel, 0, 1, PATIENCE_MS * 1000000ll) == 0;
	}
	int send(const Record &record) override
	{
		int result = shmb_publisher_send_wait(publisher, &record, sizeof(record),
						      SHARED_MS * 1000000ll);

		return result == 0 ? 1 : result == -ETIMEDOUT ? 0 : -1;
	}
	int recv(Record &record) override
	{
		int result = shmb_subscriber_recv(subscriber, &record, sizeof(record));

		if (result == -EAGAIN)
			shmb_subscriber_wait(subscriber, SHARED_MS * 1000000ll);
		return result >= 0 ? 1 : result == -EAGAIN ? 0 : -1;
	}
};

/* PUSH and PULL over ipc://; the receiver binds. */
class Zmq : public Means {
	void *socket;

public:
	bool open(bool sends) override
	{
		int timeout = SHARED_MS;

		socket = zmq_socket(zmq_ctx_new(), sends ? ZMQ_PUSH : ZMQ_PULL);
		zmq_setsockopt(socket, sends ? ZMQ_SNDTIMEO : ZMQ_RCVTIMEO, &timeout,
			       sizeof(timeout));
		return sends ? zmq_connect(socket, place.c_str()) == 0
			     : zmq_bind(socket, place.c_str()) == 0;
	}
	int send(const Record &record) override
	{
		return zmq_send(socket, &record, sizeof(record), 0) >= 0 ? 1
		       : errno == EAGAIN				 ? 0
									 : -1;
	}
	int recv(Record &record) override
	{
		return zmq_recv(socket, &record, sizeof(record), 0) >= 0 ? 1
		       : errno == EAGAIN				 ? 0
									 : -1;
	}
};

class Boost : public Means {
	std::unique_ptr<ipc::message_queue> queue;

	static boost::posix_time::ptime soon()
	{
		return boost::posix_time::microsec_clock::universal_time() +
		       boost::posix_time::milliseconds(SHARED_MS);
	}

public:
	bool open(bool) override
	{
		queue.reset(new ipc::message_queue(ipc::open_or_create, place.c_str(), 64,
						   sizeof(Record)));
		return true;
	}
	int send(const Record &record) override
	{
		return queue->timed_send(&record, sizeof(record), 0, soon());
	}
	int recv(Record &record) override
	{
		ipc::message_queue::size_type len;
		unsigned priority;

		return queue->timed_receive(&record, sizeof(record), len, priority, soon());
	}
	void fresh() override
	{
		ipc::message_queue::remove(place.c_str());
	}
};

static void fill(Record &record, uint32_t generation, uint64_t number)
{
	record.generation = generation;
	record.number = number;
	record.sum = 0;
	for (uint32_t i = 0; i < sizeof(record.bytes); i++) {
		record.bytes[i] = (uint8_t)(number * 7 + i);
		record.sum += record.bytes[i];
	}
}

static void send_all(Means &means, uint32_t generation)
{
	static Record record;

	if (!means.open(true))
		_exit(1);
	for (uint64_t number = 0;;) {
		int result;

		fill(record, generation, number);
		result = means.send(record);
		if (result < 0)
			_exit(1);
		if (result > 0)
			notes->acked[generation] = ++number;
	}
}

static void receive_all(Means &means)
{
	static Record record, expected;

	if (!means.open(false))
		_exit(1);
	for (;;) {
		int result = means.recv(record);

		if (result < 0)
			_exit(1);
		if (result == 0)
			continue;
		fill(expected, record.generation & 1, record.number);
		if (memcmp(&record, &expected, sizeof(record)) != 0)
			notes->bad = notes->bad + 1;
		else
			notes->next[record.generation] = record.number + 1;
		notes->received = notes->received + 1;
	}
}

static pid_t start(Means &means, bool sends, uint32_t generation)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	try {
		if (sends)
			send_all(means, generation);
		else
			receive_all(means);
	} catch (...) {
	}
	_exit(1);
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, nullptr, 0);
}

/* Until so many more were received; false: they do not come. */
static bool received(uint64_t more)
{
	uint64_t until = notes->received + more;

	for (int ms = 0; ms < PATIENCE_MS; ms++) {
		if (notes->received >= until)
			return true;
		usleep(1000);
	}
	return false;
}

static void until_quiet()
{
	for (uint64_t before = ~0ull; before != notes->received;) {
		before = notes->received;
		usleep(QUIET_MS * 1000);
	}
}

struct Row {
	unsigned senders, receivers, stuck;
	uint64_t lost, bad;
};

static void round_of(Means &means, Row &row)
{
	bool kill_sender = rand() % 2;
	pid_t sender, receiver;

	memset((void *)notes, 0, sizeof(*notes));
	means.fresh();
	receiver = start(means, false, 0);
	usleep(20000);
	sender = start(means, true, 0);
	if (!received(WARM)) {
		fprintf(stderr, "a round does not begin\n");
		exit(2);
	}
	usleep((unsigned)rand() % 5000);
	if (kill_sender) {
		row.senders++;
		end(sender);
		until_quiet();
		if (notes->acked[0] > notes->next[0])
			row.lost += notes->acked[0] - notes->next[0];
		sender = start(means, true, 1);
	} else {
		row.receivers++;
		end(receiver);
		receiver = start(means, false, 0);
	}
	row.stuck += !received(WARM);
	row.bad += notes->bad;
	end(sender);
	end(receiver);
}

int main(int argc, char **argv)
{
	std::unique_ptr<Means> means;
	Row row = {};

	if (argc != 5)
		return 2;
	place = argv[4];
	srand((unsigned)atoi(argv[3]));
	if (strcmp(argv[1], "shmbroker") == 0)
		means.reset(new Shmbroker);
	else if (strcmp(argv[1], "zeromq") == 0)
		means.reset(new Zmq);
	else
		means.reset(new Boost);
	notes = (Notes *)mmap(nullptr, sizeof(*notes), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < atoi(argv[2]); i++)
		round_of(*means, row);
	means->fresh();
	printf("| %s | %u | %u | %u | %llu | %llu |\n", argv[1], row.senders, row.receivers,
	       row.stuck, (unsigned long long)row.lost, (unsigned long long)row.bad);
	return 0;
}
