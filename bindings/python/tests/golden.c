/* SPDX-License-Identifier: Apache-2.0 */

/* Writes the tables that the C macros make of the types in support.py, one after the other. */

#include <shmbroker/schema.h>

#include <stdio.h>

struct leg {
	uint32_t id;
	float ratio;
	uint8_t side;
};
SHMB_SCHEMA(leg_schema, struct leg, "leg", SHMB_FIELD(struct leg, id),
	    SHMB_FIELD(struct leg, ratio), SHMB_FIELD(struct leg, side));

struct tick {
	uint64_t time_ns;
	double price;
};
SHMB_SCHEMA(tick_schema, struct tick, "market.tick", SHMB_FIELD(struct tick, time_ns),
	    SHMB_FIELD(struct tick, price));

struct everything {
	uint8_t a;
	int8_t b;
	uint16_t c;
	int16_t d;
	uint32_t e;
	int32_t f;
	uint64_t g;
	int64_t h;
	float i;
	double j;
	_Bool k;
	char m;
	char text[12];
	uint32_t levels[4];
	struct leg leg;
	struct leg legs[2];
};

/* There is no macro for an array of structs: the same with a count. */
#define STRUCTS(type, field)                                                         \
	{                                                                            \
		.name = #field, .offset = offsetof(type, field),                     \
		.size = sizeof(((type *)0)->field[0]),                               \
		.count = sizeof(((type *)0)->field) / sizeof(((type *)0)->field[0]), \
		.parent = SHMB_FIELD_NO_PARENT, .kind = SHMB_KIND_STRUCT,            \
		.align = _Alignof(__typeof__(((type *)0)->field[0]))                 \
	}

SHMB_SCHEMA(everything_schema, struct everything, "test.everything",
	    SHMB_FIELD(struct everything, a), SHMB_FIELD(struct everything, b),
	    SHMB_FIELD(struct everything, c), SHMB_FIELD(struct everything, d),
	    SHMB_FIELD(struct everything, e), SHMB_FIELD(struct everything, f),
	    SHMB_FIELD(struct everything, g), SHMB_FIELD(struct everything, h),
	    SHMB_FIELD(struct everything, i), SHMB_FIELD(struct everything, j),
	    SHMB_FIELD(struct everything, k), SHMB_FIELD(struct everything, m),
	    SHMB_ARRAY(struct everything, text), SHMB_ARRAY(struct everything, levels),
	    SHMB_STRUCT(struct everything, leg), SHMB_FIELD_IN(14, struct leg, id),
	    SHMB_FIELD_IN(14, struct leg, ratio), SHMB_FIELD_IN(14, struct leg, side),
	    STRUCTS(struct everything, legs), SHMB_FIELD_IN(18, struct leg, id),
	    SHMB_FIELD_IN(18, struct leg, ratio), SHMB_FIELD_IN(18, struct leg, side));

static const struct everything everything = {
	.a = 200,
	.b = -100,
	.c = 60000,
	.d = -30000,
	.e = 4000000000u,
	.f = -2000000000,
	.g = 18000000000000000000ull,
	.h = -9000000000000000000ll,
	.i = 1.5f,
	.j = 0.1,
	.k = 1,
	.m = 'x',
	.text = "twelve bytes", /* no NUL fits */
	.levels = { 1, 2, 3, 4 },
	.leg = { 5, 2.5f, 6 },
	.legs = { { 7, 3.5f, 8 }, { 9, 4.5f, 10 } },
};

int main(void)
{
	fwrite(&leg_schema, sizeof(leg_schema), 1, stdout);
	fwrite(&tick_schema, sizeof(tick_schema), 1, stdout);
	fwrite(&everything_schema, sizeof(everything_schema), 1, stdout);
	fwrite(&everything, sizeof(everything), 1, stdout);
	return 0;
}
