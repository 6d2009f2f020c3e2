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
    text_release(&evaluated->no_reward);
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

/* Does the prompt leave room for a token? */
static bool fits(const Task *task, int row)
{
    return task->prompts[row].n >= 1 && task->prompts[row].n < task->model->config.max_positions;
}

double evaluated_row_mean(const double *values, int samples)
{
    double sum = 0;
    int n = 0;
    for (int s = 0; s < samples; s++) {
        sum += isnan(values[s]) ? 0 : values[s];
        n += !isnan(values[s]);
    }
    return sum / n;
}

/* Row means, then the mean over rows. */
static void finish_score(Score *score, int n_rows)
{
    double *there = allocate((size_t)n_rows, sizeof *there);
    size_t n = 0;
    score->verdict = strcmp(score->name, "nll") != 0;
    for (int i = 0; i < n_rows; i++) {
        const double *values = score->values + (size_t)i * (size_t)score->samples;
        for (int s = 0; s < score->samples; s++) {
            score->verdict = score->verdict && (values[s] == 0 || values[s] == 1);
            score->n_missing += isnan(values[s]) != 0;
        }
        score->row_means[i] = evaluated_row_mean(values, score->samples);
        if (!isnan(score->row_means[i])) {
            there[n++] = score->row_means[i];
        }
    }
    statistics_mean(&score->mean, &score->standard_error, there, n);
    free(there);
}

static void score_extractor(Evaluated *evaluated, const Extractor *extractor)
{
    Score *score = add_score(evaluated, extractor->name, evaluated->samples);
    for (int i = 0; i < evaluated->n_rows * evaluated->samples; i++) {
        const Rollout *rollout = &evaluated->rollouts[i];
        const DataRow *row =
            &evaluated->task->dataset.rows[evaluated->first_row + i / evaluated->samples];
        score->values[i] =
            extractor->correct(rollout->text, rollout->n_text, row->answer, row->n_answer);
    }
    finish_score(score, evaluated->n_rows);
}

static Status score_reward(Evaluated *evaluated, const Reward *reward, Error *error)
{
    int n = evaluated->n_rows * evaluated->samples;
    Score *score = add_score(evaluated, "reward", evaluated->samples);
    RewardRow *rows = allocate((size_t)n, sizeof *rows);
    Text *reasons = allocate((size_t)n, sizeof *reasons);
    for (int i = 0; i < n; i++) {
        int at = evaluated->first_row + i / evaluated->samples;
        const Rollout *rollout = &evaluated->rollouts[i];
        const Prompt *prompt = &evaluated->task->prompts[at];
        const DataRow *row = &evaluated->task->dataset.rows[at];
        rows[i] = (RewardRow){.prompt = prompt->text,
                              .completion = rollout->text,
                              .answer = row->answer,
                              .n_prompt = prompt->n_text,
                              .n_completion = rollout->n_text,
                              .n_answer = row->n_answer};
    }
    Status status = reward_score(reward, score->values, NULL, reasons, rows, n, error);
    for (int i = 0; i < n; i++) {
        if (!status && isnan(score->values[i]) && !evaluated->no_reward.n) {
            text_append(&evaluated->no_reward, reasons[i].bytes, reasons[i].n);
        }
        text_release(&reasons[i]);
    }
    finish_score(score, evaluated->n_rows);
    if (!status && score->n_missing == n) {
        status = error_set(error, STATUS_FAILED, "no completion has a reward; the first: %s",
                           text_string(&evaluated->no_reward));
    }
    free(rows);
    free(reasons);
    return status;
}

static Status score_rollouts(Evaluated *evaluated, const Reward *reward, Error *error)
{
    int n = evaluated->n_rows * evaluated->samples;
    double tokens = 0, clipped = 0;
    for (int k = 0; k < n_extractors; k++) {
        score_extractor(evaluated, extractors[k]);
    }
    for (int i = 0; i < n; i++) {
        tokens += evaluated->rollouts[i].completion.n;
        clipped += evaluated->rollouts[i].completion.finish == FINISH_LENGTH;
    }
    for (int i = 0; i < evaluated->n_rows; i++) {
        evaluated->n_unfit += !fits(evaluated->task, evaluated->first_row + i);
    }
    evaluated->mean_tokens = tokens / n;
    evaluated->clipped = clipped / n;
    return reward ? score_reward(evaluated, reward, error) : STATUS_OK;
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

/* The completion of a prompt that does not fit: nothing, cut off. */
static Rollout no_rollout(void)
{
    Rollout none = {.text = allocate(1, 1), .completion = {.finish = FINISH_LENGTH}};
    return none;
}

static Status sample(const Call *call, const int *names, int first, int n, Error *error)
{
    const EvaluateSettings *settings = call->settings;
    int n_rows = rows_of(settings), samples = settings->samples;
    size_t n_items = 0, most = (size_t)n_rows * (size_t)n * (size_t)samples;
    if (most > INT_MAX / 2) {
        return error_set(error, STATUS_USAGE, "%zu completions in one evaluation are too many",
                         most);
    }
    RolloutItem *items = allocate(most, sizeof *items);
    for (int i = 0; i < n_rows; i++) {
        int row = settings->first_row + i;
        for (int a = 0; a < n && fits(settings->task, row); a++) {
            for (int s = 0; s < samples; s++) {
                items[n_items++] = (RolloutItem){.prompt = &settings->task->prompts[row],
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
        n_items ? rollout_run(&rollouts, call->trainer, settings->task, items, (int)n_items, error)
                : STATUS_OK;
    free(items);
    for (int a = 0; a < n && !status; a++) {
        call->rollouts[first + a] = allocate((size_t)n_rows * (size_t)samples, sizeof *rollouts);
    }
    size_t next = 0;
    for (int i = 0; i < n_rows && !status; i++) { /* (row, adapter, sample) to (adapter, row, ..) */
        bool fit = fits(settings->task, settings->first_row + i);
        for (int a = 0; a < n; a++) {
            Rollout *own = call->rollouts[first + a] + (size_t)i * (size_t)samples;
            for (int s = 0; s < samples; s++) {
                own[s] = fit ? rollouts[next++] : no_rollout();
            }
        }
    }
    free(rollouts); /* its contents have moved */
    return status;
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
            status = score_rollouts(&out[a], settings->reward, error);
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
    memset(out, 0, (size_t)n_adapters * sizeof *out);
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
        double *there = allocate(2 * n_rows, sizeof *there);
        size_t n_there = 0;
        for (size_t i = 0; i < n_rows; i++) {
            if (!isnan(first->row_means[i]) && !isnan(second->row_means[i])) {
                there[n_there] = first->row_means[i];
                there[n_rows + n_there++] = second->row_means[i];
            }
        }
        statistics_paired_values(paired, there, there + n_rows, n_there);
        free(there);
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
