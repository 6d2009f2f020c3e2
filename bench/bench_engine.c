/* Times the engine on one model directory, one task a process so that the peak of memory is the
 * task's own:
 *   bench_engine MODEL THREADS REPEATS decode SEQUENCES NEW     tokens/s after a prompt of 128
 *   bench_engine MODEL THREADS REPEATS prefill TOKENS           tokens/s of one sequence
 *   bench_engine MODEL THREADS REPEATS train SEQUENCES TOKENS [ADAPTERS]
 *                                             s a step of SFT with 13 scalars, sequences dealt out
 * to as many adapters Prints one line: task, unit, best, median, peak MiB after loading, peak MiB
 * at the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "adapters/adapter.h"
#include "core/engine.h"
#include "core/generate.h"
#include "core/model.h"
#include "core/random.h"

enum { PROMPT = 128, BUDGET = 13, RANK = 2, MAX_REPEATS = 1000 };

static void give_up(const char *message)
{
    fprintf(stderr, "bench_engine: %s\n", message);
    exit(1);
}

static void check(Status status, const Error *error)
{
    if (status) {
        give_up(error->message);
    }
}

static void *take(size_t n, size_t size)
{
    void *memory = calloc(n, size);
    if (!memory) {
        give_up("no memory");
    }
    return memory;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double peak_mib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

static void random_tokens(int32_t *tokens, int n, int vocab_size, uint32_t row)
{
    RandomKey key = {1, RANDOM_DATA};
    for (int i = 0; i < n; i++) {
        tokens[i] = (int32_t)(random_uniform(key, row, (uint32_t)i, 0, 0) * vocab_size);
    }
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* larger_is_better decides which end of the sorted values is the best. */
static void report(const char *task, const char *unit, double *values, int n, int larger_is_better,
                   double loaded_mib)
{
    qsort(values, (size_t)n, sizeof *values, compare);
    double median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
    printf("%s %s %.4f %.4f %.0f %.0f\n", task, unit, larger_is_better ? values[n - 1] : values[0],
           median, loaded_mib, peak_mib());
}

/* ---- decode -------------------------------------------------------------------------------- */

typedef struct {
    double first, last;
    long first_tokens, last_tokens;
    int n_calls;
} Clock;

/* The first call comes after the prompt is computed and one token a sequence is drawn. */
static int tick(void *context, int n_finished, int n_requests, long n_tokens)
{
    (void)n_finished;
    (void)n_requests;
    Clock *clock = context;
    clock->last = now();
    clock->last_tokens = n_tokens;
    if (clock->n_calls++ == 0) {
        clock->first = clock->last;
        clock->first_tokens = n_tokens;
    }
    return 0;
}

static double decode_once(Engine *engine, const int32_t *prompt, int n_sequences, int n_new)
{
    GenerateRequest *requests = take((size_t)n_sequences, sizeof *requests);
    Completion *completions = take((size_t)n_sequences, sizeof *completions);
    for (int i = 0; i < n_sequences; i++) {
        requests[i] = (GenerateRequest){.prompt = prompt,
                                        .n_prompt = PROMPT,
                                        .temperature = 1,
                                        .top_p = 1,
                                        .max_new = n_new,
                                        .key = {1, RANDOM_SAMPLE},
                                        .sample = (uint32_t)i};
    }
    Clock clock = {0};
    GenerateOptions options = {
        .max_active = n_sequences, .progress = tick, .progress_context = &clock};
    Error error;
    check(generate(engine, NULL, requests, n_sequences, &options, completions, &error), &error);
    for (int i = 0; i < n_sequences; i++) {
        completion_release(&completions[i]);
    }
    free(completions);
    free(requests);
    return (double)(clock.last_tokens - clock.first_tokens) / (clock.last - clock.first);
}

static void decode(const Model *model, Engine *engine, int repeats, int n_sequences, int n_new)
{
    double *rates = take((size_t)repeats, sizeof *rates), loaded = peak_mib();
    int32_t prompt[PROMPT];
    random_tokens(prompt, PROMPT, model->config.vocab_size, 0);
    decode_once(engine, prompt, n_sequences, 2); /* touches all memory once */
    for (int r = 0; r < repeats; r++) {
        rates[r] = decode_once(engine, prompt, n_sequences, n_new);
    }
    report("decode", "tokens/s", rates, repeats, 1, loaded);
    free(rates);
}

/* ---- prefill ------------------------------------------------------------------------------- */

static void prefill(const Model *model, Engine *engine, int repeats, int n_tokens)
{
    double *rates = take((size_t)repeats, sizeof *rates), loaded = peak_mib();
    int32_t *tokens = take((size_t)n_tokens, sizeof *tokens);
    uint8_t *scored = take((size_t)n_tokens, 1);
    double *logprobs = take((size_t)n_tokens, sizeof *logprobs);
    random_tokens(tokens, n_tokens, model->config.vocab_size, 0);
    scored[n_tokens - 1] = 1;
    Sequence sequence = {.tokens = tokens,
                         .n_tokens = n_tokens,
                         .parent = -1,
                         .scored = scored,
                         .logprobs = logprobs};
    Batch batch = {.sequences = &sequence, .n_sequences = 1};
    Error error;
    for (int r = -1; r < repeats; r++) { /* -1: touches all memory once */
        double start = now();
        check(engine_evaluate(engine, &batch, &error), &error);
        if (r >= 0) {
            rates[r] = n_tokens / (now() - start);
        }
    }
    report("prefill", "tokens/s", rates, repeats, 1, loaded);
    free(logprobs);
    free(scored);
    free(tokens);
    free(rates);
}

/* ---- train --------------------------------------------------------------------------------- */

/* Cross-entropy, the mean over all supervised tokens. */
static TokenWeight weigh(void *context, int sequence, int position, double logprob, double entropy)
{
    (void)sequence;
    (void)position;
    (void)logprob;
    (void)entropy;
    return (TokenWeight){.dlogprob = *(const double *)context};
}

/* u = 1, 13 groups, tiled, as the paper has it. */
static Plan budget_plan(const ModelConfig *config, unsigned targets)
{
    Module *modules = take((size_t)config->n_layers * N_ROLES, sizeof *modules);
    int n_modules = plan_modules(modules, config, targets);
    Plan plan = {.rank = RANK, .u = 1, .groups = BUDGET, .tie = TIE_TILED};
    Error error;
    if (plan_complete(&plan, modules, n_modules, &error)) {
        plan.grouping = GROUPING_BALANCED;
        check(plan_complete(&plan, modules, n_modules, &error), &error);
    }
    free(modules);
    return plan;
}

/* method: tinylora of 13 scalars on all layers, or lora, lora-xs on all, lora-qv on q and v, with
 * alpha = 2 rank; -dropout: of 0.05. */
static AdapterSpec spec_of(const ModelConfig *config, const char *method, int rank)
{
    unsigned targets =
        strncmp(method, "lora-qv", 7) == 0 ? 1u << ROLE_Q | 1u << ROLE_V : (1u << N_ROLES) - 1;
    AdapterSpec spec = {.method = method, .targets = targets, .seed = 13, .scale = 1};
    if (strcmp(method, "tinylora") == 0) {
        spec.plan = budget_plan(config, targets);
    } else {
        spec.method = strcmp(method, "lora-xs") == 0 ? "lora-xs" : "lora";
        spec.plan.rank = rank;
        spec.scale = 2;
        spec.dropout = strstr(method, "-dropout") ? 0.05 : 0;
    }
    return spec;
}

static void train(Model *model, Engine *engine, int repeats, int n_sequences, int n_tokens,
                  int n_adapters, const char *method, int rank)
{
    double *seconds = take((size_t)repeats, sizeof *seconds), loaded = peak_mib();
    int32_t *tokens = take((size_t)n_sequences * n_tokens, sizeof *tokens);
    uint8_t *scored = take((size_t)n_tokens, 1);
    Sequence *sequences = take((size_t)n_sequences, sizeof *sequences);
    memset(scored + 1, 1, (size_t)n_tokens - 1);
    for (int i = 0; i < n_sequences; i++) {
        int32_t *row = tokens + (size_t)i * n_tokens;
        random_tokens(row, n_tokens, model->config.vocab_size, (uint32_t)i);
        sequences[i] = (Sequence){.tokens = row,
                                  .n_tokens = n_tokens,
                                  .parent = -1,
                                  .adapter = 1 + i * n_adapters / n_sequences,
                                  .scored = scored,
                                  .key = 1 + (uint64_t)i};
    }
    Error error;
    AdapterBank *bank;
    AdapterSpec spec = spec_of(&model->config, method, rank);
    check(adapter_bank_new(&bank, model, &spec, n_adapters, engine_threads(engine), NULL, NULL,
                           NULL, &error),
          &error);
    size_t n = adapter_parameters(bank);
    float *values = take((size_t)n_adapters * n, sizeof *values);
    double *gradient = take(n, sizeof *gradient);
    double each = -1.0 / ((double)n_sequences * (n_tokens - 1));
    for (int a = 0; a < n_adapters; a++) {
        adapter_initial(bank, values + (size_t)a * n);
        adapter_set(bank, a + 1, values + (size_t)a * n, engine_threads(engine));
    }
    Batch batch = {.sequences = sequences,
                   .n_sequences = n_sequences,
                   .hook = adapter_hook(bank),
                   .weigh = weigh,
                   .weigh_context = &each};
    for (int r = -1; r < repeats; r++) {
        double start = now();
        adapter_clear_gradients(bank);
        check(engine_evaluate(engine, &batch, &error), &error);
        for (int a = 0; a < n_adapters; a++) {
            float *v = values + (size_t)a * n;
            adapter_gradient(bank, a + 1, gradient);
            for (size_t i = 0; i < n; i++) {
                v[i] -= (float)(1e-3 * gradient[i]);
            }
            adapter_set(bank, a + 1, v, engine_threads(engine));
        }
        if (r >= 0) {
            seconds[r] = now() - start;
        }
    }
    report("train", "s/step", seconds, repeats, 0, loaded);
    adapter_bank_free(bank);
    free(gradient);
    free(values);
    free(sequences);
    free(scored);
    free(tokens);
    free(seconds);
}

static int number(const char *text)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || value < 1 || value > 1 << 20) {
        give_up("a number from 1 to 1048576 is expected");
    }
    return (int)value;
}

int main(int argc, char **argv)
{
    const char *task = argc > 4 ? argv[4] : "";
    int is_prefill = strcmp(task, "prefill") == 0, is_train = strcmp(task, "train") == 0;
    if (argc != (is_prefill ? 6 : 7) && !(is_train && (argc == 8 || argc == 10))) {
        give_up("usage: bench_engine MODEL THREADS REPEATS decode SEQUENCES NEW | prefill TOKENS | "
                "train SEQUENCES TOKENS [ADAPTERS [lora|lora-qv|lora-qv-dropout|lora-xs RANK]]");
    }
    int n_threads = number(argv[2]), repeats = number(argv[3]), a = number(argv[5]);
    int b = is_prefill ? 0 : number(argv[6]), n_adapters = argc >= 8 ? number(argv[7]) : 1;
    const char *method = argc == 10 ? argv[8] : "tinylora";
    int rank = argc == 10 ? number(argv[9]) : 0;
    if (repeats > MAX_REPEATS || (!is_prefill && b < 2)) {
        give_up("at most 1000 repeats, at least 2 tokens");
    }
    Model *model;
    Engine *engine;
    Error error;
    check(model_open(&model, argv[1], n_threads, &error), &error);
    check(engine_new(&engine, model, n_threads, 0, &error), &error);
    if (is_prefill) {
        prefill(model, engine, repeats, a);
    } else if (is_train) {
        train(model, engine, repeats, a, b, n_adapters, method, rank);
    } else if (strcmp(task, "decode") == 0) {
        decode(model, engine, repeats, a, b);
    } else {
        give_up("the task is decode, prefill or train");
    }
    engine_free(engine);
    model_free(model);
    return 0;
}
