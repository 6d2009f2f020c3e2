/* The values of a GGUF file as numbers and strings. */
#include <string.h>

#include "core/gguf.h"

static const struct {
    const char *name, *array;
    size_t size; /* bytes of an element; 0: as each says */
} kinds[N_GGUF_KINDS] = {
    [GGUF_UINT8] = {"u8", "array of u8", 1},          [GGUF_INT8] = {"i8", "array of i8", 1},
    [GGUF_UINT16] = {"u16", "array of u16", 2},       [GGUF_INT16] = {"i16", "array of i16", 2},
    [GGUF_UINT32] = {"u32", "array of u32", 4},       [GGUF_INT32] = {"i32", "array of i32", 4},
    [GGUF_FLOAT32] = {"f32", "array of f32", 4},      [GGUF_BOOL] = {"bool", "array of bool", 1},
    [GGUF_STRING] = {"string", "array of string", 0}, [GGUF_ARRAY] = {"array", "array of array", 0},
    [GGUF_UINT64] = {"u64", "array of u64", 8},       [GGUF_INT64] = {"i64", "array of i64", 8},
    [GGUF_FLOAT64] = {"f64", "array of f64", 8},
};

size_t gguf_kind_size(GgufKind kind)
{
    return kinds[kind].size;
}

const char *gguf_kind_name(const GgufValue *value)
{
    return !value            ? "missing"
           : value->is_array ? kinds[value->kind].array
                             : kinds[value->kind].name;
}

bool gguf_integer_at(const GgufValue *value, size_t i, int64_t *out)
{
    if (!value || i >= value->n) {
        return false;
    }
    const unsigned char *data = value->data + i * kinds[value->kind].size;
    uint64_t bits = 0;
    memcpy(&bits, data, kinds[value->kind].size);
    switch (value->kind) {
    case GGUF_UINT8:
    case GGUF_UINT16:
    case GGUF_UINT32:
        *out = (int64_t)bits;
        return true;
    case GGUF_UINT64:
        if (bits <= INT64_MAX) {
            *out = (int64_t)bits;
        }
        return bits <= INT64_MAX;
    case GGUF_INT8:
        *out = (int8_t)bits; /* NOLINT(bugprone-signed-char-misuse,cert-str34-c): a number */
        return true;
    case GGUF_INT16:
        *out = (int16_t)bits;
        return true;
    case GGUF_INT32:
        *out = (int32_t)bits;
        return true;
    case GGUF_INT64:
        *out = (int64_t)bits;
        return true;
    default:
        return false;
    }
}

bool gguf_float_at(const GgufValue *value, size_t i, double *out)
{
    if (!value || i >= value->n) {
        return false;
    }
    if (value->kind == GGUF_FLOAT32) {
        float narrow;
        memcpy(&narrow, value->data + i * sizeof narrow, sizeof narrow);
        *out = (double)narrow;
        return true;
    }
    if (value->kind == GGUF_FLOAT64) {
        memcpy(out, value->data + i * sizeof *out, sizeof *out);
        return true;
    }
    return false;
}

bool gguf_integer(const GgufValue *value, int64_t *out)
{
    return value && !value->is_array && gguf_integer_at(value, 0, out);
}

bool gguf_float(const GgufValue *value, double *out)
{
    return value && !value->is_array && gguf_float_at(value, 0, out);
}

bool gguf_bool(const GgufValue *value, bool *out)
{
    if (!value || value->is_array || value->kind != GGUF_BOOL) {
        return false;
    }
    *out = *value->data;
    return true;
}

static GgufString string_at(const unsigned char *data)
{
    uint64_t n;
    memcpy(&n, data, sizeof n);
    return (GgufString){(const char *)data + sizeof n, (size_t)n};
}

bool gguf_string(const GgufValue *value, GgufString *out)
{
    if (!value || value->is_array || value->kind != GGUF_STRING) {
        return false;
    }
    *out = string_at(value->data);
    return true;
}

bool gguf_next_string(const GgufValue *array, GgufCursor *cursor, GgufString *out)
{
    if (!array || !array->is_array || array->kind != GGUF_STRING || cursor->i >= array->n) {
        return false;
    }
    *out = string_at(array->data + cursor->at);
    cursor->at += sizeof(uint64_t) + out->n;
    cursor->i++;
    return true;
}
