/* TinyLoRA: M = s S R, or s sqrt(S) R sqrt(S), with R = sum_i v_i P_i, v shared by the modules of a
 * tie group. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/method.h"
#include "adapters/middle.h"
#include "core/parallel.h"
#include "core/random.h"

const char *const sigma_split_names[] = {"left", "sqrt", NULL};
const char *const vector_start_names[] = {"zeros", "normal", "uniform", NULL};

typedef struct {
    Plan plan;
    float scale;
    SigmaSplit sigma;
    int n_modules;
    Module *modules;   /* (n_modules) */
    int *group;        /* (n_modules) */
    float *projection; /* P: (n_modules, u, rank, rank), or (u, rank, rank) where it is shared */
    float *core;       /* scratch (rank, rank) */
    float *rounded;    /* scratch (2, parameters): v as the model sees it, and in its own type */
    int *map;          /* (n_modules) the plan's map, or NULL */
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
    free(t->rounded);
    free(t->map);
    free(t);
    bank->state = NULL;
}

/* Modules divided among threads; status: (n_modules). */
typedef struct {
    TinyLora *t;
    Status *status;
} FillWork;

static void fill_module(void *context, int m, int thread)
{
    (void)thread;
    const FillWork *w = context;
    TinyLora *t = w->t;
    char name[96];
    module_name(name, t->modules[m].layer, t->modules[m].role);
    w->status[m] = projection_fill(t->projection + (size_t)m * t->plan.u * square(t),
                                   &t->plan.projection, name, t->plan.u, t->plan.rank, NULL);
}

/* P of every module, or of all of them once where it is shared. */
static Status fill_projection(TinyLora *t, int n_threads, Error *error)
{
    int n = t->plan.projection.shared ? 1 : t->n_modules;
    FillWork work = {t, calloc((size_t)n, sizeof *work.status)};
    bool filled = work.status != NULL;
    if (filled) {
        parallel_for(n, n_threads, fill_module, &work);
    }
    for (int m = 0; m < n && filled; m++) {
        filled = work.status[m] == STATUS_OK;
    }
    free(work.status);
    return filled ? STATUS_OK
                  : error_set(error, STATUS_FAILED, "no memory for a P of rank %d", t->plan.rank);
}

/* P of a module: (u, rank, rank). */
static const float *projection_of(const TinyLora *t, int m)
{
    return t->projection + (t->plan.projection.shared ? 0 : (size_t)m * t->plan.u * square(t));
}

/* The type that W's values have where they are multiplied. */
static TensorType seen_type(const Model *model, const Module *module)
{
    TensorType type = model->layers[module->layer].weight[module->role].type;
    return tensor_type_plain(type) ? type : TENSOR_F32;
}

/* One v for weights of different precision would mean different things to them. Quantised ones,
 * which files mix (Q4_K with Q6_K), are all f32. */
static Status check_types(const TinyLora *t, const Model *model, Error *error)
{
    for (int i = 0; i < t->n_modules; i++) {
        int first = 0;
        while (t->group[first] != t->group[i]) {
            first++;
        }
        const Module *a = &t->modules[first], *b = &t->modules[i];
        TensorType one = seen_type(model, a), other = seen_type(model, b);
        if (one != other) {
            char name[96], name_b[96];
            module_name(name, a->layer, a->role);
            module_name(name_b, b->layer, b->role);
            return error_set(
                error, STATUS_USAGE,
                "tie group %d has weights of different types: \"%s\" is %s, \"%s\" is "
                "%s; tie them apart (adapter.tie structured or map), leave one of them "
                "out of adapter.targets, or convert the model to one type",
                t->group[i], name, tensor_type_name(one), name_b, tensor_type_name(other));
        }
    }
    return STATUS_OK;
}

static Status allocate(TinyLora *t, Error *error)
{
    size_t n = (size_t)t->n_modules, copies = t->plan.projection.shared ? 1 : n;
    size_t numbers = copies * (size_t)t->plan.u * square(t);
    t->group = malloc(n * sizeof *t->group);
    t->projection = malloc(numbers * sizeof *t->projection);
    t->core = malloc(square(t) * sizeof *t->core);
    t->rounded = malloc(((size_t)t->plan.parameters * 2 + 1) * sizeof *t->rounded);
    if (!t->group || !t->projection || !t->core || !t->rounded) {
        return error_set(error, STATUS_FAILED, "no memory for the projections: %.1f GiB",
                         (double)numbers * sizeof(float) / 0x1p30);
    }
    return STATUS_OK;
}

/* The bank outlives the caller's map. */
static Status keep_map(TinyLora *t, Plan *plan, Error *error)
{
    size_t n = (size_t)t->n_modules * sizeof *t->map;
    if (plan->tie != TIE_MAP) {
        plan->map = NULL;
        return STATUS_OK;
    }
    t->map = malloc(n + 1);
    if (t->map == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for a tie map");
    }
    memcpy(t->map, plan->map, n);
    plan->map = t->map;
    return STATUS_OK;
}

static Status open_tinylora(AdapterBank *bank, const AdapterSetup *setup, Error *error)
{
    const ModelConfig *config = &bank->model->config;
    Plan *plan = &bank->spec.plan;
    TinyLora *t = calloc(1, sizeof *t);
    bank->state = t;
    if (t != NULL) {
        t->modules = malloc((size_t)config->n_layers * N_ROLES * sizeof *t->modules);
    }
    if (t == NULL || t->modules == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for an adapter");
    }
    if (!isfinite(bank->spec.scale) || !isfinite(bank->spec.start_size)) {
        return error_set(error, STATUS_USAGE, "%s is not a finite number",
                         isfinite(bank->spec.scale) ? "the size of the start values" : "scale");
    }
    t->n_modules = plan_modules(t->modules, config, bank->spec.targets);
    t->scale = bank->spec.scale;
    t->sigma = bank->spec.sigma;
    plan->projection.seed = bank->spec.seed;
    Status status = keep_map(t, plan, error);
    status = status ? status : plan_complete(plan, t->modules, t->n_modules, error);
    t->plan = *plan;
    status = status ? status : plan_check_rank(plan->rank, t->modules, t->n_modules, config, error);
    status = status ? status : allocate(t, error);
    status = status ? status : plan_groups(t->group, plan, t->modules, error);
    status = status ? status : check_types(t, bank->model, error);
    status = status ? status : fill_projection(t, setup->n_threads, error);
    status = status ? status
                    : middle_open(&t->middle, &bank->hook, bank->model, t->modules, t->n_modules,
                                  plan->rank, bank->n_adapters, setup, error);
    bank->n_parameters = status ? 0 : (size_t)plan->parameters;
    return status;
}

static int64_t count_tinylora(const AdapterSpec *spec, const ModelConfig *config)
{
    (void)config;
    return spec->plan.parameters;
}

static void initial_tinylora(const AdapterBank *bank, float *v)
{
    const AdapterSpec *spec = &bank->spec;
    RandomKey key = {spec->seed, RANDOM_INIT};
    for (int g = 0; g < spec->plan.groups; g++) {
        for (int i = 0; i < spec->plan.u; i++) {
            double value = 0;
            if (spec->start == START_NORMAL) {
                value = random_normal(key, (uint32_t)g, (uint32_t)i, 0, 0);
            } else if (spec->start == START_UNIFORM) {
                value = 2 * random_uniform(key, (uint32_t)g, (uint32_t)i, 0, 0) - 1;
            }
            v[(size_t)g * spec->plan.u + i] = (float)(value * spec->start_size);
        }
    }
}

/* What the model sees of v. */
static const float *round_v(TinyLora *t, const float *v)
{
    size_t n = (size_t)t->plan.parameters;
    if (t->plan.dtype == TENSOR_F32) {
        return v;
    }
    tensor_from_f32(t->rounded + n, v, t->plan.dtype, n);
    tensor_to_f32(t->rounded, t->rounded + n, t->plan.dtype, n);
    return t->rounded;
}

/* What M's element (j, k) is of R's. */
static float sigma_at(const TinyLora *t, const float *s, size_t j, size_t k)
{
    return t->sigma == SIGMA_SQRT ? sqrtf(s[j]) * sqrtf(s[k]) : s[j];
}

static void set_tinylora(AdapterBank *bank, int adapter, const float *v, int n_threads)
{
    (void)n_threads;
    parallel_float_mode();
    TinyLora *t = bank->state;
    int u = t->plan.u;
    size_t rank = (size_t)t->plan.rank;
    v = round_v(t, v);
    for (int m = 0; m < t->n_modules; m++) {
        const float *p = projection_of(t, m), *s = t->middle.factors[m].s;
        const float *v_group = v + (size_t)t->group[m] * u;
        for (size_t e = 0; e < square(t); e++) {
            float sum = 0;
            for (int i = 0; i < u; i++) {
                sum += v_group[i] * p[(size_t)i * square(t) + e];
            }
            t->core[e] = sigma_at(t, s, e / rank, e % rank) * (t->scale * sum);
        }
        middle_set(&t->middle, adapter, m, t->core);
    }
}

static int shared_layers_tinylora(const AdapterBank *bank, int a, int b)
{
    const TinyLora *t = bank->state;
    return middle_shared_layers(&t->middle, a, b);
}

static void clear_tinylora(AdapterBank *bank)
{
    TinyLora *t = bank->state;
    middle_clear(&t->middle);
}

/* dv_i = s sum over the group's modules of <P_i, S dM>, or of <P_i, sqrt(S) dM sqrt(S)>. */
static void gradient_tinylora(const AdapterBank *bank, int adapter, double *gradient)
{
    const TinyLora *t = bank->state;
    int u = t->plan.u;
    size_t rank = (size_t)t->plan.rank;
    memset(gradient, 0, bank->n_parameters * sizeof *gradient);
    for (int m = 0; m < t->n_modules; m++) {
        const double *sum = middle_gradient(&t->middle, adapter, m);
        const float *p = projection_of(t, m), *s = t->middle.factors[m].s;
        for (int i = 0; i < u; i++) {
            double product = 0;
            for (size_t e = 0; e < square(t); e++) {
                double sigma = (double)sigma_at(t, s, e / rank, e % rank);
                product += (double)p[(size_t)i * square(t) + e] * (sigma * sum[e]);
            }
            gradient[(size_t)t->group[m] * u + i] += (double)t->scale * product;
        }
    }
}

static const Module *modules_tinylora(const AdapterBank *bank, int *n)
{
    const TinyLora *t = bank->state;
    *n = t->n_modules;
    return t->modules;
}

static void product_tinylora(const AdapterBank *bank, int adapter, int module, float *a, float *b)
{
    const TinyLora *t = bank->state;
    middle_product(&t->middle, adapter, module, a, b);
}

static bool frozen_tinylora(const AdapterBank *bank, int module, AdapterFrozen *frozen)
{
    const TinyLora *t = bank->state;
    *frozen = (AdapterFrozen){&t->middle.factors[module], projection_of(t, module), t->plan.u,
                              t->group[module]};
    return true;
}

const AdapterMethod adapter_method_tinylora = {
    .name = "tinylora",
    .open = open_tinylora,
    .close = close_tinylora,
    .count = count_tinylora,
    .initial = initial_tinylora,
    .set = set_tinylora,
    .shared_layers = shared_layers_tinylora,
    .clear = clear_tinylora,
    .gradient = gradient_tinylora,
    .modules = modules_tinylora,
    .product = product_tinylora,
    .frozen = frozen_tinylora,
};
