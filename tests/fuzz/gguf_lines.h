/* A GGUF file out of lines of text, so that what is tried are values rather than lengths. Fields
 * have tabs between them:
 *   KEY KIND VALUE            kinds are the numbers of GgufKind
 *   KEY 9 KIND ELEMENT ...    an element "*N VALUE" is N of them, of strings "*256 b" and "*256 h"
 *                             the tokens of all bytes, as characters and as <0x00> ...
 *   = NAME TYPE [DIM ...] [: NUMBER ...]   a tensor, dims the fastest first; its data are the
 *                                          numbers as F32, again and again, else zeros */
#pragma once
#include <stdlib.h>

#include "tests/fuzz/byte_token.h"
#include "tests/gguf_file.h"

enum { GGUF_LINES_DATA = 1 << 15 }; /* bytes of tensors; what is over lacks */

static inline void put_number(Text *out, unsigned kind, const char *field)
{
    static const unsigned char sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    float narrow = strtof(field, NULL);
    double wide = strtod(field, NULL);
    long long integer = strtoll(field, NULL, 10);
    const void *from = kind == GGUF_FLOAT32   ? (const void *)&narrow
                       : kind == GGUF_FLOAT64 ? (const void *)&wide
                                              : (const void *)&integer;
    put_bytes(out, from, kind < sizeof sizes ? sizes[kind] : 0);
}

static inline void put_element(Text *out, unsigned kind, const char *field)
{
    if (kind == GGUF_STRING) {
        put_string(out, field, strlen(field));
    } else {
        put_number(out, kind, field);
    }
}

/* How many it was. */
static inline size_t put_elements(Text *out, unsigned kind, const char *field)
{
    char *value, token[8];
    size_t n = *field == '*' ? strtoul(field + 1, &value, 10) : 0;
    if (n == 0 || n > 512 || *value != ' ') {
        put_element(out, kind, field);
        return 1;
    }
    for (unsigned i = 0; i < n; i++) {
        if (kind == GGUF_STRING && (value[1] == 'b' || value[1] == 'h')) {
            put_string(out, token, byte_token(token, i & 255, value[1] == 'h'));
        } else {
            put_element(out, kind, value + 1);
        }
    }
    return n;
}

static inline void put_value_line(GgufFile *file, char *line)
{
    char *rest = line, *key = strsep(&rest, "\t"), *kind = strsep(&rest, "\t");
    unsigned number = kind ? (unsigned)strtoul(kind, NULL, 10) : GGUF_STRING;
    put_string(&file->values, key, strlen(key));
    put_u32(&file->values, number);
    file->n_values++;
    if (number != GGUF_ARRAY) {
        put_element(&file->values, number, rest ? rest : "");
        return;
    }
    char *inside = strsep(&rest, "\t");
    number = inside ? (unsigned)strtoul(inside, NULL, 10) : GGUF_STRING;
    Text elements = {0};
    size_t n = 0;
    while (rest) {
        n += put_elements(&elements, number, strsep(&rest, "\t"));
    }
    put_u32(&file->values, number);
    put_u64(&file->values, n);
    put_bytes(&file->values, text_string(&elements), elements.n);
    text_release(&elements);
}

static inline void put_tensor_line(GgufFile *file, char *line)
{
    /* Elements and bytes of a block, by type; others are tried as F32. */
    static const unsigned char blocks[][2] = {
        [GGUF_TENSOR_F16] = {1, 2},    [GGUF_TENSOR_Q4_0] = {32, 18}, [GGUF_TENSOR_Q8_0] = {32, 34},
        [GGUF_TENSOR_Q4_K] = {0, 144}, [GGUF_TENSOR_Q6_K] = {0, 210}, [GGUF_TENSOR_BF16] = {1, 2}};
    char *rest = line, *name = strsep(&rest, "\t"), *type = strsep(&rest, "\t"), *field;
    unsigned number = type ? (unsigned)strtoul(type, NULL, 10) : 0;
    size_t n = 1, block = 1, bytes = 4;
    uint32_t n_dims = 0;
    Text dims = {0}, data = {0};
    while ((field = strsep(&rest, "\t")) && *field != ':') {
        uint64_t dim = strtoull(field, NULL, 10);
        put_u64(&dims, dim);
        n_dims++;
        n = __builtin_mul_overflow(n, (size_t)dim, &n) ? SIZE_MAX / 512 : n;
    }
    if (number < sizeof blocks / sizeof *blocks && blocks[number][1]) {
        block = blocks[number][0] ? blocks[number][0] : 256;
        bytes = blocks[number][1];
    }
    n = n / block < GGUF_LINES_DATA ? n / block * bytes : GGUF_LINES_DATA;
    size_t left = file->data.n < GGUF_LINES_DATA ? GGUF_LINES_DATA - file->data.n : 0;
    put_string(&file->tensors, name, strlen(name));
    put_u32(&file->tensors, n_dims);
    put_bytes(&file->tensors, text_string(&dims), dims.n);
    put_u32(&file->tensors, number);
    put_u64(&file->tensors, file->offset);
    file->n_tensors++;
    file->offset = gguf_padded(file->offset + n, GGUF_ALIGNMENT);
    while (rest) {
        put_number(&data, GGUF_FLOAT32, strsep(&rest, "\t"));
    }
    if (data.n == 0) {
        static const char zeros[256];
        put_bytes(&data, zeros, sizeof zeros);
    }
    for (size_t at = 0; at < n && at < left; at += data.n) {
        put_bytes(&file->data, data.bytes, data.n < n - at ? data.n : n - at);
    }
    gguf_add_padding(&file->data, GGUF_ALIGNMENT);
    text_release(&dims);
    text_release(&data);
}

/* The file into out. */
static inline void gguf_of_lines(Text *out, const uint8_t *bytes, size_t n)
{
    GgufFile file = {0};
    char *copy = malloc(n + 1);
    if (!copy) {
        abort();
    }
    memcpy(copy, bytes, n);
    copy[n] = 0;
    for (char *rest = copy, *line; (line = strsep(&rest, "\n")) != NULL;) {
        if (strncmp(line, "=\t", 2) == 0) {
            put_tensor_line(&file, line + 2);
        } else if (*line) {
            put_value_line(&file, line);
        }
    }
    free(copy);
    file_finish(&file, out);
}
