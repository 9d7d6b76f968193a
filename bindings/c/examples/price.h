/* SPDX-License-Identifier: Apache-2.0 */
#ifndef EXAMPLES_PRICE_H
#define EXAMPLES_PRICE_H

/* The record of the examples of priorities and conflation, the same in every language. */

#include <stdint.h>

#include <shmbroker/schema.h>

struct price {
	uint32_t instrument;
	uint32_t number; /* counts the prices of this instrument */
	double price;
};

SHMB_SCHEMA(price_schema, struct price, "example.price", SHMB_FIELD(struct price, instrument),
	    SHMB_FIELD(struct price, number), SHMB_FIELD(struct price, price));

#endif
