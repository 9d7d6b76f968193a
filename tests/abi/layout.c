/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Prints the ABI as this compiler sees it: by default the bytes in shared memory and on the control
 * socket, as in layout.golden; with --json the manifest include/abi.json, which has the structs of
 * the C API too. layout-list.h is made from the headers by list-layout.awk, so nothing that is
 * added to a header can be forgotten here.
 */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <shmbroker/protocol.h>
#include <shmbroker/ring.h>
#include <shmbroker/schema.h>
#include <shmbroker/shmbroker.h>

static int json;
static const char *comma = "";

static void print_number(const char *name, long long value)
{
	if (!json) {
		printf("%s %lld\n", name, value);
		return;
	}
	printf("%s\n    \"%s\": %lld", comma, name, value);
	comma = ",";
}

static void print_text(const char *name, const char *value)
{
	if (!json) {
		printf("%s \"%s\"\n", name, value);
		return;
	}
	printf("%s\n    \"%s\": \"%s\"", comma, name, value);
	comma = ",";
}

static void print_struct(const char *type, size_t len, size_t align)
{
	if (!json) {
		printf("struct %s %zu %zu\n", type, len, align);
		return;
	}
	printf("%s\n    \"%s\": { \"size\": %zu, \"align\": %zu, \"fields\": {", comma, type, len,
	       align);
	comma = "";
}

static void print_field(const char *type, const char *field, size_t offset, size_t len)
{
	if (!json) {
		printf("%s.%s %zu %zu\n", type, field, offset, len);
		return;
	}
	printf("%s\n      \"%s\": [%zu, %zu]", comma, field, offset, len);
	comma = ",";
}

static void print_end(void)
{
	if (json)
		printf(" } }");
	comma = ",";
}

#define SKIP(...)

static void print_constants(void)
{
#define HEADER	     SKIP
#define STRUCT	     SKIP
#define FIELD	     SKIP
#define END	     SKIP
#define NUMBER(name) print_number(#name, (long long)(name));
#define TEXT(name)   print_text(#name, name);
#include "tests/abi/layout-list.h"
	if (json) {
#include "tests/abi/api-list.h"
	}
#undef STRUCT
#undef FIELD
#undef END
#undef NUMBER
#undef TEXT
}

static void print_structs(void)
{
#define STRUCT(type) print_struct(#type, sizeof(struct type), _Alignof(struct type));
#define FIELD(type, field) \
	print_field(#type, #field, offsetof(struct type, field), sizeof(((struct type *)0)->field));
#define END(type) print_end();
#define NUMBER	  SKIP
#define TEXT	  SKIP
#include "tests/abi/layout-list.h"
	if (json) {
#include "tests/abi/api-list.h"
	}
}

static void print_functions(FILE *map)
{
	char line[128], name[128];

	comma = "";
	while (map && fgets(line, sizeof(line), map))
		if (sscanf(line, " %127[a-z0-9_];", name) == 1 && !strncmp(name, "shmb_", 5)) {
			printf("%s\n    \"%s\"", comma, name);
			comma = ",";
		}
}

int main(int argc, char **argv)
{
	FILE *map;

	json = argc == 3 && !strcmp(argv[1], "--json");
	if (!json) {
		print_constants();
		print_structs();
		return 0;
	}
	map = fopen(argv[2], "r");
	if (!map) {
		perror(argv[2]);
		return 1;
	}
	printf("{\n  \"abi\": %d,\n  \"layout\": %d,\n  \"protocol\": %d,\n  \"pointer\": %zu,\n",
	       SHMB_ABI_VERSION, SHMB_LAYOUT_VERSION, SHMB_PROTOCOL_VERSION, sizeof(void *));
	printf("  \"functions\": [");
	print_functions(map);
	fclose(map);
	printf("\n  ],\n  \"constants\": {");
	comma = "";
	print_constants();
	printf("\n  },\n  \"structs\": {");
	comma = "";
	print_structs();
	printf("\n  }\n}\n");
	return 0;
}
