/* Checks by opening: the readers hold the rules, this file says which reader reads what. */
#include "core/verify.h"

#include <string.h>

#include "core/file.h"
#include "core/gguf_model.h"
#include "core/json.h"
#include "core/model_config.h"
#include "core/safetensors.h"
#include "core/tokenizer_gguf.h"

enum { MAX_JSON_BYTES = 1 << 28 };

static const struct {
    const char *name;
    VerifyKind kind;
} kinds[] = {
    {"model", VERIFY_MODEL}, {"modeldir", VERIFY_MODEL},      {"safetensors", VERIFY_SAFETENSORS},
    {"gguf", VERIFY_GGUF},   {"tokenizer", VERIFY_TOKENIZER}, {"config", VERIFY_CONFIG},
    {"json", VERIFY_JSON},   {"dataset", VERIFY_DATASET},     {"results_db", VERIFY_RESULTS},
};

bool verify_kind_find(VerifyKind *kind, const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(name, kinds[i].name) == 0) {
            *kind = kinds[i].kind;
            return true;
        }
    }
    return false;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

bool verify_kind_guess(VerifyKind *kind, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (directory_exists(path)) {
        *kind = VERIFY_MODEL;
    } else if (ends_with(name, ".safetensors")) {
        *kind = VERIFY_SAFETENSORS;
    } else if (ends_with(name, ".gguf")) {
        *kind = VERIFY_GGUF;
    } else if (ends_with(name, ".jsonl")) {
        *kind = VERIFY_DATASET;
    } else if (ends_with(name, ".json")) {
        *kind = strstr(name, "tokenizer") ? VERIFY_TOKENIZER : VERIFY_CONFIG;
    } else if (ends_with(name, ".db")) {
        *kind = VERIFY_RESULTS;
    } else {
        return false;
    }
    return true;
}

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* files: may be NULL, here and below. */
static Status list_weights(ModelFiles *files, const SafeTensors *file, Error *error)
{
    Status status = STATUS_OK;
    for (size_t i = 0; files && i < safetensors_n_files(file) && status == STATUS_OK; i++) {
        const char *name;
        char sha256[SHA256_HEX_SIZE];
        safetensors_file(file, i, &name, sha256);
        status = model_files_add(files, name, sha256, error);
        memcpy(files->weights_sha256, sha256, SHA256_HEX_SIZE);
    }
    if (files && safetensors_n_files(file) > 1) {
        safetensors_sha256(files->weights_sha256, file);
    }
    return status;
}

static Status verify_safetensors(const char *path, ModelFiles *files, Error *error)
{
    SafeTensors *file;
    Status status = safetensors_open(&file, path, error);
    if (status == STATUS_OK) {
        status = list_weights(files, file, error);
        safetensors_close(file);
    }
    return status;
}

/* config: NULL, or the model's, whose vocabulary must have a place for every id. */
static Status check_ids(const Tokenizer *tokenizer, const char *path, const ModelConfig *config,
                        Error *error)
{
    int32_t size = tokenizer_size(tokenizer);
    return !config || size <= config->vocab_size
               ? STATUS_OK
               : error_set(error, STATUS_REFUSED,
                           "%s: has the id %d, the config's \"vocab_size\" is %d", path,
                           (int)size - 1, config->vocab_size);
}

static Status verify_tokenizer(const char *path, const ModelConfig *config, ModelFiles *files,
                               Error *error)
{
    Tokenizer *tokenizer;
    Status status = tokenizer_open(&tokenizer, path, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = check_ids(tokenizer, path, config, error);
    if (status == STATUS_OK && files) {
        status = model_files_add(files, name_of(path), tokenizer_sha256(tokenizer), error);
    }
    tokenizer_free(tokenizer);
    return status;
}

/* path: of the config, or of the directory that has it. */
static Status verify_config(const char *path, ModelConfig *config, ModelFiles *files, Error *error)
{
    const char *name = directory_exists(path) ? "config.json" : name_of(path);
    Status status = model_config_read(config, path, error);
    if (status == STATUS_OK && files) {
        status = model_files_add(files, name, config->sha256, error);
    }
    if (status == STATUS_OK && files && config->generation_sha256[0]) {
        status = model_files_add(files, "generation_config.json", config->generation_sha256, error);
    }
    return status;
}

static Status check_weights(const SafeTensors *file, const char *path, const ModelConfig *config,
                            ModelFiles *files, Error *error)
{
    Status status = model_config_check(config, file, error);
    if (status == STATUS_OK) {
        status = model_weights_check(config, file, error);
    }
    if (status == STATUS_OK) {
        status = list_weights(files, file, error);
    }
    return status == STATUS_OK ? STATUS_OK : error_context(error, status, "%s", path);
}

static Status verify_weights(const char *directory, const ModelConfig *config, ModelFiles *files,
                             Error *error)
{
    char path[FILE_PATH_MAX];
    SafeTensors *file;
    Status status = model_weights_path(path, directory, error);
    if (status == STATUS_OK) {
        status = model_weights_open(&file, directory, error);
    }
    if (status == STATUS_OK) {
        status = check_weights(file, path, config, files, error);
        safetensors_close(file);
    }
    return status;
}

/* sha256: of what was parsed, where there is something to parse. */
static Status read_beside(char sha256[SHA256_HEX_SIZE], const char *path, Error *error)
{
    JsonDocument *document;
    if (!ends_with(path, ".json")) {
        return sha256_file(sha256, path, error);
    }
    Status status = json_read(&document, path, MAX_JSON_BYTES, error);
    if (status == STATUS_OK) {
        memcpy(sha256, json_sha256(document), SHA256_HEX_SIZE);
        json_free(document);
    }
    return status;
}

/* Files that others make something of. */
static Status list_beside(const char *directory, ModelFiles *files, Error *error)
{
    Status status = STATUS_OK;
    const char *name;
    for (size_t i = 0; (name = model_file_beside(i)) != NULL && status == STATUS_OK; i++) {
        char path[FILE_PATH_MAX], sha256[SHA256_HEX_SIZE];
        status = path_join(path, directory, name, error);
        if (status == STATUS_OK && file_exists(path)) {
            status = read_beside(sha256, path, error);
            status =
                status == STATUS_OK && files ? model_files_add(files, name, sha256, error) : status;
        }
    }
    return status;
}

static Status verify_model(const char *directory, ModelFiles *files, Error *error)
{
    ModelConfig config;
    char tokenizer[FILE_PATH_MAX];
    Status status = verify_config(directory, &config, files, error);
    if (status == STATUS_OK) {
        status = verify_weights(directory, &config, files, error);
    }
    if (status == STATUS_OK) {
        status = model_file_path(tokenizer, directory, "tokenizer.json", error);
    }
    if (status == STATUS_OK && file_exists(tokenizer)) {
        status = verify_tokenizer(tokenizer, &config, files, error);
    }
    return status == STATUS_OK ? list_beside(directory, files, error) : status;
}

/* The format, whatever the file is called; then what it says: all from one mapping. */
static Status verify_gguf(const char *path, ModelFiles *files, Error *error)
{
    SafeTensors *file;
    Tokenizer *tokenizer;
    ModelConfig config;
    Status status = safetensors_open_gguf(&file, path, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = gguf_model_config(&config, safetensors_gguf(file), error); /* as it did at opening */
    if (status == STATUS_OK) {
        status = check_weights(file, path, &config, files, error);
    }
    if (status == STATUS_OK) {
        status = tokenizer_of_gguf(&tokenizer, safetensors_gguf(file), path, error);
    }
    if (status == STATUS_OK) {
        status = check_ids(tokenizer, path, &config, error);
        tokenizer_free(tokenizer);
    }
    safetensors_close(file);
    return status;
}

static Status verify_json(const char *path, ModelFiles *files, Error *error)
{
    char sha256[SHA256_HEX_SIZE];
    Status status = json_check(sha256, path, MAX_JSON_BYTES, error);
    return status == STATUS_OK && files ? model_files_add(files, name_of(path), sha256, error)
                                        : status;
}

Status verify_path(const char *path, VerifyKind kind, ModelFiles *files, Error *error)
{
    ModelConfig config;
    if (directory_exists(path)) {
        return verify_model(path, files, error);
    }
    switch (kind) {
    case VERIFY_MODEL:
        if (gguf_is(path)) {
            return verify_gguf(path, files, error);
        }
        return error_set(error, file_exists(path) ? STATUS_REFUSED : STATUS_FAILED, "%s: %s", path,
                         file_exists(path) ? "is a file, a model directory was expected"
                                           : "there is no such directory");
    case VERIFY_SAFETENSORS:
        return verify_safetensors(path, files, error);
    case VERIFY_GGUF:
        return verify_gguf(path, files, error);
    case VERIFY_TOKENIZER:
        return verify_tokenizer(path, NULL, files, error);
    case VERIFY_CONFIG:
        return verify_config(path, &config, files, error);
    case VERIFY_JSON:
        return verify_json(path, files, error);
    case VERIFY_DATASET:
    case VERIFY_RESULTS:
        break;
    }
    return error_set(error, STATUS_USAGE,
                     "%s: datasets and results are checked by their own readers", path);
}
