/* Reading a safetensors file. Order of the checks: size, header length, header text, each tensor by
 * itself, then all of them together (every byte of the data belongs to exactly one tensor). Data is
 * never touched here. */
#include "core/safetensors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"

static const uint64_t MAX_HEADER = 100000000; /* the format's own limit */

struct SafeTensors {
    JsonDocument *header; /* the names live in it */
    unsigned char *mapping;
    size_t n_mapping;
    Tensor *tensors; /* (n) in order of offset */
    const Tensor **by_name;
    size_t n;
};

/* All types of the format, with their bits; three of them are weights. */
static const struct {
    const char *name;
    unsigned bits;
    TensorType type;
} types[] = {
    {"F32", 32, TENSOR_F32},          {"F16", 16, TENSOR_F16},
    {"BF16", 16, TENSOR_BF16},        {"BOOL", 8, TENSOR_OTHER},
    {"F4", 4, TENSOR_OTHER},          {"F6_E2M3", 6, TENSOR_OTHER},
    {"F6_E3M2", 6, TENSOR_OTHER},     {"U8", 8, TENSOR_OTHER},
    {"I8", 8, TENSOR_OTHER},          {"F8_E5M2", 8, TENSOR_OTHER},
    {"F8_E4M3", 8, TENSOR_OTHER},     {"F8_E8M0", 8, TENSOR_OTHER},
    {"F8_E4M3FNUZ", 8, TENSOR_OTHER}, {"F8_E5M2FNUZ", 8, TENSOR_OTHER},
    {"I16", 16, TENSOR_OTHER},        {"U16", 16, TENSOR_OTHER},
    {"I32", 32, TENSOR_OTHER},        {"U32", 32, TENSOR_OTHER},
    {"C64", 64, TENSOR_OTHER},        {"F64", 64, TENSOR_OTHER},
    {"I64", 64, TENSOR_OTHER},        {"U64", 64, TENSOR_OTHER},
};

/* A size as the format writes it: digits alone, no sign, point or exponent. */
static bool read_size(const Json *value, size_t *out)
{
    const char *text = json_number_text(value);
    if (!text || text[strspn(text, "0123456789")]) {
        return false;
    }
    size_t size = 0;
    for (; *text; text++) {
        if (__builtin_mul_overflow(size, (size_t)10, &size) ||
            __builtin_add_overflow(size, (size_t)(*text - '0'), &size)) {
            return false;
        }
    }
    *out = size;
    return true;
}

static Status read_type(Tensor *tensor, unsigned *bits, const Json *info, Error *error)
{
    size_t n = 0;
    const char *name = json_string(json_get(info, "dtype"), &n);
    if (!name) {
        return error_set(error, STATUS_REFUSED, "dtype is missing or not a string");
    }
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (n == strlen(types[i].name) && memcmp(name, types[i].name, n) == 0) {
            tensor->type = types[i].type;
            tensor->type_name = types[i].name;
            *bits = types[i].bits;
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_REFUSED, "dtype \"%.40s\" is unknown", name);
}

/* Dimensions, and the bits of the whole, with every product checked, in the order the reference
 * multiplies. */
static Status read_shape(Tensor *tensor, size_t *n_bits, unsigned bits, const Json *info,
                         Error *error)
{
    const Json *shape = json_get(info, "shape");
    if (json_kind(shape) != JSON_ARRAY) {
        return error_set(error, STATUS_REFUSED, "shape is missing or not an array");
    }
    size_t n = json_size(shape);
    if (n > sizeof tensor->dims / sizeof *tensor->dims) {
        return error_set(error, STATUS_REFUSED, "shape has %zu dimensions, at most 8 are read", n);
    }
    tensor->n_dims = (int)n;
    size_t n_elements = 1;
    bool overflow = false;
    for (size_t i = 0; i < n; i++) {
        if (!read_size(json_at(shape, i), &tensor->dims[i])) {
            return error_set(error, STATUS_REFUSED, "shape[%zu] is not a size", i);
        }
        overflow |= __builtin_mul_overflow(n_elements, tensor->dims[i], &n_elements);
    }
    if (overflow || __builtin_mul_overflow(n_elements, (size_t)bits, n_bits)) {
        return error_set(error, STATUS_REFUSED, "the product of its shape overflows");
    }
    return STATUS_OK;
}

static Status read_offsets(size_t offsets[2], const Json *info, Error *error)
{
    const Json *pair = json_get(info, "data_offsets");
    if (json_kind(pair) != JSON_ARRAY || json_size(pair) != 2 ||
        !read_size(json_at(pair, 0), &offsets[0]) || !read_size(json_at(pair, 1), &offsets[1])) {
        return error_set(error, STATUS_REFUSED, "data_offsets is not a pair of sizes");
    }
    return STATUS_OK;
}

/* One entry of the header. data: start of the data section, of n_data bytes. */
static Status read_tensor(Tensor *tensor, const Json *info, const unsigned char *data,
                          size_t n_data, Error *error)
{
    if (json_kind(info) != JSON_OBJECT) {
        return error_set(error, STATUS_REFUSED, "its entry is %s, not an object",
                         json_kind_name(json_kind(info)));
    }
    unsigned bits = 0;
    size_t offsets[2] = {0}, n_bits = 0;
    Status status = read_type(tensor, &bits, info, error);
    if (status == STATUS_OK) {
        status = read_shape(tensor, &n_bits, bits, info, error);
    }
    if (status == STATUS_OK) {
        status = read_offsets(offsets, info, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (offsets[0] > offsets[1]) {
        return error_set(error, STATUS_REFUSED, "data_offsets [%zu, %zu] run backwards", offsets[0],
                         offsets[1]);
    }
    if (offsets[1] > n_data) {
        return error_set(error, STATUS_REFUSED,
                         "data_offsets [%zu, %zu] reach beyond the %zu bytes of data", offsets[0],
                         offsets[1], n_data);
    }
    if (n_bits % 8) {
        return error_set(error, STATUS_REFUSED, "its %zu bits are not whole bytes", n_bits);
    }
    if (n_bits / 8 != offsets[1] - offsets[0]) {
        return error_set(error, STATUS_REFUSED,
                         "shape and dtype need %zu bytes, data_offsets give %zu", n_bits / 8,
                         offsets[1] - offsets[0]);
    }
    tensor->data = data + offsets[0];
    tensor->n_bytes = n_bits / 8;
    return STATUS_OK;
}

static Status check_metadata(const Json *metadata, Error *error)
{
    if (json_kind(metadata) == JSON_NULL) {
        return STATUS_OK;
    }
    if (json_kind(metadata) != JSON_OBJECT) {
        return error_set(error, STATUS_REFUSED, "__metadata__ is %s, not an object of strings",
                         json_kind_name(json_kind(metadata)));
    }
    for (size_t i = 0; i < json_size(metadata); i++) {
        if (json_kind(json_at(metadata, i)) != JSON_STRING) {
            return error_set(error, STATUS_REFUSED, "__metadata__[\"%.100s\"] is %s, not a string",
                             json_key(metadata, i),
                             json_kind_name(json_kind(json_at(metadata, i))));
        }
    }
    return STATUS_OK;
}

static int by_offset(const void *a, const void *b)
{
    const Tensor *x = a, *y = b;
    uintptr_t x_start = (uintptr_t)x->data, y_start = (uintptr_t)y->data;
    if (x_start != y_start) {
        return x_start < y_start ? -1 : 1;
    }
    if ((x->n_bytes == 0) != (y->n_bytes == 0)) {
        return x->n_bytes == 0 ? -1 : 1; /* an empty tensor lies before the one that starts there */
    }
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const Tensor *const *)a)->name, (*(const Tensor *const *)b)->name);
}

/* tensors: sorted by offset. Every byte of the data belongs to exactly one of them. */
static Status check_cover(const SafeTensors *file, const unsigned char *data, size_t n_data,
                          Error *error)
{
    size_t end = 0;
    const char *previous = "the header";
    for (size_t i = 0; i < file->n; i++) {
        const Tensor *tensor = &file->tensors[i];
        size_t begin = (size_t)((const unsigned char *)tensor->data - data);
        if (begin != end) {
            return error_set(error, STATUS_REFUSED,
                             begin > end
                                 ? "tensor \"%.200s\": starts at %zu, a hole after \"%.200s\" that "
                                   "ends at %zu"
                                 : "tensor \"%.200s\": starts at %zu, inside \"%.200s\" that "
                                   "ends at %zu",
                             tensor->name, begin, previous, end);
        }
        end += tensor->n_bytes;
        previous = tensor->name;
    }
    if (end != n_data) {
        return error_set(error, STATUS_REFUSED,
                         "the tensors end at %zu, the data at %zu: bytes that belong to no tensor",
                         end, n_data);
    }
    return STATUS_OK;
}

/* Header entries into file->tensors. */
static Status read_tensors(SafeTensors *file, size_t n_header, Error *error)
{
    const Json *root = json_root(file->header);
    const unsigned char *data = file->mapping + 8 + n_header;
    size_t n_data = file->n_mapping - 8 - n_header;
    size_t n = json_size(root);
    file->tensors = calloc(n + 1, sizeof *file->tensors);
    file->by_name = calloc(n + 1, sizeof *file->by_name);
    if (!file->tensors || !file->by_name) {
        return error_set(error, STATUS_FAILED, "no memory for %zu tensors", n);
    }
    for (size_t i = 0; i < n; i++) {
        const char *name = json_key(root, i);
        if (strcmp(name, "__metadata__") == 0) {
            Status status = check_metadata(json_at(root, i), error);
            if (status != STATUS_OK) {
                return status;
            }
            continue;
        }
        if (!*name || strstr(name, "\xc0\x80")) {
            return error_set(error, STATUS_REFUSED, "tensor name \"%.200s\" is empty or has a NUL",
                             name);
        }
        Tensor *tensor = &file->tensors[file->n++];
        tensor->name = name;
        Status status = read_tensor(tensor, json_at(root, i), data, n_data, error);
        if (status != STATUS_OK) {
            return error_context(error, status, "tensor \"%.200s\"", name);
        }
    }
    qsort(file->tensors, file->n, sizeof *file->tensors, by_offset);
    for (size_t i = 0; i < file->n; i++) {
        file->by_name[i] = &file->tensors[i];
    }
    qsort(file->by_name, file->n, sizeof *file->by_name, by_name);
    return check_cover(file, data, n_data, error);
}

static Status read_header(SafeTensors *file, Error *error)
{
    const unsigned char *bytes = file->mapping;
    size_t size = file->n_mapping;
    const char *disguise = file_disguise(bytes, size);
    uint64_t n_header = 0;
    for (int i = 0; i < 8; i++) {
        n_header |= (uint64_t)bytes[i] << 8 * i;
    }
    if (n_header > MAX_HEADER || n_header > size - 8) {
        if (disguise) {
            return error_set(error, STATUS_REFUSED, "%s", disguise);
        }
        return error_set(error, STATUS_REFUSED,
                         n_header > MAX_HEADER
                             ? "header length %llu is above the limit of 100000000"
                             : "header length %llu reaches beyond the end of the file",
                         (unsigned long long)n_header);
    }
    const char *text = (const char *)bytes + 8;
    if (n_header == 0 || text[0] != '{') {
        return error_set(error, STATUS_REFUSED, "header: does not begin with '{'");
    }
    Status status = json_parse(&file->header, text, (size_t)n_header, error);
    if (status != STATUS_OK) {
        return error_context(error, status, "header");
    }
    return read_tensors(file, (size_t)n_header, error);
}

static Status map_file(SafeTensors *file, const char *path, Error *error)
{
    int fd;
    Status status = file_open(&fd, &file->n_mapping, path, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (file->n_mapping < 8) {
        close(fd);
        return error_set(error, STATUS_REFUSED,
                         "%s: has %zu bytes, fewer than the 8 of a header length", path,
                         file->n_mapping);
    }
    void *mapping = mmap(NULL, file->n_mapping, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapping == MAP_FAILED) {
        status = error_set(error, STATUS_FAILED, "%s: cannot be mapped: %s", path, strerror(errno));
    } else {
        file->mapping = mapping;
    }
    close(fd);
    return status;
}

Status safetensors_open(SafeTensors **out, const char *path, Error *error)
{
    SafeTensors *file = calloc(1, sizeof *file);
    if (!file) {
        return error_set(error, STATUS_FAILED, "%s: no memory", path);
    }
    Status status = map_file(file, path, error);
    if (status == STATUS_OK) {
        status = read_header(file, error);
        if (status != STATUS_OK) {
            error_context(error, status, "%s", path);
        }
    }
    if (status != STATUS_OK) {
        safetensors_close(file);
        return status;
    }
    *out = file;
    return STATUS_OK;
}

void safetensors_close(SafeTensors *file)
{
    if (!file) {
        return;
    }
    if (file->mapping) {
        munmap(file->mapping, file->n_mapping);
    }
    json_free(file->header);
    free(file->tensors);
    free(file->by_name);
    free(file);
}

size_t safetensors_count(const SafeTensors *file)
{
    return file->n;
}

const Tensor *safetensors_at(const SafeTensors *file, size_t i)
{
    return i < file->n ? &file->tensors[i] : NULL;
}

const Tensor *safetensors_find(const SafeTensors *file, const char *name)
{
    Tensor key = {.name = name};
    const Tensor *key_pointer = &key;
    const Tensor **found =
        bsearch(&key_pointer, file->by_name, file->n, sizeof *file->by_name, by_name);
    return found ? *found : NULL;
}

void safetensors_forget(const SafeTensors *file, const Tensor *tensor)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t begin = (size_t)((const unsigned char *)tensor->data - file->mapping);
    size_t end = begin + tensor->n_bytes;
    begin = (begin + page - 1) / page * page; /* whole pages only: the edges are shared */
    end = end / page * page;
    if (begin < end) {
        madvise(file->mapping + begin, end - begin, MADV_DONTNEED);
    }
}
