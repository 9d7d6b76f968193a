/* SPDX-License-Identifier: Apache-2.0 */

#include "lib/clock.h"

#include "daemon/idle.h"

void idle_check(struct broker *broker)
{
	/* Who is away without anything is soon forgotten, and nothing is left then. */
	bool alone = broker->n_connections == 0 && broker->n_members == 0 &&
		     broker->n_retained == 0 && list_empty(&broker->clients);

	if (!broker->idle)
		return;
	loop_timer_move(broker->idle,
			alone ? shmb_clock_now_ns() + broker->config.idle_exit_ns : UINT64_MAX);
}
