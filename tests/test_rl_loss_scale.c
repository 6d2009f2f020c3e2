/* Training in 16 bits: the rule of the loss scale, steps whose update is skipped, resume through
 * them, an overflow that never ends; and that checkpointing changes no bit of a run. */
#define _GNU_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/random.h"
#include "rl/checkpoint.h"
#include "tests/tiny_task.h"

/* The rule as PyTorch 2 says it (torch.amp.GradScaler.update), with its own names. */
static void the_rule_is_that_of_gradscaler(void **state)
{
    (void)state;
    for (uint32_t window = 1; window <= 4; window++) {
        LossScale ours = {LOSS_SCALE_FIRST, 0};
        double scale = 65536;
        int growth_tracker = 0;
        for (uint32_t i = 0; i < 400; i++) {
            bool found_inf = random_uniform((RandomKey){window, 1}, i, 0, 0, 0) < 0.3;
            if (found_inf && scale < 2) {
                assert_false(loss_scale_fall(&ours));
                ours.good = growth_tracker = 0;
            } else if (found_inf) {
                assert_true(loss_scale_fall(&ours));
                scale *= 0.5;
                growth_tracker = 0;
            } else {
                loss_scale_grow(&ours, window);
                if (++growth_tracker == (int)window) {
                    scale *= 2;
                    growth_tracker = 0;
                }
            }
            assert_true(ours.scale == scale && ours.good == growth_tracker);
        }
    }
    assert_int_equal(LOSS_SCALE_WINDOW, 2000);
}

static void record(Text *out, const Learner *learner, const StepResult *result)
{
    for (size_t i = 0; i < result->n_metrics; i++) {
        text_printf(out, "%s %a\n", result->metrics[i].key, result->metrics[i].value);
    }
    for (size_t i = 0; i < result->n_events; i++) {
        text_printf(out, "%s: %s\n", result->events[i].kind, result->events[i].message);
    }
    text_append(out, result->checkpoint, result->checkpoint_bytes);
    text_printf(out, "\n%a\n", learner->n ? (double)learner->v[0] : 0);
}

static void same_bits(const Text *a, const Text *b, const char *what)
{
    if (a->n != b->n || memcmp(a->bytes, b->bytes, a->n)) {
        fail_msg("%s: not the same bits", what);
    }
}

/* A scale 2^k at which the first gradients of the tiny models are beyond f16. */
static TrainSettings scaled_settings(Method method)
{
    TrainSettings settings = tiny_settings(method);
    settings.precision = TENSOR_F16;
    settings.loss_scale = 0x1p24;
    settings.loss_scale_window = 2;
    settings.lr = 0.01;
    settings.grpo.updates_per_batch = 2;
    settings.grpo.minibatches = 2;
    settings.grpo.objective.kl_beta = 0.1; /* every group has a gradient */
    return settings;
}

/* Steps of one learner, in a new process, so to speak, for each step or in one. */
static void run_steps(Text *out, Method method, const char *adapter, const TrainSettings *settings,
                      int n_steps, bool resumed)
{
    void *checkpoint = NULL;
    size_t n_bytes = 0;
    for (int done = 0; done < n_steps; done += resumed ? 1 : n_steps) {
        TinyTask tiny = tiny_task_open(ARCHITECTURE_QWEN2, method == METHOD_SFT, 7);
        Trainer trainer = tiny_trainer(&tiny, adapter, 1, 1 + done % 3);
        Learner *learner = tiny_learner(&tiny, &trainer, settings);
        Error error;
        if (checkpoint) {
            assert_int_equal(checkpoint_read(learner, checkpoint, n_bytes, &error), STATUS_OK);
            free(checkpoint);
        }
        for (int step = 0; step < (resumed ? 1 : n_steps); step++) {
            StepResult result;
            assert_int_equal(learner_step(&trainer, &learner, 1, &result, &error), STATUS_OK);
            if (result.status) {
                fail_msg("%s", result.error.message);
            }
            record(out, learner, &result);
            step_result_release(&result);
        }
        checkpoint_write(&checkpoint, &n_bytes, learner);
        learner_free(learner);
        tiny_trainer_close(&trainer);
        tiny_task_close(&tiny);
    }
    free(checkpoint);
}

static void check_resume(Method method, const char *adapter)
{
    enum { STEPS = 12 };
    Text whole = {0}, parts = {0};
    TrainSettings settings = scaled_settings(method);
    run_steps(&whole, method, adapter, &settings, STEPS, false);
    run_steps(&parts, method, adapter, &settings, STEPS, true);
    same_bits(&whole, &parts, adapter);
    const char skipped[] = "overflow: a gradient beyond f16: the update is skipped, the loss scale "
                           "falls from 16777216 to 8388608\n";
    assert_non_null(memmem(whole.bytes, whole.n, skipped, sizeof skipped - 1));
    text_release(&whole);
    text_release(&parts);
}

static void a_run_in_f16_resumed_at_every_step_is_the_undisturbed_run(void **state)
{
    (void)state;
    check_resume(METHOD_SFT, "tinylora");
    check_resume(METHOD_GRPO, "tinylora");
    check_resume(METHOD_SFT, "lora");
    check_resume(METHOD_SFT, "full");
}

/* Every step of a run: a skipped one changes the scale alone, and the loss is that of f32. */
static void a_skipped_update_leaves_the_parameters_and_the_counters(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, true, 6);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 1), other;
    TrainSettings settings = scaled_settings(METHOD_SFT), plain = settings;
    plain.precision = TENSOR_F32;
    other = tiny_trainer(&tiny, "tinylora", 1, 1);
    Learner *learner = tiny_learner(&tiny, &trainer, &settings);
    Learner *exact = tiny_learner(&tiny, &other, &plain);
    int n_skipped = 0, n_grown = 0;
    for (int step = 1; step <= 20; step++) {
        float before[6];
        double scale = learner->loss_scale.scale;
        int64_t updates = learner->updates;
        StepResult result, expected;
        Error error;
        memcpy(before, learner->v, sizeof before);
        memcpy(exact->v, learner->v, sizeof before);
        assert_int_equal(learner_step(&trainer, &learner, 1, &result, &error), STATUS_OK);
        assert_int_equal(learner_step(&other, &exact, 1, &expected, &error), STATUS_OK);
        assert_int_equal(result.status, STATUS_OK);
        assert_true(tiny_metric(&result, "loss") == tiny_metric(&expected, "loss"));
        assert_true(tiny_metric(&result, "loss_scale") == learner->loss_scale.scale);
        bool skipped = tiny_metric(&result, "skipped_updates") == 1;
        assert_int_equal(result.n_events, skipped);
        assert_int_equal(learner->step, step);
        assert_int_equal(learner->updates, updates + !skipped);
        assert_int_equal(memcmp(before, learner->v, sizeof before) == 0, skipped);
        if (skipped) {
            assert_string_equal(result.events[0].kind, "overflow");
            assert_true(learner->loss_scale.scale == scale / 2 && learner->loss_scale.good == 0);
        } else {
            double norm = tiny_metric(&result, "grad_norm");
            assert_true(fabs(norm - tiny_metric(&expected, "grad_norm")) < 0.01 * norm);
        }
        n_skipped += skipped;
        n_grown += learner->loss_scale.scale > scale;
        step_result_release(&result);
        step_result_release(&expected);
    }
    print_message("of 20 updates %d skipped, %d times doubled\n", n_skipped, n_grown);
    assert_true(n_skipped >= 2 && n_grown >= 2);
    learner_free(learner);
    learner_free(exact);
    tiny_trainer_close(&trainer);
    tiny_trainer_close(&other);
    tiny_task_close(&tiny);
}

/* Activations beyond f16: no scale helps. The neighbour in the batch learns on. */
static void an_overflow_that_never_ends_fails_with_its_reason(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, true, 6);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 2, 1);
    TrainSettings settings = scaled_settings(METHOD_SFT);
    settings.loss_scale = LOSS_SCALE_FIRST;
    settings.loss_scale_window = LOSS_SCALE_WINDOW;
    Learner *pair[2] = {tiny_learner(&tiny, &trainer, &settings),
                        tiny_learner(&tiny, &trainer, &settings)};
    for (size_t i = 0; i < pair[0]->n; i++) {
        pair[0]->v[i] = 1e6f;
    }
    bool failed = false;
    for (int step = 1; step <= 17; step++) {
        StepResult results[2];
        Error error;
        assert_int_equal(learner_step(&trainer, pair, 2, results, &error), STATUS_OK);
        assert_int_equal(results[1].status, STATUS_OK);
        failed = results[0].status == STATUS_FAILED;
        assert_int_equal(failed, step == 17); /* 2^16 to 1 */
        if (failed) {
            assert_non_null(
                strstr(results[0].error.message, "step 17: the gradient is not finite"));
            assert_non_null(strstr(results[0].error.message, "bf16 has the range of f32"));
        }
        step_result_release(&results[0]);
        step_result_release(&results[1]);
    }
    assert_true(pair[0]->step == 16 && pair[0]->loss_scale.scale == 1 && pair[1]->updates == 17);
    learner_free(pair[0]);
    learner_free(pair[1]);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

static void no_checkpointing_changes_a_bit_of_a_run(void **state)
{
    (void)state;
    static const char *const adapters[] = {"tinylora", "lora", "full"};
    for (int i = 0; i < 3; i++) {
        for (int method = METHOD_SFT; method <= METHOD_GRPO; method++) {
            for (TensorType precision = TENSOR_F32; precision <= TENSOR_BF16; precision++) {
                Text kept = {0}, again = {0};
                TrainSettings settings = scaled_settings((Method)method);
                settings.precision = precision;
                run_steps(&kept, (Method)method, adapters[i], &settings, 3, false);
                for (int c = CHECKPOINTING_SELECTIVE; c <= CHECKPOINTING_FULL; c++) {
                    settings.checkpointing = (Checkpointing)c;
                    text_clear(&again);
                    run_steps(&again, (Method)method, adapters[i], &settings, 3, false);
                    same_bits(&kept, &again, adapters[i]);
                }
                text_release(&kept);
                text_release(&again);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rule_is_that_of_gradscaler),
        cmocka_unit_test(a_skipped_update_leaves_the_parameters_and_the_counters),
        cmocka_unit_test(a_run_in_f16_resumed_at_every_step_is_the_undisturbed_run),
        cmocka_unit_test(an_overflow_that_never_ends_fails_with_its_reason),
        cmocka_unit_test(no_checkpointing_changes_a_bit_of_a_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
