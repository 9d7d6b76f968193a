/* SPDX-License-Identifier: Apache-2.0 */

/* shmctl ls: one line for each channel. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shmbroker/schema.h>

#include "tools/command.h"
#include "tools/inspect.h"
#include "tools/look.h"
#include "tools/print.h"

static const char *const titles[] = {
	"NAME",	 "PATTERN", "SCHEMA",	">PUB",	      ">SUB",
	">LANE", ">MEMORY", ">RECORDS", ">LAG BYTES", ">LAG RECORDS"
};

#define N_TITLES (sizeof(titles) / sizeof(titles[0]))

/* "-" if untyped, "?" if it cannot be read. */
static void schema_name(const struct inspect *inspect, const struct inspect_item *channel,
			char name[SHMB_SCHEMA_NAME_LEN + 1])
{
	char why[INSPECT_WHY_LEN];
	struct shmb_schema head;

	strcpy(name, "-");
	if (channel->entry.schema_len == 0)
		return;
	strcpy(name, "?");
	if (channel->entry.schema_len < sizeof(head) ||
	    inspect_segment(inspect, channel, SHMB_BLOCK_LEN, &head, sizeof(head), why) < 0)
		return;
	memcpy(name, head.name, SHMB_SCHEMA_NAME_LEN);
	name[SHMB_SCHEMA_NAME_LEN] = '\0';
}

static void add_row(const struct inspect *inspect, const struct inspect_item *channel,
		    struct table *table)
{
	const struct shmb_registry_entry *entry = &channel->entry;
	char schema[SHMB_SCHEMA_NAME_LEN + 1], pattern[24];
	struct inspect_sum sum;

	inspect_sum(inspect, channel, &sum);
	schema_name(inspect, channel, schema);
	look_pattern(entry->pattern, pattern);
	table_add(table, "%.*s", (int)entry->name_len, (const char *)entry->name);
	table_add(table, "%s", pattern);
	table_add(table, "%s", schema);
	table_add(table, "%" PRIu32, sum.n_publishers);
	table_add(table, "%" PRIu32, sum.n_subscribers);
	table_add_size(table, entry->lane_len);
	table_add_size(table, sum.segments_len);
	table_add(table, "%" PRIu64, sum.records);
	table_add_size(table, sum.lag_len);
	table_add(table, "%" PRIu64, sum.lag_records);
}

static json_t *to_json(const struct inspect *inspect, const struct inspect_item *channel)
{
	const struct shmb_registry_entry *entry = &channel->entry;
	char schema[SHMB_SCHEMA_NAME_LEN + 1], pattern[24];
	struct inspect_sum sum;

	inspect_sum(inspect, channel, &sum);
	schema_name(inspect, channel, schema);
	look_pattern(entry->pattern, pattern);
	return json_pack(
		"{s:o, s:s, s:o, s:o, s:i, s:i, s:I, s:o, s:o, s:o, s:o, s:o}", "name",
		print_json_text(entry->name, entry->name_len), "pattern", pattern, "schema",
		entry->schema_len ? print_json_text(schema, strlen(schema)) : json_null(), "id",
		print_json_u64(entry->id), "publishers", (int)sum.n_publishers, "subscribers",
		(int)sum.n_subscribers, "lane_len", (json_int_t)entry->lane_len, "memory",
		print_json_u64(sum.segments_len), "records", print_json_u64(sum.records),
		"lag_bytes", print_json_u64(sum.lag_len), "lag_records",
		print_json_u64(sum.lag_records), "lost", print_json_u64(sum.lost));
}

static int compare_names(const void *left, const void *right)
{
	const struct shmb_registry_entry *a = &(*(const struct inspect_item *const *)left)->entry;
	const struct shmb_registry_entry *b = &(*(const struct inspect_item *const *)right)->entry;
	uint32_t len = a->name_len < b->name_len ? a->name_len : b->name_len;
	int order = memcmp(a->name, b->name, len);

	return order ? order : (int)a->name_len - (int)b->name_len;
}

static void list(const struct inspect *inspect, struct table *table, json_t *array)
{
	const struct inspect_item **channels, *item = NULL;
	size_t n = 0;

	channels = calloc(inspect->n_items + 1, sizeof(*channels));
	if (!channels)
		return;
	while ((item = inspect_next(inspect, item, SHMB_ENTRY_CHANNEL, 0)))
		channels[n++] = item;
	qsort(channels, n, sizeof(*channels), compare_names);
	for (size_t i = 0; i < n; i++) {
		if (array)
			json_array_append_new(array, to_json(inspect, channels[i]));
		else
			add_row(inspect, channels[i], table);
	}
	free(channels);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	(void)arg;
	if (key == ARGP_KEY_ARG)
		argp_error(state, "ls takes no arguments; 'shmctl show %s' shows one channel", arg);
	return ARGP_ERR_UNKNOWN;
}

int command_ls(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = parse,
		.doc = "List the channels of a broker, also of one that is stopped.\v"
		       "Where stdout is no terminal, lines are tab-separated, without titles, and "
		       "sizes are in bytes. Records and lags follow the publishers' lazy hints: "
		       "at least so many.",
		.children = common_json_children,
		.help_filter = command_help_filter,
	};
	struct inspect inspect;
	struct table table;
	json_t *array;
	int status;

	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	if (look_open(&inspect))
		return 1;
	array = common.is_json ? json_array() : NULL;
	table_init(&table, titles, N_TITLES, !isatty(STDOUT_FILENO));
	list(&inspect, &table, array);
	status = array ? print_json(array, JSON_INDENT(2)) : 0;
	if (!common.is_json && (table.n_cells > 0 || table.is_plain))
		table_print(&table, stdout);
	else if (!common.is_json)
		puts("no channels");
	status |= look_complain(&inspect);
	table_deinit(&table);
	inspect_close(&inspect);
	return status;
}
