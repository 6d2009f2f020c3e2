/* TinyLoRA inside the double-precision reference: W' = W + s U S (sum_i v_i P_i) V^T, or with
 * sqrt(S) on both sides, or LoRA-XS, whose v are R itself, with v in double, so that central
 * differences by v are exact to 1e-9. The factors are the ones the product computes (single
 * precision, taken as given); P is derived anew from its law. */
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
    bool tied = strcmp(spec->method, "tinylora") == 0;
    if ((tied && plan_groups(a.group, &spec->plan, a.modules, &error) != STATUS_OK) ||
        factors_open(a.factors, model, a.modules, a.n_modules, spec->plan.rank, 1, NULL, NULL, NULL,
                     &error) != STATUS_OK) {
        fprintf(stderr, "reference adapter: %s\n", error.message);
        abort();
    }
    return a;
}

/* P of a module from its law (projection.h), in double, rounded to float as the product keeps it.
 * p: (u, rank, rank) */
static inline void reference_projection(double *p, const Projection *law, const char *module, int u,
                                        int rank)
{
    RandomKey key = {random_seed_for(law->seed, law->shared ? "" : module), RANDOM_PROJECTION};
    int n = rank * rank;
    long double *exact = malloc((size_t)u * n * sizeof *exact);
    for (int i = 0; i < u; i++) {
        long double *row = exact + (size_t)i * n, square = 0;
        for (int e = 0; e < n; e++) {
            uint32_t a = (uint32_t)i, b = (uint32_t)(e / rank), c = (uint32_t)(e % rank), words[4];
            random_words(words, key, a, b, c, 0);
            row[e] = law->law == PROJECTION_RADEMACHER ? (words[0] % 2 ? 1 : -1)
                                                       : random_normal(key, a, b, c, 0);
            if (law->law == PROJECTION_GAUSS || law->law == PROJECTION_RADEMACHER) {
                row[e] = row[e] / (long double)sqrt((double)rank);
            }
        }
        /* Classical Gram-Schmidt, three times over, against the block so far. */
        for (int round = 0; law->law == PROJECTION_ORTHONORMAL && round < 3; round++) {
            for (int b = i / n * n; b < i; b++) {
                long double product = 0;
                for (int e = 0; e < n; e++) {
                    product += row[e] * exact[(size_t)b * n + e];
                }
                for (int e = 0; e < n; e++) {
                    row[e] -= product * exact[(size_t)b * n + e];
                }
            }
        }
        for (int e = 0; e < n; e++) {
            square += row[e] * row[e];
        }
        for (int e = 0; e < n; e++) {
            row[e] /= law->law == PROJECTION_ORTHONORMAL ? sqrtl(square) : 1;
            p[(size_t)i * n + e] = (double)(float)row[e];
        }
    }
    free(exact);
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
        double *p = malloc((size_t)a->spec.plan.u * f->rank * f->rank * sizeof *p);
        bool tied = strcmp(a->spec.method, "tinylora") == 0;
        if (tied) {
            reference_projection(p, &a->spec.plan.projection, name, a->spec.plan.u, f->rank);
        }
        for (int j = 0; j < f->rank; j++) {
            for (int k = 0; k < f->rank; k++) {
                double sum = tied ? 0 : v[((size_t)m * f->rank + j) * f->rank + k];
                for (int i = 0; tied && i < a->spec.plan.u; i++) {
                    sum += v[a->group[m] * a->spec.plan.u + i] *
                           p[((size_t)i * f->rank + j) * f->rank + k];
                }
                double sj = (double)f->s[j], sk = (double)f->s[k];
                sum *= (double)a->spec.scale * (a->spec.sigma == SIGMA_SQRT ? sqrt(sj * sk) : sj);
                for (int o = 0; o < f->n_out; o++) {
                    for (int i = 0; i < f->n_in; i++) {
                        w[(size_t)o * f->n_in + i] += (double)f->u[(size_t)j * f->n_out + o] * sum *
                                                      (double)f->v[(size_t)k * f->n_in + i];
                    }
                }
            }
        }
        free(p);
    }
}
