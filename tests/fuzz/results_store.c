/* Edits of a results.db: five bytes each, three of a place, two written there (modulo its size; the
 * first 100 bytes, the header, come often). Refused, or all of it is read, checked and merged into
 * another, where each may fail but none may crash. */
#include <stdlib.h>
#include <string.h>

#include "results/query.h"
#include "results/store_merge.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"

static uint8_t *image;
static size_t n_image;

static void must(Status status)
{
    if (status != STATUS_OK) {
        abort();
    }
}

/* A run with a step and an evaluation. */
static void fill(Store *store)
{
    Param param = {"optimizer.lr", "0.01"};
    RunInfo run = {.run_id = "0123456789abcdef",
                   .experiment = "e",
                   .identity = "{}",
                   .config = "{}",
                   .model = "m",
                   .method = "sft",
                   .adapter = "tinylora",
                   .budget = 13,
                   .lr = 0.01,
                   .steps = 2,
                   .params = &param,
                   .n_params = 1};
    Worker worker = {"host", 1, "boot", "{}"};
    Metric metric = {"loss", 0.5};
    EventRow event = {"note", "words"};
    int32_t ids[] = {1, 2};
    double logprobs[] = {-1, -2};
    CompletionRow completion = {.prompt_text = "p",
                                .text = "c",
                                .n_text = 1,
                                .ids = ids,
                                .n_ids = 2,
                                .logprobs = logprobs,
                                .finish = "stop"};
    Evaluation evaluation = {.run_id = run.run_id,
                             .step = 1,
                             .task = "t",
                             .extractor = "strict",
                             .n = 1,
                             .value = 1,
                             .base_value = 0.5,
                             .p_value = 0.5};
    EvalSample sample = {.text = "x",
                         .n_text = 1,
                         .answer = "1",
                         .extractor = "strict",
                         .extracted = "1",
                         .correct = true,
                         .n_tokens = 1,
                         .score = 1,
                         .finish = "stop"};
    RunState state;
    int64_t last, attempt;
    must(store_experiment(store, "e", "{}", 1, NULL));
    must(store_run(store, &run, 1, &state, &last, NULL));
    must(store_attempt_begin(store, run.run_id, &worker, 1, 0, &attempt, NULL));
    StepRecord step = {.run_id = run.run_id,
                       .attempt = attempt,
                       .step = 1,
                       .metrics = &metric,
                       .n_metrics = 1,
                       .completions = &completion,
                       .n_completions = 1,
                       .checkpoint = "state",
                       .checkpoint_bytes = 5,
                       .events = &event,
                       .n_events = 1,
                       .now_s = 2};
    must(store_steps(store, &step, 1, NULL));
    must(store_evaluations(store, &evaluation, 1, &sample, 1, 3, NULL));
    must(store_run_end(store, run.run_id, RUN_DONE, "", 0.5, 0, 4, NULL));
}

static void make_image(void)
{
    char path[96];
    Store *store;
    snprintf(path, sizeof path, "%s/first.db", memory_folder());
    must(store_open(&store, path, STORE_WRITE, 1000, NULL));
    fill(store);
    store_close(store);
    FILE *file = fopen(path, "rb");
    image = malloc(1 << 20);
    n_image = file && image ? fread(image, 1, 1 << 20, file) : 0;
    if (n_image < 4096 || fclose(file) != 0) {
        abort();
    }
}

/* Into an empty one, which takes as long to make as all the rest, or into one that has the run. */
static void merge(Store *store, bool fresh)
{
    static Store *filled;
    Store *to = fresh ? NULL : filled;
    Merged merged = {0};
    if (!to) {
        must(store_open_memory(&to, NULL));
    }
    if (!fresh && !filled) {
        fill(to);
        filled = to;
    }
    store_merge(to, store, &merged, NULL);
    if (!fresh && (merged.n_runs || merged.n_surfaces || merged.n_further)) {
        filled = NULL; /* each execution starts from the same */
    }
    if (fresh || !filled) {
        store_close(to);
    }
}

static void use(Store *store, bool fresh)
{
    Text report = {0};
    bool sound;
    int64_t step;
    void *blob;
    size_t n;
    StoredRun run = {0};
    store_check(store, &sound, &report, NULL);
    text_release(&report);
    if (store_checkpoint(store, "0123456789abcdef", &step, &blob, &n, NULL) == STATUS_OK) {
        free(blob);
    }
    if (store_find_run(store, "0123", &run, NULL) == STATUS_OK) {
        if (!run.block) {
            abort();
        }
        free(run.block);
    }
    merge(store, fresh);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[96];
    Store *store;
    if (!image) {
        make_image();
    }
    uint8_t *copy = malloc(n_image);
    if (!copy) {
        abort();
    }
    memcpy(copy, image, n_image);
    for (size_t i = 0; i + 5 <= n; i += 5) {
        size_t place = (size_t)bytes[i] | (size_t)bytes[i + 1] << 8 | (size_t)bytes[i + 2] << 16;
        place %= place & 1 << 23 ? n_image - 1 : 100;
        copy[place] = bytes[i + 3];
        copy[place + 1] = bytes[i + 4];
    }
    memory_folder_file(path, "results.db", copy, n_image);
    if (store_open(&store, path, STORE_READ, 0, NULL) == STATUS_OK) {
        use(store, n % 8 == 0);
        store_close(store);
    }
    free(copy);
    return 0;
}
