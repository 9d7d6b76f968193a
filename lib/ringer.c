/* SPDX-License-Identifier: Apache-2.0 */

/* Ringers: what a peer that sleeps on an fd is woken with. */

#include "lib/ringer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/fd.h"

static void ring_fd(int fd, uint32_t kind)
{
	static const uint64_t one = 1;
	ssize_t ignored;

	/*
	 * Whatever goes wrong, the sleeper has been rung before or is gone. An eventfd is only used
	 * inside one uid, since whoever holds it could make the write block.
	 */
	if (kind == SHMB_FD_EVENTFD)
		ignored = write(fd, &one, sizeof(one));
	else
		ignored = send(fd, &one, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)ignored;
}

void shmb_ringer_ring(const struct shmb_ringer *ringer)
{
	for (uint32_t i = 0; i < ringer->n; i++)
		ring_fd(ringer->fds[i].fd, ringer->fds[i].kind);
}

void shmb_ringer_drop_oldest(struct shmb_ringer *ringer)
{
	shmb_fd_close(ringer->fds[0].fd);
	ringer->n--;
	memmove(&ringer->fds[0], &ringer->fds[1], ringer->n * sizeof(ringer->fds[0]));
}

uint32_t shmb_ringer_settle(struct shmb_ringer *ringer, uint32_t generation)
{
	uint32_t older = 0;

	/*
	 * That very one: an older one that we have been given the peer may never have seen, if the
	 * broker died between the two of us.
	 */
	while (older < ringer->n && ringer->fds[older].generation != generation)
		older++;
	if (older == ringer->n)
		older = 0;
	while (older-- > 0)
		shmb_ringer_drop_oldest(ringer);
	return ringer->n ? ringer->fds[0].generation : 0;
}

void shmb_ringer_deinit(struct shmb_ringer *ringer)
{
	while (ringer->n)
		shmb_ringer_drop_oldest(ringer);
	free(ringer->fds);
	ringer->fds = NULL;
}

/* Is it what it is said to be, and something that can be rung? Other files could block a write. */
int shmb_ringer_verify(const struct shmb_event *event, int index)
{
	const struct shmb_fd_descriptor *descriptor = &event->descriptors[index];

	if (descriptor->kind != SHMB_FD_EVENTFD && descriptor->kind != SHMB_FD_SOCKET)
		return shmb_fail(-EPROTO, "the broker gave a doorbell of kind %u",
				 descriptor->kind);
	return shmb_fd_verify(event->fds[index], descriptor);
}

void shmb_ringer_add(struct shmb_ringer *ringer, struct shmb_event *event)
{
	int index = shmb_event_find(event, SHMB_FD_ROLE_RINGER);
	struct shmb_ringer_fd *grown;

	if (index < 0 || shmb_ringer_verify(event, index) < 0)
		return;
	if (ringer->n && ringer->fds[ringer->n - 1].generation >= event->pair.doorbell_generation)
		return; /* told twice: that one works */
	grown = realloc(ringer->fds, (ringer->n + 1) * sizeof(*grown));
	if (!grown)
		return;
	ringer->fds = grown;
	grown[ringer->n++] = (struct shmb_ringer_fd){
		.fd = event->fds[index],
		.kind = event->descriptors[index].kind,
		.generation = event->pair.doorbell_generation,
	};
	event->fds[index] = -1;
}
