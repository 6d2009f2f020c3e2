/* JSON Lines: one line, one object, parsed by core/json; or one array of them. Not a cache: the
 * whole file is read once. */
#include "rl/dataset.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/json.h"
#include "core/text.h"

#define MAX_FILE_BYTES ((size_t)4 << 30)
#define MAX_ROWS 100000000

typedef struct {
    char *id; /* "s" or "n" and the value, so that "1" and 1 differ */
    int line;
} RowId;

typedef struct {
    Text strings;    /* question NUL answer NUL ... */
    size_t *offsets; /* (2 n_rows) of question and answer in strings */
    size_t *lengths; /* (2 n_rows) */
    int *lines;
    int n_rows, capacity;
    RowId *ids;
    size_t n_ids, id_capacity;
} Reader;

static void *grow(void *array, size_t count, size_t size)
{
    void *bigger = realloc(array, count * size);
    if (!bigger) {
        abort(); /* as Text: what is kept is smaller than the file, which was read */
    }
    return bigger;
}

static Status read_file(char **bytes, size_t *n, const char *path, Error *error)
{
    struct stat info;
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &info) != 0) {
        Status status = error_set(error, STATUS_REFUSED, "cannot open: %s", strerror(errno));
        if (file) {
            fclose(file);
        }
        return status;
    }
    if (!S_ISREG(info.st_mode)) {
        fclose(file);
        return error_set(error, STATUS_REFUSED, "not a regular file");
    }
    *n = (size_t)info.st_size;
    if (*n > MAX_FILE_BYTES) {
        fclose(file);
        return error_set(error, STATUS_REFUSED, "%.1f GiB, at most 4 GiB are read",
                         (double)*n / (double)((size_t)1 << 30));
    }
    *bytes = malloc(*n + 1);
    if (!*bytes) {
        fclose(file);
        return error_set(error, STATUS_FAILED, "no memory for %.2f GiB",
                         (double)*n / (double)((size_t)1 << 30));
    }
    size_t got = fread(*bytes, 1, *n, file);
    fclose(file);
    if (got != *n) {
        free(*bytes);
        *bytes = NULL;
        return error_set(error, STATUS_FAILED, "read %zu of %zu bytes", got, *n);
    }
    return STATUS_OK;
}

/* string: (n) of the field, in the document. */
static Status find_field(const char **string, size_t *n, const Json *row, const char *name,
                         Error *error)
{
    const Json *value = json_get(row, name);
    if (!value) {
        return error_set(error, STATUS_REFUSED, "field \"%s\" is missing", name);
    }
    *string = json_string(value, n);
    if (!*string) {
        return error_set(error, STATUS_REFUSED, "field \"%s\" is %s, expected a string", name,
                         json_kind_name(json_kind(value)));
    }
    if (memchr(*string, 0, *n)) {
        return error_set(error, STATUS_REFUSED, "field \"%s\" holds a NUL character", name);
    }
    return STATUS_OK;
}

/* A number as a person writes it: 145.0 is "145". */
static void add_number(Text *out, const Json *value)
{
    int64_t whole;
    if (json_int64(value, &whole)) {
        text_printf(out, "%lld", (long long)whole);
    } else {
        text_add(out, json_number_text(value));
    }
}

/* Append a line of text, each {name} replaced by the field. *empty: it has fields and all of them
 * are empty. */
static Status fill_line(Text *out, bool *empty, const Json *row, const char *text, size_t n,
                        Error *error)
{
    size_t n_fields = 0, n_full = 0;
    for (size_t i = 0; i < n; i++) {
        const char *end = text[i] == '{' ? memchr(text + i, '}', n - i) : NULL;
        if (!end) {
            text_append(out, text + i, 1);
            continue;
        }
        char name[128];
        const char *string;
        size_t n_string;
        snprintf(name, sizeof name, "%.*s", (int)(end - text - (ptrdiff_t)i - 1), text + i + 1);
        const Json *value = json_get(row, name);
        if (json_kind(value) == JSON_NUMBER) {
            add_number(out, value);
            n_full++;
        } else {
            Status status = find_field(&string, &n_string, row, name, error);
            if (status) {
                return status;
            }
            text_append(out, string, n_string);
            n_full += n_string > 0;
        }
        n_fields++;
        i = (size_t)(end - text);
    }
    *empty = n_fields > 0 && n_full == 0;
    return STATUS_OK;
}

/* A text of fields, without the lines whose fields are all empty. */
static Status fill_fields(Text *out, const Json *row, const char *text, Error *error)
{
    size_t start = out->n;
    for (const char *line = text;;) {
        size_t n = strcspn(line, "\n"), before = out->n;
        bool empty;
        text_append(out, "\n", out->n > start);
        Status status = fill_line(out, &empty, row, line, n, error);
        if (status) {
            return status;
        }
        out->n = empty ? before : out->n;
        if (!line[n]) {
            return STATUS_OK;
        }
        line += n + 1;
    }
}

/* field: a name, or a text of {names}. */
static Status read_field(Reader *reader, const Json *row, const char *field, Error *error)
{
    size_t slot = 2 * (size_t)reader->n_rows, start = reader->strings.n;
    if (strchr(field, '{')) {
        Status status = fill_fields(&reader->strings, row, field, error);
        if (status) {
            return status;
        }
    } else {
        const char *string;
        size_t n;
        Status status = find_field(&string, &n, row, field, error);
        if (status) {
            return status;
        }
        text_append(&reader->strings, string, n);
    }
    if (reader->offsets[slot] != SIZE_MAX) {
        slot++;
    }
    reader->offsets[slot] = start;
    reader->lengths[slot] = reader->strings.n - start;
    text_append(&reader->strings, "", 1);
    return STATUS_OK;
}

static void note_id(Reader *reader, const Json *id, int line)
{
    const char *value = json_kind(id) == JSON_STRING   ? json_string(id, NULL)
                        : json_kind(id) == JSON_NUMBER ? json_number_text(id)
                                                       : NULL;
    if (!value) {
        return;
    }
    if (reader->n_ids == reader->id_capacity) {
        reader->id_capacity = reader->id_capacity ? 2 * reader->id_capacity : 256;
        reader->ids = grow(reader->ids, reader->id_capacity, sizeof *reader->ids);
    }
    size_t n = strlen(value);
    char *copy = grow(NULL, n + 2, 1);
    copy[0] = json_kind(id) == JSON_STRING ? 's' : 'n';
    memcpy(copy + 1, value, n + 1);
    reader->ids[reader->n_ids++] = (RowId){copy, line};
}

static Status read_row(Reader *reader, const Json *root, int line, const char *question,
                       const char *answer, Error *error)
{
    if (reader->n_rows == MAX_ROWS) {
        return error_set(error, STATUS_REFUSED, "more than %d rows", MAX_ROWS);
    }
    if (json_kind(root) != JSON_OBJECT) {
        return error_set(error, STATUS_REFUSED, "%s, expected an object",
                         json_kind_name(json_kind(root)));
    }
    if (reader->n_rows == reader->capacity) {
        reader->capacity = reader->capacity ? 2 * reader->capacity : 256;
        size_t rows = (size_t)reader->capacity;
        reader->offsets = grow(reader->offsets, 2 * rows, sizeof *reader->offsets);
        reader->lengths = grow(reader->lengths, 2 * rows, sizeof *reader->lengths);
        reader->lines = grow(reader->lines, rows, sizeof *reader->lines);
    }
    reader->offsets[2 * (size_t)reader->n_rows] = SIZE_MAX;
    reader->lines[reader->n_rows] = line;
    Status status = read_field(reader, root, question, error);
    status = status ? status : read_field(reader, root, answer, error);
    size_t slot = 2 * (size_t)reader->n_rows;
    if (!status && !reader->lengths[slot] && !reader->lengths[slot + 1]) {
        status = error_set(error, STATUS_REFUSED, "an empty row: neither question nor answer");
    }
    if (!status) {
        note_id(reader, json_get(root, "id"), line);
        reader->n_rows++;
    }
    return status;
}

static Status read_line(Reader *reader, const char *bytes, size_t n, int line, const char *question,
                        const char *answer, Error *error)
{
    JsonDocument *document;
    Status status = json_parse(&document, bytes, n, error);
    if (!status) {
        status = read_row(reader, json_root(document), line, question, answer, error);
        json_free(document);
    }
    return status ? error_context(error, status, "line %d", line) : STATUS_OK;
}

/* A file of one array of rows. */
static Status read_array(Reader *reader, const char *bytes, size_t n, const char *question,
                         const char *answer, Error *error)
{
    JsonDocument *document;
    Status status = json_parse(&document, bytes, n, error);
    if (status) {
        return status;
    }
    const Json *root = json_root(document);
    if (json_kind(root) != JSON_ARRAY) {
        status = error_set(error, STATUS_REFUSED,
                           "%s, expected an array of rows (JSON Lines are named *.jsonl)",
                           json_kind_name(json_kind(root)));
    }
    for (size_t i = 0; i < json_size(root) && !status; i++) {
        int line = json_line(json_at(root, i));
        status = read_row(reader, json_at(root, i), line, question, answer, error);
        status = status ? error_context(error, status, "row %zu: line %d", i + 1, line) : status;
    }
    json_free(document);
    return status;
}

static bool is_blank(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != ' ' && bytes[i] != '\t' && bytes[i] != '\r') {
            return false;
        }
    }
    return true;
}

static int compare_ids(const void *a, const void *b)
{
    const RowId *x = a, *y = b;
    int order = strcmp(x->id, y->id);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

/* The duplicate that comes first in the file. */
static Status check_ids(Reader *reader, Error *error)
{
    if (!reader->n_ids) {
        return STATUS_OK;
    }
    qsort(reader->ids, reader->n_ids, sizeof *reader->ids, compare_ids);
    const RowId *worst = NULL;
    int first_line = 0;
    for (size_t i = 1; i < reader->n_ids; i++) {
        const RowId *id = &reader->ids[i];
        if (!strcmp(id->id, id[-1].id) && (!worst || id->line < worst->line)) {
            worst = id;
            first_line = id[-1].line;
        }
    }
    if (worst) {
        return error_set(error, STATUS_REFUSED, "line %d: id \"%.80s\" was already on line %d",
                         worst->line, worst->id + 1, first_line);
    }
    return STATUS_OK;
}

static Status read_lines(Reader *reader, const char *bytes, size_t n, const char *question,
                         const char *answer, Error *error)
{
    size_t start = n >= 3 && !memcmp(bytes, "\xEF\xBB\xBF", 3) ? 3 : 0;
    for (int line = 1; start < n; line++) {
        const char *end = memchr(bytes + start, '\n', n - start);
        size_t length = end ? (size_t)(end - bytes) - start : n - start;
        if (!is_blank(bytes + start, length)) {
            Status status = read_line(reader, bytes + start, length, line, question, answer, error);
            if (status) {
                return status;
            }
        }
        start += length + 1;
    }
    return STATUS_OK;
}

static bool is_array_file(const char *path)
{
    size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".json") == 0;
}

static void reader_release(Reader *reader)
{
    for (size_t i = 0; i < reader->n_ids; i++) {
        free(reader->ids[i].id);
    }
    free(reader->ids);
    free(reader->offsets);
    free(reader->lengths);
    free(reader->lines);
    text_release(&reader->strings);
}

Status dataset_open(Dataset *dataset, const char *path, const char *question, const char *answer,
                    Error *error)
{
    char *bytes = NULL;
    size_t n = 0;
    Reader reader = {0};
    Status status = read_file(&bytes, &n, path, error);
    if (!status) {
        status = (is_array_file(path) ? read_array : read_lines)(&reader, bytes, n, question,
                                                                 answer, error);
    }
    if (!status && !reader.n_rows) {
        status = error_set(error, STATUS_REFUSED, "no rows");
    }
    status = status ? status : check_ids(&reader, error);
    if (!status) {
        *dataset = (Dataset){.n_rows = reader.n_rows, .strings = reader.strings.bytes};
        reader.strings = (Text){0};
        sha256_bytes(dataset->sha256, bytes, n);
        dataset->path = grow(NULL, strlen(path) + 1, 1);
        strcpy(dataset->path, path);
        dataset->rows = grow(NULL, (size_t)reader.n_rows, sizeof *dataset->rows);
        for (int i = 0; i < reader.n_rows; i++) {
            const size_t *offset = reader.offsets + 2 * (size_t)i;
            const size_t *length = reader.lengths + 2 * (size_t)i;
            dataset->rows[i] = (DataRow){.question = dataset->strings + offset[0],
                                         .answer = dataset->strings + offset[1],
                                         .n_question = length[0],
                                         .n_answer = length[1],
                                         .line = reader.lines[i]};
        }
    } else {
        error_context(error, status, "dataset \"%s\"", path);
    }
    free(bytes);
    reader_release(&reader);
    return status;
}

static int compare_texts(const void *a, const void *b)
{
    const DataRow *const *x = a, *const *y = b;
    int order = strcmp((*x)->question, (*y)->question);
    order = order ? order : strcmp((*x)->answer, (*y)->answer);
    return order ? order : ((*x)->line > (*y)->line) - ((*x)->line < (*y)->line);
}

int dataset_twins(const Dataset *dataset, int *line, int *earlier)
{
    int n = dataset->n_rows, twins = 0;
    const DataRow **rows = grow(NULL, (size_t)n, sizeof *rows), *first = NULL;
    for (int i = 0; i < n; i++) {
        rows[i] = &dataset->rows[i];
    }
    qsort(rows, (size_t)n, sizeof *rows, compare_texts);
    for (int i = 1, original = 0; i < n; i++) {
        if (strcmp(rows[i]->question, rows[original]->question) != 0 ||
            strcmp(rows[i]->answer, rows[original]->answer) != 0) {
            original = i;
            continue;
        }
        twins++;
        if (!first || rows[i]->line < first->line) {
            first = rows[i];
            *line = first->line;
            *earlier = rows[original]->line;
        }
    }
    free(rows);
    return twins;
}

int dataset_wordy(const Dataset *dataset, int *line)
{
    int n = 0;
    for (int i = 0; i < dataset->n_rows; i++) {
        if (!strpbrk(dataset->rows[i].answer, "0123456789")) {
            *line = n++ ? *line : dataset->rows[i].line;
        }
    }
    return n;
}

void dataset_close(Dataset *dataset)
{
    free(dataset->path);
    free(dataset->rows);
    free(dataset->strings);
    *dataset = (Dataset){0};
}

/* "... #### -1,234.5" with nothing but white space after the number. */
static bool ends_in_marked_number(const char *answer)
{
    const char *marker = NULL;
    for (const char *at = answer; (at = strstr(at, "####")); at += 4) {
        marker = at;
    }
    if (!marker) {
        return false;
    }
    const char *at = marker + 4;
    at += strspn(at, " \t#");
    at += strspn(at, "-+$");
    size_t digits = strspn(at, "0123456789.,");
    bool any = strpbrk(at, "0123456789") && strpbrk(at, "0123456789") < at + digits;
    at += digits;
    at += strspn(at, " \t\r\n");
    return any && !*at;
}

Status dataset_verify(const char *path, int *n_rows, char sha256[SHA256_HEX_SIZE], Error *error)
{
    Dataset dataset;
    Status status = dataset_open(&dataset, path, "question", "answer", error);
    if (status) {
        return status;
    }
    for (int i = 0; i < dataset.n_rows && !status; i++) {
        const DataRow *row = &dataset.rows[i];
        bool asks = row->n_question > 0;
        if (!asks || !ends_in_marked_number(row->answer)) {
            status =
                error_set(error, STATUS_REFUSED, "dataset \"%s\": line %d: %s", path, row->line,
                          asks ? "the answer does not end in \"####\" and a number, so no "
                                 "completion could be right"
                               : "the question is empty");
        }
    }
    if (n_rows && !status) {
        *n_rows = dataset.n_rows;
    }
    if (sha256 && !status) {
        memcpy(sha256, dataset.sha256, SHA256_HEX_SIZE);
    }
    dataset_close(&dataset);
    return status;
}
