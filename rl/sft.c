/* The SFT step: rows to sequences with a weight of -1/N on each supervised token, one pass for all
 * learners. */
#include "rl/sft.h"

#include <string.h>

#include "rl/step.h"

typedef struct {
    Candidate *candidate;
    int n_prompt, n_answer;
    double *logprobs, *entropies; /* (n_prompt + n_answer) */
    double weight;                /* -1 / supervised tokens of the learner's step */
} Example;

static TokenWeight weigh(void *context, int sequence, int position, double logprob, double entropy)
{
    (void)position, (void)logprob, (void)entropy;
    const Example *examples = context;
    return (TokenWeight){.dlogprob = examples[sequence].weight};
}

static void add_example(SequenceList *list, Example *example, const Task *task, int row,
                        StepArena *scratch)
{
    const Prompt *prompt = &task->prompts[row];
    int n_answer = task->n_answer[row], n = prompt->n + n_answer;
    int32_t *tokens = arena_alloc(scratch, (size_t)n, sizeof *tokens);
    uint8_t *scored = arena_alloc(scratch, (size_t)n, 1);
    memcpy(tokens, prompt->ids, (size_t)prompt->n * sizeof *tokens);
    memcpy(tokens + prompt->n, task->answers[row], (size_t)n_answer * sizeof *tokens);
    memset(scored + prompt->n, 1, (size_t)n_answer);
    example->n_prompt = prompt->n;
    example->n_answer = n_answer;
    example->logprobs = arena_alloc(scratch, (size_t)n, sizeof(double));
    example->entropies = arena_alloc(scratch, (size_t)n, sizeof(double));
    sequence_add(list, (Sequence){.tokens = tokens,
                                  .n_tokens = n,
                                  .parent = -1,
                                  .adapter = example->candidate->adapter,
                                  .temperature = 1,
                                  .scored = scored,
                                  .logprobs = example->logprobs,
                                  .entropies = example->entropies,
                                  .key = candidate_key(example->candidate, row, 0, 0)});
}

static void finish(Candidate *candidate, const Trainer *trainer, const Example *examples, int rows,
                   long n_supervised)
{
    double sum = 0, entropy = 0;
    for (int i = 0; i < rows; i++) {
        double row_sum = 0, row_entropy = 0;
        for (int t = examples[i].n_prompt; t < examples[i].n_prompt + examples[i].n_answer; t++) {
            row_sum += examples[i].logprobs[t];
            row_entropy += examples[i].entropies[t];
        }
        sum += row_sum;
        entropy += row_entropy;
    }
    double loss = -sum / (double)n_supervised;
    step_metric(candidate->result, "loss", loss);
    step_metric(candidate->result, "entropy", entropy / (double)n_supervised);
    candidate_update(candidate, trainer, loss);
}

Status sft_step(const Trainer *trainer, Learner **learners, int n, StepResult *results,
                Error *error)
{
    StepArena *scratch = arena_new();
    Candidate *candidates = candidates_begin(trainer, learners, n, results, scratch);
    int *rows = arena_alloc(scratch, (size_t)n, sizeof *rows);
    long *supervised = arena_alloc(scratch, (size_t)n, sizeof *supervised);
    long *tokens = arena_alloc(scratch, (size_t)n, sizeof *tokens);
    int total = 0;
    for (int i = 0; i < n; i++) {
        rows[i] = learners[i]->settings.sft.batch_size;
        total += rows[i];
    }
    SequenceList list;
    sequence_list_init(&list, total, scratch);
    Example *examples = arena_alloc(scratch, (size_t)total, sizeof *examples);
    for (int i = 0, at = 0; i < n; i++) {
        const Learner *learner = learners[i];
        int *order = arena_alloc(scratch, (size_t)rows[i], sizeof *order);
        task_order(order, rows[i], learner->task, learner->settings.seed,
                   (candidates[i].step - 1) * rows[i]);
        for (int j = 0; j < rows[i]; j++) {
            supervised[i] += learner->task->n_answer[order[j]];
        }
        for (int j = 0; j < rows[i]; j++, at++) {
            examples[at] =
                (Example){.candidate = &candidates[i], .weight = -1.0 / (double)supervised[i]};
            add_example(&list, &examples[at], learner->task, order[j], scratch);
            tokens[i] += examples[at].n_prompt + examples[at].n_answer;
        }
    }
    adapter_clear_gradients(trainer->bank);
    bool trains = adapter_parameters(trainer->bank) > 0;
    Status status =
        sequences_evaluate(trainer, &list, trains ? weigh : NULL, examples, "update", error);
    for (int i = 0, at = 0; i < n && !status; at += rows[i++]) {
        finish(&candidates[i], trainer, examples + at, rows[i], supervised[i]);
    }
    if (!status) {
        candidates_commit(candidates, n, tokens, rows);
    }
    candidates_restore(candidates, n, trainer);
    arena_free(scratch);
    return status;
}
