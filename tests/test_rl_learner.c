/* The law in training: fused or alone, resumed or not, 1 to 3 threads, the bits are the same. And
 * failure: a diverging learner, a stop at any moment, settings out of range. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rl/checkpoint.h"
#include "tests/tiny_task.h"

enum { N_LEARNERS = 3 };

/* Everything that a step reports and leaves, as bytes. */
static void record_step(Text *out, const Learner *learner, const StepResult *result)
{
    assert_int_equal(result->status, STATUS_OK);
    for (size_t i = 0; i < result->n_metrics; i++) {
        text_printf(out, "%s %a\n", result->metrics[i].key, result->metrics[i].value);
    }
    for (size_t i = 0; i < result->n_completions; i++) {
        const CompletionRow *row = &result->completions[i];
        text_printf(out, "row %d prompt %d sample %d %a %a %s %s ", (int)row->prompt_row,
                    row->prompt, row->sample, row->reward, row->advantage, row->finish,
                    row->extracted);
        text_append(out, row->text, row->n_text);
        for (int t = 0; t < row->n_ids; t++) {
            text_printf(out, " %d %a", row->ids[t], row->logprobs[t]);
        }
        text_add(out, "\n");
    }
    for (size_t i = 0; i < result->n_events; i++) {
        text_printf(out, "%s: %s\n", result->events[i].kind, result->events[i].message);
    }
    text_append(out, result->checkpoint, result->checkpoint_bytes);
    for (size_t i = 0; i < learner->n; i++) {
        text_printf(out, "%a ", (double)learner->v[i]);
    }
}

static void run_steps(const Trainer *trainer, Learner **learners, int n, int n_steps, Text *out)
{
    for (int step = 0; step < n_steps; step++) {
        StepResult results[N_LEARNERS];
        Error error;
        assert_int_equal(learner_step(trainer, learners, n, results, &error), STATUS_OK);
        for (int i = 0; i < n; i++) {
            record_step(&out[i], learners[i], &results[i]);
            step_result_release(&results[i]);
        }
    }
}

/* The rest of GRPO's menu, so that every option is beside others. */
static void choose_menu(GrpoSettings *grpo, int i)
{
    static const char *const names[] = {"gspo", "cispo", "reinforce"};
    grpo->loss = loss_find(names[i % 3]);
    grpo->prompts_per_step = 3;
    grpo->minibatches = 1 + i % 3;
    grpo->baseline = (AdvantageBaseline)(i % 2);
    grpo->entropy_coef = i % 3 == 1 ? 0.05 : 0;
    grpo->mask_truncated = i % 3 == 0;
    grpo->overlong_buffer = i % 3 == 2 ? 5 : 0;
    grpo->resample_rounds = i % 3;
    grpo->rollout_bf16 = i % 2 == 0;
    grpo->correction = (Correction)(i % 2 == 0 ? 1 + i % 4 : 0);
    grpo->correction_max = 1.0002;
    grpo->objective.delta = i == 3 ? 1.5 : 0;
}

/* Learners as different as a sweep may make them: 0 to 2, and 3 to 8 of the menu. */
static TrainSettings settings_of(Method method, int number)
{
    int i = number % N_LEARNERS;
    TrainSettings settings = tiny_settings(method);
    settings.lr = i == 1 ? 0.3 : 0.01;
    settings.seed = (uint64_t)(i == 2 ? 9 : 5);
    settings.schedule = (Schedule){i == 0 ? SCHEDULE_COSINE : SCHEDULE_CONSTANT, i};
    settings.optimizer = optimizer_find(i == 2 ? "sgd" : "adamw");
    settings.sft.batch_size = 2 + i;
    settings.sft.label_smoothing = i == 1 ? 0.1 : 0;
    settings.sft.whole = i == 2;
    settings.micro_batch = i == 2 ? 2 : 0;
    settings.grpo.group_size = 4 - i;
    settings.grpo.updates_per_batch = 1 + i % 2;
    settings.grpo.objective.kl_beta = i == 2 ? 0.1 : 0;
    settings.grpo.loss = losses[i];
    settings.grpo.scale_rewards = (AdvantageScale)i;
    settings.grpo.sampling.temperature = 1 + 0.25 * i;
    settings.grpo.sampling.top_k = i == 1 ? 9 : 0;
    if (number >= N_LEARNERS) {
        choose_menu(&settings.grpo, number);
    }
    return settings;
}

static void same_bits(const Text *a, const Text *b, const char *what)
{
    if (a->n != b->n || memcmp(a->bytes, b->bytes, a->n)) {
        size_t at = 0;
        while (at < a->n && at < b->n && a->bytes[at] == b->bytes[at]) {
            at++;
        }
        at = at > 60 ? at - 60 : 0;
        fail_msg("%s: differs:\n%.160s\n----\n%.160s", what, a->bytes + at, b->bytes + at);
    }
}

/* first: number of the first of the learners that are fused */
static void check_fused(Method method, const char *adapter, int first, int n_threads)
{
    TinyTask tiny = tiny_task_open(ARCHITECTURE_QWEN2, true, 6);
    Trainer trainer = tiny_trainer(&tiny, adapter, N_LEARNERS, n_threads);
    Learner *learners[N_LEARNERS];
    Text fused[N_LEARNERS] = {{0}};
    for (int i = 0; i < N_LEARNERS; i++) {
        TrainSettings settings = settings_of(method, first + i);
        learners[i] = tiny_learner(&tiny, &trainer, &settings);
    }
    run_steps(&trainer, learners, N_LEARNERS, 3, fused);
    tiny_trainer_close(&trainer);
    for (int i = 0; i < N_LEARNERS; i++) {
        Text alone = {0};
        TrainSettings settings = settings_of(method, first + i);
        Trainer one = tiny_trainer(&tiny, adapter, 1, 1);
        Learner *learner = tiny_learner(&tiny, &one, &settings);
        run_steps(&one, &learner, 1, 3, &alone);
        same_bits(&alone, &fused[i], "fused and alone");
        assert_true(method == METHOD_SFT || strstr(alone.bytes, "reward_std"));
        text_release(&alone);
        text_release(&fused[i]);
        learner_free(learner);
        learner_free(learners[i]);
        tiny_trainer_close(&one);
    }
    tiny_task_close(&tiny);
}

static void learners_fused_have_the_bits_they_have_alone_for_any_threads(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        check_fused(METHOD_SFT, "tinylora", 0, threads);
        check_fused(METHOD_GRPO, "tinylora", 0, threads);
        check_fused(METHOD_SFT, "lora", 0, threads);
        check_fused(METHOD_GRPO, "lora", 0, threads);
        check_fused(METHOD_GRPO, "lora-xs", 0, threads);
        check_fused(METHOD_GRPO, "tinylora", 3, threads);
        check_fused(METHOD_GRPO, "tinylora", 6, threads);
        check_fused(METHOD_GRPO, "lora", 3 * (1 + threads % 2), threads);
    }
}

static void check_resume(Method method, const char *adapter, int number)
{
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, false, 7);
    TrainSettings settings = settings_of(method, number);
    Text whole = {0}, parts = {0};
    Trainer trainer = tiny_trainer(&tiny, adapter, 1, 2);
    Learner *learner = tiny_learner(&tiny, &trainer, &settings);
    run_steps(&trainer, &learner, 1, 4, &whole);
    learner_free(learner);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
    for (int step = 0; step < 4; step++) { /* a new process, so to speak, for each step */
        static void *checkpoint;
        static size_t n_bytes;
        TinyTask again = tiny_task_open(ARCHITECTURE_LLAMA, false, 7);
        Trainer machine = tiny_trainer(&again, adapter, 1, 1 + step % 3);
        Learner *resumed = tiny_learner(&again, &machine, &settings);
        Error error;
        if (step) {
            assert_int_equal(checkpoint_read(resumed, checkpoint, n_bytes, &error), STATUS_OK);
            free(checkpoint);
        }
        run_steps(&machine, &resumed, 1, 1, &parts);
        checkpoint_write(&checkpoint, &n_bytes, resumed);
        if (step == 3) {
            free(checkpoint);
        }
        learner_free(resumed);
        tiny_trainer_close(&machine);
        tiny_task_close(&again);
    }
    same_bits(&whole, &parts, adapter);
    text_release(&whole);
    text_release(&parts);
}

static void a_run_resumed_at_every_step_is_the_undisturbed_run(void **state)
{
    (void)state;
    check_resume(METHOD_SFT, "tinylora", 0);
    check_resume(METHOD_GRPO, "tinylora", 1);
    check_resume(METHOD_GRPO, "tinylora", 2);
    check_resume(METHOD_SFT, "lora", 0);
    check_resume(METHOD_GRPO, "lora", 1);
    check_resume(METHOD_GRPO, "lora-xs", 2);
    check_resume(METHOD_SFT, "full", 0);
    check_resume(METHOD_GRPO, "full", 2);
    check_resume(METHOD_GRPO, "none", 2);
    for (int i = 3; i < 9; i++) {
        check_resume(METHOD_GRPO, i == 5 || i == 6 ? "full" : i == 7 ? "lora" : "tinylora", i);
    }
}

static int count_pieces(void *context, const char *phase, int done, int total, long tokens)
{
    (void)done, (void)total, (void)tokens;
    *(int *)context += strcmp(phase, "update") == 0;
    return 0;
}

/* Fewer rows at a time are the same sums: bit for bit where gradients are summed by sequences. */
static void check_micro_batches(Method method, const char *adapter, int number)
{
    Text whole = {0};
    float expected = 0;
    int pieces[3] = {0};
    for (int micro_batch = 0; micro_batch < 3; micro_batch++) {
        TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, false, 7);
        Trainer trainer = tiny_trainer(&tiny, adapter, 1, 2);
        TrainSettings settings = settings_of(method, number);
        settings.micro_batch = micro_batch;
        settings.grpo.minibatches = 1;
        trainer.progress = count_pieces;
        trainer.progress_context = &pieces[micro_batch];
        Learner *learner = tiny_learner(&tiny, &trainer, &settings);
        Text own = {0};
        run_steps(&trainer, &learner, 1, 2, &own);
        if (micro_batch == 0) {
            text_append(&whole, own.bytes, own.n);
            expected = learner->v[5];
        } else if (strcmp(adapter, "full") != 0) {
            same_bits(&whole, &own, "micro-batches");
        }
        assert_true(fabsf(learner->v[5] - expected) <= 1e-5f * fabsf(expected));
        text_release(&own);
        learner_free(learner);
        tiny_trainer_close(&trainer);
        tiny_task_close(&tiny);
    }
    assert_true(pieces[1] > pieces[0] && pieces[2] >= pieces[0] && pieces[1] >= pieces[2]);
    text_release(&whole);
}

static void gradients_accumulated_over_micro_batches_are_those_of_the_batch(void **state)
{
    (void)state;
    check_micro_batches(METHOD_SFT, "tinylora", 2);
    check_micro_batches(METHOD_SFT, "lora", 2);
    check_micro_batches(METHOD_GRPO, "tinylora", 2);
    check_micro_batches(METHOD_GRPO, "lora", 5);
    check_micro_batches(METHOD_GRPO, "lora-xs", 2);
    check_micro_batches(METHOD_SFT, "full", 2);
    check_micro_batches(METHOD_GRPO, "full", 2);
}

/* Rows are not packed: none sees another. A step of 4 is the mean of 4 steps of one row. */
static void rows_of_a_batch_do_not_see_each_other(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_QWEN2, false, 7);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 1);
    TrainSettings settings = tiny_settings(METHOD_SFT);
    double sum = 0, n = 0;
    settings.lr = 0;
    settings.sft.label_smoothing = 0.1;
    settings.sft.batch_size = 4;
    Learner *together = tiny_learner(&tiny, &trainer, &settings);
    settings.sft.batch_size = 1;
    Learner *alone = tiny_learner(&tiny, &trainer, &settings);
    int rows[4];
    task_order(rows, 4, tiny.task, settings.seed, 0);
    StepResult result;
    Error error;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(learner_step(&trainer, &alone, 1, &result, &error), STATUS_OK);
        int own = tiny.task->n_answer[rows[i]];
        sum += own * tiny_metric(&result, "loss");
        n += own;
        step_result_release(&result);
    }
    assert_int_equal(learner_step(&trainer, &together, 1, &result, &error), STATUS_OK);
    assert_true(fabs(tiny_metric(&result, "loss") - sum / n) < 1e-14 * sum / n * 4);
    step_result_release(&result);
    learner_free(together);
    learner_free(alone);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

static void a_diverging_learner_fails_alone_and_keeps_its_last_good_state(void **state)
{
    (void)state;
    for (int method = METHOD_SFT; method <= METHOD_GRPO; method++) {
        TinyTask tiny = tiny_task_open(ARCHITECTURE_QWEN2, true, 6);
        Trainer two = tiny_trainer(&tiny, "tinylora", 2, 1),
                one = tiny_trainer(&tiny, "tinylora", 1, 1);
        TrainSettings good = settings_of((Method)method, 0), bad = good;
        bad.lr = 1e30;
        Learner *pair[2] = {tiny_learner(&tiny, &two, &bad), tiny_learner(&tiny, &two, &good)};
        Learner *alone = tiny_learner(&tiny, &one, &good);
        Text a = {0}, b = {0};
        bool failed = false;
        for (int step = 0; step < 3 && !failed; step++) {
            StepResult results[2];
            Error error;
            void *before, *after;
            size_t n_before, n_after;
            checkpoint_write(&before, &n_before, pair[0]);
            assert_int_equal(learner_step(&two, pair, 2, results, &error), STATUS_OK);
            checkpoint_write(&after, &n_after, pair[0]);
            failed = results[0].status == STATUS_FAILED;
            if (failed) {
                assert_memory_equal(before, after, n_before);
                assert_null(results[0].checkpoint);
                char expected[20];
                snprintf(expected, sizeof expected, "step %d: ", step + 1);
                assert_non_null(strstr(results[0].error.message, expected));
                assert_non_null(strstr(results[0].error.message, "finite"));
            }
            record_step(&a, pair[1], &results[1]);
            run_steps(&one, &alone, 1, 1, &b);
            for (int i = 0; i < 2; i++) {
                step_result_release(&results[i]);
            }
            free(before);
            free(after);
        }
        assert_true(failed);
        same_bits(&a, &b, "beside a diverging learner");
        text_release(&a);
        text_release(&b);
        learner_free(pair[0]);
        learner_free(pair[1]);
        learner_free(alone);
        tiny_trainer_close(&one);
        tiny_trainer_close(&two);
        tiny_task_close(&tiny);
    }
}

typedef struct {
    int calls, stop_at;
} Stopper;

static int stop_after(void *context, const char *phase, int done, int total, long tokens)
{
    assert_non_null(phase);
    assert_true(done >= 0 && done <= total && tokens >= 0);
    Stopper *stopper = context;
    return ++stopper->calls == stopper->stop_at;
}

static void a_step_stopped_at_any_moment_changes_nothing(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, true, 8);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 1);
    TrainSettings settings = settings_of(METHOD_GRPO, 8);
    settings.grpo.updates_per_batch = 3;
    Learner *learner = tiny_learner(&tiny, &trainer, &settings), *other;
    other = tiny_learner(&tiny, &trainer, &settings);
    Text stopped = {0}, free_run = {0};
    run_steps(&trainer, &other, 1, 1, &free_run);
    Stopper stopper = {0, 0};
    trainer.progress = stop_after;
    trainer.progress_context = &stopper;
    int n_stops = 0;
    for (Status status = STATUS_STOPPED; status == STATUS_STOPPED;) {
        StepResult result;
        Error error;
        stopper.calls = 0;
        stopper.stop_at++;
        status = learner_step(&trainer, &learner, 1, &result, &error);
        if (status == STATUS_STOPPED) {
            assert_true(learner->step == 0 && learner->updates == 0 && !result.metrics);
            n_stops++;
        } else {
            assert_int_equal(status, STATUS_OK);
            record_step(&stopped, learner, &result);
            step_result_release(&result);
        }
    }
    assert_true(n_stops > 5);
    same_bits(&stopped, &free_run, "after many stops");
    text_release(&stopped);
    text_release(&free_run);
    learner_free(learner);
    learner_free(other);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

static void training_learns(void **state)
{
    (void)state;
    static const char *const methods[] = {"tinylora", "full"};
    for (int i = 0; i < 2; i++) {
        TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, true, 9);
        Trainer trainer = tiny_trainer(&tiny, methods[i], 1, 2);
        TrainSettings settings = tiny_settings(METHOD_SFT);
        settings.sft.batch_size = 5;
        settings.lr = i ? 0.01 : 0.05;
        Learner *learner = tiny_learner(&tiny, &trainer, &settings);
        double first = 0, last = 0;
        for (int step = 0; step < 30; step++) {
            StepResult result;
            Error error;
            assert_int_equal(learner_step(&trainer, &learner, 1, &result, &error), STATUS_OK);
            last = tiny_metric(&result, "loss");
            first = step ? first : last;
            step_result_release(&result);
        }
        print_message("%s: loss %.3f to %.3f\n", methods[i], first, last);
        assert_true(last < (i ? 0.5 : 0.95) * first); /* all weights learn more than 6 scalars */
        learner_free(learner);
        tiny_trainer_close(&trainer);
        tiny_task_close(&tiny);
    }
}

static void refuses(const TinyTask *tiny, const Trainer *trainer, TrainSettings settings,
                    const char *expected)
{
    Learner *learner;
    Error error = {""};
    assert_int_equal(
        learner_new(&learner, &settings, tiny->task, tiny->reward, trainer->bank, &error),
        STATUS_USAGE);
    if (!strstr(error.message, expected)) {
        fail_msg("\"%s\" does not say \"%s\"", error.message, expected);
    }
}

static void settings_out_of_range_are_refused_by_name(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, true, 9);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 1);
    TrainSettings good = tiny_settings(METHOD_GRPO), s = good;
    s.grpo.group_size = 0;
    refuses(&tiny, &trainer, s, "grpo.group_size: 0 is not in 1 to");
    s = good, s.lr = NAN;
    refuses(&tiny, &trainer, s, "optimizer.lr: nan");
    s = good, s.grpo.sampling.temperature = 0;
    refuses(&tiny, &trainer, s, "grpo.temperature");
    s = good, s.grpo.sampling.min_p = 1.5;
    refuses(&tiny, &trainer, s, "grpo.min_p: 1.5 is not in 0 to 1");
    s = good, s.grpo.sampling.penalty = -1;
    refuses(&tiny, &trainer, s, "grpo.repetition_penalty: -1 is not in 0 to 1000");
    s = good, s.grpo.objective.clip_low = 1.5;
    refuses(&tiny, &trainer, s, "grpo.clip_low");
    s = good, s.grpo.minibatches = 4;
    refuses(&tiny, &trainer, s, "grpo.minibatches: 4 is not in 1 to 3");
    s = good, s.grpo.objective.delta = 1.2;
    refuses(&tiny, &trainer, s, "grpo.delta: 1.2 is not above 1 + grpo.clip_high");
    s = good, s.grpo.overlong_buffer = 13;
    refuses(&tiny, &trainer, s, "grpo.overlong_buffer: 13 is not in 0 to 12");
    s = good, s.grpo.correction_min = 4;
    refuses(&tiny, &trainer, s, "grpo.importance_sampling_clip_min: 4 is not in 0 to 3");
    s = good, s.grpo.prompts_per_step = 1000, s.grpo.group_size = 1000;
    s.grpo.sampling.max_new_tokens = 10000;
    refuses(&tiny, &trainer, s, "GiB a step");
    s = tiny_settings(METHOD_SFT), s.sft.batch_size = 0;
    refuses(&tiny, &trainer, s, "sft.batch_size");
    Learner *learner;
    Error error;
    tiny.model->config.max_positions = 6;
    assert_int_equal(learner_new(&learner, &good, tiny.task, tiny.reward, trainer.bank, &error),
                     STATUS_REFUSED);
    assert_non_null(strstr(error.message, "line 2: 6 tokens of prompt do not fit"));
    s = tiny_settings(METHOD_SFT);
    assert_int_equal(learner_new(&learner, &s, tiny.task, NULL, trainer.bank, &error),
                     STATUS_REFUSED);
    assert_non_null(strstr(error.message, "line 1: 7 tokens of prompt and answer do not fit"));
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learners_fused_have_the_bits_they_have_alone_for_any_threads),
        cmocka_unit_test(a_run_resumed_at_every_step_is_the_undisturbed_run),
        cmocka_unit_test(gradients_accumulated_over_micro_batches_are_those_of_the_batch),
        cmocka_unit_test(rows_of_a_batch_do_not_see_each_other),
        cmocka_unit_test(a_diverging_learner_fails_alone_and_keeps_its_last_good_state),
        cmocka_unit_test(a_step_stopped_at_any_moment_changes_nothing),
        cmocka_unit_test(training_learns),
        cmocka_unit_test(settings_out_of_range_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
