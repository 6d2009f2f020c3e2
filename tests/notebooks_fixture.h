/* Wants cmocka.h before it. A results.db with a small sweep, a run that failed, a second experiment
 * on the same rows, and a surface that is not finished. Names and texts are what a careless user
 * might choose. */
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "results/store.h"
#include "results/store_surface.h"

#define FIXTURE_SWEEP "it's a \"sweep\" \\ of <13> *scalars* $x$\nüber |all|"
#define FIXTURE_OTHER "plain-sft"
#define FIXTURE_SURFACE "0123456789abcdef"
#define FIXTURE_TASK "dev.jsonl[0:40] greedy 8 tokens"
enum { FIXTURE_STEPS = 12, FIXTURE_ROWS = 40, FIXTURE_NX = 5, FIXTURE_NY = 4 };

static char fixture_folder[64] = "/tmp/tinylora-notebooks-XXXXXX";

static inline void fixture_check(Status status, const Error *error)
{
    if (status) {
        fprintf(stderr, "%s\n", error->message);
        abort();
    }
}

/* Verdict of a row: some rows are easy, better runs get more of the others. */
static inline double fixture_verdict(int row, double skill)
{
    return (row * 37 % FIXTURE_ROWS) < skill * FIXTURE_ROWS;
}

static inline void fixture_evaluate(Store *store, const char *run_id, int64_t step, double skill,
                                    const char *base_run_id)
{
    Error error = {0};
    EvalSample samples[2 * FIXTURE_ROWS];
    double hits = 0;
    for (int i = 0; i < FIXTURE_ROWS; i++) {
        hits += fixture_verdict(i, skill);
    }
    double share = hits / FIXTURE_ROWS;
    Evaluation evaluations[2] = {
        {.run_id = run_id,
         .step = step,
         .task = FIXTURE_TASK,
         .extractor = "reward",
         .n = FIXTURE_ROWS,
         .value = share,
         .standard_error = sqrt(share * (1 - share) / (FIXTURE_ROWS - 1)),
         .base_value = base_run_id ? 0.25 : NAN,
         .p_value = base_run_id ? 0.75 / (1 + 9 * skill) : NAN,
         .base_run_id = base_run_id,
         .model = "models/tiny"},
    };
    evaluations[1] = evaluations[0];
    evaluations[1].extractor = "strict";
    for (int i = 0; i < 2 * FIXTURE_ROWS; i++) {
        int row = i % FIXTURE_ROWS;
        samples[i] = (EvalSample){.row = row,
                                  .text = "#### 4",
                                  .n_text = 6,
                                  .answer = "4",
                                  .extractor = i < FIXTURE_ROWS ? "reward" : "strict",
                                  .correct = fixture_verdict(row, skill) != 0,
                                  .n_tokens = 2,
                                  .score = fixture_verdict(row, skill)};
    }
    fixture_check(store_evaluations(store, evaluations, 2, samples, 2 * FIXTURE_ROWS, 1e9, &error),
                  &error);
}

static inline void fixture_run(Store *store, const char *experiment, const char *run_id,
                               const char *method, int64_t budget, double lr, int64_t seed,
                               double skill, bool fails)
{
    Error error = {0};
    Text config = {0}, lr_text = {0}, seed_text = {0};
    text_printf(&lr_text, "%.17g", lr);
    text_printf(&seed_text, "%d", (int)seed);
    const Param params[] = {{"data.train", "\"/home/somebody/data/train.jsonl\""},
                            {"method", method[0] == 's' ? "\"sft\"" : "\"grpo\""},
                            {"optimizer.lr", lr_text.bytes},
                            {"seed", seed_text.bytes}};
    RunInfo info = {
        .run_id = run_id,
        .experiment = experiment,
        .identity = "{\"data.train_sha256\": \"ea81db6c\", \"model.weights_sha256\": \"c50c9036\"}",
        .config = "{}",
        .model = "models/tiny",
        .method = method,
        .adapter = "tinylora",
        .budget = budget,
        .lr = lr,
        .seed = seed,
        .steps = FIXTURE_STEPS,
        .params = params,
        .n_params = 4};
    RunState state;
    int64_t last_step, attempt;
    Worker worker = {"host", 1, "boot", "{}"};
    fixture_check(store_run(store, &info, 1e9, &state, &last_step, &error), &error);
    fixture_check(store_attempt_begin(store, run_id, &worker, 1e9, 60, &attempt, &error), &error);
    for (int step = 1; step <= (fails ? 3 : FIXTURE_STEPS); step++) {
        double reward = 0.25 + skill * step / FIXTURE_STEPS * 0.5 + 0.01 * (double)seed;
        const Metric metrics[] = {{"reward", reward},
                                  {"loss", 2 - reward},
                                  {"grad_norm", fails && step == 3 ? NAN : 0.1 / step},
                                  {"entropy", 0.3},
                                  {"frac_reward_zero_std", 0.5},
                                  {"clip_ratio/region_mean", 0},
                                  {"sampling/sampling_logp_difference/max", 0},
                                  {"completions/clipped_ratio", 0.125},
                                  {"it's \"quoted\"", 1}};
        const int32_t ids[] = {1, 2, 3};
        const double logprobs[] = {-0.1, -0.2, -0.3};
        CompletionRow completions[4];
        for (int i = 0; i < 4; i++) {
            completions[i] = (CompletionRow){.prompt_row = step % 7,
                                             .prompt = i / 2,
                                             .sample = i % 2,
                                             .prompt_text = "2 + 2 = \xc2\xbf?",
                                             .text = "a,\"b\"\r\n\xaf|",
                                             .n_text = 9,
                                             .ids = ids,
                                             .n_ids = 1 + (i + step) % 3,
                                             .logprobs = logprobs,
                                             .reward = (i + step) % 2,
                                             .advantage = 0.31 * i,
                                             .finish = "stop"};
        }
        StepRecord record = {.run_id = run_id,
                             .attempt = attempt,
                             .step = step,
                             .metrics = metrics,
                             .n_metrics = 9,
                             .completions = completions,
                             .n_completions = method[0] == 's' ? 0 : 4,
                             .now_s = 1e9};
        fixture_check(store_steps(store, &record, 1, &error), &error);
    }
    fixture_check(store_attempt_end(store, run_id, attempt, fails ? "failed" : "done", 1e9, &error),
                  &error);
    fixture_check(store_run_end(store, run_id, fails ? RUN_FAILED : RUN_DONE,
                                fails ? "the loss of step 4 is <nan> & not finite" : NULL,
                                fails ? NAN : skill, fails ? NAN : 0.07, 1e9, &error),
                  &error);
    text_release(&config);
    text_release(&lr_text);
    text_release(&seed_text);
}

/* z = a bowl; (1, 2) is a hole, row 3 is not done. */
static inline double fixture_loss(int i, int j)
{
    return 1.25 + 0.31 * (i - 2) * (i - 2) + 0.0427 * (j - 1) * (j - 1) + 0.017 * i * j;
}

static inline void fixture_surface(Store *store)
{
    Error error = {0};
    const double plane[] = {0, 0, 1, 0, 0, 1};
    const int order[] = {0, 1, 2, 4, 3};
    SurfaceInfo info = {.surface_id = FIXTURE_SURFACE,
                        .experiment = FIXTURE_SWEEP,
                        .identity = "{\"scan.rows\": 128}",
                        .config = "{\"method\": \"scan\"}",
                        .model = "models/tiny",
                        .n_parameters = 2,
                        .plane = plane,
                        .metrics = "[\"loss\", \"accuracy\"]",
                        .x_label = "v_1",
                        .y_label = "v_2",
                        .nx = FIXTURE_NX,
                        .ny = FIXTURE_NY,
                        .x_min = -0.1,
                        .x_max = 0.1,
                        .y_min = -0.3,
                        .y_max = 0.6};
    RunState state;
    Worker worker = {"host", 1, "boot", "{}"};
    fixture_check(store_surface(store, &info, 1e9, &state, &error), &error);
    for (int done = 0; done < 4; done++) {
        SurfaceLease lease;
        SurfaceValue values[3 * FIXTURE_NY];
        bool kept;
        fixture_check(store_surface_claim(store, FIXTURE_SURFACE, &worker, order, FIXTURE_NX, 1,
                                          1e9, 60, &lease, &error),
                      &error);
        for (int k = 0; k < 3 * FIXTURE_NY; k++) {
            static const char *const names[] = {"loss", "accuracy", "loss_se"};
            int j = k / 3;
            double loss = fixture_loss(lease.i, j);
            double value[] = {lease.i == 1 && j == 2 ? NAN : loss, 1 / (1 + loss), 0.021};
            values[k] = (SurfaceValue){j, names[k % 3], -0.1 + 0.05 * lease.i, -0.3 + 0.3 * j,
                                       value[k % 3]};
        }
        fixture_check(store_surface_commit(store, FIXTURE_SURFACE, &lease, values, 3 * FIXTURE_NY,
                                           1e9, &kept, &error),
                      &error);
    }
    const SurfaceMark marks[] = {{"base", "", "loss", 0, 0, 0, 0, 1.31},
                                 {"base", "", "accuracy", 0, 0, 0, 0, 0.4375},
                                 {"best", "", "loss", 0, 0, 0, 0, 1.284},
                                 {"minimum", "", "loss", 0, 0.003, 0.011, 0, 1.2421},
                                 {"minimum", "", "loss_se", 0, 0.003, 0.011, 0, 0.031},
                                 {"minimum", "", "gain", 0, 0.003, 0.011, 0, 0.0679},
                                 {"minimum", "", "gain_se", 0, 0.003, 0.011, 0, 0.0127},
                                 {"minimum", "", "p_value", 0, 0.003, 0.011, 0, 3.1e-7},
                                 {"path", "aaaa000000000001", "", 1, 0.01, 0.02, 0.001, NAN},
                                 {"path", "aaaa000000000001", "", 2, 0.02, 0.05, 0.002, NAN}};
    fixture_check(
        store_surface_marks(store, FIXTURE_SURFACE, marks, sizeof marks / sizeof *marks, &error),
        &error);
    SurfaceSlice slices[2 * 9];
    for (int k = 0; k < 18; k++) {
        double t = -0.04 + 0.01 * (k % 9);
        slices[k] = (SurfaceSlice){k < 9 ? "x" : "y", "loss",        k % 9,       t,
                                   k < 9 ? t : 0,     k < 9 ? 0 : t, 1.24 + t * t};
    }
    fixture_check(store_surface_slices(store, FIXTURE_SURFACE, slices, 18, &error), &error);
    const double first[] = {0.6, 0.8}, second[] = {-0.8, 0.6};
    const SurfaceEigen pairs[] = {{"minimum", 0, 8.25, first}, {"minimum", 1, 3.5, second}};
    fixture_check(store_surface_eigen(store, FIXTURE_SURFACE, pairs, 2, &error), &error);
}

/* "results.db" in a folder of its own, which becomes the working directory. */
static inline int fixture_setup(void **state)
{
    (void)state;
    Error error = {0};
    Store *store;
    if (!mkdtemp(fixture_folder) || chdir(fixture_folder)) {
        return 1;
    }
    fixture_check(store_open(&store, "results.db", STORE_WRITE, 0, &error), &error);
    fixture_check(store_experiment(store, FIXTURE_SWEEP, "{}", 1e9, &error), &error);
    fixture_check(store_experiment(store, FIXTURE_OTHER, "{}", 1e9, &error), &error);
    fixture_evaluate(store, "base:c50c:0000", 0, 0.25, NULL);
    for (int k = 0; k < 8; k++) {
        char run_id[17];
        snprintf(run_id, sizeof run_id, "aaaa%012d", k);
        double lr = k % 4 < 2 ? 0.01 : 0.05, skill = 0.3 + 0.05 * k;
        fixture_run(store, FIXTURE_SWEEP, run_id, "grpo", k < 4 ? 2 : 13, lr, 1 + k % 2, skill,
                    false);
        fixture_evaluate(store, run_id, FIXTURE_STEPS, skill, "base:c50c:0000");
    }
    fixture_run(store, FIXTURE_SWEEP, "bbbb000000000000", "grpo", 13, 10, 1, 0, true);
    fixture_run(store, FIXTURE_OTHER, "cccc000000000000", "sft", 13, 0.002, 1, 0.4, false);
    fixture_evaluate(store, "cccc000000000000", FIXTURE_STEPS, 0.4, "base:c50c:0000");
    fixture_surface(store);
    store_close(store);
    return 0;
}

static inline int fixture_teardown(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", fixture_folder);
    return chdir("/") || system(command);
}

/* The whole file, NUL-terminated; free it. n may be NULL. */
static inline char *fixture_slurp(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "%s is not there\n", path);
        abort();
    }
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(size + 1);
    if (!bytes || fread(bytes, 1, size, file) != size) {
        abort();
    }
    bytes[size] = 0;
    fclose(file);
    if (n) {
        *n = size;
    }
    return bytes;
}

/* Debian's Python runs the script; false, saying so, where it lacks a module. modules: "a, b". */
static inline bool fixture_python(const char *modules, const char *script, const char *arguments)
{
    char command[1024];
    snprintf(command, sizeof command, "/usr/bin/python3 -c 'import %s' 2> /dev/null", modules);
    if (system(command) != 0) {
        fprintf(stderr, "skipped: /usr/bin/python3 has no %s\n", modules);
        return false;
    }
    snprintf(command, sizeof command, "/usr/bin/python3 '%s' %s", script, arguments);
    if (system(command) != 0) {
        fail_msg("%s %s", script, arguments);
    }
    return true;
}
