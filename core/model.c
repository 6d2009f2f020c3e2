/* From a checked directory to packed weights. The file stays mapped for the rows of the embedding;
 * the pages of what was packed are given back. Matrices are packed all at once when the first
 * number is asked for: any pass reads every layer. */
#include "core/model.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/gguf_model.h"
#include "core/tokenizer_gguf.h"

struct ModelLater {
    char weights_path[FILE_PATH_MAX];
    char weights_sha256[SHA256_HEX_SIZE]; /* "" before */
    int n_threads;
    struct {
        const Tensor *tensor;
        Matrix *matrix; /* NULL: an embedding that is not the head too, whose values are checked */
    } * waiting;        /* (n_waiting) to be packed */
    size_t n_waiting;
};

/* Which part of the model a tensor of the file is. */
typedef struct {
    ModelPart kind;
    int layer;
    Role role;
} Place;

static Place place_of(const char *name)
{
    Place place = {PART_EMBEDDING, 0, ROLE_Q};
    int used = 0;
    if (strcmp(name, "lm_head.weight") == 0) {
        place.kind = PART_HEAD;
    } else if (strcmp(name, "model.norm.weight") == 0) {
        place.kind = PART_NORM_FINAL;
    } else if (sscanf(name, "model.layers.%9d.%n", &place.layer, &used) == 1 && used > 0) {
        const char *rest = name + used;
        if (strcmp(rest, "input_layernorm.weight") == 0) {
            place.kind = PART_NORM_ATTENTION;
        } else if (strcmp(rest, "post_attention_layernorm.weight") == 0) {
            place.kind = PART_NORM_MLP;
        } else if (strcmp(rest, "self_attn.q_norm.weight") == 0) {
            place.kind = PART_NORM_Q;
        } else if (strcmp(rest, "self_attn.k_norm.weight") == 0) {
            place.kind = PART_NORM_K;
        } else {
            for (int role = 0; role < N_ROLES; role++) {
                char module[96];
                module_name(module, place.layer, (Role)role);
                size_t n = strlen(module);
                if (strncmp(name, module, n) == 0 && name[n] == '.') {
                    place.role = (Role)role;
                    place.kind = strcmp(name + n, ".bias") == 0 ? PART_BIAS : PART_WEIGHT;
                }
            }
        }
    }
    return place;
}

static Status read_vector(float **vector, const Tensor *tensor, Error *error)
{
    *vector = malloc(tensor->dims[0] * sizeof **vector);
    if (!*vector) {
        return error_set(error, STATUS_FAILED, "out of memory for tensor \"%s\"", tensor->name);
    }
    tensor_read(*vector, tensor);
    return STATUS_OK;
}

static float **vector_at(Model *model, Place place)
{
    Layer *layer = &model->layers[place.layer];
    switch (place.kind) {
    case PART_NORM_FINAL:
        return &model->norm_final;
    case PART_NORM_ATTENTION:
        return &layer->norm_attention;
    case PART_NORM_MLP:
        return &layer->norm_mlp;
    case PART_NORM_Q:
        return &layer->norm_q;
    case PART_NORM_K:
        return &layer->norm_k;
    case PART_BIAS:
        return &layer->bias[place.role];
    case PART_EMBEDDING:
    case PART_HEAD:
    case PART_WEIGHT:
    case N_PARTS:
        break;
    }
    return NULL;
}

static Matrix *matrix_at(Model *model, Place place)
{
    bool is_head =
        place.kind == PART_HEAD || (place.kind == PART_EMBEDDING && model->config.tied_head);
    return is_head                     ? &model->head
           : place.kind == PART_WEIGHT ? &model->layers[place.layer].weight[place.role]
                                       : NULL;
}

static Status load_tensor(Model *model, const Tensor *tensor, Place place, Error *error)
{
    float **vector = vector_at(model, place);
    if (vector) {
        Status status = model_tensor_check(tensor, 1, error);
        return status ? status : read_vector(vector, tensor, error);
    }
    if (place.kind == PART_EMBEDDING) {
        model->embedding = tensor->data;
        model->embedding_type = tensor->type;
    }
    Matrix *matrix = matrix_at(model, place);
    model->later->waiting[model->later->n_waiting].tensor = tensor;
    model->later->waiting[model->later->n_waiting++].matrix = matrix;
    return matrix ? matrix_reserve(matrix, tensor->type, (int)tensor->dims[0], (int)tensor->dims[1],
                                   error)
                  : STATUS_OK;
}

static size_t *offset_at(const Model *model, Place place)
{
    size_t row = (size_t)place.kind * (size_t)model->config.n_layers + (size_t)place.layer;
    return &model->offsets[row * N_ROLES + place.role];
}

static Status load_weights(Model *model, Error *error)
{
    TensorSpec *specs = NULL;
    size_t n_specs = model_config_tensors(&specs, &model->config);
    Status status = STATUS_OK;
    model->later->waiting = malloc(n_specs * sizeof *model->later->waiting);
    if (!model->later->waiting) {
        status = error_set(error, STATUS_FAILED, "out of memory for %zu tensors", n_specs);
    }
    for (size_t i = 0; i < n_specs && status == STATUS_OK; i++) {
        const Tensor *tensor = safetensors_find(model->file, specs[i].name);
        assert(tensor); /* model_config_check saw it */
        status = load_tensor(model, tensor, place_of(specs[i].name), error);
        *offset_at(model, place_of(specs[i].name)) = model->n_parameters;
        size_t n = specs[i].n_dims == 2 ? specs[i].dims[0] * specs[i].dims[1] : specs[i].dims[0];
        model->n_parameters += n;
    }
    free(specs);
    return status;
}

/* Config and tokenizer; those of a GGUF file, of the bytes that are mapped. */
static Status load_meaning(Model *model, Error *error)
{
    const Gguf *gguf = model->file ? safetensors_gguf(model->file) : NULL;
    char path[FILE_PATH_MAX];
    Status status = gguf ? gguf_model_config(&model->config, gguf, error)
                         : model_config_read(&model->config, model->path, error);
    status = status ? status : model_file_path(path, model->path, "tokenizer.json", error);
    if (status == STATUS_OK && gguf) {
        status = tokenizer_of_gguf(&model->tokenizer, gguf, path, error);
    } else if (status == STATUS_OK && file_exists(path)) {
        status = tokenizer_open(&model->tokenizer, path, error);
    }
    if (status == STATUS_OK && model->tokenizer &&
        tokenizer_size(model->tokenizer) > model->config.vocab_size) {
        status = error_set(
            error, STATUS_REFUSED,
            "model \"%s\": its tokenizer has ids up to %d, its config says vocab_size %d",
            model->path, (int)tokenizer_size(model->tokenizer) - 1, model->config.vocab_size);
    }
    return status;
}

static Status load(Model *model, Error *error)
{
    char *weights = model->later->weights_path;
    bool first = gguf_is(model->path);
    Status status = first ? STATUS_OK : load_meaning(model, error);
    status = status ? status : model_weights_path(weights, model->path, error);
    status = status ? status : model_weights_open(&model->file, model->path, error);
    status = status || !first ? status : load_meaning(model, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = model_config_check(&model->config, model->file, error);
    if (status != STATUS_OK) {
        return error_context(error, status, "%s", weights);
    }
    model->layers = calloc((size_t)model->config.n_layers, sizeof *model->layers);
    size_t n_offsets = (size_t)N_PARTS * (size_t)model->config.n_layers * N_ROLES;
    model->offsets = malloc(n_offsets * sizeof *model->offsets);
    if (!model->layers || !model->offsets) {
        return error_set(error, STATUS_FAILED, "out of memory for %d layers",
                         model->config.n_layers);
    }
    memset(model->offsets, 0xff, n_offsets * sizeof *model->offsets); /* SIZE_MAX: absent */
    status = load_weights(model, error);
    return status == STATUS_REFUSED ? error_context(error, status, "%s", weights) : status;
}

Status model_open(Model **out, const char *directory, int n_threads, Error *error)
{
    Model *model = calloc(1, sizeof *model);
    if (!model || !(model->later = calloc(1, sizeof *model->later))) {
        free(model);
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    if (strlen(directory) >= sizeof model->path) {
        model_free(model);
        return error_set(error, STATUS_USAGE, "model path is longer than %zu bytes",
                         sizeof model->path - 1);
    }
    strcpy(model->path, directory);
    model->later->n_threads = n_threads;
    Status status = load(model, error);
    if (status != STATUS_OK) {
        model_free(model);
        return status;
    }
    *out = model;
    return STATUS_OK;
}

Status model_pack(const Model *model, Error *error)
{
    struct ModelLater *later = model->later;
    Status status =
        later->n_waiting ? model_head_check(&model->config, model->file, error) : STATUS_OK;
    for (size_t i = 0; i < later->n_waiting && status == STATUS_OK; i++) {
        const Tensor *tensor = later->waiting[i].tensor;
        status = model_tensor_check(tensor, later->n_threads, error);
        if (status == STATUS_OK && later->waiting[i].matrix) { /* while its pages are there */
            matrix_fill(later->waiting[i].matrix, tensor, later->n_threads);
        }
        safetensors_forget(model->file, tensor);
    }
    if (status != STATUS_OK) {
        return error_context(error, status, "%s", later->weights_path);
    }
    later->n_waiting = 0;
    return STATUS_OK;
}

void model_free(Model *model)
{
    if (!model) {
        return;
    }
    for (int l = 0; model->layers && l < model->config.n_layers; l++) {
        Layer *layer = &model->layers[l];
        free(layer->norm_attention);
        free(layer->norm_mlp);
        free(layer->norm_q);
        free(layer->norm_k);
        for (int role = 0; role < N_ROLES; role++) {
            matrix_release(&layer->weight[role]);
            free(layer->bias[role]);
        }
    }
    free(model->layers);
    free(model->offsets);
    if (model->later) {
        free(model->later->waiting);
    }
    free(model->later);
    free(model->norm_final);
    matrix_release(&model->head);
    free(model->trainable);
    tokenizer_free(model->tokenizer);
    safetensors_close(model->file);
    free(model);
}

const char *model_weights_sha256(const Model *model)
{
    if (!model->later->weights_sha256[0]) {
        safetensors_sha256(model->later->weights_sha256, model->file);
    }
    return model->later->weights_sha256;
}

const char *model_tokenizer_sha256(const Model *model)
{
    return !model->tokenizer               ? ""
           : safetensors_gguf(model->file) ? model_weights_sha256(model)
                                           : tokenizer_sha256(model->tokenizer);
}

size_t model_offset(const Model *model, ModelPart part, int layer, Role role)
{
    return *offset_at(model, (Place){part, layer, role});
}

Status model_make_trainable(Model *model, Error *error)
{
    Status status = model->trainable ? STATUS_OK : model_pack(model, error);
    if (status != STATUS_OK || model->trainable) {
        return status;
    }
    float *weights = malloc(model->n_parameters * sizeof *weights);
    if (!weights) {
        return error_set(error, STATUS_FAILED, "out of memory: the weights as f32 want %.2f GiB",
                         (double)model->n_parameters * 4 / 0x1p30);
    }
    TensorSpec *specs = NULL;
    size_t n_specs = model_config_tensors(&specs, &model->config), offset = 0;
    for (size_t i = 0; i < n_specs && status == STATUS_OK; i++) {
        const Tensor *tensor = safetensors_find(model->file, specs[i].name);
        size_t n = specs[i].n_dims == 2 ? specs[i].dims[0] * specs[i].dims[1] : specs[i].dims[0];
        tensor_read(weights + offset, tensor);
        Matrix *matrix = matrix_at(model, place_of(specs[i].name));
        if (matrix && matrix->type != TENSOR_F32) {
            matrix_release(matrix);
            status = matrix_reserve(matrix, TENSOR_F32, (int)specs[i].dims[0],
                                    (int)specs[i].dims[1], error);
        }
        offset += n;
    }
    free(specs);
    if (status != STATUS_OK) {
        free(weights);
        return status;
    }
    model->trainable = weights;
    model_update(model, 1);
    return STATUS_OK;
}

void model_update(Model *model, int n_threads)
{
    assert(model->trainable);
    TensorSpec *specs = NULL;
    size_t n_specs = model_config_tensors(&specs, &model->config), offset = 0;
    for (size_t i = 0; i < n_specs; i++) {
        const float *values = model->trainable + offset;
        Place place = place_of(specs[i].name);
        float **vector = vector_at(model, place);
        size_t n = specs[i].n_dims == 2 ? specs[i].dims[0] * specs[i].dims[1] : specs[i].dims[0];
        if (vector) {
            memcpy(*vector, values, n * sizeof *values);
        } else {
            Matrix *matrix = matrix_at(model, place);
            if (place.kind == PART_EMBEDDING) {
                model->embedding = values;
                model->embedding_type = TENSOR_F32;
            }
            if (matrix) {
                matrix_repack(matrix, values, n_threads);
            }
        }
        offset += n;
    }
    free(specs);
}

void model_module_weight(const Model *model, int layer, Role role, float *out)
{
    char name[128];
    module_name(name, layer, role);
    size_t n = strlen(name);
    snprintf(name + n, sizeof name - n, ".weight");
    const Tensor *tensor = safetensors_find(model->file, name);
    assert(tensor);
    tensor_read(out, tensor);
}
