/* The tensors a model of a config must have: roles, names, shapes, and the check of a file against
 * them. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/gguf.h"
#include "core/hub.h"
#include "core/model_config.h"
#include "core/parallel.h"
#include "core/text.h"

enum { MOST_CHECKS = 64 }; /* tasks that look at one tensor */

const char *role_name(Role role)
{
    static const char *const names[N_ROLES] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                               "gate_proj", "up_proj", "down_proj"};
    return names[role];
}

const char *role_parent(Role role)
{
    return role <= ROLE_O ? "self_attn" : "mlp";
}

void role_shape(const ModelConfig *config, Role role, int *out, int *in)
{
    int query = config->n_heads * config->head_dim, key = config->n_kv_heads * config->head_dim;
    bool into_ff = role == ROLE_GATE || role == ROLE_UP;
    *out = role == ROLE_Q                     ? query
           : role == ROLE_K || role == ROLE_V ? key
           : into_ff                          ? config->ff_width
                                              : config->width;
    *in = role == ROLE_O ? query : role == ROLE_DOWN ? config->ff_width : config->width;
}

void module_name(char name[96], int layer, Role role)
{
    snprintf(name, 96, "model.layers.%d.%s.%s", layer, role_parent(role), role_name(role));
}

static bool has_bias(const ModelConfig *config, Role role)
{
    return role < ROLE_O    ? config->attention_bias
           : role == ROLE_O ? config->output_bias
                            : config->mlp_bias;
}

static void add_matrix(TensorSpec *spec, const char *name, int rows, int columns)
{
    *spec = (TensorSpec){.n_dims = 2, .dims = {(size_t)rows, (size_t)columns}};
    snprintf(spec->name, sizeof spec->name, "%s", name);
}

static void add_vector(TensorSpec *spec, const char *name, int n)
{
    *spec = (TensorSpec){.n_dims = 1, .dims = {(size_t)n}};
    snprintf(spec->name, sizeof spec->name, "%s", name);
}

static size_t add_layer(TensorSpec *specs, const ModelConfig *config, int layer)
{
    size_t n = 0;
    char name[128], module[96];
    for (Role role = 0; role < N_ROLES; role++) {
        int out, in;
        role_shape(config, role, &out, &in);
        module_name(module, layer, role);
        snprintf(name, sizeof name, "%s.weight", module);
        add_matrix(&specs[n++], name, out, in);
        if (has_bias(config, role)) {
            snprintf(name, sizeof name, "%s.bias", module);
            add_vector(&specs[n++], name, out);
        }
        if (role == ROLE_O && config->qk_norm) {
            snprintf(name, sizeof name, "model.layers.%d.self_attn.q_norm.weight", layer);
            add_vector(&specs[n++], name, config->head_dim);
            snprintf(name, sizeof name, "model.layers.%d.self_attn.k_norm.weight", layer);
            add_vector(&specs[n++], name, config->head_dim);
        }
    }
    snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", layer);
    add_vector(&specs[n++], name, config->width);
    snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", layer);
    add_vector(&specs[n++], name, config->width);
    return n;
}

size_t model_config_tensors(TensorSpec **specs, const ModelConfig *config)
{
    size_t most = (size_t)config->n_layers * (2 * N_ROLES + 4) + 3, n = 0;
    TensorSpec *list = malloc(most * sizeof *list);
    if (!list) {
        abort(); /* 4096 layers at most: some 10 MB */
    }
    add_matrix(&list[n++], "model.embed_tokens.weight", config->vocab_size, config->width);
    for (int layer = 0; layer < config->n_layers; layer++) {
        n += add_layer(list + n, config, layer);
    }
    add_vector(&list[n++], "model.norm.weight", config->width);
    if (!config->tied_head) {
        add_matrix(&list[n++], "lm_head.weight", config->vocab_size, config->width);
    }
    *specs = list;
    return n;
}

/* "(2, 3)" into text. */
static void shape_text(char text[256], const size_t *dims, int n_dims)
{
    size_t n = 1;
    strcpy(text, "(");
    for (int i = 0; i < n_dims; i++) {
        n += (size_t)snprintf(text + n, 256 - n, "%s%zu", i ? ", " : "", dims[i]);
    }
    snprintf(text + n, 256 - n, ")");
}

static Status check_tensor(const TensorSpec *spec, const SafeTensors *file, Error *error)
{
    const Tensor *tensor = safetensors_find(file, spec->name);
    if (!tensor) {
        return error_set(error, STATUS_REFUSED, "tensor \"%s\": is missing", spec->name);
    }
    if (tensor->type == TENSOR_OTHER) {
        return error_set(error, STATUS_REFUSED,
                         "tensor \"%s\": type %s, weights are F32, F16 or BF16%s", spec->name,
                         tensor->type_name,
                         safetensors_gguf(file) ? ", Q8_0, Q5_0, Q4_0, Q4_K or Q6_K" : "");
    }
    if (tensor->n_dims != spec->n_dims ||
        memcmp(tensor->dims, spec->dims, (size_t)spec->n_dims * sizeof *spec->dims) != 0) {
        char is[256], expected[256];
        shape_text(is, tensor->dims, tensor->n_dims);
        shape_text(expected, spec->dims, spec->n_dims);
        return error_set(error, STATUS_REFUSED, "tensor \"%s\": shape %s, expected %s", spec->name,
                         is, expected);
    }
    return STATUS_OK;
}

/* A tied head that is in the file as well: as the embedding, or which one counts is not clear. */
static Status check_head(const ModelConfig *config, const SafeTensors *file, bool bytes,
                         Error *error)
{
    const Tensor *head = safetensors_find(file, "lm_head.weight");
    const Tensor *embedding = safetensors_find(file, "model.embed_tokens.weight");
    if (!config->tied_head || !head) {
        return STATUS_OK;
    }
    bool same = head->type == embedding->type && head->n_dims == embedding->n_dims &&
                memcmp(head->dims, embedding->dims, sizeof head->dims) == 0;
    if (same && bytes) {
        same = memcmp(head->data, embedding->data, head->n_bytes) == 0;
        safetensors_forget(file, head);
    }
    return same ? STATUS_OK
                : error_set(error, STATUS_REFUSED,
                            "tensor \"lm_head.weight\": is not the embedding, to which "
                            "\"tie_word_embeddings\" ties it");
}

Status model_head_check(const ModelConfig *config, const SafeTensors *file, Error *error)
{
    return check_head(config, file, true, error);
}

static int by_spec_name(const void *a, const void *b)
{
    return strcmp(((const TensorSpec *)a)->name, ((const TensorSpec *)b)->name);
}

/* A tensor that would belong to the model, but not to a model of this config. */
static bool is_stray(const Tensor *tensor, const ModelConfig *config, const TensorSpec *sorted,
                     size_t n)
{
    const char *name = tensor->name;
    if (strncmp(name, "model.", 6) != 0 && strncmp(name, "lm_head.", 8) != 0) {
        return false;
    }
    if (config->tied_head && strcmp(name, "lm_head.weight") == 0) {
        return false;
    }
    static const char buffer[] = ".rotary_emb.inv_freq";
    size_t length = strlen(name), end = sizeof buffer - 1;
    if (length > end && strcmp(name + length - end, buffer) == 0) {
        return false;
    }
    TensorSpec key = {.n_dims = 0};
    if (length >= sizeof key.name) {
        return true;
    }
    memcpy(key.name, name, length + 1);
    return !bsearch(&key, sorted, n, sizeof *sorted, by_spec_name);
}

Status model_config_check(const ModelConfig *config, const SafeTensors *file, Error *error)
{
    TensorSpec *specs;
    size_t n = model_config_tensors(&specs, config);
    Status status = STATUS_OK;
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        status = check_tensor(&specs[i], file, error);
    }
    status = status ? status : check_head(config, file, false, error);
    qsort(specs, n, sizeof *specs, by_spec_name);
    for (size_t i = 0; i < safetensors_count(file) && status == STATUS_OK; i++) {
        const Tensor *tensor = safetensors_at(file, i);
        if (is_stray(tensor, config, specs, n)) {
            status = error_set(error, STATUS_REFUSED,
                               "tensor \"%.200s\": does not belong to a model of this config",
                               tensor->name);
        }
    }
    free(specs);
    return status;
}

typedef struct {
    const Tensor *tensor;
    size_t rows, columns, per_task; /* rows of a task */
    size_t bad[MOST_CHECKS];        /* first element that is not finite, of each task's rows */
} ValueJob;

static void check_rows(void *context, int i, int thread)
{
    (void)thread;
    ValueJob *job = context;
    size_t first = (size_t)i * job->per_task;
    size_t last = first + job->per_task < job->rows ? first + job->per_task : job->rows;
    size_t n = first < last ? (last - first) * job->columns : 0;
    const char *data = job->tensor->data;
    size_t bad = n ? tensor_find_nonfinite(data + first * (job->tensor->n_bytes / job->rows),
                                           job->tensor->type, n)
                   : 0;
    job->bad[i] = bad < n ? first * job->columns + bad : SIZE_MAX;
}

Status model_tensor_check(const Tensor *tensor, int n_threads, Error *error)
{
    bool is_matrix = tensor->n_dims > 1;
    size_t rows = is_matrix ? tensor->dims[0] : 1, columns = tensor->dims[is_matrix];
    int n = rows < 256 || n_threads < 2 ? 1 : n_threads < MOST_CHECKS ? n_threads : MOST_CHECKS;
    ValueJob job = {.tensor = tensor,
                    .rows = rows,
                    .columns = columns,
                    .per_task = (rows + (size_t)n - 1) / (size_t)n};
    parallel_for(n, n_threads, check_rows, &job);
    for (int i = 0; i < n; i++) {
        if (job.bad[i] != SIZE_MAX) {
            return error_set(error, STATUS_REFUSED,
                             "tensor \"%s\": element %zu is infinite or not a number", tensor->name,
                             job.bad[i]);
        }
    }
    return STATUS_OK;
}

Status model_weights_check(const ModelConfig *config, const SafeTensors *file, Error *error)
{
    TensorSpec *specs;
    size_t n = model_config_tensors(&specs, config);
    Status status = STATUS_OK;
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        const Tensor *tensor = safetensors_find(file, specs[i].name);
        if (tensor && tensor->type != TENSOR_OTHER) {
            status = model_tensor_check(tensor, 1, error);
            safetensors_forget(file, tensor);
        }
    }
    free(specs);
    return status ? status : model_head_check(config, file, error);
}

Status model_file_path(char path[FILE_PATH_MAX], const char *model, const char *name, Error *error)
{
    if (!gguf_is(model)) {
        return path_join(path, model, name, error);
    }
    if (snprintf(path, FILE_PATH_MAX, "%s", model) >= FILE_PATH_MAX) {
        return error_set(error, STATUS_FAILED, "%.100s...: the path is too long", model);
    }
    return STATUS_OK;
}

Status model_weights_open(SafeTensors **file, const char *model, Error *error)
{
    char path[FILE_PATH_MAX];
    Status status = model_weights_path(path, model, error);
    if (status != STATUS_OK) {
        return status;
    }
    return gguf_is(model) ? safetensors_open_gguf(file, path, error)
                          : safetensors_open(file, path, error);
}

/* What else the directory has instead. */
static Status no_weights(const char *directory, Error *error)
{
    static const struct {
        const char *end, *says;
    } others[] = {
        {".incomplete", "an unfinished download"},
        {"adapter_model.safetensors", "an adapter; its base model is wanted"},
        {".safetensors", "of another name than model.safetensors"},
        {".gguf", "a GGUF file: name the file itself"},
        {".bin", "a PyTorch pickle, which is never opened; it can be converted to safetensors"},
        {".pth", "a PyTorch pickle, which is never opened; it can be converted to safetensors"},
    };
    Text says = {0};
    size_t best = sizeof others / sizeof *others;
    DIR *folder = opendir(directory);
    for (struct dirent *entry; folder && (entry = readdir(folder)) != NULL;) {
        for (size_t i = 0; i < best; i++) {
            size_t n = strlen(entry->d_name), n_end = strlen(others[i].end);
            if (n >= n_end && strcmp(entry->d_name + n - n_end, others[i].end) == 0) {
                text_clear(&says);
                text_printf(&says, ", but \"%.100s\", %s", entry->d_name, others[i].says);
                best = i;
            }
        }
    }
    if (folder) {
        closedir(folder);
    }
    hub_hint(&says, directory);
    Status status = error_set(error, STATUS_REFUSED, "%s: has no model.safetensors%s", directory,
                              text_string(&says));
    text_release(&says);
    return status;
}

Status model_weights_path(char path[FILE_PATH_MAX], const char *directory, Error *error)
{
    char index[FILE_PATH_MAX];
    if (gguf_is(directory)) {
        return model_file_path(path, directory, "", error);
    }
    Status status = path_join(path, directory, "model.safetensors", error);
    if (status == STATUS_OK) {
        status = path_join(index, directory, "model.safetensors.index.json", error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    bool is_sharded = file_exists(index);
    if (is_sharded && file_exists(path)) {
        return error_set(error, STATUS_REFUSED,
                         "%s: beside a model.safetensors: which one holds the weights is not clear",
                         index);
    }
    if (!is_sharded && !file_exists(path)) {
        return no_weights(directory, error);
    }
    if (is_sharded) {
        strcpy(path, index);
    }
    return STATUS_OK;
}
