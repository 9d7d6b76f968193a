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

#define END UINT32_MAX /* the parent has measured enough */

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

/* Each of these waits until @word is no longer @old. */
static void spin_while(const uint32_t *word, uint32_t old)
{
	/* pairs with the release in spin_tell(). */
	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == old)
		relax();
}

static void spin_tell(uint32_t *word, uint32_t value)
{
	/* pairs with the acquire in spin_while(). */
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static void sleep_while(const uint32_t *word, uint32_t old)
{
	/* pairs with the release in sleep_tell(). */
	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == old)
		syscall(SYS_futex, word, FUTEX_WAIT, old, NULL, NULL, 0);
}

static void sleep_tell(uint32_t *word, uint32_t value)
{
	/* pairs with the acquire in sleep_while(). */
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

struct way {
	void (*wait_while)(const uint32_t *word, uint32_t old);
	void (*tell)(uint32_t *word, uint32_t value);
	bool settles;
};

static void serve(struct words *words, const struct way *way)
{
	uint32_t i = 0;

	for (;;) {
		way->wait_while(&words->ping, i);
		/* pairs with the release in spin_tell() or sleep_tell(). */
		i = __atomic_load_n(&words->ping, __ATOMIC_ACQUIRE);
		if (i == END)
			return;
		way->tell(&words->pong, i);
	}
}

static void measure(struct ping *ping, uint32_t n, struct words *words, const struct way *way)
{
	uint64_t end = ping_now_ns() + PING_TIME_NS;
	uint32_t n_warm = n / 10 + 1;

	for (uint32_t i = 1; i <= n_warm + n; i++) {
		uint64_t start;

		if (way->settles)
			ping_settle();
		start = ping_now_ns();
		way->tell(&words->ping, i);
		way->wait_while(&words->pong, i - 1);
		if (i > n_warm || start > end)
			ping->samples[ping->n++] = ping_now_ns() - start;
		if (start > end && ping->n >= PING_SAMPLES_MIN)
			break;
	}
	way->tell(&words->ping, END);
}

static int run(struct ping *ping, uint32_t n, const struct ping_cpus *cpus, const struct way *way)
{
	struct words *words = mmap(NULL, sizeof(*words), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
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
		serve(words, way);
		_exit(0);
	}
	measure(ping, n, words, way);
	waitpid(child, NULL, 0);
	munmap(words, sizeof(*words));
	return 0;
}

int ping_raw_line(struct ping *ping, uint32_t n, const struct ping_cpus *cpus)
{
	static const struct way way = { spin_while, spin_tell, false };

	return run(ping, n, cpus, &way);
}

int ping_raw_futex(struct ping *ping, uint32_t n, const struct ping_cpus *cpus)
{
	static const struct way way = { sleep_while, sleep_tell, true };

	return run(ping, n, cpus, &way);
}
