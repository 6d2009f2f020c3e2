/* Metadata to config, names to names. As config.json is, it is hostile: every number has a range,
 * and what asks for other arithmetic than the engine does is refused by name. */
#include "core/gguf_model.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REQUIRED = -1, KEY_MAX = 128 };

/* ---- names ----------------------------------------------------------------------------------- */

static const char *const role_names[N_ROLES] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                                "ffn_gate", "ffn_up", "ffn_down"};

const char *gguf_role_name(Role role)
{
    return role_names[role];
}

static const struct {
    const char *gguf, *name;
} whole_names[] = {{"token_embd.weight", "model.embed_tokens.weight"},
                   {"output_norm.weight", "model.norm.weight"},
                   {"output.weight", "lm_head.weight"}},
  layer_names[] = {{"attn_norm.weight", "input_layernorm.weight"},
                   {"ffn_norm.weight", "post_attention_layernorm.weight"},
                   {"attn_q_norm.weight", "self_attn.q_norm.weight"},
                   {"attn_k_norm.weight", "self_attn.k_norm.weight"}};

/* "blk.<layer>.<rest>", the number as a writer writes it. */
static const char *layer_part(const char *name, int *layer)
{
    char canonical[32];
    int used = 0;
    if (sscanf(name, "blk.%4d.%n", layer, &used) != 1 || used == 0 || *layer < 0) {
        return NULL;
    }
    snprintf(canonical, sizeof canonical, "blk.%d.", *layer);
    return strncmp(name, canonical, strlen(canonical)) == 0 ? name + strlen(canonical) : NULL;
}

/* A linear layer's weight or bias. */
static bool find_role(const char *rest, Role *role, const char **end)
{
    for (int i = 0; i < N_ROLES; i++) {
        size_t n = strlen(role_names[i]);
        if (strncmp(rest, role_names[i], n) == 0 &&
            (strcmp(rest + n, ".weight") == 0 || strcmp(rest + n, ".bias") == 0)) {
            *role = (Role)i;
            *end = rest + n;
            return true;
        }
    }
    return false;
}

bool gguf_tensor_name(char name[128], const char *gguf_name)
{
    for (size_t i = 0; i < sizeof whole_names / sizeof *whole_names; i++) {
        if (strcmp(gguf_name, whole_names[i].gguf) == 0) {
            snprintf(name, 128, "%s", whole_names[i].name);
            return true;
        }
    }
    int layer;
    Role role;
    const char *rest = layer_part(gguf_name, &layer), *end;
    for (size_t i = 0; rest && i < sizeof layer_names / sizeof *layer_names; i++) {
        if (strcmp(rest, layer_names[i].gguf) == 0) {
            snprintf(name, 128, "model.layers.%d.%s", layer, layer_names[i].name);
            return true;
        }
    }
    if (!rest || !find_role(rest, &role, &end)) {
        return false;
    }
    char module[96];
    module_name(module, layer, role);
    snprintf(name, 128, "%s%s", module, end);
    return true;
}

int gguf_turned(const ModelConfig *config, Role role)
{
    bool pairs = architecture_row(config->architecture)->gguf_pairs;
    return pairs && (role == ROLE_Q || role == ROLE_K) ? config->head_dim : 0;
}

/* ---- reading metadata ------------------------------------------------------------------------ */

typedef struct {
    const Gguf *gguf;
    const char *architecture; /* as in the file: the front of its keys */
} Reader;

static const Tensor *find_tensor(const Gguf *gguf, const char *name)
{
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        if (strcmp(gguf_tensor(gguf, i)->name, name) == 0) {
            return gguf_tensor(gguf, i);
        }
    }
    return NULL;
}

/* name: below the architecture, or whole if it begins with a dot, which is not part of it. */
static const GgufValue *find(const Reader *reader, char key[KEY_MAX], const char *name)
{
    if (name[0] == '.') {
        snprintf(key, KEY_MAX, "%s", name + 1);
    } else {
        snprintf(key, KEY_MAX, "%s.%s", reader->architecture, name);
    }
    return gguf_find(reader->gguf, key);
}

/* An integer in min .. max. fallback: its value when the key is absent, or REQUIRED. */
static Status read_int(int *out, const Reader *reader, const char *name, int min, int max,
                       int fallback, Error *error)
{
    char key[KEY_MAX];
    int64_t number = 0;
    const GgufValue *value = find(reader, key, name);
    if (!value && fallback != REQUIRED) {
        *out = fallback;
        return STATUS_OK;
    }
    if (!value) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is missing", key);
    }
    if (!gguf_integer(value, &number)) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %s, not an integer", key,
                         gguf_kind_name(value));
    }
    if (number < min || number > max) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %lld, not an integer from %d to %d", key,
                         (long long)number, min, max);
    }
    *out = (int)number;
    return STATUS_OK;
}

/* The shortest decimal that an f32 is nearest to: what the number was before it became an f32. */
static double as_written(double value)
{
    char text[40];
    for (int digits = 1; digits < 9; digits++) {
        snprintf(text, sizeof text, "%.*e", digits - 1, value);
        double decimal = strtod(text, NULL);
        if ((double)(float)decimal == value) {
            return decimal;
        }
    }
    return value;
}

/* A number in (0, max], in the sense of config_positive. fallback: as above. */
static Status read_positive(double *out, const Reader *reader, const char *name, double max,
                            double fallback, Error *error)
{
    char key[KEY_MAX];
    double number = 0;
    const GgufValue *value = find(reader, key, name);
    if (!value && fallback != REQUIRED) {
        *out = fallback;
        return STATUS_OK;
    }
    if (!value) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is missing", key);
    }
    if (!gguf_float(value, &number)) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %s, not f32", key,
                         gguf_kind_name(value));
    }
    if (!(number >= (double)FLT_MIN && number <= max)) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %g, not above 0 and at most %g", key,
                         number, max);
    }
    *out = as_written(number);
    return STATUS_OK;
}

static bool is_text(GgufString string, const char *text)
{
    return string.n == strlen(text) && memcmp(string.bytes, text, string.n) == 0;
}

/* For messages. */
static int shown(GgufString string)
{
    return (int)(string.n < 60 ? string.n : 60);
}

/* ---- what the file is ------------------------------------------------------------------------ */

static Status read_architecture(ModelConfig *config, Reader *reader, Error *error)
{
    GgufString name;
    const GgufValue *value = gguf_find(reader->gguf, "general.architecture");
    if (!gguf_string(value, &name)) {
        return error_set(error, STATUS_REFUSED, "\"general.architecture\" is %s, not a string",
                         gguf_kind_name(value));
    }
    for (Architecture i = 0; i < N_ARCHITECTURES; i++) {
        if (is_text(name, architecture_row(i)->gguf)) {
            config->architecture = i;
            reader->architecture = architecture_row(i)->gguf;
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_REFUSED,
                     "architecture \"%.*s\" is not supported (llama, qwen2 and qwen3 are)",
                     shown(name), name.bytes);
}

/* One whole model, quantised by the formulae of today. */
static Status check_kind(ModelConfig *config, const Reader *reader, Error *error)
{
    (void)config;
    GgufString type;
    int n_parts = 0, version = 2;
    const GgufValue *value = gguf_find(reader->gguf, "general.type");
    if (value && (!gguf_string(value, &type) || !is_text(type, "model"))) {
        return error_set(error, STATUS_REFUSED, "\"general.type\" is not \"model\"");
    }
    Status status = read_int(&n_parts, reader, ".split.count", 0, 65535, 0, error);
    if (!status && n_parts > 1) {
        status = error_set(error, STATUS_REFUSED,
                           "\"split.count\" is %d: one part of a model, which llama-gguf-split "
                           "--merge makes whole",
                           n_parts);
    }
    status = status
                 ? status
                 : read_int(&version, reader, ".general.quantization_version", 0, 65535, 2, error);
    if (!status && version != 2) {
        status = error_set(error, STATUS_REFUSED, "\"general.quantization_version\" %d is not read",
                           version);
    }
    return status;
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static Status read_sizes(ModelConfig *config, const Reader *reader, Error *error)
{
    int rotated = 0, values = 0;
    const struct {
        int *out;
        const char *key;
        int max, fallback;
    } sizes[] = {
        {&config->width, "embedding_length", 1 << 20, REQUIRED},
        {&config->n_layers, "block_count", 4096, REQUIRED},
        {&config->n_heads, "attention.head_count", 65536, REQUIRED},
        {&config->n_kv_heads, "attention.head_count_kv", 65536, 0},
        {&config->ff_width, "feed_forward_length", 1 << 22, REQUIRED},
        {&config->max_positions, "context_length", 1 << 21, REQUIRED},
        {&config->head_dim, "attention.key_length", MAX_HEAD_DIM, 0},
        {&values, "attention.value_length", MAX_HEAD_DIM, 0},
        {&rotated, "rope.dimension_count", MAX_HEAD_DIM, 0},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        Status status =
            read_int(sizes[i].out, reader, sizes[i].key, 1, sizes[i].max, sizes[i].fallback, error);
        if (status) {
            return status;
        }
    }
    config->n_kv_heads = config->n_kv_heads ? config->n_kv_heads : config->n_heads;
    if (config->n_heads % config->n_kv_heads) {
        return error_set(error, STATUS_REFUSED,
                         "\"attention.head_count_kv\" %d does not divide \"attention.head_count\" "
                         "%d",
                         config->n_kv_heads, config->n_heads);
    }
    if (!config->head_dim && config->width % config->n_heads) {
        return error_set(error, STATUS_REFUSED,
                         "\"attention.head_count\" %d does not divide \"embedding_length\" %d",
                         config->n_heads, config->width);
    }
    config->head_dim = config->head_dim ? config->head_dim : config->width / config->n_heads;
    if (config->head_dim % 2 || config->head_dim > MAX_HEAD_DIM) {
        return error_set(error, STATUS_REFUSED, "heads of %d; even sizes up to %d are supported",
                         config->head_dim, MAX_HEAD_DIM);
    }
    if ((values && values != config->head_dim) || (rotated && rotated != config->head_dim)) {
        return error_set(error, STATUS_REFUSED, "\"%s\" %d is not the %d of a head: not supported",
                         values && values != config->head_dim ? "attention.value_length"
                                                              : "rope.dimension_count",
                         values && values != config->head_dim ? values : rotated, config->head_dim);
    }
    return STATUS_OK;
}

/* Rows of the embedding, tokens of the vocabulary and vocab_size are one number. */
static Status read_vocabulary(ModelConfig *config, const Reader *reader, Error *error)
{
    const Tensor *embedding = find_tensor(reader->gguf, "token_embd.weight");
    if (!embedding || embedding->n_dims != 2 || embedding->dims[0] > 1 << 24) {
        return error_set(error, STATUS_REFUSED, "tensor \"token_embd.weight\" is %s",
                         embedding ? "no matrix of at most 2^24 rows" : "missing");
    }
    config->vocab_size = (int)embedding->dims[0];
    int stated = 0;
    Status status = read_int(&stated, reader, "vocab_size", 1, 1 << 24, config->vocab_size, error);
    if (!status && stated != config->vocab_size) {
        status =
            error_set(error, STATUS_REFUSED, "\"%s.vocab_size\" is %d, the embedding has %d rows",
                      reader->architecture, stated, config->vocab_size);
    }
    const GgufValue *tokens = gguf_find(reader->gguf, "tokenizer.ggml.tokens");
    if (!status && tokens && tokens->n != (size_t)config->vocab_size) {
        status = error_set(error, STATUS_REFUSED,
                           "\"tokenizer.ggml.tokens\" has %zu elements, the embedding %d rows",
                           tokens->n, config->vocab_size);
    }
    return status;
}

/* ---- rotation -------------------------------------------------------------------------------- */

/* rope_freqs.weight divides each frequency: the scaling of Llama 3.1 and later, whose settings are
 * not in the file. Those of all released models are tried. */
static Status read_rope_factors(ModelConfig *config, const Reader *reader, const Tensor *tensor,
                                Error *error)
{
    enum { MOST = MAX_HEAD_DIM / 2 };
    float factors[MOST];
    double plain[MOST], scaled[MOST], largest = 1;
    int n = config->head_dim / 2, original = 0;
    if (tensor->type != TENSOR_F32 || tensor->n_dims != 1 || tensor->dims[0] != (size_t)n) {
        return error_set(error, STATUS_REFUSED, "is not a vector of %d F32", n);
    }
    tensor_to_f32(factors, tensor->data, TENSOR_F32, (size_t)n);
    for (int i = 0; i < n; i++) {
        if (!(factors[i] >= 0.5f && factors[i] <= 1e6f)) {
            return error_set(error, STATUS_REFUSED, "element %d is %g, no factor", i,
                             (double)factors[i]);
        }
        largest = fmax(largest, (double)factors[i]);
    }
    Status status = read_int(&original, reader, "rope.scaling.original_context_length", 1, 1 << 24,
                             8192, error);
    if (status) {
        return status;
    }
    rope_frequencies(plain, config);
    if (largest > 1) {
        config->rope_type = ROPE_LLAMA3;
        config->rope_factor = as_written(largest);
        config->rope_low_freq_factor = 1;
        config->rope_high_freq_factor = 4;
        config->rope_original_positions = original;
    }
    rope_frequencies(scaled, config);
    for (int i = 0; i < n; i++) {
        if (fabs(plain[i] / scaled[i] - (double)factors[i]) > 1e-4 * (double)factors[i]) {
            return error_set(error, STATUS_REFUSED,
                             "element %d is %.7g, not Llama 3's scaling by %g of %d positions "
                             "(low 1, high 4), which has %.7g there",
                             i, (double)factors[i], largest, original, plain[i] / scaled[i]);
        }
    }
    return STATUS_OK;
}

/* As llama.cpp computes it where its own factors (refuse_unsupported) are left alone. */
static Status read_yarn(ModelConfig *config, const Reader *reader, Error *error)
{
    config->rope_type = ROPE_YARN;
    Status status =
        read_positive(&config->rope_factor, reader, "rope.scaling.factor", 1e6, 1, error);
    status = status ? status
                    : read_int(&config->rope_original_positions, reader,
                               "rope.scaling.original_context_length", 1, 1 << 24,
                               config->max_positions, error);
    status = status ? status
                    : read_positive(&config->rope_beta_fast, reader, "rope.scaling.yarn_beta_fast",
                                    1e6, 32, error);
    status = status ? status
                    : read_positive(&config->rope_beta_slow, reader, "rope.scaling.yarn_beta_slow",
                                    1e6, 1, error);
    if (!status && (config->rope_factor < 1 || config->rope_theta <= 1 ||
                    config->rope_beta_fast <= config->rope_beta_slow)) {
        status = error_set(error, STATUS_REFUSED,
                           "yarn needs a \"rope.scaling.factor\" of at least 1, a "
                           "\"rope.freq_base\" above 1 and a \"rope.scaling.yarn_beta_slow\" "
                           "below its \"yarn_beta_fast\"");
    }
    config->rope_attention_factor = status ? 1 : 0.1 * log(config->rope_factor) + 1;
    return status;
}

static Status read_rope(ModelConfig *config, const Reader *reader, Error *error)
{
    char key[KEY_MAX];
    bool has_factor = find(reader, key, "rope.scaling.factor") != NULL;
    GgufString type = has_factor ? (GgufString){"linear", 6} : (GgufString){"none", 4};
    Status status =
        read_positive(&config->rope_theta, reader, "rope.freq_base", 1e15, 10000, error);
    const GgufValue *value = find(reader, key, "rope.scaling.type");
    if (!status && value && !gguf_string(value, &type)) {
        status = error_set(error, STATUS_REFUSED, "\"%s\" is %s, not a string", key,
                           gguf_kind_name(value));
    }
    if (!status && is_text(type, "linear")) {
        config->rope_type = ROPE_LINEAR;
        status = read_positive(&config->rope_factor, reader, "rope.scaling.factor", 1e6, 1, error);
    } else if (!status && is_text(type, "yarn")) {
        status = read_yarn(config, reader, error);
    } else if (!status && !is_text(type, "none")) {
        status = error_set(error, STATUS_REFUSED,
                           "\"%s\" \"%.*s\" is not supported (linear and yarn are)", key,
                           shown(type), type.bytes);
    }
    const Tensor *factors = find_tensor(reader->gguf, "rope_freqs.weight");
    if (!status && factors) {
        status = read_rope_factors(config, reader, factors, error);
        if (status) {
            error_context(error, status, "tensor \"rope_freqs.weight\"");
        }
    }
    return status;
}

/* ---- the rest -------------------------------------------------------------------------------- */

/* Settings that are implemented at one value alone, which is also what an absent key means. */
static Status refuse_unsupported(ModelConfig *config, const Reader *reader, Error *error)
{
    static const char *const absent[] = {"attention.scale",
                                         "attention.clamp_kqv",
                                         "attention.max_alibi_bias",
                                         "attention.temperature_scale",
                                         "attn_logit_softcapping",
                                         "final_logit_softcapping",
                                         "logit_scale",
                                         "embedding_scale",
                                         "residual_scale",
                                         "use_parallel_residual",
                                         "pooling_type",
                                         "rope.scaling.attn_factor",
                                         "rope.scaling.yarn_attn_factor",
                                         "rope.scaling.yarn_ext_factor",
                                         "rope.scaling.yarn_log_multiplier",
                                         "rope.scale_linear"};
    char key[KEY_MAX];
    bool causal = true;
    int experts = 0, window = 0;
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        if (find(reader, key, absent[i])) {
            return error_set(error, STATUS_REFUSED, "\"%s\" is not supported", key);
        }
    }
    const GgufValue *value = find(reader, key, "attention.causal");
    if (value && (!gguf_bool(value, &causal) || !causal)) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is not true", key);
    }
    Status status = read_int(&experts, reader, "expert_count", 0, 65535, 0, error);
    if (!status && experts) {
        status =
            error_set(error, STATUS_REFUSED, "a mixture of %d experts is not supported", experts);
    }
    status = status ? status
                    : read_int(&window, reader, "attention.sliding_window", 0, 1 << 30, 0, error);
    if (!status && window && config->architecture == ARCHITECTURE_LLAMA) {
        config->architecture = ARCHITECTURE_MISTRAL; /* llama.cpp calls it llama */
        config->window = window;
    } else if (!status && window) {
        status =
            error_set(error, STATUS_REFUSED, "\"%s.attention.sliding_window\" is not supported",
                      reader->architecture);
    }
    return status;
}

/* id: untouched when the key is absent. */
static Status read_id(int32_t *id, const ModelConfig *config, const Reader *reader,
                      const char *name, Error *error)
{
    int number = 0;
    Status status = read_int(&number, reader, name, 0, config->vocab_size - 1, 0, error);
    if (!status && gguf_find(reader->gguf, name + 1)) {
        *id = number;
    }
    return status;
}

static Status read_ids(ModelConfig *config, const Reader *reader, Error *error)
{
    static const char *const ends[] = {".tokenizer.ggml.eos_token_id",
                                       ".tokenizer.ggml.eot_token_id",
                                       ".tokenizer.ggml.eom_token_id"};
    static const char *const others[] = {
        ".tokenizer.ggml.padding_token_id", ".tokenizer.ggml.unknown_token_id",
        ".tokenizer.ggml.seperator_token_id", ".tokenizer.ggml.mask_token_id"};
    int32_t ignored;
    config->bos_id = -1;
    Status status = read_id(&config->bos_id, config, reader, ".tokenizer.ggml.bos_token_id", error);
    for (size_t i = 0; i < sizeof others / sizeof *others && !status; i++) {
        status = read_id(&ignored, config, reader, others[i], error);
    }
    for (size_t i = 0; i < sizeof ends / sizeof *ends && !status; i++) {
        int32_t id = -1;
        status = read_id(&id, config, reader, ends[i], error);
        bool is_new = !status && id >= 0;
        for (int j = 0; j < config->n_eos && is_new; j++) {
            is_new = config->eos_ids[j] != id;
        }
        if (is_new) {
            config->eos_ids[config->n_eos++] = id;
        }
    }
    return status;
}

static Status read_tensors(ModelConfig *config, const Reader *reader, Error *error)
{
    const ArchitectureRow *row = architecture_row(config->architecture);
    const Tensor *q = find_tensor(reader->gguf, "blk.0.attn_q.weight");
    bool has_bias = find_tensor(reader->gguf, "blk.0.attn_q.bias") != NULL;
    config->tied_head = find_tensor(reader->gguf, "output.weight") == NULL;
    config->attention_bias = row->always_bias || (row->may_bias && has_bias);
    config->output_bias =
        row->may_bias && find_tensor(reader->gguf, "blk.0.attn_output.bias") != NULL;
    config->mlp_bias =
        row->may_mlp_bias && find_tensor(reader->gguf, "blk.0.ffn_gate.bias") != NULL;
    config->qk_norm = row->qk_norm;
    config->dtype = q && tensor_type_plain(q->type) ? q->type : TENSOR_F32;
    return read_positive(&config->rms_eps, reader, "attention.layer_norm_rms_epsilon", 1, REQUIRED,
                         error);
}

Status gguf_model_config(ModelConfig *config, const Gguf *gguf, Error *error)
{
    static Status (*const readers[])(ModelConfig *, const Reader *, Error *) = {
        check_kind,         read_sizes, read_vocabulary, read_rope,
        refuse_unsupported, read_ids,   read_tensors};
    Reader reader = {.gguf = gguf};
    ModelConfig fresh = {.bos_id = -1};
    Status status = read_architecture(&fresh, &reader, error);
    for (size_t i = 0; i < sizeof readers / sizeof *readers && !status; i++) {
        status = readers[i](&fresh, &reader, error);
    }
    if (!status) {
        *config = fresh;
    }
    return status;
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* What a tensor's name says of the order of its rows. */
static int turned_of(const ModelConfig *config, const char *gguf_name)
{
    int layer;
    Role role;
    const char *rest = layer_part(gguf_name, &layer), *end;
    return rest && find_role(rest, &role, &end) ? gguf_turned(config, role) : 0;
}

Status gguf_model_tensors(Tensor **tensors, char (**names)[128], size_t *n, const Gguf *gguf,
                          Error *error)
{
    ModelConfig config;
    size_t n_file = gguf_n_tensors(gguf);
    Status status = gguf_model_config(&config, gguf, error);
    if (status) {
        return status;
    }
    *tensors = calloc(n_file + 1, sizeof **tensors);
    *names = calloc(n_file + 1, sizeof **names);
    *n = 0;
    if (!*tensors || !*names) {
        status = error_set(error, STATUS_FAILED, "no memory for %zu tensors", n_file);
    }
    for (size_t i = 0; i < n_file && !status; i++) {
        const Tensor *from = gguf_tensor(gguf, i);
        if (strcmp(from->name, "rope_freqs.weight") == 0) {
            continue; /* in the config */
        }
        if (!gguf_tensor_name((*names)[*n], from->name)) {
            status = error_set(error, STATUS_REFUSED,
                               "tensor \"%s\": belongs to no model of architecture \"%s\"",
                               from->name, architecture_row(config.architecture)->gguf);
            break;
        }
        Tensor *tensor = &(*tensors)[(*n)++];
        *tensor = *from;
        tensor->name = (*names)[*n - 1];
        tensor->turned = turned_of(&config, from->name);
        if (tensor->turned && tensor->dims[0] % (size_t)tensor->turned) {
            status = error_set(error, STATUS_REFUSED, "tensor \"%s\": %zu rows are not heads of %d",
                               from->name, tensor->dims[0], tensor->turned);
        }
    }
    if (status) {
        free(*tensors);
        free(*names);
        *tensors = NULL;
        *names = NULL;
    }
    return status;
}
