/* The base's file is read from its mapping, tensor by tensor, and its pages given back. */
#include "adapters/merge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/change.h"
#include "adapters/method.h"
#include "core/file.h"
#include "core/gguf_model.h"
#include "core/gguf_write.h"

enum { MAX_COPIED_BYTES = 1 << 28, CHUNK_BYTES = 1 << 20 };

typedef struct {
    const AdapterBank *bank;
    const float *v;
    FileWriter writer;
    MergeReport *report;
    double along, squared; /* <stored - W, W' - W> and |W' - W|^2 */
    float *base, *stored;  /* (row): W, and what is stored, read back */
    unsigned char *bytes;  /* (row) in the file's type */
    size_t capacity;       /* of those, in elements */
} Merge;

/* The f32 between x and 0, or x itself, whose last bit says that something was cut off: rounding it
 * again to a shorter type gives what rounding x would. */
static float round_to_odd(double x)
{
    float near = (float)x;
    if ((double)near == x || !isfinite(near)) {
        return near;
    }
    if (fabs((double)near) > fabs(x)) {
        near = nextafterf(near, 0);
    }
    uint32_t bits;
    memcpy(&bits, &near, sizeof bits);
    bits |= 1;
    memcpy(&near, &bits, sizeof bits);
    return near;
}

static Status make_room(Merge *m, size_t n, Error *error)
{
    if (n <= m->capacity) {
        return STATUS_OK;
    }
    free(m->base);
    free(m->stored);
    free(m->bytes);
    m->base = malloc(n * sizeof *m->base);
    m->stored = malloc(n * sizeof *m->stored);
    m->bytes = malloc(n * sizeof(float)); /* NOLINT(*MallocSizeof): the widest type there is */
    m->capacity = n;
    return m->base && m->stored && m->bytes
               ? STATUS_OK
               : error_set(error, STATUS_FAILED, "no memory for a row of %zu weights", n);
}

static void account(Merge *m, const Tensor *tensor, size_t n, const double *change)
{
    MergeReport *report = m->report;
    for (size_t i = 0; i < n; i++) {
        double base = (double)m->base[i], stored = (double)m->stored[i];
        double rounding = fabs(stored - (base + change[i]));
        report->n_changed += stored != base;
        m->along += (stored - base) * change[i];
        m->squared += change[i] * change[i];
        report->largest_change = fmax(report->largest_change, fabs(change[i]));
        if (rounding > report->largest_rounding) {
            report->largest_rounding = rounding;
            snprintf(report->largest_at, sizeof report->largest_at, "%s", tensor->name);
        }
    }
    report->n_adapted += n;
}

/* The type that W' is stored in: no quantised one. */
static TensorType stored_type(const Tensor *tensor)
{
    return tensor_type_plain(tensor->type) ? tensor->type : TENSOR_F32;
}

/* Row `row` of W', whose weights m->base has. */
static Status put_row(Merge *m, const Tensor *tensor, size_t row, size_t n, const double *change,
                      Error *error)
{
    TensorType type = stored_type(tensor);
    for (size_t i = 0; i < n; i++) {
        double sum = (double)m->base[i] + change[i];
        m->stored[i] = type == TENSOR_F32 ? (float)sum : round_to_odd(sum);
    }
    tensor_from_f32(m->bytes, m->stored, type, n);
    size_t bad = tensor_find_nonfinite(m->bytes, type, n);
    if (bad < n) {
        return error_set(error, STATUS_REFUSED,
                         "tensor \"%s\": element %zu becomes %g, which %s cannot hold",
                         tensor->name, row * n + bad, (double)m->base[bad] + change[bad],
                         tensor_type_name(type));
    }
    tensor_to_f32(m->stored, m->bytes, type, n);
    account(m, tensor, n, change);
    return file_writer_append(&m->writer, m->bytes, n * tensor_type_size(type), error);
}

/* Rows in the order of the file. */
static Status put_matrix(Merge *m, const Tensor *tensor, Module module, Error *error)
{
    Change change;
    Status status = change_open(&change, m->bank, 1, m->v, module, error);
    size_t n = (size_t)change.n_in;
    status = status ? status : make_room(m, n, error);
    for (int i = 0; i < change.n_out && !status; i++) {
        size_t row = turned_row_back(tensor->turned, (size_t)i);
        tensor_read_rows(m->base, tensor, row, 1);
        status = put_row(m, tensor, row, n, change_row(&change, (int)row), error);
    }
    change_close(&change);
    return status;
}

/* A tensor of "full": W' - W from v. */
static Status put_trained(Merge *m, const Tensor *tensor, const float *trained, Error *error)
{
    Tensor rows = tensor_rows(tensor);
    size_t n = rows.dims[1];
    double *change = malloc(n * sizeof *change);
    Status status =
        change ? make_room(m, n, error) : error_set(error, STATUS_FAILED, "out of memory");
    for (size_t i = 0; i < rows.dims[0] && !status; i++) {
        size_t row = turned_row_back(rows.turned, i);
        tensor_read_rows(m->base, &rows, row, 1);
        for (size_t j = 0; j < n; j++) {
            change[j] = (double)trained[row * n + j] - (double)m->base[j];
        }
        status = put_row(m, &rows, row, n, change, error);
    }
    free(change);
    return status;
}

static Status copy_tensor(Merge *m, const Tensor *tensor, Error *error)
{
    Status status = STATUS_OK;
    for (size_t start = 0; start < tensor->n_bytes && !status; start += CHUNK_BYTES) {
        size_t n = tensor->n_bytes - start < CHUNK_BYTES ? tensor->n_bytes - start : CHUNK_BYTES;
        status = file_writer_append(&m->writer, (const char *)tensor->data + start, n, error);
    }
    return status;
}

/* The module whose weight has this name. */
static bool find_module(const AdapterBank *bank, const char *name, Module *module)
{
    int n;
    const Module *modules = adapter_modules(bank, &n);
    for (int i = 0; i < n; i++) {
        char weight[128];
        module_name(weight, modules[i].layer, modules[i].role);
        strcat(weight, ".weight");
        if (strcmp(weight, name) == 0) {
            *module = modules[i];
            return true;
        }
    }
    return false;
}

/* Where a tensor starts in v of "full", or NULL. */
static const float *find_trained(const Merge *m, const char *name)
{
    TensorSpec *specs;
    size_t n = model_config_tensors(&specs, &m->bank->model->config);
    const float *at = m->v, *found = NULL;
    for (size_t i = 0; i < n && !found; i++) {
        found = strcmp(specs[i].name, name) == 0 ? at : NULL;
        at += specs[i].dims[0] * (specs[i].n_dims > 1 ? specs[i].dims[1] : 1);
    }
    free(specs);
    return found;
}

static Status put_tensor(Merge *m, const Tensor *tensor, Error *error)
{
    Module module;
    bool full = m->bank->weight_gradients.gradient != NULL;
    const float *trained = full ? find_trained(m, tensor->name) : NULL;
    Status status = trained ? put_trained(m, tensor, trained, error)
                    : find_module(m->bank, tensor->name, &module)
                        ? put_matrix(m, tensor, module, error)
                        : copy_tensor(m, tensor, error);
    safetensors_forget(m->bank->model->file, tensor);
    return status;
}

static Status put_weights(Merge *m, const char *folder, Error *error)
{
    static const char *const metadata[] = {"format", "pt"};
    const SafeTensors *file = m->bank->model->file;
    bool tied = m->bank->model->config.tied_head;
    size_t n_file = safetensors_count(file), n = 0;
    char path[FILE_PATH_MAX];
    Tensor *tensors = calloc(n_file + 1, sizeof *tensors);
    Status status = tensors ? path_join(path, folder, "model.safetensors", error)
                            : error_set(error, STATUS_FAILED, "out of memory");
    for (size_t i = 0; i < n_file && !status; i++) {
        const Tensor *tensor = safetensors_at(file, i);
        if (!tied || strcmp(tensor->name, "lm_head.weight") != 0) {
            tensors[n++] = *tensor;
        }
    }
    status = status ? status : safetensors_begin(&m->writer, path, tensors, n, metadata, 1, error);
    if (!status) {
        for (size_t i = 0; i < n && !status; i++) {
            status = put_tensor(m, &tensors[i], error);
        }
        status = status ? status : file_writer_commit(&m->writer, error);
        if (status) {
            file_writer_cancel(&m->writer);
        }
    }
    free(tensors);
    return status;
}

/* ---- a GGUF file ---- */

static Status pad(Merge *m, size_t n_bytes, size_t alignment, Error *error)
{
    static const char zeros[4096];
    size_t left = gguf_padded(n_bytes, alignment) - n_bytes;
    Status status = STATUS_OK;
    while (left && !status) {
        size_t n = left < sizeof zeros ? left : sizeof zeros;
        status = file_writer_append(&m->writer, zeros, n, error);
        left -= n;
    }
    return status;
}

/* Is it one that the adapter changes? */
static bool is_adapted(const Merge *m, const Tensor *tensor)
{
    Module module;
    bool full = m->bank->weight_gradients.gradient != NULL;
    return tensor && (full ? find_trained(m, tensor->name) != NULL
                           : find_module(m->bank, tensor->name, &module));
}

/* The base's values as they are, then its tensors: those that change in their plain type, the
 * others as they lie. */
static Status put_gguf(Merge *m, const char *folder, Error *error)
{
    const SafeTensors *file = m->bank->model->file;
    const Gguf *gguf = safetensors_gguf(file);
    char path[FILE_PATH_MAX];
    size_t n = gguf_n_tensors(gguf), alignment = gguf_alignment(gguf), n_bytes, offset = 0;
    const char *values = gguf_value_bytes(gguf, &n_bytes);
    Tensor *tensors = calloc(n + 1, sizeof *tensors);
    const Tensor **changed = calloc(n + 1, sizeof *changed);
    Text header = {0};
    Status status =
        tensors && changed ? STATUS_OK : error_set(error, STATUS_FAILED, "out of memory");
    gguf_add_start(&header, n, gguf_n_values(gguf));
    text_append(&header, values, n_bytes);
    for (size_t i = 0; i < n && !status; i++) {
        char name[128];
        const Tensor *own = gguf_tensor_name(name, gguf_tensor(gguf, i)->name)
                                ? safetensors_find(file, name)
                                : NULL; /* rope_freqs */
        tensors[i] = *gguf_tensor(gguf, i);
        if (is_adapted(m, own)) {
            changed[i] = own;
            tensors[i].type = stored_type(own);
            tensors[i].n_bytes = tensor_type_bytes(tensors[i].type, tensor_n_elements(own));
        }
        gguf_add_tensor(&header, &tensors[i], alignment, &offset);
    }
    gguf_add_padding(&header, alignment);
    status = status ? status : path_join(path, folder, MODEL_GGUF_FILE, error);
    status = status ? status : file_writer_open(&m->writer, path, error);
    if (!status) {
        status = file_writer_append(&m->writer, header.bytes, header.n, error);
        for (size_t i = 0; i < n && !status; i++) {
            status = changed[i] ? put_tensor(m, changed[i], error)
                                : copy_tensor(m, gguf_tensor(gguf, i), error);
            status = status ? status : pad(m, tensors[i].n_bytes, alignment, error);
        }
        status = status ? status : file_writer_commit(&m->writer, error);
        if (status) {
            file_writer_cancel(&m->writer);
        }
    }
    text_release(&header);
    free(changed);
    free(tensors);
    return status;
}

/* What a model directory has beside its weights. config.json last: without it a folder is no model.
 */
static Status copy_files(const char *folder, const char *from, Error *error)
{
    static const char *const names[] = {"generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer.model",
                                        "chat_template.jinja",
                                        "config.json"};
    Status status = STATUS_OK;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !status; i++) {
        char source[FILE_PATH_MAX], target[FILE_PATH_MAX], *bytes = NULL;
        size_t n = 0;
        status = path_join(source, from, names[i], error);
        status = status ? status : path_join(target, folder, names[i], error);
        if (!status && file_exists(source)) {
            status = file_read(&bytes, &n, source, MAX_COPIED_BYTES, error);
            status = status ? status : file_write(target, bytes, n, error);
            free(bytes);
        }
    }
    return status;
}

Status adapter_merge(MergeReport *report, const AdapterBank *bank, const float *v,
                     const char *directory, Error *error)
{
    FileWriter folder;
    Merge merge = {.bank = bank, .v = v, .report = report};
    *report = (MergeReport){0};
    if (directory_occupied(directory)) {
        return error_set(error, STATUS_USAGE, "%s: exists already and is not empty", directory);
    }
    Status status = directory_writer_open(&folder, directory, error);
    if (status) {
        return status;
    }
    if (safetensors_gguf(bank->model->file)) {
        status = put_gguf(&merge, folder.temporary, error);
    } else {
        status = put_weights(&merge, folder.temporary, error);
        status = status ? status : copy_files(folder.temporary, bank->model->path, error);
    }
    status = status ? status : directory_writer_commit(&folder, error);
    if (status) {
        directory_writer_cancel(&folder);
    }
    free(merge.base);
    free(merge.stored);
    free(merge.bytes);
    report->kept = merge.squared > 0 ? merge.along / merge.squared : 1;
    return status;
}

/* ---- and back ---- */

/* The key of config.json in which two models compute otherwise, or NULL. */
static const char *find_difference(const ModelConfig *a, const ModelConfig *b)
{
    const struct {
        const char *key;
        double a, b;
    } fields[] = {
        {"model_type", a->architecture, b->architecture},
        {"num_hidden_layers", a->n_layers, b->n_layers},
        {"hidden_size", a->width, b->width},
        {"num_attention_heads", a->n_heads, b->n_heads},
        {"num_key_value_heads", a->n_kv_heads, b->n_kv_heads},
        {"head_dim", a->head_dim, b->head_dim},
        {"intermediate_size", a->ff_width, b->ff_width},
        {"vocab_size", a->vocab_size, b->vocab_size},
        {"rope_theta", a->rope_theta, b->rope_theta},
        {"rope_scaling", a->rope_type, b->rope_type},
        {"rope_scaling", a->rope_factor, b->rope_factor},
        {"rope_scaling", a->rope_low_freq_factor, b->rope_low_freq_factor},
        {"rope_scaling", a->rope_high_freq_factor, b->rope_high_freq_factor},
        {"rope_scaling", a->rope_original_positions, b->rope_original_positions},
        {"rope_scaling", a->rope_beta_fast, b->rope_beta_fast},
        {"rope_scaling", a->rope_beta_slow, b->rope_beta_slow},
        {"rope_scaling", a->rope_attention_factor, b->rope_attention_factor},
        {"sliding_window", a->window, b->window},
        {"max_window_layers", a->window_from, b->window_from},
        {"rms_norm_eps", a->rms_eps, b->rms_eps},
        {"tie_word_embeddings", a->tied_head, b->tied_head},
        {"attention_bias", a->attention_bias, b->attention_bias},
        {"attention_bias", a->output_bias, b->output_bias},
        {"mlp_bias", a->mlp_bias, b->mlp_bias},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (fields[i].a != fields[i].b) {
            return fields[i].key;
        }
    }
    return NULL;
}

static Status read_weights(float **v, size_t *n, const SafeTensors *file, const ModelConfig *config,
                           Error *error)
{
    TensorSpec *specs;
    size_t n_specs = model_config_tensors(&specs, config);
    *n = 0;
    for (size_t i = 0; i < n_specs; i++) {
        *n += specs[i].dims[0] * (specs[i].n_dims > 1 ? specs[i].dims[1] : 1);
    }
    float *at = *v = malloc(*n * sizeof **v + 1);
    for (size_t i = 0; *v && i < n_specs; i++) {
        const Tensor *tensor = safetensors_find(file, specs[i].name);
        tensor_read(at, tensor);
        safetensors_forget(file, tensor);
        at += tensor_n_elements(tensor);
    }
    free(specs);
    return *v ? STATUS_OK
              : error_set(error, STATUS_FAILED, "no memory for %.1f GiB of weights",
                          (double)*n * sizeof **v / 0x1p30);
}

Status merged_read(float **v, size_t *n, const char *model, const ModelConfig *base, Error *error)
{
    ModelConfig config;
    SafeTensors *file = NULL;
    char path[FILE_PATH_MAX];
    Status status = model_config_read(&config, model, error);
    const char *key = status ? NULL : find_difference(&config, base);
    if (key) {
        return error_set(error, STATUS_REFUSED, "%s%s: \"%s\" is not as in the base model's", model,
                         gguf_is(model) ? "" : "/config.json", key);
    }
    status = status ? status : model_weights_path(path, model, error);
    status = status ? status : model_weights_open(&file, model, error);
    if (!status) {
        status = model_config_check(&config, file, error);
        status = status ? status : model_weights_check(&config, file, error);
        status = status ? error_context(error, status, "%s", path)
                        : read_weights(v, n, file, &config, error);
    }
    safetensors_close(file);
    return status;
}
