/* SPDX-License-Identifier: Apache-2.0 */

/* Mistakes of a broker, by functions that the linker puts in the place of its own. */

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/adopt.h"
#include "daemon/estate.h"
#include "daemon/keep.h"
#include "daemon/member.h"
#include "daemon/pair.h"
#include "daemon/store.h"

#include "tests/kill/world.h"

#if defined(SHMB_MUTATE_KEEP) || defined(SHMB_MUTATE_LEFT)
#define LINGER 60
#else
#define LINGER 8
#endif

/* Only where it is wrapped. */
int __real_shm_unlink(const char *name) __attribute__((__weak__));
int __wrap_shm_unlink(const char *name);
void __wrap_registry_set_flags(struct registry *registry, uint32_t slot, uint32_t flags);
int __wrap_member_adopt(struct channel *channel, struct client *client,
			const struct shmb_registry_entry *entry, uint32_t slot);

int __real_store_send(int socket_fd, const struct sockaddr_un *to, socklen_t to_len,
		      const char *text, int fd) __attribute__((__weak__));
int __wrap_store_send(int socket_fd, const struct sockaddr_un *to, socklen_t to_len,
		      const char *text, int fd);
void __wrap_adopt_announce(struct broker *broker);
bool __wrap_keep_owed(const struct pair *pair, unsigned leaver);
void __wrap_estate_adopt(struct channel *channel);
void __real_member_settle_copy(struct member *copy) __attribute__((__weak__));
void __wrap_member_settle_copy(struct member *copy);
void __real_pair_announce(struct pair *pair) __attribute__((__weak__));
void __wrap_pair_announce(struct pair *pair);
bool __wrap_registry_is_superseded(const struct registry *registry);
int __wrap_member_resume(struct member *member);
int __real_registry_add(struct registry *registry, const struct shmb_registry_entry *entry,
			uint32_t *ret_slot) __attribute__((__weak__));
int __wrap_registry_add(struct registry *registry, const struct shmb_registry_entry *entry,
			uint32_t *ret_slot);
bool __real_registry_remove(struct registry *registry, uint32_t slot) __attribute__((__weak__));
bool __wrap_registry_remove(struct registry *registry, uint32_t slot);

/* A sample hits system calls; this is enough of them. */
static void linger(void)
{
	for (int i = 0; i < LINGER; i++)
		getppid();
}

/* There is an entry before its segment is complete. */
int __wrap_registry_add(struct registry *registry, const struct shmb_registry_entry *entry,
			uint32_t *ret_slot)
{
	static const uint8_t empty[SHMB_BLOCK_LEN];
	uint8_t whole[SHMB_BLOCK_LEN];
	int r, fd = shm_open((const char *)entry->segment, O_RDWR, 0);

	if (fd < 0)
		return __real_registry_add(registry, entry, ret_slot);
	if (pread(fd, whole, sizeof(whole), 0) != sizeof(whole) ||
	    pwrite(fd, empty, sizeof(empty), 0) != sizeof(empty))
		return -EIO;
	r = __real_registry_add(registry, entry, ret_slot);
	linger();
	if (pwrite(fd, whole, sizeof(whole), 0) != sizeof(whole))
		r = -EIO;
	close(fd);
	return r;
}

#ifdef SHMB_MUTATE_KEEP
/* A broker that was stopped and replaced gives up what its successor has. */
bool __wrap_registry_remove(struct registry *registry, uint32_t slot)
{
	linger();
	__real_registry_remove(registry, slot);
	return true;
}
#else
/* A segment is removed before its entry. */
bool __wrap_registry_remove(struct registry *registry, uint32_t slot)
{
	struct shmb_registry_entry entry;

	if (slot != REGISTRY_NO_ENTRY && registry->map && registry_get(registry, slot, &entry)) {
		shm_unlink((const char *)entry.segment);
		linger();
	}
	return __real_registry_remove(registry, slot);
}
#endif

/* A keeper is told of every other sealed segment only. */
int __wrap_store_send(int socket_fd, const struct sockaddr_un *to, socklen_t to_len,
		      const char *text, int fd)
{
	static unsigned n;

	return fd >= 0 && ++n % 2 ? 0 : __real_store_send(socket_fd, to, to_len, text, fd);
}

/* Nobody hears of a successor: the epochs stay as they were. */
void __wrap_adopt_announce(struct broker *broker)
{
	(void)broker;
}

/* A broker that was stopped and replaced goes on as if it had not been. */
bool __wrap_registry_is_superseded(const struct registry *registry)
{
	(void)registry;
	return false;
}

/* Who comes back is not shown its pairs anew, nor given another segment for one that is lost. */
int __wrap_member_resume(struct member *member)
{
	member->present = true;
	return 0;
}

/* What a killed broker had not noted yet is not swept. */
int __wrap_shm_unlink(const char *name)
{
	return world_serves() ? __real_shm_unlink(name) : 0;
}

/* It is not noted that a member has been announced. */
void __wrap_registry_set_flags(struct registry *registry, uint32_t slot, uint32_t flags)
{
	(void)registry;
	(void)slot;
	(void)flags;
}

/* Lanes go with their publishers, whoever has still to read them. */
bool __wrap_keep_owed(const struct pair *pair, unsigned leaver)
{
	(void)pair;
	(void)leaver;
	return false;
}

/* What is left is copied again by a successor. */
void __wrap_estate_adopt(struct channel *channel)
{
	(void)channel;
}

void __wrap_member_settle_copy(struct member *copy)
{
	__real_member_settle_copy(copy);
	linger();
}

/* A publisher is told where to move to before its subscriber is. */
void __wrap_pair_announce(struct pair *pair)
{
	pair->replaces = false;
	__real_pair_announce(pair);
}

/* Members are not taken over. */
int __wrap_member_adopt(struct channel *channel, struct client *client,
			const struct shmb_registry_entry *entry, uint32_t slot)
{
	(void)channel;
	(void)client;
	(void)entry;
	(void)slot;
	return -EINVAL;
}
