/* Writes GGUF files for tests: the metadata and tokenizer of a model, and its tensors in any type
 * that needs no quantiser, with q and k in llama.cpp's order. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/gguf_model.h"
#include "core/gguf_write.h"
#include "core/model_config.h"

static inline void put_bytes(Text *out, const void *bytes, size_t n)
{
    text_append(out, bytes, n);
}

static inline void put_u32(Text *out, uint32_t value)
{
    put_bytes(out, &value, sizeof value);
}

static inline void put_u64(Text *out, uint64_t value)
{
    put_bytes(out, &value, sizeof value);
}

static inline void put_string(Text *out, const char *string, size_t n)
{
    put_u64(out, n);
    put_bytes(out, string, n);
}

/* The start of an array; its elements follow. */
static inline void put_array(Text *out, const char *key, GgufKind kind, size_t n)
{
    put_string(out, key, strlen(key));
    put_u32(out, GGUF_ARRAY);
    put_u32(out, kind);
    put_u64(out, n);
}

static inline void put_bool(Text *out, const char *key, bool value)
{
    put_string(out, key, strlen(key));
    put_u32(out, GGUF_BOOL);
    text_append(out, value ? "\1" : "", 1);
}

/* A header whose counts come first, before they are known. */
typedef struct {
    Text values, tensors, data;
    size_t n_values, n_tensors, offset;
} GgufFile;

static inline void file_u32(GgufFile *file, const char *front, const char *key, uint32_t value)
{
    char whole[128];
    snprintf(whole, sizeof whole, "%s%s", front, key);
    gguf_add_u32(&file->values, whole, value);
    file->n_values++;
}

static inline void file_f32(GgufFile *file, const char *front, const char *key, float value)
{
    char whole[128];
    snprintf(whole, sizeof whole, "%s%s", front, key);
    gguf_add_f32(&file->values, whole, value);
    file->n_values++;
}

static inline void file_string(GgufFile *file, const char *key, const char *value)
{
    gguf_add_string(&file->values, key, value);
    file->n_values++;
}

/* data: in the file's order. */
static inline void file_tensor(GgufFile *file, const Tensor *tensor, const void *data)
{
    gguf_add_tensor(&file->tensors, tensor, GGUF_ALIGNMENT, &file->offset);
    put_bytes(&file->data, data, tensor->n_bytes);
    gguf_add_padding(&file->data, GGUF_ALIGNMENT);
    file->n_tensors++;
}

/* The whole into out; the parts are released. */
static inline void file_finish(GgufFile *file, Text *out)
{
    gguf_add_start(out, file->n_tensors, file->n_values);
    put_bytes(out, text_string(&file->values), file->values.n);
    put_bytes(out, text_string(&file->tensors), file->tensors.n);
    gguf_add_padding(out, GGUF_ALIGNMENT);
    put_bytes(out, text_string(&file->data), file->data.n);
    text_release(&file->values);
    text_release(&file->tensors);
    text_release(&file->data);
}

/* What llama.cpp's converter writes of a config. */
static inline void file_config(GgufFile *file, const ModelConfig *config)
{
    char front[32];
    const char *name = architecture_row(config->architecture)->gguf;
    snprintf(front, sizeof front, "%s.", name);
    file_string(file, "general.architecture", name);
    file_string(file, "general.type", "model");
    file_u32(file, front, "context_length", (uint32_t)config->max_positions);
    file_u32(file, front, "embedding_length", (uint32_t)config->width);
    file_u32(file, front, "block_count", (uint32_t)config->n_layers);
    file_u32(file, front, "feed_forward_length", (uint32_t)config->ff_width);
    file_u32(file, front, "attention.head_count", (uint32_t)config->n_heads);
    file_u32(file, front, "attention.head_count_kv", (uint32_t)config->n_kv_heads);
    file_u32(file, front, "attention.key_length", (uint32_t)config->head_dim);
    file_u32(file, front, "rope.dimension_count", (uint32_t)config->head_dim);
    file_f32(file, front, "rope.freq_base", (float)config->rope_theta);
    file_f32(file, front, "attention.layer_norm_rms_epsilon", (float)config->rms_eps);
    if (config->rope_type == ROPE_LINEAR || config->rope_type == ROPE_YARN) {
        char key[64];
        snprintf(key, sizeof key, "%srope.scaling.type", front);
        file_string(file, key, config->rope_type == ROPE_YARN ? "yarn" : "linear");
        file_f32(file, front, "rope.scaling.factor", (float)config->rope_factor);
    }
    if (config->rope_type == ROPE_YARN) {
        file_u32(file, front, "rope.scaling.original_context_length",
                 (uint32_t)config->rope_original_positions);
    }
    if (config->rope_type == ROPE_YARN && config->rope_beta_fast != 32) { /* else left out */
        file_f32(file, front, "rope.scaling.yarn_beta_fast", (float)config->rope_beta_fast);
        file_f32(file, front, "rope.scaling.yarn_beta_slow", (float)config->rope_beta_slow);
    }
    if (config->window) {
        file_u32(file, front, "attention.sliding_window", (uint32_t)config->window);
    }
}

/* SentencePiece: <unk>, <s>, </s>, the bytes, then letters until there are n. n: at least 259. */
static inline void file_tokenizer(GgufFile *file, int n)
{
    char token[16];
    file_string(file, "tokenizer.ggml.model", "llama");
    put_array(&file->values, "tokenizer.ggml.tokens", GGUF_STRING, (size_t)n);
    for (int i = 0; i < n; i++) {
        static const char *const first[] = {"<unk>", "<s>", "</s>"};
        if (i < 3) {
            snprintf(token, sizeof token, "%s", first[i]);
        } else if (i < 259) {
            snprintf(token, sizeof token, "<0x%02X>", (unsigned)i - 3);
        } else {
            snprintf(token, sizeof token, "%c%s", 'a' + (i - 259) % 26, i < 285 ? "" : "b");
        }
        put_string(&file->values, token, strlen(token));
    }
    put_array(&file->values, "tokenizer.ggml.scores", GGUF_FLOAT32, (size_t)n);
    for (int i = 0; i < n; i++) {
        float score = (float)-i;
        put_bytes(&file->values, &score, sizeof score);
    }
    put_array(&file->values, "tokenizer.ggml.token_type", GGUF_INT32, (size_t)n);
    for (int i = 0; i < n; i++) {
        put_u32(&file->values, i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1);
    }
    file->n_values += 3;
    file_u32(file, "tokenizer.ggml.", "bos_token_id", 1);
    file_u32(file, "tokenizer.ggml.", "eos_token_id", 2);
    file_u32(file, "tokenizer.ggml.", "unknown_token_id", 0);
}

/* "model.layers.1.mlp.up_proj.weight" as llama.cpp calls it. */
static inline void gguf_name_of(char out[GGUF_NAME_MAX], const char *name)
{
    static const char *const parts[] = {"token_embd.weight", "output_norm.weight", "output.weight"};
    static const char *const inside[] = {"attn_norm.weight", "ffn_norm.weight",
                                         "attn_q_norm.weight", "attn_k_norm.weight"};
    char back[128];
    for (int layer = -1; layer < 8; layer++) {
        for (int i = 0; i < (layer < 0 ? 3 : 4 + 2 * N_ROLES); i++) {
            if (layer < 0) {
                snprintf(out, GGUF_NAME_MAX, "%s", parts[i]);
            } else if (i < 4) {
                snprintf(out, GGUF_NAME_MAX, "blk.%d.%s", layer, inside[i]);
            } else {
                snprintf(out, GGUF_NAME_MAX, "blk.%d.%s.%s", layer,
                         gguf_role_name((Role)((i - 4) / 2)), i % 2 ? "bias" : "weight");
            }
            if (gguf_tensor_name(back, out) && strcmp(back, name) == 0) {
                return;
            }
        }
    }
    abort();
}

static inline bool is_turned(const char *name)
{
    return strstr(name, "self_attn.q_proj.") || strstr(name, "self_attn.k_proj.");
}

/* The tensors of a safetensors file: matrices in their type, vectors in F32, as converters do. */
static inline void file_weights(GgufFile *file, const SafeTensors *weights,
                                const ModelConfig *config)
{
    int turned = gguf_turned(config, ROLE_Q);
    for (size_t i = 0; i < safetensors_count(weights); i++) {
        const Tensor *from = safetensors_at(weights, i);
        char name[GGUF_NAME_MAX];
        Tensor tensor = *from;
        gguf_name_of(name, from->name);
        tensor.name = name;
        size_t n = tensor_n_elements(from), rows = from->dims[0], n_row = n / rows;
        tensor.type = from->n_dims == 1 ? TENSOR_F32 : from->type;
        size_t row_bytes = tensor_type_bytes(tensor.type, n_row);
        tensor.n_bytes = rows * row_bytes;
        float *values = malloc(n * sizeof *values);
        char *data = malloc(tensor.n_bytes), *straight = malloc(tensor.n_bytes);
        tensor_read(values, from);
        tensor_from_f32(straight, values, tensor.type, n);
        for (size_t row = 0; row < rows; row++) {
            /* reshape(heads, 2, half).swapaxes(1, 2) */
            size_t head = (size_t)turned, place = row;
            if (head && is_turned(from->name)) {
                size_t inside = row % head;
                place = row - inside + inside % (head / 2) * 2 + inside / (head / 2);
            }
            memcpy(data + place * row_bytes, straight + row * row_bytes, row_bytes);
        }
        file_tensor(file, &tensor, data);
        free(values);
        free(data);
        free(straight);
    }
}

/* The model of a directory; extra: NULL, or one more tensor before its own. */
static inline void file_model(GgufFile *file, const char *directory, const ModelConfig *config,
                              const Tensor *extra)
{
    char path[300];
    SafeTensors *weights;
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    if (safetensors_open(&weights, path, NULL) != STATUS_OK) {
        abort();
    }
    file_config(file, config);
    file_tokenizer(file, config->vocab_size);
    if (extra) {
        file_tensor(file, extra, extra->data);
    }
    file_weights(file, weights, config);
    safetensors_close(weights);
}
