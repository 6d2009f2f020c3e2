/* What the steps of SFT and GRPO share, internal to rl/: memory of one step, the candidate state
 * that a step works on, evaluation in pieces. A learner itself changes only in candidates_commit,
 * when all is known to be finite. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "rl/learner.h"

typedef struct StepArena StepArena;

StepArena *arena_new(void);
void arena_free(StepArena *arena);
/* Zeroed memory of count * size bytes that lives as long as the arena. Sizes are bounded by
 * learner_new. */
void *arena_alloc(StepArena *arena, size_t count, size_t size);
/* A NUL-terminated copy. */
char *arena_string(StepArena *arena, const char *bytes, size_t n);

/* Append a metric; key is copied. */
void step_metric(StepResult *result, const char *key, double value);
/* Append an event; both are copied. */
void step_event(StepResult *result, const char *kind, const char *message);

typedef struct {
    Learner *learner;
    StepResult *result;
    int adapter; /* that its sequences name: i + 1, or 0 where the bank has no hook ("full", "none")
                  */
    int bank_adapter; /* i + 1 */
    int64_t step;     /* being done */
    double lr;
    float *v, *moments; /* copies: changed by candidate_update */
    int64_t updates;
    double *gradient;
    double grad_norm;     /* sum over the step's updates */
    LossScale loss_scale; /* what the next backward is to be multiplied with, changed by
                             candidate_update */
    int skipped;          /* updates */
} Candidate;

/* Candidates of all learners, their values set in the bank, results emptied. */
Candidate *candidates_begin(const Trainer *trainer, Learner **learners, int n, StepResult *results,
                            StepArena *scratch);
bool candidate_alive(const Candidate *candidate);
/* This learner's step failed: "step K: ...". The first failure is kept. */
void candidate_fail(Candidate *candidate, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* One optimizer update from the gradient that the bank holds for this candidate, which is the loss
 * scale's, if everything is finite; in f16 a gradient that is not skips it, with an event. loss: of
 * the pass that made the gradient, not scaled. */
void candidate_update(Candidate *candidate, const Trainer *trainer, double loss);
/* Living candidates become their learners' state and get a checkpoint; metrics grad_norm,
 * learning_rate, num_tokens, epoch, and in f16 loss_scale and skipped_updates. new_tokens: (n)
 * rows: data rows used by the step */
void candidates_commit(Candidate *candidates, int n, const long *new_tokens, const int *rows);
/* After the step, done or not: adapter i + 1 holds learner i's values. */
void candidates_restore(Candidate *candidates, int n, const Trainer *trainer);

/* What the dropout of a training pass is a function of (Sequence.key): the run's seed, the step,
 * the data row, which of its samples (0: the prompt they share, or the one row of SFT), which
 * update of the step. Never 0. */
uint64_t candidate_key(const Candidate *candidate, int row, int sample, int update);

/* A list of trees: sequences whose parents are indices in the list. */
typedef struct {
    Sequence *sequences; /* (capacity) */
    int n;
    int micro_batch; /* trees that are evaluated at a time; 0: as many as a piece takes */
    Checkpointing checkpointing;
    TensorType precision;
} SequenceList;
/* micro_batch is the least that the learners (n) have, checkpointing what saves most. */
void sequence_list_init(SequenceList *list, int capacity, Learner **learners, int n,
                        StepArena *scratch);
/* Index of the new sequence. */
int sequence_add(SequenceList *list, Sequence sequence);

/* engine_evaluate over the list, in pieces of whole trees between which progress is asked. weigh
 * NULL: no backward; weigh's sequence is the index in the list. The pieces' bounds are a function
 * of the list alone. Errors: as engine_evaluate, STATUS_STOPPED. */
Status sequences_evaluate(const Trainer *trainer, const SequenceList *list, WeighToken weigh,
                          void *weigh_context, const char *phase, Error *error);
