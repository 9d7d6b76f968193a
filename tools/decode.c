/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Walks a schema. The table may come from a stranger's channel: it is checked by the library's
 * shmb_schema_check() first, which promises that every field lies inside its record or parent and
 * that parents come before their children; everything below relies on that, and on nothing else.
 */

#include <errno.h>
#include <string.h>

#include <shmbroker/shmbroker.h>

#include "tools/decode.h"
#include "tools/print.h"

static const char *const kind_names[] = {
	[SHMB_KIND_U8] = "u8",	       [SHMB_KIND_I8] = "i8",	  [SHMB_KIND_U16] = "u16",
	[SHMB_KIND_I16] = "i16",       [SHMB_KIND_U32] = "u32",	  [SHMB_KIND_I32] = "i32",
	[SHMB_KIND_U64] = "u64",       [SHMB_KIND_I64] = "i64",	  [SHMB_KIND_F32] = "f32",
	[SHMB_KIND_F64] = "f64",       [SHMB_KIND_BOOL] = "bool", [SHMB_KIND_CHAR] = "char",
	[SHMB_KIND_STRUCT] = "struct",
};

void decode_type_name(const struct shmb_schema_field *field, char name[32])
{
	const char *kind = "?";

	if (field->kind < sizeof(kind_names) / sizeof(kind_names[0]) && kind_names[field->kind])
		kind = kind_names[field->kind];
	if (field->count == 1)
		snprintf(name, 32, "%s", kind);
	else
		snprintf(name, 32, "%s[%u]", kind, field->count);
}

int decode_init(struct decode *decode, const void *schema, uint32_t schema_len)
{
	int32_t r =
		schema_len > SHMB_SCHEMA_LEN_MAX ? -EINVAL : shmb_schema_check(schema, schema_len);

	if (r < 0) {
		if (schema_len > SHMB_SCHEMA_LEN_MAX ||
		    shmb_last_error(decode->why, sizeof(decode->why)) <= 0)
			snprintf(decode->why, sizeof(decode->why), "not a schema");
		return -EINVAL;
	}
	memcpy(&decode->head, schema, sizeof(decode->head));
	memcpy(decode->fields, (const char *)schema + sizeof(decode->head),
	       schema_len - sizeof(decode->head));
	decode->why[0] = '\0';
	return 0;
}

int decode_part(struct decode *part, const struct decode *whole, const char *name)
{
	uint16_t index_of[SHMB_SCHEMA_FIELDS_MAX];
	uint32_t top = 0;

	while (top < whole->head.n_fields && (whole->fields[top].parent != SHMB_FIELD_NO_PARENT ||
					      whole->fields[top].kind != SHMB_KIND_STRUCT ||
					      strcmp(whole->fields[top].name, name) != 0))
		top++;
	if (top == whole->head.n_fields)
		return -ENOENT;
	part->head = whole->head;
	part->head.record_len = whole->fields[top].size;
	part->head.n_fields = 0;
	part->why[0] = '\0';
	index_of[top] = SHMB_FIELD_NO_PARENT;
	/* Parents come first. */
	for (uint32_t i = 0; i < whole->head.n_fields; i++) {
		const struct shmb_schema_field *field = &whole->fields[i];
		uint32_t at = field->parent;

		while (at != top && at != SHMB_FIELD_NO_PARENT)
			at = whole->fields[at].parent;
		if (at != top)
			continue;
		index_of[i] = part->head.n_fields;
		part->fields[part->head.n_fields] = *field;
		part->fields[part->head.n_fields++].parent = index_of[field->parent];
	}
	return 0;
}

int decode_find(struct decode *decode, const char *path, uint32_t *ret_offset, uint32_t *ret_len)
{
	const struct shmb_schema_field *field = NULL;
	uint32_t parent = SHMB_FIELD_NO_PARENT;

	*ret_offset = 0;
	for (const char *at = path;; at++) {
		size_t len = strcspn(at, ".");
		uint32_t i = 0;

		while (i < decode->head.n_fields &&
		       (decode->fields[i].parent != parent ||
			strnlen(decode->fields[i].name, SHMB_FIELD_NAME_LEN) != len ||
			memcmp(decode->fields[i].name, at, len) != 0))
			i++;
		if (i == decode->head.n_fields || (field && field->count != 1)) {
			snprintf(decode->why, sizeof(decode->why), "the schema has no field '%s'",
				 path);
			return -EINVAL;
		}
		field = &decode->fields[i];
		*ret_offset += field->offset;
		*ret_len = field->size * field->count;
		parent = i;
		at += len;
		if (!*at)
			return 0;
	}
}

/* ---- record to text ---------------------------------------------------------------------------- */

/* Quoted when it would not read back as one word. */
static void char_to_text(const struct shmb_schema_field *field, const uint8_t *at, FILE *file)
{
	size_t len = strnlen((const char *)at, field->count);
	bool is_word = len > 0;

	for (size_t i = 0; i < len; i++)
		is_word &= at[i] > ' ' && at[i] != '"';
	if (!is_word)
		fputc('"', file);
	while (len > 0) {
		const uint8_t *quote = memchr(at, '"', len);
		size_t n = quote ? (size_t)(quote - at) : len;

		print_escaped(file, at, n);
		if (quote)
			fputs("\\\"", file);
		n += quote != NULL;
		at += n;
		len -= n;
	}
	if (!is_word)
		fputc('"', file);
}

static void field_to_text(const struct shmb_schema_field *field, const uint8_t *at, FILE *file)
{
	if (field->kind == SHMB_KIND_CHAR) {
		char_to_text(field, at, file);
		return;
	}
	if (field->count != 1)
		fputc('[', file);
	for (uint32_t i = 0; i < field->count; i++) {
		if (i > 0)
			fputc(',', file);
		decode_scalar_to_text(field, at + (size_t)i * field->size, file);
	}
	if (field->count != 1)
		fputc(']', file);
}

/* @prefix: "pos." or "legs[1].": how the elements of the parent are called. */
static void struct_to_text(const struct decode *decode, uint32_t parent, const uint8_t *base,
			   const char *prefix, bool *is_first, FILE *file)
{
	char inner[512];

	for (uint32_t i = 0; i < decode->head.n_fields; i++) {
		const struct shmb_schema_field *field = &decode->fields[i];
		const uint8_t *at = base + field->offset;

		if (field->parent != parent)
			continue;
		if (field->kind != SHMB_KIND_STRUCT) {
			fprintf(file, "%s%s%.40s=", *is_first ? "" : " ", prefix, field->name);
			field_to_text(field, at, file);
			*is_first = false;
			continue;
		}
		for (uint32_t k = 0; k < field->count; k++) {
			if (field->count == 1)
				snprintf(inner, sizeof(inner), "%s%.40s.", prefix, field->name);
			else
				snprintf(inner, sizeof(inner), "%s%.40s[%u].", prefix, field->name,
					 k);
			struct_to_text(decode, i, at + (size_t)k * field->size, inner, is_first,
				       file);
		}
	}
}

void decode_to_text(const struct decode *decode, const void *record, FILE *file)
{
	bool is_first = true;

	struct_to_text(decode, SHMB_FIELD_NO_PARENT, record, "", &is_first, file);
}

/* ---- record to JSON ---------------------------------------------------------------------------- */

static json_t *struct_to_json(const struct decode *decode, uint32_t parent, const uint8_t *base);

static json_t *element_to_json(const struct decode *decode, uint32_t index, const uint8_t *at)
{
	if (decode->fields[index].kind == SHMB_KIND_STRUCT)
		return struct_to_json(decode, index, at);
	return decode_scalar_to_json(&decode->fields[index], at);
}

static json_t *field_to_json(const struct decode *decode, uint32_t index, const uint8_t *at)
{
	const struct shmb_schema_field *field = &decode->fields[index];
	json_t *array;

	if (field->kind == SHMB_KIND_CHAR)
		return print_json_text(at, strnlen((const char *)at, field->count));
	if (field->count == 1)
		return element_to_json(decode, index, at);
	array = json_array();
	for (uint32_t k = 0; k < field->count; k++)
		json_array_append_new(array,
				      element_to_json(decode, index, at + (size_t)k * field->size));
	return array;
}

static json_t *struct_to_json(const struct decode *decode, uint32_t parent, const uint8_t *base)
{
	json_t *object = json_object();
	char name[SHMB_FIELD_NAME_LEN + 1];

	for (uint32_t i = 0; i < decode->head.n_fields; i++) {
		const struct shmb_schema_field *field = &decode->fields[i];

		if (field->parent != parent)
			continue;
		snprintf(name, sizeof(name), "%.*s", SHMB_FIELD_NAME_LEN, field->name);
		json_object_set_new(object, name, field_to_json(decode, i, base + field->offset));
	}
	return object;
}

json_t *decode_to_json(const struct decode *decode, const void *record)
{
	return struct_to_json(decode, SHMB_FIELD_NO_PARENT, record);
}
