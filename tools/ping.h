/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_PING_H
#define SHMB_TOOLS_PING_H

#include <stdbool.h>
#include <stdint.h>

/**
 * struct ping - one measurement: round trips between this process and a child
 * @name:    in JSON
 * @title:   for people
 * @meaning: what the number says
 * @samples: nanoseconds of each round trip, sorted when done
 * @n:	     how many there are
 */
struct ping {
	const char *name;
	const char *title;
	const char *meaning;
	uint32_t *samples;
	uint32_t n;
};

/* On a busy machine each hand-over may take a time slice: nothing is measured for longer. */
#define PING_TIME_NS	 2000000000ull
#define PING_SAMPLES_MIN 10u

/* CPUs to pin the two sides to, or -1. */
struct ping_cpus {
	int parent;
	int child;
};

uint64_t ping_now_ns(void);

/* Wait until the other side has fallen asleep. */
void ping_settle(void);

/* Pin this thread; best effort. */
void ping_pin(int cpu);

/* Fill @ping with up to @n round trips, at least 10. Return 0, or 1 after a complaint. */
int ping_raw_line(struct ping *ping, uint32_t n, const struct ping_cpus *cpus);
int ping_raw_futex(struct ping *ping, uint32_t n, const struct ping_cpus *cpus);

/* Through a broker: polling, sleeping, and the control socket. One child serves all three. */
struct ping_peer;
int ping_peer_start(struct ping_peer **ret_peer, const struct ping_cpus *cpus);
int ping_spin(struct ping *ping, uint32_t n, struct ping_peer *peer);
int ping_sleep(struct ping *ping, uint32_t n, struct ping_peer *peer);
int ping_control(struct ping *ping, uint32_t n, struct ping_peer *peer);
void ping_peer_stop(struct ping_peer *peer);

#endif
