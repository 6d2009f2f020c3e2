/* Strict JSON, read once into a tree that does not change (RFC 8259, JSONTestSuite): UTF-8, full
 * grammar, no trailing bytes, no duplicate keys, no byte order mark, depth <= 64, integers kept as
 * text and read exactly. Look-up by key is case-sensitive and hashed. A parser of our own: cJSON
 * needs a check of the whole grammar before it, and an index after it, so that nothing of it is
 * left to use. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/sha256.h"
#include "core/status.h"
#include "core/text.h"

typedef enum {
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
} JsonKind;

typedef struct JsonDocument JsonDocument;
typedef struct Json Json; /* a value inside a document; lives as long as it */

/* text: (n) bytes, need not end in NUL. Errors: STATUS_REFUSED with line, column and the rule. */
Status json_parse(JsonDocument **document, const char *text, size_t n, Error *error);
/* Reads a whole file of at most max_bytes. Message starts with the path. */
Status json_read(JsonDocument **document, const char *path, size_t max_bytes, Error *error);
/* The grammar alone, of a whole file: a key that is there twice is no error. sha256: of the bytes
 * that were parsed. */
Status json_check(char sha256[SHA256_HEX_SIZE], const char *path, size_t max_bytes, Error *error);
void json_free(JsonDocument *document);
const Json *json_root(const JsonDocument *document);
/* Of the bytes that were parsed, in hex, where json_read read them; else "". */
const char *json_sha256(const JsonDocument *document);

JsonKind json_kind(const Json *value); /* value may be NULL: JSON_NULL */
const char *json_kind_name(JsonKind kind);
size_t json_size(const Json *value);                       /* members or elements; 0 for scalars */
const Json *json_get(const Json *object, const char *key); /* NULL when absent or not an object */
const Json *json_at(const Json *value, size_t i); /* i-th element or member, in the file's order */
/* i-th key, NUL-terminated. A U+0000 in a key is kept as the bytes C0 80, which no valid UTF-8
 * holds: such a key equals no other and cannot be mistaken for the part before it. */
const char *json_key(const Json *object, size_t i);
/* NULL when not a string. n may be NULL: then a string with a U+0000 in it, which would be taken
 * for the part before it, is NULL too. */
const char *json_string(const Json *value, size_t *n);
const char *json_number_text(const Json *value); /* as written in the file */
/* false unless exactly an integer that fits; 4.0 and 1e3 count */
bool json_int64(const Json *value, int64_t *out);
bool json_double(const Json *value, double *out); /* false when not a finite number */
bool json_bool(const Json *value, bool *out);
int json_line(const Json *value); /* 1-based line where the value starts, for messages; 0 unknown */
/* Append the value as JSON on one line, numbers as they were written. */
void json_write(const Json *value, Text *out);
