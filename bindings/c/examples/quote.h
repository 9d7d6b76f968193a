/* SPDX-License-Identifier: Apache-2.0 */
#ifndef EXAMPLES_QUOTE_H
#define EXAMPLES_QUOTE_H

#include <stddef.h>

#include <shmbroker/schema.h>

/* What is asked, and what is answered. */
struct query {
	char symbol[8];
};

struct quote {
	double price;
	uint32_t count;
	uint32_t age_ms;
};

/* A typed call channel has the schema of a struct of the two. */
struct lookup {
	struct query request;
	struct quote reply;
};
SHMB_SCHEMA(lookup_schema, struct lookup, "market.lookup", SHMB_STRUCT(struct lookup, request),
	    SHMB_ARRAY_IN(0, struct query, symbol), SHMB_STRUCT(struct lookup, reply),
	    SHMB_FIELD_IN(2, struct quote, price), SHMB_FIELD_IN(2, struct quote, count),
	    SHMB_FIELD_IN(2, struct quote, age_ms));

#endif
