/* A frame is filled row by row into one grid of cells, then turned into columns of one kind each.
 */
#include "results/frame.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "results/store_private.h"

typedef struct {
    ValueKind kind;
    union {
        int64_t integer;
        double real;
        size_t start; /* of a text in `texts` */
    };
} Cell;

typedef struct {
    Cell *cells; /* (n_rows, n_columns) */
    size_t n_cells, capacity;
    Text texts; /* NUL-terminated, one after another */
} Grid;

static void *must(void *memory)
{
    if (!memory) {
        abort();
    }
    return memory;
}

static void add_cell(Grid *grid, Value value)
{
    if (grid->n_cells == grid->capacity) {
        grid->capacity = grid->capacity ? 2 * grid->capacity : 256;
        grid->cells = must(realloc(grid->cells, grid->capacity * sizeof *grid->cells));
    }
    Cell *cell = &grid->cells[grid->n_cells++];
    cell->kind = value.kind;
    switch (value.kind) {
    case VALUE_NULL:
        break;
    case VALUE_INTEGER:
        cell->integer = value.integer;
        break;
    case VALUE_REAL:
        cell->real = value.real;
        break;
    case VALUE_TEXT:
    case VALUE_BLOB:
        cell->start = grid->texts.n;
        if (value.kind == VALUE_TEXT) {
            text_append(&grid->texts, value.bytes, value.n);
        } else {
            value_add_hex(&grid->texts, value);
        }
        text_append(&grid->texts, "", 1);
        break;
    }
}

static double cell_number(const Cell *cell)
{
    return cell->kind == VALUE_NULL      ? NAN
           : cell->kind == VALUE_INTEGER ? (double)cell->integer
                                         : cell->real;
}

static char *cell_text(const Cell *cell, const Grid *grid, Text *scratch)
{
    text_clear(scratch);
    switch (cell->kind) {
    case VALUE_NULL:
        return NULL;
    case VALUE_INTEGER:
        text_printf(scratch, "%" PRId64, cell->integer);
        break;
    case VALUE_REAL:
        text_printf(scratch, "%.17g", cell->real);
        break;
    case VALUE_TEXT:
    case VALUE_BLOB:
        text_add(scratch, grid->texts.bytes + cell->start);
        break;
    }
    return must(strdup(text_string(scratch)));
}

static void fill_column(FrameColumn *column, const Grid *grid, size_t at, size_t n_columns,
                        size_t n_rows)
{
    column->numeric = column->integer = true;
    for (size_t i = 0; i < n_rows; i++) {
        ValueKind kind = grid->cells[i * n_columns + at].kind;
        column->numeric &= kind == VALUE_NULL || kind == VALUE_INTEGER || kind == VALUE_REAL;
        column->integer &= kind == VALUE_NULL || kind == VALUE_INTEGER;
    }
    if (column->numeric) {
        column->numbers = must(calloc(n_rows + 1, sizeof *column->numbers));
    } else {
        column->texts = must(calloc(n_rows + 1, sizeof *column->texts));
    }
    Text scratch = {0};
    for (size_t i = 0; i < n_rows; i++) {
        const Cell *cell = &grid->cells[i * n_columns + at];
        if (column->numeric) {
            column->numbers[i] = cell_number(cell);
        } else {
            column->texts[i] = cell_text(cell, grid, &scratch);
        }
    }
    text_release(&scratch);
}

static Status read_rows(Frame *frame, Statement *statement, Error *error)
{
    Grid grid = {0};
    bool row = true;
    Status status = STATUS_OK;
    frame->n_columns = (size_t)statement_columns(statement);
    frame->columns = must(calloc(frame->n_columns + 1, sizeof *frame->columns));
    for (size_t c = 0; c < frame->n_columns; c++) {
        const char *name = statement_column_name(statement, (int)c);
        frame->columns[c].name = must(strdup(name ? name : ""));
    }
    while ((status = statement_next(statement, &row, error)) == STATUS_OK && row) {
        for (size_t c = 0; c < frame->n_columns; c++) {
            add_cell(&grid, statement_value(statement, (int)c));
        }
    }
    if (status == STATUS_OK) {
        frame->n_rows = frame->n_columns ? grid.n_cells / frame->n_columns : 0;
        for (size_t c = 0; c < frame->n_columns; c++) {
            fill_column(&frame->columns[c], &grid, c, frame->n_columns, frame->n_rows);
        }
    }
    free(grid.cells);
    text_release(&grid.texts);
    return status;
}

Status frame_read(Frame *frame, Store *store, const char *sql, const char *const *binds,
                  size_t n_binds, Error *error)
{
    Statement *statement = NULL;
    Value *values = must(calloc(n_binds + 1, sizeof *values));
    for (size_t i = 0; i < n_binds; i++) {
        values[i] = value_text(binds[i]);
    }
    Status status = database_prepare_reader(&statement, store->database, sql, error);
    if (status == STATUS_OK) {
        status = statement_bind(statement, values, n_binds, error);
    }
    if (status == STATUS_OK) {
        status = read_rows(frame, statement, error);
    }
    statement_free(statement);
    free(values);
    return status == STATUS_USAGE ? status : store_fail(store, status, error);
}

void frame_release(Frame *frame)
{
    for (size_t c = 0; c < frame->n_columns; c++) {
        FrameColumn *column = &frame->columns[c];
        for (size_t i = 0; column->texts && i < frame->n_rows; i++) {
            free(column->texts[i]);
        }
        free(column->texts);
        free(column->numbers);
        free(column->name);
    }
    free(frame->columns);
    *frame = (Frame){0};
}

const FrameColumn *frame_column(const Frame *frame, const char *name)
{
    for (size_t c = 0; c < frame->n_columns; c++) {
        if (strcmp(frame->columns[c].name, name) == 0) {
            return &frame->columns[c];
        }
    }
    return NULL;
}

double frame_number(const Frame *frame, const char *name, size_t row)
{
    const FrameColumn *column = frame_column(frame, name);
    return column && column->numbers ? column->numbers[row] : NAN;
}

const char *frame_text(const Frame *frame, const char *name, size_t row)
{
    const FrameColumn *column = frame_column(frame, name);
    return column && column->texts ? column->texts[row] : NULL;
}
