/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TESTS_STRANGER_H
#define SHMB_TESTS_STRANGER_H

/*
 * Other processes that use the broker while it is killed or stopped: one that comes, does all there
 * is to do, leaves, comes again and dies; and one that is there all the time.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct strangers {
	uint32_t go; /* the stranger may begin */
	uint32_t slow; /* the broker may think that we are */
	uint32_t ready; /* the bystander, the mortal, the reader or the writer is there */
	uint32_t look; /* the reader may look */
	uint32_t dies; /* the writer goes without a word */
	uint64_t n_sent; /* records of the mortal on the sealed channel */
	uint64_t n_own; /* records of its own that the bystander has had there */
	uint32_t n_connections; /* how often the bystander has come to a broker */
	uint64_t n_heard; /* records of others there that the bystander has had */
	uint32_t n_moves; /* how often it has moved to another segment there */
};

/* Shared with all of them. */
extern struct strangers *strangers;

void stranger_begin(void);

void stranger_set(uint32_t *sign);
void stranger_await(const uint32_t *sign, const char *what);
void stranger_nap(void);

/* Waits for strangers->go before it begins. */
pid_t stranger_start(void);
/* Any other use of its own process, with a connection of its own. */
pid_t stranger_start_other(void (*body)(void));

/* Two that go on until they are killed, and set strangers->ready. */
void stranger_be_there(void);
void stranger_be_mortal(void);
/*
 * Two on a channel of their own. The reader is away until strangers->look; then it gets each record of
 * the writer, once, and ends. The writer sends them before it is ready, and leaves at strangers->go.
 */
void stranger_be_reader(void);
void stranger_be_writer(void);
/*
 * And two on a queue. The first is a publisher and its worker, and leaves at strangers->go; the other does
 * what is left, each record once, from strangers->look on.
 */
void stranger_be_leaver(void);
void stranger_be_heir(void);
/* The bystander is not held up on the sealed channel. */
void stranger_check_flow(void);
/* The mortal is dead: all that it has sent since it began is heard, in the end. */
void stranger_check_heard(uint64_t n_heard_before);

/* Has it ended by now? */
bool stranger_has_ended(pid_t pid, int *ret_status);
void stranger_await_end(pid_t pid, int *ret_status);
/* It must end with success. */
void stranger_finished(pid_t pid);

#endif
