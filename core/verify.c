/* Checks by opening: the readers hold the rules, this file says which reader reads what. */
#include "core/verify.h"

#include <string.h>

#include "core/file.h"
#include "core/model_config.h"
#include "core/safetensors.h"
#include "core/tokenizer.h"

static const struct {
    const char *name;
    VerifyKind kind;
} kinds[] = {
    {"model", VERIFY_MODEL},
    {"modeldir", VERIFY_MODEL},
    {"safetensors", VERIFY_SAFETENSORS},
    {"tokenizer", VERIFY_TOKENIZER},
    {"config", VERIFY_CONFIG},
    {"dataset", VERIFY_DATASET},
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
    } else if (ends_with(name, ".jsonl")) {
        *kind = VERIFY_DATASET;
    } else if (ends_with(name, ".json")) {
        *kind = strstr(name, "tokenizer") ? VERIFY_TOKENIZER : VERIFY_CONFIG;
    } else {
        return false;
    }
    return true;
}

static Status verify_safetensors(const char *path, Error *error)
{
    SafeTensors *file;
    Status status = safetensors_open(&file, path, error);
    if (status == STATUS_OK) {
        safetensors_close(file);
    }
    return status;
}

/* config: NULL, or the model's, whose vocabulary must have a place for every id. */
static Status verify_tokenizer(const char *path, const ModelConfig *config, Error *error)
{
    Tokenizer *tokenizer;
    Status status = tokenizer_open(&tokenizer, path, error);
    if (status != STATUS_OK) {
        return status;
    }
    int32_t size = tokenizer_size(tokenizer);
    tokenizer_free(tokenizer);
    if (config && size > config->vocab_size) {
        return error_set(error, STATUS_REFUSED,
                         "%s: has the id %d, the config's \"vocab_size\" is %d", path,
                         (int)size - 1, config->vocab_size);
    }
    return STATUS_OK;
}

static Status verify_weights(const char *directory, const ModelConfig *config, Error *error)
{
    char path[FILE_PATH_MAX];
    SafeTensors *file;
    Status status = model_weights_path(path, directory, error);
    if (status == STATUS_OK) {
        status = safetensors_open(&file, path, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = model_config_check(config, file, error);
    if (status == STATUS_OK) {
        status = model_weights_check(config, file, error);
    }
    safetensors_close(file);
    return status == STATUS_OK ? STATUS_OK : error_context(error, status, "%s", path);
}

static Status verify_model(const char *directory, Error *error)
{
    ModelConfig config;
    char tokenizer[FILE_PATH_MAX];
    Status status = model_config_read(&config, directory, error);
    if (status == STATUS_OK) {
        status = verify_weights(directory, &config, error);
    }
    if (status == STATUS_OK) {
        status = path_join(tokenizer, directory, "tokenizer.json", error);
    }
    if (status == STATUS_OK && file_exists(tokenizer)) {
        status = verify_tokenizer(tokenizer, &config, error);
    }
    return status;
}

Status verify_path(const char *path, VerifyKind kind, Error *error)
{
    ModelConfig config;
    if (directory_exists(path)) {
        return verify_model(path, error);
    }
    switch (kind) {
    case VERIFY_MODEL:
        return error_set(error, file_exists(path) ? STATUS_REFUSED : STATUS_FAILED, "%s: %s", path,
                         file_exists(path) ? "is a file, a model directory was expected"
                                           : "there is no such directory");
    case VERIFY_SAFETENSORS:
        return verify_safetensors(path, error);
    case VERIFY_TOKENIZER:
        return verify_tokenizer(path, NULL, error);
    case VERIFY_CONFIG:
        return model_config_read(&config, path, error);
    case VERIFY_DATASET:
        break;
    }
    return error_set(error, STATUS_USAGE, "%s: a dataset is checked by its own reader", path);
}
