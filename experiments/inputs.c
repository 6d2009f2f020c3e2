/* Hashing and whole paths of input files. */
#include "experiments/inputs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/gguf.h"
#include "core/model.h"

void inputs_release(InputHashes *hashes)
{
    free(hashes->files);
    *hashes = (InputHashes){0};
}

/* From the mapped file or shards. */
static Status weights_hash(char sha256[SHA256_HEX_SIZE], const char *path, Error *error)
{
    SafeTensors *file = NULL;
    if (gguf_is(path)) {
        return sha256_file(sha256, path, error);
    }
    Status status = safetensors_open(&file, path, error);
    if (!status) {
        safetensors_sha256(sha256, file);
    }
    safetensors_close(file);
    return status;
}

static Status hash_once(InputHashes *hashes, char sha256[SHA256_HEX_SIZE], const char *path,
                        Status (*hash)(char *, const char *, Error *), Error *error)
{
    for (size_t i = 0; i < hashes->n; i++) {
        if (strcmp(hashes->files[i].path, path) == 0) {
            memcpy(sha256, hashes->files[i].sha256, SHA256_HEX_SIZE);
            return STATUS_OK;
        }
    }
    Status status = hash(sha256, path, error);
    if (status) {
        return status;
    }
    void *more = realloc(hashes->files, (hashes->n + 1) * sizeof *hashes->files);
    if (!more) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    hashes->files = more;
    snprintf(hashes->files[hashes->n].path, sizeof hashes->files[0].path, "%s", path);
    memcpy(hashes->files[hashes->n++].sha256, sha256, SHA256_HEX_SIZE);
    return STATUS_OK;
}

Status inputs_hash_file(char sha256[SHA256_HEX_SIZE], InputHashes *hashes, const char *path,
                        Error *error)
{
    return hash_once(hashes, sha256, path, sha256_file, error);
}

Status inputs_hash_model(ModelHashes *model, InputHashes *hashes, const char *directory,
                         Error *error)
{
    char path[FILE_PATH_MAX];
    *model = (ModelHashes){0};
    Status status = model_weights_path(path, directory, error);
    status = status ? status : hash_once(hashes, model->weights, path, weights_hash, error);
    status = status ? status : model_file_path(path, directory, "tokenizer.json", error);
    status = status ? status : hash_once(hashes, model->tokenizer, path, sha256_file, error);
    status = status ? status : model_file_path(path, directory, "config.json", error);
    status = status ? status : hash_once(hashes, model->config, path, sha256_file, error);
    status = status ? status : model_file_path(path, directory, "generation_config.json", error);
    if (!status && !gguf_is(path) && file_exists(path)) {
        status = hash_once(hashes, model->generation, path, sha256_file, error);
    }
    return status;
}

Status path_make_absolute(char path[CONFIG_PATH], const char *key, Error *error)
{
    if (!path[0]) {
        return STATUS_OK;
    }
    char *whole = realpath(path, NULL);
    if (!whole) {
        return error_set(error, STATUS_REFUSED, "%s: \"%s\": %s", key, path, strerror(errno));
    }
    Status status = STATUS_OK;
    if (strlen(whole) >= CONFIG_PATH) {
        status = error_set(error, STATUS_USAGE, "%s: \"%s\": path too long", key, path);
    } else {
        strcpy(path, whole);
    }
    free(whole);
    return status;
}
