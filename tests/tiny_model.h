/* Small random models for tests, written to disk and opened as any model: of every family, tied or
 * own head. Odd sizes, grouped heads, weights large enough that every part of the model matters
 * (norms are not 1, biases not 0). */
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/model.h"
#include "core/random.h"

/* A test program has no caller to report to. */
static inline void tiny_require(Status status, const Error *error)
{
    if (status != STATUS_OK) {
        fprintf(stderr, "tiny model: %s\n", error->message);
        abort();
    }
}

/* 2 layers, D 24, 3 query heads over 1, FF 40, V 37 unless changed by the caller before
 * tiny_model_write. Qwen3's second layer attends to 6 positions, Mistral's both to 7. */
static inline ModelConfig tiny_config(Architecture architecture, bool tied)
{
    return (ModelConfig){.architecture = architecture,
                         .n_layers = 2,
                         .width = 24,
                         .n_heads = 3,
                         .n_kv_heads = 1,
                         .head_dim = 8,
                         .ff_width = 40,
                         .vocab_size = 37,
                         .max_positions = 512,
                         .rope_theta = 10000,
                         .rms_eps = 1e-5,
                         .tied_head = tied,
                         .attention_bias = architecture == ARCHITECTURE_QWEN2,
                         .qk_norm = architecture == ARCHITECTURE_QWEN3,
                         .window = architecture == ARCHITECTURE_QWEN3     ? 6
                                   : architecture == ARCHITECTURE_MISTRAL ? 7
                                                                          : 0,
                         .window_from = architecture == ARCHITECTURE_QWEN3 ? 1 : 0,
                         .bos_id = 1,
                         .eos_ids = {2},
                         .n_eos = 1,
                         .dtype = TENSOR_F32};
}

/* A new directory with the model; its name into directory (256). Matrices ~ N(0, 1.44 / in),
 * embedding ~ N(0, 1), norms ~ N(1, 0.04), biases ~ N(0, 0.09); a function of (config, seed). */
static inline void tiny_model_write(char directory[256], const ModelConfig *config, uint64_t seed)
{
    TensorSpec *specs;
    size_t n = model_config_tensors(&specs, config);
    float **weights = calloc(n, sizeof *weights);
    for (size_t i = 0; i < n; i++) {
        size_t rows = specs[i].dims[0], columns = specs[i].n_dims > 1 ? specs[i].dims[1] : 1;
        bool bias = strstr(specs[i].name, "bias") != NULL;
        bool embedding = strstr(specs[i].name, "embed_tokens") != NULL;
        bool norm = specs[i].n_dims == 1 && !bias;
        double deviation = bias ? 0.3 : norm ? 0.2 : embedding ? 1 : 1.2 / sqrt((double)columns);
        RandomKey key = {random_seed_for(seed, specs[i].name), RANDOM_WEIGHT};
        weights[i] = malloc(rows * columns * sizeof **weights);
        for (size_t e = 0; e < rows * columns; e++) {
            double normal = random_normal(key, (uint32_t)e, 0, 0, 0);
            weights[i][e] = (float)(normal * deviation + (norm ? 1 : 0));
        }
    }
    static int count = 0;
    snprintf(directory, 256, "%s/tiny-%ld-%d", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp",
             (long)getpid(), count++);
    Error error = {{0}};
    tiny_require(
        model_directory_write(directory, config, (const float *const *)weights, NULL, &error),
        &error);
    for (size_t i = 0; i < n; i++) {
        free(weights[i]);
    }
    free(weights);
    free(specs);
}

static inline void tiny_model_remove(const char *directory)
{
    const char *const names[] = {"config.json", "model.safetensors", "generation_config.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        unlink(path);
    }
    rmdir(directory);
}

/* Write, open, and remove the directory again (the mapping keeps the data). */
static inline Model *tiny_model_open(const ModelConfig *config, uint64_t seed)
{
    char directory[256];
    Model *model;
    Error error = {{0}};
    tiny_model_write(directory, config, seed);
    tiny_require(model_open(&model, directory, 1, &error), &error);
    tiny_model_remove(directory);
    return model;
}
