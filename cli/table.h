/* A small table of strings and numbers in every output format, for results that do not come from
 * results.db. */
#pragma once
#include "core/text.h"
#include "results/query.h"

enum { TABLE_COLUMNS = 24 };

typedef struct {
    const char *columns[TABLE_COLUMNS];
    bool numeric[TABLE_COLUMNS]; /* in JSON without quotes */
    size_t n_columns;
    char **cells; /* (n_rows, n_columns) owned */
    size_t n_rows, n_cells, capacity;
} Table;

void table_column(Table *table, const char *name, bool numeric);
/* Cells are added row by row, from left to right; an empty numeric cell is null in JSON. */
void table_cell(Table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A cell without value: null in JSON, empty elsewhere. */
void table_null(Table *table);
/* Append the whole to out: aligned, Markdown, CSV, a JSON list, or a JSON object a line. */
void table_print(const Table *table, OutputFormat format, Text *out);
void table_release(Table *table);
