/* SPDX-License-Identifier: Apache-2.0 */

/*
 * shmctl doctor: look for everything that makes shmbroker slow or keeps it from working here.
 *
 * What the kernel has is found by trying it, not by its version: containers, seccomp filters and
 * sysctls take away what the version promises.
 */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/command.h"
#include "tools/doctor.h"
#include "tools/print.h"

static const char *const status_names[DOCTOR_N_STATUSES] = { "ok", "warning", "missing",
							     "unusable" };

void doctor_add(struct doctor *doctor, enum doctor_status status, const char *name,
		const char *cost, const char *format, ...)
{
	struct doctor_finding *finding = &doctor->findings[doctor->n];
	va_list args;

	if (doctor->n == sizeof(doctor->findings) / sizeof(doctor->findings[0]))
		return;
	doctor->n++;
	finding->status = status;
	finding->name = name;
	finding->cost = status == DOCTOR_OK ? NULL : cost;
	va_start(args, format);
	vsnprintf(finding->text, sizeof(finding->text), format, args);
	va_end(args);
}

static void print_plain(const struct doctor *doctor)
{
	for (size_t i = 0; i < doctor->n; i++) {
		const struct doctor_finding *finding = &doctor->findings[i];

		printf("%s\t%s\t", status_names[finding->status], finding->name);
		print_safe(stdout, "%s", finding->text);
		printf("\t%s\n", finding->cost ? finding->cost : "");
	}
}

static void print_text(const struct doctor *doctor)
{
	for (size_t i = 0; i < doctor->n; i++) {
		const struct doctor_finding *finding = &doctor->findings[i];

		printf("%-8s  %-20s  ", status_names[finding->status], finding->name);
		print_safe(stdout, "%s", finding->text);
		putchar('\n');
		if (finding->cost)
			printf("%-8s  %-20s  -> %s\n", "", "", finding->cost);
	}
}

static int print_as_json(const struct doctor *doctor, bool is_usable)
{
	json_t *findings = json_array();

	for (size_t i = 0; i < doctor->n; i++) {
		const struct doctor_finding *from = &doctor->findings[i];
		json_t *finding = json_pack("{s:s, s:s, s:o}", "name", from->name, "status",
					    status_names[from->status], "text",
					    print_json_text(from->text, strlen(from->text)));

		if (from->cost)
			json_object_set_new(finding, "cost", json_string(from->cost));
		json_array_append_new(findings, finding);
	}
	return print_json(json_pack("{s:b, s:o}", "usable", is_usable, "findings", findings),
			  JSON_INDENT(2));
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	(void)arg;
	if (key == ARGP_KEY_ARG)
		argp_error(state, "doctor takes no arguments");
	return ARGP_ERR_UNKNOWN;
}

int command_doctor(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = parse,
		.doc = "Check the kernel, this machine's limits, /dev/shm and the broker, and say "
		       "what each missing thing costs.\vThe exit code is 0 if shmbroker works here, "
		       "warnings or not, and 1 if it cannot.",
		.children = common_json_children,
		.help_filter = command_help_filter,
	};
	struct doctor *doctor = calloc(1, sizeof(*doctor));
	bool is_usable = true;
	int status = 0;

	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	if (!doctor) {
		complain("out of memory");
		return 1;
	}
	doctor_kernel(doctor);
	doctor_machine(doctor);
	doctor_memory(doctor);
	doctor_broker(doctor);
	for (size_t i = 0; i < doctor->n; i++)
		is_usable &= doctor->findings[i].status != DOCTOR_UNUSABLE;
	if (common.is_json) {
		status = print_as_json(doctor, is_usable);
	} else if (isatty(STDOUT_FILENO)) {
		print_text(doctor);
		puts(is_usable ? "\nshmbroker works here." : "\nshmbroker does not work here.");
	} else {
		print_plain(doctor);
	}
	free(doctor);
	return status || !is_usable;
}
