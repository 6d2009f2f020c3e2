/* Sampling, scoring and comparing. What is stored, and under which names, is in evaluate_store.c.
 */
#include "analysis/evaluate.h"

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/answer.h"
#include "rl/extract.h"

enum { NLL_ROWS = 16 }; /* rows between two questions to progress; no number depends on it */

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count + 1, size);
    if (!memory) {
        abort(); /* a few words a row of a file that is in memory */
    }
    return memory;
}

void evaluated_release(Evaluated *evaluated)
{
    for (int i = 0; i < evaluated->n_scores; i++) {
        free(evaluated->scores[i].values);
        free(evaluated->scores[i].row_means);
    }
    free(evaluated->scores);
    rollouts_free(evaluated->rollouts, evaluated->n_rows * evaluated->samples);
    *evaluated = (Evaluated){0};
}

const Score *evaluated_score(const Evaluated *evaluated, const char *name)
{
    for (int i = 0; i < evaluated->n_scores; i++) {
        if (strcmp(evaluated->scores[i].name, name) == 0) {
            return &evaluated->scores[i];
        }
    }
    return NULL;
}

static Score *add_score(Evaluated *evaluated, const char *name, int samples)
{
    Score *score = &evaluated->scores[evaluated->n_scores++];
    *score =
        (Score){.samples = samples,
                .values = allocate((size_t)evaluated->n_rows * (size_t)samples, sizeof(double)),
                .row_means = allocate((size_t)evaluated->n_rows, sizeof(double))};
    snprintf(score->name, sizeof score->name, "%s", name);
    return score;
}

/* Row means, then the mean over rows. */
static void finish_score(Score *score, int n_rows)
{
    score->verdict = strcmp(score->name, "nll") != 0;
    for (int i = 0; i < n_rows; i++) {
        double sum = 0;
        for (int s = 0; s < score->samples; s++) {
            double value = score->values[(size_t)i * (size_t)score->samples + (size_t)s];
            score->verdict = score->verdict && (value == 0 || value == 1);
            sum += value;
        }
        score->row_means[i] = sum / score->samples;
    }
    statistics_mean(&score->mean, &score->standard_error, score->row_means, (size_t)n_rows);
}

static void score_rollouts(Evaluated *evaluated, const Reward *reward)
{
    int n = evaluated->n_rows * evaluated->samples;
    for (int k = 0; k < n_extractors + (reward != NULL); k++) {
        const Extractor *extractor = k < n_extractors ? extractors[k] : NULL;
        Score *score =
            add_score(evaluated, extractor ? extractor->name : "reward", evaluated->samples);
        for (int i = 0; i < n; i++) {
            const Rollout *rollout = &evaluated->rollouts[i];
            const DataRow *row =
                &evaluated->task->dataset.rows[evaluated->first_row + i / evaluated->samples];
            score->values[i] =
                extractor
                    ? extractor->correct(rollout->text, rollout->n_text, row->answer, row->n_answer)
                    : reward_score(reward, NULL, rollout->text, rollout->n_text, row->answer,
                                   row->n_answer);
        }
        finish_score(score, evaluated->n_rows);
    }
    double tokens = 0, clipped = 0;
    for (int i = 0; i < n; i++) {
        tokens += evaluated->rollouts[i].completion.n;
        clipped += evaluated->rollouts[i].completion.finish == FINISH_LENGTH;
    }
    evaluated->mean_tokens = tokens / n;
    evaluated->clipped = clipped / n;
}

/* pass@k of each extractor, whose scores come first. */
static void score_pass(Evaluated *evaluated, int k)
{
    for (int e = 0; e < n_extractors; e++) {
        char name[sizeof evaluated->scores->name];
        snprintf(name, sizeof name, "%s@%d", extractors[e]->name, k);
        Score *pass = add_score(evaluated, name, 1);
        const Score *score = &evaluated->scores[e];
        for (int i = 0; i < evaluated->n_rows; i++) {
            int right = 0;
            for (int s = 0; s < score->samples; s++) {
                right += score->values[(size_t)i * (size_t)score->samples + (size_t)s] != 0;
            }
            pass->values[i] = statistics_pass_at(k, score->samples, right);
        }
        finish_score(pass, evaluated->n_rows);
        pass->verdict = k == score->samples; /* else in between, though it may not show */
    }
}

/* What a call works on: adapters by the names that the items have for them, n from the first. */
typedef struct {
    const Trainer *trainer;
    const EvaluateSettings *settings;
    Rollout **rollouts;
    Evaluated *out;
} Call;
typedef Status (*Part)(const Call *call, const int *names, int first, int n, Error *error);

/* Together, or each in its turn where the weights themselves are the adapter and the engine knows
 * only adapter 0. */
static Status with_adapters(const Call *call, Part part, const int *adapters, int n, Error *error)
{
    AdapterBank *bank = call->trainer->bank;
    int n_threads = engine_threads(call->trainer->engine);
    const int base_name = 0;
    Status status = STATUS_OK;
    if (adapter_hook(bank)) {
        return part(call, adapters, 0, n, error);
    }
    for (int a = 0; !status && a < n; a++) {
        adapter_use_base(bank, adapters[a] == 0, n_threads);
        status = part(call, &base_name, a, 1, error);
    }
    adapter_use_base(bank, false, n_threads);
    return status;
}

static int rows_of(const EvaluateSettings *settings)
{
    return settings->n_rows ? settings->n_rows : settings->task->n_rows - settings->first_row;
}

static Status sample(const Call *call, const int *names, int first, int n, Error *error)
{
    const EvaluateSettings *settings = call->settings;
    int n_rows = rows_of(settings), samples = settings->samples;
    size_t n_items = (size_t)n_rows * (size_t)n * (size_t)samples;
    if (n_items > INT_MAX / 2) {
        return error_set(error, STATUS_USAGE, "%zu completions in one evaluation are too many",
                         n_items);
    }
    RolloutItem *items = allocate(n_items, sizeof *items);
    RolloutItem *item = items;
    for (int i = 0; i < n_rows; i++) {
        int row = settings->first_row + i;
        for (int a = 0; a < n; a++) {
            for (int s = 0; s < samples; s++) {
                *item++ = (RolloutItem){.prompt = &settings->task->prompts[row],
                                        .sampling = settings->sampling,
                                        .adapter = names[a],
                                        .key = {settings->seed, RANDOM_EVAL},
                                        .prompt_index = (uint32_t)row,
                                        .sample = (uint32_t)s};
            }
        }
    }
    Rollout *rollouts = NULL;
    Status status =
        rollout_run(&rollouts, call->trainer, settings->task, items, (int)n_items, error);
    free(items);
    if (status) {
        return status;
    }
    for (int a = 0; a < n; a++) { /* (row, adapter, sample) becomes (adapter, row, sample) */
        Rollout *own = allocate((size_t)n_rows * (size_t)samples, sizeof *rollouts);
        for (int i = 0; i < n_rows; i++) {
            memcpy(own + (size_t)i * (size_t)samples,
                   rollouts + ((size_t)i * (size_t)n + (size_t)a) * (size_t)samples,
                   (size_t)samples * sizeof *rollouts);
        }
        call->rollouts[first + a] = own;
    }
    free(rollouts); /* its contents have moved */
    return STATUS_OK;
}

static Status score_some_answers(Evaluated *out, const Trainer *trainer, const Task *task,
                                 int first, int n_rows, const int *names, int n, Error *error)
{
    AnswerRow answers[NLL_ROWS];
    Sequence *sequences = allocate((size_t)n_rows * (size_t)n, sizeof *sequences);
    for (int i = 0; i < n_rows; i++) {
        answer_row_init(&answers[i], sequences + (size_t)i * (size_t)n, task,
                        out[0].first_row + first + i, INT_MAX, names, n, 0);
    }
    Batch batch = {
        .sequences = sequences, .n_sequences = n_rows * n, .hook = adapter_hook(trainer->bank)};
    Status status = engine_evaluate(trainer->engine, &batch, error);
    for (int i = 0; i < n_rows; i++) {
        int n_answer = task->n_answer[out[0].first_row + first + i];
        for (int a = 0; a < n; a++) {
            out[a].scores[out[a].n_scores - 1].values[first + i] =
                (0 - answer_row_sum(&answers[i], answers[i].logprobs, a)) / n_answer; /* never -0 */
        }
        answer_row_release(&answers[i]);
    }
    free(sequences);
    return status;
}

static Status score_answers(const Call *call, const int *names, int first_adapter, int n,
                            Error *error)
{
    const Trainer *trainer = call->trainer;
    Evaluated *out = call->out + first_adapter;
    int n_rows = out[0].n_rows;
    for (int a = 0; a < n; a++) {
        add_score(&out[a], "nll", 1);
    }
    Status status = STATUS_OK;
    for (int first = 0; !status && first < n_rows; first += NLL_ROWS) {
        if (trainer->progress &&
            trainer->progress(trainer->progress_context, "answers", first, n_rows, 0)) {
            status = error_set(error, STATUS_STOPPED, "stopped");
            break;
        }
        int some = n_rows - first < NLL_ROWS ? n_rows - first : NLL_ROWS;
        status =
            score_some_answers(out, trainer, call->settings->task, first, some, names, n, error);
    }
    for (int a = 0; a < n; a++) {
        finish_score(&out[a].scores[out[a].n_scores - 1], n_rows);
    }
    return status;
}

static Status check(const EvaluateSettings *settings, Error *error)
{
    int n_rows = rows_of(settings), left = settings->task->n_rows - settings->first_row;
    if (settings->first_row < 0 || n_rows < 1 || n_rows > left) {
        return error_set(error, STATUS_USAGE, "rows %d to %d are not among the %d of \"%s\"",
                         settings->first_row, settings->first_row + n_rows, settings->task->n_rows,
                         settings->task->dataset.path);
    }
    if (settings->sampling && (settings->samples < 1 || settings->samples > 65536)) {
        return error_set(error, STATUS_USAGE, "%d samples a row, expected 1 to 65536",
                         settings->samples);
    }
    if (settings->pass_k && (settings->pass_k < 2 || settings->pass_k > settings->samples)) {
        return error_set(error, STATUS_USAGE,
                         "pass@%d wants at least %d samples a row, there are %d", settings->pass_k,
                         settings->pass_k, settings->samples);
    }
    return STATUS_OK;
}

Status evaluate_sample(Rollout **rollouts, const Trainer *trainer, const EvaluateSettings *settings,
                       const int *adapters, int n_adapters, Error *error)
{
    Call call = {.trainer = trainer, .settings = settings, .rollouts = rollouts};
    memset(rollouts, 0, (size_t)n_adapters * sizeof *rollouts);
    Status status = check(settings, error);
    status = status ? status : with_adapters(&call, sample, adapters, n_adapters, error);
    for (int a = 0; status && a < n_adapters; a++) {
        rollouts_free(rollouts[a], rows_of(settings) * settings->samples);
    }
    return status;
}

Status evaluate_score(Evaluated *out, const Trainer *trainer, const EvaluateSettings *settings,
                      const int *adapters, int n_adapters, Rollout **rollouts, Error *error)
{
    Call call = {.trainer = trainer, .settings = settings, .out = out};
    Status status = check(settings, error);
    for (int a = 0; a < n_adapters; a++) {
        out[a] = (Evaluated){.task = settings->task,
                             .first_row = settings->first_row,
                             .n_rows = rows_of(settings),
                             .samples = rollouts ? settings->samples : 0,
                             .rollouts = rollouts ? rollouts[a] : NULL,
                             .scores = allocate(2 * (size_t)n_extractors + 2, sizeof(Score))};
        if (rollouts && !status) {
            score_rollouts(&out[a], settings->reward);
        }
        if (rollouts && !status && settings->pass_k) {
            score_pass(&out[a], settings->pass_k);
        }
    }
    if (!status && settings->answers_nll) {
        status = with_adapters(&call, score_answers, adapters, n_adapters, error);
    }
    for (int a = 0; status && a < n_adapters; a++) {
        evaluated_release(&out[a]);
    }
    return status;
}

Status evaluate(Evaluated *out, const Trainer *trainer, const EvaluateSettings *settings,
                const int *adapters, int n_adapters, Error *error)
{
    Rollout **rollouts = allocate((size_t)n_adapters, sizeof *rollouts);
    Status status = settings->sampling
                        ? evaluate_sample(rollouts, trainer, settings, adapters, n_adapters, error)
                        : STATUS_OK;
    status = status ? status
                    : evaluate_score(out, trainer, settings, adapters, n_adapters,
                                     settings->sampling ? rollouts : NULL, error);
    free(rollouts);
    return status;
}

void evaluated_compare(Paired *paired, const Evaluated *evaluated, const Evaluated *base, int score)
{
    const Score *first = &evaluated->scores[score], *second = &base->scores[score];
    assert(evaluated->n_rows == base->n_rows && evaluated->first_row == base->first_row &&
           first->samples == second->samples && strcmp(first->name, second->name) == 0);
    size_t n_rows = (size_t)evaluated->n_rows, n = n_rows * (size_t)first->samples;
    if (!first->verdict || !second->verdict) {
        statistics_paired_values(paired, first->row_means, second->row_means, n_rows);
        return;
    }
    uint8_t *verdicts = allocate(2 * n, 1);
    for (size_t i = 0; i < n; i++) {
        verdicts[i] = first->values[i] != 0;
        verdicts[n + i] = second->values[i] != 0;
    }
    statistics_paired_verdicts(paired, verdicts, verdicts + n, n_rows, (size_t)first->samples);
    free(verdicts);
}
