/* SPDX-License-Identifier: Apache-2.0 */

/* The worker of a queue: taking records, and saying what has become of them. */

#include <errno.h>
#include <string.h>

#include "lib/channel.h"
#include "lib/copy.h"
#include "lib/error.h"
#include "lib/sub-look.h"

void sub_close_dead(struct shmb_subscriber *subscriber)
{
	shmb_publisher_close(subscriber->dead);
	shmb_channel_close(subscriber->dead_channel);
}

/* The queue of the dead letters is made as the queue itself was. */
static int open_dead(struct shmb_subscriber *subscriber, struct shmb_channel *channel)
{
	struct shmb_channel_options options = { .options_len = sizeof(options),
						.flags = SHMB_CHANNEL_CREATE,
						.pattern = SHMB_CHANNEL_QUEUE,
						.schema = channel->schema,
						.schema_len = channel->schema_len,
						.lane_len = channel->lane_len };
	char name[SHMB_NAME_LEN_MAX + sizeof(SHMB_QUEUE_DEAD)];
	uint32_t suffix_len = sizeof(SHMB_QUEUE_DEAD) - 1;
	int result;

	memcpy(name, channel->name, channel->name_len);
	memcpy(name + channel->name_len, SHMB_QUEUE_DEAD, suffix_len);
	result = shmb_channel_open(channel->client, name, channel->name_len + suffix_len, &options,
				   &subscriber->dead_channel);
	if (result == 0)
		result = shmb_publisher_open(subscriber->dead_channel, NULL, &subscriber->dead);
	if (result < 0)
		sub_close_dead(subscriber);
	return result;
}

int sub_open_queue(struct shmb_subscriber *subscriber, struct shmb_channel *channel,
		   const struct shmb_subscriber_options *options)
{
	if (subscriber->lossy)
		return shmb_fail(-EINVAL, "a worker of a queue cannot be lossy");
	if (subscriber->member.evict_after_ms)
		return shmb_fail(-EINVAL,
				 "a worker of a queue cannot be evicted: it would lose work");
	if (options->credit > SHMB_QUEUE_CREDIT_MAX)
		return shmb_fail(-EINVAL, "a worker has a credit of at most %u, not %u",
				 SHMB_QUEUE_CREDIT_MAX, options->credit);
	subscriber->queue = true;
	subscriber->n_peeked = 1; /* as if it always peeked: there is nothing to receive */
	subscriber->credit = options->credit ? options->credit : SHMB_QUEUE_CREDIT_DEFAULT;
	subscriber->max_attempts = options->max_attempts;
	return options->max_attempts ? open_dead(subscriber, channel) : 0;
}

static int enter_queue(struct shmb_subscriber *subscriber)
{
	int result = sub_enter(subscriber);

	if (shmb_likely(result == 0) && shmb_unlikely(!subscriber->queue))
		return shmb_fail(-EOPNOTSUPP, "the channel is not a queue");
	return result;
}

struct sub_lane *sub_next_failed(const struct shmb_subscriber *subscriber)
{
	struct sub_lane *first = NULL;

	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];

		if (shmb_likely(!lane->jobs->n_failed) || lane->follows)
			continue;
		if (!first || lane->priority > first->priority)
			first = lane;
	}
	return first;
}

/* The lane of a job, or NULL. */
static struct sub_lane *find_job(const struct shmb_subscriber *subscriber, uint64_t job)
{
	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];

		if (!lane->follows && lane->jobs->lane == job >> 32)
			return shmb_jobs_find(lane->jobs, (uint32_t)job) ? lane : NULL;
	}
	return NULL;
}

/* The bytes of a record that was taken before; its publisher keeps them. */
static int look_back(struct sub_lane *lane, const struct shmb_job *job, struct shmb_record *record)
{
	struct shmb_lane_reader reader = lane->reader;

	reader.position = job->position;
	reader.sequence = job->sequence;
	if (shmb_lane_peek(&reader, record) != 1 || reader.position != job->position ||
	    record->len < sizeof(struct shmb_queue_address))
		return -EBADMSG;
	record->data += sizeof(struct shmb_queue_address);
	record->len -= (uint32_t)sizeof(struct shmb_queue_address);
	return 0;
}

/* Too often handed out. It goes where the dead letters are, or waits for room there. */
static void bury(struct shmb_subscriber *subscriber, struct sub_lane *lane, uint32_t number,
		 const struct shmb_record *record)
{
	bool buried = shmb_publisher_send_typed(subscriber->dead, record->data, record->len,
						record->type) == 0;

	/* Killed between the two: it is among the dead letters, and comes there once more. */
	shmb_jobs_set(lane->jobs, number, buried ? SHMB_JOB_DONE : SHMB_JOB_DEAD);
	sub_store_cursor(subscriber, lane);
}

void sub_bury_again(struct shmb_subscriber *subscriber)
{
	struct shmb_record record;
	struct shmb_job *job;
	uint32_t number;

	for (uint32_t i = 0; i < subscriber->n_lanes; i++) {
		struct sub_lane *lane = subscriber->lanes[i];

		if (shmb_likely(!lane->jobs->n_dead))
			continue;
		job = shmb_jobs_first(lane->jobs, SHMB_JOB_DEAD, &number);
		if (job && look_back(lane, job, &record) == 0)
			bury(subscriber, lane, number, &record);
	}
}

static bool is_dead(const struct shmb_subscriber *subscriber, uint32_t attempt)
{
	return subscriber->dead && attempt > subscriber->max_attempts;
}

/* The publisher may look at the marks in another cursor by now. */
static void tell_ahead(struct shmb_subscriber *subscriber, const struct sub_lane *lane)
{
	if (shmb_unlikely(lane->successor != NULL))
		sub_store_ahead(subscriber, lane);
}

/* A record that has failed, once more. Returns 1, 0: there is none; -EMSGSIZE. */
static int retake(struct shmb_subscriber *subscriber, void *data, uint32_t cap)
{
	struct sub_lane *lane;
	struct shmb_record record;
	struct shmb_job *job;
	uint32_t number = 0;

	while ((lane = sub_next_failed(subscriber))) {
		job = shmb_jobs_first(lane->jobs, SHMB_JOB_FAILED, &number);
		if (look_back(lane, job, &record) < 0) {
			shmb_jobs_set(lane->jobs, number, SHMB_JOB_DONE);
			sub_condemn(subscriber, lane);
			continue;
		}
		if (is_dead(subscriber, job->attempt + 1)) {
			bury(subscriber, lane, number, &record);
			continue;
		}
		sub_describe(subscriber, lane, &record);
		if (record.len > cap)
			return -EMSGSIZE;
		shmb_copy(data, record.data, record.len);
		shmb_jobs_retake(lane->jobs, number);
		tell_ahead(subscriber, lane);
		subscriber->view.sequence = job->sequence;
		subscriber->view.attempt = job->attempt;
		subscriber->view.term = (uint64_t)lane->jobs->lane << 32 | number;
		return 1;
	}
	return 0;
}

/* The next record for us. Returns 1, 0: there is none; -EMSGSIZE. The view says which. */
static int take_job(struct shmb_subscriber *subscriber, void *data, uint32_t cap)
{
	struct shmb_record record;
	struct sub_lane *lane;
	uint32_t number;

	while ((lane = sub_next_record(subscriber, &record))) {
		uint32_t attempt = subscriber->attempt;
		bool dead = is_dead(subscriber, attempt);

		sub_describe(subscriber, lane, &record);
		if (shmb_unlikely(record.len > cap && !dead))
			return -EMSGSIZE;
		number = shmb_jobs_take(lane->jobs, &lane->reader, attempt);
		if (!dead)
			shmb_copy(data, record.data, record.len);
		shmb_lane_skip(&lane->reader, &record);
		tell_ahead(subscriber, lane);
		if (shmb_unlikely(dead)) {
			bury(subscriber, lane, number, &record);
			continue;
		}
		subscriber->received++;
		subscriber->view.attempt = attempt;
		subscriber->view.term = (uint64_t)lane->jobs->lane << 32 | number;
		return 1;
	}
	/* After all others, so that one that fails for ever does not keep us from them. */
	return retake(subscriber, data, cap);
}

SHMB_API int32_t shmb_subscriber_take(struct shmb_subscriber *subscriber, void *data, uint32_t cap)
{
	int result = enter_queue(subscriber);

	if (shmb_unlikely(result < 0))
		return result;
	if (cap && !data)
		return shmb_fail(-EINVAL, "data is NULL");
	sub_bury_again(subscriber);
	result = take_job(subscriber, data, cap);
	if (shmb_likely(result == 1))
		return (int32_t)subscriber->view.len;
	if (result == 0)
		return sub_nothing(subscriber);
	return shmb_fail(-EMSGSIZE, "the record has %u bytes, the buffer %u", subscriber->view.len,
			 cap);
}

SHMB_API int32_t shmb_subscriber_take_many(struct shmb_subscriber *subscriber, void *data,
					   uint32_t cap, uint32_t *lens, uint64_t *jobs,
					   uint32_t max)
{
	uint8_t *to = data;
	uint32_t n = 0;
	int result = enter_queue(subscriber);

	if (result < 0)
		return result;
	if (!data || !jobs || max == 0 || max > INT32_MAX)
		return shmb_fail(-EINVAL, "data or jobs is NULL, or max %u is not 1 to %d", max,
				 INT32_MAX);
	sub_bury_again(subscriber);
	while (n < max && (result = take_job(subscriber, to, cap)) == 1) {
		if (lens)
			lens[n] = subscriber->view.len;
		jobs[n++] = subscriber->view.term;
		to += subscriber->view.len;
		cap -= subscriber->view.len;
	}
	if (n)
		return (int32_t)n;
	if (result == 0)
		return sub_nothing(subscriber);
	return shmb_fail(-EMSGSIZE, "the record has %u bytes, the buffer %u", subscriber->view.len,
			 cap);
}

/*
 * The marks of these are stored. Were we thrown out, or parted from their publisher, before it could see
 * them? Then others get what they are of.
 */
static int check_heard(struct shmb_subscriber *subscriber, const uint64_t *jobs, uint32_t count)
{
	struct shmb_member *member = &subscriber->member;
	int result;

	/*
	 * AF: pairs with AH in the publisher's pub_orphan(): either it sees the marks, or we see that the
	 * broker has moved the epoch, which it does before it says that the two are parted.
	 */
	shmb_fence();
	if (shmb_likely(SHMB_LOAD(member->epoch) == member->seen_epoch))
		return 0;
	result = shmb_member_enter_slow(member);
	for (uint32_t i = 0; result == 0 && i < subscriber->n_lanes; i++) {
		const struct sub_lane *lane = subscriber->lanes[i];

		for (uint32_t k = 0; k < count && lane->unguarded; k++)
			if (lane->jobs->lane == jobs[k] >> 32)
				return shmb_fail(-ENOENT, "job %llu is others' by now",
						 (unsigned long long)jobs[k]);
	}
	return result;
}

/* Ends some jobs. All of them must be ours, or nothing happens. */
static int end_jobs(struct shmb_subscriber *subscriber, const uint64_t *jobs, uint32_t count,
		    enum shmb_job_state state)
{
	struct sub_lane *lane = NULL;
	int result = enter_queue(subscriber);

	if (result < 0)
		return result;
	if (count && !jobs)
		return shmb_fail(-EINVAL, "jobs is NULL");
	for (uint32_t i = 0; i < count; i++)
		if (!find_job(subscriber, jobs[i]))
			return shmb_fail(-ENOENT, "job %llu is not in work here",
					 (unsigned long long)jobs[i]);
	for (uint32_t i = 0; i < count; i++) {
		struct sub_lane *next = find_job(subscriber, jobs[i]);

		if (lane && lane != next)
			sub_store_cursor(subscriber, lane);
		lane = next;
		/* The same one twice. */
		if (lane)
			shmb_jobs_set(lane->jobs, (uint32_t)jobs[i], state);
	}
	if (lane)
		sub_store_cursor(subscriber, lane);
	return check_heard(subscriber, jobs, count);
}

SHMB_API int32_t shmb_subscriber_done(struct shmb_subscriber *subscriber, uint64_t job)
{
	return end_jobs(subscriber, &job, 1, SHMB_JOB_DONE);
}

SHMB_API int32_t shmb_subscriber_done_many(struct shmb_subscriber *subscriber, const uint64_t *jobs,
					   uint32_t count)
{
	return end_jobs(subscriber, jobs, count, SHMB_JOB_DONE);
}

SHMB_API int32_t shmb_subscriber_fail(struct shmb_subscriber *subscriber, uint64_t job)
{
	return end_jobs(subscriber, &job, 1, SHMB_JOB_FAILED);
}
