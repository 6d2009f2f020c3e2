/* Drawing a token from a row of logits: cut sets and the repetition penalty. Pure functions of the
 * row. */
#pragma once
#include <stdint.h>

/* Tokens are ranked by falling logit, then rising id. What is kept is a head of that ranking, cut
 * three times: */
typedef struct {
    int top_k;   /* the first top_k; 0: all */
    float top_p; /* of these the smallest head with mass >= top_p of theirs, so that the token that
                  * reaches it is in; 1: all */
    float min_p; /* of these the ones with p >= min_p times the likeliest one's p; 0: all */
} DrawLimits;

/* A token of the kept ones, each with probability e / (their sum of e).
 * e: (V) exp(logit / temperature - largest)   order: (V) scratch   u: in [0, 1) */
int32_t draw_restricted(const DrawLimits *limits, const float *logits, const float *e,
                        int32_t *order, int V, double u);
/* The same of all tokens, without ranking them. */
int32_t draw_any(const float *e, int V, double u);

/* The smallest id of those with the largest logit. */
int32_t draw_largest(const float *logits, int V);

/* penalized[v] = logits[v] / penalty where logits[v] > 0, else times penalty, for each v of ids,
 * once however often it is there (Keskar et al. 2019, as transformers does it: before the
 * temperature). Others are left alone. ids: (n) */
void draw_penalize(float *penalized, const float *logits, const int32_t *ids, int n, float penalty);
