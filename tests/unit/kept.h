/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_KEPT_H
#define SHMB_TESTS_KEPT_H

/* What the registry of the daemon says that it keeps; for who has daemon.h and @instance. */

/* Entries of a kind in the registry that have these flags. */
static unsigned count_entries(uint32_t kind, uint32_t flags)
{
	struct shmb_registry_entry entry;
	char path[64];
	unsigned n = 0;
	off_t at = SHMB_BLOCK_LEN;
	int fd;

	snprintf(path, sizeof(path), "/dev/shm/shmb.%s.registry", instance);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	for (; pread(fd, &entry, sizeof(entry), at) == sizeof(entry); at += sizeof(entry))
		n += entry.state == SHMB_ENTRY_LIVE && entry.kind == kind &&
		     (entry.flags & flags) == flags;
	close(fd);
	return n;
}

/* Counted while one takes the place of another there can be less for a moment. */
static void await_entries(uint32_t kind, uint32_t flags, unsigned wanted)
{
	unsigned n = count_entries(kind, flags);

	for (int i = 0; i < 5000 && n != wanted; i++) {
		usleep(1000);
		n = count_entries(kind, flags);
	}
	ck_assert_uint_eq(n, wanted);
}

/* The lanes of so many publishers that have gone are there. */
static void keeps(unsigned wanted)
{
	await_entries(SHMB_ENTRY_PUBLISHER, SHMB_MEMBER_KEPT, wanted);
}

#endif
