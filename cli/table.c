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

void table_cell(Table *table, const char *format, ...)
{
    Text cell = {0};
    va_list arguments;
    va_start(arguments, format);
    text_vprintf(&cell, format, arguments);
    va_end(arguments);
    text_append(&cell, "", 0);
    if (table->n_cells == table->capacity) {
        table->capacity = table->capacity ? table->capacity * 2 : 64;
        table->cells = realloc(table->cells, table->capacity * sizeof *table->cells);
        if (!table->cells) {
            abort(); /* as core/text */
        }
    }
    table->cells[table->n_cells++] = cell.bytes;
    table->n_rows = table->n_cells / table->n_columns;
}

void table_release(Table *table)
{
    for (size_t i = 0; i < table->n_cells; i++) {
        free(table->cells[i]);
    }
    free(table->cells);
    *table = (Table){0};
}

static const char *cell_at(const Table *table, size_t row, size_t column)
{
    return table->cells[row * table->n_columns + column];
}

static void print_object(const Table *table, size_t row, Text *out)
{
    for (size_t i = 0; i < table->n_columns; i++) {
        const char *cell = cell_at(table, row, i);
        text_add(out, i ? ", " : "{");
        text_json_string(out, table->columns[i], strlen(table->columns[i]));
        text_add(out, ": ");
        if (table->numeric[i]) {
            text_add(out, *cell ? cell : "null");
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
        if (cells[i][strcspn(cells[i], ",\"\r\n")] == 0) {
            text_add(out, cells[i]);
            continue;
        }
        text_add(out, "\"");
        for (const char *c = cells[i]; *c; c++) {
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

static void print_text(const Table *table, bool markdown, Text *out)
{
    size_t widths[TABLE_COLUMNS];
    for (size_t i = 0; i < table->n_columns; i++) {
        widths[i] = characters(table->columns[i]);
        for (size_t row = 0; row < table->n_rows; row++) {
            size_t width = characters(cell_at(table, row, i));
            widths[i] = width > widths[i] ? width : widths[i];
        }
    }
    print_aligned(table, table->columns, widths, markdown, out);
    for (size_t i = 0; markdown && i < table->n_columns; i++) {
        text_add(out, table->numeric[i] ? "|---:" : "|---");
    }
    text_add(out, markdown ? "|\n" : "");
    for (size_t row = 0; row < table->n_rows; row++) {
        print_aligned(table, (const char *const *)&table->cells[row * table->n_columns], widths,
                      markdown, out);
    }
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
