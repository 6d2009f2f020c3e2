/* Hashes are exact; probes see signs, order and values of everything that W' - W is made of. */
#include "adapters/fingerprint.h"

#include <math.h>
#include <stdlib.h>

#include "adapters/change.h"

static void hash_frozen(Fingerprint *f, const AdapterBank *bank)
{
    Sha256 *factors = sha256_new(), *projection = sha256_new();
    size_t rank = (size_t)adapter_spec(bank)->plan.rank;
    bool any_factors = false, any_projection = false;
    for (int m = 0; m < f->n; m++) {
        AdapterFrozen frozen;
        f->group[m] = -1;
        if (!adapter_frozen(bank, m, &frozen)) {
            continue;
        }
        const Factors *x = frozen.factors;
        any_factors = true;
        sha256_update(factors, x->u, rank * x->n_out * sizeof *x->u);
        sha256_update(factors, x->s, rank * sizeof *x->s);
        sha256_update(factors, x->v, rank * x->n_in * sizeof *x->v);
        if (frozen.projection) {
            any_projection = true;
            f->group[m] = frozen.group;
            sha256_update(projection, frozen.projection,
                          (size_t)frozen.u * rank * rank * sizeof *frozen.projection);
        }
    }
    sha256_finish(factors, f->factors);
    sha256_finish(projection, f->projection);
    f->factors[0] = any_factors ? f->factors[0] : 0;
    f->projection[0] = any_projection ? f->projection[0] : 0;
}

/* a: (rank, n_in)   b: (n_out, rank) */
static void take_probe(double *probe, double *size, const float *a, const float *b, int rank,
                       int n_in, int n_out)
{
    *probe = *size = 0;
    for (int j = 0; j < rank; j++) {
        double p = 0, q = 0, of_b = 0, of_a = 0;
        for (int o = 0; o < n_out; o++) {
            double x = (double)b[(size_t)o * rank + j];
            p += cos(o + 1.0) * x;
            of_b += x * x;
        }
        for (int i = 0; i < n_in; i++) {
            double x = (double)a[(size_t)j * n_in + i];
            q += sin(i + 1.0) * x;
            of_a += x * x;
        }
        *probe += p * q;
        *size += sqrt(of_b * of_a);
    }
}

Status fingerprint_take(Fingerprint *f, const AdapterBank *bank, int adapter, Error *error)
{
    *f = (Fingerprint){0};
    const Module *modules = adapter_modules(bank, &f->n);
    const ModelConfig *config = &adapter_model(bank)->config;
    int rank = adapter_spec(bank)->plan.rank, widest = 1;
    for (int role = 0; role < N_ROLES; role++) {
        int n_out, n_in;
        role_shape(config, (Role)role, &n_out, &n_in);
        widest = n_out > widest ? n_out : widest;
        widest = n_in > widest ? n_in : widest;
    }
    size_t n = (size_t)f->n + 1;
    float *a = malloc((size_t)rank * widest * sizeof *a + 1);
    float *b = malloc((size_t)rank * widest * sizeof *b + 1);
    f->group = malloc(n * sizeof *f->group);
    f->probe = malloc(n * sizeof *f->probe);
    f->size = malloc(n * sizeof *f->size);
    bool fits = a && b && f->group && f->probe && f->size;
    for (int m = 0; m < f->n && fits; m++) {
        int n_out, n_in;
        role_shape(config, modules[m].role, &n_out, &n_in);
        adapter_product(bank, adapter, m, a, b);
        take_probe(&f->probe[m], &f->size[m], a, b, rank, n_in, n_out);
    }
    if (fits) {
        hash_frozen(f, bank);
    }
    free(a);
    free(b);
    if (!fits) {
        fingerprint_release(f);
        return error_set(error, STATUS_FAILED, "no memory to describe an adapter");
    }
    return STATUS_OK;
}

void fingerprint_release(Fingerprint *f)
{
    free(f->group);
    free(f->probe);
    free(f->size);
    *f = (Fingerprint){0};
}

bool fingerprint_probes_agree(double one, double other, double size)
{
    return fabs(one - other) <= 1e-3 * size;
}
