/* SPDX-License-Identifier: Apache-2.0 */

/* Mistakes of a broker, by functions that the linker puts in the place of its own. */

#include <errno.h>
#include <sys/mman.h>

#include "daemon/adopt.h"
#include "daemon/member.h"

#include "tests/kill/world.h"

/* Only where it is wrapped. */
int __real_shm_unlink(const char *name) __attribute__((__weak__));
int __wrap_shm_unlink(const char *name);
void __wrap_registry_set_flags(struct registry *registry, uint32_t slot, uint32_t flags);
int __wrap_member_adopt(struct channel *channel, struct client *client,
			const struct shmb_registry_entry *entry, uint32_t slot);

void __wrap_adopt_announce(struct broker *broker);
bool __wrap_registry_is_superseded(const struct registry *registry);
int __wrap_member_resume(struct member *member);

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
