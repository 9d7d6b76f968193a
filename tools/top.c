/* SPDX-License-Identifier: Apache-2.0 */

/*
 * shmctl top: what flows through each channel, refreshed.
 *
 * Rates are differences of two pictures, lane by lane, so that a publisher that comes or goes
 * makes no spike. It only reads, and wakes nobody: watching costs the watched nothing.
 */

#include <inttypes.h>
#include <ncurses.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/command.h"
#include "tools/inspect.h"
#include "tools/look.h"
#include "tools/print.h"

struct row {
	const struct inspect_item *channel;
	struct inspect_sum sum;
	double records; /* a second */
	double len; /* bytes a second */
	double wakes; /* system calls a second */
};

struct top {
	double interval;
	uint64_t n_iterations;
	bool is_batch;
	unsigned sort;

	struct inspect now, before;
	bool has_before;
	double now_s, before_s;
	struct row *rows;
	uint32_t n_rows;
};

/* What matters most stands left: a narrow terminal cuts the rest. */
static const char *const titles[] = { "NAME",	  ">PUB",     ">SUB",	    ">REC/S",
				      ">BYTES/S", ">LAG REC", ">LAG BYTES", ">ASLEEP",
				      ">LOST",	  ">WAKES/S", ">DROPPED",   ">BACKSTOPS" };
#define N_TITLES (sizeof(titles) / sizeof(titles[0]))

static const char *const sort_names[] = { "records/s", "bytes/s", "lag", "lost", "name" };
#define N_SORTS (sizeof(sort_names) / sizeof(sort_names[0]))

#define NAME_SHOWN_MAX 40

static double now_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static double rate(uint64_t now, uint64_t before, double seconds)
{
	return now > before && seconds > 0 ? (now - before) / seconds : 0;
}

static void fill_row(const struct top *top, struct row *row)
{
	double seconds = top->now_s - top->before_s;
	const struct inspect_item *lane = NULL, *old;

	inspect_sum(&top->now, row->channel, &row->sum);
	if (!top->has_before)
		return;
	while ((lane = inspect_next(&top->now, lane, SHMB_ENTRY_PUBLISHER,
				    row->channel->entry.id))) {
		old = inspect_find(&top->before, SHMB_ENTRY_PUBLISHER, lane->entry.id);
		if (!lane->is_read)
			continue;
		/* A lane that is new began at 0. */
		row->records += rate(lane->lane.sequence,
				     old && old->is_read ? old->lane.sequence : 0, seconds);
		row->len += rate(lane->lane.position, old && old->is_read ? old->lane.position : 0,
				 seconds);
		row->wakes +=
			rate(lane->lane.rings, old && old->is_read ? old->lane.rings : 0, seconds);
	}
}

static int by_name(const struct row *a, const struct row *b)
{
	const struct shmb_registry_entry *left = &a->channel->entry, *right = &b->channel->entry;
	uint32_t len = left->name_len < right->name_len ? left->name_len : right->name_len;
	int order = memcmp(left->name, right->name, len);

	return order ? order : (int)left->name_len - (int)right->name_len;
}

static int compare_rows(const void *left, const void *right, void *data)
{
	const struct row *a = left, *b = right;
	double x = 0, y = 0;

	switch (*(unsigned *)data) {
	case 0:
		x = a->records, y = b->records;
		break;
	case 1:
		x = a->len, y = b->len;
		break;
	case 2:
		x = a->sum.lag_len, y = b->sum.lag_len;
		break;
	case 3:
		x = a->sum.lost + a->sum.dropped, y = b->sum.lost + b->sum.dropped;
		break;
	}
	return x != y ? (x < y ? 1 : -1) : by_name(a, b);
}

/* The next picture becomes the current one. If the registry has gone, everything stays as it is. */
static int refresh_rows(struct top *top)
{
	const struct inspect_item *item = NULL;
	struct inspect next;

	if (look_again(&next))
		return 1;
	if (top->has_before)
		inspect_close(&top->before);
	top->before = top->now;
	top->before_s = top->now_s;
	top->has_before = true;
	top->now = next;
	top->now_s = now_seconds();
	free(top->rows);
	top->n_rows = 0;
	top->rows = calloc(top->now.n_items + 1, sizeof(top->rows[0]));
	while (top->rows && (item = inspect_next(&top->now, item, SHMB_ENTRY_CHANNEL, 0))) {
		top->rows[top->n_rows].channel = item;
		fill_row(top, &top->rows[top->n_rows++]);
	}
	if (top->rows)
		qsort_r(top->rows, top->n_rows, sizeof(top->rows[0]), compare_rows, &top->sort);
	return 0;
}

static void add_row(struct table *table, const struct row *row)
{
	const struct shmb_registry_entry *entry = &row->channel->entry;
	bool is_cut = !table->is_plain && entry->name_len > NAME_SHOWN_MAX;

	table_add(table, "%.*s%s", is_cut ? NAME_SHOWN_MAX - 3 : (int)entry->name_len,
		  (const char *)entry->name, is_cut ? "..." : "");
	table_add(table, "%" PRIu32, row->sum.n_publishers);
	table_add(table, "%" PRIu32, row->sum.n_subscribers);
	table_add(table, "%.0f", row->records);
	table_add_size(table, row->len);
	table_add(table, "%" PRIu64, row->sum.lag_records);
	table_add_size(table, row->sum.lag_len);
	table_add(table, "%" PRIu32, row->sum.n_sleeping);
	table_add(table, "%" PRIu64, row->sum.lost);
	table_add(table, "%.0f", row->wakes);
	table_add(table, "%" PRIu64, row->sum.dropped);
	table_add(table, "%" PRIu64, row->sum.backstops);
}

static void fill_table(const struct top *top, struct table *table, bool is_plain)
{
	table_init(table, titles, N_TITLES, is_plain);
	for (uint32_t i = 0; i < top->n_rows; i++)
		add_row(table, &top->rows[i]);
}

static json_t *row_to_json(const struct row *row)
{
	const struct shmb_registry_entry *entry = &row->channel->entry;

	return json_pack("{s:o, s:i, s:i, s:i, s:f, s:f, s:f, s:o, s:o, s:o, s:o, s:o}", "name",
			 print_json_text(entry->name, entry->name_len), "publishers",
			 (int)row->sum.n_publishers, "subscribers", (int)row->sum.n_subscribers,
			 "sleeping", (int)row->sum.n_sleeping, "records_per_second", row->records,
			 "bytes_per_second", row->len, "wakes_per_second", row->wakes,
			 "lag_records", print_json_u64(row->sum.lag_records), "lag_bytes",
			 print_json_u64(row->sum.lag_len), "lost", print_json_u64(row->sum.lost),
			 "dropped", print_json_u64(row->sum.dropped), "backstops",
			 print_json_u64(row->sum.backstops));
}

static int print_batch(const struct top *top)
{
	json_t *channels = json_array();
	struct table table;

	if (common.is_json) {
		for (uint32_t i = 0; i < top->n_rows; i++)
			json_array_append_new(channels, row_to_json(&top->rows[i]));
		return print_json(channels, JSON_COMPACT);
	}
	json_decref(channels);
	fill_table(top, &table, !isatty(STDOUT_FILENO));
	table_print(&table, stdout);
	table_deinit(&table);
	putchar('\n');
	return fflush(stdout) != 0;
}

static int run_batch(struct top *top)
{
	struct timespec pause = { .tv_sec = top->interval,
				  .tv_nsec = (top->interval - (time_t)top->interval) * 1e9 };
	int status = 0;

	for (uint64_t i = 0; !status && (top->n_iterations == 0 || i < top->n_iterations); i++) {
		nanosleep(&pause, NULL);
		status = refresh_rows(top);
		if (status)
			complain("the registry has gone");
		else
			status = print_batch(top);
	}
	return status;
}

/* ---- on the screen ------------------------------------------------------------------------------ */

static void screen_line(void *data, const char *text)
{
	int *y = data;

	/* What does not fit is cut, never wrapped. The text was escaped when it became a cell. */
	if (*y < LINES) {
		if (*y == 2)
			attron(A_REVERSE);
		mvaddnstr(*y, 0, text, COLS);
		attroff(A_REVERSE);
	}
	++*y;
}

static void draw(const struct top *top, bool has_gone)
{
	uint32_t n_sleeping = 0;
	double records = 0, len = 0;
	struct table table;
	char size[16];
	int y = 2;

	for (uint32_t i = 0; i < top->n_rows; i++) {
		records += top->rows[i].records;
		len += top->rows[i].len;
		n_sleeping += top->rows[i].sum.n_sleeping;
	}
	print_size(size, len);
	erase();
	mvprintw(0, 0, "channels: %" PRIu32 "  %.0f records/s  %s bytes/s  %" PRIu32 " asleep%s",
		 top->n_rows, records, size, n_sleeping,
		 has_gone	  ? "  -- the registry has gone, these are the last numbers"
		 : top->now.n_bad ? "  -- some segments cannot be read: see shmctl ls"
				  : "");
	mvprintw(1, 0, "every %g s, by %s; s: next sort, q: quit", top->interval,
		 sort_names[top->sort]);
	fill_table(top, &table, false);
	table_each(&table, screen_line, &y);
	table_deinit(&table);
	refresh();
}

static int run_screen(struct top *top)
{
	double due = now_seconds();
	bool has_gone = false;
	int key;

	if (!initscr()) {
		complain("cannot use this terminal; --batch prints plain text");
		return 1;
	}
	cbreak();
	noecho();
	curs_set(0);
	keypad(stdscr, TRUE);
	for (uint64_t i = 0; top->n_iterations == 0 || i < top->n_iterations; i++) {
		draw(top, has_gone);
		due += top->interval;
		for (;;) {
			double left = due - now_seconds();

			timeout(left > 0 ? (int)(left * 1000) + 1 : 0);
			key = getch();
			if (key == ERR || key == 'q')
				break;
			if (key == 's') {
				top->sort = (top->sort + 1) % N_SORTS;
				qsort_r(top->rows, top->n_rows, sizeof(top->rows[0]), compare_rows,
					&top->sort);
			}
			draw(top, has_gone);
		}
		if (key == 'q')
			break;
		has_gone = refresh_rows(top) != 0;
	}
	endwin();
	return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct top *top = state->input;

	switch (key) {
	case 'i':
		top->interval = command_seconds(state, "--interval", arg);
		if (top->interval < 0.01)
			argp_error(state, "--interval: at least 0.01 seconds");
		return 0;
	case 'b':
		top->is_batch = true;
		return 0;
	case 'n':
		top->n_iterations = command_number(state, "--iterations", arg, 1, UINT64_MAX);
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "top takes no arguments");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int command_top(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "interval", 'i', "SECONDS", 0, "Time between two pictures (default 1)", 0 },
		{ "batch", 'b', NULL, 0, "Print plain text, for scripts", 0 },
		{ "iterations", 'n', "COUNT", 0, "End after so many pictures", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.doc = "Watch the traffic of all channels. Keys: s changes the sort, q quits.\v"
		       "--json implies --batch: an array on a line for each picture.",
		.children = common_json_children,
		.help_filter = command_help_filter,
	};
	struct top top = { .interval = 1 };
	int status;

	argp_parse(&argp, argc, argv, 0, NULL, &top);
	if (look_open(&top.now))
		return 1;
	top.now_s = now_seconds();
	status = top.is_batch || common.is_json ? run_batch(&top)
		 : refresh_rows(&top)		? 1
						: run_screen(&top);
	inspect_close(&top.now);
	if (top.has_before)
		inspect_close(&top.before);
	free(top.rows);
	return status;
}
