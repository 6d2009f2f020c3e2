/* Times the engine on one model directory, one task a process so that the peak of memory is the
 * task's own:
 *   bench_engine MODEL THREADS REPEATS decode SEQUENCES NEW     tokens/s after a prompt of 128
 *   bench_engine MODEL THREADS REPEATS prefill TOKENS           tokens/s of one sequence
 *   bench_engine MODEL THREADS REPEATS train SEQUENCES TOKENS [ADAPTERS]
 *                                             s a step of SFT with 13 scalars, sequences dealt out
 *                                             to as many adapters
 *   bench_engine MODEL THREADS REPEATS overhead SEQUENCES TOKENS [METHOD RANK]
 *                                             % of that step that the adapter is, see below
 *   bench_engine MODEL THREADS REPEATS group COMPLETIONS PROMPT NEW
 *                                             s a step with a shared prompt and with one each
 * Prints one line: task, unit, best, median, peak MiB after loading, peak MiB at the end. */
#include <stdatomic.h>
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

/* Leaves the values sorted. */
static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* larger_is_better decides which end of the sorted values is the best. */
static void report(const char *task, const char *unit, double *values, int n, int larger_is_better,
                   double loaded_mib)
{
    double middle = median(values, n);
    printf("%s %s %.4f %.4f %.0f %.0f\n", task, unit, larger_is_better ? values[n - 1] : values[0],
           middle, loaded_mib, peak_mib());
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

/* A training step over random tokens, adapter by adapter. */
typedef struct {
    AdapterBank *bank;
    Engine *engine;
    int n_adapters;
    size_t n; /* parameters of an adapter */
    float *values;
    double *gradient, each;
    int32_t *tokens;
    uint8_t *scored;
    Sequence *sequences;
    Batch batch;
} Training;

/* The adapters and the batch, where the sequences are there. */
static void training_open(Training *t, Model *model, int n_sequences, const char *method, int rank)
{
    Error error;
    AdapterSpec spec = spec_of(&model->config, method, rank);
    check(adapter_bank_new(&t->bank, model, &spec, t->n_adapters, engine_threads(t->engine), NULL,
                           NULL, NULL, &error),
          &error);
    t->n = adapter_parameters(t->bank);
    t->values = take((size_t)t->n_adapters * t->n, sizeof *t->values);
    t->gradient = take(t->n, sizeof *t->gradient);
    for (int a = 0; a < t->n_adapters; a++) {
        adapter_initial(t->bank, t->values + (size_t)a * t->n);
        adapter_set(t->bank, a + 1, t->values + (size_t)a * t->n, engine_threads(t->engine));
    }
    t->batch = (Batch){.sequences = t->sequences,
                       .n_sequences = n_sequences,
                       .hook = adapter_hook(t->bank),
                       .weigh = weigh,
                       .weigh_context = &t->each};
}

static void training_init(Training *t, Model *model, Engine *engine, int n_sequences, int n_tokens,
                          int n_adapters, const char *method, int rank)
{
    *t = (Training){.engine = engine, .n_adapters = n_adapters};
    t->each = -1.0 / ((double)n_sequences * (n_tokens - 1));
    t->tokens = take((size_t)n_sequences * n_tokens, sizeof *t->tokens);
    t->scored = take((size_t)n_tokens, 1);
    t->sequences = take((size_t)n_sequences, sizeof *t->sequences);
    memset(t->scored + 1, 1, (size_t)n_tokens - 1);
    for (int i = 0; i < n_sequences; i++) {
        int32_t *row = t->tokens + (size_t)i * n_tokens;
        random_tokens(row, n_tokens, model->config.vocab_size, (uint32_t)i);
        t->sequences[i] = (Sequence){.tokens = row,
                                     .n_tokens = n_tokens,
                                     .parent = -1,
                                     .adapter = 1 + i * n_adapters / n_sequences,
                                     .scored = t->scored,
                                     .key = 1 + (uint64_t)i};
    }
    training_open(t, model, n_sequences, method, rank);
}

/* A group: completions of n_new tokens, all scored, of one prompt, which they share or have one
 * each. */
static void training_init_group(Training *t, Model *model, Engine *engine, int n_completions,
                                int n_prompt, int n_new, bool shared)
{
    int n_tokens = n_prompt + n_new, first = shared ? 1 : 0;
    *t = (Training){.engine = engine, .n_adapters = 1};
    t->each = -1.0 / ((double)n_completions * n_new);
    t->tokens = take((size_t)n_completions * n_tokens, sizeof *t->tokens);
    t->scored = take((size_t)n_tokens, 1);
    t->sequences = take((size_t)n_completions + 1, sizeof *t->sequences);
    memset(t->scored + n_prompt, 1, (size_t)n_new);
    for (int i = 0; i < n_completions; i++) {
        int32_t *row = t->tokens + (size_t)i * n_tokens;
        random_tokens(row, n_tokens, model->config.vocab_size, (uint32_t)i);
        memcpy(row, t->tokens, (size_t)n_prompt * sizeof *row);
        t->sequences[first + i] = (Sequence){.tokens = shared ? row + n_prompt : row,
                                             .n_tokens = shared ? n_new : n_tokens,
                                             .parent = shared ? 0 : -1,
                                             .adapter = 1,
                                             .scored = t->scored + (shared ? n_prompt : 0)};
    }
    if (shared) {
        t->sequences[0] =
            (Sequence){.tokens = t->tokens, .n_tokens = n_prompt, .parent = -1, .adapter = 1};
    }
    training_open(t, model, n_completions + first, "tinylora", RANK);
}

static void training_release(Training *t)
{
    adapter_bank_free(t->bank);
    free(t->gradient);
    free(t->values);
    free(t->sequences);
    free(t->scored);
    free(t->tokens);
}

/* Returns the seconds that it took. */
static double training_step(Training *t)
{
    Error error;
    double start = now();
    adapter_clear_gradients(t->bank);
    check(engine_evaluate(t->engine, &t->batch, &error), &error);
    for (int a = 0; a < t->n_adapters; a++) {
        float *v = t->values + (size_t)a * t->n;
        adapter_gradient(t->bank, a + 1, t->gradient);
        for (size_t i = 0; i < t->n; i++) {
            v[i] -= (float)(1e-3 * t->gradient[i]);
        }
        adapter_set(t->bank, a + 1, v, engine_threads(t->engine));
    }
    return now() - start;
}

static void train(Model *model, Engine *engine, int repeats, int n_sequences, int n_tokens,
                  int n_adapters, const char *method, int rank)
{
    double *seconds = take((size_t)repeats, sizeof *seconds), loaded = peak_mib();
    Training training;
    training_init(&training, model, engine, n_sequences, n_tokens, n_adapters, method, rank);
    for (int r = -1; r < repeats; r++) {
        double step = training_step(&training);
        if (r >= 0) {
            seconds[r] = step;
        }
    }
    report("train", "s/step", seconds, repeats, 0, loaded);
    training_release(&training);
    free(seconds);
}

/* ---- overhead ------------------------------------------------------------------------------ */

/* The step with the adapter's hook against the step with one that adds nothing, and whose backward
 * reaches as deep: one after the other, so that a busy machine slows both. And the time inside the
 * hook's calls, of all threads that they had. */
typedef struct {
    const LinearHook *hook;
    _Atomic long nanoseconds; /* of processor time */
} Watch;

static void add_time(Watch *watch, double start, int n_threads)
{
    atomic_fetch_add(&watch->nanoseconds, (long)(1e9 * (now() - start) * n_threads));
}

static int watched_width(const void *context, int module)
{
    const LinearHook *hook = ((const Watch *)context)->hook;
    return hook->saved_width(hook->context, module);
}

static void watched_forward(void *context, int module, const HookForward *call,
                            const RowSpan *spans, int n_spans, int n_threads)
{
    Watch *watch = context;
    double start = now();
    watch->hook->forward(watch->hook->context, module, call, spans, n_spans, n_threads);
    add_time(watch, start, n_threads);
}

static void watched_backward(void *context, int module, const HookBackward *call,
                             const RowSpan *spans, int n_spans, int n_threads)
{
    Watch *watch = context;
    double start = now();
    watch->hook->backward(watch->hook->context, module, call, spans, n_spans, n_threads);
    add_time(watch, start, n_threads);
}

static Status watched_begin(void *context, const RowSpan *spans, int n_spans, Error *error)
{
    Watch *watch = context;
    return watch->hook->begin ? watch->hook->begin(watch->hook->context, spans, n_spans, error)
                              : STATUS_OK;
}

static void watched_end(void *context, const RowSpan *spans, int n_spans)
{
    Watch *watch = context;
    if (watch->hook->end) {
        watch->hook->end(watch->hook->context, spans, n_spans);
    }
}

static int no_width(const void *context, int module)
{
    (void)context;
    (void)module;
    return 0;
}

/* Prints: task, unit, by the best steps, by the medians, inside the hook's calls, peak MiB. */
static void overhead(Model *model, Engine *engine, int repeats, int n_sequences, int n_tokens,
                     const char *method, int rank)
{
    double *with = take((size_t)repeats, sizeof *with);
    double *without = take((size_t)repeats, sizeof *without);
    double *inside = take((size_t)repeats, sizeof *inside);
    Training training;
    training_init(&training, model, engine, n_sequences, n_tokens, 1, method, rank);
    const LinearHook *hook = training.batch.hook;
    LinearHook nothing = {
        .ordered = hook->ordered, .lowest_layer = hook->lowest_layer, .saved_width = no_width};
    Watch watch = {.hook = hook};
    LinearHook watched = {.context = &watch,
                          .needs_input = hook->needs_input,
                          .ordered = hook->ordered,
                          .lowest_layer = hook->lowest_layer,
                          .saved_width = watched_width,
                          .forward = watched_forward,
                          .backward = watched_backward,
                          .begin = watched_begin,
                          .end = watched_end};
    for (int r = -1; r < repeats; r++) {
        training.batch.hook = &nothing;
        double step_without = training_step(&training);
        training.batch.hook = hook;
        double step_with = training_step(&training);
        training.batch.hook = &watched;
        watch.nanoseconds = 0;
        double step_watched = training_step(&training);
        if (r >= 0) {
            with[r] = step_with;
            without[r] = step_without;
            inside[r] = 1e-9 * (double)watch.nanoseconds / (step_watched * engine_threads(engine));
        }
    }
    double medians = median(with, repeats) / median(without, repeats);
    printf("overhead %% %.2f %.2f %.2f %.0f\n", 100 * (with[0] / without[0] - 1),
           100 * (medians - 1), 100 * median(inside, repeats), peak_mib());
    training_release(&training);
    free(with);
    free(without);
    free(inside);
}

/* ---- group --------------------------------------------------------------------------------- */

/* Prints: task, unit, seconds with a shared prompt, with one each (medians), ratio by medians and
 * by the best, peak MiB. */
static void group(Model *model, Engine *engine, int repeats, int n_completions, int n_prompt,
                  int n_new)
{
    double *seconds[2];
    Training trainings[2];
    for (int shared = 0; shared < 2; shared++) {
        seconds[shared] = take((size_t)repeats, sizeof *seconds[shared]);
        training_init_group(&trainings[shared], model, engine, n_completions, n_prompt, n_new,
                            shared == 1);
    }
    for (int r = -1; r < repeats; r++) {
        for (int shared = 0; shared < 2; shared++) {
            double step = training_step(&trainings[shared]);
            if (r >= 0) {
                seconds[shared][r] = step;
            }
        }
    }
    double apart = median(seconds[0], repeats), together = median(seconds[1], repeats);
    printf("group s/step %.4f %.4f %.2f %.2f %.0f\n", together, apart, apart / together,
           seconds[0][0] / seconds[1][0], peak_mib());
    for (int shared = 0; shared < 2; shared++) {
        training_release(&trainings[shared]);
        free(seconds[shared]);
    }
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
    int is_overhead = strcmp(task, "overhead") == 0, is_group = strcmp(task, "group") == 0;
    if (argc != (is_prefill ? 6
                 : is_group ? 8
                            : 7) &&
        !(is_train && (argc == 8 || argc == 10)) && !(is_overhead && argc == 9)) {
        give_up(
            "usage: bench_engine MODEL THREADS REPEATS decode SEQUENCES NEW | prefill TOKENS | "
            "train SEQUENCES TOKENS [ADAPTERS [METHOD RANK]] | "
            "overhead SEQUENCES TOKENS [METHOD RANK] | group COMPLETIONS PROMPT NEW, METHOD one "
            "of lora, lora-qv, lora-qv-dropout, lora-xs");
    }
    int n_threads = number(argv[2]), repeats = number(argv[3]), a = number(argv[5]);
    int b = is_prefill ? 0 : number(argv[6]);
    int n_adapters = is_train && argc >= 8 ? number(argv[7]) : 1;
    const char *method = argc >= 9 ? argv[argc - 2] : "tinylora";
    int rank = argc >= 9 ? number(argv[argc - 1]) : 0;
    if (repeats > MAX_REPEATS || (!is_prefill && b < 2)) {
        give_up("at most 1000 repeats, at least 2 tokens");
    }
    Model *model;
    Engine *engine;
    Error error;
    check(model_open(&model, argv[1], n_threads, &error), &error);
    check(engine_new(&engine, model, n_threads, 0, &error), &error);
    check(model_pack(model, &error), &error);
    if (is_prefill) {
        prefill(model, engine, repeats, a);
    } else if (is_train) {
        train(model, engine, repeats, a, b, n_adapters, method, rank);
    } else if (is_overhead) {
        overhead(model, engine, repeats, a, b, method, rank);
    } else if (is_group) {
        group(model, engine, repeats, a, b, number(argv[7]));
    } else if (strcmp(task, "decode") == 0) {
        decode(model, engine, repeats, a, b);
    } else {
        give_up("the task is decode, prefill, train, overhead or group");
    }
    engine_free(engine);
    model_free(model);
    return 0;
}
