/* SPDX-License-Identifier: Apache-2.0 */

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"

#define LINE_LEN_MAX	     1024
#define LINES_PER_SECOND_MAX 50
#define SECOND_NS	     1000000000ull

static uint64_t log_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static bool log_admits(struct log *log)
{
	uint64_t now = log_now();

	if (now - log->window_ns >= SECOND_NS) {
		log->window_ns = now;
		log->window_lines = 0;
	}
	if (log->window_lines >= LINES_PER_SECOND_MAX) {
		log->dropped++;
		return false;
	}
	log->window_lines++;
	return true;
}

/* snprintf() at an offset that never leaves the line, nor its room for a newline. */
static size_t __attribute__((format(printf, 3, 0)))
append(char *line, size_t at, const char *format, va_list args)
{
	int n = vsnprintf(line + at, LINE_LEN_MAX - 1 - at, format, args);

	if (n < 0)
		return at;
	return at + (size_t)n < LINE_LEN_MAX - 2 ? at + (size_t)n : LINE_LEN_MAX - 2;
}

static size_t __attribute__((format(printf, 3, 4)))
appendf(char *line, size_t at, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	at = append(line, at, format, args);
	va_end(args);
	return at;
}

void log_line(struct log *log, int priority, const char *event, const char *format, ...)
{
	char line[LINE_LEN_MAX];
	size_t at = 0;
	va_list args;
	ssize_t n;

	if (log->fd < 0 || !log_admits(log))
		return;
	if (log->priorities)
		at = appendf(line, at, "<%d>", priority);
	at = appendf(line, at, "event=%s ", event);
	va_start(args, format);
	at = append(line, at, format, args);
	va_end(args);
	if (log->dropped)
		at = appendf(line, at, " dropped_lines=%llu", (unsigned long long)log->dropped);
	log->dropped = 0;
	line[at++] = '\n';
	/* Nobody can be told if this fails. */
	n = write(log->fd, line, at);
	(void)n;
}

const char *log_text(char *out, const void *text, size_t len)
{
	const unsigned char *in = text;
	char *p = out;

	for (size_t i = 0; i < len && in[i]; i++) {
		if (in[i] > ' ' && in[i] < 0x7f && in[i] != '\\' && in[i] != '"')
			*p++ = (char)in[i];
		else
			p += sprintf(p, "\\x%02x", in[i]);
	}
	*p = '\0';
	return out;
}
