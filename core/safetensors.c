/* A set of tensors out of one safetensors file, or out of the shards that an index names. An index
 * is hostile too: it may name plain files beside it only, and must list exactly the tensors that
 * are there, each in its shard. */
#include "core/safetensors.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/gguf_model.h"
#include "core/safetensors_shard.h"
#include "core/sha256.h"

enum { MAX_INDEX_BYTES = 1 << 26, MAX_SHARDS = 1024 };

struct SafeTensors {
    Shard *shards;
    size_t n_shards;
    const Tensor **tensors; /* (n) shard by shard, each in order of offset */
    const Tensor **by_name; /* (n) */
    size_t n;
    char *index; /* its name, without folder; NULL: one file */
    char index_sha256[SHA256_HEX_SIZE];
};

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const Tensor *const *)a)->name, (*(const Tensor *const *)b)->name);
}

/* The lists over all shards. */
static Status list_tensors(SafeTensors *file, Error *error)
{
    for (size_t i = 0; i < file->n_shards; i++) {
        file->n += file->shards[i].n;
    }
    file->tensors = calloc(file->n + 1, sizeof *file->tensors);
    file->by_name = calloc(file->n + 1, sizeof *file->by_name);
    if (!file->tensors || !file->by_name) {
        return error_set(error, STATUS_FAILED, "no memory for %zu tensors", file->n);
    }
    size_t n = 0;
    for (size_t i = 0; i < file->n_shards; i++) {
        for (size_t j = 0; j < file->shards[i].n; j++) {
            file->tensors[n++] = &file->shards[i].tensors[j];
        }
    }
    if (n) {
        memcpy(file->by_name, file->tensors, n * sizeof *file->by_name);
    }
    qsort(file->by_name, n, sizeof *file->by_name, by_name);
    return STATUS_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names of the shards, sorted, each once. names: room for all values of the map. */
static Status read_shard_names(const char **names, size_t *n_names, const Json *map, Error *error)
{
    size_t n = json_size(map);
    for (size_t i = 0; i < n; i++) {
        size_t length = 0;
        const char *name = json_string(json_at(map, i), &length);
        if (!name) {
            return error_set(error, STATUS_REFUSED,
                             "\"weight_map\": tensor \"%.200s\": its shard is %s, "
                             "not a string",
                             json_key(map, i), json_kind_name(json_kind(json_at(map, i))));
        }
        if (length == 0 || length > NAME_MAX || strlen(name) != length || strchr(name, '/') ||
            name[0] == '.') {
            return error_set(
                error, STATUS_REFUSED,
                "\"weight_map\": tensor \"%.200s\": \"%.200s\" is not the plain name of a "
                "file beside the index",
                json_key(map, i), name);
        }
        names[i] = name;
    }
    qsort(names, n, sizeof *names, compare_names);
    size_t n_unique = 0;
    for (size_t i = 0; i < n; i++) {
        if (n_unique == 0 || strcmp(names[n_unique - 1], names[i]) != 0) {
            names[n_unique++] = names[i];
        }
    }
    if (n_unique > MAX_SHARDS) {
        return error_set(error, STATUS_REFUSED, "names %zu shards, at most %d are read", n_unique,
                         MAX_SHARDS);
    }
    *n_names = n_unique;
    return STATUS_OK;
}

/* Opens the shards beside the index and holds each against the map. */
static Status open_shards(SafeTensors *file, const char *index_path, const char **names,
                          size_t n_names, const Json *map, Error *error)
{
    char folder[FILE_PATH_MAX], home[FILE_PATH_MAX], path[FILE_PATH_MAX];
    size_t n_folder =
        (size_t)(strrchr(index_path, '/') ? strrchr(index_path, '/') - index_path + 1 : 0);
    if (n_folder >= sizeof folder) {
        return error_set(error, STATUS_FAILED, "the path is too long");
    }
    memcpy(folder, index_path, n_folder);
    strcpy(folder + n_folder, n_folder ? "" : ".");
    if (!realpath(folder, home)) {
        return error_set(error, STATUS_FAILED, "%s: %s", folder, strerror(errno));
    }
    file->shards = calloc(n_names, sizeof *file->shards);
    if (!file->shards) {
        return error_set(error, STATUS_FAILED, "no memory for %zu shards", n_names);
    }
    for (size_t i = 0; i < n_names; i++) {
        Status status = path_join(path, folder, names[i], error);
        if (status == STATUS_OK) {
            status = shard_open(&file->shards[i], path, home, error);
        }
        if (status != STATUS_OK) {
            return status;
        }
        file->n_shards = i + 1;
        for (size_t j = 0; j < file->shards[i].n; j++) {
            const char *name = file->shards[i].tensors[j].name;
            const char *listed = json_string(json_get(map, name), NULL);
            if (!listed || strcmp(listed, names[i]) != 0) {
                return error_set(
                    error, STATUS_REFUSED,
                    "\"weight_map\": tensor \"%.200s\" lies in \"%.100s\", the map has it in "
                    "%.100s",
                    name, names[i], listed ? listed : "no shard");
            }
        }
    }
    return STATUS_OK;
}

/* Every tensor of the map is there, and metadata.total_size, if given, is the size of all of them.
 */
static Status check_index(const SafeTensors *file, const Json *root, Error *error)
{
    const Json *map = json_get(root, "weight_map");
    const Json *metadata = json_get(root, "metadata");
    const Json *total = json_get(metadata, "total_size");
    if (json_kind(metadata) != JSON_NULL && json_kind(metadata) != JSON_OBJECT) {
        return error_set(error, STATUS_REFUSED, "\"metadata\" is %s, not an object",
                         json_kind_name(json_kind(metadata)));
    }
    for (size_t i = 0; i < json_size(map); i++) {
        if (!safetensors_find(file, json_key(map, i))) {
            return error_set(error, STATUS_REFUSED,
                             "\"weight_map\": tensor \"%.200s\" is not in \"%.100s\"",
                             json_key(map, i), json_string(json_at(map, i), NULL));
        }
    }
    int64_t stated = 0;
    uint64_t sum = 0;
    for (size_t i = 0; i < file->n; i++) {
        sum += file->tensors[i]->n_bytes;
    }
    if (total && (!json_int64(total, &stated) || stated < 0 || (uint64_t)stated != sum)) {
        return error_set(error, STATUS_REFUSED,
                         "\"total_size\" is %.40s, the tensors have %llu bytes",
                         json_number_text(total) ? json_number_text(total) : "not a number",
                         (unsigned long long)sum);
    }
    return STATUS_OK;
}

static Status read_index(SafeTensors *file, const char *path, const Json *root, Error *error)
{
    const Json *map = json_get(root, "weight_map");
    if (json_kind(map) != JSON_OBJECT || json_size(map) == 0) {
        return error_set(error, STATUS_REFUSED,
                         "\"weight_map\" is missing, empty or not an object");
    }
    const char **names = calloc(json_size(map), sizeof *names);
    if (!names) {
        return error_set(error, STATUS_FAILED, "no memory for %zu tensors", json_size(map));
    }
    size_t n_names = 0;
    Status status = read_shard_names(names, &n_names, map, error);
    if (status == STATUS_OK) {
        status = open_shards(file, path, names, n_names, map, error);
    }
    if (status == STATUS_OK) {
        status = list_tensors(file, error);
    }
    free(names);
    return status == STATUS_OK ? check_index(file, root, error) : status;
}

static bool is_index(const char *path)
{
    static const char end[] = ".index.json";
    size_t n = strlen(path);
    return n >= sizeof end - 1 && strcmp(path + n - (sizeof end - 1), end) == 0;
}

static Status open_index(SafeTensors *file, const char *path, Error *error)
{
    JsonDocument *index;
    Status status = json_read(&index, path, MAX_INDEX_BYTES, error);
    if (status != STATUS_OK) {
        return status;
    }
    const char *slash = strrchr(path, '/');
    file->index = strdup(slash ? slash + 1 : path);
    memcpy(file->index_sha256, json_sha256(index), SHA256_HEX_SIZE);
    status = file->index ? read_index(file, path, json_root(index), error)
                         : error_set(error, STATUS_FAILED, "no memory");
    json_free(index);
    return status == STATUS_OK ? STATUS_OK : error_context(error, status, "%s", path);
}

static Status open_single(SafeTensors *file, const char *path, Error *error)
{
    file->shards = calloc(1, sizeof *file->shards);
    if (!file->shards) {
        return error_set(error, STATUS_FAILED, "%s: no memory", path);
    }
    Status status = shard_open(&file->shards[0], path, NULL, error);
    if (status != STATUS_OK) {
        return status;
    }
    file->n_shards = 1;
    return list_tensors(file, error);
}

static Status open_gguf(SafeTensors *file, const char *path, Error *error)
{
    file->shards = calloc(1, sizeof *file->shards);
    if (!file->shards) {
        return error_set(error, STATUS_FAILED, "%s: no memory", path);
    }
    Shard *shard = &file->shards[0];
    Status status = gguf_open(&shard->gguf, path, error);
    if (status != STATUS_OK) {
        return status;
    }
    file->n_shards = 1;
    const char *slash = strrchr(path, '/');
    shard->name = strdup(slash ? slash + 1 : path);
    if (!shard->name) {
        return error_set(error, STATUS_FAILED, "%s: no memory", path);
    }
    shard->mapping = (unsigned char *)(uintptr_t)gguf_bytes(shard->gguf, &shard->n_mapping);
    status = gguf_model_tensors(&shard->tensors, &shard->gguf_names, &shard->n, shard->gguf, error);
    return status == STATUS_OK ? list_tensors(file, error)
                               : error_context(error, status, "%s", path);
}

static Status open_by(SafeTensors **out, const char *path,
                      Status (*open)(SafeTensors *, const char *, Error *), Error *error)
{
    SafeTensors *file = calloc(1, sizeof *file);
    if (!file) {
        return error_set(error, STATUS_FAILED, "%s: no memory", path);
    }
    Status status = open(file, path, error);
    if (status != STATUS_OK) {
        safetensors_close(file);
        return status;
    }
    *out = file;
    return STATUS_OK;
}

Status safetensors_open(SafeTensors **out, const char *path, Error *error)
{
    return open_by(out, path, is_index(path) ? open_index : open_single, error);
}

Status safetensors_open_gguf(SafeTensors **out, const char *path, Error *error)
{
    return open_by(out, path, open_gguf, error);
}

void safetensors_close(SafeTensors *file)
{
    if (!file) {
        return;
    }
    for (size_t i = 0; i < file->n_shards; i++) {
        shard_close(&file->shards[i]);
    }
    free(file->index);
    free(file->shards);
    free(file->tensors);
    free(file->by_name);
    free(file);
}

const Gguf *safetensors_gguf(const SafeTensors *file)
{
    return file->shards[0].gguf;
}

size_t safetensors_count(const SafeTensors *file)
{
    return file->n;
}

const Tensor *safetensors_at(const SafeTensors *file, size_t i)
{
    return i < file->n ? file->tensors[i] : NULL;
}

const Tensor *safetensors_find(const SafeTensors *file, const char *name)
{
    Tensor key = {.name = name};
    const Tensor *key_pointer = &key;
    const Tensor **found =
        bsearch(&key_pointer, file->by_name, file->n, sizeof *file->by_name, by_name);
    return found ? *found : NULL;
}

const char *safetensors_metadata(const SafeTensors *file, const char *key)
{
    const Json *metadata = json_get(json_root(file->shards[0].header), "__metadata__");
    return json_string(json_get(metadata, key), NULL);
}

/* Whole pages of n bytes at start: the edges may be shared with a neighbour. */
static void forget_pages(const void *start, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)start + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)start + n) / page * page;
    if (begin < end) {
        madvise((void *)begin, end - begin, MADV_DONTNEED);
    }
}

void safetensors_forget(const SafeTensors *file, const Tensor *tensor)
{
    (void)file;
    forget_pages(tensor->data, tensor->n_bytes);
}

static void hash_shard(Sha256 *state, const Shard *shard)
{
    static const size_t PIECE = 1 << 24; /* so much of the file is in memory at a time */
    for (size_t start = 0; start < shard->n_mapping; start += PIECE) {
        size_t n = shard->n_mapping - start < PIECE ? shard->n_mapping - start : PIECE;
        sha256_update(state, shard->mapping + start, n);
        forget_pages(shard->mapping + start, n);
    }
}

void safetensors_sha256(char hex[SHA256_HEX_SIZE], const SafeTensors *file)
{
    Sha256 *all = sha256_new();
    for (size_t i = 0; i < file->n_shards; i++) {
        hash_shard(all, &file->shards[i]);
    }
    sha256_finish(all, hex);
}

size_t safetensors_n_files(const SafeTensors *file)
{
    return file->n_shards + (file->index != NULL);
}

void safetensors_file(const SafeTensors *file, size_t i, const char **name,
                      char sha256[SHA256_HEX_SIZE])
{
    if (file->index && i == 0) {
        *name = file->index;
        if (sha256) {
            memcpy(sha256, file->index_sha256, SHA256_HEX_SIZE);
        }
        return;
    }
    const Shard *shard = &file->shards[i - (file->index != NULL)];
    *name = shard->name;
    if (sha256) {
        Sha256 *state = sha256_new();
        hash_shard(state, shard);
        sha256_finish(state, sha256);
    }
}
