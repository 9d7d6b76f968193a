/* SPDX-License-Identifier: Apache-2.0 */

/* The bare mechanisms that shmctl ping compares with: no library, two words, each with one writer. */

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/ping.h"
#include "tools/print.h"

/* On lines of their own, and not on neighbours that a prefetcher would fetch as a pair. */
struct words {
	uint32_t ping;
	uint8_t pad0[252];
	uint32_t pong;
	uint8_t pad1[252];
};

static void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb");
#endif
}

static void spin_until(const uint32_t *word, uint32_t value)
{
	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != value)
		relax();
}

static void spin_tell(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static void sleep_until(const uint32_t *word, uint32_t value)
{
	uint32_t seen;

	while ((seen = __atomic_load_n(word, __ATOMIC_ACQUIRE)) != value)
		syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void sleep_tell(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static int run(struct ping *ping, uint32_t n, const struct ping_cpus *cpus, bool settles,
	       void (*until)(const uint32_t *, uint32_t), void (*tell)(uint32_t *, uint32_t))
{
	struct words *words = mmap(NULL, sizeof(*words), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint32_t n_warm = n / 10 + 1;
	pid_t parent = getpid(), child;

	if (words == MAP_FAILED) {
		complain("cannot map memory: %m");
		return 1;
	}
	child = fork();
	if (child < 0) {
		complain("cannot start a process: %m");
		munmap(words, sizeof(*words));
		return 1;
	}
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		ping_pin(cpus->child);
		for (uint32_t i = 1; i <= n_warm + n; i++) {
			until(&words->ping, i);
			tell(&words->pong, i);
		}
		_exit(0);
	}
	for (uint32_t i = 1; i <= n_warm + n; i++) {
		uint64_t start;

		if (settles)
			ping_settle();
		start = ping_now_ns();
		tell(&words->ping, i);
		until(&words->pong, i);
		if (i > n_warm)
			ping->samples[ping->n++] = ping_now_ns() - start;
	}
	waitpid(child, NULL, 0);
	munmap(words, sizeof(*words));
	return 0;
}

int ping_raw_line(struct ping *ping, uint32_t n, const struct ping_cpus *cpus)
{
	return run(ping, n, cpus, false, spin_until, spin_tell);
}

int ping_raw_futex(struct ping *ping, uint32_t n, const struct ping_cpus *cpus)
{
	return run(ping, n, cpus, true, sleep_until, sleep_tell);
}
