/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_DOCTOR_H
#define SHMB_TOOLS_DOCTOR_H

#include <stddef.h>

enum doctor_status {
	DOCTOR_OK,
	DOCTOR_WARNING, /* works, but somebody should look */
	DOCTOR_MISSING, /* works without it, at a cost */
	DOCTOR_UNUSABLE, /* does not work */
	DOCTOR_N_STATUSES,
};

/**
 * struct doctor_finding - one thing that was looked at
 * @name:   short, stable
 * @text:   what is there
 * @cost:   what it means that it is not as it should be; NULL if it is
 */
struct doctor_finding {
	enum doctor_status status;
	const char *name;
	char text[256];
	const char *cost;
};

struct doctor {
	struct doctor_finding findings[40];
	size_t n;
};

/* @cost is shown unless the status is DOCTOR_OK. */
void doctor_add(struct doctor *doctor, enum doctor_status status, const char *name,
		const char *cost, const char *format, ...)
	__attribute__((__format__(__printf__, 5, 6)));

void doctor_kernel(struct doctor *doctor);
void doctor_machine(struct doctor *doctor);
void doctor_memory(struct doctor *doctor);
void doctor_broker(struct doctor *doctor);

#endif
