/* Answers as sequences. */
#include "analysis/answer.h"

#include <stdlib.h>
#include <string.h>

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count + 1, size);
    if (!memory) {
        abort(); /* a few words a token of one data row */
    }
    return memory;
}

static int kept(const Task *task, int row, int max_tokens)
{
    int n = task->prompts[row].n + task->n_answer[row];
    return n < max_tokens ? n : max_tokens;
}

/* The first token of all has no log p. */
static int first_scored(const Task *task, int row)
{
    return task->prompts[row].n > 0 ? task->prompts[row].n : 1;
}

int answer_scored(const Task *task, int row, int max_tokens)
{
    int n = kept(task, row, max_tokens) - first_scored(task, row);
    return n > 0 ? n : 0;
}

void answer_row_init(AnswerRow *answer, Sequence *sequences, const Task *task, int row,
                     int max_tokens, const int *names, int n, unsigned wanted)
{
    const Prompt *prompt = &task->prompts[row];
    int n_tokens = kept(task, row, max_tokens);
    int n_prompt = prompt->n < n_tokens ? prompt->n : n_tokens;
    size_t size = (size_t)n_tokens, all = size * (size_t)n;
    *answer = (AnswerRow){.n_tokens = n_tokens, .first_scored = first_scored(task, row)};
    answer->tokens = allocate(size, sizeof *answer->tokens);
    answer->scored = allocate(size, 1);
    memcpy(answer->tokens, prompt->ids, (size_t)n_prompt * sizeof *answer->tokens);
    memcpy(answer->tokens + n_prompt, task->answers[row],
           (size_t)(n_tokens - n_prompt) * sizeof *answer->tokens);
    for (int t = answer->first_scored; t < n_tokens; t++) {
        answer->scored[t] = 1;
    }
    answer->logprobs = allocate(all, sizeof(double));
    answer->entropies = wanted & ANSWER_ENTROPIES ? allocate(all, sizeof(double)) : NULL;
    answer->kl = wanted & ANSWER_KL ? allocate(all, sizeof(double)) : NULL;
    for (int k = 0; k < n; k++) {
        size_t at = (size_t)k * size;
        sequences[k] = (Sequence){.tokens = answer->tokens,
                                  .n_tokens = n_tokens,
                                  .parent = -1,
                                  .adapter = names[k],
                                  .temperature = 1,
                                  .scored = answer->scored,
                                  .logprobs = answer->logprobs + at,
                                  .entropies = answer->entropies ? answer->entropies + at : NULL,
                                  .kl = answer->kl ? answer->kl + at : NULL};
    }
}

void answer_row_release(AnswerRow *answer)
{
    free(answer->tokens);
    free(answer->scored);
    free(answer->logprobs);
    free(answer->entropies);
    free(answer->kl);
    *answer = (AnswerRow){0};
}

double answer_row_sum(const AnswerRow *answer, const double *values, int k)
{
    double sum = 0;
    for (int t = answer->first_scored; t < answer->n_tokens; t++) {
        sum += values[(size_t)k * (size_t)answer->n_tokens + (size_t)t];
    }
    return sum;
}
