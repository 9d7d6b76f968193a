/* SPDX-License-Identifier: Apache-2.0 */

/* What the machine and the limits of this process offer: files, memory, /dev/shm, CPUs. */

#include <errno.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "tools/doctor.h"
#include "tools/place.h"
#include "tools/print.h"

#define LANE_DEFAULT (1ull << 20)

static const struct {
	int resource;
	const char *name;
	uint64_t enough;
	uint64_t too_little; /* below that nothing works */
	bool is_count;
	const char *cost;
} limits[] = {
	{ RLIMIT_NOFILE, "open files", 1024, 32, true,
	  "each connection, wait set and doorbell takes a file descriptor: many channels will fail "
	  "with EMFILE (ulimit -n)" },
	{ RLIMIT_MEMLOCK, "locked memory", 64 << 10, 0, false,
	  "kernels before 5.12 charge io_uring to it; wait sets may fall back to epoll (ulimit -l)" },
	{ RLIMIT_FSIZE, "file size", 1ull << 31, LANE_DEFAULT + 4096, false,
	  "it limits shared memory too: larger lanes cannot be created (ulimit -f)" },
	{ RLIMIT_AS, "address space", 4ull << 30, 64 << 20, false,
	  "lanes are mapped whole: large or many ones will fail with ENOMEM (ulimit -v)" },
};

static void check_limit(struct doctor *doctor, size_t i)
{
	struct rlimit limit;
	char text[24];

	if (getrlimit(limits[i].resource, &limit) < 0)
		return;
	if (limit.rlim_cur == RLIM_INFINITY) {
		doctor_add(doctor, DOCTOR_OK, limits[i].name, NULL, "no limit");
		return;
	}
	if (limits[i].is_count)
		snprintf(text, sizeof(text), "%" PRIu64, (uint64_t)limit.rlim_cur);
	else
		print_size(text, limit.rlim_cur);
	doctor_add(doctor,
		   limit.rlim_cur < limits[i].too_little ? DOCTOR_UNUSABLE
		   : limit.rlim_cur < limits[i].enough	 ? DOCTOR_WARNING
							 : DOCTOR_OK,
		   limits[i].name, limits[i].cost, "at most %s", text);
}

static void check_shm(struct doctor *doctor)
{
	char size[16], available[16];
	struct statfs fs;
	struct stat st;
	uint64_t left;

	if (statfs(PLACE_SHM_DIR, &fs) < 0 || stat(PLACE_SHM_DIR, &st) < 0) {
		doctor_add(doctor, DOCTOR_UNUSABLE, PLACE_SHM_DIR,
			   "shared memory objects live there: mount a tmpfs", "%s",
			   strerror(errno));
		return;
	}
	left = (uint64_t)fs.f_bavail * fs.f_bsize;
	print_size(size, (uint64_t)fs.f_blocks * fs.f_bsize);
	print_size(available, left);
	if (fs.f_type != TMPFS_MAGIC)
		doctor_add(doctor, DOCTOR_WARNING, PLACE_SHM_DIR,
			   "every message may be written to a disk: mount a tmpfs there",
			   "not a tmpfs");
	/* A tmpfs of size 0 has no limit of its own. */
	if (fs.f_blocks > 0 && left < 2 * LANE_DEFAULT)
		doctor_add(doctor, DOCTOR_UNUSABLE, PLACE_SHM_DIR,
			   "not one lane of the default size fits: remount it larger "
			   "(docker run --shm-size)",
			   "%s, %s free", size, available);
	else
		doctor_add(
			doctor,
			fs.f_blocks == 0 || left >= 64 * LANE_DEFAULT ? DOCTOR_OK : DOCTOR_WARNING,
			PLACE_SHM_DIR,
			"few lanes of the default size (1M) fit; creating more fails with ENOSPC",
			"tmpfs of %s, %s free", size, available);
	if ((st.st_mode & 07777) != 01777)
		doctor_add(doctor,
			   access(PLACE_SHM_DIR, W_OK | X_OK) < 0 ? DOCTOR_UNUSABLE
								  : DOCTOR_WARNING,
			   PLACE_SHM_DIR " rights",
			   "others may be unable to make objects, or able to remove yours "
			   "(chmod 1777)",
			   "mode %04o, not 1777", (unsigned)st.st_mode & 07777);
	else
		doctor_add(doctor, DOCTOR_OK, PLACE_SHM_DIR " rights", NULL, "mode 1777");
}

static void check_cpus(struct doctor *doctor)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set)
							     : (int)sysconf(_SC_NPROCESSORS_ONLN);

	doctor_add(doctor, n > 1 ? DOCTOR_OK : DOCTOR_WARNING, "CPUs",
		   "nobody spins: each message to a waiting subscriber costs a wake-up of "
		   "microseconds",
		   n == 1 ? "%d usable CPU" : "%d usable CPUs", n);
}

void doctor_machine(struct doctor *doctor)
{
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		check_limit(doctor, i);
	check_shm(doctor);
	check_cpus(doctor);
}
