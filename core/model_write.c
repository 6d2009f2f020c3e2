/* Writing model directories: trained weights, and random ones streamed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/model_config.h"
#include "core/model_rope.h"
#include "core/random.h"
#include "core/text.h"

enum { CHUNK = 1 << 16, MAX_TOKENIZER_BYTES = 1 << 28 };

/* Appends the data of one tensor, in the type that is written. */
typedef Status (*AppendTensor)(void *context, FileWriter *writer, size_t i, const TensorSpec *spec,
                               Error *error);

static size_t n_elements(const TensorSpec *spec)
{
    return spec->n_dims == 2 ? spec->dims[0] * spec->dims[1] : spec->dims[0];
}

/* The shortest decimal that reads back as the same number. */
static void add_number(Text *text, const char *key, double value)
{
    char digits[32];
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value) {
            break;
        }
    }
    text_printf(text, "\"%s\": %s", key, digits);
}

static void add_rope(Text *text, const ModelConfig *config)
{
    text_add(text, "  ");
    add_number(text, "rope_theta", config->rope_theta);
    text_add(text, ",\n");
    if (config->rope_type == ROPE_PLAIN) {
        return;
    }
    const struct {
        const char *key;
        double value; /* 0: not of this type */
    } numbers[] = {
        {"factor", config->rope_factor},
        {"low_freq_factor", config->rope_low_freq_factor},
        {"high_freq_factor", config->rope_high_freq_factor},
        {"beta_fast", config->rope_beta_fast},
        {"beta_slow", config->rope_beta_slow},
        {"attention_factor", config->rope_attention_factor},
        {"original_max_position_embeddings", config->rope_original_positions},
    };
    text_printf(text, "  \"rope_scaling\": {\"rope_type\": \"%s\"",
                rope_type_name(config->rope_type));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (numbers[i].value != 0) {
            text_add(text, ", ");
            add_number(text, numbers[i].key, numbers[i].value);
        }
    }
    text_add(text, "},\n");
}

static void add_eos(Text *text, const ModelConfig *config)
{
    if (config->n_eos == 0) {
        return;
    }
    text_add(text, config->n_eos > 1 ? "  \"eos_token_id\": [" : "  \"eos_token_id\": ");
    for (int i = 0; i < config->n_eos; i++) {
        text_printf(text, "%s%d", i ? ", " : "", config->eos_ids[i]);
    }
    text_add(text, config->n_eos > 1 ? "],\n" : ",\n");
}

static void add_window(Text *text, const ModelConfig *config)
{
    WindowRule rule = architecture_row(config->architecture)->window;
    if (config->window > 0) {
        text_printf(text, "  \"sliding_window\": %d,\n", config->window);
    } else if (rule == WINDOW_ALWAYS) {
        text_add(text, "  \"sliding_window\": null,\n");
    }
    if (config->window > 0 && rule == WINDOW_BY_KEY) {
        text_printf(text, "  \"use_sliding_window\": true,\n  \"max_window_layers\": %d,\n",
                    config->window_from);
    }
}

static void add_config(Text *text, const ModelConfig *config)
{
    const ArchitectureRow *row = architecture_row(config->architecture);
    static const char *const dtypes[] = {"float32", "float16", "bfloat16"};
    text_printf(text, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n",
                row->class_name, row->model_type);
    text_printf(text, "  \"hidden_size\": %d,\n  \"intermediate_size\": %d,\n", config->width,
                config->ff_width);
    text_printf(text, "  \"num_hidden_layers\": %d,\n  \"num_attention_heads\": %d,\n",
                config->n_layers, config->n_heads);
    text_printf(text, "  \"num_key_value_heads\": %d,\n  \"head_dim\": %d,\n", config->n_kv_heads,
                config->head_dim);
    text_printf(text, "  \"vocab_size\": %d,\n  \"max_position_embeddings\": %d,\n",
                config->vocab_size, config->max_positions);
    text_add(text, "  ");
    add_number(text, "rms_norm_eps", config->rms_eps);
    text_add(text, ",\n");
    add_rope(text, config);
    add_window(text, config);
    text_printf(text, "  \"hidden_act\": \"silu\",\n  \"tie_word_embeddings\": %s,\n",
                config->tied_head ? "true" : "false");
    if (row->may_bias) {
        text_printf(text, "  \"attention_bias\": %s,\n", config->attention_bias ? "true" : "false");
    }
    if (row->may_mlp_bias) {
        text_printf(text, "  \"mlp_bias\": %s,\n", config->mlp_bias ? "true" : "false");
    }
    if (config->bos_id >= 0) {
        text_printf(text, "  \"bos_token_id\": %d,\n", config->bos_id);
    }
    add_eos(text, config);
    text_printf(text, "  \"torch_dtype\": \"%s\"\n}\n", dtypes[config->dtype]);
}

static Status write_config(const char *folder, const ModelConfig *config, Error *error)
{
    char path[FILE_PATH_MAX];
    Status status = path_join(path, folder, "config.json", error);
    if (status == STATUS_OK) {
        Text text = {0};
        add_config(&text, config);
        status = file_write(path, text.bytes, text.n, error);
        text_release(&text);
    }
    return status;
}

static Status write_weights(const char *folder, const ModelConfig *config, AppendTensor append,
                            void *context, Error *error)
{
    char path[FILE_PATH_MAX];
    Status status = path_join(path, folder, "model.safetensors", error);
    if (status != STATUS_OK) {
        return status;
    }
    TensorSpec *specs;
    size_t n = model_config_tensors(&specs, config);
    Tensor *tensors = calloc(n, sizeof *tensors);
    if (!tensors) {
        free(specs);
        return error_set(error, STATUS_FAILED, "%s: no memory for %zu tensors", path, n);
    }
    for (size_t i = 0; i < n; i++) {
        tensors[i] = (Tensor){.name = specs[i].name,
                              .type = config->dtype,
                              .n_dims = specs[i].n_dims,
                              .dims = {specs[i].dims[0], specs[i].dims[1]}};
    }
    static const char *const metadata[] = {"format", "pt"}; /* transformers asks for it */
    FileWriter writer;
    status = safetensors_begin(&writer, path, tensors, n, metadata, 1, error);
    if (status == STATUS_OK) {
        for (size_t i = 0; i < n && status == STATUS_OK; i++) {
            status = append(context, &writer, i, &specs[i], error);
        }
        if (status == STATUS_OK) {
            status = file_writer_commit(&writer, error);
        }
        if (status != STATUS_OK) {
            file_writer_cancel(&writer);
        }
    }
    free(tensors);
    free(specs);
    return status;
}

static Status copy_tokenizer(const char *folder, const char *tokenizer_path, Error *error)
{
    char path[FILE_PATH_MAX], *bytes;
    size_t n;
    Status status = file_read(&bytes, &n, tokenizer_path, MAX_TOKENIZER_BYTES, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = path_join(path, folder, "tokenizer.json", error);
    if (status == STATUS_OK) {
        status = file_write(path, bytes, n, error);
    }
    free(bytes);
    return status;
}

/* The three files, config.json last: without it a folder is no model. */
static Status write_files(const char *folder, const ModelConfig *config, AppendTensor append,
                          void *context, const char *tokenizer_path, Error *error)
{
    Status status = write_weights(folder, config, append, context, error);
    if (status == STATUS_OK && tokenizer_path) {
        status = copy_tokenizer(folder, tokenizer_path, error);
    }
    return status == STATUS_OK ? write_config(folder, config, error) : status;
}

static Status write_directory(const char *directory, const ModelConfig *config, AppendTensor append,
                              void *context, const char *tokenizer_path, Error *error)
{
    if (directory_occupied(directory)) {
        return write_files(directory, config, append, context, tokenizer_path, error);
    }
    FileWriter folder;
    Status status = directory_writer_open(&folder, directory, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = write_files(folder.temporary, config, append, context, tokenizer_path, error);
    if (status == STATUS_OK) {
        status = directory_writer_commit(&folder, error);
    }
    if (status != STATUS_OK) {
        directory_writer_cancel(&folder);
    }
    return status;
}

typedef struct {
    const float *const *weights;
    TensorType type;
    unsigned char buffer[4 * CHUNK];
} GivenWeights;

static Status append_given(void *context, FileWriter *writer, size_t i, const TensorSpec *spec,
                           Error *error)
{
    GivenWeights *given = context;
    size_t n = n_elements(spec), size = tensor_type_size(given->type);
    Status status = STATUS_OK;
    for (size_t start = 0; start < n && status == STATUS_OK; start += CHUNK) {
        size_t count = n - start < CHUNK ? n - start : CHUNK;
        tensor_from_f32(given->buffer, given->weights[i] + start, given->type, count);
        status = file_writer_append(writer, given->buffer, count * size, error);
    }
    return status;
}

Status model_directory_write(const char *directory, const ModelConfig *config,
                             const float *const *weights, const char *tokenizer_path, Error *error)
{
    GivenWeights *given = malloc(sizeof *given);
    if (!given) {
        return error_set(error, STATUS_FAILED, "%s: no memory", directory);
    }
    given->weights = weights;
    given->type = config->dtype;
    Status status = write_directory(directory, config, append_given, given, tokenizer_path, error);
    free(given);
    return status;
}

typedef struct {
    uint64_t seed;
    TensorType type;
    /* 0.02 times the normal quantile of (i + 1/2) / 65536, in the type that is written. */
    uint32_t quantiles32[65536];
    uint16_t quantiles16[65536];
    unsigned char buffer[4 * CHUNK];
} RandomWeights;

/* Newton's method from one quantile to the next, outwards from the middle. */
static void fill_quantiles(RandomWeights *weights)
{
    double x = 0;
    for (int i = 32768; i < 65536; i++) {
        double above = 1 - (i + 0.5) / 65536; /* mass above the quantile */
        for (int k = 0; k < 6; k++) {
            double density = 0.3989422804014326779 * exp(-0.5 * x * x);
            x += (0.5 * erfc(x * 0.7071067811865475244) - above) / density;
        }
        float pair[2] = {(float)(0.02 * x), (float)(-0.02 * x)};
        for (int k = 0; k < 2; k++) {
            int place = k ? 65535 - i : i;
            memcpy(&weights->quantiles32[place], &pair[k], sizeof pair[k]);
            if (weights->type != TENSOR_F32) {
                tensor_from_f32(&weights->quantiles16[place], &pair[k], weights->type, 1);
            }
        }
    }
}

static void fill_random(RandomWeights *weights, RandomKey key, size_t start, size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        uint64_t block = (start + i) / 8;
        uint32_t words[4];
        random_words(words, key, (uint32_t)block, (uint32_t)(block >> 32), 0, 0);
        for (size_t j = 0; j < 8 && i + j < count; j++) {
            uint32_t piece = words[j / 2] >> (j % 2 * 16) & 0xffff;
            if (weights->type == TENSOR_F32) {
                memcpy(weights->buffer + 4 * (i + j), &weights->quantiles32[piece], 4);
            } else {
                memcpy(weights->buffer + 2 * (i + j), &weights->quantiles16[piece], 2);
            }
        }
    }
}

static Status append_random(void *context, FileWriter *writer, size_t tensor,
                            const TensorSpec *spec, Error *error)
{
    (void)tensor;
    RandomWeights *weights = context;
    size_t n = n_elements(spec), size = tensor_type_size(weights->type);
    RandomKey key = {random_seed_for(weights->seed, spec->name), RANDOM_WEIGHT};
    const char *end = strrchr(spec->name, '.');
    bool is_norm = spec->n_dims == 1 && strcmp(end, ".weight") == 0;
    Status status = STATUS_OK;
    for (size_t start = 0; start < n && status == STATUS_OK; start += CHUNK) {
        size_t count = n - start < CHUNK ? n - start : CHUNK;
        float one = 1;
        for (size_t i = 0; is_norm && i < count; i++) {
            tensor_from_f32(weights->buffer + i * size, &one, weights->type, 1);
        }
        if (!is_norm) {
            fill_random(weights, key, start, count);
        }
        status = file_writer_append(writer, weights->buffer, count * size, error);
    }
    return status;
}

/* tokenizer.json beside the config, or "" when there is none. config_path: a file or a folder. */
static Status find_tokenizer(char path[FILE_PATH_MAX], const char *config_path, Error *error)
{
    char folder[FILE_PATH_MAX];
    snprintf(folder, sizeof folder, "%s", config_path);
    if (!directory_exists(folder)) {
        char *slash = strrchr(folder, '/');
        strcpy(slash ? slash + 1 : folder, slash ? "" : ".");
    }
    Status status = path_join(path, folder, "tokenizer.json", error);
    if (status == STATUS_OK && !file_exists(path)) {
        path[0] = 0;
    }
    return status;
}

Status model_random_write(const char *directory, const char *config_path, TensorType dtype,
                          uint64_t seed, Error *error)
{
    ModelConfig config;
    char tokenizer[FILE_PATH_MAX];
    Status status = model_config_read(&config, config_path, error);
    if (status == STATUS_OK) {
        status = find_tokenizer(tokenizer, config_path, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (directory_occupied(directory)) {
        return error_set(error, STATUS_USAGE, "%s: exists already and is not empty", directory);
    }
    RandomWeights *weights = malloc(sizeof *weights);
    if (!weights) {
        return error_set(error, STATUS_FAILED, "%s: no memory", directory);
    }
    config.dtype = weights->type = dtype;
    weights->seed = seed;
    fill_quantiles(weights);
    status = write_directory(directory, &config, append_random, weights,
                             tokenizer[0] ? tokenizer : NULL, error);
    free(weights);
    return status;
}
