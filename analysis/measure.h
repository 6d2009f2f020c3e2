/* What is measured of adapters on a fixed list of rows: the values of a surface. Every number
 * depends on (model, v, rows, settings) alone: not on the other points of the call, nor on the
 * threads. */
#pragma once
#include "analysis/evaluate.h"
#include "rl/rollout.h"

/* Bits of MeasureSettings.metrics. Names in measure_names, in this order. */
typedef enum {
    MEASURE_LOSS =
        1, /* "loss": sum of -log p over the answer tokens of all rows / their number, nats */
    MEASURE_ACCURACY =
        2,              /* "accuracy": share of sampled answers that the extractor reads as right */
    MEASURE_REWARD = 4, /* "reward": mean reward of the sampled answers */
    MEASURE_ENTROPY = 8,   /* "entropy": mean over the answer tokens, nats */
    MEASURE_KL = 16,       /* "kl": mean over the answer tokens of KL(p_v || p_base), exact, nats */
    MEASURE_GRAD_NORM = 32 /* "grad_norm": of the loss by v */
} MeasureBit;
enum { MEASURE_COUNT = 6 };
extern const char *const measure_names[MEASURE_COUNT + 1];
/* loss, entropy: less is better (true); accuracy, reward: more. */
bool measure_less_is_better(MeasureBit metric);

typedef struct {
    const Task *task;
    int n_rows;     /* the first so many of the task; 0: all */
    int max_length; /* tokens of prompt and answer together; what is longer is cut at its end; 0:
                       the model's context */
    unsigned metrics;
    const Sampling *sampling; /* for accuracy and reward */
    int samples;
    uint64_t seed;
    const Reward *reward;  /* for reward */
    const char *extractor; /* for accuracy */
} MeasureSettings;

typedef struct {
    double values[MEASURE_COUNT]; /* by the bit's place; NaN where not asked for or not finite */
    double standard_errors[MEASURE_COUNT]; /* over rows (loss: of the ratio); NaN where there is
                                              none */
    double *gradient;   /* (parameters) of the loss, with MEASURE_GRAD_NORM; else NULL */
    double *row_losses; /* (n_rows) sum of -log p of the row's answer tokens; NULL without loss */
    int *row_tokens;    /* (n_rows) answer tokens that were scored */
} Measured;
void measured_release(Measured *measured);

/* Points at once that measure_points takes: adapters of the bank ("full": 1). */
int measure_capacity(const AdapterBank *bank, int wanted);

/* out: (n) zeroed. v: (n, parameters): a point whose v is the start value of the adapter is
 * measured as the base model itself, adapter 0. n may be larger than the bank: it is measured in
 * pieces. trainer->progress is asked as in evaluate.h, phase "surface" (and "rollout"). Errors:
 * STATUS_USAGE (rows without one answer token within max_length), STATUS_STOPPED, STATUS_FAILED;
 * out is then empty. */
Status measure_points(Measured *out, const Trainer *trainer, const MeasureSettings *settings,
                      const float *v, int n, Error *error);
/* Rows that max_length cuts. */
int measure_cut_rows(const MeasureSettings *settings, const Model *model);
