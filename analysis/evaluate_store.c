/* An evaluation's names, and its way into results.db. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/evaluate.h"
#include "core/sha256.h"
#include "rl/extract.h"

enum { RESAMPLES = 4000 };

void evaluate_describe(Text *out, const EvaluateSettings *settings)
{
    const char *path = settings->task->dataset.path, *slash = strrchr(path, '/');
    int end = settings->n_rows ? settings->first_row + settings->n_rows : settings->task->n_rows;
    text_printf(out, "%s[%d:%d]", slash ? slash + 1 : path, settings->first_row, end);
    const Sampling *sampling = settings->sampling;
    if (!sampling) {
        text_add(out, " answers");
        return;
    }
    if (sampling->greedy) {
        text_add(out, " greedy");
    } else {
        text_printf(out, " sampled T=%g", sampling->temperature);
        if (sampling->top_k > 0) {
            text_printf(out, " top-k %d", sampling->top_k);
        }
        if (sampling->top_p < 1) {
            text_printf(out, " top-p %g", sampling->top_p);
        }
        if (sampling->min_p > 0) {
            text_printf(out, " min-p %g", sampling->min_p);
        }
        text_printf(out, " x%d", settings->samples);
    }
    if (sampling->penalty > 0 && sampling->penalty != 1) {
        text_printf(out, " repetition %g", sampling->penalty);
    }
    text_printf(out, " %d tokens", sampling->max_new_tokens);
    if (!sampling->greedy) {
        text_printf(out, " seed %" PRIu64, settings->seed);
    }
}

void evaluate_base_run_id(Text *out, const EvaluateSettings *settings)
{
    const Task *task = settings->task;
    int end = settings->n_rows ? settings->first_row + settings->n_rows : task->n_rows;
    Text description = {0};
    evaluate_describe(&description, settings);
    text_printf(&description, "|%s|%s|%s|%d|", task->dataset.sha256,
                model_tokenizer_sha256(task->model), settings->identity ? settings->identity : "",
                EXTRACT_VERSION);
    Sha256 *state = sha256_new();
    sha256_update(state, description.bytes, description.n);
    for (int row = settings->first_row; row < end; row++) { /* the template shows in the prompts */
        sha256_update(state, task->prompts[row].ids,
                      (size_t)task->prompts[row].n * sizeof *task->prompts[row].ids);
    }
    sha256_update(state, task->stop_ids, (size_t)task->n_stop * sizeof *task->stop_ids);
    char hex[SHA256_HEX_SIZE];
    sha256_finish(state, hex);
    text_release(&description);
    text_printf(out, "base:%.16s:%.16s", model_weights_sha256(task->model), hex);
}

/* The base's values of one score; NULL where it has no such row. values: malloc'ed. */
static Status read_base(Store *store, const char *base_run_id, const char *task, const Score *score,
                        int n_rows, double **values, Evaluation *numbers, Error *error)
{
    bool found = false;
    size_t n = 0;
    *values = NULL;
    Status status =
        store_has_evaluation(store, base_run_id, 0, task, score->name, &found, numbers, error);
    if (status || !found) {
        return status;
    }
    status = store_eval_scores(store, base_run_id, 0, task, score->name, values, &n, error);
    if (!status && n != (size_t)n_rows * (size_t)score->samples) {
        free(*values);
        *values = NULL;
        status = error_set(error, STATUS_FAILED,
                           "%s has %zu answers under %s, expected %d rows of %d samples",
                           base_run_id, n, score->name, n_rows, score->samples);
    }
    return status;
}

/* bootstrap: of the rows' means. */
static void compare_with(Paired *paired, Bootstrap *bootstrap, const Score *score,
                         double *base_values, int n_rows, uint64_t seed)
{
    Score base = *score;
    base.values = base_values;
    base.row_means = malloc(((size_t)n_rows + 1) * sizeof *base.row_means);
    if (!base.row_means) {
        abort();
    }
    for (int i = 0; i < n_rows; i++) {
        const double *values = base_values + (size_t)i * (size_t)score->samples;
        for (int k = 0; k < score->samples; k++) {
            base.verdict = base.verdict && (values[k] == 0 || values[k] == 1);
        }
        base.row_means[i] = evaluated_row_mean(values, score->samples);
    }
    Evaluated first = {.n_rows = n_rows, .scores = (Score *)score, .n_scores = 1};
    Evaluated second = {.n_rows = n_rows, .scores = &base, .n_scores = 1};
    evaluated_compare(paired, &first, &second, 0);
    size_t n_there = 0;
    for (int i = 0; i < n_rows; i++) {
        double difference = score->row_means[i] - base.row_means[i];
        if (!isnan(difference)) {
            base.row_means[n_there++] = difference;
        }
    }
    statistics_bootstrap(bootstrap, base.row_means, n_there, RESAMPLES, 0.95,
                         (RandomKey){seed, RANDOM_BOOTSTRAP});
    free(base.row_means);
}

/* paired, bootstrap: NULL without a base. */
static void add_detail(Text *detail, const Evaluated *evaluated, const Score *score,
                       const Paired *paired, const Bootstrap *bootstrap)
{
    text_printf(detail, "{\"rows\": %d, \"samples\": %d", evaluated->n_rows, score->samples);
    if (evaluated->rollouts && strcmp(score->name, "nll") != 0) {
        text_add(detail, ", \"mean_tokens\": ");
        text_json_number(detail, evaluated->mean_tokens);
        text_add(detail, ", \"clipped\": ");
        text_json_number(detail, evaluated->clipped);
    }
    if (evaluated->n_unfit && strcmp(score->name, "nll") != 0) {
        text_printf(detail, ", \"prompts_too_long\": %d", evaluated->n_unfit);
    }
    if (score->n_missing) {
        text_printf(detail, ", \"errors\": %d, \"first_error\": ", score->n_missing);
        text_json_string(detail, text_string(&evaluated->no_reward), evaluated->no_reward.n);
    }
    if (score->verdict && score->samples == 1) {
        double low, high;
        size_t hits = 0;
        for (int i = 0; i < evaluated->n_rows; i++) {
            hits += score->values[i] != 0;
        }
        statistics_wilson(&low, &high, hits, (size_t)evaluated->n_rows, 0.95);
        text_printf(detail, ", \"wilson_95\": [%.17g, %.17g]", low, high);
    }
    if (paired) {
        text_add(detail, ", \"difference\": ");
        text_json_number(detail, paired->difference);
        text_add(detail, ", \"difference_se\": ");
        text_json_number(detail, paired->standard_error);
        text_add(detail, ", \"bootstrap_95\": [");
        text_json_number(detail, bootstrap->low);
        text_add(detail, ", ");
        text_json_number(detail, bootstrap->high);
        text_add(detail, "], \"bootstrap_p\": ");
        text_json_number(detail, bootstrap->p_value);
        text_printf(detail, ", \"test\": \"%s\"", paired->test);
        if (strcmp(paired->test, "paired_t") != 0) {
            text_printf(detail, ", \"only_run\": %zu, \"only_base\": %zu", paired->only_first,
                        paired->only_second);
        }
    }
    text_add(detail, "}");
}

const char *evaluate_finish(const Rollout *rollout)
{
    return rollout->completion.finish == FINISH_STOP ? "stop" : "length";
}

/* Per-row answers of one score; what an extractor read goes into `read` (one Text a sample). */
static size_t add_samples(EvalSample *samples, Text *read, const Evaluated *evaluated,
                          const Score *score)
{
    const Extractor *extractor = extractor_find(score->name);
    size_t n = (size_t)evaluated->n_rows * (size_t)score->samples;
    bool answers = strcmp(score->name, "nll") == 0, first = score == evaluated->scores;
    for (size_t i = 0; i < n; i++) {
        int row = evaluated->first_row + (int)(i / (size_t)score->samples);
        bool of_one = !answers && score->samples == evaluated->samples;
        const Rollout *rollout = of_one ? &evaluated->rollouts[i] : NULL;
        bool found =
            rollout && extractor && extractor->read(&read[i], rollout->text, rollout->n_text);
        samples[i] = (EvalSample){.row = row,
                                  .sample = (int)(i % (size_t)score->samples),
                                  .text = rollout && first ? rollout->text : NULL,
                                  .n_text = rollout ? rollout->n_text : 0,
                                  .answer = evaluated->task->dataset.rows[row].answer,
                                  .extractor = score->name,
                                  .extracted = found ? text_string(&read[i]) : NULL,
                                  .correct = score->verdict && score->values[i] != 0,
                                  .n_tokens = rollout ? rollout->completion.n
                                                      : evaluated->task->n_answer[row],
                                  .score = score->values[i],
                                  .finish = rollout ? evaluate_finish(rollout) : NULL};
    }
    return n;
}

Status evaluate_store(Store *store, const char *run_id, int64_t step,
                      const EvaluateSettings *settings, const Evaluated *evaluated,
                      const char *base_run_id, const char *model, double now_s, Error *error)
{
    int n_scores = evaluated->n_scores;
    size_t most = (size_t)n_scores * (size_t)evaluated->n_rows *
                  (size_t)(evaluated->samples > 1 ? evaluated->samples : 1);
    Evaluation *evaluations = calloc((size_t)n_scores + 1, sizeof *evaluations);
    Text *details = calloc((size_t)n_scores + 1, sizeof *details), task = {0};
    EvalSample *samples = calloc(most + 1, sizeof *samples);
    Text *read = calloc(most + 1, sizeof *read);
    if (!evaluations || !details || !samples || !read) {
        free(evaluations), free(details), free(samples), free(read);
        return error_set(error, STATUS_FAILED, "no memory for %zu answers", most);
    }
    evaluate_describe(&task, settings);
    size_t n_samples = 0;
    Status status = STATUS_OK;
    for (int k = 0; !status && k < n_scores; k++) {
        const Score *score = &evaluated->scores[k];
        double *base_values = NULL;
        Evaluation base = {.value = NAN};
        Paired paired = {.p_value = NAN};
        Bootstrap bootstrap;
        if (base_run_id) {
            status = read_base(store, base_run_id, task.bytes, score, evaluated->n_rows,
                               &base_values, &base, error);
        }
        if (base_values) {
            compare_with(&paired, &bootstrap, score, base_values, evaluated->n_rows,
                         settings->seed);
        }
        add_detail(&details[k], evaluated, score, base_values ? &paired : NULL, &bootstrap);
        evaluations[k] =
            (Evaluation){.run_id = run_id,
                         .step = step,
                         .task = task.bytes,
                         .extractor = score->name,
                         .n = (int64_t)evaluated->n_rows * score->samples - score->n_missing,
                         .value = score->mean,
                         .standard_error = score->standard_error,
                         .base_value = base_values ? base.value : NAN,
                         .p_value = paired.p_value,
                         .detail = details[k].bytes,
                         .base_run_id = base_values ? base_run_id : NULL,
                         .model = model};
        n_samples += add_samples(samples + n_samples, read + n_samples, evaluated, score);
        free(base_values);
    }
    if (!status) {
        status = store_evaluations(store, evaluations, (size_t)n_scores, samples, n_samples, now_s,
                                   error);
    }
    for (int k = 0; k < n_scores; k++) {
        text_release(&details[k]);
    }
    for (size_t i = 0; i < n_samples; i++) {
        text_release(&read[i]);
    }
    text_release(&task);
    free(evaluations), free(details), free(samples), free(read);
    return status;
}
