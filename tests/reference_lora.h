/* LoRA inside the double-precision reference: y += s B A drop(x), with A, B in double and the masks
 * derived anew from their law. */
#pragma once
#include "adapters/adapter.h"
#include "core/random.h"
#include "tests/reference_model.h"

typedef struct {
    AdapterSpec spec;
    const double *v; /* (parameters) as adapter.h lays them out; NULL: the base */
} ReferenceLora;

/* Is number i of the layer's input dropped? (adapters/dropout.h) */
static inline bool reference_drops(uint64_t key, double p, int position, int module, int i)
{
    uint32_t words[4];
    random_words(words, (RandomKey){key, RANDOM_DROPOUT}, (uint32_t)position, (uint32_t)module,
                 (uint32_t)(i / 8), 0);
    uint32_t bits = i % 2 ? words[i % 8 / 2] >> 16 : words[i % 8 / 2] & 0xffff;
    return key != 0 && bits < (uint32_t)lround(p * 65536);
}

static inline void reference_lora_add(const Reference *r, int layer, Role role, int t, double *y,
                                      const double *x)
{
    const ReferenceLora *lora = r->context;
    const AdapterSpec *spec = &lora->spec;
    int rank = spec->plan.rank, n_out, n_in;
    size_t at = 0;
    if (!lora->v || !(spec->targets >> role & 1)) {
        return;
    }
    for (int l = 0; l <= layer; l++) {
        for (int other = 0; other < (l < layer ? (int)N_ROLES : (int)role); other++) {
            role_shape(&r->config, (Role)other, &n_out, &n_in);
            at += spec->targets >> other & 1 ? (size_t)rank * (n_in + n_out) : 0;
        }
    }
    role_shape(&r->config, role, &n_out, &n_in);
    const double *a = lora->v + at, *b = a + (size_t)rank * n_in;
    bool own = t >= r->n_before;
    uint64_t key = own ? r->key : r->parent_key;
    for (int j = 0; j < rank; j++) {
        double h = 0;
        for (int i = 0; i < n_in; i++) {
            bool dropped = reference_drops(key, spec->dropout, own ? t - r->n_before : t,
                                           layer * N_ROLES + (int)role, i);
            double kept = key ? 1 / (1 - spec->dropout) : 1;
            h += dropped ? 0 : a[(size_t)j * n_in + i] * x[i] * kept;
        }
        for (int o = 0; o < n_out; o++) {
            y[o] += (double)spec->scale * b[(size_t)o * rank + j] * h;
        }
    }
}
