/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Two hostile schemas and a record. What passes shmb_schema_check() is equal to itself, and can be
 * printed by shmctl whatever the record holds; what was printed makes the same text again.
 */

#include <errno.h>

#include "tools/decode.h"

#include "tests/fuzz/fuzz.h"

#define RECORD_LEN_MAX 4096u

static char *to_text(const struct decode *decode, const void *record)
{
	char *text = NULL;
	size_t len = 0;
	FILE *file = open_memstream(&text, &len);

	FUZZ_CHECK(file);
	decode_to_text(decode, record, file);
	fclose(file);
	return text;
}

static void decode(const uint8_t *schema, uint32_t schema_len, struct fuzz_script *script)
{
	static struct decode decode;
	uint8_t *record, *again;
	char *text, *text_again;
	json_t *json;

	FUZZ_CHECK(decode_init(&decode, schema, schema_len) == 0);
	if (decode.head.record_len > RECORD_LEN_MAX)
		return;
	record = calloc(1, decode.head.record_len);
	again = calloc(1, decode.head.record_len);
	FUZZ_CHECK(record && again);
	fuzz_bytes(script, record, decode.head.record_len);
	text = to_text(&decode, record);
	json = decode_to_json(&decode, record);
	FUZZ_CHECK(json_is_object(json));
	if (decode_from_text(&decode, text, again) == 0) {
		text_again = to_text(&decode, again);
		FUZZ_CHECK(strcmp(text, text_again) == 0);
		free(text_again);
	}
	decode_from_json(&decode, json, again);
	json_decref(json);
	free(text);
	free(record);
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_script script = { data, size };
	uint8_t n[2] = { (uint8_t)fuzz_number(&script, 1), (uint8_t)fuzz_number(&script, 1) };
	uint8_t *schemas[2];
	uint32_t lens[2];
	int32_t results[2];

	/* As many bytes as their field counts ask for, and each its own allocation. */
	for (int i = 0; i < 2; i++) {
		size_t want = SHMB_SCHEMA_LEN((size_t)n[i]);

		schemas[i] = malloc(want);
		FUZZ_CHECK(schemas[i]);
		lens[i] = (uint32_t)fuzz_bytes(&script, schemas[i], want);
		schemas[i] = realloc(schemas[i], lens[i] ? lens[i] : 1);
		results[i] = shmb_schema_check(schemas[i], lens[i]);
		FUZZ_CHECK(results[i] == 0 || results[i] == -EINVAL);
	}
	for (int i = 0; i < 2; i++) {
		int32_t same = shmb_schema_compare(schemas[i], lens[i], schemas[i], lens[i]);
		int32_t there = shmb_schema_compare(schemas[i], lens[i], schemas[!i], lens[!i]);

		FUZZ_CHECK(same == results[i]);
		FUZZ_CHECK((there == -EINVAL) == (results[0] < 0 || results[1] < 0));
	}
	if (results[0] == 0)
		decode(schemas[0], lens[0], &script);
	free(schemas[0]);
	free(schemas[1]);
	return 0;
}
