/* SPDX-License-Identifier: Apache-2.0 */

/*
 * To be preloaded: a wall clock that is ten years off, in the other direction each time that it is
 * read, as if somebody set it all the time.
 */

#include <stddef.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define TEN_YEARS_S (10 * 365 * 86400L)

static long step(void)
{
	static unsigned n;

	return __atomic_fetch_add(&n, 1, __ATOMIC_RELAXED) % 2 ? TEN_YEARS_S : -TEN_YEARS_S;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	long result = syscall(SYS_clock_gettime, clock, now);

	if (result == 0 &&
	    (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI))
		now->tv_sec += step();
	return (int)result;
}

int gettimeofday(struct timeval *now, void *zone)
{
	struct timespec precise;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &precise);
	*now = (struct timeval){ precise.tv_sec, precise.tv_nsec / 1000 };
	return 0;
}

time_t time(time_t *ret_now)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (ret_now)
		*ret_now = now.tv_sec;
	return now.tv_sec;
}
