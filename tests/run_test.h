/* A run of results.db with an attempt, and its steps. */
#pragma once
#include "tests/results_test.h"

static const Param params[] = {{"optimizer.lr", "0.0002"}, {"method", "\"grpo\""}};
static const RunInfo info = {.run_id = "00aa11bb22cc33dd",
                             .experiment = "e",
                             .identity = "{\"a\":1}",
                             .config = "{}",
                             .model = "abacus",
                             .method = "grpo",
                             .adapter = "tinylora",
                             .budget = 13,
                             .lr = 2e-4,
                             .seed = 7,
                             .steps = 100,
                             .params = params,
                             .n_params = 2};
static const Worker worker = {
    .host = "h1", .pid = 11, .boot_id = "boot-1", .environment = "{\"threads\":2}"};

static inline Store *open_with_run(int64_t *attempt)
{
    Store *store = NULL;
    RunState state;
    int64_t last;
    assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
    assert_ok(store_experiment(store, "e", "{}", 1.0, error));
    assert_ok(store_run(store, &info, 2.0, &state, &last, error));
    assert_ok(store_attempt_begin(store, info.run_id, &worker, 3.0, 60.0, attempt, error));
    return store;
}

static const double logprobs[] = {-0.31, -1.27, -2.385};
static const int32_t ids[] = {5, 70000, 2};

static inline CompletionRow completion_at(int prompt, int sample)
{
    return (CompletionRow){.prompt_row = 3,
                           .prompt = prompt,
                           .sample = sample,
                           .prompt_text = "1+1?",
                           .text = "\xc3" /* half a character */,
                           .n_text = 1,
                           .ids = ids,
                           .n_ids = 3,
                           .logprobs = logprobs,
                           .reward = 1.0,
                           .advantage = 0.5,
                           .extracted = "{\"strict\":\"2\"}",
                           .finish = "stop"};
}

static inline StepRecord record_at(int64_t attempt, int64_t step, const Metric *metrics,
                                   size_t n_metrics, const CompletionRow *completions,
                                   size_t n_completions, const void *checkpoint, size_t n_bytes)
{
    return (StepRecord){.run_id = info.run_id,
                        .attempt = attempt,
                        .step = step,
                        .metrics = metrics,
                        .n_metrics = n_metrics,
                        .completions = completions,
                        .n_completions = n_completions,
                        .checkpoint = checkpoint,
                        .checkpoint_bytes = n_bytes,
                        .now_s = 10.0 + (double)step};
}
