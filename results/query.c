/* Read-only SQL and its answer in five formats. Knows no schema: the views are in schema.sql. */
#include "results/query.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "results/store_private.h"

enum { CELL_WIDTH = 72 };

bool output_format_find(OutputFormat *format, const char *name)
{
    static const char *const names[] = {"table", "json", "jsonl", "csv", "md"};
    for (int i = 0; i < 5; i++) {
        if (strcmp(name, names[i]) == 0) {
            *format = (OutputFormat)i;
            return true;
        }
    }
    return false;
}

/* The character at s and the bytes it takes; broken UTF-8 is U+FFFD, one byte. */
static uint32_t next_character(const unsigned char *s, size_t n, size_t *n_bytes)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = s[0] < 0x80             ? 1
                    : (s[0] & 0xe0) == 0xc0 ? 2
                    : (s[0] & 0xf0) == 0xe0 ? 3
                    : (s[0] & 0xf8) == 0xf0 ? 4
                                            : 0;
    *n_bytes = 1;
    if (length == 1) {
        return s[0];
    }
    if (length == 0 || length > n) {
        return 0xfffd;
    }
    uint32_t c = s[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0xfffd;
        }
        c = c << 6 | (s[i] & 0x3fu);
    }
    if (c < smallest[length] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        return 0xfffd;
    }
    *n_bytes = length;
    return c;
}

/* Columns on a terminal: 0 for marks that combine, 2 for East Asian wide characters and emoji. */
static int character_width(uint32_t c)
{
    static const struct {
        uint32_t first, last;
        int width;
    } ranges[] = {
        {0x0300, 0x036f, 0},   {0x0483, 0x0489, 0},  {0x0591, 0x05bd, 0},   {0x064b, 0x065f, 0},
        {0x1100, 0x115f, 2},   {0x1ab0, 0x1aff, 0},  {0x1dc0, 0x1dff, 0},   {0x200b, 0x200f, 0},
        {0x202a, 0x202e, 0},   {0x20d0, 0x20ff, 0},  {0x2e80, 0x303e, 2},   {0x3041, 0x33ff, 2},
        {0x3400, 0x4dbf, 2},   {0x4e00, 0x9fff, 2},  {0xa000, 0xa4cf, 2},   {0xac00, 0xd7a3, 2},
        {0xf900, 0xfaff, 2},   {0xfe00, 0xfe0f, 0},  {0xfe20, 0xfe2f, 0},   {0xfe30, 0xfe6f, 2},
        {0xff00, 0xff60, 2},   {0xffe0, 0xffe6, 2},  {0x1f300, 0x1f64f, 2}, {0x1f900, 0x1f9ff, 2},
        {0x20000, 0x3fffd, 2}, {0xe0100, 0xe01ef, 0}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (c >= ranges[i].first && c <= ranges[i].last) {
            return ranges[i].width;
        }
    }
    return 1;
}

/* Appends text that cannot harm a terminal and returns its width. Longer than limit: cut, with an
 * ellipsis. */
static int add_visible(Text *out, const char *bytes, size_t n, int limit)
{
    int width = 0;
    size_t cut = out->n; /* where an ellipsis would still fit */
    int cut_width = 0;
    for (size_t i = 0; i < n;) {
        size_t n_bytes;
        uint32_t c = next_character((const unsigned char *)bytes + i, n - i, &n_bytes);
        char piece[16];
        int piece_width;
        if (c == '\n' || c == '\t' || c == '\r') {
            piece_width = snprintf(piece, sizeof piece, "\\%c",
                                   c == '\n'   ? 'n'
                                   : c == '\t' ? 't'
                                               : 'r');
        } else if (c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x202a && c <= 0x202e) ||
                   (c >= 0x2066 && c <= 0x2069)) {
            piece_width = snprintf(piece, sizeof piece, c < 0x100 ? "\\x%02x" : "\\u%04x", c);
        } else if (c == 0xfffd) {
            piece_width = 1;
            snprintf(piece, sizeof piece, "\xef\xbf\xbd");
        } else {
            piece_width = character_width(c);
            snprintf(piece, sizeof piece, "%.*s", (int)n_bytes, bytes + i);
        }
        if (width + piece_width > limit) {
            out->n = cut;
            text_add(out, "\xe2\x80\xa6");
            return cut_width + 1;
        }
        text_add(out, piece);
        width += piece_width;
        if (width < limit) {
            cut = out->n;
            cut_width = width;
        }
        i += n_bytes;
    }
    return width;
}

/* A value for people; returns its width. */
static int add_human(Text *out, Value value, int limit)
{
    char number[64];
    int n = 0;
    switch (value.kind) {
    case VALUE_INTEGER:
        n = snprintf(number, sizeof number, "%" PRId64, value.integer);
        break;
    case VALUE_REAL:
        n = snprintf(number, sizeof number, "%.6g", value.real);
        break;
    case VALUE_BLOB:
        n = snprintf(number, sizeof number, "(%zu bytes)", value.n);
        break;
    case VALUE_TEXT:
        return add_visible(out, value.bytes, value.n, limit);
    case VALUE_NULL:
        return 0;
    }
    text_append(out, number, (size_t)n);
    return n;
}

void value_add_hex(Text *out, Value value)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *bytes = value.bytes;
    for (size_t i = 0; i < value.n; i++) {
        char pair[2] = {digits[bytes[i] >> 4], digits[bytes[i] & 15]};
        text_append(out, pair, 2);
    }
}

static void add_json(Text *out, Value value)
{
    switch (value.kind) {
    case VALUE_NULL:
        text_add(out, "null");
        break;
    case VALUE_INTEGER:
        text_printf(out, "%" PRId64, value.integer);
        break;
    case VALUE_REAL:
        text_json_number(out, value.real);
        break;
    case VALUE_TEXT:
        text_json_string(out, value.bytes, value.n);
        break;
    case VALUE_BLOB:
        text_add(out, "\"");
        value_add_hex(out, value);
        text_add(out, "\"");
        break;
    }
}

static void add_csv_text(Text *out, const char *bytes, size_t n)
{
    bool quote = n == 0;
    for (size_t i = 0; i < n; i++) {
        quote = quote || strchr(",\"\r\n", bytes[i]);
    }
    if (quote) {
        text_add(out, "\"");
    }
    for (size_t i = 0; i < n;) { /* whoever reads CSV trusts it to be UTF-8 */
        size_t n_bytes;
        uint32_t c = next_character((const unsigned char *)bytes + i, n - i, &n_bytes);
        if (c == 0xfffd) {
            text_add(out, "\xef\xbf\xbd");
        } else {
            text_append(out, bytes + i, n_bytes);
        }
        text_add(out, c == '"' ? "\"" : "");
        i += n_bytes;
    }
    if (quote) {
        text_add(out, "\"");
    }
}

static void add_csv(Text *out, Value value)
{
    switch (value.kind) {
    case VALUE_NULL:
        break;
    case VALUE_INTEGER:
        text_printf(out, "%" PRId64, value.integer);
        break;
    case VALUE_REAL:
        text_printf(out, "%.17g", value.real);
        break;
    case VALUE_TEXT:
        add_csv_text(out, value.bytes, value.n);
        break;
    case VALUE_BLOB:
        value_add_hex(out, value);
        break;
    }
}

/* Column names, each once; release each and the array. */
static Text *column_names(Statement *statement, int n_columns)
{
    Text *names = calloc((size_t)n_columns + 1, sizeof *names);
    if (!names) {
        abort();
    }
    for (int i = 0; i < n_columns; i++) {
        const char *name = statement_column_name(statement, i);
        text_add(&names[i], name ? name : "");
        for (int j = 0, again = 2; j < i; j++) {
            if (strcmp(names[j].bytes, names[i].bytes) == 0) {
                text_clear(&names[i]);
                text_printf(&names[i], "%s_%d", name ? name : "", again++);
                j = -1;
            }
        }
    }
    return names;
}

/* One cell of a table in the making: where its text is and how wide. */
typedef struct {
    size_t start, n;
    int width;
} Cell;

typedef struct {
    Text text;
    Cell *cells; /* header first */
    size_t n_cells, capacity;
    int *width;    /* (n_columns) */
    bool *numeric; /* (n_columns) right-aligned */
} Grid;

static void add_cell(Grid *grid, int column, Value value, int limit)
{
    if (grid->n_cells == grid->capacity) {
        grid->capacity = grid->capacity ? 2 * grid->capacity : 256;
        grid->cells = realloc(grid->cells, grid->capacity * sizeof *grid->cells);
        if (!grid->cells) {
            abort();
        }
    }
    Cell cell = {.start = grid->text.n};
    cell.width = add_human(&grid->text, value, limit);
    cell.n = grid->text.n - cell.start;
    grid->cells[grid->n_cells++] = cell;
    if (cell.width > grid->width[column]) {
        grid->width[column] = cell.width;
    }
}

static void add_padding(Text *out, int n)
{
    for (int i = 0; i < n; i++) {
        text_append(out, " ", 1);
    }
}

/* `|` inside a cell of Markdown would end it. */
static void add_markdown(Text *out, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '|' || bytes[i] == '\\') {
            text_append(out, "\\", 1);
        }
        text_append(out, bytes + i, 1);
    }
}

static void print_grid(const Grid *grid, int n_columns, bool markdown, Text *out)
{
    for (size_t i = 0; i < grid->n_cells; i++) {
        const Cell *cell = &grid->cells[i];
        int column = (int)(i % (size_t)n_columns);
        bool last = column == n_columns - 1;
        int padding = grid->width[column] - cell->width;
        const char *bytes = grid->text.bytes ? grid->text.bytes + cell->start : "";
        if (markdown) {
            text_add(out, column == 0 ? "| " : " | ");
            add_markdown(out, bytes, cell->n);
            text_add(out, last ? " |\n" : "");
        } else {
            text_add(out, column == 0 ? "" : "  ");
            add_padding(out, grid->numeric[column] ? padding : 0);
            text_append(out, bytes, cell->n);
            add_padding(out, grid->numeric[column] || last ? 0 : padding);
            text_add(out, last ? "\n" : "");
        }
        for (int j = 0; i + 1 == (size_t)n_columns && j < n_columns; j++) { /* under the header */
            bool end = j == n_columns - 1;
            if (markdown) {
                text_add(out, j == 0 ? "|" : "");
                text_add(out, grid->numeric[j] ? "---:|" : "---|");
            } else {
                text_add(out, j == 0 ? "" : "  ");
                for (int k = 0; k < grid->width[j]; k++) {
                    text_append(out, "-", 1);
                }
            }
            text_add(out, end ? "\n" : "");
        }
    }
}

static Status answer_grid(Statement *statement, const Text *names, int n_columns, bool markdown,
                          Text *out, Error *error)
{
    Grid grid = {.width = calloc((size_t)n_columns + 1, sizeof(int)),
                 .numeric = calloc((size_t)n_columns + 1, sizeof(bool))};
    if (!grid.width || !grid.numeric) {
        abort();
    }
    int limit = markdown ? 1 << 30 : CELL_WIDTH;
    for (int i = 0; i < n_columns; i++) {
        add_cell(&grid, i, value_text(text_string(&names[i])), limit);
        grid.numeric[i] = true;
    }
    bool row = true;
    Status status = STATUS_OK;
    while ((status = statement_next(statement, &row, error)) == STATUS_OK && row) {
        for (int i = 0; i < n_columns; i++) {
            Value value = statement_value(statement, i);
            add_cell(&grid, i, value, limit);
            grid.numeric[i] &= value.kind != VALUE_TEXT;
        }
    }
    if (status == STATUS_OK) {
        print_grid(&grid, n_columns, markdown, out);
    }
    text_release(&grid.text);
    free(grid.cells);
    free(grid.width);
    free(grid.numeric);
    return status;
}

static Status answer_json(Statement *statement, const Text *names, int n_columns, bool lines,
                          Text *out, Error *error)
{
    bool row = true, first = true;
    Status status = STATUS_OK;
    text_add(out, lines ? "" : "[");
    while ((status = statement_next(statement, &row, error)) == STATUS_OK && row) {
        text_add(out, lines ? "{" : first ? "\n{" : ",\n{");
        first = false;
        for (int i = 0; i < n_columns; i++) {
            text_add(out, i ? ", " : "");
            text_json_string(out, text_string(&names[i]), names[i].n);
            text_add(out, ": ");
            add_json(out, statement_value(statement, i));
        }
        text_add(out, lines ? "}\n" : "}");
    }
    text_add(out, lines ? "" : first ? "]\n" : "\n]\n");
    return status;
}

static Status answer_csv(Statement *statement, const Text *names, int n_columns, Text *out,
                         Error *error)
{
    bool row = true;
    Status status = STATUS_OK;
    for (int i = 0; i < n_columns; i++) {
        text_add(out, i ? "," : "");
        add_csv_text(out, text_string(&names[i]), names[i].n);
    }
    text_add(out, "\r\n");
    while ((status = statement_next(statement, &row, error)) == STATUS_OK && row) {
        for (int i = 0; i < n_columns; i++) {
            text_add(out, i ? "," : "");
            add_csv(out, statement_value(statement, i));
        }
        text_add(out, "\r\n");
    }
    return status;
}

Status query_run(Store *store, const char *sql, const char *const *binds, size_t n_binds,
                 OutputFormat format, Text *out, Error *error)
{
    Statement *statement = NULL;
    Value *values = calloc(n_binds + 1, sizeof *values);
    if (!values) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    for (size_t i = 0; i < n_binds; i++) {
        values[i] = value_text(binds[i]);
    }
    size_t before = out->n;
    Status status = database_prepare_reader(&statement, store->database, sql, error);
    if (status == STATUS_OK) {
        status = statement_bind(statement, values, n_binds, error);
    }
    if (status == STATUS_OK) {
        int n_columns = statement_columns(statement);
        Text *names = column_names(statement, n_columns);
        if (format == FORMAT_TABLE || format == FORMAT_MD) {
            status = answer_grid(statement, names, n_columns, format == FORMAT_MD, out, error);
        } else if (format == FORMAT_CSV) {
            status = answer_csv(statement, names, n_columns, out, error);
        } else {
            status = answer_json(statement, names, n_columns, format == FORMAT_JSONL, out, error);
        }
        for (int i = 0; i < n_columns; i++) {
            text_release(&names[i]);
        }
        free(names);
    }
    statement_free(statement);
    free(values);
    if (status != STATUS_OK && out->bytes) {
        out->n = before;
        out->bytes[before] = 0;
    }
    /* A question that cannot be asked is the user's; everything else is the file's. */
    return status == STATUS_USAGE ? status : store_fail(store, status, error);
}
