/* The reader of the format. What the rules are for is in the order of the file: every length is
 * held against the bytes that are left before it is used, every product and sum is checked, types
 * are numbers until they are found in a table, and memory is asked for by counts that the file's
 * own size bounds. */
#include "core/gguf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/file.h"
#include "core/unicode.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF is little-endian");

enum {
    MIN_VALUE = 13,  /* bytes of the shortest: key length, type, one byte */
    MIN_TENSOR = 32, /* name length, dimensions, one of them, type, offset */
    MAX_KEY = 65535,
    MAX_DIMS = 4
};
static const uint64_t MAX_ALIGNMENT = 1 << 20;

struct Gguf {
    const unsigned char *bytes;
    size_t n_bytes;
    void *mapping; /* NULL when the bytes are the caller's */
    GgufValue *values;
    const GgufValue **by_key;
    size_t n_values;
    size_t values_from, values_to; /* in bytes */
    Tensor *tensors;
    char (*names)[GGUF_NAME_MAX];
    size_t n_tensors;
    size_t alignment;
};

/* ---- types ----------------------------------------------------------------------------------- */

/* All types of tensors that ggml has now: elements and bytes of a block. */
static const struct {
    const char *name; /* NULL: a number that is not in use */
    size_t block, bytes;
    TensorType type;
} tensor_types[] = {
    [GGUF_TENSOR_F32] = {"F32", 1, 4, TENSOR_F32},
    [GGUF_TENSOR_F16] = {"F16", 1, 2, TENSOR_F16},
    [GGUF_TENSOR_Q4_0] = {"Q4_0", 32, 18, TENSOR_Q4_0},
    [3] = {"Q4_1", 32, 20, TENSOR_OTHER},
    [GGUF_TENSOR_Q5_0] = {"Q5_0", 32, 22, TENSOR_Q5_0},
    [7] = {"Q5_1", 32, 24, TENSOR_OTHER},
    [GGUF_TENSOR_Q8_0] = {"Q8_0", 32, 34, TENSOR_Q8_0},
    [9] = {"Q8_1", 32, 40, TENSOR_OTHER},
    [10] = {"Q2_K", 256, 84, TENSOR_OTHER},
    [11] = {"Q3_K", 256, 110, TENSOR_OTHER},
    [GGUF_TENSOR_Q4_K] = {"Q4_K", 256, 144, TENSOR_Q4_K},
    [13] = {"Q5_K", 256, 176, TENSOR_OTHER},
    [GGUF_TENSOR_Q6_K] = {"Q6_K", 256, 210, TENSOR_Q6_K},
    [15] = {"Q8_K", 256, 292, TENSOR_OTHER},
    [16] = {"IQ2_XXS", 256, 66, TENSOR_OTHER},
    [17] = {"IQ2_XS", 256, 74, TENSOR_OTHER},
    [18] = {"IQ3_XXS", 256, 98, TENSOR_OTHER},
    [19] = {"IQ1_S", 256, 50, TENSOR_OTHER},
    [20] = {"IQ4_NL", 32, 18, TENSOR_OTHER},
    [21] = {"IQ3_S", 256, 110, TENSOR_OTHER},
    [22] = {"IQ2_S", 256, 82, TENSOR_OTHER},
    [23] = {"IQ4_XS", 256, 136, TENSOR_OTHER},
    [24] = {"I8", 1, 1, TENSOR_OTHER},
    [25] = {"I16", 1, 2, TENSOR_OTHER},
    [26] = {"I32", 1, 4, TENSOR_OTHER},
    [27] = {"I64", 1, 8, TENSOR_OTHER},
    [28] = {"F64", 1, 8, TENSOR_OTHER},
    [29] = {"IQ1_M", 256, 56, TENSOR_OTHER},
    [GGUF_TENSOR_BF16] = {"BF16", 1, 2, TENSOR_BF16},
    [34] = {"TQ1_0", 256, 54, TENSOR_OTHER},
    [35] = {"TQ2_0", 256, 66, TENSOR_OTHER},
    [39] = {"MXFP4", 32, 17, TENSOR_OTHER},
    [40] = {"NVFP4", 64, 36, TENSOR_OTHER},
};

/* ---- bytes one after another ----------------------------------------------------------------- */

typedef struct {
    const unsigned char *bytes;
    size_t n, at;
} Reader;

static size_t left(const Reader *reader)
{
    return reader->n - reader->at;
}

static bool read_u32(Reader *reader, uint32_t *out)
{
    if (left(reader) < sizeof *out) {
        return false;
    }
    memcpy(out, reader->bytes + reader->at, sizeof *out);
    reader->at += sizeof *out;
    return true;
}

static bool read_u64(Reader *reader, uint64_t *out)
{
    if (left(reader) < sizeof *out) {
        return false;
    }
    memcpy(out, reader->bytes + reader->at, sizeof *out);
    reader->at += sizeof *out;
    return true;
}

static Status cut(const char *what, Error *error)
{
    return error_set(error, STATUS_REFUSED, "the file ends inside %s", what);
}

/* A length and so many bytes. what: "the key". */
static Status read_bytes(Reader *reader, GgufString *out, size_t most, const char *what,
                         Error *error)
{
    uint64_t n;
    if (!read_u64(reader, &n)) {
        return cut(what, error);
    }
    if (n > most) {
        return error_set(error, STATUS_REFUSED, "%s has %llu bytes, at most %zu are read", what,
                         (unsigned long long)n, most);
    }
    if (n > left(reader)) {
        return error_set(error, STATUS_REFUSED,
                         "%s has %llu bytes and reaches beyond the end of the file", what,
                         (unsigned long long)n);
    }
    *out = (GgufString){(const char *)reader->bytes + reader->at, (size_t)n};
    reader->at += (size_t)n;
    return STATUS_OK;
}

static Status read_text(Reader *reader, GgufString *out, Error *error)
{
    Status status = read_bytes(reader, out, GGUF_MAX_STRING, "a string", error);
    if (!status && utf8_valid_prefix(out->bytes, out->n) < out->n) {
        status = error_set(error, STATUS_REFUSED, "a string is not UTF-8");
    }
    return status;
}

/* ---- values ---------------------------------------------------------------------------------- */

static bool is_key(GgufString key)
{
    for (size_t i = 0; i < key.n; i++) {
        char c = key.bytes[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9') && c != '_' && c != '.' && c != '-') {
            return false;
        }
    }
    return key.n > 0;
}

static Status read_kind(Reader *reader, GgufKind *kind, Error *error)
{
    uint32_t number;
    if (!read_u32(reader, &number)) {
        return cut("a value", error);
    }
    if (number >= N_GGUF_KINDS) {
        return error_set(error, STATUS_REFUSED, "type %u is unknown", (unsigned)number);
    }
    *kind = (GgufKind)number;
    return STATUS_OK;
}

static Status read_count(Reader *reader, GgufValue *value, Error *error)
{
    uint64_t n = 0;
    Status status = read_kind(reader, &value->kind, error);
    if (!status && value->kind == GGUF_ARRAY) {
        status = error_set(error, STATUS_REFUSED, "an array of arrays is not read");
    }
    if (!status && !read_u64(reader, &n)) {
        status = cut("an array", error);
    }
    if (status) {
        return status;
    }
    size_t least = value->kind == GGUF_STRING ? sizeof(uint64_t) : gguf_kind_size(value->kind);
    if (n > left(reader) / least) {
        return error_set(error, STATUS_REFUSED,
                         "an array of %llu elements reaches beyond the end of the file",
                         (unsigned long long)n);
    }
    value->is_array = true;
    value->n = (size_t)n;
    return STATUS_OK;
}

static Status read_elements(Reader *reader, GgufValue *value, Error *error)
{
    value->data = reader->bytes + reader->at;
    if (value->kind == GGUF_STRING) {
        GgufString string;
        Status status = STATUS_OK;
        for (size_t i = 0; i < value->n && !status; i++) {
            status = read_text(reader, &string, error);
        }
        return status;
    }
    size_t size = gguf_kind_size(value->kind);
    if (value->n > left(reader) / size) {
        return cut("a value", error);
    }
    for (size_t i = 0; i < value->n && value->kind == GGUF_BOOL; i++) {
        if (value->data[i] > 1) {
            return error_set(error, STATUS_REFUSED, "a bool is %u", value->data[i]);
        }
    }
    reader->at += value->n * size;
    return STATUS_OK;
}

static Status read_value(Reader *reader, GgufValue *value, Error *error)
{
    GgufString key;
    Status status = read_bytes(reader, &key, MAX_KEY, "the key", error);
    if (!status && !is_key(key)) {
        status = error_set(error, STATUS_REFUSED,
                           "the key is empty or has other characters than letters, digits, _ . -");
    }
    if (status) {
        return status;
    }
    *value = (GgufValue){.key = key.bytes, .n_key = key.n, .n = 1};
    status = read_kind(reader, &value->kind, error);
    if (!status && value->kind == GGUF_ARRAY) {
        status = read_count(reader, value, error);
    }
    status = status ? status : read_elements(reader, value, error);
    return status ? error_context(error, status, "\"%.*s\"", (int)(key.n < 200 ? key.n : 200),
                                  key.bytes)
                  : STATUS_OK;
}

static int compare_keys(const char *a, size_t n_a, const char *b, size_t n_b)
{
    int order = memcmp(a, b, n_a < n_b ? n_a : n_b);
    return order ? order : (n_a > n_b) - (n_a < n_b);
}

static int by_key(const void *a, const void *b)
{
    const GgufValue *x = *(const GgufValue *const *)a, *y = *(const GgufValue *const *)b;
    return compare_keys(x->key, x->n_key, y->key, y->n_key);
}

static Status read_values(Gguf *gguf, Reader *reader, Error *error)
{
    size_t n = gguf->n_values;
    gguf->values = calloc(n + 1, sizeof *gguf->values);
    gguf->by_key = calloc(n + 1, sizeof *gguf->by_key);
    if (!gguf->values || !gguf->by_key) {
        return error_set(error, STATUS_FAILED, "no memory for %zu values", n);
    }
    gguf->values_from = reader->at;
    for (size_t i = 0; i < n; i++) {
        Status status = read_value(reader, &gguf->values[i], error);
        if (status) {
            return error_context(error, status, "value %zu of %zu", i + 1, n);
        }
        gguf->by_key[i] = &gguf->values[i];
    }
    gguf->values_to = reader->at;
    qsort(gguf->by_key, n, sizeof *gguf->by_key, by_key);
    for (size_t i = 1; i < n; i++) {
        if (by_key(&gguf->by_key[i - 1], &gguf->by_key[i]) == 0) {
            const GgufValue *value = gguf->by_key[i];
            return error_set(error, STATUS_REFUSED, "the key \"%.*s\" is there twice",
                             (int)(value->n_key < 200 ? value->n_key : 200), value->key);
        }
    }
    return STATUS_OK;
}

static Status read_alignment(Gguf *gguf, Error *error)
{
    const GgufValue *value = gguf_find(gguf, "general.alignment");
    gguf->alignment = GGUF_ALIGNMENT;
    if (!value) {
        return STATUS_OK;
    }
    int64_t number = 0;
    if (value->kind != GGUF_UINT32 || !gguf_integer(value, &number)) {
        return error_set(error, STATUS_REFUSED, "\"general.alignment\" is %s, not u32",
                         gguf_kind_name(value));
    }
    if (number < 8 || (uint64_t)number > MAX_ALIGNMENT || (number & (number - 1))) {
        return error_set(error, STATUS_REFUSED,
                         "\"general.alignment\" is %lld, not a power of two from 8 to 1048576",
                         (long long)number);
    }
    gguf->alignment = (size_t)number;
    return STATUS_OK;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static Status read_name(Reader *reader, char name[GGUF_NAME_MAX], Error *error)
{
    GgufString string;
    Status status = read_bytes(reader, &string, GGUF_NAME_MAX - 1, "its name", error);
    if (status) {
        return status;
    }
    if (string.n == 0 || memchr(string.bytes, 0, string.n) ||
        utf8_valid_prefix(string.bytes, string.n) < string.n) {
        return error_set(error, STATUS_REFUSED, "its name is empty, has a NUL or is not UTF-8");
    }
    memcpy(name, string.bytes, string.n);
    name[string.n] = 0;
    return STATUS_OK;
}

/* Dimensions, the fastest first in the file, and their product. */
static Status read_dims(Reader *reader, Tensor *tensor, size_t *n_elements, Error *error)
{
    uint32_t n_dims;
    uint64_t dim;
    if (!read_u32(reader, &n_dims)) {
        return cut("a tensor's description", error);
    }
    if (n_dims < 1 || n_dims > MAX_DIMS) {
        return error_set(error, STATUS_REFUSED, "has %u dimensions, not 1 to %d", (unsigned)n_dims,
                         MAX_DIMS);
    }
    tensor->n_dims = (int)n_dims;
    *n_elements = 1;
    bool overflow = false, empty = false;
    for (int i = tensor->n_dims - 1; i >= 0; i--) {
        if (!read_u64(reader, &dim)) {
            return cut("a tensor's description", error);
        }
        empty |= dim == 0;
        tensor->dims[i] = (size_t)dim;
        overflow |= __builtin_mul_overflow(*n_elements, (size_t)dim, n_elements);
    }
    if (empty || overflow || *n_elements > INT64_MAX) {
        return error_set(error, STATUS_REFUSED,
                         empty ? "has a dimension of 0"
                               : "the product of its dimensions overflows");
    }
    return STATUS_OK;
}

static Status read_type(Reader *reader, Tensor *tensor, size_t n_elements, Error *error)
{
    uint32_t number;
    if (!read_u32(reader, &number)) {
        return cut("a tensor's description", error);
    }
    if (number >= sizeof tensor_types / sizeof *tensor_types || !tensor_types[number].name) {
        return error_set(error, STATUS_REFUSED, "type %u is unknown", (unsigned)number);
    }
    tensor->type = tensor_types[number].type;
    tensor->type_name = tensor_types[number].name;
    size_t block = tensor_types[number].block, bytes = tensor_types[number].bytes;
    size_t row = tensor->dims[tensor->n_dims - 1];
    if (row % block) {
        return error_set(error, STATUS_REFUSED, "rows of %zu are not whole blocks of %zu (%s)", row,
                         block, tensor->type_name);
    }
    if (__builtin_mul_overflow(n_elements / block, bytes, &tensor->n_bytes)) {
        return error_set(error, STATUS_REFUSED, "its size in bytes overflows");
    }
    return STATUS_OK;
}

/* *end: where the tensors before it end, with their padding. */
static Status read_tensor(Reader *reader, Tensor *tensor, size_t alignment, size_t *end,
                          Error *error)
{
    size_t n_elements = 0, padded;
    uint64_t offset = 0;
    Status status = read_dims(reader, tensor, &n_elements, error);
    status = status ? status : read_type(reader, tensor, n_elements, error);
    if (!status && !read_u64(reader, &offset)) {
        status = cut("a tensor's description", error);
    }
    if (status) {
        return status;
    }
    if (offset != *end) {
        return error_set(error, STATUS_REFUSED,
                         "offset is %llu, the tensors before it end at %zu with their padding",
                         (unsigned long long)offset, *end);
    }
    tensor->data = (const void *)(uintptr_t)offset; /* into data once that is known */
    if (__builtin_add_overflow(tensor->n_bytes, alignment - 1, &padded) ||
        __builtin_add_overflow(*end, padded & ~(alignment - 1), end)) {
        return error_set(error, STATUS_REFUSED, "the sizes of the tensors overflow");
    }
    return STATUS_OK;
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static Status check_names(const Gguf *gguf, Error *error)
{
    const char **names = calloc(gguf->n_tensors + 1, sizeof *names);
    Status status = STATUS_OK;
    if (!names) {
        return error_set(error, STATUS_FAILED, "no memory for %zu names", gguf->n_tensors);
    }
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        names[i] = gguf->tensors[i].name;
    }
    qsort(names, gguf->n_tensors, sizeof *names, compare_strings);
    for (size_t i = 1; i < gguf->n_tensors && !status; i++) {
        if (strcmp(names[i - 1], names[i]) == 0) {
            status = error_set(error, STATUS_REFUSED, "tensor \"%s\" is there twice", names[i]);
        }
    }
    free(names);
    return status;
}

/* The last tensor may end the file, or its padding may. end: of all of them with padding. */
static Status check_cover(const Gguf *gguf, size_t n_data, size_t end, Error *error)
{
    size_t least = 0;
    if (gguf->n_tensors) {
        const Tensor *last = &gguf->tensors[gguf->n_tensors - 1];
        least = (size_t)(uintptr_t)last->data + last->n_bytes;
    }
    if (n_data < least) {
        return error_set(error, STATUS_REFUSED,
                         "the tensors need %zu bytes of data, the file has %zu", least, n_data);
    }
    if (n_data > end) {
        return error_set(error, STATUS_REFUSED, "%zu bytes after the last tensor belong to none",
                         n_data - end);
    }
    return STATUS_OK;
}

static Status read_tensors(Gguf *gguf, Reader *reader, Error *error)
{
    size_t n = gguf->n_tensors, end = 0;
    gguf->tensors = calloc(n + 1, sizeof *gguf->tensors);
    gguf->names = calloc(n + 1, sizeof *gguf->names);
    if (!gguf->tensors || !gguf->names) {
        return error_set(error, STATUS_FAILED, "no memory for %zu tensors", n);
    }
    for (size_t i = 0; i < n; i++) {
        Tensor *tensor = &gguf->tensors[i];
        Status status = read_name(reader, gguf->names[i], error);
        if (status) {
            return error_context(error, status, "tensor %zu of %zu", i + 1, n);
        }
        tensor->name = gguf->names[i];
        status = read_tensor(reader, tensor, gguf->alignment, &end, error);
        if (status) {
            return error_context(error, status, "tensor \"%s\"", tensor->name);
        }
    }
    size_t padding = (gguf->alignment - reader->at % gguf->alignment) % gguf->alignment;
    size_t start = reader->at + (left(reader) < padding ? left(reader) : padding);
    Status status = check_cover(gguf, reader->n - start, end, error);
    for (size_t i = 0; i < n; i++) {
        gguf->tensors[i].data = gguf->bytes + start + (uintptr_t)gguf->tensors[i].data;
    }
    return status ? status : check_names(gguf, error);
}

/* ---- the file -------------------------------------------------------------------------------- */

static Status read_header(Gguf *gguf, Reader *reader, Error *error)
{
    uint32_t magic = 0, version = 0;
    uint64_t n_tensors = 0, n_values = 0;
    if (!read_u32(reader, &magic) || memcmp(gguf->bytes, "GGUF", 4) != 0) {
        const char *disguise = file_disguise(gguf->bytes, gguf->n_bytes);
        return error_set(error, STATUS_REFUSED, "%s",
                         disguise ? disguise : "does not begin with \"GGUF\"");
    }
    if (!read_u32(reader, &version) || !read_u64(reader, &n_tensors) ||
        !read_u64(reader, &n_values)) {
        return cut("the header", error);
    }
    if (version != 2 && version != GGUF_VERSION) {
        bool swapped = version && (version & 0xffff) == 0;
        return error_set(error, STATUS_REFUSED, "version %u%s is not supported (2 and 3 are)",
                         (unsigned)version, swapped ? ", as a big-endian file has it," : "");
    }
    if (n_tensors > GGUF_MAX_COUNT || n_tensors > left(reader) / MIN_TENSOR) {
        return error_set(error, STATUS_REFUSED,
                         "%llu tensors are more than %d or than the file has room for",
                         (unsigned long long)n_tensors, GGUF_MAX_COUNT);
    }
    if (n_values > GGUF_MAX_COUNT || n_values > left(reader) / MIN_VALUE) {
        return error_set(error, STATUS_REFUSED,
                         "%llu values are more than %d or than the file has room for",
                         (unsigned long long)n_values, GGUF_MAX_COUNT);
    }
    gguf->n_tensors = (size_t)n_tensors;
    gguf->n_values = (size_t)n_values;
    return STATUS_OK;
}

static Status parse(Gguf *gguf, Error *error)
{
    Reader reader = {gguf->bytes, gguf->n_bytes, 0};
    Status status = read_header(gguf, &reader, error);
    status = status ? status : read_values(gguf, &reader, error);
    status = status ? status : read_alignment(gguf, error);
    return status ? status : read_tensors(gguf, &reader, error);
}

Status gguf_parse(Gguf **out, const void *bytes, size_t n, Error *error)
{
    Gguf *gguf = calloc(1, sizeof *gguf);
    if (!gguf) {
        return error_set(error, STATUS_FAILED, "no memory");
    }
    gguf->bytes = bytes;
    gguf->n_bytes = n;
    Status status = parse(gguf, error);
    if (status) {
        gguf_close(gguf);
        return status;
    }
    *out = gguf;
    return STATUS_OK;
}

Status gguf_open(Gguf **out, const char *path, Error *error)
{
    int fd;
    size_t n;
    Status status = file_open(&fd, &n, path, error);
    if (status) {
        return status;
    }
    void *mapping = n ? mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    int reason = errno;
    close(fd);
    if (mapping == MAP_FAILED) {
        return error_set(error, STATUS_FAILED, "%s: cannot be mapped: %s", path, strerror(reason));
    }
    status = mapping ? gguf_parse(out, mapping, n, error)
                     : error_set(error, STATUS_REFUSED, "the file is empty");
    if (status) {
        if (mapping) {
            munmap(mapping, n);
        }
        return error_context(error, status, "%s", path);
    }
    (*out)->mapping = mapping;
    return STATUS_OK;
}

void gguf_close(Gguf *gguf)
{
    if (!gguf) {
        return;
    }
    if (gguf->mapping) {
        munmap(gguf->mapping, gguf->n_bytes);
    }
    free(gguf->values);
    free(gguf->by_key);
    free(gguf->tensors);
    free(gguf->names);
    free(gguf);
}

bool gguf_is(const char *path)
{
    static const char end[] = ".gguf";
    size_t n = strlen(path), n_file;
    if (directory_exists(path)) {
        return false;
    }
    if (n >= sizeof end && strcmp(path + n - (sizeof end - 1), end) == 0) {
        return true;
    }
    int fd;
    char magic[4] = "";
    if (file_open(&fd, &n_file, path, NULL)) {
        return false;
    }
    bool is = pread(fd, magic, sizeof magic, 0) == 4 && memcmp(magic, "GGUF", 4) == 0;
    close(fd);
    return is;
}

/* ---- questions ------------------------------------------------------------------------------- */

const void *gguf_bytes(const Gguf *gguf, size_t *n)
{
    *n = gguf->n_bytes;
    return gguf->bytes;
}

const void *gguf_value_bytes(const Gguf *gguf, size_t *n)
{
    *n = gguf->values_to - gguf->values_from;
    return gguf->bytes + gguf->values_from;
}

size_t gguf_alignment(const Gguf *gguf)
{
    return gguf->alignment;
}

size_t gguf_n_values(const Gguf *gguf)
{
    return gguf->n_values;
}

const GgufValue *gguf_value(const Gguf *gguf, size_t i)
{
    return i < gguf->n_values ? &gguf->values[i] : NULL;
}

const GgufValue *gguf_find(const Gguf *gguf, const char *key)
{
    size_t low = 0, high = gguf->n_values, n = strlen(key);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const GgufValue *value = gguf->by_key[middle];
        int order = compare_keys(key, n, value->key, value->n_key);
        if (order == 0) {
            return value;
        }
        *(order < 0 ? &high : &low) = order < 0 ? middle : middle + 1;
    }
    return NULL;
}

size_t gguf_n_tensors(const Gguf *gguf)
{
    return gguf->n_tensors;
}

const Tensor *gguf_tensor(const Gguf *gguf, size_t i)
{
    return i < gguf->n_tensors ? &gguf->tensors[i] : NULL;
}
