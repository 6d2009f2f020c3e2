/* The page as bytes: nothing in it obeys the database, loads anything or depends on the moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/json.h"
#include "core/sha256.h"
#include "core/unicode.h"
#include "notebooks-export/report.h"
#include "notebooks-export/report_parts.h"
#include "tests/notebooks_fixture.h"

#define HOSTILE "</script><script>alert(1)</script>&amp;\"'"

static Store *open_store(StoreMode mode)
{
    Store *store;
    Error error = {0};
    fixture_check(store_open(&store, "results.db", mode, 0, &error), &error);
    return store;
}

/* free the page */
static Text build(const char *experiment, const char *surface)
{
    Store *store = open_store(STORE_READ);
    Error error = {0};
    Text page = {0};
    const ReportRequest request = {.store = store,
                                   .experiments = &experiment,
                                   .n_experiments = experiment ? 1 : 0,
                                   .surfaces = &surface,
                                   .n_surfaces = surface ? 1 : 0,
                                   .version = "0.0.0-test"};
    fixture_check(report_build(&page, &request, &error), &error);
    store_close(store);
    return page;
}

static void refuses(const char *experiment, const char *surface, Status expected, const char *words)
{
    Store *store = open_store(STORE_READ);
    Error error = {0};
    Text page = {0};
    const ReportRequest request = {.store = store,
                                   .experiments = &experiment,
                                   .n_experiments = experiment ? 1 : 0,
                                   .surfaces = &surface,
                                   .n_surfaces = surface ? 1 : 0,
                                   .version = "0"};
    assert_int_equal(report_build(&page, &request, &error), expected);
    if (!strstr(error.message, words)) {
        fail_msg("\"%s\" lacks \"%s\"", error.message, words);
    }
    text_release(&page);
    store_close(store);
}

static size_t count(const Text *page, const char *word)
{
    size_t n = 0;
    for (const char *at = page->bytes; (at = strstr(at, word)); at++) {
        n++;
    }
    return n;
}

static void has(const Text *page, const char *words)
{
    if (!strstr(page->bytes, words)) {
        fail_msg("the page lacks \"%s\"", words);
    }
}

/* What stands between open and close, from *at on, which moves behind it. */
static const char *between(const char **at, const char *open, const char *close, size_t *n)
{
    const char *from = strstr(*at, open);
    if (!from) {
        return NULL;
    }
    from += strlen(open);
    const char *to = strstr(from, close);
    assert_non_null(to);
    *n = (size_t)(to - from);
    *at = to;
    return from;
}

/* A run whose every text is an attack, with a prompt of NUL and broken UTF-8. */
static void add_hostile_run(void)
{
    static const char answer[] = "<img src=x onerror=alert(1)>\0\x1b[31m\xff\xc0\x80\xe2\x80\xae"
                                 "desrever\xe2\x80\xa8next" HOSTILE "<!--";
    Store *store = open_store(STORE_WRITE);
    Error error = {0};
    RunInfo info = {.run_id = "dddd<b>000000000",
                    .experiment = HOSTILE,
                    .identity = "{}",
                    .config = "{}",
                    .model = HOSTILE,
                    .method = HOSTILE,
                    .adapter = HOSTILE,
                    .budget = 13,
                    .lr = 0.01,
                    .seed = INT64_C(9007199254740993),
                    .steps = 2};
    RunState state;
    int64_t last_step, attempt;
    Worker worker = {"host", 1, "boot", "{\"cpu\": \"" HOSTILE "\"}"};
    const int32_t ids[] = {1};
    const double logprobs[] = {-1};
    fixture_check(store_experiment(store, HOSTILE, "{\"method\": \"" HOSTILE "\"}", 2e9, &error),
                  &error);
    fixture_check(store_run(store, &info, 2e9, &state, &last_step, &error), &error);
    fixture_check(store_attempt_begin(store, info.run_id, &worker, 2e9, 60, &attempt, &error),
                  &error);
    for (int step = 1; step <= 2; step++) {
        const Metric metrics[] = {{"reward", 0.31 * step}, {HOSTILE, 1.27 * step}};
        const CompletionRow completion = {.prompt_text = HOSTILE,
                                          .text = answer,
                                          .n_text = sizeof answer - 1,
                                          .ids = ids,
                                          .n_ids = 1,
                                          .logprobs = logprobs,
                                          .reward = step,
                                          .extracted = "null",
                                          .finish = "length"};
        const EventRow event = {"odd", HOSTILE};
        const StepRecord record = {.run_id = info.run_id,
                                   .attempt = attempt,
                                   .step = step,
                                   .metrics = metrics,
                                   .n_metrics = 2,
                                   .completions = &completion,
                                   .n_completions = 1,
                                   .events = &event,
                                   .n_events = 1,
                                   .now_s = 2e9};
        fixture_check(store_steps(store, &record, 1, &error), &error);
    }
    const Evaluation evaluation = {.run_id = info.run_id,
                                   .step = 2,
                                   .task = HOSTILE,
                                   .extractor = HOSTILE,
                                   .n = 40,
                                   .value = 0.31,
                                   .standard_error = 0.07,
                                   .base_value = NAN,
                                   .p_value = NAN};
    fixture_check(store_evaluations(store, &evaluation, 1, NULL, 0, 2e9, &error), &error);
    fixture_check(store_run_end(store, info.run_id, RUN_DONE, HOSTILE, 0.31, 0.07, 2e9, &error),
                  &error);
    store_close(store);
}

static void text_of_the_database_never_becomes_markup(void **state)
{
    (void)state;
    Text page = build(NULL, NULL);
    assert_int_equal(page.n, strlen(page.bytes)); /* no NUL */
    assert_int_equal(utf8_valid_prefix(page.bytes, page.n), page.n);
    /* The program, and the data of three experiments and a surface. */
    assert_int_equal(count(&page, "<script"), 1 + 3 + 1);
    assert_int_equal(count(&page, "</script"), 1 + 3 + 1);
    assert_int_equal(count(&page, "<img"), 0);
    assert_int_equal(count(&page, "<b>"), 0);
    assert_int_equal(count(&page, "<!--"), 0);
    assert_int_equal(count(&page, "\xe2\x80\xae"), 0); /* U+202E turns the writing around */
    assert_int_equal(count(&page, "\xe2\x80\xa8"), 0); /* U+2028 ends a line of a script */
    for (size_t i = 0; i < page.n; i++) {
        assert_true((unsigned char)page.bytes[i] >= 0x20 || page.bytes[i] == '\n');
        assert_int_not_equal(page.bytes[i], 0x7f);
    }
    has(&page, "&lt;img src=x onerror=alert(1)&gt;\xe2\x90\x80\xe2\x90\x9b[31m\xef\xbf\xbd\xef\xbf"
               "\xbd\xef\xbf\xbd\xe2\x9f\xa8U+202E\xe2\x9f\xa9"
               "desrever\xe2\x9f\xa8U+2028\xe2\x9f\xa9next&lt;/script&gt;");
    has(&page, "9007199254740993"); /* a seed past 2^53 */
    text_release(&page);
}

static void data_of_the_charts_are_json(void **state)
{
    (void)state;
    Text page = build(NULL, NULL);
    const char *at = page.bytes, *data;
    size_t n = 0, n_found = 0;
    while ((at = strstr(at, "<script type=\"application/json\"")) &&
           (data = between(&at, ">", "</script>", &n))) {
        JsonDocument *document;
        Error error = {0};
        fixture_check(json_parse(&document, data, n, &error), &error);
        json_free(document);
        assert_null(memchr(data, '<', n));
        n_found++;
    }
    assert_int_equal(n_found, 4);
    text_release(&page);
}

static void policy_names_the_script_and_the_style_of_the_page(void **state)
{
    (void)state;
    static const char *const tags[][3] = {{"<script>", "</script>", "script-src 'sha256-"},
                                          {"<style>", "</style>", "style-src 'sha256-"}};
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    Text page = build(FIXTURE_OTHER, NULL);
    for (int k = 0; k < 2; k++) {
        const char *at = page.bytes;
        size_t n = 0, n_hash = 0;
        const char *text = between(&at, tags[k][0], tags[k][1], &n);
        char hex[SHA256_HEX_SIZE], again[SHA256_HEX_SIZE + 2];
        sha256_bytes(hex, text, n);
        at = page.bytes;
        const char *hash = between(&at, tags[k][2], "'", &n_hash);
        assert_int_equal(n_hash, 44);
        for (int i = 0; i < 42; i += 2) { /* two letters are three hexadecimal digits */
            long pair = (strchr(letters, hash[i]) - letters) * 64 +
                        (strchr(letters, hash[i + 1]) - letters);
            snprintf(again + i / 2 * 3, 4, "%03lx", (unsigned long)pair);
        }
        assert_memory_equal(again, hex, 63);
    }
    has(&page, "default-src 'none'");
    text_release(&page);
}

static void page_loads_nothing(void **state)
{
    (void)state;
    static const char *const loads[] = {"http:",   "https:", " src=",          "url(",
                                        "@import", "fetch(", "XMLHttpRequest", "<iframe",
                                        "<object", "import("};
    Text page = build(FIXTURE_OTHER, NULL);
    for (size_t i = 0; i < sizeof loads / sizeof loads[0]; i++) {
        if (count(&page, loads[i])) {
            fail_msg("the page holds \"%s\"", loads[i]);
        }
    }
    assert_int_equal(count(&page, "<link"), 1); /* an empty icon, so that none is asked for */
    has(&page, "<link rel=\"icon\" href=\"data:,\">");
    text_release(&page);
}

static void same_database_gives_the_same_bytes(void **state)
{
    (void)state;
    Text first = build(NULL, NULL);
    Store *store = open_store(STORE_WRITE);
    Error error = {0};
    fixture_check(store_artifact(store, NULL, NULL, "report", "report.html", 1, "00", 3e9, &error),
                  &error);
    store_close(store);
    Text second = build(NULL, NULL);
    assert_int_equal(first.n, second.n);
    assert_memory_equal(first.bytes, second.bytes, first.n);
    has(&first, "2033-05-18 03:33:20 UTC"); /* 2e9, the newest heartbeat */
    text_release(&first);
    text_release(&second);
}

static void best_run_is_named_with_its_gain_and_the_base_stands_in_the_table(void **state)
{
    (void)state;
    Text page = build(FIXTURE_SWEEP, NULL);
    has(&page, "9 runs (8 done, 1 failed). The best is <code>aaaa000000000007</code>");
    /* skill 0.65: 26 of 40; eight tests, the smallest p is that of this run. */
    has(&page, "reward 0.650 \xc2\xb1 0.076");
    has(&page, "against the base model\xe2\x80\x99s 0.250 \xc2\xb1 0.069, +0.400");
    has(&page, "Holm-adjusted over 8 runs 0.88): <strong>not told apart from noise</strong>");
    has(&page, ">base model</code>");
    has(&page, "the loss of step 4 is &lt;nan&gt; &amp; not finite");
    has(&page, "Scores under every extractor");
    text_release(&page);
}

/* Against a base of 0.5. */
static void verdict_follows_the_adjusted_p_value(void **state)
{
    (void)state;
    static const struct {
        const char *experiment, *extractor, *words;
        double value, p;
        int n_runs;
    } cases[] = {
        {"v-gain", "reward", "<strong>a gain</strong>", 0.75, 1e-9, 1},
        {"v-loss", "reward", "<strong>worse than the base</strong>", 0.25, 1e-9, 1},
        {"v-nll", "nll", "<strong>a gain</strong>", 0.25, 0.01, 1},
        {"v-noise", "reward", "<strong>not told apart from noise</strong>", 0.75, 0.05, 1},
        {"v-many", "reward", "3 runs 0.09): <strong>not told apart from noise</strong>", 0.75, 0.03,
         3},
        {"v-none", "reward", "no paired test is stored", 0.75, NAN, 1},
    };
    Store *store = open_store(STORE_WRITE);
    Error error = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fixture_check(store_experiment(store, cases[i].experiment, "{}", 1e9, &error), &error);
        Evaluation evaluation = {.run_id = "base:c50c:1111",
                                 .task = "rows",
                                 .extractor = cases[i].extractor,
                                 .n = 40,
                                 .value = 0.5,
                                 .standard_error = 0.08,
                                 .base_value = NAN,
                                 .p_value = NAN};
        fixture_check(store_evaluations(store, &evaluation, 1, NULL, 0, 1e9, &error), &error);
        for (int k = 0; k < cases[i].n_runs; k++) {
            char run_id[32];
            snprintf(run_id, sizeof run_id, "eeee%06zu%06d", i, k);
            fixture_run(store, cases[i].experiment, run_id, "grpo", 13, 0.01, k, cases[i].value,
                        false);
            evaluation.run_id = run_id;
            evaluation.step = FIXTURE_STEPS;
            evaluation.value = cases[i].value;
            evaluation.base_value = 0.5;
            evaluation.p_value = cases[i].p;
            evaluation.base_run_id = "base:c50c:1111";
            fixture_check(store_evaluations(store, &evaluation, 1, NULL, 0, 1e9, &error), &error);
        }
    }
    store_close(store);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Text page = build(cases[i].experiment, NULL);
        has(&page, cases[i].words);
        text_release(&page);
    }
}

static void surface_shows_holes_and_what_is_missing(void **state)
{
    (void)state;
    Store *store = open_store(STORE_WRITE);
    Error error = {0};
    const SurfaceMark marks[] = {{"base", "", "loss_se", 0, 0, 0, 0, 0.0824},
                                 {"minimum", "", "gain", 0, 0.003, 0.011, 0, 0.0679},
                                 {"minimum", "", "gain_se", 0, 0.003, 0.011, 0, 0.0123},
                                 {"minimum", "", "p_value", 0, 0.003, 0.011, 0, 3.1e-5}};
    fixture_check(store_surface_marks(store, FIXTURE_SURFACE, marks, 4, &error), &error);
    store_close(store);
    Text page = build(NULL, FIXTURE_SURFACE);
    assert_int_equal(count(&page, "<section class=\"experiment\""), 1); /* that of the surface */
    has(&page, "5 x 4 points, running, 4 of 5 rows; loss 1.31 \xc2\xb1 0.082 at the base model");
    has(&page, "1.2421 \xc2\xb1 0.031 at the refined minimum of the loss (0.003, 0.011), where the loss is "
               "lower by 0.068 \xc2\xb1 0.012 than the base's (paired p = 3.1e-05): <strong>a gain"
               "</strong>");
    assert_int_equal(count(&page, "<td>gain"), 0); /* is no point of its own in the table */
    has(&page, "<strong>running, 4 of 5 rows done</strong>");
    /* Rows of four: (1, 2) is a hole, row 3 is not there. */
    has(&page, "\"state\":\"11111131111100001111\"");
    has(&page, "\"x\":[-0.1,-0.05,0,0.05,0.1]");
    has(&page, "Eigenvalues of the Hessian");
    has(&page, "<th scope=\"row\">minimum</th>");
    text_release(&page);
}

static void what_is_not_there_is_refused_with_what_is(void **state)
{
    (void)state;
    refuses("plain-sftt", NULL, STATUS_USAGE, "there is no experiment \"plain-sftt\"");
    refuses("plain-sftt", NULL, STATUS_USAGE, "\"plain-sft\"");
    refuses(NULL, "ffff", STATUS_USAGE, "ffff");
}

static void database_of_nothing_is_a_page_too(void **state)
{
    (void)state;
    Store *store;
    Error error = {0};
    Text page = {0};
    fixture_check(store_open(&store, "empty.db", STORE_WRITE, 0, &error), &error);
    const ReportRequest request = {.store = store, .version = "0"};
    fixture_check(report_build(&page, &request, &error), &error);
    store_close(store);
    has(&page, "0 experiments, 0 surfaces. Nothing was computed yet.");
    text_release(&page);
}

static void thinning_keeps_ends_and_peaks(void **state)
{
    (void)state;
    enum { N = 5003, KEEP = 101 };
    static double x[N], y[N];
    static size_t kept[KEEP];
    for (int i = 0; i < N; i++) {
        x[i] = 3 * i + 7;
        y[i] = 0.31 * i / N + (i == 1777 ? -2.385 : 0) + (i == 4001 ? 9.5 : 0);
    }
    report_thin(kept, KEEP, x, y, N);
    bool low = false, high = false;
    for (int k = 0; k < KEEP; k++) {
        assert_true(kept[k] < N && (k == 0 || kept[k] > kept[k - 1]));
        low |= kept[k] == 1777;
        high |= kept[k] == 4001;
    }
    assert_true(low && high && kept[0] == 0 && kept[KEEP - 1] == N - 1);
    report_thin(kept, 3, x, y, 3);
    assert_true(kept[0] == 0 && kept[1] == 1 && kept[2] == 2);
}

/* 40 runs of 3,000 steps are 120,000 rows; as they are they would be 2 MB of JSON. */
static void long_curves_are_thinned_and_the_page_says_so(void **state)
{
    (void)state;
    enum { RUNS = 40, STEPS = 3000, KEYS = 3 };
    static StepRecord records[STEPS];
    static Metric metrics[STEPS][KEYS];
    Store *store = open_store(STORE_WRITE);
    Error error = {0};
    fixture_check(store_experiment(store, "long", "{}", 1e9, &error), &error);
    for (int run = 0; run < RUNS; run++) {
        char run_id[17];
        snprintf(run_id, sizeof run_id, "ffff%012d", run);
        RunInfo info = {.run_id = run_id,
                        .experiment = "long",
                        .identity = run_id,
                        .config = "{}",
                        .model = "m",
                        .method = "grpo",
                        .adapter = "tinylora",
                        .budget = 13,
                        .lr = 0.001 * (1 + run / 2),
                        .seed = run % 2,
                        .steps = STEPS};
        RunState run_state;
        int64_t last_step, attempt;
        Worker worker = {"host", 1, "boot", "{}"};
        fixture_check(store_run(store, &info, 1e9, &run_state, &last_step, &error), &error);
        fixture_check(store_attempt_begin(store, run_id, &worker, 1e9, 60, &attempt, &error),
                      &error);
        for (int i = 0; i < STEPS; i++) {
            double wave = sin(0.01 * i + run) + 0.31 * ((i * 7919 + run) % 101) / 101;
            metrics[i][0] = (Metric){"reward", i == 1500 ? NAN : wave};
            metrics[i][1] = (Metric){"loss", -wave};
            metrics[i][2] = (Metric){"always", 0.25};
            records[i] = (StepRecord){.run_id = run_id,
                                      .attempt = attempt,
                                      .step = i + 1,
                                      .metrics = metrics[i],
                                      .n_metrics = KEYS,
                                      .now_s = 1e9};
        }
        fixture_check(store_steps(store, records, STEPS, &error), &error);
        fixture_check(store_attempt_end(store, run_id, attempt, "done", 1e9, &error), &error);
    }
    store_close(store);
    Text page = build("long", NULL);
    assert_true(page.n < 4000000);
    has(&page, "\"longest\":3000");
    has(&page, "\"flat\":[[\"always\",0.25]]");
    const char *at = strstr(page.bytes, "\"lines\":[[");
    size_t n = 0;
    assert_non_null(at);
    const char *steps = between(&at, ",[", "]", &n);
    size_t points = 1;
    for (size_t i = 0; i < n; i++) {
        points += steps[i] == ',';
    }
    assert_in_range(points, 100, 402); /* 400 at most and one for the gap */
    const char *values = between(&at, "[", "]", &n), *gap = strstr(values, ",null,");
    assert_true(gap && gap < values + n); /* at step 1501 */
    text_release(&page);
}

static void words_for_a_shell_are_quoted(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"budget13-lr", "budget13-lr"},
                                           {"a b", "&#39;a b&#39;"},
                                           {"it's", "&#39;it&#39;\\&#39;&#39;s&#39;"},
                                           {"", "&#39;&#39;"},
                                           {"$(rm)", "&#39;$(rm)&#39;"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Text out = {0};
        html_shell_word(&out, cases[i][0]);
        assert_string_equal(text_string(&out), cases[i][1]);
        text_release(&out);
    }
}

static void values_are_written_to_two_digits_of_their_error(void **state)
{
    (void)state;
    static const struct {
        double value, error;
        const char *text;
    } cases[] = {{0.35, 0.0214, "0.350"},          {0.02, 0.02, "0.020"}, {1234.6, 31, "1235"},
                 {-0.00123456, 1e-5, "-0.001235"}, {0.5, 0, "0.5"},       {0.123456, NAN, "0.1235"},
                 {NAN, 0.1, "\xe2\x80\x93"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Text out = {0};
        html_estimate(&out, cases[i].value, cases[i].error);
        assert_string_equal(text_string(&out), cases[i].text);
        text_release(&out);
    }
}

static int setup(void **state)
{
    int failed = fixture_setup(state);
    add_hostile_run();
    return failed;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_of_the_database_never_becomes_markup),
        cmocka_unit_test(data_of_the_charts_are_json),
        cmocka_unit_test(policy_names_the_script_and_the_style_of_the_page),
        cmocka_unit_test(page_loads_nothing),
        cmocka_unit_test(same_database_gives_the_same_bytes),
        cmocka_unit_test(best_run_is_named_with_its_gain_and_the_base_stands_in_the_table),
        cmocka_unit_test(verdict_follows_the_adjusted_p_value),
        cmocka_unit_test(surface_shows_holes_and_what_is_missing),
        cmocka_unit_test(what_is_not_there_is_refused_with_what_is),
        cmocka_unit_test(database_of_nothing_is_a_page_too),
        cmocka_unit_test(thinning_keeps_ends_and_peaks),
        cmocka_unit_test(long_curves_are_thinned_and_the_page_says_so),
        cmocka_unit_test(words_for_a_shell_are_quoted),
        cmocka_unit_test(values_are_written_to_two_digits_of_their_error),
    };
    return cmocka_run_group_tests(tests, setup, fixture_teardown);
}
