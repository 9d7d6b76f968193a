/* SPDX-License-Identifier: Apache-2.0 */

/* What clients say of pairs of their members, and of members that have come back with theirs. */

#include <errno.h>
#include <string.h>

#include "daemon/channel.h"
#include "daemon/member.h"
#include "daemon/pair.h"
#include "daemon/request.h"
#include "daemon/view.h"

/* One of the member's pairs, or NULL. */
static struct pair *find_pair(const struct request *request, const struct member *member,
			      uint64_t id)
{
	struct object *object = broker_find(request->connection->broker, id, SHMB_ENTRY_PAIR);
	struct pair *pair = object ? shmb_container_of(object, struct pair, object) : NULL;

	return pair && pair->members[member->role - 1] == member ? pair : NULL;
}

/* The pair of a member and a peer that may not exist, or NULL. */
static struct pair *find_pair_with(const struct request *request, const struct member *member,
				   uint64_t peer_id)
{
	bool publisher = member->role == SHMB_ROLE_PUBLISHER;
	struct object *object =
		broker_find(request->connection->broker, peer_id,
			    publisher ? SHMB_ENTRY_SUBSCRIBER : SHMB_ENTRY_PUBLISHER);
	struct member *peer = object ? shmb_container_of(object, struct member, object) : NULL;

	if (!peer)
		return NULL;
	return publisher ? pair_find(member, peer) : pair_find(peer, member);
}

static int resume_pair(struct request *request, struct member *member, uint64_t id,
		       uint64_t peer_id)
{
	struct pair *pair = find_pair(request, member, id);
	struct view *view;

	/* A broker that has died may have put another one in its place. */
	if (!pair)
		pair = find_pair_with(request, member, peer_id);
	if (!pair)
		return view_deny(request->client, id, object_id(&member->object));
	view = pair->views[member->role - 1];
	/* The newest that it knows. */
	if (object_id(&pair->object) != id && id > view->known_id)
		view->known_id = id;
	/* It may not be shown soon, but the client will have to be told when it ends. */
	view->shown = true;
	return 0;
}

/* What the client says of its pairs: those that are gone it has to be told of. */
static int resume_pairs(struct request *request, struct member *member, uint32_t n_pairs)
{
	const uint8_t *ids = request->message->body + sizeof(struct shmb_msg_resume);
	const uint8_t *peers = ids + n_pairs * sizeof(uint64_t);
	bool with_peers = peers < request->message->body + request->message->body_len;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < n_pairs; i++) {
		uint64_t id, peer_id = 0;

		memcpy(&id, ids + i * sizeof(id), sizeof(id));
		if (with_peers)
			memcpy(&peer_id, peers + i * sizeof(peer_id), sizeof(peer_id));
		r = resume_pair(request, member, id, peer_id);
	}
	return r;
}

int request_handle_resume(struct request *request)
{
	const struct shmb_message *message = request->message;
	struct shmb_msg_resume resume;
	struct member *member;
	int r;

	if (message->body_len < sizeof(resume))
		return -EINVAL;
	memcpy(&resume, message->body, sizeof(resume));
	if (resume.n_pairs > SHMB_PACKET_LEN_MAX ||
	    (message->body_len != sizeof(resume) + resume.n_pairs * sizeof(uint64_t) &&
	     message->body_len != sizeof(resume) + 2 * resume.n_pairs * sizeof(uint64_t)))
		return -EINVAL;
	member = request_find_member(request, resume.member_id);
	if (!member || object_id(&member->channel->object) != resume.channel_id)
		return -ESTALE;
	view_drop_denials(request->client, resume.member_id);
	if (resume.segment && (uint32_t)member->object.segment.id != resume.segment)
		member_lose(member, resume.segment);
	r = member_resume(member);
	/* After the pairs that are shown anew: one of them may replace one that is gone. */
	if (r == 0)
		r = resume_pairs(request, member, resume.n_pairs);
	if (r < 0)
		return r;
	request->resumed = true;
	return request_grant(request, member);
}

/*
 * A report is an accusation that the broker cannot check. Inside one user it is believed: the
 * member is thrown out. From another user it only parts the two, or else any subscriber could
 * silence any publisher; and so does reason 0: the reporter itself had no memory or fds for it.
 */
int request_handle_report(struct request *request)
{
	struct broker *broker = request->connection->broker;
	struct member *member, *accused;
	struct shmb_msg_report report;
	struct pair *pair;
	bool believed;
	int r;

	r = request_body(request, &report, sizeof(report));
	if (r < 0)
		return r;
	member = request_find_member(request, report.member_id);
	/* Gone by itself meanwhile: so much the better. */
	pair = member ? find_pair(request, member, report.pair_id) : NULL;
	if (!pair)
		return 0;
	accused = pair->members[member->role == SHMB_ROLE_PUBLISHER];
	if (member_is_kept(accused))
		return 0; /* its lane stays until the reporter can have it */
	believed = report.reason &&
		   (request->client->uid == 0 || request->client->uid == accused->client->uid);
	log_line(&broker->log, LOG_WARNING, believed ? "member-evicted" : "pair-severed",
		 "member=%llu pid=%u uid=%u reporter=%llu reporter_pid=%u rule=%u",
		 (unsigned long long)object_id(&accused->object), accused->client->pid,
		 accused->client->uid, (unsigned long long)report.member_id, request->client->pid,
		 report.reason);
	if (believed) {
		member_free(accused, SHMB_GONE_EVICTED);
	} else {
		struct channel *channel = member->channel;

		pair_free(pair, NULL, SHMB_GONE_PARTED);
		channel_changed(channel);
	}
	return 0;
}

/*
 * A publisher has stopped waiting for a subscriber, as that one has agreed to. Nobody has to be told:
 * the two know from their bell. This is for whoever looks for the reason of a loss.
 */
int request_handle_overtake(struct request *request)
{
	struct member *member, *subscriber;
	struct shmb_msg_report report;
	struct pair *pair;
	int r;

	r = request_body(request, &report, sizeof(report));
	if (r < 0)
		return r;
	member = request_find_member(request, report.member_id);
	pair = member ? find_pair(request, member, report.pair_id) : NULL;
	if (!pair || pair->evicted || member_is_kept(pair->members[1]))
		return 0;
	subscriber = pair->members[1];
	if (member->role != SHMB_ROLE_PUBLISHER || !subscriber->evict_after_ms)
		return -EINVAL;
	pair->evicted = true;
	log_line(
		&request->connection->broker->log, LOG_WARNING, "subscriber-evicted",
		"channel=%llu member=%llu pid=%u uid=%u publisher=%llu publisher_pid=%u after_ms=%u",
		(unsigned long long)object_id(&member->channel->object),
		(unsigned long long)object_id(&subscriber->object), subscriber->client->pid,
		subscriber->client->uid, (unsigned long long)report.member_id, request->client->pid,
		subscriber->evict_after_ms);
	return 0;
}

/* A pair that the member knows by this id, which may be that of an earlier one of the two; or NULL. */
static struct pair *find_known_pair(const struct request *request, const struct member *member,
				    uint64_t id)
{
	struct pair *known = find_pair(request, member, id);
	unsigned mine = member->role - 1;
	struct list *link, *safe;

	list_for_each(link, safe, &member->pairs)
	{
		struct pair *pair = list_entry(link, struct pair, member_links[mine]);

		if (!known && pair->views[mine]->known_id == id)
			known = pair;
	}
	return known;
}

/*
 * A lane that was kept has been read to its end, or what a worker has left was given to others. Who asks
 * again is told again, too.
 */
int request_handle_drained(struct request *request)
{
	struct shmb_msg_report drained;
	struct member *member, *peer;
	struct pair *pair;
	int r;

	r = request_body(request, &drained, sizeof(drained));
	if (r < 0)
		return r;
	member = request_find_member(request, drained.member_id);
	pair = member ? find_known_pair(request, member, drained.pair_id) : NULL;
	if (!pair)
		return 0;
	peer = pair->members[member->role == SHMB_ROLE_PUBLISHER];
	if (!member_is_kept(peer))
		return -EINVAL;
	pair_free(pair, NULL, SHMB_GONE_DETACHED);
	member_put(peer);
	return 0;
}
