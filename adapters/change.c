/* Products are multiplied out in double, a row at a time. */
#include "adapters/change.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/method.h"

const Module *adapter_modules(const AdapterBank *bank, int *n)
{
    *n = 0;
    return bank->method->modules ? bank->method->modules(bank, n) : NULL;
}

void adapter_product(const AdapterBank *bank, int adapter, int module, float *a, float *b)
{
    bank->method->product(bank, adapter, module, a, b);
}

bool adapter_frozen(const AdapterBank *bank, int module, AdapterFrozen *frozen)
{
    return bank->method->frozen && bank->method->frozen(bank, module, frozen);
}

const Model *adapter_model(const AdapterBank *bank)
{
    return bank->model;
}

static int find_module(const AdapterBank *bank, Module module)
{
    int n;
    const Module *modules = adapter_modules(bank, &n);
    for (int i = 0; i < n; i++) {
        if (modules[i].layer == module.layer && modules[i].role == module.role) {
            return i;
        }
    }
    return -1;
}

Status change_open(Change *change, const AdapterBank *bank, int adapter, const float *v,
                   Module module, Error *error)
{
    const Model *model = bank->model;
    *change = (Change){0};
    role_shape(&model->config, module.role, &change->n_out, &change->n_in);
    change->row = malloc((size_t)change->n_in * sizeof *change->row);
    bool fits = change->row != NULL;
    int place = find_module(bank, module);
    if (bank->weight_gradients.gradient) { /* full */
        char name[128];
        module_name(name, module.layer, module.role);
        strcat(name, ".weight");
        change->trained = v + model_offset(model, PART_WEIGHT, module.layer, module.role);
        change->base = safetensors_find(model->file, name);
        change->base_row = malloc((size_t)change->n_in * sizeof(float));
        fits = fits && change->base_row;
    } else if (place >= 0) {
        change->rank = bank->spec.plan.rank;
        change->a = malloc((size_t)change->rank * change->n_in * sizeof(float));
        change->b = malloc((size_t)change->rank * change->n_out * sizeof(float));
        fits = fits && change->a && change->b;
    }
    if (!fits) {
        change_close(change);
        return error_set(error, STATUS_FAILED, "no memory for the matrices of a module");
    }
    if (change->rank) {
        adapter_product(bank, adapter, place, change->a, change->b);
    }
    return STATUS_OK;
}

const double *change_row(Change *change, int row)
{
    size_t n = (size_t)change->n_in;
    if (change->trained) {
        size_t start = (size_t)row * n;
        tensor_read_rows(change->base_row, change->base, (size_t)row, 1);
        for (size_t i = 0; i < n; i++) {
            change->row[i] = (double)change->trained[start + i] - (double)change->base_row[i];
        }
        return change->row;
    }
    if (change->rank == 0) {
        return NULL;
    }
    memset(change->row, 0, n * sizeof *change->row);
    for (int j = 0; j < change->rank; j++) {
        double b = (double)change->b[(size_t)row * change->rank + j];
        const float *a = change->a + (size_t)j * n;
        for (size_t i = 0; i < n; i++) {
            change->row[i] += b * (double)a[i];
        }
    }
    return change->row;
}

void change_close(Change *change)
{
    free(change->a);
    free(change->b);
    free(change->row);
    free(change->base_row);
    *change = (Change){0};
}
