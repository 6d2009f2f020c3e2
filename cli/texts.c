/* One pass over the lines of a file. */
#include "cli/texts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/text.h"

static const size_t LARGEST_FILE = (size_t)1 << 31;

static Status read_stdin(char **bytes, size_t *n, Error *error)
{
    Text all = {0};
    char block[65536];
    size_t got;
    while ((got = fread(block, 1, sizeof block, stdin)) > 0 && all.n < LARGEST_FILE) {
        text_append(&all, block, got);
    }
    text_append(&all, "", 0);
    *bytes = all.bytes;
    *n = all.n;
    return all.n < LARGEST_FILE ? STATUS_OK
                                : error_set(error, STATUS_REFUSED, "standard input: over 2 GiB");
}

static char *copy(const char *bytes, size_t n)
{
    char *out = malloc(n + 1);
    if (out) {
        memcpy(out, bytes, n);
        out[n] = 0;
    }
    return out;
}

static Status read_line(InputText *text, const char *bytes, size_t n, const char *path,
                        Error *error)
{
    JsonDocument *document = NULL;
    Status status = STATUS_OK;
    text->n = n;
    if (n == 0 || (bytes[0] != '{' && bytes[0] != '"')) {
        text->bytes = copy(bytes, n);
    } else {
        status = json_parse(&document, bytes, n, error);
        const Json *root = status ? NULL : json_root(document);
        const Json *value = json_kind(root) == JSON_OBJECT ? json_get(root, "text") : root;
        const char *string = json_string(value, &text->n);
        if (!status && !string) {
            status = error_set(error, STATUS_REFUSED, "no \"text\" that is a string");
        }
        text->bytes = status ? NULL : copy(string, text->n);
    }
    json_free(document);
    if (!status && !text->bytes) {
        status = error_set(error, STATUS_FAILED, "out of memory");
    }
    return status ? error_context(error, status, "\"%s\" line %d", path, text->line) : STATUS_OK;
}

Status texts_read(InputText **texts_out, size_t *n_out, const char *path, Error *error)
{
    char *bytes = NULL;
    size_t n_bytes = 0, n = 0;
    Status status = strcmp(path, "-") == 0 ? read_stdin(&bytes, &n_bytes, error)
                                           : file_read(&bytes, &n_bytes, path, LARGEST_FILE, error);
    if (status) {
        free(bytes);
        return status;
    }
    size_t n_lines = 1;
    for (size_t i = 0; i < n_bytes; i++) {
        n_lines += bytes[i] == '\n';
    }
    InputText *texts = calloc(n_lines, sizeof *texts);
    if (!texts) {
        free(bytes);
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    for (size_t begin = 0; begin < n_bytes && !status;) {
        const char *newline = memchr(bytes + begin, '\n', n_bytes - begin);
        size_t end = newline ? (size_t)(newline - bytes) : n_bytes;
        size_t length = end - begin;
        length -= length > 0 && bytes[end - 1] == '\r';
        texts[n].line = (int)n + 1;
        status = read_line(&texts[n], bytes + begin, length, path, error);
        n++;
        begin = end + 1;
    }
    free(bytes);
    if (status) {
        texts_free(texts, n);
        return status;
    }
    *texts_out = texts;
    *n_out = n;
    return STATUS_OK;
}

void texts_free(InputText *texts, size_t n)
{
    for (size_t i = 0; texts && i < n; i++) {
        free(texts[i].bytes);
    }
    free(texts);
}
