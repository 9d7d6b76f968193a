/* SPDX-License-Identifier: Apache-2.0 */

/* The doorbells of a member: those that it has, and those that it can do without. */

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "lib/error.h"
#include "lib/fd.h"
#include "lib/member-internal.h"

/* Returns whether it is watched. Nobody sleeps on what is not: see shmb_member_epoll(). */
bool shmb_member_watch(struct shmb_member *member, int fd, uint64_t cookie)
{
	/* Edge-triggered: an eventfd is never read, each write wakes once. */
	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.u64 = cookie };

	if (member->epoll_fd < 0 || epoll_ctl(member->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ||
	    errno == EEXIST)
		return true;
	member->watch_error = errno;
	return false;
}

int shmb_member_add_doorbell(struct shmb_member *member, struct shmb_event *event, uint64_t pair_id)
{
	int index = shmb_event_find(event, SHMB_FD_ROLE_DOORBELL);
	struct shmb_doorbell *grown;
	int result;

	if (index < 0)
		return 0;
	result = shmb_ringer_verify(event, index);
	if (result < 0)
		return result;
	grown = realloc(member->doorbells, (member->n_doorbells + 1) * sizeof(*grown));
	if (!grown)
		return shmb_fail(-ENOMEM, "no memory for a doorbell");
	member->doorbells = grown;
	grown[member->n_doorbells++] = (struct shmb_doorbell){
		.fd = event->fds[index],
		.kind = event->descriptors[index].kind,
		.generation = event->type == SHMB_MSG_GRANT ? event->generation
							    : event->pair.doorbell_generation,
		.pair_id = pair_id,
	};
	shmb_member_watch(member, event->fds[index], (uint64_t)event->fds[index]);
	event->fds[index] = -1;
	member->doorbell_changes++;
	return 0;
}

void shmb_member_remove_doorbell(struct shmb_member *member, uint32_t index)
{
	shmb_fd_close(member->doorbells[index].fd);
	member->doorbells[index] = member->doorbells[--member->n_doorbells];
	member->doorbell_changes++;
}

void shmb_member_drop_doorbells(struct shmb_member *member, uint64_t pair_id)
{
	for (uint32_t i = member->n_doorbells; i-- > 0;)
		if (member->doorbells[i].pair_id == pair_id)
			shmb_member_remove_doorbell(member, i);
}

uint32_t shmb_member_doorbell_generation(const struct shmb_member *member)
{
	uint32_t newest = 0;

	for (uint32_t i = 0; i < member->n_doorbells; i++)
		if (!member->doorbells[i].pair_id && member->doorbells[i].generation > newest)
			newest = member->doorbells[i].generation;
	return newest;
}

void shmb_member_retire_doorbells(struct shmb_member *member, uint32_t oldest)
{
	uint32_t newest = shmb_member_doorbell_generation(member);

	for (uint32_t i = member->n_doorbells; i-- > 0;)
		if (!member->doorbells[i].pair_id && member->doorbells[i].generation < newest &&
		    member->doorbells[i].generation < oldest)
			shmb_member_remove_doorbell(member, i);
}

uint32_t shmb_member_settle_sockets(struct shmb_member *member, struct shmb_ringer *ringer,
				    uint64_t pair_id, uint32_t generation)
{
	uint32_t known = 0;

	while (known < ringer->n && ringer->fds[known].generation != generation)
		known++;
	if (known && known < ringer->n) {
		while (known--)
			shmb_ringer_drop_oldest(ringer);
		for (uint32_t i = member->n_doorbells; i-- > 0;)
			if (member->doorbells[i].pair_id == pair_id &&
			    member->doorbells[i].generation < generation)
				shmb_member_remove_doorbell(member, i);
	}
	return ringer->n ? ringer->fds[ringer->n - 1].generation : 0;
}

void shmb_member_drain_doorbells(struct shmb_member *member)
{
	char bytes[64];

	for (uint32_t i = 0; i < member->n_doorbells; i++)
		if (member->doorbells[i].kind == SHMB_FD_SOCKET)
			while (recv(member->doorbells[i].fd, bytes, sizeof(bytes), MSG_DONTWAIT) ==
			       (ssize_t)sizeof(bytes))
				;
}
