/* SPDX-License-Identifier: Apache-2.0 */

/* The last sentence of each thread lives in thread-local storage, so that failing never allocates. */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <shmbroker/shmbroker.h>

#include "lib/api.h"
#include "lib/error.h"

#define SENTENCE_LEN_MAX 512

/**
 * struct last - why the last call of a thread failed
 * @before:   what the sentence begins with, if nobody has asked for it yet; else NULL
 * @value:    the number in it
 * @after:    how it ends; NULL: there is no number
 * @sentence: once it is written out
 */
static _Thread_local struct {
	const char *before;
	uint64_t value;
	const char *after;
	char sentence[SENTENCE_LEN_MAX];
} last;

/* What the documented results mean here; every other one has the C library's words. */
static const struct {
	int32_t code;
	const char *text;
} meanings[] = {
	{ EINVAL, "invalid argument" },
	{ EAGAIN, "not possible right now" },
	{ ECHILD, "the handle was made before fork()" },
	{ ENOENT, "there is none, or none for this user" },
	{ EEXIST, "it exists already" },
	{ EBUSY, "something that depends on it is still open" },
	{ EACCES, "not permitted" },
	{ EDQUOT, "quota reached" },
	{ ENOSPC, "no room left in shared memory" },
	{ EPROTOTYPE, "schemas differ" },
	{ EPROTO, "the peer broke the protocol" },
	{ EBADMSG, "the peer broke the layout" },
	{ EKEYREJECTED, "the peer does not hold the expected key" },
	{ EPROTONOSUPPORT, "no common protocol version" },
	{ EADDRINUSE, "a broker is already running there" },
	{ ECONNREFUSED, "no broker is listening there" },
	{ ENOTCONN, "no broker is connected now" },
	{ ETIMEDOUT, "the time ran out" },
};

int32_t shmb_fail(int32_t result, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(last.sentence, sizeof(last.sentence), format, args);
	va_end(args);
	last.before = NULL;
	return result;
}

int32_t shmb_fail_lazily(int32_t result, const char *before, uint64_t value, const char *after)
{
	last.before = before;
	last.value = value;
	last.after = after;
	return result;
}

static void write_out(void)
{
	if (last.before && last.after)
		snprintf(last.sentence, sizeof(last.sentence), "%s%llu%s", last.before,
			 (unsigned long long)last.value, last.after);
	else if (last.before)
		snprintf(last.sentence, sizeof(last.sentence), "%s", last.before);
	last.before = NULL;
}

SHMB_API int32_t shmb_last_error(char *text, uint32_t cap)
{
	size_t len, n;

	write_out();
	len = strlen(last.sentence);
	if (cap > 0 && text) {
		n = len < cap - 1 ? len : cap - 1;
		memcpy(text, last.sentence, n);
		text[n] = '\0';
	}
	return (int32_t)len;
}

SHMB_API const char *shmb_strerror(int32_t result)
{
	const char *text;

	if (result >= 0)
		return "success";
	for (size_t i = 0; i < SHMB_ARRAY_LEN(meanings); i++)
		if (meanings[i].code == -(int64_t)result)
			return meanings[i].text;
	text = result > INT32_MIN ? strerrordesc_np(-result) : NULL;
	return text ? text : "unknown error";
}
