/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What if a client is killed while it comes or goes?
 *
 * A victim connects to a broker, opens a channel, subscribes, publishes, receives and closes all of
 * it again. It is killed in front of and behind each of its system calls, around each instruction
 * that changes shared memory, and at a sample of the others. Meanwhile an honest pair on the same
 * channel exchanges records, of which none may be lost, torn or late; and soon after each kill
 * nothing of the victim may be left in the broker: no shared memory, no registry entry, no fd.
 *
 * With $SHMB_TEST_BLOCKS the records lie in blocks, which the victim holds when it receives them, and only
 * what comes behind its connection is looked at.
 *
 * Where to kill is found by one run that is stepped slowly, with all segments under watch.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <shmbroker/shmbroker.h>

#include "lib/clock.h"

#include "tests/kill/world.h"

#define N_PLACES_MAX 20000u
/* Of what the channel's blocks do not change one run has seen all. */
#define BLOCKS_STRIDE 12u

/* An instant: after so many stops at system calls, and so many instructions more. */
struct place {
	uint32_t n_syscalls;
	uint32_t n_instructions;
};

static struct step_row row = { .name = "connect to close", .min = { [STEP_KILL] = 1200 } };
static struct step step;
static uint32_t *connected; /* the victim is */
static struct place places[N_PLACES_MAX];
static uint32_t n_places;

/* ---- the victim -------------------------------------------------------------------------------- */

static void be_victim(void *context)
{
	struct shmb_client *own_client;
	struct shmb_channel *own_channel;
	struct shmb_publisher *own_publisher;
	struct shmb_subscriber *own_subscriber;
	struct world_record record;

	(void)context;
	close_range(3, ~0u, 0);
	own_client = world_connect();
	*connected = 1;
	own_channel = world_open_channel(own_client);
	world_must(shmb_subscriber_open(own_channel, NULL, &own_subscriber), "subscribe");
	world_must(shmb_publisher_open(own_channel, NULL, &own_publisher), "publish");
	for (uint64_t i = 0; i < 3; i++) {
		record = (struct world_record){ i, world_mix(i) };
		world_must(world_send(own_publisher, &record), "send");
		if (world_receive(own_subscriber, &record) > 0 &&
		    record.mixed != world_mix(record.number))
			step_fail(&step, "the victim receives a torn record");
	}
	world_must(shmb_subscriber_close(own_subscriber), "close subscriber");
	world_must(shmb_publisher_close(own_publisher), "close publisher");
	world_must(shmb_channel_close(own_channel), "close channel");
	world_must(shmb_client_close(own_client), "close client");
}

/* ---- where to kill ----------------------------------------------------------------------------- */

static void add_place(uint32_t n_syscalls, uint32_t n_instructions)
{
	if (world.blocks && !*connected)
		return;
	if (n_places == N_PLACES_MAX)
		step_fail(&step, "too many places");
	places[n_places++] = (struct place){ n_syscalls, n_instructions };
}

/*
 * Steps from behind one system call to in front of the next, or to the end of patience: between
 * them may be a key exchange. Returns how many instructions touched shared memory.
 */
static uint32_t explore_window(uint32_t n_syscalls, uint32_t patience, uint32_t stride)
{
	uint32_t n = 0;

	world_watch_new(false);
	world_has_changed();
	for (uint32_t i = 1; i <= patience && !step_at_syscall(&step); i++) {
		if (!step_next(&step))
			break;
		if (world_has_changed()) {
			add_place(n_syscalls, i - 1);
			add_place(n_syscalls, i);
			n++;
		} else if (i % stride == 0) {
			add_place(n_syscalls, i);
		}
	}
	return n;
}

static void explore(bool quick)
{
	uint32_t n_syscalls = 0, n_stores = 0;

	snprintf(step.scenario, sizeof(step.scenario), "exploring");
	step_start(&step, be_victim, NULL);
	step_begin(&step);
	while (step_syscall(&step)) {
		n_syscalls++;
		add_place(n_syscalls, 0);
		/* Every second stop is an exit. */
		if (n_syscalls % 2 == 0)
			n_stores += explore_window(n_syscalls, 3000, quick ? 301 : 101);
		world_exchange(1);
	}
	step_kill(&step);
	printf("kill-attach: %u system calls, %u stores to shared memory, %u places to kill\n",
	       n_syscalls / 2, n_stores, n_places);
	if (n_syscalls < 60 || (n_stores < 20 && !STEP_SANITIZED))
		step_fail(&step, "that cannot have been all");
	world_unwatch();
}

static void kill_at(struct place place)
{
	bool running = true;

	snprintf(step.scenario, sizeof(step.scenario), "system call stop %u, instruction %u",
		 place.n_syscalls, place.n_instructions);
	step_start(&step, be_victim, NULL);
	step_begin(&step);
	for (uint32_t i = 0; running && i < place.n_syscalls; i++)
		running = step_syscall(&step);
	for (uint32_t i = 0; running && i < place.n_instructions; i++)
		running = step_next(&step);
	world_exchange(1);
	step_kill(&step);
}

int main(int argc, char **argv)
{
	bool quick = step_quick(argc, argv);
	uint32_t stride = quick ? 9 : 1;
	uint64_t took, longest = 0, start, slowest = 0;
	uint32_t n_kills = 0;

	connected = mmap(NULL, sizeof(*connected), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (connected == MAP_FAILED)
		return EXIT_FAILURE;
	world_begin(&step);
	if (world.blocks)
		stride *= BLOCKS_STRIDE;
	world_start_broker(&(struct world_broker){ .uring = true });
	world_open_pair();
	world_take_baseline();
	explore(quick);
	world_wait_clean();
	for (uint32_t i = 0; i < n_places; i += stride) {
		start = shmb_clock_now_ns();
		kill_at(places[i]);
		if (shmb_clock_now_ns() - start > slowest)
			slowest = shmb_clock_now_ns() - start;
		took = world_wait_clean();
		longest = took > longest ? took : longest;
		n_kills++;
	}
	world_close_pair();
	world_stop_broker(world.broker_pid);
	world_end();
	printf("kill-attach: %u processes killed, %llu records exchanged, clean within %llu us, "
	       "slowest victim %llu us\n",
	       n_kills, (unsigned long long)world.n_received, (unsigned long long)longest / 1000,
	       (unsigned long long)slowest / 1000);
	row.n[STEP_KILL] = n_kills;
	step_table("kill-attach", &row, 1,
		   (quick ? 12 : 1) * (world.blocks ? 2 * BLOCKS_STRIDE : 1));
	return EXIT_SUCCESS;
}
