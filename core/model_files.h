/* The files of a model as they were read, each with the SHA-256 of the very bytes that were parsed:
 * none is opened a second time to be hashed. */
#pragma once
#include <stdbool.h>

#include "core/file.h"
#include "core/sha256.h"

enum { MODEL_FILES_MAX = 1100 }; /* an index with all its shards, and the rest */

typedef struct {
    char name[256]; /* without folder */
    char sha256[SHA256_HEX_SIZE];
} ModelFile;

/* Flat, so that it can lie in memory shared with another process; zeroed at the start. */
typedef struct {
    ModelFile files[MODEL_FILES_MAX]; /* the one that was named comes first */
    size_t n;
    char weights_sha256[SHA256_HEX_SIZE]; /* as safetensors_sha256; "" without weights */
} ModelFiles;

/* Those of a model directory that are read where they are there, but for the weights and tokenizer
 * and config: the i-th name, NULL behind the last. */
const char *model_file_beside(size_t i);
/* Errors: STATUS_REFUSED for a name of 256 bytes or more, or too many. */
Status model_files_add(ModelFiles *list, const char *name, const char *sha256, Error *error);
