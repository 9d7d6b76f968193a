/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The judge: compares what publishers were acknowledged with what subscribers got. Order, repeats
 * and bytes were judged when each record came.
 */

#include "soak.h"

#define RECORD_SPAN_MIN 16u

static const struct seen *seen_of(const struct session *session, uint32_t publication)
{
	for (uint32_t i = 0; i < session->n_seen; i++)
		if (session->seen[i].publication == publication)
			return &session->seen[i];
	return NULL;
}

static unsigned say(const struct history *history, uint32_t session, uint32_t publication,
		    const char *what, uint64_t a, uint64_t b)
{
	printf("channel %u, subscriber %u, publication %u: %s: %llu, %llu\n",
	       history->sessions[session].channel, session, publication, what,
	       (unsigned long long)a, (unsigned long long)b);
	return 1;
}

/*
 * A reliable subscriber that lived to the end owes itself all that was acknowledged. But if a broker was
 * killed without a keeper, what it kept of a publisher that came and ended while the subscriber was away
 * is lost if it is sealed; that publisher had to wait for it, with a full lane. So is the end of what one
 * has published that moved to another lane while it was away.
 */
static unsigned check_all_arrived(const struct history *history, uint32_t id, unsigned *missed)
{
	const struct session *session = &history->sessions[id];
	/* What has no name, if nobody keeps it. */
	bool may_miss = history->unkept && (session->channel != 0 || history->users);
	unsigned bad = 0;

	for (uint32_t i = 0; i < history->n_publications; i++) {
		const struct publication *publication = &history->publications[i];
		const struct seen *seen = seen_of(session, i);
		bool from_start = session->opened < publication->began;

		if (publication->channel != session->channel || !publication->state)
			continue;
		if (from_start && !seen && publication->acked &&
		    (!may_miss || publication->acked_len > LANE_LEN))
			bad += say(history, id, i, "nothing came, acknowledged were",
				   publication->acked, publication->acked_len);
		else if (from_start && !seen && publication->acked)
			++*missed;
		if (!seen)
			continue;
		if (from_start && seen->first != 0)
			bad += say(history, id, i, "the first that came, of", seen->first,
				   publication->acked);
		if (seen->next >= publication->acked)
			continue;
		if (!may_miss || publication->acked - seen->next > LANE_LEN / RECORD_SPAN_MIN)
			bad += say(history, id, i, "came, acknowledged", seen->next,
				   publication->acked);
		else
			++*missed;
	}
	return bad;
}

/* Whoever it was, and however it ended: it got nothing that was never sent. */
static unsigned check_sent(const struct history *history, uint32_t id)
{
	const struct session *session = &history->sessions[id];
	unsigned bad = 0;

	for (uint32_t i = 0; i < session->n_seen; i++) {
		const struct seen *seen = &session->seen[i];

		if (seen->publication >= history->n_publications ||
		    seen->next > history->publications[seen->publication].tried)
			bad += say(history, id, seen->publication, "came, never sent", seen->next,
				   0);
	}
	return bad;
}

/* What a lossy one lost: the gaps, and what it lost of a lane before its first record. */
static unsigned check_losses(const struct history *history, uint32_t id)
{
	const struct session *session = &history->sessions[id];
	uint64_t before = 0;

	for (uint32_t i = 0; i < session->n_seen; i++)
		before += session->seen[i].first;
	for (uint32_t i = 0; i < history->n_publications; i++)
		if (!seen_of(session, i) && history->publications[i].channel == session->channel)
			before += history->publications[i].tried;
	if (session->lost >= session->gaps && session->lost <= session->gaps + before)
		return 0;
	return say(history, id, 0, "lost by the library's count, by ours", session->lost,
		   session->gaps);
}

/* Of a queue: nothing comes again once it is done, and what was said to be done was done by somebody. */
static unsigned check_batch(const struct history *history, uint32_t id)
{
	const struct batch *batch = &history->batches[id];
	unsigned lost = 0;

	for (uint64_t i = 0; i < batch->finished; i++)
		lost += !batch->begun[i];
	for (uint64_t i = batch->tried; i < N_JOBS; i++)
		lost += batch->begun[i];
	if (!batch->again && !batch->torn && !lost)
		return 0;
	printf("batch %u: %u jobs came again, %u torn, %u lost or never sent\n", id, batch->again,
	       batch->torn, lost);
	return 1;
}

/*
 * Of calls: each is handed out once at most and ends once, with what one who was handed it has answered;
 * those of a caller that was not killed all end.
 */
static unsigned check_dialogue(const struct history *history, uint32_t id)
{
	const struct dialogue *dialogue = &history->dialogues[id];
	unsigned stray = 0;

	for (uint64_t i = dialogue->tried; i < N_ASKED; i++)
		stray += dialogue->handed[i];
	if (!dialogue->again && !dialogue->torn && !dialogue->unasked && !stray)
		return 0;
	printf("caller %u: %u calls came or ended twice, %u torn, %u answered by nobody, %u never "
	       "asked\n",
	       id, dialogue->again, dialogue->torn, dialogue->unasked, stray);
	return 1;
}

unsigned soak_check(const struct history *history)
{
	unsigned bad = 0, missed = 0;

	for (uint32_t id = 0; id < history->n_sessions; id++) {
		const struct session *session = &history->sessions[id];

		if (*session->wrong) {
			printf("channel %u, subscriber %u: %s\n", session->channel, id,
			       session->wrong);
			bad++;
		}
		bad += check_sent(history, id);
		if (session->state != 2)
			continue;
		bad += session->lossy ? check_losses(history, id)
				      : check_all_arrived(history, id, &missed);
	}
	for (uint32_t id = 0; id < history->n_batches; id++)
		bad += check_batch(history, id);
	for (uint32_t id = 0; id < history->n_dialogues; id++)
		bad += check_dialogue(history, id);
	if (history->strict && history->moves && !history->unkept) {
		printf("%u members of the sealed channel had to move, although it was kept\n",
		       history->moves);
		bad++;
	}
	printf("%u brokers were killed while nobody kept what is sealed; %u of its members moved, and %u "
	       "sealed lanes were lost with them\n",
	       history->unkept, history->moves, missed);
	return bad;
}
