/* The gradients by v of an SFT step and of a GRPO update with KL and clipping active, as the
 * optimizer saw them, against central differences of the whole loss in the double-precision
 * reference. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/reference_adapter.h"
#include "tests/tiny_task.h"

enum { MAX_PARAMETERS = 8, MAX_COMPLETIONS = 32, MAX_LENGTH = 64 };

static const double rate = 0.3; /* large enough that the second update clips on both sides */

typedef struct {
    TinyTask tiny;
    Reference *reference;
    ReferenceAdapter adapter;
    const StepResult *result; /* GRPO: the completions */
    TrainSettings settings;
    double base[MAX_COMPLETIONS][MAX_LENGTH];
    const int *rows; /* SFT: of the step */
} Judge;

/* log-probabilities of completion ids after the prompt under the weights the reference holds. */
static void score(const Judge *judge, double *logprobs, int row, const int32_t *ids, int n,
                  double temperature)
{
    const Prompt *prompt = &judge->tiny.task->prompts[row];
    int32_t tokens[MAX_LENGTH * 2];
    double all[MAX_LENGTH * 2];
    memcpy(tokens, prompt->ids, (size_t)prompt->n * sizeof *tokens);
    memcpy(tokens + prompt->n, ids, (size_t)n * sizeof *tokens);
    reference_score(judge->reference, tokens, prompt->n + n, temperature, all, NULL);
    memcpy(logprobs, all + prompt->n, (size_t)n * sizeof *logprobs);
}

static double sft_loss(Judge *judge, const double *v)
{
    reference_adapt(judge->reference, &judge->adapter, v);
    const Task *task = judge->tiny.task;
    double sum = 0, n = 0;
    for (int i = 0; i < judge->settings.sft.batch_size; i++) {
        double logprobs[MAX_LENGTH];
        int row = judge->rows[i];
        score(judge, logprobs, row, task->answers[row], task->n_answer[row], 1);
        for (int t = 0; t < task->n_answer[row]; t++, n++) {
            sum -= logprobs[t];
        }
    }
    return sum / n;
}

/* The loss as TRL writes it: mean over completions of sum over tokens / max_new (dr_grpo) or /
 * length (grpo). */
static double grpo_loss(Judge *judge, const double *v)
{
    reference_adapt(judge->reference, &judge->adapter, v);
    const GrpoSettings *g = &judge->settings.grpo;
    bool by_length = !strcmp(g->loss->name, "grpo");
    double loss = 0;
    for (size_t c = 0; c < judge->result->n_completions; c++) {
        const CompletionRow *row = &judge->result->completions[c];
        double logprobs[MAX_LENGTH], own = 0;
        score(judge, logprobs, (int)row->prompt_row, row->ids, row->n_ids, g->sampling.temperature);
        for (int t = 0; t < row->n_ids; t++) {
            double ratio = exp(logprobs[t] - row->logprobs[t]);
            double clipped =
                fmin(fmax(ratio, 1 - g->objective.clip_low), 1 + g->objective.clip_high);
            double gap = judge->base[c][t] - logprobs[t];
            own -= fmin(ratio * row->advantage, clipped * row->advantage);
            own += g->objective.kl_beta * (exp(gap) - gap - 1);
        }
        loss += own / (by_length ? row->n_ids : g->sampling.max_new_tokens);
    }
    return loss / (double)judge->result->n_completions;
}

/* |gradient - central differences| / |central differences| < 1e-4, the bound. */
static void compare(Judge *judge, double (*loss)(Judge *, const double *), const float *v,
                    const double *gradient, size_t n, const char *what)
{
    double error = 0, size = 0, at[MAX_PARAMETERS];
    const double h = 1e-5; /* error h^2 ~ 1e-10 and 1e-16 / h ~ 1e-11 */
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            at[j] = (double)v[j];
        }
        at[i] = (double)v[i] + h;
        double high = loss(judge, at);
        at[i] = (double)v[i] - h;
        double difference = (high - loss(judge, at)) / (2 * h);
        error += pow(gradient[i] - difference, 2);
        size += difference * difference;
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

static Judge judge_open(const Trainer *trainer, const TinyTask *tiny)
{
    return (Judge){.tiny = *tiny,
                   .reference = reference_open(tiny->model),
                   .adapter = reference_adapter(tiny->model, adapter_spec(trainer->bank))};
}

static void check_sft(Architecture architecture, bool tied)
{
    TinyTask tiny = tiny_task_open(architecture, tied, 3);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 2);
    Judge judge = judge_open(&trainer, &tiny);
    judge.settings = tiny_settings(METHOD_SFT);
    use_sgd(&judge.settings, 1);
    Learner *learner = tiny_learner(&tiny, &trainer, &judge.settings);
    float before[MAX_PARAMETERS];
    double gradient[MAX_PARAMETERS], at[MAX_PARAMETERS];
    memcpy(before, learner->v, learner->n * sizeof(float));
    int rows[8];
    task_order(rows, judge.settings.sft.batch_size, tiny.task, judge.settings.seed, 0);
    judge.rows = rows;
    StepResult result;
    Error error;
    assert_int_equal(learner_step(&trainer, &learner, 1, &result, &error), STATUS_OK);
    assert_int_equal(result.status, STATUS_OK);
    for (size_t i = 0; i < learner->n; i++) { /* one SGD update of rate 1 */
        gradient[i] = (double)before[i] - (double)learner->v[i];
        at[i] = (double)before[i];
    }
    double loss = sft_loss(&judge, at);
    assert_true(fabs(tiny_metric(&result, "loss") - loss) < 1e-5 * loss); /* f32 forward */
    compare(&judge, sft_loss, before, gradient, learner->n, "sft");
    step_result_release(&result);
    learner_free(learner);
    reference_adapter_release(&judge.adapter);
    reference_free(judge.reference);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

/* The second of two updates on one batch: its start is where a run of one update ends (the same
 * bits), its gradient is what it moved v by. */
static void check_grpo(Architecture architecture, bool tied, const char *loss_name)
{
    TinyTask tiny = tiny_task_open(architecture, tied, 4);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 2);
    Judge judge = judge_open(&trainer, &tiny);
    judge.settings = tiny_settings(METHOD_GRPO);
    use_sgd(&judge.settings, rate);
    judge.settings.grpo.loss = loss_find(loss_name);
    judge.settings.grpo.objective =
        (Objective){.clip_low = 0.02, .clip_high = 0.03, .kl_beta = 0.3};
    judge.settings.grpo.sampling.temperature = 1.25;
    TrainSettings twice = judge.settings;
    twice.grpo.updates_per_batch = 2;
    Learner *once = tiny_learner(&tiny, &trainer, &judge.settings);
    Learner *both = tiny_learner(&tiny, &trainer, &twice);
    StepResult first, second;
    Error error;
    assert_int_equal(learner_step(&trainer, &once, 1, &first, &error), STATUS_OK);
    assert_int_equal(learner_step(&trainer, &both, 1, &second, &error), STATUS_OK);
    assert_true(first.status == STATUS_OK && second.status == STATUS_OK);
    assert_true(tiny_metric(&first, "sampling/sampling_logp_difference/max") == 0);
    assert_true(tiny_metric(&first, "clip_ratio/region_mean") == 0);
    print_message("clipped low %.3f, high %.3f, kl %.3f\n",
                  tiny_metric(&second, "clip_ratio/low_mean"),
                  tiny_metric(&second, "clip_ratio/high_mean"), tiny_metric(&second, "kl"));
    assert_true(tiny_metric(&second, "clip_ratio/low_mean") > 0);
    assert_true(tiny_metric(&second, "clip_ratio/high_mean") > 0);
    assert_true(tiny_metric(&second, "kl") > 0);
    judge.result = &second;
    reference_adapt(judge.reference, &judge.adapter, NULL);
    for (size_t c = 0; c < second.n_completions; c++) {
        const CompletionRow *row = &second.completions[c];
        score(&judge, judge.base[c], (int)row->prompt_row, row->ids, row->n_ids,
              judge.settings.grpo.sampling.temperature);
    }
    double gradient[MAX_PARAMETERS];
    for (size_t i = 0; i < once->n; i++) {
        gradient[i] = ((double)once->v[i] - (double)both->v[i]) / rate;
    }
    compare(&judge, grpo_loss, once->v, gradient, once->n, loss_name);
    step_result_release(&first);
    step_result_release(&second);
    learner_free(once);
    learner_free(both);
    reference_adapter_release(&judge.adapter);
    reference_free(judge.reference);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

static void sft_gradient_matches_central_differences(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        check_sft(i / 2 ? ARCHITECTURE_QWEN2 : ARCHITECTURE_LLAMA, i % 2);
    }
}

static void grpo_gradient_with_kl_and_clipping_matches_central_differences(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        check_grpo(i / 2 ? ARCHITECTURE_QWEN2 : ARCHITECTURE_LLAMA, i % 2,
                   i == 1 || i == 2 ? "grpo" : "dr_grpo");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sft_gradient_matches_central_differences),
        cmocka_unit_test(grpo_gradient_with_kl_and_clipping_matches_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
