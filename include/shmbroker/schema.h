/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMBROKER_SCHEMA_H
#define SHMBROKER_SCHEMA_H

/*
 * A schema is the C-ABI description of a record: one struct shmb_schema, then @n_fields structs
 * shmb_schema_field. Each language's own compiler or reflection makes it, and the bytes are the
 * same in all of them. In C:
 *
 *	struct tick { uint64_t time_ns; double price; uint32_t count; uint32_t flags; };
 *	SHMB_SCHEMA(tick_schema, struct tick, "market.tick",
 *		    SHMB_FIELD(struct tick, time_ns), SHMB_FIELD(struct tick, price),
 *		    SHMB_FIELD(struct tick, count), SHMB_FIELD(struct tick, flags));
 *
 * then pass &tick_schema and sizeof(tick_schema) where a schema is asked for. Pointers, long
 * double and bit-fields do not compile: they mean nothing to another process.
 */

#include <stdint.h>

#include <shmbroker/layout.h>

#define SHMB_SCHEMA_MAGIC      0x31544853u /* "SHT1" */
#define SHMB_SCHEMA_FIELDS_MAX 200u
#define SHMB_SCHEMA_NAME_LEN   48u
#define SHMB_FIELD_NAME_LEN    40u
#define SHMB_FIELD_NO_PARENT   0xffffu

#define SHMB_KIND_U8	 1u
#define SHMB_KIND_I8	 2u
#define SHMB_KIND_U16	 3u
#define SHMB_KIND_I16	 4u
#define SHMB_KIND_U32	 5u
#define SHMB_KIND_I32	 6u
#define SHMB_KIND_U64	 7u
#define SHMB_KIND_I64	 8u
#define SHMB_KIND_F32	 9u
#define SHMB_KIND_F64	 10u
#define SHMB_KIND_BOOL	 11u
#define SHMB_KIND_CHAR	 12u /* text: with a count, a NUL-padded string */
#define SHMB_KIND_STRUCT 13u /* the fields that name it as parent follow it */

/**
 * struct shmb_schema_field
 * @name:   NUL-padded, [A-Za-z0-9_], unique among its siblings
 * @offset: from the start of the record, or of the parent struct's first element
 * @size:   bytes of one element
 * @count:  elements: 1 a scalar, n an array
 * @parent: index of the struct field that contains it, SHMB_FIELD_NO_PARENT at top level
 * @kind:   SHMB_KIND_*
 * @align:  of one element: 1, 2, 4 or 8
 */
struct shmb_schema_field {
	char name[SHMB_FIELD_NAME_LEN];
	uint32_t offset;
	uint32_t size;
	uint32_t count;
	uint16_t parent;
	uint8_t kind;
	uint8_t align;
	uint8_t zero[8];
};
SHMB_AT(shmb_schema_field, offset, 40);
SHMB_AT(shmb_schema_field, kind, 54);
SHMB_SIZE(shmb_schema_field, 64);

/**
 * struct shmb_schema - the head of a schema
 * @magic:	SHMB_SCHEMA_MAGIC
 * @version:	1
 * @n_fields:	at least 1
 * @record_len: sizeof the struct: every record of the channel has this length
 * @align:	alignof the struct, at most 8
 * @name:	what the user calls the type, NUL-padded, [A-Za-z0-9_.:/-]
 */
struct shmb_schema {
	uint32_t magic;
	uint16_t version;
	uint16_t n_fields;
	uint32_t record_len;
	uint32_t align;
	char name[SHMB_SCHEMA_NAME_LEN];
};
SHMB_AT(shmb_schema, record_len, 8);
SHMB_AT(shmb_schema, name, 16);
SHMB_SIZE(shmb_schema, 64);

#define SHMB_SCHEMA_LEN(n_fields) \
	(sizeof(struct shmb_schema) + (n_fields) * sizeof(struct shmb_schema_field))
#define SHMB_SCHEMA_LEN_MAX 12864u /* SHMB_SCHEMA_LEN(SHMB_SCHEMA_FIELDS_MAX) */

#if !defined(__cplusplus)
/* clang-format off */
#define SHMB_KIND_OF(expression) \
	_Generic((expression), \
		_Bool: SHMB_KIND_BOOL, \
		char: SHMB_KIND_CHAR, \
		signed char: SHMB_KIND_I8, \
		unsigned char: SHMB_KIND_U8, \
		short: SHMB_KIND_I16, \
		unsigned short: SHMB_KIND_U16, \
		int: SHMB_KIND_I32, \
		unsigned int: SHMB_KIND_U32, \
		long: sizeof(long) == 8 ? SHMB_KIND_I64 : SHMB_KIND_I32, \
		unsigned long: sizeof(long) == 8 ? SHMB_KIND_U64 : SHMB_KIND_U32, \
		long long: SHMB_KIND_I64, \
		unsigned long long: SHMB_KIND_U64, \
		float: SHMB_KIND_F32, \
		double: SHMB_KIND_F64)

/* One scalar field. */
#define SHMB_FIELD(type, field) \
	{ .name = #field, \
	  .offset = offsetof(type, field), \
	  .size = sizeof(((type *)0)->field), \
	  .count = 1, \
	  .parent = SHMB_FIELD_NO_PARENT, \
	  .kind = SHMB_KIND_OF(((type *)0)->field), \
	  .align = _Alignof(__typeof__(((type *)0)->field)) }
/* One array of scalars; an array of char is a string. */
#define SHMB_ARRAY(type, field) \
	{ .name = #field, \
	  .offset = offsetof(type, field), \
	  .size = sizeof(((type *)0)->field[0]), \
	  .count = sizeof(((type *)0)->field) / sizeof(((type *)0)->field[0]), \
	  .parent = SHMB_FIELD_NO_PARENT, \
	  .kind = SHMB_KIND_OF(((type *)0)->field[0]), \
	  .align = _Alignof(__typeof__(((type *)0)->field[0])) }
/*
 * One struct, whose own fields follow as SHMB_FIELD_IN() or SHMB_ARRAY_IN() with this field's index as
 * @parent_.
 */
#define SHMB_STRUCT(type, field) \
	{ .name = #field, \
	  .offset = offsetof(type, field), \
	  .size = sizeof(((type *)0)->field), \
	  .count = 1, \
	  .parent = SHMB_FIELD_NO_PARENT, \
	  .kind = SHMB_KIND_STRUCT, \
	  .align = _Alignof(__typeof__(((type *)0)->field)) }
#define SHMB_FIELD_IN(parent_, type, field) \
	{ .name = #field, \
	  .offset = offsetof(type, field), \
	  .size = sizeof(((type *)0)->field), \
	  .count = 1, \
	  .parent = (parent_), \
	  .kind = SHMB_KIND_OF(((type *)0)->field), \
	  .align = _Alignof(__typeof__(((type *)0)->field)) }
#define SHMB_ARRAY_IN(parent_, type, field) \
	{ .name = #field, \
	  .offset = offsetof(type, field), \
	  .size = sizeof(((type *)0)->field[0]), \
	  .count = sizeof(((type *)0)->field) / sizeof(((type *)0)->field[0]), \
	  .parent = (parent_), \
	  .kind = SHMB_KIND_OF(((type *)0)->field[0]), \
	  .align = _Alignof(__typeof__(((type *)0)->field[0])) }

/* Defines a static const table named @variable. */
#define SHMB_SCHEMA(variable, type, type_name, ...) \
	static const struct { \
		struct shmb_schema head; \
		struct shmb_schema_field \
			fields[sizeof((struct shmb_schema_field[]){ __VA_ARGS__ }) / \
			       sizeof(struct shmb_schema_field)]; \
	} variable = { \
		.head = { .magic = SHMB_SCHEMA_MAGIC, \
			  .version = 1, \
			  .n_fields = sizeof((struct shmb_schema_field[]){ __VA_ARGS__ }) / \
				      sizeof(struct shmb_schema_field), \
			  .record_len = sizeof(type), \
			  .align = _Alignof(type), \
			  .name = type_name }, \
		.fields = { __VA_ARGS__ }, \
	}
/* clang-format on */
#endif

#ifdef __cplusplus
extern "C" {
#endif

/**
 * shmb_schema_check() - is this a schema that shared memory can have?
 * @schema:	table as above
 * @schema_len: its bytes
 *
 * Checks every bound, name and kind; fields must lie inside the record (or their parent) and may
 * not overlap; gaps of 8 bytes and more that no field describes are refused, since they are
 * either a forgotten field or a leak of the sender's memory.
 *
 * Context: any thread; does not block.
 * Return: 0; -EINVAL: shmb_last_error() says which field breaks which rule.
 */
int32_t shmb_schema_check(const void *schema, uint32_t schema_len);

/**
 * shmb_schema_compare() - are two schemas the same?
 * @channel:	  table of the channel
 * @channel_len: its bytes
 * @mine:	  table of the caller
 * @mine_len:	  its bytes
 *
 * Context: any thread; does not block.
 * Return: 0; -EPROTOTYPE: shmb_last_error() names the first field that differs; -EINVAL: one of
 *	   them is no schema.
 */
int32_t shmb_schema_compare(const void *channel, uint32_t channel_len, const void *mine,
			    uint32_t mine_len);

#ifdef __cplusplus
}
#endif

#endif
