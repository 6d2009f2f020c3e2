/* A bank: n adapters of one method and plan over one model, so that one batch can run many of them
 * over one read of the weights. Adapter 0 is the base; adapters 1..n have parameters. Methods are
 * const structs, found by name. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapters/plan.h"
#include "core/engine.h"
#include "core/hook.h"
#include "core/model.h"

/* Where S goes. left: U S R V^T (the paper).  sqrt: U sqrt(S) R sqrt(S) V^T (PEFT). */
typedef enum { SIGMA_LEFT, SIGMA_SQRT } SigmaSplit;
extern const char *const sigma_split_names[]; /* in the enum's order, ended by NULL */

/* How v starts. normal: N(0, size^2).  uniform: within +-size. Adapter 0 is the base model, and is
 * not the start of such a v. */
typedef enum { START_ZEROS, START_NORMAL, START_UNIFORM } VectorStart;
extern const char *const vector_start_names[];

/* plan.dtype is what the model sees of v: f32, or v rounded to bf16 or f16. Callers keep the f32
 * master (optimizer, checkpoint), whose gradient is the one at the rounded v. */
typedef struct {
    const char *method; /* of adapter_method_names */
    Plan plan;          /* tinylora; lora and lora-xs have its rank alone */
    unsigned targets;   /* bit per Role */
    uint64_t seed;      /* of P, whatever plan.projection.seed says, and of random start values */
    float scale;        /* s in W' = W + s U S R V^T (the paper has 1) and W + s B A (alpha / r) */
    SigmaSplit sigma;   /* tinylora, lora-xs; so are the next two */
    VectorStart start;
    double start_size;
    double dropout; /* lora: of the adapter's input, in passes whose sequences have a key */
} AdapterSpec;

typedef struct AdapterBank AdapterBank;

/* cache_directory: where SVD factors are kept under a hash (model weights, module, rank); NULL: not
 * cached. progress(context, done, total) while factors are computed; may be NULL. model must
 * outlive the bank; "full" makes it trainable and changes it. A map of the plan is copied. Errors:
 * STATUS_USAGE (spec does not fit the model; a tie group's weights are of different types),
 * STATUS_FAILED. */
Status adapter_bank_new(AdapterBank **bank, Model *model, const AdapterSpec *spec, int n_adapters,
                        int n_threads, const char *cache_directory,
                        void (*progress)(void *, int, int), void *progress_context, Error *error);
void adapter_bank_free(AdapterBank *bank);

/* The names a config may use, ended by NULL. */
extern const char *const adapter_method_names[];
/* Trained scalars of a complete spec (tinylora: plan_complete) on a model of this shape. */
int64_t adapter_spec_parameters(const AdapterSpec *spec, const ModelConfig *config);

/* tinylora lays v out group by group: scalar i of group g is v[g * u + i]; a random start draws it
 * at counter (g, i, 0, 0) under the key (seed, RANDOM_INIT). P: projection.h.
 * lora: module by module in named_modules order, A (rank, n_in), then B (n_out, rank). A starts
 * uniform in +-1 / sqrt(n_in) (PEFT's kaiming_uniform of a = sqrt 5), element (j, i) at counter
 * (j, i, 0, 0) under the key (random_seed_for(seed, module), RANDOM_INIT); B starts at 0.
 * lora-xs: R (rank, rank) of each module in that order; random starts are drawn like A. */
size_t adapter_parameters(const AdapterBank *bank); /* scalars of one adapter; 0 for none */
int adapter_count(const AdapterBank *bank);         /* n */
const AdapterSpec *adapter_spec(const AdapterBank *bank);
/* Start values of one adapter into v: (parameters). tinylora, lora-xs: zeros, or as spec.start
 * says. full: the model's weights. */
void adapter_initial(const AdapterBank *bank, float *v);
/* Load v (parameters) into adapter 1..n. For "full" n is 1 and this repacks the weights; adapter 0
 * then means the ORIGINAL weights only while adapter_use_base(bank, true) holds. */
void adapter_set(AdapterBank *bank, int adapter, const float *v, int n_threads);
/* How many of the first layers two adapters (0: the base) have in common: below it both add the
 * same, bit for bit (a v of zeros adds what the base adds: nothing; so does lora with B = 0).
 * n_layers when they are equal in all; 0 for two of "full". Reads the parameters set; microseconds.
 */
int adapter_shared_layers(const AdapterBank *bank, int a, int b);
/* "full" only: swap the pristine weights in (true) or the trained ones (false); a no-op for other
 * methods. */
void adapter_use_base(AdapterBank *bank, bool base, int n_threads);

/* NULL for none and full. */
const LinearHook *adapter_hook(const AdapterBank *bank);
/* NULL but for full. */
WeightGradients *adapter_weight_gradients(const AdapterBank *bank);

void adapter_clear_gradients(AdapterBank *bank);
/* gradient: (parameters) double, of adapter 1..n, accumulated by engine_evaluate since the last
 * clear. */
void adapter_gradient(const AdapterBank *bank, int adapter, double *gradient);
