/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Large channels and wait sets: a thousand publishers on a channel, hundreds of subscribers, four
 * thousand channels in a wait set. Every record arrives, wake-ups arrive, and
 * those who close and those who are killed at that size leave nothing.
 */

#include <errno.h>
#include <sys/resource.h>

#include "tests/system/process.h"

#define N_PUBLISHERS  1000u
#define N_SUBSCRIBERS 256u
#define N_CHANNELS    1000u
#define N_LANES	      4096u
#define N_ROUNDS      3u
#define N_FDS_EACH    6u /* of a subscriber and what it has heard of its publisher, at most */
#define LANE_LEN      4096u
#define TIMEOUT	      (30000 * MS)
#define EXIT_NO_FDS   77

static struct process daemon_process;
static uint32_t divisor = 1; /* quick and slow runs do less */

struct record {
	uint32_t from;
	uint32_t round;
};

/* ---- another process, with many members of one role -------------------------------------------- */

/**
 * struct crowd - the other side
 * @pid:   its process
 * @to:    a byte for each thing that it shall do
 * @from:  a byte when it has been done
 */
struct crowd {
	pid_t pid;
	int to;
	int from;
};

static struct shmb_channel *open_wide(struct shmb_client *of, const char *name)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.lane_len = LANE_LEN,
						.max_publishers = N_PUBLISHERS,
						.max_subscribers = N_SUBSCRIBERS };
	struct shmb_channel *channel = NULL;

	ok(shmb_channel_open(of, name, (uint32_t)strlen(name), &options, &channel));
	return channel;
}

static const char *name_of(char name[32], uint32_t i, uint32_t n_channels)
{
	snprintf(name, 32, "scale/%u", n_channels == 1 ? 0 : i);
	return name;
}

/* @n publishers, each on a channel of its own or all on one; or as many subscribers. */
static _Noreturn void live(const struct crowd *crowd, uint32_t n, uint32_t n_channels, int role)
{
	struct shmb_client *own = connect_to(daemon_process.address);
	struct shmb_channel **channels = calloc(n, sizeof(struct shmb_channel *));
	void **members = calloc(n, sizeof(void *));
	struct record record = { 0 };
	char name[32], what;

	for (uint32_t i = 0; i < n; i++) {
		name_of(name, i, n_channels);
		channels[i] =
			n_channels == 1 ? open_wide(own, name) : channel_of(own, name, LANE_LEN);
		members[i] = role ? (void *)subscriber_of(channels[i], SHMB_SUBSCRIBER_NO_SPIN)
				  : (void *)publisher_of(channels[i], 0);
	}
	while (write(crowd->from, "r", 1) == 1 && read(crowd->to, &what, 1) == 1 && what != 'q') {
		for (uint32_t i = 0; i < n; i++) {
			record.from = i;
			if (what == 's')
				ok(shmb_publisher_send_wait(members[i], &record, sizeof(record),
							    TIMEOUT));
			else
				ok(shmb_subscriber_wait(members[i], TIMEOUT));
			if (what == 'g')
				ck_assert_int_eq(
					shmb_subscriber_recv(members[i], &record, sizeof(record)),
					sizeof(record));
		}
		record.round++;
	}
	for (uint32_t i = 0; i < n; i++) {
		ok(role ? shmb_subscriber_close(members[i]) : shmb_publisher_close(members[i]));
		ok(shmb_channel_close(channels[i]));
	}
	ok(shmb_client_close(own));
	_exit(0);
}

static struct crowd start_crowd(uint32_t n, uint32_t n_channels, int role)
{
	int to[2], from[2];
	struct crowd crowd;

	ck_assert_int_eq(pipe(to), 0);
	ck_assert_int_eq(pipe(from), 0);
	crowd.pid = fork();
	ck_assert_int_ge(crowd.pid, 0);
	if (crowd.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		crowd = (struct crowd){ .to = to[0], .from = from[1] };
		close(to[1]);
		close(from[0]);
		live(&crowd, n, n_channels, role);
	}
	close(to[0]);
	close(from[1]);
	crowd.to = to[1];
	crowd.from = from[0];
	return crowd;
}

static void is_done(const struct crowd *crowd)
{
	char done;

	ck_assert_msg(read(crowd->from, &done, 1) == 1, "the other process has failed");
}

static void tell(const struct crowd *crowd, char what)
{
	ck_assert_int_eq(write(crowd->to, &what, 1), 1);
}

static void end_crowd(struct crowd *crowd, int killed)
{
	int status;

	if (killed)
		kill(crowd->pid, SIGKILL);
	else
		tell(crowd, 'q');
	ck_assert_int_eq(waitpid(crowd->pid, &status, 0), crowd->pid);
	ck_assert_msg(killed ? WIFSIGNALED(status) : status == 0, "status 0x%x", status);
	close(crowd->to);
	close(crowd->from);
}

/* Objects of the broker go down to what there was. */
static void nothing_is_left(unsigned before)
{
	unsigned after = process_objects(&daemon_process);

	for (int i = 0; i < 4000 && after > before; i++) {
		usleep(5000);
		after = process_objects(&daemon_process);
	}
	ck_assert_uint_eq(after, before);
}

/* ---- tests -------------------------------------------------------------------------------------- */

/* Each round's record of each publisher, once and in order. */
static void receive_rounds(struct shmb_subscriber *subscriber, uint32_t n, uint32_t *rounds)
{
	struct record record;
	int32_t got;

	for (uint32_t left = n; left > 0;) {
		ok(shmb_subscriber_wait(subscriber, TIMEOUT));
		while ((got = shmb_subscriber_recv(subscriber, &record, sizeof(record))) !=
		       -EAGAIN) {
			ok(got);
			ck_assert_uint_lt(record.from, n);
			ck_assert_uint_eq(record.round, rounds[record.from]);
			rounds[record.from]++;
			left--;
		}
	}
}

START_TEST(a_thousand_publishers_reach_one_subscriber)
{
	uint32_t n = N_PUBLISHERS / divisor;
	uint32_t *rounds = calloc(n, sizeof(uint32_t));
	struct shmb_subscriber_stats stats;
	struct shmb_subscriber *subscriber;
	struct shmb_channel *channel;
	struct crowd crowd;
	unsigned before;

	client = connect_to(daemon_process.address);
	channel = open_wide(client, "scale/0");
	subscriber = subscriber_of(channel, SHMB_SUBSCRIBER_NO_SPIN);
	before = process_objects(&daemon_process);
	for (int killed = 0; killed < 2; killed++) {
		memset(rounds, 0, n * sizeof(uint32_t));
		crowd = start_crowd(n, 1, 0);
		is_done(&crowd);
		for (uint32_t i = 0; i < N_ROUNDS; i++) {
			tell(&crowd, 's');
			receive_rounds(subscriber, n, rounds);
			is_done(&crowd);
		}
		/* What the killed have sent is read, however many they are. */
		tell(&crowd, 's');
		is_done(&crowd);
		end_crowd(&crowd, killed);
		receive_rounds(subscriber, n, rounds);
		ok(shmb_channel_wait_members(channel, 0, 1, TIMEOUT));
		nothing_is_left(before);
		refused(shmb_subscriber_recv(subscriber, rounds, 4), -EAGAIN);
		ok(shmb_subscriber_stats(subscriber, &stats, sizeof(stats)));
		ck_assert_uint_eq(stats.n_publishers, 0);
		ck_assert_uint_eq(stats.backstops, 0);
		ck_assert_uint_eq(stats.received, (uint64_t)(killed + 1) * n * (N_ROUNDS + 1));
	}
	ok(shmb_subscriber_close(subscriber));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(client));
	free(rounds);
}
END_TEST

START_TEST(hundreds_of_subscribers_get_each_record)
{
	uint32_t n = N_SUBSCRIBERS / divisor;
	struct record record = { 0 };
	struct shmb_publisher *publisher;
	struct shmb_channel *channel;
	struct crowd crowd;
	unsigned before;

	client = connect_to(daemon_process.address);
	channel = open_wide(client, "scale/0");
	publisher = publisher_of(channel, 0);
	before = process_objects(&daemon_process);
	for (int killed = 0; killed < 2; killed++) {
		crowd = start_crowd(n, 1, 1);
		is_done(&crowd);
		/* More than the lane holds: the slowest of all is waited for. */
		for (uint32_t i = 0; i < 100; i++) {
			tell(&crowd, 'g');
			ok(shmb_publisher_send_wait(publisher, &record, sizeof(record), TIMEOUT));
			is_done(&crowd);
		}
		end_crowd(&crowd, killed);
		ok(shmb_channel_wait_members(channel, 1, 0, TIMEOUT));
		ok(shmb_publisher_send_wait(publisher, &record, sizeof(record), TIMEOUT));
		nothing_is_left(before);
	}
	ok(shmb_publisher_close(publisher));
	ok(shmb_channel_close(channel));
	ok(shmb_client_close(client));
}
END_TEST

/* @n channels, each with a publisher in another process, all in one wait set. */
static void waitset_of(uint32_t n)
{
	struct shmb_subscriber **subscribers = calloc(n, sizeof(struct shmb_subscriber *));
	struct shmb_channel **channels = calloc(n, sizeof(struct shmb_channel *));
	struct shmb_subscriber_stats stats;
	struct shmb_waitset *waitset;
	uint64_t backstops = 0;
	unsigned before;
	char name[32];

	client = connect_to(daemon_process.address);
	before = process_objects(&daemon_process);
	ok(shmb_waitset_open(client, &waitset));
	for (uint32_t i = 0; i < n; i++) {
		channels[i] = channel_of(client, name_of(name, i, n), LANE_LEN);
		subscribers[i] = subscriber_of(channels[i], 0);
		ok(shmb_waitset_add(waitset, subscribers[i], i));
	}
	for (int killed = 0; killed < 2; killed++) {
		struct crowd crowd = start_crowd(n, n, 0);

		is_done(&crowd);
		for (uint32_t round = 0; round < 2; round++) {
			tell(&crowd, 's');
			for (uint32_t left = n; left > 0;) {
				struct shmb_ready ready[64];
				int32_t n_ready = shmb_waitset_wait(waitset, ready, 64, TIMEOUT);
				struct record record;

				ok(n_ready);
				for (int32_t i = 0; i < n_ready; i++) {
					int32_t got =
						shmb_subscriber_recv(subscribers[ready[i].cookie],
								     &record, sizeof(record));

					if (got == -EAGAIN)
						continue;
					ok(got);
					ck_assert_uint_eq(record.from, ready[i].cookie);
					ck_assert_uint_eq(record.round, round);
					left--;
				}
			}
			is_done(&crowd);
		}
		end_crowd(&crowd, killed);
	}
	for (uint32_t i = 0; i < n; i++) {
		/* Each wake-up came by itself. One may be looked for while its publisher is at it. */
		ok(shmb_subscriber_stats(subscribers[i], &stats, sizeof(stats)));
		backstops += stats.backstops;
		ok(shmb_waitset_remove(waitset, subscribers[i]));
		ok(shmb_subscriber_close(subscribers[i]));
		ok(shmb_channel_close(channels[i]));
	}
	ck_assert_uint_le(backstops, 1);
	ok(shmb_waitset_close(waitset));
	/* The broker does not read on while we do not read its answers. */
	ok(shmb_client_ping(client, TIMEOUT));
	nothing_is_left(before);
	ok(shmb_client_close(client));
	free(subscribers);
	free(channels);
}

START_TEST(a_thousand_channels_are_waited_for)
{
	/* Even runs use what there is, odd ones epoll. */
	if (_i & 1)
		setenv("SHMBROKER_IO", "epoll", 1);
	waitset_of(N_CHANNELS / divisor);
}
END_TEST

START_TEST(four_thousand_lanes_are_waited_for)
{
	uint32_t n = N_LANES / divisor;
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur / N_FDS_EACH < n) {
		n = (uint32_t)(limit.rlim_cur / N_FDS_EACH);
		printf("%llu open files are allowed here: %u lanes instead of %u\n",
		       (unsigned long long)limit.rlim_cur, n, N_LANES / divisor);
	}
	waitset_of(n);
}
END_TEST

/* ---- */

static void set_up_scale(void)
{
	daemon_process = process_begin(NULL);
}

static void tear_down_scale(void)
{
	process_end(&daemon_process);
}

int main(void)
{
	TCase *cases[] = { gated_case("scale") };
	const char *quick = getenv("SHMB_TEST_QUICK");
	struct rlimit limit;

	if ((quick && strcmp(quick, "1") == 0) || process_is_sanitized())
		divisor = 8;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < N_FDS_EACH * N_CHANNELS / divisor) {
		printf("at most %llu open files are allowed here, %u are needed\n",
		       (unsigned long long)limit.rlim_cur, N_FDS_EACH * N_CHANNELS / divisor);
		return EXIT_NO_FDS;
	}
	tcase_add_checked_fixture(cases[0], set_up_scale, tear_down_scale);
	tcase_set_timeout(cases[0], 120);
	tcase_add_test(cases[0], a_thousand_publishers_reach_one_subscriber);
	tcase_add_test(cases[0], hundreds_of_subscribers_get_each_record);
	tcase_add_loop_test(cases[0], a_thousand_channels_are_waited_for, 0, 2);
	tcase_add_test(cases[0], four_thousand_lanes_are_waited_for);
	return run_suite("scale", cases, 1);
}
