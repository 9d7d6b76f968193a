/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>

#include "lib/clock.h"

#include "daemon/fence.h"

#define RETRY_MIN_NS (1 * 1000000ull)
#define TRIES_MAX    12 /* four seconds in all */

/**
 * struct fence - a segment that somebody can still write although its publisher is dead
 * @link:    in broker.fences
 * @broker:  broker
 * @segment: a hold on the lane, or an arena
 * @timer:   when to try again
 * @tries:   so far
 * @member:  whose it was
 */
struct fence {
	struct list link;
	struct broker *broker;
	struct segment segment;
	struct loop_timer *timer;
	uint32_t tries;
	uint64_t member;
};

static void fence_free(struct fence *fence)
{
	loop_timer_cancel(fence->timer);
	list_remove(&fence->link);
	segment_release(&fence->segment);
	free(fence);
}

static void on_retry(void *data)
{
	struct fence *fence = data;
	int r = segment_fence(&fence->segment);

	if (r == -EBUSY && ++fence->tries < TRIES_MAX) {
		loop_timer_move(fence->timer, shmb_clock_now_ns() + (RETRY_MIN_NS << fence->tries));
		return;
	}
	log_line(&fence->broker->log, r == 0 ? LOG_INFO : LOG_WARNING,
		 r == 0 ? "lane-fenced" : "lane-not-fenced", "member=%llu tries=%u error=%d",
		 (unsigned long long)fence->member, fence->tries, -r);
	fence_free(fence);
}

void fence_segment(const struct member *publisher, struct segment *segment)
{
	struct broker *broker = publisher->channel->broker;
	unsigned long long id = object_id(&publisher->object);
	int r = segment_fence(segment);
	struct fence *fence;

	if (r == 0 || r == -EOPNOTSUPP)
		return;
	log_line(&broker->log, LOG_WARNING, r == -EBUSY ? "lane-quarantined" : "lane-not-fenced",
		 "member=%llu pid=%u uid=%u error=%d", id, publisher->client->pid,
		 publisher->client->uid, -r);
	fence = r == -EBUSY ? calloc(1, sizeof(*fence)) : NULL;
	if (!fence)
		return;
	fence->broker = broker;
	fence->member = id;
	fence->segment.backing = SHMB_MEMORY_SEALED;
	fence->segment.fd = -1;
	list_append(&broker->fences, &fence->link);
	if (segment_hold(&fence->segment, segment) < 0 ||
	    loop_timer_at(broker->loop, shmb_clock_now_ns() + RETRY_MIN_NS, on_retry, fence,
			  &fence->timer) < 0)
		fence_free(fence);
}

void fence_forget(struct broker *broker)
{
	struct list *link, *safe;

	list_for_each(link, safe, &broker->fences) fence_free(list_entry(link, struct fence, link));
}
