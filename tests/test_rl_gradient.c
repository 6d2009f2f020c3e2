/* The gradients by v of an SFT step, and where the updates of a GRPO step lead to over the whole
 * menu of losses, against central differences of the whole loss in the double-precision
 * reference. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/loss_reference.h"
#include "tests/reference_adapter.h"
#include "tests/tiny_task.h"

enum { MAX_PARAMETERS = 8, MAX_LENGTH = 64 };

static const double rate = 0.3; /* large enough that the second update clips on both sides */

typedef struct {
    TinyTask tiny;
    Reference *reference;
    ReferenceAdapter adapter;
    const StepResult *result; /* GRPO: the completions */
    TrainSettings settings;
    LossData *data; /* GRPO: of the minibatch, whose completions begin at first */
    LossRows held;
    bool differentiates;
    size_t first;
    const int *rows; /* SFT: of the step */
} Judge;

/* log-probabilities of completion ids after the prompt under the weights the reference holds, and
 * entropies, unless NULL. */
static void score(const Judge *judge, double *logprobs, double *entropies, int row,
                  const int32_t *ids, int n, double temperature)
{
    const Prompt *prompt = &judge->tiny.task->prompts[row];
    int32_t tokens[MAX_LENGTH * 2];
    double all[MAX_LENGTH * 2], all_entropies[MAX_LENGTH * 2];
    memcpy(tokens, prompt->ids, (size_t)prompt->n * sizeof *tokens);
    memcpy(tokens + prompt->n, ids, (size_t)n * sizeof *tokens);
    reference_score(judge->reference, tokens, prompt->n + n, temperature, all,
                    entropies ? all_entropies : NULL);
    memcpy(logprobs, all + prompt->n, (size_t)n * sizeof *logprobs);
    if (entropies) {
        memcpy(entropies, all_entropies + prompt->n, (size_t)n * sizeof *entropies);
    }
}

static double sft_loss(Judge *judge, const double *v)
{
    reference_adapt(judge->reference, &judge->adapter, v);
    const Task *task = judge->tiny.task;
    const SftSettings *sft = &judge->settings.sft;
    int V = task->model->config.vocab_size;
    double sum = 0, n = 0, *logits = malloc(sizeof(double) * 2 * MAX_LENGTH * (size_t)V);
    for (int i = 0; i < sft->batch_size; i++) {
        int row = judge->rows[i], n_prompt = task->prompts[row].n, n_answer = task->n_answer[row];
        int32_t tokens[2 * MAX_LENGTH];
        memcpy(tokens, task->prompts[row].ids, (size_t)n_prompt * sizeof *tokens);
        memcpy(tokens + n_prompt, task->answers[row], (size_t)n_answer * sizeof *tokens);
        reference_logits(judge->reference, tokens, n_prompt + n_answer, logits);
        for (int t = sft->whole ? 1 : n_prompt; t < n_prompt + n_answer; t++, n++) {
            const double *row_of = logits + (size_t)(t - 1) * (size_t)V;
            double mass = 0, mean = 0, e = sft->label_smoothing;
            for (int id = 0; id < V; id++) {
                mass += exp(row_of[id]);
                mean += row_of[id] / V;
            }
            sum -= (1 - e) * (row_of[tokens[t]] - log(mass)) + e * (mean - log(mass));
        }
    }
    free(logits);
    return sum / n;
}

/* The loss of an update's minibatch, from its completions and the reference's log-probabilities. */
static double grpo_loss(Judge *judge, const double *v)
{
    const GrpoSettings *g = &judge->settings.grpo;
    LossData *data = judge->data;
    LossFormula formula = {g->loss->name,         g->objective.sequence_ratios,
                           g->objective.clip_low, g->objective.clip_high,
                           g->objective.delta,    g->objective.kl_beta,
                           g->entropy_coef};
    reference_adapt(judge->reference, &judge->adapter, v);
    for (int i = 0; i < data->n; i++) {
        const CompletionRow *row = &judge->result->completions[judge->first + i];
        score(judge, data->logprob[i], data->entropy[i], (int)row->prompt_row, row->ids, row->n_ids,
              g->sampling.temperature);
    }
    if (!judge->differentiates) {
        memcpy(judge->held, data->logprob, sizeof judge->held);
    }
    return reference_loss(data, &formula);
}

static void differentiate(Judge *judge, double (*loss)(Judge *, const double *), double *gradient,
                          const double *v, size_t n)
{
    const double h = 1e-5; /* error h^2 ~ 1e-10 and 1e-16 / h ~ 1e-11 */
    double at[MAX_PARAMETERS];
    memcpy(at, v, n * sizeof *at);
    for (size_t i = 0; i < n; i++) {
        at[i] = v[i] + h;
        double high = loss(judge, at);
        at[i] = v[i] - h;
        gradient[i] = (high - loss(judge, at)) / (2 * h);
        at[i] = v[i];
    }
}

/* |gradient - central differences| / |central differences| < 1e-4, the bound. */
static void compare(const double *gradient, const double *differences, size_t n, const char *what)
{
    double error = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        error += pow(gradient[i] - differences[i], 2);
        size += differences[i] * differences[i];
    }
    print_message("%s: gradient %.3g, relative error %.2g\n", what, sqrt(size), sqrt(error / size));
    if (!(size > 0 && sqrt(error / size) < 1e-4)) {
        fail_msg("%s: relative error %g", what, sqrt(error / size));
    }
}

static void use_sgd(TrainSettings *settings, double lr)
{
    settings->optimizer = optimizer_find("sgd");
    settings->lr = lr;
    settings->grad_clip = 0;
}

static void judge_open(Judge *judge, const Trainer *trainer, const TinyTask *tiny)
{
    *judge = (Judge){.tiny = *tiny,
                     .reference = reference_open(tiny->model),
                     .adapter = reference_adapter(tiny->model, adapter_spec(trainer->bank))};
}

static void check_sft(Architecture architecture, bool tied, double smoothing, bool whole)
{
    TinyTask tiny = tiny_task_open(architecture, tied, 3);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 2);
    Judge *judge = calloc(1, sizeof *judge);
    judge_open(judge, &trainer, &tiny);
    judge->settings = tiny_settings(METHOD_SFT);
    judge->settings.sft.label_smoothing = smoothing;
    judge->settings.sft.whole = whole;
    use_sgd(&judge->settings, 1);
    Learner *learner = tiny_learner(&tiny, &trainer, &judge->settings);
    float before[MAX_PARAMETERS];
    double gradient[MAX_PARAMETERS], at[MAX_PARAMETERS];
    memcpy(before, learner->v, learner->n * sizeof(float));
    int rows[8];
    task_order(rows, judge->settings.sft.batch_size, tiny.task, judge->settings.seed, 0);
    judge->rows = rows;
    StepResult result;
    Error error;
    assert_int_equal(learner_step(&trainer, &learner, 1, &result, &error), STATUS_OK);
    assert_int_equal(result.status, STATUS_OK);
    for (size_t i = 0; i < learner->n; i++) { /* one SGD update of rate 1 */
        gradient[i] = (double)before[i] - (double)learner->v[i];
        at[i] = (double)before[i];
    }
    double loss = sft_loss(judge, at);
    assert_true(fabs(tiny_metric(&result, "loss") - loss) < 1e-5 * loss); /* f32 forward */
    double differences[MAX_PARAMETERS];
    differentiate(judge, sft_loss, differences, at, learner->n);
    compare(gradient, differences, learner->n, "sft");
    step_result_release(&result);
    learner_free(learner);
    reference_adapter_release(&judge->adapter);
    reference_free(judge->reference);
    free(judge);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

/* What does not change over the updates of a step: the minibatch's completions, what the policy
 * and the base say of them at the start. v: where the step starts. */
static void take_minibatch(Judge *judge, const double *v, int minibatch)
{
    const GrpoSettings *g = &judge->settings.grpo;
    LossData *data = judge->data;
    int first = minibatch * g->prompts_per_step / g->minibatches * g->group_size;
    int end = (minibatch + 1) * g->prompts_per_step / g->minibatches * g->group_size;
    *data = (LossData){.n = end - first, .limit = g->sampling.max_new_tokens, .held = &judge->held};
    judge->first = (size_t)first;
    for (size_t c = 0; c < judge->result->n_completions; c++) {
        const CompletionRow *row = &judge->result->completions[c];
        bool masked = g->mask_truncated && strcmp(row->finish, "length") == 0;
        data->step_tokens += masked ? 0 : (double)row->n_ids / g->minibatches;
    }
    for (int i = 0; i < data->n; i++) {
        const CompletionRow *row = &judge->result->completions[first + i];
        data->length[i] = row->n_ids;
        data->advantage[i] = row->advantage;
        data->masked[i] = g->mask_truncated && strcmp(row->finish, "length") == 0;
        for (int t = 0; t < row->n_ids; t++) {
            data->old[i][t] = row->logprobs[t];
        }
        reference_adapt(judge->reference, &judge->adapter, NULL);
        score(judge, data->base[i], NULL, (int)row->prompt_row, row->ids, row->n_ids,
              g->sampling.temperature);
        if (g->rollout_bf16) {
            reference_adapt(judge->reference, &judge->adapter, v);
            score(judge, data->old[i], NULL, (int)row->prompt_row, row->ids, row->n_ids,
                  g->sampling.temperature);
        }
        correction_compute(data->correction[i], data->old[i], row->logprobs, row->n_ids,
                           g->correction, g->correction_min, g->correction_max);
    }
}

typedef struct {
    const char *what, *loss;
    double clip_low, clip_high;
    GrpoSettings more; /* of it: what is not 0 */
} Variant;

static TrainSettings settings_of(const Variant *variant)
{
    TrainSettings settings = tiny_settings(METHOD_GRPO);
    GrpoSettings *g = &settings.grpo;
    const GrpoSettings *more = &variant->more;
    use_sgd(&settings, rate);
    g->loss = loss_find(variant->loss);
    g->objective = more->objective;
    g->objective.clip_low = variant->clip_low;
    g->objective.clip_high = variant->clip_high;
    g->objective.sequence_ratios |= g->loss->sequence_ratios;
    g->sampling.temperature = more->mask_truncated ? 4 : 1.25;
    g->sampling.max_new_tokens = more->mask_truncated ? 28 : 12; /* some end before */
    g->entropy_coef = more->entropy_coef;
    g->baseline = more->baseline;
    g->updates_per_batch = more->updates_per_batch ? more->updates_per_batch : 2;
    g->minibatches = more->minibatches ? more->minibatches : 1;
    g->mask_truncated = more->mask_truncated;
    g->rollout_bf16 = more->rollout_bf16;
    g->correction = more->correction;
    g->correction_min = more->correction_min;
    g->correction_max = more->correction_max ? more->correction_max : 3;
    return settings;
}

/* Every update of the step in the reference, with gradients from differences: where v ends, and
 * the mean of the losses. */
static void check_grpo(Architecture architecture, bool tied, const Variant *variant)
{
    static LossData data;
    TinyTask tiny = tiny_task_open(architecture, tied, 4);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 2);
    Judge *judge = calloc(1, sizeof *judge);
    judge_open(judge, &trainer, &tiny);
    judge->settings = settings_of(variant);
    judge->data = &data;
    const GrpoSettings *g = &judge->settings.grpo;
    Learner *learner = tiny_learner(&tiny, &trainer, &judge->settings);
    double start[MAX_PARAMETERS], v[MAX_PARAMETERS], gradient[MAX_PARAMETERS];
    double moved[MAX_PARAMETERS], expected[MAX_PARAMETERS], loss = 0;
    for (size_t i = 0; i < learner->n; i++) {
        v[i] = start[i] = (double)learner->v[i];
    }
    StepResult result;
    Error error;
    assert_int_equal(learner_step(&trainer, &learner, 1, &result, &error), STATUS_OK);
    assert_int_equal(result.status, STATUS_OK);
    judge->result = &result;
    int n_updates = g->updates_per_batch * g->minibatches;
    for (int update = 0; update < n_updates; update++) {
        take_minibatch(judge, start, update % g->minibatches);
        loss += grpo_loss(judge, v) / n_updates;
        judge->differentiates = true;
        differentiate(judge, grpo_loss, gradient, v, learner->n);
        judge->differentiates = false;
        for (size_t i = 0; i < learner->n; i++) {
            v[i] -= rate * gradient[i];
        }
    }
    for (size_t i = 0; i < learner->n; i++) {
        moved[i] = (start[i] - (double)learner->v[i]) / rate;
        expected[i] = (start[i] - v[i]) / rate;
    }
    double truncated = tiny_metric(&result, "completions/clipped_ratio");
    assert_true(!g->mask_truncated || (truncated > 0 && truncated < 1));
    double low = tiny_metric(&result, "clip_ratio/low_mean");
    double high = tiny_metric(&result, "clip_ratio/high_mean");
    print_message("clipped low %.3f, high %.3f, loss %g; ", low, high, loss);
    assert_true(variant->clip_low > 0.1 || low + high > 0);
    assert_true((tiny_metric(&result, "sampling/sampling_logp_difference/max") == 0) ==
                !g->rollout_bf16);
    if (fabs(tiny_metric(&result, "loss") - loss) > 1e-5 * (1 + fabs(loss))) { /* f32 forward */
        fail_msg("%s: loss %g, expected %g", variant->what, tiny_metric(&result, "loss"), loss);
    }
    compare(moved, expected, learner->n, variant->what);
    step_result_release(&result);
    learner_free(learner);
    reference_adapter_release(&judge->adapter);
    reference_free(judge->reference);
    free(judge);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

static void sft_gradient_matches_central_differences(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        Architecture architecture = i / 2 ? ARCHITECTURE_QWEN2 : ARCHITECTURE_LLAMA;
        check_sft(architecture, i % 2, 0, false);
        check_sft(architecture, i % 2, 0.1 + 0.3 * i, i % 2);
        check_sft(architecture, i % 2, 0, true);
    }
}

static void grpo_gradient_with_kl_and_clipping_matches_central_differences(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        Variant variant = {.loss = i == 1 || i == 2 ? "grpo" : "dr_grpo",
                           .clip_low = 0.02,
                           .clip_high = 0.03,
                           .more.objective.kl_beta = 0.3};
        variant.what = variant.loss;
        check_grpo(i / 2 ? ARCHITECTURE_QWEN2 : ARCHITECTURE_LLAMA, i % 2, &variant);
    }
}

static void the_whole_menu_moves_v_where_the_formulas_say(void **state)
{
    (void)state;
    static const Variant variants[] = {
        {"bnpo, 3 minibatches", "bnpo", 0.02, 0.03, {.minibatches = 3}},
        {"dapo, 3 minibatches", "dapo", 0.02, 0.03, {.minibatches = 3, .updates_per_batch = 1}},
        {"dapo, masked", "dapo", 0.02, 0.03, {.mask_truncated = true, .minibatches = 2}},
        {"grpo, masked, kl", "grpo", 0.5, 0.5, {.mask_truncated = true, .objective.kl_beta = 0.1}},
        {"gspo", "gspo", 0.002, 0.003, {.updates_per_batch = 3}},
        {"gspo, kl, masked",
         "gspo",
         0.5,
         0.5,
         {.objective.kl_beta = 0.1, .mask_truncated = true, .minibatches = 2}},
        {"dr_grpo of sequences", "dr_grpo", 0.002, 0.003, {.objective.sequence_ratios = true}},
        {"cispo", "cispo", 0.5, 0.02, {.minibatches = 2}},
        {"cispo of sequences", "cispo", 0.5, 0.002, {.objective.sequence_ratios = true}},
        {"reinforce, leave one out",
         "reinforce",
         0.5,
         0.5,
         {.baseline = BASELINE_LEAVE_ONE_OUT, .minibatches = 2}},
        {"delta", "grpo", 0.5, 0.02, {.objective.delta = 1.03}},
        {"entropy", "dr_grpo", 0.02, 0.03, {.entropy_coef = 0.2}},
        {"entropy, masked",
         "grpo",
         0.5,
         0.5,
         {.entropy_coef = 0.2, .mask_truncated = true, .minibatches = 2}},
        {"bf16 rollout", "grpo", 0.5, 0.5, {.rollout_bf16 = true}},
        {"token_truncate",
         "dapo",
         0.5,
         0.5,
         {.rollout_bf16 = true, .correction = CORRECTION_TOKEN_TRUNCATE, .correction_max = 1.0001}},
        {"token_mask, gspo",
         "gspo",
         0.5,
         0.5,
         {.rollout_bf16 = true, .correction = CORRECTION_TOKEN_MASK, .correction_max = 1.0001}},
        {"sequence_truncate",
         "grpo",
         0.5,
         0.5,
         {.rollout_bf16 = true,
          .correction = CORRECTION_SEQUENCE_TRUNCATE,
          .correction_min = 1.0001,
          .correction_max = 1.0005}},
        {"sequence_mask, cispo",
         "cispo",
         0.5,
         0.5,
         {.rollout_bf16 = true, .correction = CORRECTION_SEQUENCE_MASK, .correction_max = 1.0001}},
    };
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        check_grpo(i % 2 ? ARCHITECTURE_QWEN2 : ARCHITECTURE_LLAMA, i / 2 % 2, &variants[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sft_gradient_matches_central_differences),
        cmocka_unit_test(grpo_gradient_with_kl_and_clipping_matches_central_differences),
        cmocka_unit_test(the_whole_menu_moves_v_where_the_formulas_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
