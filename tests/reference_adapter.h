/* TinyLoRA inside the double-precision reference: W' = W + s U S (sum_i v_i P_i) V^T with v in
 * double, so that central differences by v are exact to 1e-9. The factors are the ones the product
 * computes (single precision, taken as given); P is derived anew from its law. */
#pragma once
#include "adapters/adapter.h"
#include "adapters/factors.h"
#include "core/random.h"
#include "tests/reference_model.h"

typedef struct {
    AdapterSpec spec; /* complete: adapter_spec(bank) */
    int n_modules;
    Module *modules;
    int *group;
    Factors *factors;
} ReferenceAdapter;

static inline void reference_adapter_release(ReferenceAdapter *a)
{
    for (int i = 0; i < a->n_modules; i++) {
        factors_release(&a->factors[i]);
    }
    free(a->modules);
    free(a->group);
    free(a->factors);
}

static inline ReferenceAdapter reference_adapter(const Model *model, const AdapterSpec *spec)
{
    ReferenceAdapter a = {.spec = *spec};
    size_t most = (size_t)model->config.n_layers * N_ROLES;
    Error error = {{0}};
    a.modules = malloc(most * sizeof *a.modules);
    a.group = malloc(most * sizeof *a.group);
    a.factors = calloc(most, sizeof *a.factors);
    a.n_modules = plan_modules(a.modules, &model->config, spec->targets);
    if (plan_groups(a.group, &spec->plan, a.modules, &error) != STATUS_OK ||
        factors_open(a.factors, model, a.modules, a.n_modules, spec->plan.rank, 1, NULL, NULL, NULL,
                     &error) != STATUS_OK) {
        fprintf(stderr, "reference adapter: %s\n", error.message);
        abort();
    }
    return a;
}

/* The reference's weights become those under v: (parameters); NULL: the base model. */
static inline void reference_adapt(Reference *r, const ReferenceAdapter *a, const double *v)
{
    reference_reset(r);
    for (int m = 0; v && m < a->n_modules; m++) {
        const Factors *f = &a->factors[m];
        char name[96], full[128];
        module_name(name, a->modules[m].layer, a->modules[m].role);
        snprintf(full, sizeof full, "%s.weight", name);
        double *w = reference_tensor(r, full, NULL);
        RandomKey key = {random_seed_for(a->spec.seed, name), RANDOM_PROJECTION};
        for (int j = 0; j < f->rank; j++) {
            for (int k = 0; k < f->rank; k++) {
                double sum = 0;
                for (int i = 0; i < a->spec.plan.u; i++) {
                    double p = random_normal(key, (uint32_t)i, (uint32_t)j, (uint32_t)k, 0) /
                               sqrt((double)f->rank);
                    sum += v[a->group[m] * a->spec.plan.u + i] * (double)(float)p;
                }
                sum *= (double)a->spec.scale * (double)f->s[j];
                for (int o = 0; o < f->n_out; o++) {
                    for (int i = 0; i < f->n_in; i++) {
                        w[(size_t)o * f->n_in + i] += (double)f->u[(size_t)j * f->n_out + o] * sum *
                                                      (double)f->v[(size_t)k * f->n_in + i];
                    }
                }
            }
        }
    }
}
