/* Evaluation by the law: together or alone, any slice, any thread count, the same bits; its scores
 * against naive ones; its way into results.db. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "analysis/evaluate.h"
#include "core/json.h"
#include "results/query.h"
#include "rl/extract.h"
#include "tests/reward_one.h"
#include "tests/tiny_task.h"

static const Sampling sampling = {.temperature = 1.25, .top_p = 1, .max_new_tokens = 9};
static const Sampling greedy = {.greedy = true, .temperature = 1, .top_p = 1, .max_new_tokens = 9};

static EvaluateSettings settings_of(const TinyTask *tiny)
{
    return (EvaluateSettings){.task = tiny->task,
                              .sampling = &sampling,
                              .samples = 3,
                              .seed = 77,
                              .reward = tiny->reward,
                              .answers_nll = true,
                              .identity = "{}"};
}

/* Adapters away from the base and from each other. */
static void set_adapters(const Trainer *trainer, int n)
{
    float v[6];
    for (int a = 1; a <= n; a++) {
        for (uint32_t i = 0; i < 6; i++) {
            v[i] = (float)(0.4 * random_normal((RandomKey){3, RANDOM_INIT}, (uint32_t)a, i, 0, 0));
        }
        adapter_set(trainer->bank, a, v, 1);
    }
}

static void evaluate_ok(Evaluated *out, const Trainer *trainer, const EvaluateSettings *settings,
                        const int *adapters, int n)
{
    Error told = {{0}};
    if (evaluate(out, trainer, settings, adapters, n, &told) != STATUS_OK) {
        fail_msg("%s", told.message);
    }
}

/* Rows first .. of a are all rows of b, to the bit. */
static void same_numbers(const Evaluated *a, int first, const Evaluated *b)
{
    assert_int_equal(a->n_scores, b->n_scores);
    for (int k = 0; k < a->n_scores; k++) {
        const Score *x = &a->scores[k], *y = &b->scores[k];
        assert_string_equal(x->name, y->name);
        assert_memory_equal(x->values + first * x->samples, y->values,
                            (size_t)b->n_rows * (size_t)x->samples * sizeof(double));
        assert_memory_equal(x->row_means + first, y->row_means, (size_t)b->n_rows * sizeof(double));
    }
    for (int i = 0; i < b->n_rows * b->samples; i++) {
        const Rollout *x = &a->rollouts[first * a->samples + i], *y = &b->rollouts[i];
        assert_string_equal(x->text, y->text);
        assert_int_equal(x->completion.n, y->completion.n);
        assert_memory_equal(x->completion.logprobs, y->completion.logprobs,
                            (size_t)x->completion.n * sizeof(double));
    }
}

static const char *ask(Store *store, const char *sql)
{
    static Text out;
    Error told = {{0}};
    text_clear(&out);
    if (query_run(store, sql, NULL, 0, FORMAT_CSV, &out, &told) != STATUS_OK) {
        fail_msg("%s: %s", sql, told.message);
    }
    return strstr(text_string(&out), "\r\n") + 2;
}

static void numbers_depend_on_no_neighbour(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_QWEN2, true, 11);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 2, 1);
    Trainer threads = tiny_trainer(&tiny, "tinylora", 2, 3);
    set_adapters(&trainer, 2);
    set_adapters(&threads, 2);
    EvaluateSettings settings = settings_of(&tiny);
    const int all[] = {0, 1, 2};
    Evaluated together[3], alone, slice, more[3];
    evaluate_ok(together, &trainer, &settings, all, 3);
    evaluate_ok(more, &threads, &settings, all, 3);
    for (int a = 0; a < 3; a++) {
        evaluate_ok(&alone, &trainer, &settings, &all[a], 1);
        same_numbers(&together[a], 0, &alone);
        same_numbers(&together[a], 0, &more[a]);
        EvaluateSettings part = settings;
        part.first_row = 2;
        part.n_rows = 2;
        evaluate_ok(&slice, &trainer, &part, &all[a], 1);
        assert_int_equal(slice.n_rows, 2);
        same_numbers(&together[a], 2, &slice);
        evaluated_release(&alone);
        evaluated_release(&slice);
    }
    /* and the adapters do differ, and the seed matters */
    assert_true(evaluated_score(&together[0], "nll")->mean !=
                evaluated_score(&together[1], "nll")->mean);
    settings.seed = 78;
    evaluate_ok(&alone, &trainer, &settings, all, 1);
    int n_same = 0;
    for (int i = 0; i < 15; i++) {
        n_same += strcmp(alone.rollouts[i].text, together[0].rollouts[i].text) == 0;
    }
    assert_true(n_same < 15); /* many are empty: this model likes its special tokens */
    evaluated_release(&alone);
    for (int a = 0; a < 3; a++) {
        evaluated_release(&together[a]);
        evaluated_release(&more[a]);
    }
    tiny_trainer_close(&trainer);
    tiny_trainer_close(&threads);
    tiny_task_close(&tiny);
}

static void scores_are_what_the_extractors_and_the_engine_say(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, false, 5);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 1);
    set_adapters(&trainer, 1);
    EvaluateSettings settings = settings_of(&tiny);
    const int adapter = 1;
    Evaluated evaluated;
    evaluate_ok(&evaluated, &trainer, &settings, &adapter, 1);
    assert_int_equal(evaluated.n_rows, 5);
    assert_int_equal(evaluated.n_scores, n_extractors + 2);
    const Score *reward = evaluated_score(&evaluated, "reward");
    const Score *strict = evaluated_score(&evaluated, "strict");
    assert_false(reward->verdict); /* 0, 0.5, 1, 1.5 */
    assert_true(strict->verdict);
    double sum = 0, tokens = 0;
    for (int i = 0; i < 15; i++) {
        const Rollout *rollout = &evaluated.rollouts[i];
        const DataRow *row = &tiny.task->dataset.rows[i / 3];
        double expected = reward_one(tiny.reward, NULL, rollout->text, rollout->n_text, row->answer,
                                     row->n_answer);
        assert_true(reward->values[i] == expected);
        sum += expected;
        tokens += rollout->completion.n;
    }
    assert_true(fabs(reward->mean - sum / 15) < 1e-15); /* means of means of few numbers */
    assert_true(fabs(evaluated.mean_tokens - tokens / 15) < 1e-15);
    double mean, error;
    statistics_mean(&mean, &error, reward->row_means, 5);
    assert_true(error == reward->standard_error);

    const Score *nll = evaluated_score(&evaluated, "nll");
    assert_int_equal(nll->samples, 1);
    for (int row = 0; row < 5; row++) {
        const Prompt *prompt = &tiny.task->prompts[row];
        int n = prompt->n + tiny.task->n_answer[row];
        int32_t *ids = calloc((size_t)n, sizeof *ids);
        uint8_t *scored = calloc((size_t)n, 1);
        double *logprobs = calloc((size_t)n, sizeof *logprobs), total = 0;
        memcpy(ids, prompt->ids, (size_t)prompt->n * sizeof *ids);
        memcpy(ids + prompt->n, tiny.task->answers[row], (size_t)(n - prompt->n) * sizeof *ids);
        memset(scored + prompt->n, 1, (size_t)(n - prompt->n));
        Sequence sequence = {.tokens = ids,
                             .n_tokens = n,
                             .parent = -1,
                             .adapter = 1,
                             .scored = scored,
                             .logprobs = logprobs};
        Batch batch = {
            .sequences = &sequence, .n_sequences = 1, .hook = adapter_hook(trainer.bank)};
        Error told = {{0}};
        assert_int_equal(engine_evaluate(trainer.engine, &batch, &told), STATUS_OK);
        for (int t = prompt->n; t < n; t++) {
            total -= logprobs[t];
        }
        assert_true(nll->values[row] == total / (n - prompt->n));
        free(ids);
        free(scored);
        free(logprobs);
    }
    evaluated_release(&evaluated);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

static void pass_at_k_stands_beside_every_extractor(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, false, 5);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 1);
    set_adapters(&trainer, 1);
    EvaluateSettings settings = settings_of(&tiny);
    settings.pass_k = 2;
    const int adapter = 1;
    Evaluated evaluated;
    evaluate_ok(&evaluated, &trainer, &settings, &adapter, 1);
    assert_int_equal(evaluated.n_scores, 2 * n_extractors + 2);
    for (int e = 0; e < n_extractors; e++) {
        const Score *score = &evaluated.scores[e];
        const Score *pass = &evaluated.scores[n_extractors + 1 + e];
        char name[40];
        snprintf(name, sizeof name, "%s@2", extractors[e]->name);
        assert_string_equal(pass->name, name);
        assert_int_equal(pass->samples, 1);
        assert_false(pass->verdict);
        for (int row = 0; row < 5; row++) {
            const double *v = score->values + 3 * row;
            double right = v[0] + v[1] + v[2];
            double expected = right == 0 ? 0 : right == 1 ? 2.0 / 3 : 1;
            assert_true(fabs(pass->values[row] - expected) < 1e-15);
        }
    }
    evaluated_release(&evaluated);
    Error told = {{0}};
    settings.pass_k = 4;
    assert_int_equal(evaluate(&evaluated, &trainer, &settings, &adapter, 1, &told), STATUS_USAGE);
    assert_string_equal(told.message, "pass@4 wants at least 4 samples a row, there are 3");
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

/* What is stored of a completion (text, length, how it ended) scores as the completion itself. */
static void halves_of_an_evaluation_are_the_whole(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_QWEN2, true, 11);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 1);
    set_adapters(&trainer, 1);
    EvaluateSettings settings = settings_of(&tiny);
    const int both[] = {0, 1};
    Evaluated whole[2], halves[2];
    evaluate_ok(whole, &trainer, &settings, both, 2);
    Rollout *rollouts[2], *pieces[2];
    int size = whole[0].n_rows * 3;
    for (int a = 0; a < 2; a++) {
        rollouts[a] = calloc((size_t)size, sizeof(Rollout));
    }
    for (int first = 0; first < whole[0].n_rows; first += 2) {
        EvaluateSettings piece = settings;
        Error told = {{0}};
        piece.first_row = first;
        piece.n_rows = whole[0].n_rows - first < 2 ? 1 : 2;
        assert_int_equal(evaluate_sample(pieces, &trainer, &piece, both, 2, &told), STATUS_OK);
        for (int a = 0; a < 2; a++) {
            for (int i = 0; i < 3 * piece.n_rows; i++) {
                Rollout *kept = &rollouts[a][3 * first + i];
                *kept = pieces[a][i];
                free(kept->completion.ids);
                free(kept->completion.logprobs);
                kept->completion.ids = NULL;
                kept->completion.logprobs = NULL;
            }
            free(pieces[a]);
        }
    }
    Error told = {{0}};
    assert_int_equal(evaluate_score(halves, &trainer, &settings, both, 2, rollouts, &told),
                     STATUS_OK);
    for (int a = 0; a < 2; a++) {
        assert_int_equal(halves[a].n_scores, whole[a].n_scores);
        assert_true(halves[a].clipped == whole[a].clipped &&
                    halves[a].mean_tokens == whole[a].mean_tokens);
        for (int k = 0; k < whole[a].n_scores; k++) {
            const Score *x = &whole[a].scores[k], *y = &halves[a].scores[k];
            assert_memory_equal(x->values, y->values,
                                (size_t)whole[a].n_rows * (size_t)x->samples * sizeof(double));
            assert_true(x->mean == y->mean);
        }
        evaluated_release(&whole[a]);
        evaluated_release(&halves[a]);
    }
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

/* best_runs against statistics_holm, over random p-values with ties and holes. */
static void holm_of_the_view_is_that_of_the_statistics(void **state)
{
    (void)state;
    enum { N = 9 };
    char folder[] = "/tmp/tinylora-holm-XXXXXX", path[64], command[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/results.db", folder);
    Store *store;
    Error told = {{0}};
    assert_int_equal(store_open(&store, path, STORE_WRITE, 0, &told), STATUS_OK);
    assert_int_equal(store_experiment(store, "e", "{}", 1, &told), STATUS_OK);
    Evaluation base = {.run_id = "base:a:b",
                       .value = 0.5,
                       .standard_error = 0.1,
                       .base_value = NAN,
                       .p_value = NAN,
                       .n = 10};
    for (int k = 0; k < 20; k++) {
        double p[N], adjusted[N];
        char task[16], sql[256];
        snprintf(task, sizeof task, "t%d", k);
        base.task = task;
        base.extractor = k % 2 ? "nll" : "strict";
        assert_int_equal(store_evaluations(store, &base, 1, NULL, 0, 1, &told), STATUS_OK);
        for (uint32_t i = 0; i < N; i++) {
            char run_id[8];
            RunState run_state;
            int64_t last;
            double u = random_uniform((RandomKey){4, RANDOM_DATA}, (uint32_t)k, i, 0, 0);
            p[i] = i == 4 ? p[3] : u < 0.1 ? NAN : u * u * u;
            snprintf(run_id, sizeof run_id, "r%u", i);
            RunInfo info = {.run_id = run_id,
                            .experiment = "e",
                            .identity = run_id,
                            .config = "{}",
                            .model = "m",
                            .method = "grpo",
                            .adapter = "tinylora"};
            assert_int_equal(store_run(store, &info, 1, &run_state, &last, &told), STATUS_OK);
            Evaluation evaluation = {.run_id = run_id,
                                     .task = task,
                                     .extractor = base.extractor,
                                     .value = i % 2 ? 0.7 : 0.4,
                                     .standard_error = 0.1,
                                     .base_value = 0.5,
                                     .p_value = p[i],
                                     .base_run_id = "base:a:b"};
            assert_int_equal(store_evaluations(store, &evaluation, 1, NULL, 0, 1, &told),
                             STATUS_OK);
        }
        statistics_holm(adjusted, p, N);
        for (int i = 0; i < N; i++) {
            snprintf(sql, sizeof sql,
                     "SELECT printf('%%.12f', p_holm) AS p, verdict FROM best_runs WHERE task = "
                     "'%s' AND run_id = 'r%d'",
                     task, i);
            char expected[96];
            bool better = (i % 2 == 1) == (k % 2 == 0);
            snprintf(expected, sizeof expected, "%.12f,%s\r\n", isnan(p[i]) ? 0 : adjusted[i],
                     isnan(p[i]) || adjusted[i] >= 0.05 ? "not distinguishable from base"
                     : better                           ? "better than base"
                                                        : "worse than base");
            assert_string_equal(ask(store, sql), expected);
        }
    }
    assert_string_equal(ask(store, "SELECT DISTINCT verdict FROM best_runs WHERE kind = 'base'"),
                        "base\r\n");
    store_close(store);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

static void full_weights_take_turns_with_the_base(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, true, 5);
    EvaluateSettings settings = settings_of(&tiny);
    settings.sampling = &greedy;
    settings.samples = 1;
    Trainer plain = tiny_trainer(&tiny, "none", 1, 1);
    const int base_only = 0, both[] = {1, 0};
    Evaluated base, turns[2];
    evaluate_ok(&base, &plain, &settings, &base_only, 1);
    tiny_trainer_close(&plain);

    Trainer full = tiny_trainer(&tiny, "full", 1, 1);
    size_t n = adapter_parameters(full.bank);
    float *v = malloc(n * sizeof *v);
    adapter_initial(full.bank, v);
    for (size_t i = 0; i < n; i++) {
        v[i] *= 1.25f;
    }
    adapter_set(full.bank, 1, v, 1);
    evaluate_ok(turns, &full, &settings, both, 2);
    same_numbers(&base, 0, &turns[1]);
    assert_true(evaluated_score(&base, "nll")->mean != evaluated_score(&turns[0], "nll")->mean);
    Rollout *rollouts; /* the trained weights are back */
    RolloutItem item = {.prompt = &tiny.task->prompts[1],
                        .sampling = &greedy,
                        .key = {settings.seed, RANDOM_EVAL},
                        .prompt_index = 1};
    Error told = {{0}};
    assert_int_equal(rollout_run(&rollouts, &full, tiny.task, &item, 1, &told), STATUS_OK);
    assert_memory_equal(rollouts->completion.logprobs, turns[0].rollouts[1].completion.logprobs,
                        (size_t)rollouts->completion.n * sizeof(double));
    assert_true(rollouts->completion.logprobs[0] != base.rollouts[1].completion.logprobs[0]);
    rollouts_free(rollouts, 1);
    free(v);
    evaluated_release(&base);
    evaluated_release(&turns[0]);
    evaluated_release(&turns[1]);
    tiny_trainer_close(&full);
    tiny_task_close(&tiny);
}

static void a_stored_run_stands_beside_its_base(void **state)
{
    (void)state;
    char folder[] = "/tmp/tinylora-evaluate-XXXXXX", path[64], command[64], start[23];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/results.db", folder);
    TinyTask tiny = tiny_task_open(ARCHITECTURE_QWEN2, false, 5);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 1);
    set_adapters(&trainer, 1);
    EvaluateSettings settings = settings_of(&tiny);
    const int both[] = {0, 1};
    Evaluated evaluated[2];
    evaluate_ok(evaluated, &trainer, &settings, both, 2);

    Store *store;
    Error told = {{0}};
    RunState run_state;
    int64_t last;
    Text base_id = {0};
    RunInfo info = {.run_id = "00aa",
                    .experiment = "e",
                    .identity = "i",
                    .config = "{}",
                    .model = "m",
                    .method = "grpo",
                    .adapter = "tinylora"};
    evaluate_base_run_id(&base_id, &settings);
    snprintf(start, sizeof start, "base:%.16s:", model_weights_sha256(tiny.model));
    assert_int_equal(strncmp(base_id.bytes, start, 22), 0);
    assert_int_equal(base_id.n, 38);
    assert_int_equal(store_open(&store, path, STORE_WRITE, 0, &told), STATUS_OK);
    assert_int_equal(store_experiment(store, "e", "{}", 1, &told), STATUS_OK);
    assert_int_equal(store_run(store, &info, 1, &run_state, &last, &told), STATUS_OK);
    assert_int_equal(
        evaluate_store(store, base_id.bytes, 0, &settings, &evaluated[0], NULL, "tiny", 2, &told),
        STATUS_OK);
    assert_int_equal(
        evaluate_store(store, "00aa", 40, &settings, &evaluated[1], base_id.bytes, NULL, 3, &told),
        STATUS_OK);
    assert_string_equal(ask(store, "SELECT DISTINCT task FROM evaluation"),
                        "rows.jsonl[0:5] sampled T=1.25 x3 9 tokens seed 77\r\n");
    assert_string_equal(ask(store, "SELECT kind, count(*) FROM best_runs GROUP BY 1"),
                        "base,8\r\nrun,8\r\n");
    assert_string_equal(ask(store, "SELECT count(*), count(text) FROM eval_sample"), "220,210\r\n");

    /* what was stored is what comparing in memory says */
    for (int k = 0; k < evaluated[1].n_scores; k++) {
        Paired paired;
        Evaluation numbers;
        bool found;
        const char *name = evaluated[1].scores[k].name;
        evaluated_compare(&paired, &evaluated[1], &evaluated[0], k);
        assert_int_equal(store_has_evaluation(store, "00aa", 40,
                                              "rows.jsonl[0:5] sampled T=1.25 x3 9 tokens seed 77",
                                              name, &found, &numbers, &told),
                         STATUS_OK);
        assert_true(found);
        assert_true(numbers.value == evaluated[1].scores[k].mean);
        assert_true(numbers.base_value == evaluated[0].scores[k].mean);
        assert_true(numbers.p_value == paired.p_value ||
                    (isnan(numbers.p_value) && isnan(paired.p_value)));
        assert_string_equal(paired.test, k < n_extractors ? "sign_flip" : "paired_t");
        assert_true(fabs(paired.difference - (numbers.value - numbers.base_value)) < 1e-12);
    }
    JsonDocument *detail;
    const char *text =
        ask(store, "SELECT detail FROM evaluation WHERE run_id = '00aa' AND extractor "
                   "= 'nll'");
    char unquoted[1024];
    size_t n = 0;
    for (const char *c = text + 1; *c && *c != '\r'; c++) { /* CSV doubles the quotes */
        c += *c == '"';
        unquoted[n++] = *c;
    }
    assert_int_equal(json_parse(&detail, unquoted, n - 1, &told), STATUS_OK);
    assert_string_equal(json_string(json_get(json_root(detail), "test"), NULL), "paired_t");
    json_free(detail);

    /* other prompts, another base */
    Text other = {0};
    settings.first_row = 1;
    evaluate_base_run_id(&other, &settings);
    assert_string_not_equal(other.bytes, base_id.bytes);
    store_close(store);
    text_release(&other);
    text_release(&base_id);
    evaluated_release(&evaluated[0]);
    evaluated_release(&evaluated[1]);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

static int stop_at(void *context, const char *phase, int done, int total, long tokens)
{
    (void)done, (void)total, (void)tokens;
    return strcmp(phase, context) == 0;
}

static void slices_out_of_range_and_stops_leave_nothing(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, false, 5);
    Trainer trainer = tiny_trainer(&tiny, "tinylora", 1, 1);
    EvaluateSettings settings = settings_of(&tiny);
    const int adapter = 0;
    Evaluated evaluated;
    Error told = {{0}};
    settings.first_row = 4;
    settings.n_rows = 2;
    assert_int_equal(evaluate(&evaluated, &trainer, &settings, &adapter, 1, &told), STATUS_USAGE);
    assert_non_null(strstr(told.message, "rows 4 to 6 are not among the 5 of \""));
    settings.n_rows = 1;
    settings.samples = 0;
    assert_int_equal(evaluate(&evaluated, &trainer, &settings, &adapter, 1, &told), STATUS_USAGE);
    assert_string_equal(told.message, "0 samples a row, expected 1 to 65536");
    settings.samples = 2;
    const char *phases[] = {"rollout", "answers"};
    for (int i = 0; i < 2; i++) {
        trainer.progress = stop_at;
        trainer.progress_context = (void *)phases[i];
        memset(&evaluated, 0xA5, sizeof evaluated);
        assert_int_equal(evaluate(&evaluated, &trainer, &settings, &adapter, 1, &told),
                         STATUS_STOPPED);
        assert_null(evaluated.scores);
        assert_null(evaluated.rollouts);
    }
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_depend_on_no_neighbour),
        cmocka_unit_test(scores_are_what_the_extractors_and_the_engine_say),
        cmocka_unit_test(pass_at_k_stands_beside_every_extractor),
        cmocka_unit_test(halves_of_an_evaluation_are_the_whole),
        cmocka_unit_test(holm_of_the_view_is_that_of_the_statistics),
        cmocka_unit_test(full_weights_take_turns_with_the_base),
        cmocka_unit_test(a_stored_run_stands_beside_its_base),
        cmocka_unit_test(slices_out_of_range_and_stops_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
