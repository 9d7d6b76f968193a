/* SPDX-License-Identifier: Apache-2.0 */

/* Where shmctl pub's records come from, and how their text becomes bytes. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "tools/command.h"
#include "tools/print.h"
#include "tools/pub.h"

#define CHUNK_DEFAULT 65536

static int complain_record(const struct pub *pub, const char *why)
{
	complain("record %" PRIu64 ": %s", pub->n_sent + 1, why);
	return 1;
}

static int send_json(struct pub *pub, const char *text, size_t len)
{
	json_error_t error;
	json_t *object = json_loadb(text, len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
	char *record;
	int status = 1;

	if (!object)
		return complain_record(pub, error.text);
	if (!pub->is_typed) {
		json_decref(object);
		return pub_send(pub, text, len);
	}
	record = malloc(pub->decode.head.record_len);
	if (!record)
		complain("out of memory");
	else if (decode_from_json(&pub->decode, object, record) < 0)
		complain_record(pub, pub->decode.why);
	else
		status = pub_send(pub, record, pub->decode.head.record_len);
	free(record);
	json_decref(object);
	return status;
}

static int send_fields(struct pub *pub, const char *text)
{
	char *record = malloc(pub->decode.head.record_len);
	int status = 1;

	if (!record)
		complain("out of memory");
	else if (decode_from_text(&pub->decode, text, record) < 0)
		complain_record(pub, pub->decode.why);
	else
		status = pub_send(pub, record, pub->decode.head.record_len);
	free(record);
	return status;
}

/* @text is terminated too. */
static int send_text(struct pub *pub, const char *text, size_t len)
{
	if (pub->is_raw && pub->is_typed && len != pub->decode.head.record_len) {
		complain("record %" PRIu64 " has %zu bytes; a record of %.48s has %" PRIu32,
			 pub->n_sent + 1, len, pub->decode.head.name, pub->decode.head.record_len);
		return 1;
	}
	if (pub->is_raw)
		return pub_send(pub, text, len);
	if (common.is_json)
		return send_json(pub, text, len);
	if (!pub->is_typed)
		return pub_send(pub, text, len);
	if (text[strspn(text, " \t")] == '{')
		return send_json(pub, text, len);
	return send_fields(pub, text);
}

static int send_lines(struct pub *pub, FILE *file)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t len;
	int status = 0;

	while (!status && (len = getline(&line, &cap, file)) >= 0) {
		if (len > 0 && line[len - 1] == '\n')
			line[--len] = '\0';
		if (pub->is_typed && line[strspn(line, " \t\r")] == '\0')
			continue;
		status = send_text(pub, line, len);
	}
	free(line);
	return status;
}

static int send_chunks(struct pub *pub, FILE *file)
{
	size_t cap = pub->is_typed ? pub->decode.head.record_len
		     : pub->chunk  ? pub->chunk
				   : CHUNK_DEFAULT;
	char *data;
	size_t len;
	int status = 0;

	if (cap > pub->record_len_max)
		cap = pub->chunk ? pub->chunk : pub->record_len_max;
	data = malloc(cap + 1);
	if (!data) {
		complain("out of memory");
		return 1;
	}
	while (!status && (len = fread(data, 1, cap, file)) > 0) {
		data[len] = '\0';
		status = send_text(pub, data, len);
	}
	free(data);
	return status;
}

static int send_file(struct pub *pub)
{
	bool is_stdin = !pub->file || strcmp(pub->file, "-") == 0;
	FILE *file = is_stdin ? stdin : fopen(pub->file, "re");
	int status;

	if (!file) {
		complain("cannot open %s: %m", pub->file);
		return 1;
	}
	status = pub->is_raw ? send_chunks(pub, file) : send_lines(pub, file);
	if (!status && ferror(file)) {
		complain("cannot read %s: %m", is_stdin ? "stdin" : pub->file);
		status = 1;
	}
	if (!is_stdin)
		fclose(file);
	return status;
}

int pub_input(struct pub *pub)
{
	int status = 0;

	if (pub->chunk && pub->is_typed && pub->chunk != pub->decode.head.record_len) {
		complain("--chunk %zu: a record of %.48s has %" PRIu32 " bytes", pub->chunk,
			 pub->decode.head.name, pub->decode.head.record_len);
		return EXIT_USAGE;
	}
	if (pub->n_records == 0)
		return send_file(pub);
	for (int i = 0; i < pub->n_records && !status; i++)
		status = send_text(pub, pub->records[i], strlen(pub->records[i]));
	return status;
}
