/* The bank: finds the method by name and hands every call to it. */
#include "adapters/adapter.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/method.h"

static const AdapterMethod *const METHODS[] = {&adapter_method_tinylora, &adapter_method_lora,
                                               &adapter_method_lora_xs, &adapter_method_full,
                                               &adapter_method_none};
const char *const adapter_method_names[] = {"tinylora", "lora", "lora-xs", "full", "none", NULL};

static const AdapterMethod *find_method(const char *name)
{
    for (size_t i = 0; i < sizeof METHODS / sizeof *METHODS; i++) {
        if (strcmp(name, METHODS[i]->name) == 0) {
            return METHODS[i];
        }
    }
    return NULL;
}

int64_t adapter_spec_parameters(const AdapterSpec *spec, const ModelConfig *config)
{
    const AdapterMethod *method = find_method(spec->method);
    return method ? method->count(spec, config) : 0;
}

Status adapter_bank_new(AdapterBank **bank, Model *model, const AdapterSpec *spec, int n_adapters,
                        int n_threads, const char *cache_directory,
                        void (*progress)(void *, int, int), void *progress_context, Error *error)
{
    const AdapterMethod *method = find_method(spec->method);
    if (method == NULL) {
        return error_set(error, STATUS_USAGE,
                         "adapter method \"%s\": known are tinylora, lora, lora-xs, full, none",
                         spec->method);
    }
    if (n_adapters < 1) {
        return error_set(error, STATUS_USAGE, "a bank of %d adapters: at least 1", n_adapters);
    }
    AdapterBank *new = calloc(1, sizeof *new);
    if (new == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for a bank of adapters");
    }
    new->method = method;
    new->spec = *spec;
    new->spec.method = method->name;
    new->model = model;
    new->n_adapters = n_adapters;
    AdapterSetup setup = {cache_directory, progress, progress_context, n_threads};
    Status status = method->open(new, &setup, error);
    if (status != STATUS_OK) {
        adapter_bank_free(new);
        return error_context(error, status, "adapter \"%s\"", method->name);
    }
    *bank = new;
    return STATUS_OK;
}

void adapter_bank_free(AdapterBank *bank)
{
    if (bank != NULL) {
        bank->method->close(bank);
        free(bank);
    }
}

size_t adapter_parameters(const AdapterBank *bank)
{
    return bank->n_parameters;
}

int adapter_count(const AdapterBank *bank)
{
    return bank->n_adapters;
}

const AdapterSpec *adapter_spec(const AdapterBank *bank)
{
    return &bank->spec;
}

void adapter_initial(const AdapterBank *bank, float *v)
{
    bank->method->initial(bank, v);
}

void adapter_set(AdapterBank *bank, int adapter, const float *v, int n_threads)
{
    assert(adapter >= 1 && adapter <= bank->n_adapters);
    bank->method->set(bank, adapter, v, n_threads);
}

int adapter_shared_layers(const AdapterBank *bank, int a, int b)
{
    assert(a >= 0 && a <= bank->n_adapters && b >= 0 && b <= bank->n_adapters);
    return a == b ? bank->model->config.n_layers : bank->method->shared_layers(bank, a, b);
}

void adapter_use_base(AdapterBank *bank, bool base, int n_threads)
{
    if (bank->method->use_base) {
        bank->method->use_base(bank, base, n_threads);
    }
}

const LinearHook *adapter_hook(const AdapterBank *bank)
{
    return bank->hook.forward ? &bank->hook : NULL;
}

WeightGradients *adapter_weight_gradients(const AdapterBank *bank)
{
    return bank->weight_gradients.gradient ? (WeightGradients *)&bank->weight_gradients : NULL;
}

void adapter_clear_gradients(AdapterBank *bank)
{
    bank->method->clear(bank);
}

void adapter_gradient(const AdapterBank *bank, int adapter, double *gradient)
{
    assert(adapter >= 1 && adapter <= bank->n_adapters);
    bank->method->gradient(bank, adapter, gradient);
}
