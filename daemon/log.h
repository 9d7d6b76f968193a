/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_DAEMON_LOG_H
#define SHMB_DAEMON_LOG_H

/*
 * The only place that prints: one line per event on stderr, "<priority>event=... key=value ...",
 * which the journal understands. Lines beyond a rate are counted instead; the next line that gets
 * through says how many are missing.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_ERROR   3
#define LOG_WARNING 4
#define LOG_NOTICE  5
#define LOG_INFO    6

/**
 * struct log - where lines go
 * @fd:		  -1: nowhere; an embedded broker is silent
 * @priorities:	  begin each line with "<N>", as the journal wants it
 * @window_ns:	  begin of the current second
 * @window_lines: lines in it
 * @dropped:	  lines left out since the last one that was written
 */
struct log {
	int fd;
	bool priorities;
	uint64_t window_ns;
	uint32_t window_lines;
	uint64_t dropped;
};

/**
 * log_line() - write one line
 * @log:      log
 * @priority: LOG_*
 * @event:    what happened, one word
 * @format:   "key=value key=value"; text that a client chose goes through log_text() first
 */
void log_line(struct log *log, int priority, const char *event, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/**
 * log_text() - make text of a client safe to print
 * @out: 4 * @len + 1 bytes: printable ASCII stays, everything else becomes \xNN
 * @text: from a client
 * @len: its bytes; ends at a NUL byte
 *
 * Return: @out.
 */
const char *log_text(char *out, const void *text, size_t len);

#endif
