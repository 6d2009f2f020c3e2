/* What an adapter is, in a few numbers: so that one derived again from its description can be held
 * against the one that was described. */
#pragma once
#include "adapters/adapter.h"
#include "core/sha256.h"

typedef struct {
    char factors[SHA256_HEX_SIZE];    /* of u, s, v of all modules; "" where there are none */
    char projection[SHA256_HEX_SIZE]; /* of P of all modules; "" where there is none */
    int n;                            /* modules */
    int *group;                       /* (n) -1 where there are none */
    double *probe; /* (n) p^T (W' - W) q, p and q with p_i = cos(i + 1), q_i = sin(i + 1) */
    double *size;  /* (n) sum over j of |b_j| |a_j|, what a probe is measured by */
} Fingerprint;

/* Errors: STATUS_FAILED for memory. */
Status fingerprint_take(Fingerprint *fingerprint, const AdapterBank *bank, int adapter,
                        Error *error);
void fingerprint_release(Fingerprint *fingerprint);
/* Are two probes of one module of one adapter, though perhaps of factors that another CPU or
 * library computed? Those differ in their last bits: by 1e-3 of its size. */
bool fingerprint_probes_agree(double one, double other, double size);
