/* One safetensors file, mapped and checked. Order of the checks: size, header length, header text,
 * each tensor by itself, then all of them together (every byte of the data belongs to exactly one
 * tensor). Data is never touched. */
#include "core/safetensors_shard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/hub.h"

static const uint64_t MAX_HEADER = 100000000; /* the format's own limit */
enum { MAX_NAME = 1024 };

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

/* tensors: sorted by offset. Every byte of the data belongs to exactly one of them. */
static Status check_cover(const Shard *shard, const unsigned char *data, size_t n_data,
                          Error *error)
{
    size_t end = 0;
    const char *previous = "the header";
    for (size_t i = 0; i < shard->n; i++) {
        const Tensor *tensor = &shard->tensors[i];
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

/* Header entries into shard->tensors. */
static Status read_tensors(Shard *shard, size_t n_header, Error *error)
{
    const Json *root = json_root(shard->header);
    const unsigned char *data = shard->mapping + 8 + n_header;
    size_t n_data = shard->n_mapping - 8 - n_header;
    size_t n = json_size(root);
    shard->tensors = calloc(n + 1, sizeof *shard->tensors);
    if (!shard->tensors) {
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
        if (strlen(name) > MAX_NAME) {
            return error_set(error, STATUS_REFUSED,
                             "tensor name \"%.100s...\" has %zu bytes, at most %d are read", name,
                             strlen(name), MAX_NAME);
        }
        Tensor *tensor = &shard->tensors[shard->n++];
        tensor->name = name;
        Status status = read_tensor(tensor, json_at(root, i), data, n_data, error);
        if (status != STATUS_OK) {
            return error_context(error, status, "tensor \"%.200s\"", name);
        }
    }
    qsort(shard->tensors, shard->n, sizeof *shard->tensors, by_offset);
    return check_cover(shard, data, n_data, error);
}

Status shard_parse(Shard *shard, Error *error)
{
    const unsigned char *bytes = shard->mapping;
    size_t size = shard->n_mapping;
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
    Status status = json_parse(&shard->header, text, (size_t)n_header, error);
    if (status != STATUS_OK) {
        return error_context(error, status, "header");
    }
    return read_tensors(shard, (size_t)n_header, error);
}

/* A shard that is not there, or a link without its file, as unfinished downloads leave them. */
static Status check_presence(const char *path, bool is_named, Error *error)
{
    char folder[FILE_PATH_MAX] = "";
    const char *slash = strrchr(path, '/');
    struct stat info;
    if (stat(path, &info) == 0 || (errno != ENOENT && errno != ELOOP) ||
        (!is_named && !file_exists(path))) {
        return STATUS_OK; /* to be opened, or to fail with the system's words */
    }
    Text hint = {0};
    if (slash && (size_t)(slash - path) < sizeof folder) {
        memcpy(folder, path, (size_t)(slash - path));
        hub_hint(&hint, folder);
    }
    Status status =
        error_set(error, STATUS_REFUSED, "%s: %s%s", path,
                  file_exists(path) ? "is a link to nothing" : "is missing", text_string(&hint));
    text_release(&hint);
    return status;
}

/* real: what path leads to. */
static Status check_place(const char *real, const char *path, const char *home, Error *error)
{
    return hub_link_stays(home, real)
               ? STATUS_OK
               : error_set(error, STATUS_REFUSED,
                           "%s: is a link that leaves the model directory, to %.400s", path, real);
}

/* Opens what lies in its home: asked before, as a sandbox does not let out, and of what is open, as
 * a link can be changed in between. */
static Status open_at_home(int *fd, size_t *n, const char *path, const char *home, Error *error)
{
    char real[FILE_PATH_MAX], *before = home ? realpath(path, NULL) : NULL;
    Status status = before ? check_place(before, path, home, error) : STATUS_OK;
    free(before);
    status = status ? status : file_open(fd, n, path, error);
    if (status || !home) {
        return status;
    }
    status = file_real_path(real, *fd, path, error);
    status = status ? status : check_place(real, path, home, error);
    if (status) {
        close(*fd);
    }
    return status;
}

static Status map_file(Shard *shard, const char *path, const char *home, Error *error)
{
    int fd;
    Status status = check_presence(path, home != NULL, error);
    if (status == STATUS_OK) {
        status = open_at_home(&fd, &shard->n_mapping, path, home, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (shard->n_mapping < 8) {
        close(fd);
        return error_set(error, STATUS_REFUSED,
                         "%s: has %zu bytes, fewer than the 8 of a header length", path,
                         shard->n_mapping);
    }
    void *mapping = mmap(NULL, shard->n_mapping, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapping == MAP_FAILED) {
        status = error_set(error, STATUS_FAILED, "%s: cannot be mapped: %s", path, strerror(errno));
    } else {
        shard->mapping = mapping;
    }
    close(fd);
    return status;
}

Status shard_open(Shard *shard, const char *path, const char *home, Error *error)
{
    *shard = (Shard){0};
    const char *slash = strrchr(path, '/');
    shard->name = strdup(slash ? slash + 1 : path);
    if (!shard->name) {
        return error_set(error, STATUS_FAILED, "%s: no memory", path);
    }
    Status status = map_file(shard, path, home, error);
    if (status == STATUS_OK) {
        status = shard_parse(shard, error);
        if (status != STATUS_OK) {
            error_context(error, status, "%s", path);
        }
    }
    if (status != STATUS_OK) {
        shard_close(shard);
    }
    return status;
}

void shard_close(Shard *shard)
{
    if (shard->mapping && !shard->gguf) {
        munmap(shard->mapping, shard->n_mapping);
    }
    gguf_close(shard->gguf);
    free(shard->gguf_names);
    json_free(shard->header);
    free(shard->name);
    free(shard->tensors);
    *shard = (Shard){0};
}
