/* The files that enter a run or a surface, by their hashes and their whole paths. */
#pragma once
#include "core/file.h"
#include "core/sha256.h"
#include "experiments/settings.h"

/* Hashes by path, so that a file is read once however many cells share it; zeroed at the start. */
typedef struct {
    struct {
        char path[FILE_PATH_MAX];
        char sha256[SHA256_HEX_SIZE];
    } * files; /* (n) */
    size_t n;
} InputHashes;
void inputs_release(InputHashes *hashes);

typedef struct {
    char config[SHA256_HEX_SIZE], weights[SHA256_HEX_SIZE], tokenizer[SHA256_HEX_SIZE];
    char generation[SHA256_HEX_SIZE]; /* "" without generation_config.json */
} ModelHashes;

/* Errors: STATUS_REFUSED, STATUS_FAILED (the file). */
Status inputs_hash_file(char sha256[SHA256_HEX_SIZE], InputHashes *hashes, const char *path,
                        Error *error);
/* The weights' is the same that model_weights_sha256 gives. */
Status inputs_hash_model(ModelHashes *model, InputHashes *hashes, const char *directory,
                         Error *error);

/* So that what is stored can be read again from any folder; "" stays. Errors: STATUS_REFUSED naming
 * the key. */
Status path_make_absolute(char path[CONFIG_PATH], const char *key, Error *error);
