/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The way back: a record from text or JSON. Unknown names and values that do not fit are refused
 * with a sentence that says what would be right; what is not mentioned is zero.
 */

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/decode.h"

/* Index of the field called @name (@len bytes) inside @parent, or -1. */
static int find_field(const struct decode *decode, uint32_t parent, const char *name, size_t len)
{
	for (uint32_t i = 0; i < decode->head.n_fields; i++) {
		const struct shmb_schema_field *field = &decode->fields[i];

		if (field->parent == parent && len <= SHMB_FIELD_NAME_LEN &&
		    strnlen(field->name, SHMB_FIELD_NAME_LEN) == len &&
		    memcmp(field->name, name, len) == 0)
			return i;
	}
	return -1;
}

static int refuse_name(struct decode *decode, uint32_t parent, const char *name, size_t len)
{
	int at = snprintf(decode->why, sizeof(decode->why), "there is no field '%.*s'; there is",
			  len < 64 ? (int)len : 64, name);
	const char *comma = "";

	for (uint32_t i = 0; i < decode->head.n_fields && at < (int)sizeof(decode->why); i++) {
		if (decode->fields[i].parent != parent)
			continue;
		at += snprintf(decode->why + at, sizeof(decode->why) - at, "%s %.40s", comma,
			       decode->fields[i].name);
		comma = ",";
	}
	return -EINVAL;
}

static int store_text(struct decode *decode, const struct shmb_schema_field *field,
		      const char *text, size_t len, uint8_t *at)
{
	if (len > field->count) {
		snprintf(decode->why, sizeof(decode->why),
			 "%.40s: %zu bytes of text do not fit into %u", field->name, len,
			 field->count);
		return -EINVAL;
	}
	memset(at, 0, field->count);
	memcpy(at, text, len);
	return 0;
}

static int refuse_count(struct decode *decode, const struct shmb_schema_field *field, size_t n)
{
	snprintf(decode->why, sizeof(decode->why), "%.40s: %zu values for an array of %u",
		 field->name, n, field->count);
	return -EINVAL;
}

/* ---- JSON -------------------------------------------------------------------------------------- */

static int struct_from_json(struct decode *decode, uint32_t parent, json_t *object, uint8_t *base);

static int element_from_json(struct decode *decode, uint32_t index, json_t *value, uint8_t *at)
{
	const struct shmb_schema_field *field = &decode->fields[index];

	if (field->kind == SHMB_KIND_STRUCT)
		return struct_from_json(decode, index, value, at);
	return decode_scalar_from_json(field, value, at, decode->why);
}

static int field_from_json(struct decode *decode, uint32_t index, json_t *value, uint8_t *at)
{
	const struct shmb_schema_field *field = &decode->fields[index];
	int r = 0;

	if (field->kind == SHMB_KIND_CHAR && json_is_string(value))
		return store_text(decode, field, json_string_value(value),
				  json_string_length(value), at);
	if (field->kind == SHMB_KIND_CHAR) {
		snprintf(decode->why, sizeof(decode->why), "%.40s: not a string", field->name);
		return -EINVAL;
	}
	if (field->count == 1)
		return element_from_json(decode, index, value, at);
	if (!json_is_array(value) || json_array_size(value) > field->count)
		return refuse_count(decode, field,
				    json_is_array(value) ? json_array_size(value) : 1);
	for (size_t k = 0; r == 0 && k < json_array_size(value); k++)
		r = element_from_json(decode, index, json_array_get(value, k),
				      at + k * field->size);
	return r;
}

static int struct_from_json(struct decode *decode, uint32_t parent, json_t *object, uint8_t *base)
{
	const char *name;
	json_t *value;
	int index, r = 0;

	if (!json_is_object(object)) {
		snprintf(decode->why, sizeof(decode->why), "%.40s: not a JSON object",
			 parent == SHMB_FIELD_NO_PARENT ? "record" : decode->fields[parent].name);
		return -EINVAL;
	}
	json_object_foreach(object, name, value)
	{
		index = find_field(decode, parent, name, strlen(name));
		if (index < 0)
			return refuse_name(decode, parent, name, strlen(name));
		r = field_from_json(decode, index, value, base + decode->fields[index].offset);
		if (r < 0)
			return r;
	}
	return 0;
}

int decode_from_json(struct decode *decode, json_t *object, void *record)
{
	memset(record, 0, decode->head.record_len);
	return struct_from_json(decode, SHMB_FIELD_NO_PARENT, object, record);
}

/* ---- text -------------------------------------------------------------------------------------- */

/* The escapes that print_escaped() makes, and \". Returns the byte and moves *at past it. */
static char unescape(const char **at)
{
	const char *from = *at;
	char digits[3] = "";

	*at += 2;
	switch (from[1]) {
	case 'n':
		return '\n';
	case 't':
		return '\t';
	case 'r':
		return '\r';
	case 'x':
		if (isxdigit((unsigned char)from[2]) && isxdigit((unsigned char)from[3])) {
			memcpy(digits, from + 2, 2);
			*at += 2;
			return strtol(digits, NULL, 16);
		}
		return 'x';
	case '\0':
		*at -= 1;
		return '\\';
	default:
		return from[1];
	}
}

/* One value: up to a space outside quotes. @word has room for the rest of the text. */
static int take_word(struct decode *decode, const char **at, char *word, size_t *ret_len)
{
	bool is_quoted = false;
	size_t len = 0;

	while (**at && (is_quoted || !isspace((unsigned char)**at))) {
		if (**at == '"') {
			is_quoted = !is_quoted;
			*at += 1;
		} else if (**at == '\\') {
			word[len++] = unescape(at);
		} else {
			word[len++] = *(*at)++;
		}
	}
	word[len] = '\0';
	*ret_len = len;
	if (is_quoted) {
		snprintf(decode->why, sizeof(decode->why), "a quote is not closed");
		return -EINVAL;
	}
	return 0;
}

static int list_from_text(struct decode *decode, const struct shmb_schema_field *field, char *text,
			  uint8_t *at)
{
	size_t len = strlen(text), n = 0;
	char *value;
	int r = 0;

	if (*text == '[' && text[len - 1] == ']') {
		text[len - 1] = '\0';
		text++;
	}
	while (r == 0 && (value = strsep(&text, ",")) && (text || *value || n > 0)) {
		if (n == field->count)
			return refuse_count(decode, field, n + 1);
		r = decode_scalar_from_text(field, value, at + n++ * field->size, decode->why);
	}
	return r;
}

static int field_from_text(struct decode *decode, uint32_t index, char *word, size_t len,
			   uint8_t *at, bool is_element)
{
	const struct shmb_schema_field *field = &decode->fields[index];

	if (field->kind == SHMB_KIND_STRUCT) {
		snprintf(decode->why, sizeof(decode->why),
			 "%.40s is a struct: name its fields, as "
			 "%.40s.field=value",
			 field->name, field->name);
		return -EINVAL;
	}
	if (field->kind == SHMB_KIND_CHAR)
		return store_text(decode, field, word, len, at);
	if (field->count == 1 || is_element)
		return decode_scalar_from_text(field, word, at, decode->why);
	return list_from_text(decode, field, word, at);
}

/* Follow "legs[1].id" up to '=': which field, and where it lies in the record. */
static int take_path(struct decode *decode, const char **at, uint32_t *ret_index,
		     uint32_t *ret_offset, bool *ret_is_element)
{
	uint32_t parent = SHMB_FIELD_NO_PARENT, offset = 0;

	for (;;) {
		size_t len = strspn(*at, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
					 "0123456789_");
		int index = find_field(decode, parent, *at, len);
		const struct shmb_schema_field *field;
		unsigned long element = 0;
		char *end;

		if (index < 0)
			return refuse_name(decode, parent, *at, len ? len : strcspn(*at, "= "));
		field = &decode->fields[index];
		*at += len;
		*ret_is_element = **at == '[';
		if (**at == '[') {
			element = strtoul(*at + 1, &end, 10);
			if (*end != ']' || end == *at + 1 || element >= field->count)
				return refuse_count(decode, field, element + 1);
			*at = end + 1;
		}
		offset += field->offset + element * field->size;
		if (**at == '=' && (field->kind != SHMB_KIND_CHAR || !*ret_is_element)) {
			*at += 1;
			*ret_index = index;
			*ret_offset = offset;
			return 0;
		}
		if (**at != '.' || field->kind != SHMB_KIND_STRUCT) {
			snprintf(decode->why, sizeof(decode->why), "after '%.40s' comes '='",
				 field->name);
			return -EINVAL;
		}
		*at += 1;
		parent = index;
	}
}

int decode_from_text(struct decode *decode, const char *text, void *record)
{
	char *word = malloc(strlen(text) + 1);
	uint32_t index = 0, offset = 0;
	bool is_element = false;
	size_t len;
	int r = word ? 0 : -ENOMEM;

	memset(record, 0, decode->head.record_len);
	while (r == 0) {
		text += strspn(text, " \t\r\n");
		if (*text == '\0')
			break;
		r = take_path(decode, &text, &index, &offset, &is_element);
		if (r == 0)
			r = take_word(decode, &text, word, &len);
		if (r == 0)
			r = field_from_text(decode, index, word, len, (uint8_t *)record + offset,
					    is_element);
	}
	free(word);
	return r;
}
