/* One page a line, parsed by core/json; a visitor gets the strings of each page in order. */
#include "rl/corpus.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"

#define MAX_CORPUS_BYTES ((size_t)1 << 30)

/* One string of a page; the last of a page has more == 0. */
typedef struct {
    Status (*part)(void *context, const char *bytes, size_t n, bool is_answer, Error *error);
    Status (*page_end)(void *context, Error *error); /* may be NULL */
    void *context;
} Visitor;

static Status visit_page(const Visitor *visitor, const char *line, size_t n, Error *error)
{
    JsonDocument *document;
    Status status = json_parse(&document, line, n, error);
    if (status != STATUS_OK) {
        return status;
    }
    const Json *root = json_root(document), *page = json_get(root, "page");
    size_t n_parts = json_size(page);
    if (json_kind(page) != JSON_ARRAY || json_size(root) != 1) {
        status = error_set(error, STATUS_REFUSED,
                           "expected an object with one key \"page\", an "
                           "array of strings");
    } else if (n_parts == 0 || n_parts % 2) {
        status = error_set(error, STATUS_REFUSED,
                           "page of %zu strings, expected question, answer, question, answer ...",
                           n_parts);
    }
    for (size_t i = 0; i < n_parts && status == STATUS_OK; i++) {
        size_t n_bytes;
        const char *string = json_string(json_at(page, i), &n_bytes);
        status = string ? visitor->part(visitor->context, string, n_bytes, i % 2 == 1, error)
                        : error_set(error, STATUS_REFUSED, "page[%zu] is %s, expected a string", i,
                                    json_kind_name(json_kind(json_at(page, i))));
    }
    if (status == STATUS_OK && visitor->page_end) {
        status = visitor->page_end(visitor->context, error);
    }
    json_free(document);
    return status;
}

static Status visit_lines(const Visitor *visitor, const char *bytes, size_t n, const char *path,
                          Error *error)
{
    const char *end = bytes + n;
    int line = 1;
    for (const char *at = bytes; at < end; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((newline ? newline : end) - at);
        Status status = length ? visit_page(visitor, at, length, error) : STATUS_OK;
        if (status != STATUS_OK) {
            return error_context(error, status, "%s, line %d", path, line);
        }
        at += length + 1;
    }
    return STATUS_OK;
}

typedef struct {
    Corpus *corpus;
    const Tokenizer *tokenizer;
    TokenList ids;
    size_t weight_capacity, page_capacity;
    int32_t eos_id;
    float question_weight;
    int max_tokens;
} Reader;

static Status reserve(Reader *reader, Error *error)
{
    Corpus *corpus = reader->corpus;
    if (reader->ids.n > reader->weight_capacity) {
        reader->weight_capacity = 2 * reader->ids.n;
        float *bigger = realloc(corpus->weights, reader->weight_capacity * sizeof *bigger);
        if (!bigger) {
            return error_set(error, STATUS_FAILED, "no memory");
        }
        corpus->weights = bigger;
    }
    if ((size_t)corpus->n_pages + 2 > reader->page_capacity) {
        reader->page_capacity = 2 * ((size_t)corpus->n_pages + 2);
        size_t *bigger = realloc(corpus->first, reader->page_capacity * sizeof *bigger);
        if (!bigger) {
            return error_set(error, STATUS_FAILED, "no memory");
        }
        corpus->first = bigger;
    }
    return STATUS_OK;
}

static Status read_part(void *context, const char *bytes, size_t n, bool is_answer, Error *error)
{
    Reader *reader = context;
    size_t before = reader->ids.n;
    Status status = tokenizer_encode(reader->tokenizer, bytes, n, 0, &reader->ids, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (is_answer) {
        token_list_add(&reader->ids, reader->eos_id);
    }
    status = reserve(reader, error);
    for (size_t i = before; i < reader->ids.n && status == STATUS_OK; i++) {
        reader->corpus->weights[i] = is_answer ? 1 : reader->question_weight;
    }
    return status;
}

static Status read_page_end(void *context, Error *error)
{
    Reader *reader = context;
    Corpus *corpus = reader->corpus;
    size_t start = corpus->n_pages ? corpus->first[corpus->n_pages] : 0;
    size_t n = reader->ids.n - start;
    if (n > (size_t)reader->max_tokens) {
        return error_set(error, STATUS_REFUSED, "page of %zu tokens, the model's context is %d", n,
                         reader->max_tokens);
    }
    if (corpus->n_pages == INT_MAX - 2) {
        return error_set(error, STATUS_REFUSED, "too many pages");
    }
    corpus->first[0] = 0;
    corpus->first[++corpus->n_pages] = reader->ids.n;
    return STATUS_OK;
}

Status corpus_open(Corpus *corpus, const char *path, const Tokenizer *tokenizer, int32_t eos_id,
                   double question_weight, int max_tokens, Error *error)
{
    char *bytes;
    size_t n;
    *corpus = (Corpus){0};
    Status status = file_read(&bytes, &n, path, MAX_CORPUS_BYTES, error);
    if (status != STATUS_OK) {
        return status;
    }
    sha256_bytes(corpus->sha256, bytes, n);
    Reader reader = {.corpus = corpus,
                     .tokenizer = tokenizer,
                     .eos_id = eos_id,
                     .question_weight = (float)question_weight,
                     .max_tokens = max_tokens};
    Visitor visitor = {read_part, read_page_end, &reader};
    status = visit_lines(&visitor, bytes, n, path, error);
    free(bytes);
    corpus->ids = reader.ids.ids;
    if (status == STATUS_OK && corpus->n_pages == 0) {
        status = error_set(error, STATUS_REFUSED, "%s: no pages", path);
    }
    if (status != STATUS_OK) {
        corpus_close(corpus);
    }
    return status;
}

void corpus_close(Corpus *corpus)
{
    free(corpus->first);
    free(corpus->ids);
    free(corpus->weights);
    *corpus = (Corpus){0};
}

static Status add_part(void *context, const char *bytes, size_t n, bool is_answer, Error *error)
{
    (void)is_answer, (void)error;
    text_append(context, bytes, n);
    return STATUS_OK;
}

Status corpus_text(Text *text, const char *path, Error *error)
{
    char *bytes;
    size_t n;
    Status status = file_read(&bytes, &n, path, MAX_CORPUS_BYTES, error);
    if (status != STATUS_OK) {
        return status;
    }
    Visitor visitor = {add_part, NULL, text};
    status = visit_lines(&visitor, bytes, n, path, error);
    free(bytes);
    return status;
}
