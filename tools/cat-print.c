/* SPDX-License-Identifier: Apache-2.0 */

/* How shmctl cat shows one record. */

#include <stdio.h>

#include "tools/cat.h"
#include "tools/command.h"
#include "tools/print.h"

static void print_hex(const uint8_t *data, uint32_t len, FILE *out)
{
	for (uint32_t i = 0; i < len; i++)
		fprintf(out, "%02x", data[i]);
}

static json_t *payload_to_json(const uint8_t *data, uint32_t len)
{
	json_t *payload = json_stringn((const char *)data, len);
	char *hex;
	size_t hex_len;
	FILE *file;

	if (payload)
		return json_pack("{s:o}", "text", payload);
	/* Not UTF-8: the exact bytes, under another name, so that nobody takes them for text. */
	file = open_memstream(&hex, &hex_len);
	if (!file)
		return NULL;
	for (uint32_t i = 0; i < len; i++)
		fprintf(file, "%02x", data[i]);
	fclose(file);
	payload = json_pack("{s:s%}", "hex", hex, hex_len);
	free(hex);
	return payload;
}

static void print_as_json(const struct cat *cat, uint32_t len, bool is_typed, FILE *out)
{
	json_t *record =
		is_typed ? json_pack("{s:o}", "record", decode_to_json(&cat->decode, cat->data))
			 : payload_to_json(cat->data, len);

	json_object_set_new(record, "publisher", print_json_u64(cat->view->publisher_id));
	json_object_set_new(record, "sequence", print_json_u64(cat->view->sequence));
	if (cat->view->type)
		json_object_set_new(record, "type", json_integer(cat->view->type));
	if (cat->view->attempt)
		json_object_set_new(record, "attempt", print_json_u64(cat->view->attempt));
	json_dumpf(record, out, JSON_COMPACT | JSON_ENSURE_ASCII);
	putc('\n', out);
	json_decref(record);
}

void cat_print(const struct cat *cat, uint32_t len, FILE *out)
{
	/* The library promises this length; a publisher that does not keep it gets no decoding. */
	bool is_typed = cat->is_typed && len == cat->decode.head.record_len;

	if (cat->is_raw) {
		fwrite(cat->data, 1, len, out);
	} else if (common.is_json) {
		print_as_json(cat, len, is_typed, out);
	} else if (cat->is_hex) {
		print_hex(cat->data, len, out);
		putc('\n', out);
	} else if (is_typed) {
		decode_to_text(&cat->decode, cat->data, out);
		putc('\n', out);
	} else {
		print_escaped(out, cat->data, len);
		putc('\n', out);
	}
}
