/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_PROCESS_H
#define SHMB_TOOLS_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#define PROCESS_TEXT_LEN 256

/**
 * struct process - what another process is doing
 * @word:     "gone", "zombie", "stopped", "traced", "frozen", "blocked", "running", "sleeping" or
 *	      "unknown"
 * @text:     the same as the end of a sentence: "is stopped by a signal". Not escaped
 * @is_still: it executes nothing, and will not by itself
 */
struct process {
	const char *word;
	char text[PROCESS_TEXT_LEN];
	bool is_still;
};

/* Looks at a process; @start is as in /proc/PID/stat, 0: unknown. */
void process_look(struct process *process, uint32_t pid, uint64_t start);

/* When a process has started, as in /proc/PID/stat; 0: there is none, or it may not be seen. */
uint64_t process_start(uint32_t pid);

#endif
