/* The lock is read whole; its names are resolved when a model is looked for, so that a model is
 * found however it was typed. */
#include "experiments/model_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/json.h"
#include "experiments/config.h"

enum { MAX_LOCK_BYTES = 1 << 24, LOCK_VERSION = 1 };

struct ModelLock {
    JsonDocument *document;
    char path[CONFIG_PATH], folder[CONFIG_PATH];
    const char *models;
    char (*checked)[FILE_PATH_MAX]; /* (n) real paths of directories that agree */
    size_t n_checked;
};

static bool is_hash(const Json *value)
{
    size_t n = 0;
    const char *text = json_string(value, &n);
    return text && n == SHA256_HEX_SIZE - 1 && strspn(text, "0123456789abcdef") == n;
}

/* Its form, before anything is looked up in it. */
static Status check_form(const Json *root, Error *error)
{
    const Json *models = json_get(root, "models");
    int64_t version = 0;
    if (!json_int64(json_get(root, "version"), &version) || version != LOCK_VERSION) {
        return error_set(error, STATUS_REFUSED, "\"version\" is not %d", LOCK_VERSION);
    }
    if (json_kind(models) != JSON_OBJECT) {
        return error_set(error, STATUS_REFUSED, "\"models\" is missing or not an object");
    }
    for (size_t i = 0; i < json_size(models); i++) {
        const Json *files = json_at(models, i);
        if (json_kind(files) != JSON_OBJECT || json_size(files) == 0) {
            return error_set(error, STATUS_REFUSED, "\"%.200s\": is not an object of files",
                             json_key(models, i));
        }
        for (size_t j = 0; j < json_size(files); j++) {
            const char *name = json_key(files, j);
            if (!is_hash(json_at(files, j)) || !*name || strchr(name, '/')) {
                return error_set(error, STATUS_REFUSED,
                                 "\"%.200s\": \"%.200s\": a name without folder and 64 hex digits "
                                 "are expected",
                                 json_key(models, i), name);
            }
        }
    }
    return STATUS_OK;
}

static Status read_lock(JsonDocument **document, const char *path, Error *error)
{
    Status status = json_read(document, path, MAX_LOCK_BYTES, error);
    if (status) {
        return status;
    }
    status = check_form(json_root(*document), error);
    if (status) {
        json_free(*document);
        *document = NULL;
        error_context(error, status, "%s", path);
    }
    return status;
}

/* The folder of a path, "." where it has none. */
static void folder_of(char folder[CONFIG_PATH], const char *path)
{
    const char *slash = strrchr(path, '/');
    snprintf(folder, CONFIG_PATH, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
}

Status model_lock_open(ModelLock **out, const char *path, const char *models, Error *error)
{
    if (strlen(path) >= CONFIG_PATH) {
        return error_set(error, STATUS_USAGE, "%.100s...: path too long", path);
    }
    if (!file_exists(path)) {
        return error_set(error, STATUS_REFUSED,
                         "%s: there is none; `tinylora verify MODEL --lock` writes it", path);
    }
    ModelLock *lock = calloc(1, sizeof *lock);
    if (!lock) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    snprintf(lock->path, sizeof lock->path, "%s", path);
    folder_of(lock->folder, path);
    lock->models = models;
    Status status = read_lock(&lock->document, path, error);
    if (status) {
        free(lock);
        return status;
    }
    *out = lock;
    return STATUS_OK;
}

void model_lock_free(ModelLock *lock)
{
    if (lock) {
        json_free(lock->document);
        free(lock->checked);
        free(lock);
    }
}

/* Does an entry of that name lead to the directory (its real path)? */
static bool leads_to(const ModelLock *lock, const char *name, const char *whole)
{
    char found[FILE_PATH_MAX], directory[CONFIG_PATH], real[FILE_PATH_MAX];
    bool beside = path_join(found, name[0] == '/' ? "" : lock->folder, name, NULL) == STATUS_OK &&
                  realpath(name[0] == '/' ? name : found, real) && strcmp(real, whole) == 0;
    return beside || (model_find(directory, name, lock->models, NULL) == STATUS_OK &&
                      realpath(directory, real) && strcmp(real, whole) == 0);
}

/* The pinned files of a directory. */
static Status find_entry(const Json **files, const ModelLock *lock, const char *directory,
                         char whole[FILE_PATH_MAX], Error *error)
{
    const Json *models = json_get(json_root(lock->document), "models");
    if (!realpath(directory, whole)) {
        return error_set(error, STATUS_FAILED, "%s: %s", directory, strerror(errno));
    }
    for (size_t i = 0; i < json_size(models); i++) {
        if (leads_to(lock, json_key(models, i), whole)) {
            *files = json_at(models, i);
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_REFUSED,
                     "model \"%s\": is not in %s, which --locked asks for; `tinylora verify %s "
                     "--lock` adds it",
                     directory, lock->path, directory);
}

static Status compare(const ModelLock *lock, const Json *files, const char *path, const char *name,
                      const char *sha256, Error *error)
{
    const char *pinned = json_string(json_get(files, name), NULL);
    if (!pinned) {
        return error_set(error, STATUS_REFUSED, "%s: is not in %s, its SHA-256 is %s", path,
                         lock->path, sha256);
    }
    if (strcmp(pinned, sha256) != 0) {
        return error_set(error, STATUS_REFUSED, "%s: has drifted: its SHA-256 is %s, %s has %s",
                         path, sha256, lock->path, pinned);
    }
    return STATUS_OK;
}

/* Of a file of the directory, or of the model that is one file. */
static Status place_of(char path[FILE_PATH_MAX], const char *directory, const char *name,
                       Error *error)
{
    if (directory_exists(directory)) {
        return path_join(path, directory, name, error);
    }
    return snprintf(path, FILE_PATH_MAX, "%s", directory) < FILE_PATH_MAX
               ? STATUS_OK
               : error_set(error, STATUS_FAILED, "%.100s...: path too long", directory);
}

/* A file that the program would read and that nobody pinned. */
static Status check_unpinned(const ModelLock *lock, const Json *files, const char *directory,
                             Error *error)
{
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.json",
                                        "model.safetensors", "model.safetensors.index.json"};
    const size_t n = sizeof names / sizeof *names;
    for (size_t i = 0; i < n || model_file_beside(i - n); i++) {
        const char *name = i < n ? names[i] : model_file_beside(i - n);
        char path[FILE_PATH_MAX];
        Status status = path_join(path, directory, name, error);
        if (status) {
            return status;
        }
        if (file_exists(path) && !json_get(files, name)) {
            return error_set(error, STATUS_REFUSED, "%s: is there, but not in %s", path,
                             lock->path);
        }
    }
    return STATUS_OK;
}

Status model_lock_check(ModelLock *lock, const char *directory, Error *error)
{
    char whole[FILE_PATH_MAX];
    const Json *files = NULL;
    Status status = lock ? find_entry(&files, lock, directory, whole, error) : STATUS_OK;
    for (size_t i = 0; lock && !status && i < lock->n_checked; i++) {
        if (strcmp(lock->checked[i], whole) == 0) {
            return STATUS_OK;
        }
    }
    if (!lock || status) {
        return status;
    }
    for (size_t i = 0; i < json_size(files) && !status; i++) {
        char path[FILE_PATH_MAX], sha256[SHA256_HEX_SIZE];
        const char *name = json_key(files, i);
        status = place_of(path, directory, name, error);
        if (!status && !file_exists(path)) {
            status = error_set(error, STATUS_REFUSED, "%s: is in %s, and is not there", path,
                               lock->path);
        }
        status = status ? status : sha256_file(sha256, path, error);
        status = status ? status : compare(lock, files, path, name, sha256, error);
    }
    if (!status && directory_exists(directory)) {
        status = check_unpinned(lock, files, directory, error);
    }
    if (status) {
        return status;
    }
    void *more = realloc(lock->checked, (lock->n_checked + 1) * sizeof *lock->checked);
    if (!more) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    lock->checked = more;
    memcpy(lock->checked[lock->n_checked++], whole, sizeof whole);
    return STATUS_OK;
}

Status model_lock_confirm(const ModelLock *lock, const char *directory, const char *name,
                          const char *sha256, Error *error)
{
    char whole[FILE_PATH_MAX], path[FILE_PATH_MAX];
    const Json *files = NULL;
    Status status = lock ? find_entry(&files, lock, directory, whole, error) : STATUS_OK;
    if (!lock || status) {
        return status;
    }
    status = place_of(path, directory, name, error);
    return status ? status : compare(lock, files, path, name, sha256, error);
}

/* ---- writing ------------------------------------------------------------------------------- */

/* Under which name a model is pinned. */
static Status entry_name(char name[FILE_PATH_MAX], const char *lock_path, const char *typed,
                         const char *directory, Error *error)
{
    char folder[CONFIG_PATH], home[FILE_PATH_MAX], whole[FILE_PATH_MAX];
    if (strcmp(typed, directory) != 0) { /* not a path */
        snprintf(name, FILE_PATH_MAX, "%s", typed);
        return STATUS_OK;
    }
    folder_of(folder, lock_path);
    if (!realpath(folder, home) || !realpath(directory, whole)) {
        return error_set(error, STATUS_FAILED, "%s: %s", directory, strerror(errno));
    }
    size_t n = strlen(home);
    bool inside = strncmp(whole, home, n) == 0 && whole[n] == '/';
    snprintf(name, FILE_PATH_MAX, "%s", inside ? whole + n + 1 : whole);
    return STATUS_OK;
}

/* A file with its hash, or a model with its files: as they were, or of now. */
typedef struct {
    const char *name, *sha256;
    const Json *files;
    const ModelFiles *fresh;
} Entry;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const Entry *)a)->name, ((const Entry *)b)->name);
}

static void write_model(Text *out, const Entry *model)
{
    size_t n = model->fresh ? model->fresh->n : json_size(model->files);
    Entry *files = calloc(n + 1, sizeof *files);
    if (!files) {
        abort(); /* as Text does */
    }
    for (size_t i = 0; i < n; i++) {
        files[i].name = model->fresh ? model->fresh->files[i].name : json_key(model->files, i);
        files[i].sha256 = model->fresh ? model->fresh->files[i].sha256
                                       : json_string(json_at(model->files, i), NULL);
    }
    qsort(files, n, sizeof *files, by_name);
    text_add(out, "    ");
    text_json_string(out, model->name, strlen(model->name));
    text_add(out, ": {");
    for (size_t i = 0; i < n; i++) {
        text_add(out, i ? ",\n      " : "\n      ");
        text_json_string(out, files[i].name, strlen(files[i].name));
        text_printf(out, ": \"%s\"", files[i].sha256);
    }
    text_add(out, "\n    }");
    free(files);
}

static Status write_all(const char *path, const Json *models, const char *name,
                        const ModelFiles *files, Error *error)
{
    size_t n = 0;
    Text out = {0};
    Entry *entries = calloc(json_size(models) + 1, sizeof *entries);
    if (!entries) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    entries[n++] = (Entry){.name = name, .fresh = files};
    for (size_t i = 0; i < json_size(models); i++) {
        if (strcmp(json_key(models, i), name) != 0) {
            entries[n++] = (Entry){.name = json_key(models, i), .files = json_at(models, i)};
        }
    }
    qsort(entries, n, sizeof *entries, by_name);
    text_printf(&out, "{\n  \"version\": %d,\n  \"models\": {\n", LOCK_VERSION);
    for (size_t i = 0; i < n; i++) {
        write_model(&out, &entries[i]);
        text_add(&out, i + 1 < n ? ",\n" : "\n");
    }
    text_add(&out, "  }\n}\n");
    Status status = file_write(path, text_string(&out), out.n, error);
    text_release(&out);
    free(entries);
    return status;
}

Status model_lock_write(const char *path, const char *name, const char *directory,
                        const ModelFiles *files, Error *error)
{
    char folder[CONFIG_PATH], entry[FILE_PATH_MAX];
    JsonDocument *document = NULL;
    Status status = entry_name(entry, path, name, directory, error);
    if (status) {
        return status;
    }
    folder_of(folder, path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX) != 0) { /* one at a time reads and writes */
        status = error_set(error, STATUS_FAILED, "%s: %s", folder, strerror(errno));
    }
    if (!status && file_exists(path)) {
        status = read_lock(&document, path, error);
    }
    if (!status) {
        const Json *models = document ? json_get(json_root(document), "models") : NULL;
        status = write_all(path, models, entry, files, error);
    }
    json_free(document);
    if (fd >= 0) {
        close(fd);
    }
    return status;
}
