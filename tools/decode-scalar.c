/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One scalar of a record: bytes to number to text, and back. Numbers that do not fit are refused,
 * never cut. Records are little-endian, as the layout says.
 */

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/decode.h"
#include "tools/print.h"

static bool is_signed(uint8_t kind)
{
	return kind == SHMB_KIND_I8 || kind == SHMB_KIND_I16 || kind == SHMB_KIND_I32 ||
	       kind == SHMB_KIND_I64;
}

static uint64_t load(const struct shmb_schema_field *field, const uint8_t *at)
{
	uint64_t value = 0;

	memcpy(&value, at, field->size);
	value = le64toh(value);
	if (is_signed(field->kind) && field->size < 8 && value >> (field->size * 8 - 1) & 1)
		value |= ~0ull << (field->size * 8);
	return value;
}

static double load_real(const struct shmb_schema_field *field, const uint8_t *at)
{
	uint64_t bits = load(field, at);
	uint32_t bits32 = bits;
	double real;
	float real32;

	if (field->kind == SHMB_KIND_F32) {
		memcpy(&real32, &bits32, sizeof(real32));
		return real32;
	}
	memcpy(&real, &bits, sizeof(real));
	return real;
}

static void store(const struct shmb_schema_field *field, uint64_t value, uint8_t *at)
{
	value = htole64(value);
	memcpy(at, &value, field->size);
}

static void store_real(const struct shmb_schema_field *field, double real, uint8_t *at)
{
	float real32 = real;
	uint32_t bits32;
	uint64_t bits;

	memcpy(&bits32, &real32, sizeof(bits32));
	memcpy(&bits, &real, sizeof(bits));
	store(field, field->kind == SHMB_KIND_F32 ? bits32 : bits, at);
}

static bool is_real(uint8_t kind)
{
	return kind == SHMB_KIND_F32 || kind == SHMB_KIND_F64;
}

/* The fewest digits that read back as the same number. */
static void print_real(const struct shmb_schema_field *field, double real, char text[40])
{
	int max = field->kind == SHMB_KIND_F32 ? 9 : 17;

	for (int digits = 1; digits <= max; digits++) {
		snprintf(text, 40, "%.*g", digits, real);
		if (field->kind == SHMB_KIND_F32 ? strtof(text, NULL) == (float)real
						 : strtod(text, NULL) == real)
			return;
	}
}

void decode_scalar_to_text(const struct shmb_schema_field *field, const uint8_t *at, FILE *file)
{
	uint64_t value = load(field, at);
	char text[40];

	if (is_real(field->kind)) {
		print_real(field, load_real(field, at), text);
		fputs(text, file);
	} else if (field->kind == SHMB_KIND_BOOL && value <= 1) {
		fputs(value ? "true" : "false", file);
	} else if (is_signed(field->kind)) {
		fprintf(file, "%" PRId64, (int64_t)value);
	} else {
		fprintf(file, "%" PRIu64, value);
	}
}

json_t *decode_scalar_to_json(const struct shmb_schema_field *field, const uint8_t *at)
{
	uint64_t value = load(field, at);
	double real;

	if (is_real(field->kind)) {
		real = load_real(field, at);
		if (isfinite(real))
			return json_real(real);
		return json_string(isnan(real) ? "nan" : real < 0 ? "-inf" : "inf");
	}
	if (field->kind == SHMB_KIND_BOOL && value <= 1)
		return json_boolean(value);
	if (is_signed(field->kind))
		return json_integer((int64_t)value);
	return print_json_u64(value);
}

static int refuse(const struct shmb_schema_field *field, const char *text, char *why)
{
	char type[32];

	decode_type_name(field, type);
	snprintf(why, DECODE_WHY_LEN, "%.40s: '%.64s' is no %s", field->name, text, type);
	return -EINVAL;
}

static int store_unsigned(const struct shmb_schema_field *field, uint64_t value, uint8_t *at)
{
	if (field->size < 8 && value >> (field->size * 8))
		return -ERANGE;
	if (field->kind == SHMB_KIND_BOOL && value > 1)
		return -ERANGE;
	store(field, value, at);
	return 0;
}

static int store_signed(const struct shmb_schema_field *field, int64_t value, uint8_t *at)
{
	int64_t max = INT64_MAX >> (64 - field->size * 8);

	if (value > max || value < -max - 1)
		return -ERANGE;
	store(field, value, at);
	return 0;
}

/* Hexadecimal is welcome; octal would be a surprise. */
static int base_of(const char *text)
{
	text += *text == '-' || *text == '+';
	return text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10;
}

int decode_scalar_from_text(const struct shmb_schema_field *field, const char *text, uint8_t *at,
			    char *why)
{
	char *end = NULL;
	int r;

	errno = 0;
	if (*text == '\0' || strchr(" \t\n", *text))
		return refuse(field, text, why);
	if (is_real(field->kind)) {
		double real = strtod(text, &end);

		if (*end || (errno == ERANGE && isinf(real)))
			return refuse(field, text, why);
		if (field->kind == SHMB_KIND_F32 && isfinite(real) && isinf((float)real))
			return refuse(field, text, why);
		store_real(field, real, at);
		return 0;
	}
	if (field->kind == SHMB_KIND_BOOL && (!strcmp(text, "true") || !strcmp(text, "false"))) {
		store(field, *text == 't', at);
		return 0;
	}
	if (is_signed(field->kind)) {
		int64_t value = strtoll(text, &end, base_of(text));

		r = *end || errno ? -EINVAL : store_signed(field, value, at);
	} else {
		uint64_t value = strtoull(text, &end, base_of(text));

		r = *text == '-' || *end || errno ? -EINVAL : store_unsigned(field, value, at);
	}
	return r < 0 ? refuse(field, text, why) : 0;
}

int decode_scalar_from_json(const struct shmb_schema_field *field, json_t *value, uint8_t *at,
			    char *why)
{
	int r = -EINVAL;
	char *text;

	if (json_is_string(value))
		return decode_scalar_from_text(field, json_string_value(value), at, why);
	if (is_real(field->kind) && json_is_number(value)) {
		store_real(field, json_number_value(value), at);
		return 0;
	}
	if (field->kind == SHMB_KIND_BOOL && json_is_boolean(value)) {
		store(field, json_is_true(value), at);
		return 0;
	}
	if (json_is_integer(value) && is_signed(field->kind))
		r = store_signed(field, json_integer_value(value), at);
	else if (json_is_integer(value) && json_integer_value(value) >= 0)
		r = store_unsigned(field, json_integer_value(value), at);
	if (r < 0) {
		text = json_dumps(value, JSON_ENCODE_ANY);
		r = refuse(field, text ? text : "?", why);
		free(text);
	}
	return r;
}
