/* GGUF files, versions 2 and 3, little-endian, memory-mapped read-only: a list of typed values
 * under keys, then tensors (ggml/docs/gguf.md). Checked by every rule of the format before a byte
 * of data is used; this header knows nothing of models. Everything points into the file's bytes. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/safetensors.h"
#include "core/status.h"

enum {
    GGUF_VERSION = 3,           /* what is written; 2 has the same layout */
    GGUF_ALIGNMENT = 32,        /* of tensors, unless general.alignment says otherwise */
    GGUF_NAME_MAX = 64,         /* of a tensor, with its NUL */
    GGUF_MAX_STRING = 16 << 20, /* bytes */
    GGUF_MAX_COUNT = 65536      /* of values, and of tensors */
};

/* Numbers of the format. */
typedef enum {
    GGUF_UINT8,
    GGUF_INT8,
    GGUF_UINT16,
    GGUF_INT16,
    GGUF_UINT32,
    GGUF_INT32,
    GGUF_FLOAT32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_UINT64,
    GGUF_INT64,
    GGUF_FLOAT64,
    N_GGUF_KINDS
} GgufKind;

/* Numbers that ggml gives the types of tensors that are weights here. */
enum {
    GGUF_TENSOR_F32 = 0,
    GGUF_TENSOR_F16 = 1,
    GGUF_TENSOR_Q4_0 = 2,
    GGUF_TENSOR_Q5_0 = 6,
    GGUF_TENSOR_Q8_0 = 8,
    GGUF_TENSOR_Q4_K = 12,
    GGUF_TENSOR_Q6_K = 14,
    GGUF_TENSOR_BF16 = 30
};

typedef struct {
    const char *key; /* (n_key) bytes of the file, no NUL after */
    size_t n_key;
    bool is_array;
    GgufKind kind;             /* of an array: of its elements; never GGUF_ARRAY */
    size_t n;                  /* elements; 1 for a value that is no array */
    const unsigned char *data; /* the first element, at any alignment */
} GgufValue;

typedef struct {
    const char *bytes; /* UTF-8, no NUL after; may hold NULs */
    size_t n;
} GgufString;

typedef struct Gguf Gguf;

/* Errors: STATUS_REFUSED naming the file, the place and the rule; STATUS_FAILED when it cannot be
 * read. */
Status gguf_open(Gguf **gguf, const char *path, Error *error);
/* The same of bytes in memory, which stay the caller's. */
Status gguf_parse(Gguf **gguf, const void *bytes, size_t n, Error *error);
void gguf_close(Gguf *gguf);
/* Its name ends in .gguf, or it is a file that begins as one. */
bool gguf_is(const char *path);

/* The whole file. */
const void *gguf_bytes(const Gguf *gguf, size_t *n);
/* The values as they lie in the file: all bytes from the first key to the first tensor's name. */
const void *gguf_value_bytes(const Gguf *gguf, size_t *n);
size_t gguf_alignment(const Gguf *gguf);

size_t gguf_n_values(const Gguf *gguf);
const GgufValue *gguf_value(const Gguf *gguf, size_t i);
const GgufValue *gguf_find(const Gguf *gguf, const char *key); /* NULL when absent */
/* Bytes of one value, or of an element; 0 for a string and an array, which say it themselves. */
size_t gguf_kind_size(GgufKind kind);
/* "u32", "array of string": for messages. value may be NULL: "missing". */
const char *gguf_kind_name(const GgufValue *value);
/* false, nothing written, when the value is missing or of another kind (an array is). Integers of
 * any width are one kind, floats of either width another. */
bool gguf_integer(const GgufValue *value, int64_t *out);
bool gguf_float(const GgufValue *value, double *out);
bool gguf_bool(const GgufValue *value, bool *out);
bool gguf_string(const GgufValue *value, GgufString *out);
/* Element i of an array of integers or floats. */
bool gguf_integer_at(const GgufValue *array, size_t i, int64_t *out);
bool gguf_float_at(const GgufValue *array, size_t i, double *out);
/* The strings of an array one after another. false after the last, or for another kind. */
typedef struct {
    size_t i, at; /* zero at first */
} GgufCursor;
bool gguf_next_string(const GgufValue *array, GgufCursor *cursor, GgufString *out);

/* In order of offset. dims are as safetensors has them, the slowest first: (out, in). Types of ggml
 * that are no weights here are TENSOR_OTHER, with their name. */
size_t gguf_n_tensors(const Gguf *gguf);
const Tensor *gguf_tensor(const Gguf *gguf, size_t i);
