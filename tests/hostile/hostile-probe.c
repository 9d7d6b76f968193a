/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What can a process do with the memory it may only read, if it tries? Each segment's fd is probed
 * as it comes out of the control socket (this program is linked with --wrap around the library's
 * mapping functions), and each mapping afterwards.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <shmbroker/layout.h>

#include "lib/map.h"

#include "tests/hostile/hostile.h"

int __wrap_shmb_map_reader(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind);
int __real_shmb_map_reader(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind);
int __wrap_shmb_map_writer(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind);
int __real_shmb_map_writer(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind);

static uint32_t seen_kinds, n_probes, n_resizable;

/* The probe is refused, and for the reason given (0: any). */
static void refused(long result, int reason, const char *what)
{
	int error = errno;

	n_probes++;
	if (result >= 0)
		fail("%s is possible", what);
	if (reason && error != reason)
		fail("%s: %s", what, strerror(error));
}

static void probe_fd(int fd, size_t len)
{
	char byte = 1;

	refused((long)mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == -1 ? -1 : 0,
		EACCES, "a writable mapping");
	refused(pwrite(fd, &byte, 1, 0), EBADF, "pwrite");
	refused(ftruncate(fd, 0), 0, "ftruncate");
	refused(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)len), EBADF,
		"punching a hole");
	refused(fcntl(fd, F_GETFL) & (O_RDWR | O_WRONLY) ? 0 : -1, 0, "an fd for writing");
}

static void probe_mapping(const struct shmb_map *map)
{
	uint8_t *base = map->base, byte = 1;
	struct iovec from = { &byte, 1 }, to = { base, 1 };
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	uint64_t before = *(const uint64_t *)map->base;

	refused(mprotect(base, map->len, PROT_READ | PROT_WRITE), EACCES, "mprotect");
	refused(read(zero, base, 1), EFAULT, "read(2) into the mapping");
	refused(process_vm_writev(getpid(), &from, 1, &to, 1, 0), EFAULT, "process_vm_writev");
	refused(madvise(base, map->len, MADV_REMOVE), EACCES, "MADV_REMOVE");
	if (memory >= 0) {
		refused(pwrite(memory, &byte, 1, (off_t)(uintptr_t)base), 0, "/proc/self/mem");
		close(memory);
	}
	close(zero);
	/* A guard page stands on either side. */
	refused(process_vm_readv(getpid(), &from, 1, &(struct iovec){ base - 1, 1 }, 1, 0), EFAULT,
		"reading in front of the mapping");
	refused(process_vm_readv(getpid(), &from, 1, &(struct iovec){ base + map->len, 1 }, 1, 0),
		EFAULT, "reading behind the mapping");
	if (*(const uint64_t *)map->base != before)
		fail("a refused probe has changed the segment");
}

int __wrap_shmb_map_reader(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind)
{
	int result;

	probe_fd(fd, descriptor->segment_len);
	result = __real_shmb_map_reader(map, fd, descriptor, kind);
	if (result == 0)
		probe_mapping(map);
	seen_kinds |= 1u << kind;
	return result;
}

/* Its own segment it may write, and only that; the length is not its to change. */
int __wrap_shmb_map_writer(struct shmb_map *map, int fd,
			   const struct shmb_fd_descriptor *descriptor, uint32_t kind)
{
	/* Where the kernel cannot take the right away, another process of this user has it anyhow. */
	n_resizable += ftruncate(fd, (off_t)descriptor->segment_len) == 0;
	seen_kinds |= 1u << kind;
	return __real_shmb_map_writer(map, fd, descriptor, kind);
}

/* No fd of a segment stays open in a client: what is mapped is all there is. */
static void check_no_fds(void)
{
	for (int fd = 3; fd < 256; fd++) {
		char path[32], target[256] = "";

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (readlink(path, target, sizeof(target) - 1) > 0 && strstr(target, "/shmb."))
			fail("fd %d is %s", fd, target);
	}
}

static char be_client(const char *address, uint32_t number)
{
	struct shmb_client *client = connect_client(address);
	struct shmb_channel *channel = open_channel(client);
	struct shmb_publisher *publisher;
	struct shmb_subscriber *subscriber;
	uint32_t wanted = 1u << SHMB_SEGMENT_CHANNEL | 1u << SHMB_SEGMENT_LANE |
			  1u << SHMB_SEGMENT_CURSOR | 1u << SHMB_SEGMENT_BELL;
	uint64_t value = number;

	must(shmb_publisher_open(channel, NULL, &publisher), "publisher");
	must(shmb_subscriber_open(channel, NULL, &subscriber), "subscriber");
	must(shmb_publisher_send(publisher, &value, sizeof(value)), "send");
	must(shmb_subscriber_recv(subscriber, &value, sizeof(value)), "receive");
	check_no_fds();
	if (seen_kinds != wanted)
		fail("kinds 0x%x were mapped, not 0x%x", seen_kinds, wanted);
	must(shmb_subscriber_close(subscriber), "close");
	must(shmb_publisher_close(publisher), "close");
	must(shmb_channel_close(channel), "close");
	must(shmb_client_close(client), "close");
	printf("hostile-probe: %u probes refused, %u own fds can be resized\n", n_probes,
	       n_resizable);
	fflush(stdout);
	return EVIL_GAVE_UP;
}

int main(void)
{
	struct shmb_broker *broker;

	/* The broker's own fds are no concern of a client: another process. */
	evil_start(be_client);
	must(shmb_broker_start(NULL, &broker), "broker");
	evil_attack(shmb_broker_address(broker), 7);
	evil_stop();
	if (evil_result() != EVIL_GAVE_UP)
		fail("it did not come to its end");
	must(shmb_broker_stop(broker), "stop");
	return EXIT_SUCCESS;
}
