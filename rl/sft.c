/* The SFT step: rows to sequences with a weight of -1/N on each supervised token, one pass for all
 * learners. */
#include "rl/sft.h"

#include <string.h>

#include "rl/step.h"

typedef struct {
    Candidate *candidate;
    int n_prompt, n_answer;
    int first;                            /* supervised position; all after it are */
    double *logprobs, *means, *entropies; /* (n_prompt + n_answer); means NULL: no smoothing */
    double weight;                        /* -1 / supervised tokens of the learner's step */
    double smoothing;
} Example;

static TokenWeight weigh(void *context, int sequence, int position, double logprob, double entropy)
{
    (void)position, (void)logprob, (void)entropy;
    const Example *example = (const Example *)context + sequence;
    double weight = example->weight * example->candidate->loss_scale.scale;
    return (TokenWeight){.dlogprob = weight * (1 - example->smoothing),
                         .dmean = weight * example->smoothing};
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
    memset(scored + example->first, 1, (size_t)(n - example->first));
    example->logprobs = arena_alloc(scratch, (size_t)n, sizeof(double));
    example->means =
        example->smoothing != 0 ? arena_alloc(scratch, (size_t)n, sizeof(double)) : NULL;
    example->entropies = arena_alloc(scratch, (size_t)n, sizeof(double));
    sequence_add(list, (Sequence){.tokens = tokens,
                                  .n_tokens = n,
                                  .parent = -1,
                                  .adapter = example->candidate->adapter,
                                  .temperature = 1,
                                  .scored = scored,
                                  .logprobs = example->logprobs,
                                  .means = example->means,
                                  .entropies = example->entropies,
                                  .key = candidate_key(example->candidate, row, 0, 0)});
}

static void finish(Candidate *candidate, const Trainer *trainer, const Example *examples, int rows,
                   long n_supervised)
{
    double sum = 0, entropy = 0;
    for (int i = 0; i < rows; i++) {
        const Example *example = &examples[i];
        double row_sum = 0, row_entropy = 0, e = example->smoothing;
        for (int t = example->first; t < example->n_prompt + example->n_answer; t++) {
            row_sum += e != 0 ? (1 - e) * example->logprobs[t] + e * example->means[t]
                              : example->logprobs[t];
            row_entropy += example->entropies[t];
        }
        sum += row_sum;
        entropy += row_entropy;
    }
    double loss = -sum / (double)n_supervised;
    step_metric(candidate->result, "loss", loss);
    step_metric(candidate->result, "entropy", entropy / (double)n_supervised);
    candidate_update(candidate, trainer, loss);
}

/* The first supervised position of a row: after the prompt, or the first that has a log p. */
static int first_of(const Learner *learner, int row)
{
    return learner->settings.sft.whole ? 1 : learner->task->prompts[row].n;
}

/* The learner's rows of the step into examples (batch_size) and the list; returns the supervised
 * tokens. */
static long add_rows(SequenceList *list, Example *examples, Candidate *candidate, long *tokens,
                     StepArena *scratch)
{
    const Learner *learner = candidate->learner;
    const Task *task = learner->task;
    int rows = learner->settings.sft.batch_size;
    int *order = arena_alloc(scratch, (size_t)rows, sizeof *order);
    long supervised = 0;
    task_order(order, rows, task, learner->settings.seed, (candidate->step - 1) * rows);
    for (int j = 0; j < rows; j++) {
        int row = order[j], n = task->prompts[row].n + task->n_answer[row];
        supervised += n - first_of(learner, row);
        *tokens += n;
    }
    for (int j = 0; j < rows; j++) {
        int row = order[j];
        examples[j] = (Example){.candidate = candidate,
                                .n_prompt = task->prompts[row].n,
                                .n_answer = task->n_answer[row],
                                .first = first_of(learner, row),
                                .weight = -1.0 / (double)supervised,
                                .smoothing = learner->settings.sft.label_smoothing};
        add_example(list, &examples[j], task, row, scratch);
    }
    return supervised;
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
    sequence_list_init(&list, total, learners, n, scratch);
    Example *examples = arena_alloc(scratch, (size_t)total, sizeof *examples);
    for (int i = 0, at = 0; i < n; at += rows[i++]) {
        supervised[i] = add_rows(&list, examples + at, &candidates[i], &tokens[i], scratch);
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
