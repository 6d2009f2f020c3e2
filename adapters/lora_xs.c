/* LoRA-XS (Balazy et al. 2024): W' = W + s U S R V^T, or with sqrt(S) on both sides, R (rank, rank)
 * of each module trained. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/method.h"
#include "adapters/middle.h"
#include "core/parallel.h"
#include "core/random.h"

typedef struct {
    int n_modules;
    Module *modules; /* (n_modules) */
    float *core;     /* scratch (rank, rank) */
    Middle middle;
} LoraXs;

static size_t square(const AdapterBank *bank)
{
    return (size_t)bank->spec.plan.rank * bank->spec.plan.rank;
}

static void close_lora_xs(AdapterBank *bank)
{
    LoraXs *x = bank->state;
    if (x == NULL) {
        return;
    }
    middle_release(&x->middle);
    free(x->modules);
    free(x->core);
    free(x);
    bank->state = NULL;
}

static Status open_lora_xs(AdapterBank *bank, const AdapterSetup *setup, Error *error)
{
    const ModelConfig *config = &bank->model->config;
    const AdapterSpec *spec = &bank->spec;
    int rank = spec->plan.rank;
    if (!isfinite(spec->scale) || !isfinite(spec->start_size)) {
        return error_set(error, STATUS_USAGE, "%s is not a finite number",
                         isfinite(spec->scale) ? "the size of the start values" : "scale");
    }
    if (rank < 1 || rank > PLAN_MAX_RANK) {
        return error_set(error, STATUS_USAGE, "rank: %d is not in 1 to %d", rank, PLAN_MAX_RANK);
    }
    LoraXs *x = calloc(1, sizeof *x);
    bank->state = x;
    if (x != NULL) {
        x->modules = malloc((size_t)config->n_layers * N_ROLES * sizeof *x->modules);
        x->core = malloc(square(bank) * sizeof *x->core);
    }
    if (x == NULL || x->modules == NULL || x->core == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for an adapter");
    }
    x->n_modules = plan_modules(x->modules, config, spec->targets);
    if (x->n_modules == 0) {
        return error_set(error, STATUS_USAGE, "no linear layer is adapted: name some as targets");
    }
    Status status = plan_check_rank(rank, x->modules, x->n_modules, config, error);
    status = status ? status
                    : middle_open(&x->middle, &bank->hook, bank->model, x->modules, x->n_modules,
                                  rank, bank->n_adapters, setup, error);
    bank->n_parameters = status ? 0 : (size_t)x->n_modules * square(bank);
    return status;
}

static int64_t count_lora_xs(const AdapterSpec *spec, const ModelConfig *config)
{
    int64_t modules = 0;
    for (int role = 0; role < N_ROLES; role++) {
        modules += spec->targets >> role & 1 ? config->n_layers : 0;
    }
    return modules * spec->plan.rank * spec->plan.rank;
}

static void initial_lora_xs(const AdapterBank *bank, float *v)
{
    const LoraXs *x = bank->state;
    const AdapterSpec *spec = &bank->spec;
    uint32_t rank = (uint32_t)spec->plan.rank;
    for (int m = 0; m < x->n_modules; m++) {
        char name[96];
        module_name(name, x->modules[m].layer, x->modules[m].role);
        RandomKey key = {random_seed_for(spec->seed, name), RANDOM_INIT};
        for (uint32_t e = 0; e < rank * rank; e++) {
            double value = 0;
            if (spec->start == START_NORMAL) {
                value = random_normal(key, e / rank, e % rank, 0, 0);
            } else if (spec->start == START_UNIFORM) {
                value = 2 * random_uniform(key, e / rank, e % rank, 0, 0) - 1;
            }
            v[(size_t)m * rank * rank + e] = (float)(value * spec->start_size);
        }
    }
}

/* What M's element (j, k) is of R's, but for s. */
static float sigma_at(const AdapterBank *bank, const float *s, size_t j, size_t k)
{
    return bank->spec.sigma == SIGMA_SQRT ? sqrtf(s[j]) * sqrtf(s[k]) : s[j];
}

static void set_lora_xs(AdapterBank *bank, int adapter, const float *v, int n_threads)
{
    (void)n_threads;
    parallel_float_mode();
    LoraXs *x = bank->state;
    size_t rank = (size_t)bank->spec.plan.rank;
    for (int m = 0; m < x->n_modules; m++, v += rank * rank) {
        const float *s = x->middle.factors[m].s;
        for (size_t e = 0; e < rank * rank; e++) {
            x->core[e] = sigma_at(bank, s, e / rank, e % rank) * (bank->spec.scale * v[e]);
        }
        middle_set(&x->middle, adapter, m, x->core);
    }
}

static int shared_layers_lora_xs(const AdapterBank *bank, int a, int b)
{
    const LoraXs *x = bank->state;
    return middle_shared_layers(&x->middle, a, b);
}

static void clear_lora_xs(AdapterBank *bank)
{
    LoraXs *x = bank->state;
    middle_clear(&x->middle);
}

static void gradient_lora_xs(const AdapterBank *bank, int adapter, double *gradient)
{
    const LoraXs *x = bank->state;
    size_t rank = (size_t)bank->spec.plan.rank;
    for (int m = 0; m < x->n_modules; m++, gradient += rank * rank) {
        const double *sum = middle_gradient(&x->middle, adapter, m);
        const float *s = x->middle.factors[m].s;
        for (size_t e = 0; e < rank * rank; e++) {
            double sigma = (double)sigma_at(bank, s, e / rank, e % rank);
            gradient[e] = (double)bank->spec.scale * (sigma * sum[e]);
        }
    }
}

static const Module *modules_lora_xs(const AdapterBank *bank, int *n)
{
    const LoraXs *x = bank->state;
    *n = x->n_modules;
    return x->modules;
}

static void product_lora_xs(const AdapterBank *bank, int adapter, int module, float *a, float *b)
{
    const LoraXs *x = bank->state;
    middle_product(&x->middle, adapter, module, a, b);
}

static bool frozen_lora_xs(const AdapterBank *bank, int module, AdapterFrozen *frozen)
{
    const LoraXs *x = bank->state;
    *frozen = (AdapterFrozen){.factors = &x->middle.factors[module]};
    return true;
}

const AdapterMethod adapter_method_lora_xs = {
    .name = "lora-xs",
    .open = open_lora_xs,
    .close = close_lora_xs,
    .count = count_lora_xs,
    .initial = initial_lora_xs,
    .set = set_lora_xs,
    .shared_layers = shared_layers_lora_xs,
    .clear = clear_lora_xs,
    .gradient = gradient_lora_xs,
    .modules = modules_lora_xs,
    .product = product_lora_xs,
    .frozen = frozen_lora_xs,
};
