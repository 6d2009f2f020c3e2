/* The method "full": every weight is trained. One adapter, living in the model itself; the pristine
 * weights are the file's, read again when the base is asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/method.h"

typedef struct {
    float *values; /* (n_parameters) the trained weights */
    bool base;     /* the model holds the pristine weights now */
} Full;

static void close_full(AdapterBank *bank)
{
    Full *full = bank->state;
    if (full != NULL) {
        free(full->values);
        free(full);
    }
    free(bank->weight_gradients.gradient);
    bank->state = NULL;
}

/* weights: (n_parameters) as in the model's file, in TensorSpec order. */
static bool read_pristine(float *weights, const Model *model)
{
    TensorSpec *specs;
    size_t n = model_config_tensors(&specs, &model->config);
    bool found = true;
    for (size_t i = 0; i < n && found; i++) {
        const Tensor *tensor = safetensors_find(model->file, specs[i].name);
        size_t size = specs[i].dims[0] * (specs[i].n_dims > 1 ? specs[i].dims[1] : 1);
        found = tensor != NULL;
        if (found) {
            tensor_read(weights, tensor);
            weights += size;
        }
    }
    free(specs);
    return found;
}

static Status open_full(AdapterBank *bank, const AdapterSetup *setup, Error *error)
{
    (void)setup;
    if (bank->n_adapters != 1) {
        return error_set(error, STATUS_USAGE, "one adapter a bank, not %d", bank->n_adapters);
    }
    Status status = model_make_trainable(bank->model, error);
    if (status != STATUS_OK) {
        return status;
    }
    size_t n = bank->model->n_parameters;
    Full *full = calloc(1, sizeof *full);
    bank->state = full;
    bank->n_parameters = n;
    bank->weight_gradients.gradient = calloc(n, sizeof(float));
    if (full != NULL) {
        full->values = malloc(n * sizeof *full->values);
    }
    if (full == NULL || full->values == NULL || bank->weight_gradients.gradient == NULL) {
        return error_set(error, STATUS_FAILED, "no memory to train %zu weights: %.1f GiB", n,
                         (double)n * 2 * sizeof(float) / 0x1p30);
    }
    memcpy(full->values, bank->model->trainable, n * sizeof *full->values);
    return STATUS_OK;
}

static int64_t count_full(const AdapterSpec *spec, const ModelConfig *config)
{
    (void)spec;
    TensorSpec *specs;
    size_t n = model_config_tensors(&specs, config);
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (int64_t)(specs[i].dims[0] * (specs[i].n_dims > 1 ? specs[i].dims[1] : 1));
    }
    free(specs);
    return sum;
}

static void initial_full(const AdapterBank *bank, float *v)
{
    if (!read_pristine(v, bank->model)) {
        abort(); /* model_open has checked that every tensor is there */
    }
}

static void load(AdapterBank *bank, int n_threads)
{
    Full *full = bank->state;
    if (full->base) {
        initial_full(bank, bank->model->trainable);
    } else {
        memcpy(bank->model->trainable, full->values, bank->n_parameters * sizeof *full->values);
    }
    model_update(bank->model, n_threads);
}

static void set_full(AdapterBank *bank, int adapter, const float *v, int n_threads)
{
    (void)adapter;
    Full *full = bank->state;
    memcpy(full->values, v, bank->n_parameters * sizeof *full->values);
    if (!full->base) {
        load(bank, n_threads);
    }
}

static int shared_layers_full(const AdapterBank *bank, int a, int b)
{
    (void)bank;
    (void)a;
    (void)b;
    return 0;
}

static void use_base_full(AdapterBank *bank, bool base, int n_threads)
{
    Full *full = bank->state;
    if (full->base != base) {
        full->base = base;
        load(bank, n_threads);
    }
}

static void clear_full(AdapterBank *bank)
{
    memset(bank->weight_gradients.gradient, 0, bank->n_parameters * sizeof(float));
}

static void gradient_full(const AdapterBank *bank, int adapter, double *gradient)
{
    (void)adapter;
    for (size_t i = 0; i < bank->n_parameters; i++) {
        gradient[i] = (double)bank->weight_gradients.gradient[i];
    }
}

const AdapterMethod adapter_method_full = {
    .name = "full",
    .open = open_full,
    .close = close_full,
    .count = count_full,
    .initial = initial_full,
    .set = set_full,
    .shared_layers = shared_layers_full,
    .use_base = use_base_full,
    .clear = clear_full,
    .gradient = gradient_full,
};
