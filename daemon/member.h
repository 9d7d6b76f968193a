/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_MEMBER_H
#define SHMB_DAEMON_MEMBER_H

#include "daemon/model.h"

/**
 * member_new() - attach a publisher or subscriber that nobody else sees yet
 * @channel: channel
 * @client:  client
 * @attach:  as asked for, checked
 * @private: whom a publisher's lane is for; zeroes: all subscribers
 * @ret_member: stores the member
 *
 * Return: 0; -EUSERS: the channel has no slot left; -EDQUOT; -ENOSPC; -ENOMEM; -EMFILE; another
 *	   negative errno value.
 */
int member_new(struct channel *channel, struct client *client, const struct shmb_msg_attach *attach,
	       const struct shmb_msg_attach_private *private, struct member **ret_member);

/**
 * member_copy() - a lane that the broker writes
 * @of:	  the copy is of what is left of this pair, and of all that are left with lower ids
 * @last: a publisher of these goes as soon as there is the copy
 * @ret_member: stores a publisher that is kept and that nobody sees yet
 *
 * The caller fills its segment and makes its pairs, and then calls member_settle_copy().
 *
 * Return: 0; -EUSERS: no slot of the cursors is left; -ENOSPC; -ENOMEM; -EMFILE; another negative errno
 *	   value.
 */
int member_copy(const struct pair *of, bool last, struct member **ret_member);

/* It and all its pairs are as they are to be: the subscribers are told of it. */
void member_settle_copy(struct member *copy);

/* Takes over what an earlier broker has noted. @client NULL: of one that has gone. */
int member_adopt(struct channel *channel, struct client *client,
		 const struct shmb_registry_entry *entry, uint32_t slot);

/*
 * The channel inherits what a publisher of a state channel has left whose process has died while there
 * was no broker.
 */
void member_inherit(struct channel *channel, const struct shmb_registry_entry *entry);

/**
 * member_activate() - let it meet the others
 * @member: its client has allocated its segment
 *
 * Return: 0; -EALREADY; -EINVAL: the segment has not its length; -ENOMEM: it is not allocated, or
 *	   there is no memory for a pair; -EDQUOT; -ENOSPC; -EMFILE. Nothing has changed then.
 */
int member_activate(struct member *member);

/**
 * member_prepare() - make the segment that it is to move to, if it has to move and may move now
 * @member: active; its client is told with the next flush, if it knows the member
 *
 * Return: 0; -ENOSPC; -ENOMEM; -EMFILE; another negative errno value.
 */
int member_prepare(struct member *member);

/*
 * Should it wait with what subscribers have to be told before they can read on? Those that are coming back
 * do not hear it yet, and never would if we died now. It waits for a second at most, once for each channel.
 */
bool member_must_wait(struct member *publisher);

/* Its client writes another segment than this, with that id: a broker died before it was told. */
void member_lose(struct member *member, uint32_t id);

/**
 * member_choose_backing() - somebody is about to join
 * @channel: channel
 * @uid:     of the newcomer
 *
 * A channel that is to choose by itself is sealed as soon as its members are of more than one uid;
 * those who are there have to move.
 *
 * Return: as member_prepare(): nothing has changed then.
 */
int member_choose_backing(struct channel *channel, uint32_t uid);

/**
 * member_resume() - its client is back and knows it
 * @member: member; gets a new doorbell if it has had this one
 *
 * The caller announces its pairs with member_announce() after it has answered.
 *
 * Return: 0, -EMFILE, -ENFILE, -ENOMEM.
 */
int member_resume(struct member *member);

/* Tells the member of all its pairs, and its peers of its new doorbell. */
void member_announce(struct member *member);

/* Bytes of its segment. */
uint64_t member_segment_len(const struct channel *channel, uint32_t role);

/**
 * member_free() - detach it, and free what nobody needs any more
 * @member: member that is not kept
 * @reason: SHMB_GONE_*; EVICTED also tells its client
 *
 * One whose segment somebody needs is kept: see keep.h.
 */
void member_free(struct member *member, uint32_t reason);

/*
 * Frees the members that a client has closed without our having heard of it: those that say so in their
 * own memory. Their channels must stay meanwhile.
 */
void member_free_left(struct client *client);

/* Frees one that is kept, if nobody needs its segment any more. Does nothing with others. */
void member_put(struct member *member);

/* Nobody is left on a queue: frees what was kept there for others. */
void member_drop_left(struct channel *channel);

/* What is kept of publishers of the channel for late subscribers is for nobody new from now on. */
void member_drop_history(struct channel *channel);

/* Gives up the oldest lane of a user that is kept for late subscribers. Returns whether there was one. */
bool member_make_room(void *data, const struct quota_user *user);

/* The broker stops: frees what is kept, which has no pairs any more with others. */
void member_forget_kept(struct channel *channel);

/* After a restart: keeps the segments of those who have died meanwhile for those who need them. */
void member_settle_kept(struct channel *channel);

#endif
