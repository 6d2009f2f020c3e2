/* Five ways to print the same rows. */
#include "cli/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void table_column(Table *table, const char *name, bool numeric)
{
    table->columns[table->n_columns] = name;
    table->numeric[table->n_columns++] = numeric;
}

/* bytes: owned by the table from now on; NULL: no value. */
static void add_cell(Table *table, char *bytes)
{
    if (table->n_cells == table->capacity) {
        table->capacity = table->capacity ? table->capacity * 2 : 64;
        table->cells = realloc(table->cells, table->capacity * sizeof *table->cells);
        if (!table->cells) {
            abort(); /* as core/text */
        }
    }
    table->cells[table->n_cells++] = bytes;
    table->n_rows = table->n_cells / table->n_columns;
}

void table_cell(Table *table, const char *format, ...)
{
    Text cell = {0};
    va_list arguments;
    va_start(arguments, format);
    text_vprintf(&cell, format, arguments);
    va_end(arguments);
    text_append(&cell, "", 0);
    add_cell(table, cell.bytes);
}

void table_null(Table *table)
{
    add_cell(table, NULL);
}

void table_release(Table *table)
{
    for (size_t i = 0; i < table->n_cells; i++) {
        free(table->cells[i]);
    }
    free(table->cells);
    *table = (Table){0};
}

static void print_object(const Table *table, size_t row, Text *out)
{
    for (size_t i = 0; i < table->n_columns; i++) {
        const char *cell = table->cells[row * table->n_columns + i];
        text_add(out, i ? ", " : "{");
        text_json_string(out, table->columns[i], strlen(table->columns[i]));
        text_add(out, ": ");
        if (!cell || (table->numeric[i] && !*cell)) {
            text_add(out, "null");
        } else if (table->numeric[i]) {
            text_add(out, cell);
        } else {
            text_json_string(out, cell, strlen(cell));
        }
    }
    text_add(out, "}");
}

static void print_csv(const char *const *cells, size_t n, Text *out)
{
    for (size_t i = 0; i < n; i++) {
        text_add(out, i ? "," : "");
        const char *cell = cells[i] ? cells[i] : "";
        if (cell[strcspn(cell, ",\"\r\n")] == 0) {
            text_add(out, cell);
            continue;
        }
        text_add(out, "\"");
        for (const char *c = cell; *c; c++) {
            text_append(out, "\"", *c == '"');
            text_append(out, c, 1);
        }
        text_add(out, "\"");
    }
    text_add(out, "\r\n");
}

static size_t characters(const char *string)
{
    size_t n = 0;
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): one_line gave each cell */
    for (; *string; string++) {
        n += ((unsigned char)*string & 0xc0) != 0x80;
    }
    return n;
}

static void print_aligned(const Table *table, const char *const *cells, const size_t *widths,
                          bool markdown, Text *out)
{
    for (size_t i = 0; i < table->n_columns; i++) {
        int padding = (int)(widths[i] - characters(cells[i]));
        bool last = i + 1 == table->n_columns;
        text_add(out, markdown ? (i ? " | " : "| ") : (i ? "  " : ""));
        if (table->numeric[i]) {
            text_printf(out, "%*s%s", padding, "", cells[i]);
        } else {
            text_printf(out, "%s%*s", cells[i], last && !markdown ? 0 : padding, "");
        }
    }
    text_add(out, markdown ? " |\n" : "\n");
}

/* A cell on one line that cannot harm the terminal: white space is a blank, other control
 * characters are question marks, a bar does not end a Markdown cell. */
static char *one_line(const char *cell, bool markdown)
{
    Text out = {0};
    text_append(&out, "", 0);
    for (const char *c = cell ? cell : ""; *c; c++) {
        unsigned char byte = (unsigned char)*c;
        bool space = byte >= '\t' && byte <= '\r';
        bool c1 = byte >= 0x80 && byte < 0xa0 && c > cell && (unsigned char)c[-1] == 0xc2;
        text_append(&out, "\\", markdown && *c == '|');
        text_append(&out, space ? " " : byte < ' ' || byte == 127 || c1 ? "?" : c, 1);
    }
    return out.bytes;
}

static void print_text(const Table *table, bool markdown, Text *out)
{
    size_t widths[TABLE_COLUMNS] = {0}, n = table->n_columns;
    char **cells = calloc(table->n_cells + 1, sizeof *cells);
    if (!cells) {
        abort(); /* as core/text */
    }
    for (size_t i = 0; i < table->n_cells; i++) {
        cells[i] = one_line(table->cells[i], markdown);
    }
    for (size_t i = 0; i < n; i++) {
        widths[i] = characters(table->columns[i]);
        for (size_t row = 0; row < table->n_rows; row++) {
            size_t width = characters(cells[row * n + i]);
            widths[i] = width > widths[i] ? width : widths[i];
        }
    }
    print_aligned(table, table->columns, widths, markdown, out);
    for (size_t i = 0; markdown && i < n; i++) {
        text_add(out, table->numeric[i] ? "|---:" : "|---");
    }
    text_add(out, markdown ? "|\n" : "");
    for (size_t row = 0; row < table->n_rows; row++) {
        print_aligned(table, (const char *const *)&cells[row * n], widths, markdown, out);
    }
    for (size_t i = 0; i < table->n_cells; i++) {
        free(cells[i]);
    }
    free(cells);
}

void table_print(const Table *table, OutputFormat format, Text *out)
{
    switch (format) {
    case FORMAT_TABLE:
    case FORMAT_MD:
        print_text(table, format == FORMAT_MD, out);
        break;
    case FORMAT_CSV:
        print_csv(table->columns, table->n_columns, out);
        for (size_t row = 0; row < table->n_rows; row++) {
            print_csv((const char *const *)&table->cells[row * table->n_columns], table->n_columns,
                      out);
        }
        break;
    case FORMAT_JSON:
        text_add(out, "[");
        for (size_t row = 0; row < table->n_rows; row++) {
            text_add(out, row ? ",\n " : "");
            print_object(table, row, out);
        }
        text_add(out, "]\n");
        break;
    case FORMAT_JSONL:
        for (size_t row = 0; row < table->n_rows; row++) {
            print_object(table, row, out);
            text_add(out, "\n");
        }
        break;
    }
}
