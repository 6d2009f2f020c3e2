/* What is measured of adapters on a fixed list of rows: the values of a surface. Every number
 * depends on (model, v, rows, settings) alone: not on the other points of the call, nor on the
 * threads. */
#pragma once
#include "analysis/evaluate.h"
#include "rl/rollout.h"

/* Bits of MeasureSettings.metrics. Names in measure_names, in this order. */
typedef enum {
    MEASURE_LOSS = 1, /* "loss": sum of -log p over the answer tokens of all rows (end of sequence
                         included) / their number, nats: the loss of SFT on these rows */
    MEASURE_ACCURACY =
        2,              /* "accuracy": share of sampled answers that the extractor reads as right */
    MEASURE_REWARD = 4, /* "reward": mean reward of the sampled answers */
    MEASURE_ENTROPY = 8,   /* "entropy": mean over the answer tokens, nats */
    MEASURE_KL = 16,       /* "kl": mean over the answer tokens of KL(p_v || p_base), exact, nats */
    MEASURE_GRAD_NORM = 32 /* "grad_norm": of the loss by v */
} MeasureBit;
enum { MEASURE_COUNT = 6 };
extern const char *const measure_names[MEASURE_COUNT + 1];
/* The bit of a name; 0 when unknown. */
unsigned measure_find(const char *name);
/* All but accuracy and reward. */
bool measure_less_is_better(MeasureBit metric);

typedef struct {
    const Task *task;
    int n_rows;     /* the first so many of the task; 0: all */
    int max_length; /* tokens of prompt and answer together; what is longer is cut at its end; 0:
                       the model's context. Sampled answers are cut by their Sampling alone. */
    unsigned metrics;
    const Sampling *sampling; /* for accuracy and reward */
    int samples;              /* a row; greedy: 1 */
    uint64_t seed;            /* samples are keyed as evaluate.h's */
    const Reward *reward;     /* for reward */
    const char *extractor;    /* for accuracy */
} MeasureSettings;

typedef struct {
    double values[MEASURE_COUNT]; /* by the bit's place; NaN where not asked for or not finite */
    double standard_errors[MEASURE_COUNT]; /* over rows (loss, entropy, kl: of the ratio of sums);
                                              NaN where there is none */
    int n_rows;
    double *gradient;   /* (parameters) of the loss, with MEASURE_GRAD_NORM; else NULL */
    double *row_losses; /* (n_rows) sum of -log p of the row's answer tokens; NULL without loss */
    int *row_tokens;    /* (n_rows) answer tokens that were scored */
} Measured;
void measured_release(Measured *measured);

/* Points at once: as many as wanted, at most the adapters of the bank ("full": 1). */
int measure_capacity(const AdapterBank *bank, int wanted);

/* out: (n) zeroed. v: (n, parameters): a point whose v is the start value of the adapter is
 * measured as the base model itself, adapter 0. The bank's adapters are overwritten; n may be
 * larger than it: the points are then measured in pieces. Points that agree in their first layers
 * share the work there, and loss, entropy and gradient come from one pass: put points that differ
 * least next to each other, and ask for all metrics at once. trainer->progress is asked between
 * data rows (of all points), phase "surface", and in sampling, phase "rollout". Errors:
 * STATUS_USAGE (rows out of range or without one answer token within max_length, an unknown
 * extractor, kl of "full", whose weights cannot be there twice), STATUS_STOPPED, STATUS_FAILED; out
 * is then empty. */
Status measure_points(Measured *out, const Trainer *trainer, const MeasureSettings *settings,
                      const float *v, int n, Error *error);
/* Rows that max_length (or the model's context) cuts, of those measured. */
int measure_cut_rows(const MeasureSettings *settings, const Model *model);

/* Is the loss of a below that of b, or is it noise? Both on the same rows: paired->difference is
 * loss of a - loss of b, with its standard error over rows and the p-value of the paired t test.
 * Rows without scored tokens do not count. */
void measured_compare(Paired *paired, const Measured *a, const Measured *b);
