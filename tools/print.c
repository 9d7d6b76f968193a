/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Everything shmctl prints that it did not write itself goes through here.
 *
 * Channel names, labels, command lines and payloads come from other programs, some of them
 * hostile: printed as they are they could clear the screen, fake a prompt or set the window's
 * title. Escaping is the default of every function below, not a step to remember.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

#include "tools/print.h"

static void *must(void *memory)
{
	if (!memory) {
		fputs("shmctl: out of memory\n", stderr);
		exit(1);
	}
	return memory;
}

/* Characters that are printable for iswprint() but hide or reorder what stands around them. */
static bool is_deceptive(wchar_t c)
{
	return c == 0x061c || (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) ||
	       (c >= 0xe0000 && c <= 0xe0fff);
}

static void escape_byte(FILE *file, unsigned char byte)
{
	switch (byte) {
	case '\n':
		fputs("\\n", file);
		break;
	case '\t':
		fputs("\\t", file);
		break;
	case '\r':
		fputs("\\r", file);
		break;
	default:
		fprintf(file, "\\x%02x", byte);
		break;
	}
}

void print_escaped(FILE *file, const void *bytes, size_t len)
{
	const char *at = bytes;
	mbstate_t state = { 0 };
	wchar_t c;
	size_t n;

	while (len > 0) {
		if (*at == '\\') {
			fputs("\\\\", file);
			n = 1;
		} else if ((unsigned char)*at < 0x80) {
			if (*at >= 0x20 && *at < 0x7f)
				fputc(*at, file);
			else
				escape_byte(file, *at);
			n = 1;
		} else {
			n = mbrtowc(&c, at, len, &state);
			if (n == 0 || n > len) {
				memset(&state, 0, sizeof(state));
				escape_byte(file, *at);
				n = 1;
			} else if (iswprint(c) && !is_deceptive(c)) {
				fwrite(at, 1, n, file);
			} else {
				for (size_t i = 0; i < n; i++)
					escape_byte(file, at[i]);
			}
		}
		at += n;
		len -= n;
	}
}

char *print_escape(const void *bytes, size_t len)
{
	char *text = NULL;
	size_t text_len;
	FILE *file = must(open_memstream(&text, &text_len));

	print_escaped(file, bytes, len);
	fclose(file);
	return must(text);
}

__attribute__((__format__(__printf__, 2, 0))) static void
vprint_safe(FILE *file, const char *format, va_list args)
{
	char *text;
	int len = vasprintf(&text, format, args);

	if (len < 0)
		must(NULL);
	print_escaped(file, text, len);
	free(text);
}

void print_safe(FILE *file, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprint_safe(file, format, args);
	va_end(args);
}

void complain(const char *format, ...)
{
	int saved = errno; /* for %m */
	va_list args;

	fflush(stdout);
	fputs("shmctl: ", stderr);
	va_start(args, format);
	errno = saved;
	vprint_safe(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

void print_size(char text[16], uint64_t len)
{
	static const char units[] = "KMGTPE";
	double value = len;
	int unit = -1;

	while (value >= 1023.5) {
		value /= 1024;
		unit++;
	}
	if (unit < 0)
		snprintf(text, 16, "%" PRIu64, len);
	else
		snprintf(text, 16, value < 9.95 ? "%.1f%c" : "%.0f%c", value, units[unit]);
}

json_t *print_json_text(const void *bytes, size_t len)
{
	json_t *text = json_stringn(bytes, len);
	char *escaped;

	if (text)
		return text;
	escaped = print_escape(bytes, len);
	text = json_string(escaped);
	free(escaped);
	return must(text);
}

json_t *print_json_u64(uint64_t value)
{
	char digits[24];

	if (value <= INT64_MAX)
		return json_integer(value);
	snprintf(digits, sizeof(digits), "%" PRIu64, value);
	return json_string(digits);
}

int print_json(json_t *root, size_t flags)
{
	/* ASCII only: what is escaped cannot steer a terminal either. */
	int r = root ? json_dumpf(root, stdout, flags | JSON_ENSURE_ASCII) : -1;

	json_decref(root);
	if (r == 0)
		r = putchar('\n') == EOF || fflush(stdout) ? -1 : 0;
	if (r < 0)
		complain("cannot print JSON: out of memory, or the output is closed");
	return r < 0;
}

void table_init(struct table *table, const char *const *titles, size_t n_columns, bool is_plain)
{
	*table = (struct table){ .titles = titles, .n_columns = n_columns, .is_plain = is_plain };
}

void table_deinit(struct table *table)
{
	for (size_t i = 0; i < table->n_cells; i++)
		free(table->cells[i]);
	free(table->cells);
	table->cells = NULL;
	table->n_cells = table->cap = 0;
}

void table_add(struct table *table, const char *format, ...)
{
	va_list args;
	char *text;
	size_t text_len;
	FILE *file;

	if (table->n_cells == table->cap) {
		table->cap = table->cap ? table->cap * 2 : 64;
		table->cells =
			must(reallocarray(table->cells, table->cap, sizeof(table->cells[0])));
	}
	file = must(open_memstream(&text, &text_len));
	va_start(args, format);
	vprint_safe(file, format, args);
	va_end(args);
	fclose(file);
	table->cells[table->n_cells++] = must(text);
}

void table_add_size(struct table *table, uint64_t len)
{
	char text[16];

	print_size(text, len);
	if (table->is_plain)
		table_add(table, "%" PRIu64, len);
	else
		table_add(table, "%s", text);
}

/* Columns on a terminal that a text takes. */
static size_t text_width(const char *text)
{
	mbstate_t state = { 0 };
	size_t width = 0;
	wchar_t c;
	size_t n;

	for (; *text; text += n) {
		n = mbrtowc(&c, text, MB_CUR_MAX, &state);
		if (n == 0 || n > MB_CUR_MAX)
			return width + strlen(text);
		width += wcwidth(c) > 0 ? wcwidth(c) : 0;
	}
	return width;
}

static const char *title_text(const char *title)
{
	return *title == '>' ? title + 1 : title;
}

static void print_row(const struct table *table, const size_t *widths, const char *const *cells,
		      FILE *file)
{
	for (size_t i = 0; i < table->n_columns; i++) {
		const char *text = title_text(cells[i]);
		int pad = widths ? widths[i] - text_width(text) : 0;
		bool is_right = widths && *table->titles[i] == '>';

		if (i > 0)
			fputs(widths ? "  " : "\t", file);
		if (is_right)
			fprintf(file, "%*s", pad, "");
		fputs(text, file);
		if (!is_right && i + 1 < table->n_columns)
			fprintf(file, "%*s", pad, "");
	}
}

void table_each(const struct table *table, void (*line)(void *data, const char *text), void *data)
{
	size_t n_rows = table->n_cells / table->n_columns;
	size_t *widths = must(calloc(table->n_columns, sizeof(*widths)));

	for (size_t i = 0; i < table->n_columns; i++)
		widths[i] = text_width(title_text(table->titles[i]));
	for (size_t i = 0; i < n_rows * table->n_columns; i++) {
		size_t width = text_width(table->cells[i]);

		if (width > widths[i % table->n_columns])
			widths[i % table->n_columns] = width;
	}
	for (size_t row = table->is_plain; row < n_rows + 1; row++) {
		char *text;
		size_t text_len;
		FILE *file = must(open_memstream(&text, &text_len));

		if (row == 0)
			print_row(table, widths, table->titles, file);
		else
			print_row(table, table->is_plain ? NULL : widths,
				  (const char *const *)&table->cells[(row - 1) * table->n_columns],
				  file);
		fclose(file);
		line(data, must(text));
		free(text);
	}
	free(widths);
}

static void line_to_file(void *data, const char *text)
{
	fprintf(data, "%s\n", text);
}

void table_print(const struct table *table, FILE *file)
{
	table_each(table, line_to_file, file);
}
