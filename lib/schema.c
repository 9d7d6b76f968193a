/* SPDX-License-Identifier: Apache-2.0 */
#include <shmbroker/schema.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "lib/api.h"
#include "lib/error.h"

/* As many bytes that no field describes are a mistake: padding is always shorter. */
#define GAP_LEN_MAX 7u
/* Room for "leg.price" in a sentence; a longer path loses its beginning. */
#define PATH_CAP 96u
#define TYPE_CAP 48u

/* A private copy: it is aligned, and nobody can change it between a check and its use. */
struct table {
	struct shmb_schema head;
	struct shmb_schema_field fields[SHMB_SCHEMA_FIELDS_MAX];
};
_Static_assert(sizeof(struct table) == SHMB_SCHEMA_LEN_MAX, "a table is what travels");

/* The undescribed bytes at both ends of a struct, which join those of its neighbours. */
struct edges {
	uint32_t first;
	uint32_t last;
};

static const struct {
	const char *name;
	uint32_t size;
} kinds[] = {
	[SHMB_KIND_U8] = { "u8", 1 },	      [SHMB_KIND_I8] = { "i8", 1 },
	[SHMB_KIND_U16] = { "u16", 2 },	      [SHMB_KIND_I16] = { "i16", 2 },
	[SHMB_KIND_U32] = { "u32", 4 },	      [SHMB_KIND_I32] = { "i32", 4 },
	[SHMB_KIND_U64] = { "u64", 8 },	      [SHMB_KIND_I64] = { "i64", 8 },
	[SHMB_KIND_F32] = { "f32", 4 },	      [SHMB_KIND_F64] = { "f64", 8 },
	[SHMB_KIND_BOOL] = { "bool", 1 },     [SHMB_KIND_CHAR] = { "char", 1 },
	[SHMB_KIND_STRUCT] = { "struct", 0 },
};

static bool is_word_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_';
}

/* At least one allowed character, then at least one NUL, then nothing else. */
static bool is_name(const char *name, size_t cap, const char *also)
{
	size_t len = strnlen(name, cap);

	if (len == 0 || len == cap)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!is_word_char(name[i]) && !strchr(also, name[i]))
			return false;
	}
	for (size_t i = len; i < cap; i++) {
		if (name[i])
			return false;
	}
	return true;
}

static bool is_alignment(uint32_t align)
{
	return align == 1 || align == 2 || align == 4 || align == 8;
}

/* "leg.price"; written from its end, because a field knows its parent. */
static const char *path(const struct table *table, uint32_t index, char text[PATH_CAP])
{
	char *at = text + PATH_CAP - 1;

	*at = '\0';
	for (;;) {
		const char *name = table->fields[index].name;
		size_t len = strlen(name);

		if (len + 1 > (size_t)(at - text))
			break;
		at -= len;
		memcpy(at, name, len);
		index = table->fields[index].parent;
		if (index == SHMB_FIELD_NO_PARENT)
			break;
		*--at = '.';
	}
	return at;
}

/* "u32[4]", "struct of 24 bytes" */
static const char *type(const struct shmb_schema_field *field, char text[TYPE_CAP])
{
	char count[16] = "";

	if (field->count != 1)
		snprintf(count, sizeof(count), "[%u]", field->count);
	if (field->kind == SHMB_KIND_STRUCT)
		snprintf(text, TYPE_CAP, "struct%s of %u bytes", count, field->size);
	else
		snprintf(text, TYPE_CAP, "%s%s", kinds[field->kind].name, count);
	return text;
}

/* Size and alignment of what contains a field: a struct field or the record. */
static void container(const struct table *table, uint32_t parent, uint32_t *len, uint32_t *align)
{
	if (parent == SHMB_FIELD_NO_PARENT) {
		*len = table->head.record_len;
		*align = table->head.align;
	} else {
		*len = table->fields[parent].size;
		*align = table->fields[parent].align;
	}
}

static uint32_t end_of(const struct shmb_schema_field *field)
{
	return field->offset + field->size * field->count;
}

static int32_t check_head(const struct table *table, uint32_t schema_len)
{
	const struct shmb_schema *head = &table->head;

	if (head->magic != SHMB_SCHEMA_MAGIC)
		return shmb_fail(-EINVAL, "schema begins with %#x, not with %#x", head->magic,
				 SHMB_SCHEMA_MAGIC);
	if (head->version != 1)
		return shmb_fail(-EINVAL, "schema version %u is not 1", head->version);
	if (head->n_fields == 0 || head->n_fields > SHMB_SCHEMA_FIELDS_MAX)
		return shmb_fail(-EINVAL, "schema has %u fields, not 1 to %u", head->n_fields,
				 SHMB_SCHEMA_FIELDS_MAX);
	if (schema_len != SHMB_SCHEMA_LEN(head->n_fields))
		return shmb_fail(-EINVAL, "schema with %u fields has %u bytes, not %zu",
				 head->n_fields, schema_len, SHMB_SCHEMA_LEN(head->n_fields));
	if (!is_name(head->name, sizeof(head->name), ".:/-"))
		return shmb_fail(-EINVAL,
				 "schema's name is not 1 to %u characters of [A-Za-z0-9_.:/-]",
				 SHMB_SCHEMA_NAME_LEN - 1);
	if (!is_alignment(head->align))
		return shmb_fail(-EINVAL, "record's alignment %u is not 1, 2, 4 or 8", head->align);
	if (head->record_len == 0 || head->record_len > SHMB_RECORD_LEN_MASK)
		return shmb_fail(-EINVAL, "record has %u bytes, not 1 to %llu", head->record_len,
				 SHMB_RECORD_LEN_MASK);
	if (head->record_len % head->align)
		return shmb_fail(-EINVAL, "record's %u bytes are no multiple of its alignment %u",
				 head->record_len, head->align);
	return 0;
}

/* What a field says about itself; its parent, if any, has passed this check. */
static int32_t check_field(const struct table *table, uint32_t index)
{
	static const uint8_t zero[sizeof(table->fields[0].zero)];
	const struct shmb_schema_field *field = &table->fields[index];
	uint32_t limit, align;
	char text[PATH_CAP];
	const char *name;

	if (!is_name(field->name, sizeof(field->name), ""))
		return shmb_fail(-EINVAL,
				 "name of field %u is not 1 to %u characters of [A-Za-z0-9_]",
				 index, SHMB_FIELD_NAME_LEN - 1);
	if (field->parent != SHMB_FIELD_NO_PARENT &&
	    (field->parent >= index || table->fields[field->parent].kind != SHMB_KIND_STRUCT))
		return shmb_fail(-EINVAL, "field '%s' has parent %u, which is no struct before it",
				 field->name, field->parent);
	name = path(table, index, text);
	if (field->kind == 0 || field->kind >= SHMB_ARRAY_LEN(kinds))
		return shmb_fail(-EINVAL, "field '%s' has unknown kind %u", name, field->kind);
	if (field->size == 0 || (kinds[field->kind].size && field->size != kinds[field->kind].size))
		return shmb_fail(-EINVAL, "field '%s' is a %s of %u bytes", name,
				 kinds[field->kind].name, field->size);
	if (field->count == 0)
		return shmb_fail(-EINVAL, "field '%s' has no elements", name);
	if (!is_alignment(field->align) || field->size % field->align)
		return shmb_fail(-EINVAL, "field '%s' of %u bytes cannot be aligned to %u", name,
				 field->size, field->align);
	if (memcmp(field->zero, zero, sizeof(zero)) != 0)
		return shmb_fail(-EINVAL, "field '%s' has reserved bytes that are not zero", name);

	container(table, field->parent, &limit, &align);
	if (field->align > align)
		return shmb_fail(-EINVAL,
				 "field '%s' is aligned to %u, inside something aligned to %u",
				 name, field->align, align);
	if (field->offset % field->align)
		return shmb_fail(-EINVAL, "field '%s' at %u is not aligned to %u", name,
				 field->offset, field->align);
	if (field->offset > limit || (uint64_t)field->size * field->count > limit - field->offset)
		return shmb_fail(
			-EINVAL,
			"field '%s' at %u with %llu bytes ends behind the %u bytes around it", name,
			field->offset, (unsigned long long)field->size * field->count, limit);
	return 0;
}

static int32_t check_sibling(const struct table *table, uint32_t before, uint32_t index)
{
	const struct shmb_schema_field *a = &table->fields[before];
	const struct shmb_schema_field *b = &table->fields[index];
	char text[PATH_CAP];

	if (a->parent != b->parent)
		return 0;
	if (strcmp(a->name, b->name) == 0)
		return shmb_fail(-EINVAL, "two fields are called '%s'", path(table, index, text));
	if (a->offset < end_of(b) && b->offset < end_of(a))
		return shmb_fail(-EINVAL, "field '%s' at %u overlaps '%s' at %u",
				 path(table, index, text), b->offset, a->name, a->offset);
	return 0;
}

static int32_t fail_gap(const struct table *table, uint32_t parent, uint32_t len, uint32_t offset)
{
	char text[PATH_CAP];

	if (parent == SHMB_FIELD_NO_PARENT)
		return shmb_fail(-EINVAL, "%u undescribed bytes at offset %u", len, offset);
	return shmb_fail(-EINVAL, "%u undescribed bytes at offset %u of '%s'", len, offset,
			 path(table, parent, text));
}

/* Walks the fields of one container in memory order. All of them have their own edges already. */
static int32_t check_gaps(const struct table *table, uint32_t parent, const struct edges *edges,
			  struct edges *ret_edges)
{
	const uint32_t n = table->head.n_fields;
	uint32_t described = 0; /* bytes up to here are described, or short padding */
	uint32_t at = 0;
	bool first = true;
	uint32_t len, align, gap;
	char text[PATH_CAP];

	container(table, parent, &len, &align);
	for (;;) {
		const struct shmb_schema_field *next = NULL;
		uint32_t next_index = 0;

		for (uint32_t i = 0; i < n; i++) {
			const struct shmb_schema_field *field = &table->fields[i];

			if (field->parent == parent && field->offset >= at &&
			    (!next || field->offset < next->offset)) {
				next = field;
				next_index = i;
			}
		}
		if (!next)
			break;
		gap = next->offset + edges[next_index].first - described;
		if (gap > GAP_LEN_MAX)
			return fail_gap(table, parent, gap, described);
		if (first)
			ret_edges->first = gap;
		first = false;
		gap = edges[next_index].last + edges[next_index].first;
		if (next->count > 1 && gap > GAP_LEN_MAX)
			return shmb_fail(-EINVAL,
					 "%u undescribed bytes between the elements of '%s'", gap,
					 path(table, next_index, text));
		at = end_of(next);
		described = at - edges[next_index].last;
	}
	gap = len - described;
	if (gap > GAP_LEN_MAX)
		return fail_gap(table, parent, gap, described);
	if (first)
		return shmb_fail(-EINVAL, "struct '%s' has no fields", path(table, parent, text));
	ret_edges->last = gap;
	return 0;
}

static int32_t table_load(struct table *table, const void *schema, uint32_t schema_len)
{
	struct edges edges[SHMB_SCHEMA_FIELDS_MAX] = { { 0, 0 } };
	struct edges whole;
	int32_t r;

	if (!schema || schema_len < sizeof(table->head) || schema_len > sizeof(*table))
		return shmb_fail(-EINVAL, "schema has %u bytes, not %zu to %u",
				 schema ? schema_len : 0, SHMB_SCHEMA_LEN(1), SHMB_SCHEMA_LEN_MAX);
	memcpy(table, schema, schema_len);
	r = check_head(table, schema_len);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < table->head.n_fields; i++) {
		r = check_field(table, i);
		for (uint32_t j = 0; r == 0 && j < i; j++)
			r = check_sibling(table, j, i);
		if (r < 0)
			return r;
	}
	/* From the last, so that a struct's fields come before it. */
	for (uint32_t i = table->head.n_fields; i-- > 0;) {
		if (table->fields[i].kind != SHMB_KIND_STRUCT)
			continue;
		r = check_gaps(table, i, edges, &edges[i]);
		if (r < 0)
			return r;
	}
	return check_gaps(table, SHMB_FIELD_NO_PARENT, edges, &whole);
}

SHMB_API int32_t shmb_schema_check(const void *schema, uint32_t schema_len)
{
	struct table table;

	return table_load(&table, schema, schema_len);
}

/* Index of the field of that name in a parent of that index; SHMB_FIELD_NO_PARENT: none. */
static uint32_t find(const struct table *table, uint32_t parent, const char *name)
{
	for (uint32_t i = 0; i < table->head.n_fields; i++) {
		if (table->fields[i].parent == parent && strcmp(table->fields[i].name, name) == 0)
			return i;
	}
	return SHMB_FIELD_NO_PARENT;
}

/*
 * The same bytes. Alignment is not among them: a 32-bit ABI may align 8 bytes to 4, and where that
 * moves a field, its offset says so. Records lie at multiples of 8, enough for either.
 */
static bool same_field(const struct shmb_schema_field *a, const struct shmb_schema_field *b)
{
	return a->kind == b->kind && a->offset == b->offset && a->size == b->size &&
	       a->count == b->count;
}

static int32_t fail_field(const struct table *channel, uint32_t index,
			  const struct shmb_schema_field *mine)
{
	const struct shmb_schema_field *theirs = &channel->fields[index];
	char text[PATH_CAP], theirs_type[TYPE_CAP], mine_type[TYPE_CAP];
	const char *name = path(channel, index, text);

	type(theirs, theirs_type);
	type(mine, mine_type);
	return shmb_fail(-EPROTOTYPE, "field '%s': channel has %s at %u, you have %s at %u", name,
			 theirs_type, theirs->offset, mine_type, mine->offset);
}

/* The order of the entries does not matter: it changes no byte of a record. */
static int32_t compare_fields(const struct table *channel, const struct table *mine)
{
	uint16_t mine_of[SHMB_SCHEMA_FIELDS_MAX] = {
		0
	}; /* index in @mine of each of the channel's */
	bool known[SHMB_SCHEMA_FIELDS_MAX] = { false };
	char text[PATH_CAP], type_text[TYPE_CAP];

	for (uint32_t i = 0; i < channel->head.n_fields; i++) {
		const struct shmb_schema_field *field = &channel->fields[i];
		uint32_t parent = SHMB_FIELD_NO_PARENT;
		uint32_t j;

		if (field->parent != SHMB_FIELD_NO_PARENT)
			parent = mine_of[field->parent];
		j = find(mine, parent, field->name);
		if (j == SHMB_FIELD_NO_PARENT)
			return shmb_fail(
				-EPROTOTYPE, "field '%s': channel has %s at %u, you have none",
				path(channel, i, text), type(field, type_text), field->offset);
		if (!same_field(field, &mine->fields[j]))
			return fail_field(channel, i, &mine->fields[j]);
		mine_of[i] = (uint16_t)j;
		known[j] = true;
	}
	for (uint32_t j = 0; j < mine->head.n_fields; j++) {
		const struct shmb_schema_field *field = &mine->fields[j];

		if (!known[j])
			return shmb_fail(
				-EPROTOTYPE, "field '%s': channel has none, you have %s at %u",
				path(mine, j, text), type(field, type_text), field->offset);
	}
	return 0;
}

SHMB_API int32_t shmb_schema_compare(const void *channel, uint32_t channel_len, const void *mine,
				     uint32_t mine_len)
{
	struct table a, b;
	int32_t r;

	r = table_load(&a, channel, channel_len);
	if (r < 0)
		return r;
	r = table_load(&b, mine, mine_len);
	if (r < 0)
		return r;
	if (strcmp(a.head.name, b.head.name) != 0)
		return shmb_fail(-EPROTOTYPE, "channel has records of type '%s', you have '%s'",
				 a.head.name, b.head.name);
	r = compare_fields(&a, &b);
	if (r < 0)
		return r;
	if (a.head.record_len != b.head.record_len)
		return shmb_fail(-EPROTOTYPE, "channel has records of %u bytes, you have %u",
				 a.head.record_len, b.head.record_len);
	return 0;
}
