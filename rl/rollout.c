/* Rollouts: requests to core/generate and the decoded text of what came back. All randomness is the
 * caller's key. */
#include "rl/rollout.h"

#include <stdlib.h>
#include <string.h>

static int watch(void *context, int n_finished, int n_requests, long n_tokens)
{
    const Trainer *trainer = context;
    return trainer->progress(trainer->progress_context, "rollout", n_finished, n_requests,
                             n_tokens);
}

static GenerateRequest request_of(const RolloutItem *item)
{
    const Sampling *sampling = item->sampling;
    return (GenerateRequest){.prompt = item->prompt->ids,
                             .n_prompt = item->prompt->n,
                             .adapter = item->adapter,
                             .greedy = sampling->greedy,
                             .temperature = (float)sampling->temperature,
                             .top_k = sampling->top_k,
                             .top_p = (float)sampling->top_p,
                             .min_p = (float)sampling->min_p,
                             .penalty = (float)sampling->penalty,
                             .max_new = sampling->max_new_tokens,
                             .key = item->key,
                             .step = item->step,
                             .prompt_index = item->prompt_index,
                             .sample = item->sample};
}

Status rollout_run(Rollout **rollouts, const Trainer *trainer, const Task *task,
                   const RolloutItem *items, int n, Error *error)
{
    GenerateRequest *requests = calloc((size_t)n + 1, sizeof *requests);
    Completion *completions = calloc((size_t)n + 1, sizeof *completions);
    Rollout *made = calloc((size_t)n + 1, sizeof *made);
    if (!requests || !completions || !made) {
        free(requests);
        free(completions);
        free(made);
        return error_set(error, STATUS_FAILED, "no memory for %d completions", n);
    }
    for (int i = 0; i < n; i++) {
        requests[i] = request_of(&items[i]);
    }
    GenerateOptions options = {.stop_ids = task->stop_ids,
                               .n_stop = task->n_stop,
                               .progress = trainer->progress ? watch : NULL,
                               .progress_context = (void *)trainer};
    Status status = generate(trainer->engine, adapter_hook(trainer->bank), requests, n, &options,
                             completions, error);
    for (int i = 0; i < n; i++) {
        if (status) {
            completion_release(&completions[i]);
            continue;
        }
        Text text = {0};
        tokenizer_decode(task->model->tokenizer, completions[i].ids, (size_t)completions[i].n, true,
                         &text);
        text_append(&text, "", 0); /* so that bytes is a string even without tokens */
        made[i] = (Rollout){.completion = completions[i], .text = text.bytes, .n_text = text.n};
    }
    free(requests);
    free(completions);
    if (status) {
        free(made);
    } else {
        *rollouts = made;
    }
    return status;
}

void rollouts_free(Rollout *rollouts, int n)
{
    for (int i = 0; rollouts && i < n; i++) {
        completion_release(&rollouts[i].completion);
        free(rollouts[i].text);
    }
    free(rollouts);
}
