/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the memory of blocks can be asked for: huge pages and NUMA nodes. The kernel keeps to itself
 * what it will give, so some is taken, from objects without a name, and looked at.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tools/doctor.h"
#include "tools/place.h"
#include "tools/print.h"

#define HUGE_DIR  "/sys/kernel/mm/transparent_hugepage/"
#define NODES_DIR "/sys/devices/system/node/"

#ifndef MPOL_PREFERRED
#define MPOL_PREFERRED 1
#endif

/* Up to the end of its first line. */
static bool read_line(const char *path, char *text, size_t size)
{
	int n = place_read_file(path, text, size - 1);

	if (n <= 0)
		return false;
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return true;
}

/* The one in brackets of several that there are: "always within_size advise [never] deny force". */
static void read_choice(const char *path, char *text, size_t size)
{
	char line[128], *from;

	snprintf(text, size, "not there");
	if (!read_line(path, line, sizeof(line)))
		return;
	from = strchr(line, '[');
	if (from)
		snprintf(text, size, "%.*s", (int)strcspn(from + 1, "]"), from + 1);
}

static uint64_t huge_page_len(void)
{
	char text[32];
	uint64_t len = read_line(HUGE_DIR "hpage_pmd_size", text, sizeof(text))
			       ? strtoull(text, NULL, 10)
			       : 0;

	/* On arm64 with large pages it is half a gigabyte: nothing to try. */
	return len <= 32u << 20 ? len : 0;
}

/* How much of the mapping at @base is in huge pages. */
static uint64_t huge_len_of(const void *base)
{
	unsigned long long from, to, kib;
	char line[PATH_MAX + 128];
	bool is_ours = false;
	uint64_t len = 0;
	FILE *maps = fopen("/proc/self/smaps", "re");

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "ShmemPmdMapped: %llu", &kib) == 1)
			len += is_ours ? kib * 1024 : 0;
		else if (sscanf(line, "%llx-%llx ", &from, &to) == 2)
			is_ours = (uintptr_t)base >= from && (uintptr_t)base < to;
	}
	if (maps)
		fclose(maps);
	return len;
}

/* Does it get a huge page as an arena would? */
static bool gets_huge_page(int fd, uint64_t page_len)
{
	const uint64_t len = 2 * page_len; /* one of them is aligned wherever it lies */
	bool gets = false;
	uint8_t *base;

	if (ftruncate(fd, (off_t)len) < 0)
		return false;
	base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return false;
	madvise(base, len, MADV_HUGEPAGE);
	/* Where there is no room for it, this says so instead of killing us. */
	if (madvise(base, len, MADV_POPULATE_WRITE) == 0)
		gets = huge_len_of(base) > 0;
	munmap(base, len);
	return gets;
}

static void check_huge_pages(struct doctor *doctor)
{
	static const char cost[] =
		"blocks of channels with huge_pages come in small pages: more misses of the TLB";
	uint64_t page_len = huge_page_len();
	char choice[64];
	int fd;

	if (!page_len) {
		doctor_add(doctor, DOCTOR_MISSING, "huge pages", cost,
			   "this kernel has no transparent ones of a size that can be tried");
		return;
	}
	read_choice(HUGE_DIR "shmem_enabled", choice, sizeof(choice));
	fd = syscall(SYS_memfd_create, "shmctl-doctor", MFD_CLOEXEC);
	if (fd >= 0 && gets_huge_page(fd, page_len))
		doctor_add(doctor, DOCTOR_OK, "huge pages, sealed", NULL, "shmem_enabled is %s",
			   choice);
	else
		doctor_add(doctor, DOCTOR_MISSING, "huge pages, sealed", cost,
			   "none came, shmem_enabled is %s: write advise to " HUGE_DIR
			   "shmem_enabled",
			   choice);
	if (fd >= 0)
		close(fd);
	fd = open(PLACE_SHM_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 && gets_huge_page(fd, page_len))
		doctor_add(doctor, DOCTOR_OK, "huge pages, posix", NULL,
			   PLACE_SHM_DIR " gives them");
	else
		doctor_add(doctor, DOCTOR_MISSING, "huge pages, posix", cost,
			   "none came: mount -o remount,huge=advise " PLACE_SHM_DIR);
	if (fd >= 0)
		close(fd);
}

/* Those that were set aside are for programs that ask hugetlbfs. */
static void check_reserved_pages(struct doctor *doctor)
{
	char text[32], path[80], size[16];
	uint64_t n;

	snprintf(path, sizeof(path),
		 "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB/nr_hugepages",
		 huge_page_len() / 1024);
	n = read_line(path, text, sizeof(text)) ? strtoull(text, NULL, 10) : 0;
	print_size(size, n * huge_page_len());
	if (n)
		doctor_add(doctor, DOCTOR_WARNING, "reserved huge pages",
			   "shmbroker takes transparent ones: what is set aside for hugetlbfs is "
			   "memory that it cannot have",
			   "%" PRIu64 ", %s", n, size);
	else
		doctor_add(doctor, DOCTOR_OK, "reserved huge pages", NULL,
			   "none, and none are needed");
}

static void check_nodes(struct doctor *doctor)
{
	static const char cost[] = "channels with a numa_node are refused";
	unsigned long mask = 1;
	char path[64];
	size_t len = sysconf(_SC_PAGESIZE);
	unsigned n = 0;
	void *page;
	int r;

	/* They need not be numbered without gaps. */
	for (unsigned node = 0; node < 1024; node++) {
		snprintf(path, sizeof(path), NODES_DIR "node%u", node);
		n += access(path, F_OK) == 0;
	}
	if (n <= 1) {
		doctor_add(doctor, DOCTOR_OK, "NUMA", NULL, "one node: all memory is as near");
		return;
	}
	page = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	r = page == MAP_FAILED
		    ? -1
		    : syscall(SYS_mbind, page, len, MPOL_PREFERRED, &mask, 8 * sizeof(mask), 0);
	doctor_add(doctor, r == 0 ? DOCTOR_OK : DOCTOR_MISSING, "NUMA", cost,
		   r == 0 ? "%u nodes" : "%u nodes, but none can be asked for: %s", n,
		   strerror(errno));
	if (page != MAP_FAILED)
		munmap(page, len);
}

void doctor_memory(struct doctor *doctor)
{
	check_huge_pages(doctor);
	check_reserved_pages(doctor);
	check_nodes(doctor);
}
