/* Optimizers on an f32 master copy with f32 moments, arithmetic in f64. Const structs found by
 * name. */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef struct {
    double beta1, beta2, epsilon; /* adamw: 0.9, 0.999, 1e-8 */
    double weight_decay;          /* adamw: decoupled; sgd: added to the gradient */
    double momentum;              /* sgd */
} OptimizerSettings;

typedef struct {
    const char *name;
    int n_moments; /* arrays of n floats kept */
    /* v: (n) changed   moments: (n_moments, n) changed   gradient: (n)   update: 1, 2, ... counts
     * updates */
    void (*update)(float *v, float *moments, const double *gradient,
                   const OptimizerSettings *settings, double lr, int64_t update, size_t n);
} Optimizer;

/* adamw (Loshchilov & Hutter 2019, as PyTorch), sgd (with momentum, as PyTorch), none. */
extern const Optimizer *const optimizers[];
extern const int n_optimizers;
const Optimizer *optimizer_find(const char *name); /* NULL when unknown */

OptimizerSettings optimizer_defaults(void);

/* Scales the gradient to norm at most max_norm (0: never) and returns its norm before. */
double gradient_clip(double *gradient, double max_norm, size_t n);
