/* TinyLoRA: M = s S R with R = sum_i v_i P_i, v shared by the modules of a tie group. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/method.h"
#include "adapters/middle.h"
#include "core/parallel.h"
#include "core/random.h"

typedef struct {
    Plan plan;
    float scale;
    int n_modules;
    Module *modules;   /* (n_modules) */
    int *group;        /* (n_modules) */
    float *projection; /* P: (n_modules, u, rank, rank) */
    float *core;       /* scratch (rank, rank) */
    Middle middle;
} TinyLora;

static size_t square(const TinyLora *t)
{
    return (size_t)t->plan.rank * t->plan.rank;
}

static void close_tinylora(AdapterBank *bank)
{
    TinyLora *t = bank->state;
    if (t == NULL) {
        return;
    }
    middle_release(&t->middle);
    free(t->modules);
    free(t->group);
    free(t->projection);
    free(t->core);
    free(t);
    bank->state = NULL;
}

/* Every target must be able to give `rank` singular triplets. */
static Status check_rank(const TinyLora *t, const ModelConfig *config, Error *error)
{
    for (int i = 0; i < t->n_modules; i++) {
        int out, in;
        role_shape(config, t->modules[i].role, &out, &in);
        int most = out < in ? out : in;
        if (t->plan.rank > most) {
            char name[96];
            module_name(name, t->modules[i].layer, t->modules[i].role);
            return error_set(error, STATUS_USAGE, "module \"%s\" (%d x %d): rank %d, at most %d",
                             name, out, in, t->plan.rank, most);
        }
    }
    return STATUS_OK;
}

static void fill_projection(TinyLora *t, uint64_t seed)
{
    int rank = t->plan.rank;
    double deviation = 1 / sqrt((double)rank);
    float *p = t->projection;
    for (int m = 0; m < t->n_modules; m++) {
        char name[96];
        module_name(name, t->modules[m].layer, t->modules[m].role);
        RandomKey key = {random_seed_for(seed, name), RANDOM_PROJECTION};
        for (int i = 0; i < t->plan.u; i++) {
            for (int j = 0; j < rank; j++) {
                for (int k = 0; k < rank; k++) {
                    *p++ = (float)(random_normal(key, (uint32_t)i, (uint32_t)j, (uint32_t)k, 0) *
                                   deviation);
                }
            }
        }
    }
}

static Status allocate(TinyLora *t, Error *error)
{
    size_t n = (size_t)t->n_modules, numbers = n * (size_t)t->plan.u * square(t);
    t->group = malloc(n * sizeof *t->group);
    t->projection = malloc(numbers * sizeof *t->projection);
    t->core = malloc(square(t) * sizeof *t->core);
    if (!t->group || !t->projection || !t->core) {
        return error_set(error, STATUS_FAILED, "no memory for the projections: %.1f GiB",
                         (double)numbers * sizeof(float) / 0x1p30);
    }
    return STATUS_OK;
}

static Status open_tinylora(AdapterBank *bank, const AdapterSetup *setup, Error *error)
{
    const ModelConfig *config = &bank->model->config;
    TinyLora *t = calloc(1, sizeof *t);
    bank->state = t;
    if (t != NULL) {
        t->modules = malloc((size_t)config->n_layers * N_ROLES * sizeof *t->modules);
    }
    if (t == NULL || t->modules == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for an adapter");
    }
    if (!isfinite(bank->spec.scale)) {
        return error_set(error, STATUS_USAGE, "scale is not a finite number");
    }
    t->n_modules = plan_modules(t->modules, config, bank->spec.targets);
    t->scale = bank->spec.scale;
    Status status = plan_complete(&bank->spec.plan, t->modules, t->n_modules, error);
    t->plan = bank->spec.plan;
    if (status == STATUS_OK) {
        status = check_rank(t, config, error);
    }
    if (status == STATUS_OK) {
        status = allocate(t, error);
    }
    if (status == STATUS_OK) {
        status = plan_groups(t->group, &t->plan, t->modules, error);
    }
    if (status == STATUS_OK) {
        status = middle_open(&t->middle, &bank->hook, bank->model, t->modules, t->n_modules,
                             t->plan.rank, bank->n_adapters, setup, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    fill_projection(t, bank->spec.seed);
    bank->n_parameters = (size_t)t->plan.parameters;
    return STATUS_OK;
}

static void initial_tinylora(const AdapterBank *bank, float *v)
{
    for (size_t i = 0; i < bank->n_parameters; i++) {
        v[i] = 0;
    }
}

static void set_tinylora(AdapterBank *bank, int adapter, const float *v, int n_threads)
{
    (void)n_threads;
    parallel_float_mode();
    TinyLora *t = bank->state;
    int u = t->plan.u, rank = t->plan.rank;
    for (int m = 0; m < t->n_modules; m++) {
        const float *p = t->projection + (size_t)m * u * square(t);
        const float *s = t->middle.factors[m].s;
        const float *v_group = v + (size_t)t->group[m] * u;
        for (size_t e = 0; e < square(t); e++) {
            float sum = 0;
            for (int i = 0; i < u; i++) {
                sum += v_group[i] * p[(size_t)i * square(t) + e];
            }
            t->core[e] = s[e / (size_t)rank] * (t->scale * sum);
        }
        middle_set(&t->middle, adapter, m, t->core);
    }
}

static int shared_layers_tinylora(const AdapterBank *bank, int a, int b)
{
    const TinyLora *t = bank->state;
    return middle_shared_layers(&t->middle, a, b);
}

static void use_base_tinylora(AdapterBank *bank, bool base, int n_threads)
{
    (void)bank; /* adapter 0 is the base at any time */
    (void)base;
    (void)n_threads;
}

static void clear_tinylora(AdapterBank *bank)
{
    TinyLora *t = bank->state;
    middle_clear(&t->middle);
}

/* dv_i = s sum over the group's modules of <P_i, S dM>. */
static void gradient_tinylora(const AdapterBank *bank, int adapter, double *gradient)
{
    const TinyLora *t = bank->state;
    int u = t->plan.u, rank = t->plan.rank;
    memset(gradient, 0, bank->n_parameters * sizeof *gradient);
    for (int m = 0; m < t->n_modules; m++) {
        const double *sum = middle_gradient(&t->middle, adapter, m);
        const float *p = t->projection + (size_t)m * u * square(t);
        for (int i = 0; i < u; i++) {
            double product = 0;
            for (size_t e = 0; e < square(t); e++) {
                double s = (double)t->middle.factors[m].s[e / (size_t)rank];
                product += (double)p[(size_t)i * square(t) + e] * (s * sum[e]);
            }
            gradient[(size_t)t->group[m] * u + i] += (double)t->scale * product;
        }
    }
}

const AdapterMethod adapter_method_tinylora = {
    .name = "tinylora",
    .open = open_tinylora,
    .close = close_tinylora,
    .initial = initial_tinylora,
    .set = set_tinylora,
    .shared_layers = shared_layers_tinylora,
    .use_base = use_base_tinylora,
    .clear = clear_tinylora,
    .gradient = gradient_tinylora,
};
