/* Texts from a file: one a line, raw, or a JSON string, or an object with a "text". */
#pragma once
#include <stddef.h>

#include "core/status.h"

typedef struct {
    char *bytes; /* NUL-terminated */
    size_t n;
    int line;
} InputText;

/* texts: (n) malloc'ed, released by texts_free. path "-": standard input. A line that starts with {
 * or " is JSON; a last line without newline counts; an empty line is an empty text. Errors:
 * STATUS_REFUSED naming file and line. */
Status texts_read(InputText **texts, size_t *n, const char *path, Error *error);
void texts_free(InputText *texts, size_t n);
