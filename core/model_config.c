/* config.json, and the end-of-text ids of generation_config.json beside it. Every value is checked
 * for its type and range here, so that no size computed from a config can overflow later; what
 * asks for other arithmetic than the engine does is refused by name. Unknown keys are allowed:
 * these files are full of them. */
#include "core/model_config.h"

#include <stdio.h>
#include <string.h>

#include "core/config_keys.h"
#include "core/file.h"
#include "core/gguf_model.h"
#include "core/json.h"
#include "core/model_rope.h"

enum { MAX_CONFIG_BYTES = 1 << 20 };

/* model_type and architectures: at least one, and both the same. */
static Status read_architecture(ModelConfig *config, const Json *root, Error *error)
{
    const char *type = NULL;
    Status status = config_string(&type, root, "model_type", error);
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
    for (Architecture i = 0; i < N_ARCHITECTURES; i++) {
        const ArchitectureRow *row = architecture_row(i);
        bool type_fits = type && strcmp(type, row->model_type) == 0;
        bool class_fits = class_name && strcmp(class_name, row->class_name) == 0;
        if ((type_fits || !type) && (class_fits || !class_name)) {
            config->architecture = i;
            return STATUS_OK;
        }
        if ((type_fits && class_name) || (class_fits && type)) {
            return error_set(error, STATUS_REFUSED,
                             "\"model_type\" \"%.60s\" does not fit \"architectures\" \"%.60s\"",
                             type, class_name);
        }
    }
    return error_set(error, STATUS_REFUSED,
                     "architecture \"%.60s\" is not supported (LlamaForCausalLM, "
                     "Qwen2ForCausalLM, Qwen3ForCausalLM and MistralForCausalLM are)",
                     class_name ? class_name : type);
}

static Status read_sizes(ModelConfig *config, const Json *root, Error *error)
{
    const ArchitectureRow *row = architecture_row(config->architecture);
    const struct {
        int *out;
        const char *key;
        int max, fallback;
    } sizes[] = {
        {&config->width, "hidden_size", 1 << 20, CONFIG_REQUIRED},
        {&config->n_layers, "num_hidden_layers", 4096, CONFIG_REQUIRED},
        {&config->n_heads, "num_attention_heads", 65536, CONFIG_REQUIRED},
        {&config->n_kv_heads, "num_key_value_heads", 65536,
         json_get(root, "num_key_value_heads") ? 0 : row->kv_heads},
        {&config->head_dim, "head_dim", MAX_HEAD_DIM, row->head_dim},
        {&config->ff_width, "intermediate_size", 1 << 22, CONFIG_REQUIRED},
        {&config->vocab_size, "vocab_size", 1 << 24, CONFIG_REQUIRED},
        {&config->max_positions, "max_position_embeddings", 1 << 21, CONFIG_REQUIRED},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        Status status =
            config_int(sizes[i].out, root, sizes[i].key, 1, sizes[i].max, sizes[i].fallback, error);
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

/* layer_types, one a layer: full attention first, then the layers with a window. */
static Status read_layer_types(ModelConfig *config, const Json *list, int *n_full, Error *error)
{
    if (json_kind(list) != JSON_ARRAY || json_size(list) != (size_t)config->n_layers) {
        return error_set(error, STATUS_REFUSED, "\"layer_types\" is not a list of %d names",
                         config->n_layers);
    }
    *n_full = 0;
    for (int i = 0; i < config->n_layers; i++) {
        const char *type = json_string(json_at(list, (size_t)i), NULL);
        bool full = type && strcmp(type, "full_attention") == 0;
        if (!full && (!type || strcmp(type, "sliding_attention") != 0)) {
            return error_set(error, STATUS_REFUSED,
                             "\"layer_types\": \"%.60s\" of layer %d is not supported "
                             "(full_attention and sliding_attention are)",
                             type ? type : "(none)", i);
        }
        if (full && *n_full < i) {
            return error_set(error, STATUS_REFUSED,
                             "\"layer_types\": full attention in layer %d, after a layer with a "
                             "window, is not supported",
                             i);
        }
        *n_full += full;
    }
    return STATUS_OK;
}

/* How wide the window is and in which layers, by the keys that the family has for it; a config that
 * asks for one in a family without is refused. */
static Status read_window(ModelConfig *config, const Json *root, Error *error)
{
    const ArchitectureRow *row = architecture_row(config->architecture);
    const Json *types = json_get(root, "layer_types");
    bool used = true;
    int n = config->n_layers, n_full = 0, n_typed = 0;
    Status status = config_int(&config->window, root, "sliding_window", 1, 1 << 24,
                               json_get(root, "sliding_window") ? 0 : row->sliding_window, error);
    if (status == STATUS_OK && row->window != WINDOW_ALWAYS) {
        status = config_bool(&used, root, "use_sliding_window", false, error);
    }
    if (status == STATUS_OK && row->window == WINDOW_BY_KEY) {
        status = config_int(&n_full, root, "max_window_layers", 0, 1 << 16, 28, error);
    }
    if (status == STATUS_OK && row->window == WINDOW_NONE && (used || config->window > 0)) {
        status = error_set(error, STATUS_REFUSED, "a %s has no sliding window", row->class_name);
    }
    if (status != STATUS_OK) {
        return status;
    }
    config->window = used ? config->window : 0;
    n_full = config->window == 0 || n_full > n ? n : n_full;
    if (json_kind(types) != JSON_NULL) {
        status = read_layer_types(config, types, &n_typed, error);
        if (status == STATUS_OK && n_typed != n_full &&
            (config->window == 0 || row->window != WINDOW_BY_KEY)) {
            status =
                error_set(error, STATUS_REFUSED, "\"layer_types\" does not fit \"sliding_window\"");
        }
        n_full = n_typed;
    }
    config->window = n_full < n ? config->window : 0;
    config->window_from = n_full < n ? n_full : 0;
    return status;
}

/* Settings that change the arithmetic and are implemented at one value alone, which is also what an
 * absent key means. Keys of these families' configs that are not read anywhere here are harmless:
 * of training (attention_dropout, initializer_range, router losses), of layout or speed (use_cache,
 * pretraining_tp), of the tool that wrote them. */
static Status refuse_unsupported(const Json *root, Error *error)
{
    static const char *const flags[] = {"rope_interleaved",
                                        "use_qk_norm",
                                        "qk_norm",
                                        "use_parallel_residual",
                                        "alibi",
                                        "use_mrope",
                                        "is_encoder_decoder",
                                        "add_cross_attention"};
    static const char *const ones[] = {"partial_rotary_factor", "embedding_multiplier",
                                       "residual_multiplier", "logits_scaling", "logit_scale"};
    static const char *const absent[] = {"quantization_config",
                                         "quantization",
                                         "compression_config",
                                         "attention_multiplier",
                                         "attn_logit_softcapping",
                                         "final_logit_softcapping",
                                         "query_pre_attn_scalar",
                                         "attention_chunk_size",
                                         "clip_qkv",
                                         "num_experts",
                                         "num_local_experts",
                                         "no_rope_layers",
                                         "original_max_position_embeddings"};
    const char *activation = NULL;
    Status status = config_string(&activation, root, "hidden_act", error);
    if (status == STATUS_OK && activation && strcmp(activation, "silu") != 0 &&
        strcmp(activation, "swish") != 0) {
        status = error_set(error, STATUS_REFUSED,
                           "\"hidden_act\" \"%.60s\" is not supported (silu is)", activation);
    }
    for (size_t i = 0; i < sizeof flags / sizeof *flags && status == STATUS_OK; i++) {
        bool flag = false;
        status = config_bool(&flag, root, flags[i], false, error);
        if (flag) {
            status = error_set(error, STATUS_REFUSED, "\"%s\" true is not supported", flags[i]);
        }
    }
    for (size_t i = 0; i < sizeof ones / sizeof *ones && status == STATUS_OK; i++) {
        double value = 1;
        status = config_positive(&value, root, ones[i], 1e15, 1, error);
        if (status == STATUS_OK && value != 1) {
            status = error_set(error, STATUS_REFUSED, "\"%s\" %g is not supported", ones[i], value);
        }
    }
    for (size_t i = 0; i < sizeof absent / sizeof *absent && status == STATUS_OK; i++) {
        if (json_kind(json_get(root, absent[i])) != JSON_NULL) {
            status = error_set(error, STATUS_REFUSED,
                               i < 3 ? "\"%s\": quantised weights are not supported"
                                     : "\"%s\" is not supported",
                               absent[i]);
        }
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
    Status status = config_string(&name, root, key, error);
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
    const ArchitectureRow *row = architecture_row(config->architecture);
    Status status = config_bool(&config->tied_head, root, "tie_word_embeddings", false, error);
    if (status == STATUS_OK) {
        status = config_bool(&config->attention_bias, root, "attention_bias", false, error);
    }
    if (status == STATUS_OK) {
        status = config_bool(&config->mlp_bias, root, "mlp_bias", false, error);
    }
    config->output_bias = row->may_bias && config->attention_bias;
    config->attention_bias = row->always_bias || config->output_bias;
    config->mlp_bias = row->may_mlp_bias && config->mlp_bias;
    config->qk_norm = row->qk_norm;
    if (status == STATUS_OK) {
        status = config_positive(&config->rms_eps, root, "rms_norm_eps", 1, 1e-6, error);
    }
    int bos = 0, pad = 0; /* padding: -1 in files of old, an embedding's row everywhere else */
    if (status == STATUS_OK) {
        status = config_int(&pad, root, "pad_token_id", -1, config->vocab_size - 1, 0, error);
    }
    if (status == STATUS_OK && json_kind(json_get(root, "bos_token_id")) != JSON_NULL) {
        status = config_int(&bos, root, "bos_token_id", 0, config->vocab_size - 1, CONFIG_REQUIRED,
                            error);
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
        read_architecture, read_sizes, rope_read, read_window, read_flags_and_ids, read_dtype};
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
    memcpy(config->generation_sha256, json_sha256(document), SHA256_HEX_SIZE);
    json_free(document);
    return status == STATUS_OK ? STATUS_OK : error_context(error, status, "%s", path);
}

static Status read_gguf(ModelConfig *config, const char *path, Error *error)
{
    Gguf *gguf;
    Status status = gguf_open(&gguf, path, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = gguf_model_config(config, gguf, error);
    gguf_close(gguf);
    return status == STATUS_OK ? STATUS_OK : error_context(error, status, "%s", path);
}

Status model_config_read(ModelConfig *config, const char *path, Error *error)
{
    char file[FILE_PATH_MAX];
    Status status = STATUS_OK;
    if (gguf_is(path)) {
        return read_gguf(config, path, error);
    }
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
    memcpy(fresh.sha256, json_sha256(document), SHA256_HEX_SIZE);
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
