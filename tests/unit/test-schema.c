/* SPDX-License-Identifier: Apache-2.0 */
#include <shmbroker/schema.h>
#include <shmbroker/shmbroker.h>

#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct tick {
	uint64_t time_ns;
	double price;
	uint32_t count;
	uint32_t flags;
	char symbol[12];
	int32_t qty;
};
SHMB_SCHEMA(tick_schema, struct tick, "market.tick", SHMB_FIELD(struct tick, time_ns),
	    SHMB_FIELD(struct tick, price), SHMB_FIELD(struct tick, count),
	    SHMB_FIELD(struct tick, flags), SHMB_ARRAY(struct tick, symbol),
	    SHMB_FIELD(struct tick, qty));

struct leg {
	uint32_t id;
	float ratio;
	uint8_t side;
};
struct spread {
	uint16_t n;
	struct leg leg;
	uint64_t time_ns;
	_Bool open;
};
SHMB_SCHEMA(spread_schema, struct spread, "market.spread", SHMB_FIELD(struct spread, n),
	    SHMB_STRUCT(struct spread, leg), SHMB_FIELD_IN(1, struct leg, id),
	    SHMB_FIELD_IN(1, struct leg, ratio), SHMB_FIELD_IN(1, struct leg, side),
	    SHMB_FIELD(struct spread, time_ns), SHMB_FIELD(struct spread, open));

/* A schema that a test may spoil. */
struct table {
	struct shmb_schema head;
	struct shmb_schema_field fields[SHMB_SCHEMA_FIELDS_MAX];
};

static struct table tick_table(void)
{
	struct table table = { 0 };

	memcpy(&table, &tick_schema, sizeof(tick_schema));
	/* The same table where 8 bytes are aligned to 4. */
	table.head.align = table.fields[0].align = table.fields[1].align = 8;
	return table;
}

static struct table spread_table(void)
{
	struct table table = { 0 };

	memcpy(&table, &spread_schema, sizeof(spread_schema));
	return table;
}

static void rename_type(struct table *table, const char *name)
{
	memset(table->head.name, 0, SHMB_SCHEMA_NAME_LEN);
	memcpy(table->head.name, name, strlen(name));
}

static void rename_field(struct table *table, int index, const char *name)
{
	memset(table->fields[index].name, 0, SHMB_FIELD_NAME_LEN);
	memcpy(table->fields[index].name, name, strlen(name));
}

static uint32_t table_len(const struct table *table)
{
	return (uint32_t)SHMB_SCHEMA_LEN(table->head.n_fields);
}

static const char *sentence(void)
{
	static char text[512];

	shmb_last_error(text, sizeof(text));
	return text;
}

static void refused(const struct table *table, const char *why)
{
	ck_assert_int_eq(shmb_schema_check(table, table_len(table)), -EINVAL);
	ck_assert_str_eq(sentence(), why);
}

static void accepted(const struct table *table)
{
	ck_assert_msg(shmb_schema_check(table, table_len(table)) == 0, "%s", sentence());
}

START_TEST(accepts_what_the_macros_make)
{
	ck_assert_int_eq(shmb_schema_check(&tick_schema, sizeof(tick_schema)), 0);
	ck_assert_int_eq(shmb_schema_check(&spread_schema, sizeof(spread_schema)), 0);
}
END_TEST

START_TEST(accepts_unaligned_memory)
{
	char bytes[sizeof(tick_schema) + 1];

	memcpy(bytes + 1, &tick_schema, sizeof(tick_schema));
	ck_assert_int_eq(shmb_schema_check(bytes + 1, sizeof(tick_schema)), 0);
}
END_TEST

START_TEST(checks_the_length)
{
	struct table table = tick_table();

	ck_assert_int_eq(shmb_schema_check(NULL, 128), -EINVAL);
	ck_assert_int_eq(shmb_schema_check(&table, 0), -EINVAL);
	ck_assert_int_eq(shmb_schema_check(&table, 63), -EINVAL);
	ck_assert_str_eq(sentence(), "schema has 63 bytes, not 128 to 12864");
	ck_assert_int_eq(shmb_schema_check(&table, UINT32_MAX), -EINVAL);
	for (uint32_t len = 64; len <= sizeof(table); len++) {
		int32_t r = shmb_schema_check(&table, len);

		ck_assert_int_eq(r, len == sizeof(tick_schema) ? 0 : -EINVAL);
	}
	ck_assert_str_eq(sentence(), "schema with 6 fields has 12864 bytes, not 448");
}
END_TEST

START_TEST(checks_the_head)
{
	struct table table = tick_table();

	table.head.magic = 1;
	refused(&table, "schema begins with 0x1, not with 0x31544853");
	table = tick_table();
	table.head.version = 2;
	refused(&table, "schema version 2 is not 1");
	table = tick_table();
	table.head.n_fields = 0;
	ck_assert_int_eq(shmb_schema_check(&table, sizeof(tick_schema)), -EINVAL);
	ck_assert_str_eq(sentence(), "schema has 0 fields, not 1 to 200");
	table.head.n_fields = 201;
	ck_assert_int_eq(shmb_schema_check(&table, sizeof(table)), -EINVAL);
	ck_assert_str_eq(sentence(), "schema has 201 fields, not 1 to 200");
	table = tick_table();
	table.head.align = 16;
	refused(&table, "record's alignment 16 is not 1, 2, 4 or 8");
	table.head.align = 0;
	refused(&table, "record's alignment 0 is not 1, 2, 4 or 8");
	table = tick_table();
	table.head.record_len = 0;
	refused(&table, "record has 0 bytes, not 1 to 268435455");
	table.head.record_len = 1u << 28;
	refused(&table, "record has 268435456 bytes, not 1 to 268435455");
	table.head.record_len = 44;
	refused(&table, "record's 44 bytes are no multiple of its alignment 8");
}
END_TEST

START_TEST(checks_names)
{
	static const char *const bad_head[] = { "", "a b", "a\n", "a\\", "\xc3\xa9", "a'", "a@" };
	static const char *const bad_field[] = { "", "a b", "a.b", "a-b", "a/b", "\x7f", "a%n" };
	struct table table = tick_table();

	rename_type(&table, "A-Z.a:z/0_9");
	accepted(&table);
	for (size_t i = 0; i < sizeof(bad_head) / sizeof(bad_head[0]); i++) {
		rename_type(&table, bad_head[i]);
		refused(&table, "schema's name is not 1 to 47 characters of [A-Za-z0-9_.:/-]");
	}
	memset(table.head.name, 'a', sizeof(table.head.name));
	refused(&table, "schema's name is not 1 to 47 characters of [A-Za-z0-9_.:/-]");
	table.head.name[47] = '\0';
	accepted(&table);
	table.head.name[3] = '\0';
	refused(&table, "schema's name is not 1 to 47 characters of [A-Za-z0-9_.:/-]");

	table = tick_table();
	for (size_t i = 0; i < sizeof(bad_field) / sizeof(bad_field[0]); i++) {
		rename_field(&table, 2, bad_field[i]);
		refused(&table, "name of field 2 is not 1 to 39 characters of [A-Za-z0-9_]");
	}
	memset(table.fields[2].name, 'a', sizeof(table.fields[2].name));
	refused(&table, "name of field 2 is not 1 to 39 characters of [A-Za-z0-9_]");
	table.fields[2].name[39] = '\0';
	accepted(&table);
	table.fields[2].name[38] = '\0';
	accepted(&table);
	table.fields[2].name[39] = 'b';
	refused(&table, "name of field 2 is not 1 to 39 characters of [A-Za-z0-9_]");

	table = tick_table();
	rename_field(&table, 5, "price");
	refused(&table, "two fields are called 'price'");
	table = spread_table();
	rename_field(&table, 3, "id");
	refused(&table, "two fields are called 'leg.id'");
	/* Cousins may share a name. */
	table = spread_table();
	rename_field(&table, 3, "n");
	accepted(&table);
}
END_TEST

START_TEST(checks_parents)
{
	struct table table = spread_table();

	table.fields[2].parent = 2;
	refused(&table, "field 'id' has parent 2, which is no struct before it");
	table.fields[2].parent = 0;
	refused(&table, "field 'id' has parent 0, which is no struct before it");
	table.fields[2].parent = 6;
	refused(&table, "field 'id' has parent 6, which is no struct before it");
	table.fields[2].parent = 0xfffe;
	refused(&table, "field 'id' has parent 65534, which is no struct before it");
	table = spread_table();
	for (int i = 2; i <= 4; i++)
		table.fields[i].parent = SHMB_FIELD_NO_PARENT;
	refused(&table, "field 'id' at 0 overlaps 'n' at 0");
}
END_TEST

START_TEST(checks_kinds_and_sizes)
{
	static const uint8_t size_of[] = { 0, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 1, 1 };
	struct table table = {
		.head = { .magic = SHMB_SCHEMA_MAGIC, .version = 1, .n_fields = 1, .name = "one" }
	};

	for (uint8_t kind = 1; kind <= SHMB_KIND_CHAR; kind++) {
		for (uint32_t size = 1; size <= 8; size *= 2) {
			table.head.record_len = size;
			table.head.align = size;
			table.fields[0] = (struct shmb_schema_field){
				.name = "f",
				.size = size,
				.count = 1,
				.parent = SHMB_FIELD_NO_PARENT,
				.kind = kind,
				.align = (uint8_t)size,
			};
			ck_assert_int_eq(shmb_schema_check(&table, table_len(&table)),
					 size == size_of[kind] ? 0 : -EINVAL);
		}
	}
	table = tick_table();
	table.fields[2].size = 8;
	refused(&table, "field 'count' is a u32 of 8 bytes");
	table.fields[2].kind = 0;
	refused(&table, "field 'count' has unknown kind 0");
	table.fields[2].kind = 14;
	refused(&table, "field 'count' has unknown kind 14");
	table.fields[2].kind = SHMB_KIND_STRUCT;
	table.fields[2].size = 0;
	refused(&table, "field 'count' is a struct of 0 bytes");
	table = tick_table();
	table.fields[2].count = 0;
	refused(&table, "field 'count' has no elements");
}
END_TEST

START_TEST(checks_alignment)
{
	struct table table = tick_table();

	table.fields[2].align = 3;
	refused(&table, "field 'count' of 4 bytes cannot be aligned to 3");
	table.fields[2].align = 8;
	refused(&table, "field 'count' of 4 bytes cannot be aligned to 8");
	table.fields[2].align = 0;
	refused(&table, "field 'count' of 4 bytes cannot be aligned to 0");
	table = tick_table();
	table.fields[2].offset = 18;
	refused(&table, "field 'count' at 18 is not aligned to 4");
	table = tick_table();
	table.head.align = 4;
	refused(&table, "field 'time_ns' is aligned to 8, inside something aligned to 4");
	table = spread_table();
	table.fields[1].align = 2;
	refused(&table, "field 'leg.id' is aligned to 4, inside something aligned to 2");
	/* A 32-bit ABI aligns 8 bytes to 4. */
	table = tick_table();
	table.head.align = 4;
	table.fields[0].align = 4;
	table.fields[1].align = 4;
	accepted(&table);
}
END_TEST

START_TEST(checks_reserved_bytes)
{
	struct table table = tick_table();

	for (size_t i = 0; i < sizeof(table.fields[3].zero); i++) {
		table.fields[3].zero[i] = 1;
		refused(&table, "field 'flags' has reserved bytes that are not zero");
		table.fields[3].zero[i] = 0;
	}
	accepted(&table);
}
END_TEST

START_TEST(checks_bounds)
{
	struct table table = tick_table();

	table.fields[4].count = 13;
	refused(&table, "field 'qty' at 36 overlaps 'symbol' at 24");
	table.fields[4].count = 17;
	refused(&table, "field 'symbol' at 24 with 17 bytes ends behind the 40 bytes around it");
	table.fields[4].count = UINT32_MAX;
	refused(&table,
		"field 'symbol' at 24 with 4294967295 bytes ends behind the 40 bytes around it");
	table = tick_table();
	table.fields[0].count = 0x20000001; /* times 8 is 8 modulo 2^32 */
	refused(&table,
		"field 'time_ns' at 0 with 4294967304 bytes ends behind the 40 bytes around it");
	table = tick_table();
	table.fields[5].offset = 0xfffffffc;
	refused(&table,
		"field 'qty' at 4294967292 with 4 bytes ends behind the 40 bytes around it");
	table = spread_table();
	table.fields[4].offset = 12;
	refused(&table, "field 'leg.side' at 12 with 1 bytes ends behind the 12 bytes around it");
	table = tick_table();
	table.fields[1].offset = 0;
	refused(&table, "field 'price' at 0 overlaps 'time_ns' at 0");
}
END_TEST

/* A record of @record_len bytes with a u8 at each of @offsets. */
static struct table bytes_at(uint32_t record_len, const uint32_t *offsets, uint16_t n)
{
	struct table table = { .head = { .magic = SHMB_SCHEMA_MAGIC,
					 .version = 1,
					 .n_fields = n,
					 .record_len = record_len,
					 .align = 1,
					 .name = "bytes" } };

	for (uint16_t i = 0; i < n; i++) {
		table.fields[i] = (struct shmb_schema_field){
			.name = { 'f', (char)('a' + i) },
			.offset = offsets[i],
			.size = 1,
			.count = 1,
			.parent = SHMB_FIELD_NO_PARENT,
			.kind = SHMB_KIND_U8,
			.align = 1,
		};
	}
	return table;
}

START_TEST(refuses_undescribed_bytes)
{
	struct table table;

	table = bytes_at(9, (uint32_t[]){ 0, 8 }, 2);
	accepted(&table);
	table = bytes_at(10, (uint32_t[]){ 0, 9 }, 2);
	refused(&table, "8 undescribed bytes at offset 1");
	table = bytes_at(8, (uint32_t[]){ 7 }, 1);
	accepted(&table);
	table = bytes_at(13, (uint32_t[]){ 12 }, 1);
	refused(&table, "12 undescribed bytes at offset 0");
	table = bytes_at(8, (uint32_t[]){ 0 }, 1);
	accepted(&table);
	table = bytes_at(9, (uint32_t[]){ 0 }, 1);
	refused(&table, "8 undescribed bytes at offset 1");
	/* The order of the entries is the user's. */
	table = bytes_at(24, (uint32_t[]){ 16, 8, 0 }, 3);
	accepted(&table);
	table = bytes_at(24, (uint32_t[]){ 16, 0 }, 2);
	refused(&table, "15 undescribed bytes at offset 1");
}
END_TEST

/* A struct of 8 bytes, its one described byte at @inner, @count of them at @outer. */
static struct table nested(uint32_t record_len, uint32_t outer, uint32_t count, uint32_t inner)
{
	struct table table = bytes_at(record_len, (uint32_t[]){ outer, inner }, 2);

	table.fields[0].kind = SHMB_KIND_STRUCT;
	table.fields[0].size = 8;
	table.fields[0].count = count;
	table.fields[1].parent = 0;
	return table;
}

START_TEST(refuses_undescribed_bytes_across_structs)
{
	struct table table = nested(8, 0, 1, 0);

	accepted(&table);
	table = nested(9, 0, 1, 0);
	refused(&table, "8 undescribed bytes at offset 1");
	table = nested(9, 1, 1, 6);
	accepted(&table);
	table = nested(9, 1, 1, 7);
	refused(&table, "8 undescribed bytes at offset 0");
	/* 7 bytes between the elements, whatever the inner offset is */
	table = nested(32, 0, 4, 3);
	accepted(&table);
	table.fields[0].size = 9;
	table.fields[0].count = 2;
	refused(&table, "8 undescribed bytes between the elements of 'fa'");
	table = nested(16, 0, 1, 0);
	table.fields[0].size = 16;
	refused(&table, "15 undescribed bytes at offset 1 of 'fa'");
	table = nested(8, 0, 1, 0);
	table.fields[1].parent = SHMB_FIELD_NO_PARENT;
	table.fields[0].size = 4;
	table.fields[1].offset = 4;
	refused(&table, "struct 'fa' has no fields");
}
END_TEST

START_TEST(survives_any_byte)
{
	/* Every byte of a good table, with every value: no crash; sanitizers watch the rest. */
	struct table good = spread_table();
	struct table table = good;
	uint8_t *bytes = (uint8_t *)&table;

	for (uint32_t i = 0; i < table_len(&good); i++) {
		for (int value = 0; value < 256; value++) {
			bytes[i] = (uint8_t)value;
			shmb_schema_check(&table, table_len(&good));
		}
		table = good;
	}
}
END_TEST

START_TEST(survives_the_deepest_nesting)
{
	struct table table = bytes_at(1, (uint32_t[]){ 0 }, 1);
	const uint16_t n = SHMB_SCHEMA_FIELDS_MAX;

	table.head.n_fields = n;
	for (uint16_t i = 0; i < n; i++) {
		table.fields[i] = table.fields[0];
		memset(table.fields[i].name, 'n', SHMB_FIELD_NAME_LEN - 1);
		table.fields[i].kind = i < n - 1 ? SHMB_KIND_STRUCT : SHMB_KIND_U8;
		table.fields[i].parent = (uint16_t)(i - 1); /* 0xffff is SHMB_FIELD_NO_PARENT */
	}
	accepted(&table);
	table.fields[n - 1].count = 0;
	ck_assert_int_eq(shmb_schema_check(&table, table_len(&table)), -EINVAL);
	ck_assert_ptr_nonnull(strstr(sentence(), "nnn' has no elements"));
}
END_TEST

static void differs(const struct table *a, const struct table *b, const char *why)
{
	ck_assert_int_eq(shmb_schema_compare(a, table_len(a), b, table_len(b)), -EPROTOTYPE);
	ck_assert_str_eq(sentence(), why);
}

static int32_t compare(const struct table *a, const struct table *b)
{
	return shmb_schema_compare(a, table_len(a), b, table_len(b));
}

START_TEST(compares_equal_schemas)
{
	struct table a = spread_table(), b = spread_table();
	struct shmb_schema_field swap;

	ck_assert_int_eq(compare(&a, &b), 0);
	/* 'n' described last: the same bytes */
	swap = b.fields[0];
	memmove(b.fields, b.fields + 1, 6 * sizeof(swap));
	b.fields[6] = swap;
	for (int i = 1; i <= 3; i++)
		b.fields[i].parent = 0;
	ck_assert_int_eq(compare(&a, &b), 0);
	ck_assert_int_eq(compare(&b, &a), 0);
	/* aligned by another ABI: the same bytes too */
	a = tick_table();
	b = tick_table();
	b.head.align = b.fields[0].align = b.fields[1].align = 4;
	ck_assert_int_eq(compare(&a, &b), 0);
}
END_TEST

START_TEST(names_the_first_difference)
{
	struct table a = tick_table(), b = tick_table();

	b.fields[3].kind = SHMB_KIND_I32;
	differs(&a, &b, "field 'flags': channel has u32 at 20, you have i32 at 20");
	b = tick_table();
	b.fields[2].offset = 20;
	b.fields[3].offset = 16;
	differs(&a, &b, "field 'count': channel has u32 at 16, you have u32 at 20");
	b = tick_table();
	b.fields[4].count = 11;
	differs(&a, &b, "field 'symbol': channel has char[12] at 24, you have char[11] at 24");
	b = tick_table();
	rename_field(&b, 4, "ticker");
	differs(&a, &b, "field 'symbol': channel has char[12] at 24, you have none");
	b = tick_table();
	b.head.n_fields = 5;
	differs(&a, &b, "field 'qty': channel has i32 at 36, you have none");
	differs(&b, &a, "field 'qty': channel has none, you have i32 at 36");
	b = tick_table();
	rename_type(&b, "market.trade");
	differs(&a, &b, "channel has records of type 'market.tick', you have 'market.trade'");
	b = tick_table();
	b.head.record_len = 44;
	b.head.align = 4;
	b.fields[0].align = b.fields[1].align = 4;
	differs(&a, &b, "channel has records of 40 bytes, you have 44");
}
END_TEST

START_TEST(names_a_nested_difference)
{
	struct table a = spread_table(), b = spread_table();

	b.fields[4].kind = SHMB_KIND_CHAR;
	differs(&a, &b, "field 'leg.side': channel has u8 at 8, you have char at 8");
	b = spread_table();
	b.fields[4].parent = SHMB_FIELD_NO_PARENT;
	b.fields[4].offset = 2;
	differs(&a, &b, "field 'leg.side': channel has u8 at 8, you have none");
	b = spread_table();
	b.fields[1].count = 2;
	b.fields[5].offset = 32;
	b.fields[6].offset = 40;
	b.head.record_len = 48;
	differs(&a, &b,
		"field 'leg': channel has struct of 12 bytes at 4, you have struct[2] of 12 bytes at 4");
}
END_TEST

START_TEST(compares_only_schemas)
{
	struct table a = tick_table(), b = tick_table();

	b.head.magic = 0;
	ck_assert_int_eq(compare(&a, &b), -EINVAL);
	ck_assert_int_eq(compare(&b, &a), -EINVAL);
	ck_assert_int_eq(shmb_schema_compare(NULL, 0, &a, table_len(&a)), -EINVAL);
	ck_assert_int_eq(shmb_schema_compare(&a, table_len(&a), NULL, 0), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("schema");
	TCase *tcase = tcase_create("schema");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, accepts_what_the_macros_make);
	tcase_add_test(tcase, accepts_unaligned_memory);
	tcase_add_test(tcase, checks_the_length);
	tcase_add_test(tcase, checks_the_head);
	tcase_add_test(tcase, checks_names);
	tcase_add_test(tcase, checks_parents);
	tcase_add_test(tcase, checks_kinds_and_sizes);
	tcase_add_test(tcase, checks_alignment);
	tcase_add_test(tcase, checks_reserved_bytes);
	tcase_add_test(tcase, checks_bounds);
	tcase_add_test(tcase, refuses_undescribed_bytes);
	tcase_add_test(tcase, refuses_undescribed_bytes_across_structs);
	tcase_add_test(tcase, survives_any_byte);
	tcase_add_test(tcase, survives_the_deepest_nesting);
	tcase_add_test(tcase, compares_equal_schemas);
	tcase_add_test(tcase, names_the_first_difference);
	tcase_add_test(tcase, names_a_nested_difference);
	tcase_add_test(tcase, compares_only_schemas);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
