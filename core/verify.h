/* Checks an untrusted file or model directory by every rule, executes nothing, and says the first
 * rule broken. */
#pragma once
#include <stdbool.h>

#include "core/model_files.h"
#include "core/status.h"

typedef enum {
    VERIFY_MODEL, /* a directory (or a GGUF file): config, weights against it, every weight finite, tokenizer */
    VERIFY_SAFETENSORS, /* one file, by the rules of the format */
    VERIFY_GGUF,        /* one GGUF file: the format, then all that VERIFY_MODEL checks */
    VERIFY_TOKENIZER,   /* one tokenizer.json */
    VERIFY_CONFIG,      /* one config.json */
    VERIFY_JSON,        /* one file, by the grammar of RFC 8259 alone: keys may be there twice */
    VERIFY_DATASET,     /* rl/dataset.h checks these */
    VERIFY_RESULTS      /* a results.db: results/store.h checks these */
} VerifyKind;

/* name: "model" or "modeldir", "safetensors", "gguf", "tokenizer", "config", "json", "dataset",
 * "results_db". */
bool verify_kind_find(VerifyKind *kind, const char *name);
/* What a path is by its name: a directory is a model, "*.safetensors", "*.gguf", "*tokenizer*.json",
 * "*.jsonl", other "*.json", "*.db". */
bool verify_kind_guess(VerifyKind *kind, const char *path);

/* A directory is checked whole, whatever the kind. files: NULL, or a list that gets what was read,
 * with hashes (which reads all of the weights once more). Errors: STATUS_REFUSED with the path, the
 * place and the rule; STATUS_FAILED when something cannot be read; STATUS_USAGE for
 * VERIFY_DATASET and VERIFY_RESULTS. */
Status verify_path(const char *path, VerifyKind kind, ModelFiles *files, Error *error);
