/* A GRPO step's metrics, advantages and rewards, worked out again from the completions it reports;
 * groups without a gradient; what the random numbers depend on. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/json.h"
#include "tests/reward_one.h"
#include "tests/tiny_task.h"

static void close_to(const StepResult *result, const char *key, double expected)
{
    double value = tiny_metric(result, key);
    if (!(fabs(value - expected) <= 1e-12 * (1 + fabs(expected)))) { /* sums in another order */
        fail_msg("%s is %.17g, expected %.17g", key, value, expected);
    }
}

static StepResult step(const Trainer *trainer, Learner *learner)
{
    StepResult result;
    Error error;
    tiny_require(learner_step(trainer, &learner, 1, &result, &error), &error);
    tiny_require(result.status, &result.error);
    return result;
}

static void check_lengths(const StepResult *result)
{
    double n = (double)result->n_completions, sum = 0, shortest = 1e9, longest = 0, ended = 0;
    double ended_sum = 0;
    for (size_t c = 0; c < result->n_completions; c++) {
        const CompletionRow *row = &result->completions[c];
        bool stopped = row->ids[row->n_ids - 1] == 2;
        assert_string_equal(row->finish, stopped ? "stop" : "length");
        assert_true(stopped ? row->n_ids <= 12 : row->n_ids == 12);
        sum += row->n_ids;
        shortest = fmin(shortest, row->n_ids);
        longest = fmax(longest, row->n_ids);
        ended += stopped;
        ended_sum += stopped ? row->n_ids : 0;
    }
    close_to(result, "completions/mean_length", sum / n);
    close_to(result, "completions/min_length", shortest);
    close_to(result, "completions/max_length", longest);
    close_to(result, "completions/clipped_ratio", 1 - ended / n);
    close_to(result, "completions/mean_terminated_length", ended ? ended_sum / ended : 0);
}

static void check_rewards(const StepResult *result, const TinyTask *tiny, int group_size)
{
    size_t n_groups = result->n_completions / (size_t)group_size;
    double sum = 0, std_sum = 0, equal = 0, loss = 0, first = 0;
    for (size_t g = 0; g < n_groups; g++) {
        const CompletionRow *group = &result->completions[g * (size_t)group_size];
        double mean = 0, squares = 0;
        for (int i = 0; i < group_size; i++) {
            const DataRow *data = &tiny->task->dataset.rows[group[i].prompt_row];
            double values[2];
            double reward = reward_one(tiny->reward, values, group[i].text, group[i].n_text,
                                       data->answer, data->n_answer);
            assert_true(group[i].reward == reward && group[i].prompt == (int)g);
            assert_int_equal(group[i].sample, i);
            mean += reward / group_size;
            sum += reward;
            first += values[0];
        }
        for (int i = 0; i < group_size; i++) {
            squares += pow(group[i].reward - mean, 2);
        }
        double std = sqrt(squares / (group_size - 1));
        std_sum += std;
        equal += std < 1e-9;
        for (int i = 0; i < group_size; i++) {
            double advantage = (group[i].reward - mean) / (std + 1e-4);
            assert_true(fabs(group[i].advantage - advantage) < 1e-9);
            loss -= advantage * group[i].n_ids; /* on-policy every ratio is 1 */
        }
    }
    double n = (double)result->n_completions;
    close_to(result, "reward", sum / n);
    close_to(result, "reward_std", std_sum / (double)n_groups);
    close_to(result, "frac_reward_zero_std", equal / (double)n_groups);
    close_to(result, "rewards/regex/mean", first / n);
    if (fabs(tiny_metric(result, "loss") - loss / (n * 12)) > 1e-9) {
        fail_msg("loss %g, expected %g", tiny_metric(result, "loss"), loss / (n * 12));
    }
}

static void metrics_are_those_of_the_completions_reported(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, false, 3);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 1);
    TrainSettings settings = tiny_settings(METHOD_GRPO);
    settings.grpo.prompts_per_step = 4;
    Learner *learner = tiny_learner(&tiny, &trainer, &settings);
    double seen = 0;
    for (int k = 1; k <= 3; k++) {
        StepResult result = step(&trainer, learner);
        assert_int_equal(result.step, k);
        assert_int_equal(result.n_completions, 16);
        check_lengths(&result);
        check_rewards(&result, &tiny, 4);
        for (size_t c = 0; c < result.n_completions; c++) {
            const CompletionRow *row = &result.completions[c];
            seen += row->n_ids + tiny.task->prompts[row->prompt_row].n;
            assert_string_equal(row->prompt_text, tiny.task->prompts[row->prompt_row].text);
            JsonDocument *document;
            Error error;
            tiny_require(json_parse(&document, row->extracted, strlen(row->extracted), &error),
                         &error);
            json_free(document);
        }
        for (size_t i = 0; i < result.n_metrics; i++) { /* a name is a key */
            for (size_t j = 0; j < i; j++) {
                assert_string_not_equal(result.metrics[i].key, result.metrics[j].key);
            }
        }
        close_to(&result, "num_tokens", seen);
        close_to(&result, "epoch", k * 4 / 5.0);
        close_to(&result, "learning_rate", 0.05);
        assert_true(tiny_metric(&result, "sampling/sampling_logp_difference/max") == 0);
        assert_true(tiny_metric(&result, "sampling/importance_sampling_ratio/min") == 1);
        assert_true(tiny_metric(&result, "sampling/importance_sampling_ratio/max") == 1);
        assert_true(tiny_metric(&result, "entropy") > 0.1);
        assert_true(tiny_metric(&result, "entropy") < log(37));
        step_result_release(&result);
    }
    learner_free(learner);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

/* All rewards equal: nothing to learn, yet every metric is there, and v moves by weight decay
 * alone. */
static void groups_of_equal_rewards_have_no_gradient_but_all_metrics(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, false, 3);
    Error error;
    reward_free(tiny.reward);
    tiny_require(reward_new(&tiny.reward, &(RewardTerm){.name = "none", .weight = 1}, 1, &error),
                 &error);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 1);
    TrainSettings settings = tiny_settings(METHOD_GRPO);
    settings.grpo.updates_per_batch = 2;
    Learner *learner = tiny_learner(&tiny, &trainer, &settings);
    float before[6];
    memcpy(before, learner->v, sizeof before);
    StepResult result = step(&trainer, learner);
    assert_memory_equal(before, learner->v, sizeof before);
    assert_true(tiny_metric(&result, "loss") == 0 && tiny_metric(&result, "grad_norm") == 0);
    assert_true(tiny_metric(&result, "frac_reward_zero_std") == 1);
    assert_true(tiny_metric(&result, "entropy") > 0.1);
    assert_true(tiny_metric(&result, "sampling/sampling_logp_difference/max") == 0);
    assert_int_equal(learner->updates, 2);
    step_result_release(&result);
    learner_free(learner);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

static void all_text(Text *out, const StepResult *result)
{
    for (size_t c = 0; c < result->n_completions; c++) {
        text_printf(out, "%d:", (int)result->completions[c].prompt_row);
        text_append(out, result->completions[c].text, result->completions[c].n_text);
        text_add(out, "|");
    }
}

/* Learning rate 0: the policy is the same, so only the random numbers can differ. */
static void samples_differ_by_seed_and_step_and_sample_but_not_by_history(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_QWEN2, false, 3);
    Trainer trainer = tiny_trainer(&tiny, "none", 1, 1);
    TrainSettings settings = tiny_settings(METHOD_GRPO);
    settings.grpo.prompts_per_step = 5; /* every step has every row */
    Text texts[4] = {{0}};
    for (int run = 0; run < 4; run++) {
        settings.seed = run == 1 ? 6 : 5;
        Learner *learner = tiny_learner(&tiny, &trainer, &settings);
        learner->step = run == 2 ? 1 : 0;
        if (run == 3) { /* step 2 after step 1 is step 2 */
            StepResult result = step(&trainer, learner);
            step_result_release(&result);
        }
        StepResult result = step(&trainer, learner);
        const CompletionRow *rows = result.completions;
        assert_true(rows[0].n_text != rows[1].n_text ||
                    memcmp(rows[0].text, rows[1].text, rows[0].n_text));
        all_text(&texts[run], &result);
        step_result_release(&result);
        learner_free(learner);
    }
    assert_string_not_equal(texts[0].bytes, texts[1].bytes);
    assert_string_not_equal(texts[0].bytes, texts[2].bytes);
    assert_string_equal(texts[2].bytes, texts[3].bytes);
    for (int run = 0; run < 4; run++) {
        text_release(&texts[run]);
    }
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

static void use_reward(TinyTask *tiny, RewardTerm term)
{
    Error error;
    reward_free(tiny->reward);
    term.weight = 1;
    tiny_require(reward_new(&tiny->reward, &term, 1, &error), &error);
}

static bool has_spread(const CompletionRow *group, int n)
{
    for (int i = 1; i < n; i++) {
        if (group[i].reward != group[0].reward) {
            return true;
        }
    }
    return false;
}

/* Beside a step of the same seed without it: groups of different rewards stay, the others are of
 * rows that the step did not have, each once. */
static int check_resampled(const StepResult *plain, const StepResult *resampled, int size)
{
    int n_groups = (int)plain->n_completions / size, n_replaced = 0, seen[16] = {0};
    for (int g = 0; g < n_groups; g++) {
        seen[plain->completions[g * size].prompt_row] = 1;
    }
    for (int g = 0; g < n_groups; g++) {
        const CompletionRow *before = plain->completions + g * size;
        const CompletionRow *after = resampled->completions + g * size;
        assert_int_equal(after->prompt, g);
        if (has_spread(before, size)) {
            for (int i = 0; i < size; i++) {
                assert_string_equal(before[i].text, after[i].text);
                assert_int_equal(before[i].prompt_row, after[i].prompt_row);
            }
        } else {
            assert_int_equal(seen[after->prompt_row]++, 0);
            n_replaced++;
        }
    }
    return n_replaced;
}

static void groups_of_equal_rewards_are_replaced_by_other_prompts(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, false, 3);
    Trainer trainer = tiny_trainer(&tiny, "none", 1, 2);
    TrainSettings settings = tiny_settings(METHOD_GRPO), again = settings;
    settings.grpo.prompts_per_step = again.grpo.prompts_per_step = 2;
    again.grpo.resample_rounds = 1;
    use_reward(&tiny, (RewardTerm){.name = "regex", .pattern = "aa|bb|cc|[0-5]"});
    Learner *plain = tiny_learner(&tiny, &trainer, &settings);
    Learner *resampled = tiny_learner(&tiny, &trainer, &again);
    int n_replaced = 0, n_kept = 0;
    for (int k = 0; k < 12; k++) {
        StepResult one = step(&trainer, plain), other = step(&trainer, resampled);
        int n = check_resampled(&one, &other, 4);
        assert_int_equal((int)tiny_metric(&other, "sampling/resampled_groups"), n);
        assert_true(tiny_metric(&other, "num_tokens") > tiny_metric(&one, "num_tokens") ||
                    n_replaced + n == 0);
        n_replaced += n;
        n_kept += 2 - n;
        step_result_release(&one);
        step_result_release(&other);
    }
    print_message("%d groups replaced, %d kept\n", n_replaced, n_kept);
    assert_true(n_replaced > 2 && n_kept > 2);
    learner_free(resampled);
    use_reward(&tiny, (RewardTerm){.name = "none"});
    again.grpo.resample_rounds = 1000; /* it ends with the rows: 5, of which 2 are the step's */
    resampled = tiny_learner(&tiny, &trainer, &again);
    StepResult result = step(&trainer, resampled);
    assert_true(tiny_metric(&result, "sampling/resampled_groups") == 3);
    assert_true(tiny_metric(&result, "frac_reward_zero_std") == 1);
    step_result_release(&result);
    learner_free(plain);
    learner_free(resampled);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

static void overlong_completions_are_rewarded_less(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, false, 3);
    Trainer trainer = tiny_trainer(&tiny, "none", 1, 1);
    TrainSettings settings = tiny_settings(METHOD_GRPO);
    settings.grpo.sampling.temperature = 4; /* some end early */
    settings.grpo.overlong_buffer = 9;
    settings.grpo.overlong_factor = 0.7;
    Learner *learner = tiny_learner(&tiny, &trainer, &settings);
    StepResult result = step(&trainer, learner);
    double sum = 0;
    for (size_t c = 0; c < result.n_completions; c++) {
        const CompletionRow *row = &result.completions[c];
        const DataRow *data = &tiny.task->dataset.rows[row->prompt_row];
        double penalty = row->n_ids > 3 ? -0.7 * (row->n_ids - 3) / 9 : 0;
        double reward =
            reward_one(tiny.reward, NULL, row->text, row->n_text, data->answer, data->n_answer);
        assert_true(fabs(row->reward - reward - penalty) < 1e-12);
        sum += penalty;
    }
    assert_true(sum < -1 && sum > -0.7 * 12);
    close_to(&result, "rewards/soft_overlong_punishment_reward/mean", sum / 12);
    step_result_release(&result);
    learner_free(learner);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

/* What it samples is what a run at the rounded v would sample; what it learns from is its own v. */
static double no_time(void *context)
{
    (void)context;
    return 0;
}

static bool never(void *context)
{
    (void)context;
    return false;
}

/* Completions with an "a" get an error, others 1 with an "e" and 0.25 without. */
static void a_completion_without_a_reward_is_left_out_and_told(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, false, 3);
    Trainer trainer = tiny_trainer(&tiny, "none", 1, 1);
    RewardHost host = {NULL, no_time, never};
    TrainSettings settings = tiny_settings(METHOD_GRPO);
    settings.grpo.sampling.temperature = 2;
    use_reward(&tiny,
               (RewardTerm){.name = "command",
                            .weight = 1,
                            .limit_s = 60,
                            .host = &host,
                            .command = "sed -u -e 's/.*\"completion\": \"[^\"]*a.*\", \"answer.*/"
                                       "{\"error\": \"an a\"}/' -e 's/.*\"completion\": "
                                       "\"[^\"]*e.*\", \"answer.*/{\"reward\": 1}/' -e "
                                       "'s/^{\"id.*/{\"reward\": 0.25}/'"});
    Learner *learner = tiny_learner(&tiny, &trainer, &settings);
    StepResult result = step(&trainer, learner);
    double sum = 0, loss = 0;
    int n_there = 0, first = -1, tokens = 0;
    for (int g = 0; g < 3; g++) {
        double there[4], advantages[4], std;
        int n = 0, at[4];
        for (int i = 0; i < 4; i++) {
            const CompletionRow *row = &result.completions[4 * g + i];
            tokens += row->n_ids;
            if (strchr(row->text, 'a')) {
                assert_true(isnan(row->reward) && row->advantage == 0);
                first = first < 0 ? 4 * g + i : first;
                continue;
            }
            assert_true(row->reward == (strchr(row->text, 'e') ? 1 : 0.25));
            at[n] = 4 * g + i;
            there[n++] = row->reward;
            sum += row->reward;
        }
        n_there += n;
        advantage_compute(advantages, &std, there, settings.grpo.scale_rewards, BASELINE_GROUP,
                          n > 0, n);
        for (int i = 0; i < n; i++) {
            assert_true(result.completions[at[i]].advantage == advantages[i]);
            loss -= advantages[i] * result.completions[at[i]].n_ids;
        }
    }
    assert_true(n_there > 0 && n_there < 12); /* the test is of both */
    close_to(&result, "reward", sum / n_there);
    close_to(&result, "rewards/command/mean", sum / n_there);
    close_to(&result, "rewards/errors", 12 - n_there);
    close_to(&result, "loss", loss / (12 * 12)); /* dr_grpo: over completions and their limit */
    char expected[160];
    snprintf(expected, sizeof expected,
             "%d of 12 completions have no reward; the first: prompt %d, sample %d: command: an a",
             12 - n_there, first / 4, first % 4);
    assert_int_equal(result.n_events, 1);
    assert_string_equal(result.events[0].kind, "reward_error");
    assert_string_equal(result.events[0].message, expected);
    step_result_release(&result);
    learner_free(learner);

    use_reward(&tiny, (RewardTerm){.name = "command",
                                   .weight = 1,
                                   .limit_s = 60,
                                   .host = &host,
                                   .command = "sed -u 's/.*/{\"error\": \"none today\"}/'"});
    learner = tiny_learner(&tiny, &trainer, &settings);
    Error error = {{0}};
    assert_int_equal(learner_step(&trainer, &learner, 1, &result, &error), STATUS_OK);
    assert_int_equal(result.status, STATUS_FAILED);
    assert_string_equal(result.error.message, "step 1: no completion has a reward; the first: "
                                              "command: none today");
    step_result_release(&result);
    learner_free(learner);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

static void a_bf16_rollout_is_of_the_rounded_adapter(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, false, 3);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 1);
    TrainSettings settings = tiny_settings(METHOD_GRPO);
    Learner *exact = tiny_learner(&tiny, &trainer, &settings);
    settings.grpo.rollout_bf16 = true;
    settings.grpo.correction = CORRECTION_TOKEN_TRUNCATE;
    settings.grpo.correction_max = 1.0001;
    Learner *rounding = tiny_learner(&tiny, &trainer, &settings);
    for (size_t i = 0; i < exact->n; i++) {
        uint32_t bits;
        memcpy(&bits, &exact->v[i], sizeof bits);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000; /* to nearest, ties to even */
        memcpy(&exact->v[i], &bits, sizeof bits);
        assert_true(exact->v[i] != rounding->v[i]);
    }
    StepResult one = step(&trainer, exact), other = step(&trainer, rounding);
    for (size_t c = 0; c < one.n_completions; c++) {
        const CompletionRow *a = &one.completions[c], *b = &other.completions[c];
        assert_int_equal(a->n_ids, b->n_ids);
        assert_memory_equal(a->ids, b->ids, (size_t)a->n_ids * sizeof *a->ids);
        assert_memory_equal(a->logprobs, b->logprobs, (size_t)a->n_ids * sizeof *a->logprobs);
    }
    assert_true(tiny_metric(&one, "sampling/sampling_logp_difference/max") == 0);
    assert_true(tiny_metric(&other, "sampling/sampling_logp_difference/max") > 0);
    assert_true(tiny_metric(&other, "sampling/importance_sampling_ratio/min") < 1);
    assert_true(tiny_metric(&other, "sampling/importance_sampling_ratio/max") == 1.0001);
    step_result_release(&one);
    step_result_release(&other);
    learner_free(exact);
    learner_free(rounding);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

static void rewarded_behaviour_becomes_frequent(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, true, 9);
    Trainer trainer = tiny_trainer(&tiny, "full", 1, 2);
    TrainSettings settings = tiny_settings(METHOD_GRPO);
    settings.grpo.prompts_per_step = 5;
    settings.grpo.group_size = 8;
    settings.lr = 0.01;
    settings.grpo.sampling.temperature = 2; /* at 1 this model hardly explores */
    Learner *learner = tiny_learner(&tiny, &trainer, &settings);
    double first = 0, last = 0;
    for (int k = 0; k < 40; k++) {
        StepResult result = step(&trainer, learner);
        first += k < 5 ? tiny_metric(&result, "reward") / 5 : 0;
        last += k >= 35 ? tiny_metric(&result, "reward") / 5 : 0;
        step_result_release(&result);
    }
    print_message("reward %.3f to %.3f of 1.5\n", first, last);
    assert_true(last > 1.3 && first < 1);
    learner_free(learner);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_are_those_of_the_completions_reported),
        cmocka_unit_test(groups_of_equal_rewards_have_no_gradient_but_all_metrics),
        cmocka_unit_test(samples_differ_by_seed_and_step_and_sample_but_not_by_history),
        cmocka_unit_test(groups_of_equal_rewards_are_replaced_by_other_prompts),
        cmocka_unit_test(overlong_completions_are_rewarded_less),
        cmocka_unit_test(a_completion_without_a_reward_is_left_out_and_told),
        cmocka_unit_test(a_bf16_rollout_is_of_the_rounded_adapter),
        cmocka_unit_test(rewarded_behaviour_becomes_frequent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
