/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMB_TOOLS_PRINT_H
#define SHMB_TOOLS_PRINT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* "shmctl: <sentence>" on stderr; the whole sentence is escaped, so any %s in it is safe. */
void complain(const char *format, ...) __attribute__((__format__(__printf__, 1, 2)));

/* printf() whose result is escaped. */
void print_safe(FILE *file, const char *format, ...) __attribute__((__format__(__printf__, 2, 3)));

/**
 * print_escaped() - print bytes that came from somebody else
 * @file:  where to
 * @bytes: what
 * @len:   how many
 *
 * Printable characters of the locale stay; control characters, bytes that are no character, and
 * characters that reorder or hide text become \n, \t, \r, \xNN; a backslash becomes two. What
 * comes out is one line and cannot steer a terminal.
 */
void print_escaped(FILE *file, const void *bytes, size_t len);

/* The same as a string to free(). */
char *print_escape(const void *bytes, size_t len);

/* "1.5M": at most six characters. */
void print_size(char text[16], uint64_t len);

/* A JSON string; bytes that are not UTF-8 are escaped as print_escaped() does. */
json_t *print_json_text(const void *bytes, size_t len);

/* A JSON number, or a string of digits where jansson's signed numbers end. */
json_t *print_json_u64(uint64_t value);

/* Print @root, free it, and return 0, or 1 after a complaint. */
int print_json(json_t *root, size_t flags);

/**
 * struct table - cells row by row, printed when all are known
 * @titles:    one per column; '>' in front aligns to the right
 * @n_columns: of @titles
 * @is_plain:  tab-separated, no titles, sizes in bytes: stdout is no terminal
 */
struct table {
	const char *const *titles;
	size_t n_columns;
	bool is_plain;
	char **cells;
	size_t n_cells;
	size_t cap;
};

void table_init(struct table *table, const char *const *titles, size_t n_columns, bool is_plain);
void table_deinit(struct table *table);

/* Add the next cell; it is escaped. */
void table_add(struct table *table, const char *format, ...)
	__attribute__((__format__(__printf__, 2, 3)));
void table_add_size(struct table *table, uint64_t len);

/* Calls @line for the titles (unless plain) and for each row, with a text to print as it is. */
void table_each(const struct table *table, void (*line)(void *data, const char *text), void *data);
void table_print(const struct table *table, FILE *file);

#endif
