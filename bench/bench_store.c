/* Times the commit of training steps: a transaction of metrics, completions and the whole
 * checkpoint, as fusion stores it. bench_store FILE RUNS COMPLETIONS TOKENS PARAMETERS REPEATS
 * FILE: a new results.db, on the disk to be measured; it is removed. RUNS are committed together,
 * each with its own rows. Prints one line: ms a commit: best, median, 95th percentile; KiB a run
 * and step. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "results/store.h"

enum { MAX_RUNS = 32, N_METRICS = 30 };

static void check(Status status, const Error *error)
{
    if (status) {
        fprintf(stderr, "bench_store: %s\n", error->message);
        exit(1);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double one = *(const double *)a, other = *(const double *)b;
    return (one > other) - (one < other);
}

static void *allocate(size_t n, size_t size)
{
    void *memory = calloc(n, size);
    if (!memory) {
        exit(1);
    }
    return memory;
}

/* A run with its attempt. */
static void begin_run(Store *store, char run_id[17], int64_t *attempt, int i)
{
    Error error;
    RunState state;
    int64_t last;
    Worker worker = {.host = "h", .pid = getpid(), .boot_id = "b", .environment = "{}"};
    snprintf(run_id, 17, "%016x", i + 1);
    RunInfo info = {.run_id = run_id,
                    .experiment = "bench",
                    .identity = run_id,
                    .config = "{}",
                    .model = "m",
                    .method = "grpo",
                    .adapter = "tinylora",
                    .budget = 13,
                    .steps = 1000000};
    check(store_run(store, &info, 1, &state, &last, &error), &error);
    check(store_attempt_begin(store, run_id, &worker, 1, 0, attempt, &error), &error);
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: bench_store FILE RUNS COMPLETIONS TOKENS PARAMETERS REPEATS\n");
        return 2;
    }
    int n_runs = atoi(argv[2]), n_completions = atoi(argv[3]), n_tokens = atoi(argv[4]);
    int repeats = atoi(argv[6]);
    size_t n_bytes = 48 + 12 * (size_t)atol(argv[5]) + 64; /* v and two moments */
    Error error;
    Store *store;
    static char run_ids[MAX_RUNS][17], keys[N_METRICS][40];
    int64_t attempts[MAX_RUNS];
    Metric metrics[N_METRICS];
    StepRecord records[MAX_RUNS];
    CompletionRow *completions = allocate((size_t)n_completions + 1, sizeof *completions);
    int32_t *ids = allocate((size_t)n_tokens + 1, sizeof *ids);
    double *logprobs = allocate((size_t)n_tokens + 1, sizeof *logprobs);
    char *text = allocate((size_t)n_tokens * 4 + 1, 1), *checkpoint = allocate(n_bytes, 1);
    double *times = allocate((size_t)repeats, sizeof *times);
    memset(text, 'x', (size_t)n_tokens * 4);
    if (n_runs < 1 || n_runs > MAX_RUNS || repeats < 1) {
        return 2;
    }
    unlink(argv[1]);
    check(store_open(&store, argv[1], STORE_WRITE, 0, &error), &error);
    check(store_experiment(store, "bench", "{}", 1, &error), &error);
    for (int i = 0; i < N_METRICS; i++) {
        snprintf(keys[i], sizeof keys[i], "completions/metric_%d", i);
        metrics[i] = (Metric){keys[i], 0.31 * i};
    }
    for (int i = 0; i < n_completions; i++) {
        completions[i] = (CompletionRow){.prompt = i / 8,
                                         .sample = i % 8,
                                         .prompt_text = "Ben has 2 cards, finds 1. How many?",
                                         .text = text,
                                         .n_text = (size_t)n_tokens * 4,
                                         .ids = ids,
                                         .n_ids = n_tokens,
                                         .logprobs = logprobs,
                                         .reward = 1,
                                         .extracted = "{\"strict\":\"2\"}",
                                         .finish = "stop"};
    }
    for (int i = 0; i < n_runs; i++) {
        begin_run(store, run_ids[i], &attempts[i], i);
    }
    for (int step = 0; step < repeats; step++) {
        for (int i = 0; i < n_runs; i++) {
            checkpoint[0] = (char)step;
            records[i] = (StepRecord){.run_id = run_ids[i],
                                      .attempt = attempts[i],
                                      .step = step,
                                      .metrics = metrics,
                                      .n_metrics = N_METRICS,
                                      .completions = completions,
                                      .n_completions = (size_t)n_completions,
                                      .checkpoint = checkpoint,
                                      .checkpoint_bytes = n_bytes,
                                      .now_s = step};
        }
        double began = now();
        check(store_steps(store, records, (size_t)n_runs, &error), &error);
        times[step] = 1e3 * (now() - began);
    }
    store_close(store);
    qsort(times, (size_t)repeats, sizeof *times, by_size);
    double bytes = (double)n_completions * n_tokens * 16 + (double)n_bytes;
    printf("%.2f %.2f %.2f ms, %.0f KiB a run and step\n", times[0], times[repeats / 2],
           times[repeats * 95 / 100], bytes / 1024);
    char lock[4096];
    snprintf(lock, sizeof lock, "%s-lock", argv[1]);
    unlink(argv[1]);
    unlink(lock);
    free(completions), free(ids), free(logprobs), free(text), free(checkpoint), free(times);
    return 0;
}
