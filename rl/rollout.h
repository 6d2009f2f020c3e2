/* Completions of prompts, with their text: what training, evaluation and analysis sample with. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "adapters/adapter.h"
#include "core/generate.h"
#include "rl/task.h"

typedef struct {
    bool greedy;
    double temperature; /* > 0 */
    double top_p;       /* 1: all */
    int top_k;          /* 0: all */
    double min_p;       /* 0: all */
    double penalty;     /* of repetitions; 0 or 1: none. Logprobs are those without any of these */
    int max_new_tokens;
} Sampling;

/* The machines a step runs on. */
typedef struct {
    Engine *engine;
    AdapterBank *bank; /* learner i runs under adapter i + 1 ("full": the weights themselves) */
    /* Called every decoding step and between pieces of the update, from one thread. done and total
     * count finished sequences of the phase ("rollout", "base", "update"), tokens those sampled so
     * far. Nonzero abandons the step with STATUS_STOPPED and nothing changed. May be NULL. */
    int (*progress)(void *context, const char *phase, int done, int total, long tokens);
    void *progress_context;
} Trainer;

typedef struct {
    const Prompt *prompt; /* items next to each other with the same prompt share its prefill */
    const Sampling *sampling;
    int adapter; /* of the bank; 0: base */
    RandomKey key;
    uint32_t step, prompt_index,
        sample; /* random numbers: (key; step, prompt_index, sample, token) */
} RolloutItem;

typedef struct {
    Completion completion;
    char *text; /* decoded without special tokens, NUL-terminated */
    size_t n_text;
} Rollout;

/* rollouts: (n) filled in order of the items; released by rollouts_free. Adapters must have been
 * set. stop_ids of the task's model end a completion. */
Status rollout_run(Rollout **rollouts, const Trainer *trainer, const Task *task,
                   const RolloutItem *items, int n, Error *error);
void rollouts_free(Rollout *rollouts, int n);
