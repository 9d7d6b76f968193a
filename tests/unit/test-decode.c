/* SPDX-License-Identifier: Apache-2.0 */

/* Records as text and JSON (tools/decode.c, decode-scalar.c, encode.c). */

#include <check.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/decode.h"
#include "tools/print.h"

struct leg {
	uint32_t id;
	int32_t x;
};
struct record {
	uint64_t u64;
	int64_t i64;
	double f64;
	float f32;
	uint16_t u16;
	int8_t i8;
	_Bool flag;
	char text[8];
	int16_t array[4];
	struct leg legs[2];
	char letter;
	char rest[7];
};
SHMB_SCHEMA(table, struct record, "test.record", SHMB_FIELD(struct record, u64),
	    SHMB_FIELD(struct record, i64), SHMB_FIELD(struct record, f64),
	    SHMB_FIELD(struct record, f32), SHMB_FIELD(struct record, u16),
	    SHMB_FIELD(struct record, i8), SHMB_FIELD(struct record, flag),
	    SHMB_ARRAY(struct record, text), SHMB_ARRAY(struct record, array),
	    { .name = "legs",
	      .offset = offsetof(struct record, legs),
	      .size = sizeof(struct leg),
	      .count = 2,
	      .parent = SHMB_FIELD_NO_PARENT,
	      .kind = SHMB_KIND_STRUCT,
	      .align = 4 },
	    SHMB_FIELD_IN(9, struct leg, id), SHMB_FIELD_IN(9, struct leg, x),
	    SHMB_FIELD(struct record, letter), SHMB_ARRAY(struct record, rest));

static struct decode decode;
static struct record record;

static void setup(void)
{
	ck_assert_int_eq(decode_init(&decode, &table, sizeof(table)), 0);
}

static char *to_text(const void *from)
{
	char *text;
	size_t len;
	FILE *file = open_memstream(&text, &len);

	decode_to_text(&decode, from, file);
	fclose(file);
	return text;
}

static void assert_refused(const char *text, const char *why)
{
	ck_assert_int_lt(decode_from_text(&decode, text, &record), 0);
	ck_assert_msg(strstr(decode.why, why), "'%s' says '%s', not '%s'", text, decode.why, why);
}

START_TEST(text_makes_the_record_it_came_from)
{
	static const char text[] =
		"u64=18446744073709551615 i64=-9223372036854775808 f64=0.1 f32=0.1 u16=65535 i8=-128 "
		"flag=true text=full8byt array=[1,-2,32767,-32768] legs[0].id=1 legs[0].x=-1 "
		"legs[1].id=2 legs[1].x=-2 letter=z rest=\"a b\"";
	char *again;

	ck_assert_int_eq(decode_from_text(&decode, text, &record), 0);
	ck_assert(record.u64 == UINT64_MAX && record.i64 == INT64_MIN && record.i8 == INT8_MIN);
	ck_assert(record.f64 == 0.1 && record.f32 == 0.1f && record.flag);
	ck_assert_mem_eq(record.text, "full8byt", 8);
	ck_assert(record.array[3] == INT16_MIN && record.legs[1].x == -2);
	again = to_text(&record);
	ck_assert_str_eq(again, text);
	free(again);
}
END_TEST

START_TEST(json_makes_the_record_it_came_from)
{
	struct record other;
	json_t *object, *parsed;
	char *text;

	for (size_t i = 0; i < sizeof(record); i++)
		((uint8_t *)&record)[i] = 0x40 + i % 32;
	record.flag = 1;
	object = decode_to_json(&decode, &record);
	text = json_dumps(object, 0);
	parsed = json_loads(text, 0, NULL);
	ck_assert_int_eq(decode_from_json(&decode, parsed, &other), 0);
	ck_assert_mem_eq(&record, &other, sizeof(record));
	free(text);
	json_decref(object);
	json_decref(parsed);
}
END_TEST

START_TEST(hostile_bytes_come_back_through_text)
{
	struct record other;
	char *text;

	for (unsigned round = 0; round < 2000; round++) {
		for (size_t i = 0; i < sizeof(record); i++)
			((uint8_t *)&record)[i] = random();
		/* What text cannot say: other NaNs, bytes after a NUL, a bool that is none. */
		if (isnan(record.f64))
			record.f64 = 1;
		if (isnan(record.f32))
			record.f32 = 1;
		*(uint8_t *)&record.flag &= 1;
		for (size_t i = 0; i < 8; i++)
			record.text[i] |= !record.text[i];
		for (size_t i = 0; i < 7; i++)
			record.rest[i] |= !record.rest[i];
		record.letter |= !record.letter;
		text = to_text(&record);
		for (const char *at = text; *at; at++)
			ck_assert_int_ge((unsigned char)*at, ' ');
		ck_assert_msg(decode_from_text(&decode, text, &other) == 0, "%s: %s", text,
			      decode.why);
		ck_assert_mem_eq(&record, &other, sizeof(record));
		free(text);
	}
}
END_TEST

START_TEST(what_is_not_mentioned_is_zero)
{
	static const struct record zero;

	memset(&record, 0xff, sizeof(record));
	ck_assert_int_eq(decode_from_text(&decode, "  ", &record), 0);
	ck_assert_mem_eq(&record, &zero, sizeof(zero));
}
END_TEST

START_TEST(numbers_that_do_not_fit_are_refused)
{
	assert_refused("u64=18446744073709551616", "u64");
	assert_refused("u64=-1", "u64");
	assert_refused("i64=9223372036854775808", "i64");
	assert_refused("u16=65536", "u16: '65536' is no u16");
	assert_refused("i8=128", "i8");
	assert_refused("i8=-129", "i8");
	assert_refused("f32=1e39", "f32");
	assert_refused("f64=1e999", "f64");
	assert_refused("flag=2", "bool");
	assert_refused("u16=", "u16");
	assert_refused("u16=1.5", "u16");
	assert_refused("array=[1,]", "i16");
	assert_refused("array=[1,2,3,4,5]", "5 values for an array of 4");
	assert_refused("text=ninebytes", "9 bytes of text do not fit into 8");
}
END_TEST

START_TEST(names_that_are_not_there_are_refused)
{
	assert_refused("no=1", "there is no field 'no'; there is u64, i64");
	assert_refused("legs[0].no=1", "there is no field 'no'; there is id, x");
	assert_refused("legs[2].id=1", "an array of 2");
	assert_refused("legs[99999999999999999999].id=1", "an array of 2");
	assert_refused("legs[-1].id=1", "an array of 2");
	assert_refused("legs=1", "legs is a struct");
	assert_refused("u64", "after 'u64' comes '='");
	assert_refused("u64.x=1", "after 'u64' comes '='");
	assert_refused("text[0]=a", "after 'text' comes '='");
	assert_refused("=1", "there is no field");
	assert_refused("text=\"open", "a quote is not closed");
}
END_TEST

START_TEST(special_numbers_survive)
{
	static const char *const texts[] = { "f64=inf", "f64=-inf", "f32=inf", "f64=5e-324" };
	json_t *object;
	char *text;

	for (size_t i = 0; i < 4; i++) {
		ck_assert_int_eq(decode_from_text(&decode, texts[i], &record), 0);
		text = to_text(&record);
		ck_assert_msg(strstr(text, texts[i]), "%s", text);
		free(text);
	}
	ck_assert_int_eq(decode_from_text(&decode, "f64=nan f32=-inf i64=0x10", &record), 0);
	ck_assert(isnan(record.f64) && record.i64 == 16);
	object = decode_to_json(&decode, &record);
	ck_assert_str_eq(json_string_value(json_object_get(object, "f64")), "nan");
	json_decref(object);
}
END_TEST

START_TEST(a_broken_schema_is_refused)
{
	char copy[sizeof(table)];

	ck_assert_int_lt(decode_init(&decode, &table, sizeof(table) - 1), 0);
	ck_assert_int_lt(decode_init(&decode, &table, 0), 0);
	for (size_t i = 0; i < sizeof(copy) * 8; i++) {
		struct record zero = { 0 };

		memcpy(copy, &table, sizeof(copy));
		copy[i / 8] ^= 1 << i % 8;
		/* Either it is refused, or it can be used: the sanitizers watch. */
		if (decode_init(&decode, copy, sizeof(copy)) == 0 &&
		    decode.head.record_len <= sizeof(zero))
			free(to_text(&zero));
	}
}
END_TEST

START_TEST(nothing_that_steers_a_terminal_gets_out)
{
	static const char evil[] = "\033[2J\233\x7f\r\n\0\xe2\x80\xae\\";
	char *text = print_escape(evil, sizeof(evil) - 1);

	ck_assert_str_eq(text, "\\x1b[2J\\x9b\\x7f\\r\\n\\x00\\xe2\\x80\\xae\\\\");
	free(text);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("decode");
	TCase *cases = tcase_create("records");
	SRunner *runner = srunner_create(suite);
	int n_failed;

	tcase_add_checked_fixture(cases, setup, NULL);
	tcase_add_test(cases, text_makes_the_record_it_came_from);
	tcase_add_test(cases, json_makes_the_record_it_came_from);
	tcase_add_test(cases, hostile_bytes_come_back_through_text);
	tcase_add_test(cases, what_is_not_mentioned_is_zero);
	tcase_add_test(cases, numbers_that_do_not_fit_are_refused);
	tcase_add_test(cases, names_that_are_not_there_are_refused);
	tcase_add_test(cases, special_numbers_survive);
	tcase_add_test(cases, a_broken_schema_is_refused);
	tcase_add_test(cases, nothing_that_steers_a_terminal_gets_out);
	suite_add_tcase(suite, cases);
	srunner_run_all(runner, CK_NORMAL);
	n_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return n_failed > 0;
}
