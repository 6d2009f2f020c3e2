/* config.json, and the end-of-text ids of generation_config.json beside it. Every value is checked
 * for its type and range here, so that no size computed from a config can overflow later; what
 * would change the arithmetic and is not implemented is refused by name. Unknown keys are allowed:
 * these files are full of them. */
#include "core/model_config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"

enum { MAX_CONFIG_BYTES = 1 << 20, REQUIRED = -1 };

/* An integer in min .. max. fallback: value when the key is absent or null, or REQUIRED. */
static Status read_int(int *out, const Json *root, const char *key, int min, int max, int fallback,
                       Error *error)
{
    const Json *value = json_get(root, key);
    if (json_kind(value) == JSON_NULL) {
        *out = fallback;
        return fallback != REQUIRED ? STATUS_OK
                                    : error_set(error, STATUS_REFUSED, "\"%s\" is missing", key);
    }
    if (json_kind(value) != JSON_NUMBER) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %s, not an integer", key,
                         json_kind_name(json_kind(value)));
    }
    int64_t number = 0;
    if (!json_int64(value, &number) || number < min || number > max) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %.40s, not an integer from %d to %d",
                         key, json_number_text(value), min, max);
    }
    *out = (int)number;
    return STATUS_OK;
}

/* A number in (0, max]. */
static Status read_positive(double *out, const Json *root, const char *key, double max,
                            double fallback, Error *error)
{
    const Json *value = json_get(root, key);
    if (json_kind(value) == JSON_NULL) {
        *out = fallback;
        return STATUS_OK;
    }
    if (json_kind(value) != JSON_NUMBER) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %s, not a number", key,
                         json_kind_name(json_kind(value)));
    }
    double number;
    if (!json_double(value, &number) || number <= 0 || number > max) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %.40s, not above 0 and at most %g", key,
                         json_number_text(value), max);
    }
    *out = number;
    return STATUS_OK;
}

static Status read_bool(bool *out, const Json *root, const char *key, bool fallback, Error *error)
{
    const Json *value = json_get(root, key);
    *out = fallback;
    if (json_kind(value) != JSON_NULL && !json_bool(value, out)) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %s, not true or false", key,
                         json_kind_name(json_kind(value)));
    }
    return STATUS_OK;
}

/* A string, or NULL when absent or null. */
static Status read_string(const char **out, const Json *root, const char *key, Error *error)
{
    const Json *value = json_get(root, key);
    size_t n = 0;
    *out = json_string(value, &n);
    if (json_kind(value) != JSON_NULL && (!*out || strlen(*out) != n)) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is not a plain string", key);
    }
    return STATUS_OK;
}

static const struct {
    const char *model_type, *class_name;
} architectures[] = {
    [ARCHITECTURE_LLAMA] = {"llama", "LlamaForCausalLM"},
    [ARCHITECTURE_QWEN2] = {"qwen2", "Qwen2ForCausalLM"},
};

/* model_type and architectures: at least one, and both the same. */
static Status read_architecture(ModelConfig *config, const Json *root, Error *error)
{
    const char *type = NULL;
    Status status = read_string(&type, root, "model_type", error);
    if (status != STATUS_OK) {
        return status;
    }
    const Json *list = json_get(root, "architectures");
    if (json_kind(list) != JSON_NULL && (json_kind(list) != JSON_ARRAY || json_size(list) > 1)) {
        return error_set(error, STATUS_REFUSED, "\"architectures\" is not a list of one name");
    }
    const Json *first = json_at(list, 0);
    const char *class_name = json_string(first, NULL);
    if (first && !class_name) {
        return error_set(error, STATUS_REFUSED, "\"architectures\" is not a list of one name");
    }
    if (!type && !class_name) {
        return error_set(error, STATUS_REFUSED, "has neither \"model_type\" nor \"architectures\"");
    }
    for (int i = 0; i < 2; i++) {
        bool type_fits = type && strcmp(type, architectures[i].model_type) == 0;
        bool class_fits = class_name && strcmp(class_name, architectures[i].class_name) == 0;
        if ((type_fits || !type) && (class_fits || !class_name)) {
            config->architecture = (Architecture)i;
            return STATUS_OK;
        }
        if ((type_fits && class_name) || (class_fits && type)) {
            return error_set(error, STATUS_REFUSED,
                             "\"model_type\" \"%.60s\" does not fit \"architectures\" \"%.60s\"",
                             type, class_name);
        }
    }
    return error_set(error, STATUS_REFUSED,
                     "architecture \"%.60s\" is not supported (LlamaForCausalLM and "
                     "Qwen2ForCausalLM are)",
                     class_name ? class_name : type);
}

static Status read_sizes(ModelConfig *config, const Json *root, Error *error)
{
    const struct {
        int *out;
        const char *key;
        int max, fallback;
    } sizes[] = {
        {&config->width, "hidden_size", 1 << 20, REQUIRED},
        {&config->n_layers, "num_hidden_layers", 4096, REQUIRED},
        {&config->n_heads, "num_attention_heads", 65536, REQUIRED},
        {&config->n_kv_heads, "num_key_value_heads", 65536, 0},
        {&config->head_dim, "head_dim", 1024, 0},
        {&config->ff_width, "intermediate_size", 1 << 22, REQUIRED},
        {&config->vocab_size, "vocab_size", 1 << 24, REQUIRED},
        {&config->max_positions, "max_position_embeddings", 1 << 21, REQUIRED},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        Status status =
            read_int(sizes[i].out, root, sizes[i].key, 1, sizes[i].max, sizes[i].fallback, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    if (!config->n_kv_heads) {
        config->n_kv_heads = config->n_heads;
    }
    if (config->n_heads % config->n_kv_heads) {
        return error_set(error, STATUS_REFUSED,
                         "\"num_key_value_heads\" %d does not divide \"num_attention_heads\" %d",
                         config->n_kv_heads, config->n_heads);
    }
    if (!config->head_dim) {
        if (config->width % config->n_heads) {
            return error_set(error, STATUS_REFUSED,
                             "\"num_attention_heads\" %d does not divide \"hidden_size\" %d",
                             config->n_heads, config->width);
        }
        config->head_dim = config->width / config->n_heads;
    }
    if (config->head_dim % 2) {
        return error_set(error, STATUS_REFUSED,
                         "\"head_dim\" %d is odd, rotary positions need pairs", config->head_dim);
    }
    return STATUS_OK;
}

static Status read_llama3_scaling(ModelConfig *config, const Json *scaling, Error *error)
{
    Status status = read_positive(&config->rope_factor, scaling, "factor", 1e6, 0, error);
    if (status == STATUS_OK) {
        status =
            read_positive(&config->rope_low_freq_factor, scaling, "low_freq_factor", 1e6, 0, error);
    }
    if (status == STATUS_OK) {
        status = read_positive(&config->rope_high_freq_factor, scaling, "high_freq_factor", 1e6, 0,
                               error);
    }
    if (status == STATUS_OK) {
        status = read_int(&config->rope_original_positions, scaling,
                          "original_max_position_embeddings", 1, 1 << 24, REQUIRED, error);
    }
    if (status == STATUS_OK && (config->rope_factor < 1 || config->rope_low_freq_factor <= 0 ||
                                config->rope_high_freq_factor <= config->rope_low_freq_factor)) {
        status = error_set(error, STATUS_REFUSED,
                           "needs \"factor\" of at least 1 and \"low_freq_factor\" below "
                           "\"high_freq_factor\"");
    }
    return status;
}

/* rope_theta and rope_scaling, or the newer rope_parameters that holds both. */
static Status read_rope(ModelConfig *config, const Json *root, Error *error)
{
    const char *key = json_kind(json_get(root, "rope_parameters")) == JSON_NULL ? "rope_scaling"
                                                                                : "rope_parameters";
    const Json *scaling = json_get(root, key);
    Status status = read_positive(&config->rope_theta, root, "rope_theta", 1e15, 10000, error);
    if (status != STATUS_OK || json_kind(scaling) == JSON_NULL) {
        return status;
    }
    if (json_kind(scaling) != JSON_OBJECT) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %s, not an object", key,
                         json_kind_name(json_kind(scaling)));
    }
    status =
        read_positive(&config->rope_theta, scaling, "rope_theta", 1e15, config->rope_theta, error);
    const char *type = NULL, *old_type = NULL;
    if (status == STATUS_OK) {
        status = read_string(&type, scaling, "rope_type", error);
    }
    if (status == STATUS_OK) {
        status = read_string(&old_type, scaling, "type", error);
    }
    type = type ? type : old_type;
    if (status == STATUS_OK && type && strcmp(type, "llama3") == 0) {
        status = read_llama3_scaling(config, scaling, error);
    } else if (status == STATUS_OK && (!type || strcmp(type, "default") != 0)) {
        status = error_set(error, STATUS_REFUSED, "rope type \"%.60s\" is not supported",
                           type ? type : "(none)");
    }
    return status == STATUS_OK ? STATUS_OK : error_context(error, status, "\"%s\"", key);
}

/* Settings that change the arithmetic and are implemented at one value alone. */
static Status refuse_unsupported(const Json *root, Error *error)
{
    const char *activation = NULL;
    Status status = read_string(&activation, root, "hidden_act", error);
    if (status != STATUS_OK) {
        return status;
    }
    if (activation && strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0) {
        return error_set(error, STATUS_REFUSED,
                         "\"hidden_act\" \"%.60s\" is not supported (silu is)", activation);
    }
    bool sliding = false;
    status = read_bool(&sliding, root, "use_sliding_window", false, error);
    if (status != STATUS_OK) {
        return status;
    }
    const Json *layer_types = json_get(root, "layer_types");
    for (size_t i = 0; i < json_size(layer_types); i++) {
        const char *type = json_string(json_at(layer_types, i), NULL);
        sliding = sliding || !type || strcmp(type, "full_attention") != 0;
    }
    if (sliding) {
        return error_set(error, STATUS_REFUSED, "sliding-window attention is not supported");
    }
    if (json_kind(json_get(root, "quantization_config")) != JSON_NULL) {
        return error_set(error, STATUS_REFUSED,
                         "\"quantization_config\": quantised weights are not "
                         "supported");
    }
    double rotary = 1;
    status = read_positive(&rotary, root, "partial_rotary_factor", 1, 1, error);
    if (status == STATUS_OK && rotary != 1) {
        status = error_set(error, STATUS_REFUSED, "\"partial_rotary_factor\" %g is not supported",
                           rotary);
    }
    return status;
}

/* Adds the id unless it is there. key: for messages. */
static Status add_eos(ModelConfig *config, const Json *value, Error *error)
{
    int64_t id;
    if (json_kind(value) != JSON_NUMBER || !json_int64(value, &id) || id < 0 ||
        id >= config->vocab_size) {
        return error_set(error, STATUS_REFUSED, "\"eos_token_id\" has no id from 0 to %d",
                         config->vocab_size - 1);
    }
    for (int i = 0; i < config->n_eos; i++) {
        if (config->eos_ids[i] == id) {
            return STATUS_OK;
        }
    }
    if (config->n_eos == (int)(sizeof config->eos_ids / sizeof *config->eos_ids)) {
        return error_set(error, STATUS_REFUSED, "\"eos_token_id\" has more than 8 ids");
    }
    config->eos_ids[config->n_eos++] = (int32_t)id;
    return STATUS_OK;
}

static Status read_eos(ModelConfig *config, const Json *root, Error *error)
{
    const Json *eos = json_get(root, "eos_token_id");
    if (json_kind(eos) == JSON_NULL) {
        return STATUS_OK;
    }
    if (json_kind(eos) != JSON_ARRAY) {
        return add_eos(config, eos, error);
    }
    Status status = STATUS_OK;
    for (size_t i = 0; i < json_size(eos) && status == STATUS_OK; i++) {
        status = add_eos(config, json_at(eos, i), error);
    }
    return status;
}

static Status read_dtype(ModelConfig *config, const Json *root, Error *error)
{
    static const char *const names[] = {"float32", "float16", "bfloat16"};
    const char *key = json_get(root, "torch_dtype") ? "torch_dtype" : "dtype", *name = NULL;
    Status status = read_string(&name, root, key, error);
    config->dtype = TENSOR_F32;
    if (status != STATUS_OK || !name) {
        return status;
    }
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            config->dtype = (TensorType)i;
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_REFUSED,
                     "\"%s\" \"%.60s\" is not supported (float32, float16 and bfloat16 are)", key,
                     name);
}

static Status read_flags_and_ids(ModelConfig *config, const Json *root, Error *error)
{
    Status status = read_bool(&config->tied_head, root, "tie_word_embeddings", false, error);
    if (status == STATUS_OK) {
        status = read_bool(&config->attention_bias, root, "attention_bias", false, error);
    }
    if (status == STATUS_OK) {
        status = read_bool(&config->mlp_bias, root, "mlp_bias", false, error);
    }
    config->output_bias = config->attention_bias;
    if (config->architecture == ARCHITECTURE_QWEN2) {
        config->attention_bias = true;
        config->output_bias = config->mlp_bias = false;
    }
    if (status == STATUS_OK) {
        status = read_positive(&config->rms_eps, root, "rms_norm_eps", 1, 1e-6, error);
    }
    int bos = 0;
    if (status == STATUS_OK && json_kind(json_get(root, "bos_token_id")) != JSON_NULL) {
        status = read_int(&bos, root, "bos_token_id", 0, config->vocab_size - 1, REQUIRED, error);
        config->bos_id = bos;
    }
    return status == STATUS_OK ? read_eos(config, root, error) : status;
}

static Status read_root(ModelConfig *config, const Json *root, Error *error)
{
    if (json_kind(root) != JSON_OBJECT) {
        return error_set(error, STATUS_REFUSED, "is %s, not an object",
                         json_kind_name(json_kind(root)));
    }
    static Status (*const readers[])(ModelConfig *, const Json *, Error *) = {
        read_architecture, read_sizes, read_rope, read_flags_and_ids, read_dtype};
    Status status = STATUS_OK;
    for (size_t i = 0; i < sizeof readers / sizeof *readers && status == STATUS_OK; i++) {
        status = readers[i](config, root, error);
    }
    return status == STATUS_OK ? refuse_unsupported(root, error) : status;
}

/* End-of-text ids of generation_config.json beside config.json. */
static Status read_generation_config(ModelConfig *config, const char *config_path, Error *error)
{
    char folder[FILE_PATH_MAX], path[FILE_PATH_MAX];
    snprintf(folder, sizeof folder, "%s", config_path);
    char *slash = strrchr(folder, '/');
    if (strcmp(slash ? slash + 1 : folder, "config.json") != 0) {
        return STATUS_OK; /* a config on its own */
    }
    strcpy(slash ? slash + 1 : folder, slash ? "" : ".");
    Status status = path_join(path, folder, "generation_config.json", error);
    if (status != STATUS_OK || !file_exists(path)) {
        return status;
    }
    JsonDocument *document;
    status = json_read(&document, path, MAX_CONFIG_BYTES, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (json_kind(json_root(document)) != JSON_OBJECT) {
        status = error_set(error, STATUS_REFUSED, "is not an object");
    } else {
        status = read_eos(config, json_root(document), error);
    }
    json_free(document);
    return status == STATUS_OK ? STATUS_OK : error_context(error, status, "%s", path);
}

Status model_config_read(ModelConfig *config, const char *path, Error *error)
{
    char file[FILE_PATH_MAX];
    Status status = STATUS_OK;
    if (directory_exists(path)) {
        status = path_join(file, path, "config.json", error);
        if (status == STATUS_OK && !file_exists(file)) {
            status =
                error_set(error, STATUS_REFUSED, "%s: has no config.json, so it is no model", path);
        }
    } else if (snprintf(file, sizeof file, "%s", path) >= (int)sizeof file) {
        status = error_set(error, STATUS_FAILED, "%.100s...: the path is too long", path);
    }
    JsonDocument *document;
    if (status == STATUS_OK) {
        status = json_read(&document, file, MAX_CONFIG_BYTES, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    ModelConfig fresh = {.bos_id = -1};
    status = read_root(&fresh, json_root(document), error);
    json_free(document);
    if (status != STATUS_OK) {
        return error_context(error, status, "%s", file);
    }
    status = read_generation_config(&fresh, file, error);
    if (status == STATUS_OK) {
        *config = fresh;
    }
    return status;
}

void rope_frequencies(double *frequency, const ModelConfig *config)
{
    for (int i = 0; i < config->head_dim / 2; i++) {
        double base = pow(config->rope_theta, -2.0 * i / config->head_dim);
        frequency[i] = base;
        if (config->rope_factor != 0) {
            double turns = config->rope_original_positions * base / 6.283185307179586476925;
            double low = config->rope_low_freq_factor, high = config->rope_high_freq_factor;
            double keep = (turns - low) / (high - low);
            keep = keep < 0 ? 0 : keep > 1 ? 1 : keep;
            frequency[i] = keep * base + (1 - keep) * base / config->rope_factor;
        }
    }
}
