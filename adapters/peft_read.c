/* Untrusted: every option and every tensor is looked at before it is used. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/peft.h"
#include "adapters/planners.h"
#include "core/file.h"
#include "core/json.h"

enum { MAX_CONFIG = 1 << 22 };

typedef struct {
    const Tensor *a, *b, *p;
    int rank;
} Found;

typedef struct {
    const ModelConfig *config;
    bool tinylora;
    double alpha, dropout, tying;
    bool rslora;
    SafeTensors *file;
    Found *found; /* (n_layers, N_ROLES) */
    int n_found;
} Reader;

/* Options that say how it was made or trained, not what is computed. */
static bool is_harmless(const char *key)
{
    static const char *const keys[] = {"auto_mapping",
                                       "base_model_name_or_path",
                                       "corda_config",
                                       "ensure_weight_tying",
                                       "eva_config",
                                       "exclude_modules",
                                       "inference_mode",
                                       "init_v_bound",
                                       "layers_pattern",
                                       "layers_to_transform",
                                       "lora_alpha",
                                       "lora_dropout",
                                       "megatron_core",
                                       "peft_type",
                                       "peft_version",
                                       "projection_seed",
                                       "qalora_group_size",
                                       "r",
                                       "rank_pattern",
                                       "revision",
                                       "save_projection",
                                       "target_modules",
                                       "task_type",
                                       "tinylora_dropout",
                                       "u",
                                       "use_rslora",
                                       "weight_tying"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (strcmp(key, keys[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_off(const Json *value)
{
    JsonKind kind = json_kind(value);
    return kind == JSON_NULL || kind == JSON_FALSE ||
           ((kind == JSON_ARRAY || kind == JSON_OBJECT) && json_size(value) == 0);
}

/* Starts that change the base model's own weights cannot be put on the base as it is. */
static bool keeps_base(const Json *start)
{
    static const char *const words[] = {"gaussian", "eva", "orthogonal", "uniform"};
    const char *word = json_string(start, NULL);
    for (size_t i = 0; word && i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(word, words[i]) == 0) {
            return true;
        }
    }
    return json_kind(start) != JSON_STRING;
}

static Status check_option(const char *key, const Json *value, Error *error)
{
    const char *word = json_string(value, NULL);
    if (is_harmless(key) || is_off(value)) {
        return STATUS_OK;
    }
    if (strcmp(key, "bias") == 0 && word && strcmp(word, "none") == 0) {
        return STATUS_OK;
    }
    if ((strcmp(key, "init_lora_weights") == 0 || strcmp(key, "init_weights") == 0) &&
        keeps_base(value)) {
        return STATUS_OK;
    }
    return error_set(error, STATUS_REFUSED,
                     "option \"%.64s\"%s%.64s%s: not had here; it would change what is computed",
                     key, word ? " = \"" : "", word ? word : "", word ? "\"" : "");
}

static Status read_number(double *out, const Json *root, const char *key, double fallback,
                          double min, double max, Error *error)
{
    const Json *value = json_get(root, key);
    *out = fallback;
    if (json_kind(value) != JSON_NULL &&
        (!json_double(value, out) || !(*out >= min && *out <= max))) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is not a number from %g to %g", key, min,
                         max);
    }
    return STATUS_OK;
}

static Status check_targets(const Json *targets, Error *error)
{
    for (size_t i = 0; json_kind(targets) == JSON_ARRAY && i < json_size(targets); i++) {
        const char *name = json_string(json_at(targets, i), NULL);
        const char *dot = name ? strrchr(name, '.') : NULL;
        bool known = false;
        for (int role = 0; name && role < N_ROLES; role++) {
            known |= strcmp(dot ? dot + 1 : name, role_name((Role)role)) == 0;
        }
        if (!known) {
            return error_set(error, STATUS_REFUSED,
                             "\"target_modules\": the model has no \"%.100s\" to adapt; it has "
                             "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
                             name ? name : "?");
        }
    }
    return STATUS_OK;
}

static Status read_config(Reader *r, const Json *root, Error *error)
{
    const char *type = json_string(json_get(root, "peft_type"), NULL);
    bool lora = type && strcmp(type, "LORA") == 0;
    Status status = STATUS_OK;
    if (json_kind(root) != JSON_OBJECT) {
        return error_set(error, STATUS_REFUSED, "is %s, not an object",
                         json_kind_name(json_kind(root)));
    }
    r->tinylora = type && strcmp(type, "TINYLORA") == 0;
    if (!lora && !r->tinylora) {
        return error_set(error, STATUS_REFUSED,
                         "\"peft_type\" is \"%.40s\"; LORA and TINYLORA are read",
                         type ? type : "missing");
    }
    for (size_t i = 0; i < json_size(root) && !status; i++) {
        status = check_option(json_key(root, i), json_at(root, i), error);
    }
    status = status ? status : check_targets(json_get(root, "target_modules"), error);
    status = status ? status : read_number(&r->alpha, root, "lora_alpha", 8, -1e9, 1e9, error);
    status =
        status ? status : read_number(&r->dropout, root, "lora_dropout", 0, 0, 0.999999999, error);
    status = status ? status : read_number(&r->tying, root, "weight_tying", 0, 0, 1, error);
    json_bool(json_get(root, "use_rslora"), &r->rslora);
    return status;
}

/* "base_model.model." module, then what of it. */
static bool parse_name(const char *name, int *layer, Role *role, const char **rest)
{
    static const char prefix[] = "base_model.model.";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) {
        return false;
    }
    name += sizeof prefix - 1;
    int used = 0;
    if (sscanf(name, "model.layers.%9d.%n", layer, &used) != 1 || used == 0 || *layer < 0) {
        return false;
    }
    for (int k = 0; k < N_ROLES; k++) {
        char module[96];
        module_name(module, *layer, (Role)k);
        size_t n = strlen(module);
        if (strncmp(name, module, n) == 0 && name[n] == '.') {
            *role = (Role)k;
            *rest = name + n + 1;
            return true;
        }
    }
    return false;
}

static Status take_tensor(Reader *r, const Tensor *tensor, Error *error)
{
    int layer;
    Role role;
    const char *rest;
    if (r->tinylora && strncmp(tensor->name, "base_model.tinylora_v.", 22) == 0) {
        return STATUS_OK;
    }
    if (!parse_name(tensor->name, &layer, &role, &rest) || layer >= r->config->n_layers) {
        return error_set(error, STATUS_REFUSED, "belongs to no linear layer of this model");
    }
    Found *found = &r->found[layer * N_ROLES + (int)role];
    const char *const names[] = {r->tinylora ? "tinylora_A" : "lora_A.weight",
                                 r->tinylora ? "tinylora_B" : "lora_B.weight", "tinylora_P"};
    const Tensor **places[] = {&found->a, &found->b, &found->p};
    for (int k = 0; k < (r->tinylora ? 3 : 2); k++) {
        if (strcmp(rest, names[k]) == 0) {
            *places[k] = tensor;
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_REFUSED, "is none of %s, %s%s", names[0], names[1],
                     r->tinylora ? ", tinylora_P" : "");
}

static Status check_numbers(const Tensor *tensor, Error *error)
{
    size_t size = tensor_type_size(tensor->type), n = size ? tensor->n_bytes / size : 0;
    if (size == 0) {
        return error_set(error, STATUS_REFUSED, "has type %s; F32, F16 and BF16 are read",
                         tensor->type_name);
    }
    size_t bad = tensor_find_nonfinite(tensor->data, tensor->type, n);
    return bad == n ? STATUS_OK
                    : error_set(error, STATUS_REFUSED, "element %zu is not a finite number", bad);
}

static Status check_shape(const Tensor *tensor, size_t rows, size_t columns, Error *error)
{
    if (tensor->n_dims != 2 || tensor->dims[0] != rows || tensor->dims[1] != columns) {
        return error_set(
            error, STATUS_REFUSED, "tensor \"%s\": shape (%zu, %zu), this model's has (%zu, %zu)",
            tensor->name, tensor->dims[0], tensor->n_dims > 1 ? tensor->dims[1] : 0, rows, columns);
    }
    return STATUS_OK;
}

/* Both matrices, of one rank, and the shapes of this model's layer. */
static Status check_module(Reader *r, int layer, Role role, Error *error)
{
    Found *found = &r->found[layer * N_ROLES + (int)role];
    char name[96];
    int n_out, n_in;
    module_name(name, layer, role);
    role_shape(r->config, role, &n_out, &n_in);
    if (!found->a && !found->b && !found->p) {
        return STATUS_OK;
    }
    if (!found->a || !found->b || (r->tinylora && !found->p)) {
        return error_set(error, STATUS_REFUSED, "\"%s\": its %s is missing%s", name,
                         !found->a   ? "A"
                         : !found->b ? "B"
                                     : "P",
                         r->tinylora && !found->p
                             ? "; save the adapter with save_projection=True, for P comes from "
                               "PyTorch's generator otherwise"
                             : "");
    }
    size_t rank = found->a->n_dims == 2 ? found->a->dims[0] : 0;
    if (rank < 1 || rank > PLAN_MAX_RANK) {
        return error_set(error, STATUS_REFUSED, "tensor \"%s\": rank %zu is not in 1 to %d",
                         found->a->name, rank, PLAN_MAX_RANK);
    }
    Status status = check_shape(found->a, rank, (size_t)n_in, error);
    status = status ? status : check_shape(found->b, (size_t)n_out, rank, error);
    if (!status && r->tinylora &&
        (found->p->n_dims != 3 || found->p->dims[1] != rank || found->p->dims[2] != rank)) {
        status = error_set(error, STATUS_REFUSED, "tensor \"%s\": its shape is not (u, %zu, %zu)",
                           found->p->name, rank, rank);
    }
    found->rank = (int)rank;
    r->n_found++;
    return status;
}

static Status find_tensors(Reader *r, Error *error)
{
    Status status = STATUS_OK;
    for (size_t i = 0; i < safetensors_count(r->file) && !status; i++) {
        const Tensor *tensor = safetensors_at(r->file, i);
        status = take_tensor(r, tensor, error);
        status = status ? status : check_numbers(tensor, error);
        status =
            status ? error_context(error, status, "tensor \"%.200s\"", tensor->name) : STATUS_OK;
    }
    for (int i = 0; i < r->config->n_layers * N_ROLES && !status; i++) {
        status = check_module(r, i / N_ROLES, (Role)(i % N_ROLES), error);
    }
    return status || r->n_found ? status
                                : error_set(error, STATUS_REFUSED, "it adapts no linear layer");
}

/* out: (n) malloc'ed. */
static float *as_f32(const Tensor *tensor)
{
    size_t n = tensor->n_bytes / tensor_type_size(tensor->type);
    float *out = malloc(n * sizeof *out + 1);
    if (out) {
        tensor_to_f32(out, tensor->data, tensor->type, n);
    }
    return out;
}

/* r: (rank, rank) = sum of v_i P_i. place: of the module among those adapted. */
static Status mix(double *mixed, const Reader *r, const Found *found, int place, Error *error)
{
    char name[64];
    int groups = planner_peft_groups(r->n_found, r->tying);
    int size = r->n_found / groups > 1 ? r->n_found / groups : 1;
    int group = place / size < groups - 1 ? place / size : groups - 1;
    size_t u = found->p->dims[0], square = (size_t)found->rank * found->rank;
    snprintf(name, sizeof name, "base_model.tinylora_v.%d", group);
    const Tensor *tensor = safetensors_find(r->file, name);
    if (!tensor || tensor->n_dims != 1 || tensor->dims[0] != u) {
        return error_set(error, STATUS_REFUSED,
                         "tensor \"%s\": %s; weight_tying %g of %d modules wants %d vectors of %zu",
                         name, tensor ? "has another shape" : "is missing", r->tying, r->n_found,
                         groups, u);
    }
    float *v = as_f32(tensor), *p = as_f32(found->p);
    for (size_t e = 0; v && p && e < square; e++) {
        mixed[e] = 0;
        for (size_t i = 0; i < u; i++) {
            mixed[e] += (double)v[i] * (double)p[i * square + e];
        }
    }
    bool fits = v && p;
    free(v);
    free(p);
    return fits ? STATUS_OK : error_set(error, STATUS_FAILED, "out of memory");
}

/* b: (n_out, rank) of what is kept, with `factor`; TinyLoRA's: B R. */
static Status put_b(float *b, int rank, const Reader *r, const Found *found, int place,
                    double factor, Error *error)
{
    size_t k = (size_t)found->rank, n_out = found->b->dims[0];
    double *mixed = calloc(k * k, sizeof *mixed);
    float *theirs = as_f32(found->b);
    Status status = mixed && theirs ? STATUS_OK : error_set(error, STATUS_FAILED, "out of memory");
    if (!status && r->tinylora) {
        status = mix(mixed, r, found, place, error);
    }
    for (size_t j = 0; !status && !r->tinylora && j < k; j++) {
        mixed[j * k + j] = factor;
    }
    for (size_t o = 0; !status && o < n_out; o++) {
        for (size_t j = 0; j < k; j++) {
            double sum = 0;
            for (size_t i = 0; i < k; i++) {
                sum += (double)theirs[o * k + i] * mixed[i * k + j];
            }
            b[o * (size_t)rank + j] = (float)sum;
        }
    }
    free(mixed);
    free(theirs);
    return status;
}

/* What method lora's v is: module by module A, then B. A module that the file has not, zeros. */
static Status fill(PeftAdapter *peft, const Reader *r, bool folded, Error *error)
{
    Status status = STATUS_OK;
    float *at = peft->v;
    int place = 0;
    for (int i = 0; i < r->config->n_layers * N_ROLES && !status; i++) {
        const Found *found = &r->found[i];
        int n_out, n_in;
        if (!(peft->targets >> (i % N_ROLES) & 1)) {
            continue;
        }
        role_shape(r->config, (Role)(i % N_ROLES), &n_out, &n_in);
        size_t n_a = (size_t)peft->rank * n_in;
        if (found->a) {
            double rank = found->rank;
            double factor = folded ? r->alpha / (r->rslora ? sqrt(rank) : rank) : 1;
            tensor_to_f32(at, found->a->data, found->a->type, (size_t)found->rank * n_in);
            status = put_b(at + n_a, peft->rank, r, found, place++, factor, error);
        }
        at += n_a + (size_t)peft->rank * n_out;
    }
    size_t bad = status ? peft->n : tensor_find_nonfinite(peft->v, TENSOR_F32, peft->n);
    return status || bad == peft->n
               ? status
               : error_set(error, STATUS_REFUSED, "its product is not finite in f32");
}

static Status convert(PeftAdapter *peft, const Reader *r, Error *error)
{
    bool uniform = true;
    int first = 0;
    for (int i = 0; i < r->config->n_layers * N_ROLES; i++) {
        const Found *found = &r->found[i];
        if (found->a) {
            first = first ? first : found->rank;
            uniform &= found->rank == first;
            peft->rank = found->rank > peft->rank ? found->rank : peft->rank;
            peft->targets |= 1u << i % N_ROLES;
        }
    }
    bool folded = r->tinylora || !uniform || !(r->alpha > 0 && r->alpha <= 1e6);
    peft->alpha = folded ? peft->rank : r->alpha;
    peft->rslora = !folded && r->rslora;
    peft->dropout = r->dropout;
    for (int role = 0; role < N_ROLES; role++) {
        int n_out, n_in;
        role_shape(r->config, (Role)role, &n_out, &n_in);
        peft->n +=
            peft->targets >> role & 1 ? (size_t)peft->rank * ((size_t)n_in + (size_t)n_out) : 0;
    }
    peft->n *= (size_t)r->config->n_layers;
    peft->v = calloc(peft->n, sizeof *peft->v);
    if (!peft->v) {
        return error_set(error, STATUS_FAILED, "no memory for %.2f GiB of matrices",
                         (double)peft->n * sizeof(float) / 0x1p30);
    }
    const char *hash = safetensors_metadata(r->file, "tinylora.weights_sha256");
    snprintf(peft->weights_sha256, sizeof peft->weights_sha256, "%s", hash ? hash : "");
    return fill(peft, r, folded, error);
}

Status peft_read(PeftAdapter *peft, const char *directory, const ModelConfig *config, Error *error)
{
    char config_path[FILE_PATH_MAX], weights_path[FILE_PATH_MAX];
    JsonDocument *document = NULL;
    Reader r = {.config = config};
    *peft = (PeftAdapter){0};
    Status status = path_join(config_path, directory, PEFT_CONFIG_FILE, error);
    status = status ? status : path_join(weights_path, directory, PEFT_WEIGHTS_FILE, error);
    status = status ? status : json_read(&document, config_path, MAX_CONFIG, error);
    if (status) {
        return status;
    }
    status = read_config(&r, json_root(document), error);
    status = status ? error_context(error, status, "%s", config_path)
                    : safetensors_open(&r.file, weights_path, error);
    if (!status) {
        r.found = calloc((size_t)config->n_layers * N_ROLES, sizeof *r.found);
        status =
            r.found ? find_tensors(&r, error) : error_set(error, STATUS_FAILED, "out of memory");
        status = status ? status : convert(peft, &r, error);
        status = status ? error_context(error, status, "%s", weights_path) : STATUS_OK;
    }
    if (status) {
        free(peft->v);
        *peft = (PeftAdapter){0};
    }
    free(r.found);
    safetensors_close(r.file);
    json_free(document);
    return status;
}
