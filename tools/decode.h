/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_DECODE_H
#define SHMB_TOOLS_DECODE_H

/*
 * Records as text and as JSON, by the schema of their channel.
 *
 *	text	time_ns=12 price=1.5 side=buy pos.x=3 levels=[1,2,3] legs[0].id=7
 *	JSON	{"time_ns": 12, "price": 1.5, "side": "buy", "pos": {"x": 3}, ...}
 *
 * What is printed can be given back to make the same record.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <shmbroker/schema.h>

#define DECODE_WHY_LEN 256

/**
 * struct decode - a schema that has been checked
 * @head:   its head
 * @fields: its fields, @head.n_fields of them
 * @why:    why the last call failed, one sentence
 */
struct decode {
	struct shmb_schema head;
	struct shmb_schema_field fields[SHMB_SCHEMA_FIELDS_MAX];
	char why[DECODE_WHY_LEN];
};

/* Check and take over a table. Returns 0 or -EINVAL. */
int decode_init(struct decode *decode, const void *schema, uint32_t schema_len);

/*
 * The struct called @name of a schema as a record of its own. Returns 0; -ENOENT: there is none at the top
 * level.
 */
int decode_part(struct decode *part, const struct decode *whole, const char *name);

/* Print @record, decode->head.record_len bytes, as "field=value ..." without a line end. */
void decode_to_text(const struct decode *decode, const void *record, FILE *file);

/* The same as a JSON object, NULL without memory. */
json_t *decode_to_json(const struct decode *decode, const void *record);

/* Make a record; what @text does not mention is zero. Returns 0 or -EINVAL. */
int decode_from_text(struct decode *decode, const char *text, void *record);
int decode_from_json(struct decode *decode, json_t *object, void *record);

/*
 * Where a field is: "side", "pos.x", or all of "pos". Returns 0, or -EINVAL: there is none, or it is inside
 * of an array.
 */
int decode_find(struct decode *decode, const char *path, uint32_t *ret_offset, uint32_t *ret_len);

/* "u32", "char[16]", "struct[4]": what a field holds. */
void decode_type_name(const struct shmb_schema_field *field, char name[32]);

/* One element of a scalar field; for JSON and for text. */
json_t *decode_scalar_to_json(const struct shmb_schema_field *field, const uint8_t *at);
void decode_scalar_to_text(const struct shmb_schema_field *field, const uint8_t *at, FILE *file);
int decode_scalar_from_text(const struct shmb_schema_field *field, const char *text, uint8_t *at,
			    char *why);
int decode_scalar_from_json(const struct shmb_schema_field *field, json_t *value, uint8_t *at,
			    char *why);

#endif
