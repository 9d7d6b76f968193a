/* SPDX-License-Identifier: Apache-2.0 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/fd.h"

#include "daemon/registry.h"
#include "daemon/segment.h"

#define ENTRY_LEN	sizeof(struct shmb_registry_entry)
#define ENTRIES_MIN	((65536 - SHMB_BLOCK_LEN) / ENTRY_LEN)
#define ENTRIES_MAX	(1u << 24)
#define REGISTRY_LEN(n) (SHMB_BLOCK_LEN + (uint64_t)(n)*ENTRY_LEN)

static struct shmb_registry_entry *entry_at(const struct registry *registry, uint32_t slot)
{
	uint8_t *entries = (uint8_t *)registry->map + SHMB_BLOCK_LEN;

	return (void *)(entries + (size_t)slot * ENTRY_LEN);
}

static uint64_t now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

void registry_name(uint64_t instance, char name[SHMB_SEGMENT_NAME_LEN_MAX])
{
	snprintf(name, SHMB_SEGMENT_NAME_LEN_MAX, "/shmb.%016llx.registry",
		 (unsigned long long)instance);
}

/* Rebuilds the stack of free entries; low ones are given out first. */
static int registry_index(struct registry *registry)
{
	uint32_t *stack = realloc(registry->free, registry->n_entries * sizeof(uint32_t));

	if (!stack)
		return -ENOMEM;
	registry->free = stack;
	registry->n_free = 0;
	for (uint32_t i = registry->n_entries; i > 0; i--)
		/* Only the broker writes here, and there is one. */
		if (entry_at(registry, i - 1)->state != SHMB_ENTRY_LIVE)
			registry->free[registry->n_free++] = i - 1;
	return 0;
}

int registry_create(struct registry *registry, uint64_t instance)
{
	struct shmb_segment_header header = {
		.magic = SHMB_SEGMENT_MAGIC,
		.byte_order = SHMB_BYTE_ORDER,
		.version = 1,
		.kind = SHMB_SEGMENT_REGISTRY,
		.block_len = SHMB_BLOCK_LEN,
		.segment_len = REGISTRY_LEN(ENTRIES_MIN),
		.instance = instance,
	};
	int r;

	*registry = (struct registry){ .n_entries = ENTRIES_MIN, .len = REGISTRY_LEN(ENTRIES_MIN) };
	registry_name(instance, registry->name);
	registry->fd = shm_open(registry->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (registry->fd < 0)
		return -errno;
	r = segment_allocate(registry->fd, 0, registry->len);
	if (r == 0) {
		registry->map = segment_map(registry->fd, registry->len);
		r = registry->map ? registry_index(registry) : -ENOMEM;
	}
	if (r < 0) {
		registry_destroy(registry);
		return r;
	}
	registry->map->next_id = 1;
	registry->map->entry_len = ENTRY_LEN;
	/* Killed before this: no registry, as registry_load() sees it; the object is swept. */
	registry->map->header = header;
	return 0;
}

static bool entry_plausible(const struct registry *registry,
			    const struct shmb_registry_entry *entry)
{
	return entry->kind >= SHMB_ENTRY_CLIENT && entry->kind <= SHMB_ENTRY_KEEPER &&
	       entry->id != 0 && entry->id < registry->map->next_id &&
	       entry->name_len <= SHMB_NAME_LEN_MAX &&
	       memchr(entry->segment, '\0', sizeof(entry->segment)) != NULL;
}

int registry_load(struct registry *registry, uint64_t instance)
{
	const struct shmb_segment_header *header;
	struct stat st;
	int r = -EINVAL;

	*registry = (struct registry){ 0 };
	registry_name(instance, registry->name);
	registry->fd = shm_open(registry->name, O_RDWR | O_CLOEXEC, 0);
	if (registry->fd < 0)
		return -errno;
	if (fstat(registry->fd, &st) < 0) {
		r = -errno;
		goto fail;
	}
	if (st.st_uid != geteuid() || !S_ISREG(st.st_mode) ||
	    (uint64_t)st.st_size < REGISTRY_LEN(1) ||
	    (uint64_t)st.st_size > REGISTRY_LEN(ENTRIES_MAX))
		goto fail;
	registry->n_entries = (uint32_t)(((uint64_t)st.st_size - SHMB_BLOCK_LEN) / ENTRY_LEN);
	registry->len = REGISTRY_LEN(registry->n_entries);
	/* A part of an entry at the end would come alive, unchecked, when the file grows. */
	if ((uint64_t)st.st_size != registry->len &&
	    ftruncate(registry->fd, (off_t)registry->len) < 0) {
		r = -errno;
		goto fail;
	}
	/* A broker killed while it enlarged the file may have left a part without memory. */
	r = segment_allocate(registry->fd, 0, registry->len);
	if (r < 0)
		goto fail;
	r = -ENOMEM;
	registry->map = segment_map(registry->fd, registry->len);
	if (!registry->map)
		goto fail;
	r = -EINVAL;
	header = &registry->map->header;
	if (header->magic != SHMB_SEGMENT_MAGIC || header->byte_order != SHMB_BYTE_ORDER ||
	    header->version != 1 || header->kind != SHMB_SEGMENT_REGISTRY ||
	    header->instance != instance || registry->map->entry_len != ENTRY_LEN)
		goto fail;
	for (uint32_t i = 0; i < registry->n_entries; i++)
		if (!entry_plausible(registry, entry_at(registry, i)))
			entry_at(registry, i)->state = SHMB_ENTRY_FREE;
	r = registry_index(registry);
	if (r == 0)
		return 0;
fail:
	registry_release(registry);
	return r;
}

uint32_t registry_last_broker(uint64_t instance)
{
	struct shmb_registry_segment head;
	char name[SHMB_SEGMENT_NAME_LEN_MAX];
	uint32_t pid = 0;
	struct stat st;
	int fd;

	registry_name(instance, name);
	fd = shm_open(name, O_RDONLY | O_CLOEXEC, 0);
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid() &&
	    pread(fd, &head, sizeof(head), 0) == sizeof(head) &&
	    head.header.magic == SHMB_SEGMENT_MAGIC && head.header.instance == instance)
		pid = head.broker_pid;
	shmb_fd_close(fd);
	return pid;
}

void registry_start(struct registry *registry, const char *address)
{
	struct shmb_registry_segment *map = registry->map;
	size_t len = strnlen(address, sizeof(map->address));

	map->address_len = 0;
	memcpy(map->address, address, len);
	map->address_len = (uint32_t)len;
	/* What is compared must not be stepped; nothing in /dev/shm is older than the boot. */
	map->started_ns = now_ns(CLOCK_BOOTTIME);
	map->broker_pid = (uint32_t)getpid();
	registry->epoch = map->broker_epoch + 1;
	/* pairs with the acquire load of an inspector: a new epoch has its pid and address */
	__atomic_store_n(&map->broker_epoch, registry->epoch, __ATOMIC_RELEASE);
	/*
	 * pairs with the fence in registry_is_superseded() of a predecessor that still runs: either
	 * we find what it has noted, or it finds us.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

bool registry_is_superseded(const struct registry *registry)
{
	/* pairs with the fence in registry_start() of a successor: it has seen what we have noted */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return registry->map && registry->epoch &&
	       __atomic_load_n(&registry->map->broker_epoch, __ATOMIC_RELAXED) != registry->epoch;
}

/* Has another one left this object, or begun to? Then ours would be put over its own. */
static bool is_left(const struct registry *registry)
{
	struct stat st;

	return registry_is_superseded(registry) || fstat(registry->fd, &st) < 0 || !st.st_nlink;
}

/*
 * Killed in here: the old object is in use, and what is left of the new one is swept. Stopped in
 * here and replaced: the other one has removed what is left of the new one, so that it gets no name.
 */
int registry_supersede(struct registry *registry)
{
	char name[SHMB_SEGMENT_NAME_LEN_MAX + 8], from[sizeof(name) + 16], to[sizeof(name) + 16];
	struct registry next = *registry;
	int r;

	snprintf(name, sizeof(name), "%s.new", registry->name);
	snprintf(from, sizeof(from), "/dev/shm%s", name);
	snprintf(to, sizeof(to), "/dev/shm%s", registry->name);
	shm_unlink(name);
	next.fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (next.fd < 0)
		return -errno;
	r = segment_allocate(next.fd, 0, next.len);
	if (r == 0) {
		next.map = segment_map(next.fd, next.len);
		r = next.map ? 0 : -ENOMEM;
	}
	if (r == 0) {
		memcpy(next.map, registry->map, registry->len);
		r = is_left(registry) ? -ESTALE : rename(from, to) < 0 ? -errno : 0;
		if (r < 0)
			munmap(next.map, next.len);
	}
	if (r < 0) {
		shmb_fd_close(next.fd);
		shm_unlink(name);
		return r;
	}
	munmap(registry->map, registry->len);
	shmb_fd_close(registry->fd);
	*registry = next;
	return 0;
}

/* Sets @ret_instance if it is one. */
static int look_for_address(int fd, const char *address, bool replace, uint64_t *ret_instance,
			    uint64_t *ret_ns)
{
	struct shmb_registry_segment head;
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_uid != geteuid() || !S_ISREG(st.st_mode))
		return 0;
	do
		n = pread(fd, &head, sizeof(head), 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n != sizeof(head) || head.header.magic != SHMB_SEGMENT_MAGIC ||
	    head.header.kind != SHMB_SEGMENT_REGISTRY || head.address_len != strlen(address) ||
	    head.address_len > sizeof(head.address) ||
	    memcmp(head.address, address, head.address_len) != 0)
		return 0;
	/* One that runs, with another directory, keeps it. */
	if (!replace && (kill((pid_t)head.broker_pid, 0) == 0 || errno != ESRCH))
		return 0;
	if (head.started_ns < *ret_ns)
		return 0;
	*ret_instance = head.header.instance;
	*ret_ns = head.started_ns;
	return 0;
}

/* Of other users there are some that we may not open, and any of them may go meanwhile. */
static int look_at(int dir_fd, const char *name, const char *address, bool replace,
		   uint64_t *ret_instance, uint64_t *ret_ns)
{
	const char *end = strrchr(name, '.');
	int fd, r;

	if (strncmp(name, "shmb.", 5) != 0 || !end || strcmp(end, ".registry") != 0)
		return 0;
	fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return shmb_fd_shortage(errno) || errno == EINTR ? -errno : 0;
	r = look_for_address(fd, address, replace, ret_instance, ret_ns);
	shmb_fd_close(fd);
	return r;
}

int registry_find(const char *address, bool replace, uint64_t *ret_instance)
{
	DIR *dir = opendir("/dev/shm");
	struct dirent *entry;
	uint64_t found_ns = 0;
	int r = 0;

	*ret_instance = 0;
	if (!dir)
		return -errno;
	do {
		errno = 0;
		entry = readdir(dir);
		r = entry ? look_at(dirfd(dir), entry->d_name, address, replace, ret_instance,
				    &found_ns)
			  : -errno;
	} while (entry && r == 0);
	closedir(dir);
	return r;
}

uint64_t registry_next_id(struct registry *registry)
{
	uint64_t id = registry->map->next_id;

	/*
	 * Before anybody hears of the id. Killed before: nobody has it; after: it is never used.
	 * pairs with nothing but a successor, which begins after our last instruction.
	 */
	__atomic_store_n(&registry->map->next_id, id + 1, __ATOMIC_RELEASE);
	return id;
}

uint64_t registry_epoch(const struct registry *registry)
{
	return registry->map->broker_epoch;
}

/* Killed in here: the file is longer than it was, with FREE entries at its end. */
static int registry_grow(struct registry *registry)
{
	uint32_t n = registry->n_entries * 2;
	uint64_t len = REGISTRY_LEN(n);
	uint32_t before = registry->n_entries;
	void *map;
	int r;

	if (n > ENTRIES_MAX)
		return -ENOSPC;
	r = segment_allocate(registry->fd, registry->len, len - registry->len);
	if (r < 0)
		return r;
	map = mremap(registry->map, registry->len, len, MREMAP_MAYMOVE);
	if (map == MAP_FAILED)
		return -ENOMEM;
	registry->map = map;
	registry->len = len;
	registry->n_entries = n;
	r = registry_index(registry);
	if (r < 0)
		registry->n_entries = before;
	return r;
}

int registry_add(struct registry *registry, const struct shmb_registry_entry *entry,
		 uint32_t *ret_slot)
{
	struct shmb_registry_entry *live;
	uint32_t slot;
	int r;

	r = registry->n_free ? 0 : registry_grow(registry);
	if (r < 0)
		return r;
	/*
	 * A successor may have swept before there was the segment. Stopped behind this: it sweeps, or
	 * finds the entry.
	 */
	if (registry_is_superseded(registry))
		return -ESTALE;
	slot = registry->free[registry->n_free - 1];
	live = entry_at(registry, slot);
	memcpy((uint8_t *)live + sizeof(live->state), (const uint8_t *)entry + sizeof(entry->state),
	       ENTRY_LEN - sizeof(live->state));
	live->created_ns = now_ns(CLOCK_REALTIME);
	/*
	 * Killed before: a FREE entry, and a segment that will be swept; after: all of it is there.
	 * pairs with the acquire load of an inspector: LIVE means the rest is written
	 */
	__atomic_store_n(&live->state, SHMB_ENTRY_LIVE, __ATOMIC_RELEASE);
	registry->n_free--;
	*ret_slot = slot;
	return 0;
}

void registry_set_flags(struct registry *registry, uint32_t slot, uint32_t flags)
{
	/* Killed before: as it was; after: as it is. pairs with the acquire load of an inspector */
	__atomic_store_n(&entry_at(registry, slot)->flags, flags, __ATOMIC_RELEASE);
}

void registry_keep(struct registry *registry, uint32_t slot, uint32_t flags, uint64_t kept_id)
{
	/* Killed behind it: nobody looks at it in one that is not kept. */
	entry_at(registry, slot)->kept_id = kept_id;
	registry_set_flags(registry, slot, flags);
}

bool registry_remove(struct registry *registry, uint32_t slot)
{
	if (slot == REGISTRY_NO_ENTRY || !registry->map)
		return true;
	/*
	 * Killed before: it is found again and undertaken again; after: its segment is swept.
	 * pairs with the second look of an inspector, which drops what was freed meanwhile
	 */
	__atomic_store_n(&entry_at(registry, slot)->state, SHMB_ENTRY_FREE, __ATOMIC_RELEASE);
	registry->free[registry->n_free++] = slot;
	return !registry_is_superseded(registry);
}

bool registry_get(const struct registry *registry, uint32_t slot,
		  struct shmb_registry_entry *ret_entry)
{
	const struct shmb_registry_entry *entry = entry_at(registry, slot);

	if (entry->state != SHMB_ENTRY_LIVE)
		return false;
	*ret_entry = *entry;
	return true;
}

void registry_release(struct registry *registry)
{
	if (registry->map)
		munmap(registry->map, registry->len);
	registry->map = NULL;
	registry->fd = shmb_fd_close(registry->fd);
	free(registry->free);
	registry->free = NULL;
	registry->n_free = 0;
	registry->n_entries = 0;
}

void registry_destroy(struct registry *registry)
{
	bool ours = !registry->map || !is_left(registry);

	registry_release(registry);
	if (ours)
		shm_unlink(registry->name);
}
