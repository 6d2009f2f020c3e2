/* The training loop from nothing. Invariants:
 * 1. Step k's batch is a function of (seed, corpus, k) alone, so a saved state needs no cursor.
 * 2. Weights, both moments and the step are the whole state; it is written atomically.
 * 3. The output directory gets a model only when the last step is done. */
#include "rl/pretrain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/engine.h"
#include "core/file.h"
#include "core/model.h"
#include "core/random.h"
#include "core/sha256.h"
#include "core/text.h"
#include "core/tokenizer_train.h"
#include "rl/corpus.h"
#include "rl/optimizer.h"
#include "rl/recipe.h"
#include "rl/schedule.h"

enum { SAVE_EVERY = 100 };

typedef struct {
    Recipe recipe;
    ModelConfig config; /* of the model to make */
    int n_threads;
    Model *model;
    Engine *engine;
    Corpus corpus;
    TensorSpec *specs;
    size_t n_specs;
    float *gradient;       /* (n_parameters) */
    double *wide_gradient; /* (n_parameters) the same, for the optimizer */
    float *moments;        /* (2, n_parameters); a tensor of n at offset o has (2, n) at 2 o */
    int64_t step;          /* done so far */
    int64_t n_tokens;      /* seen so far */
    /* The endless order of pages: epochs follow each other, each a permutation of its own. */
    int *order; /* (n_pages) of the epoch */
    uint32_t epoch;
    int next_page;
    /* The batch of the step. */
    Sequence *sequences;
    const float **weights; /* of each sequence's tokens */
    int n_sequences, capacity;
    uint8_t *scored; /* (max_positions) 0 1 1 1 ... */
    double total_weight, loss;
    char state_path[FILE_PATH_MAX];
} Pretrain;

static size_t spec_size(const TensorSpec *spec)
{
    return spec->n_dims == 2 ? spec->dims[0] * spec->dims[1] : spec->dims[0];
}

static bool ends_with(const char *name, const char *ending)
{
    size_t n = strlen(name), m = strlen(ending);
    return n >= m && strcmp(name + n - m, ending) == 0;
}

/* Matrices normal, norms 1, biases 0. Keyed by the tensor's name, so that one shape's first layers
 * start as another's. */
static void start_weights(Pretrain *p)
{
    double narrow = p->recipe.init_std / sqrt(2.0 * p->config.n_layers);
    float *w = p->model->trainable;
    for (size_t i = 0; i < p->n_specs; i++) {
        const TensorSpec *spec = &p->specs[i];
        bool residual =
            ends_with(spec->name, "o_proj.weight") || ends_with(spec->name, "down_proj.weight");
        double deviation = residual ? narrow : p->recipe.init_std;
        float flat = ends_with(spec->name, ".bias") ? 0 : 1;
        RandomKey key = {random_seed_for(p->recipe.seed, spec->name), RANDOM_WEIGHT};
        size_t n = spec_size(spec);
        for (size_t e = 0; e < n; e++) {
            w[e] = spec->n_dims == 1
                       ? flat
                       : (float)(deviation *
                                 random_normal(key, (uint32_t)e, (uint32_t)(e >> 32), 0, 0));
        }
        w += n;
    }
}

/* A model has to lie in a directory to be opened: a random one, for a moment. */
static Status open_model(Pretrain *p, Error *error)
{
    char name[FILE_PATH_MAX];
    FileWriter folder;
    Status status = path_join(name, p->recipe.output, "start", error);
    if (status == STATUS_OK) {
        status = directory_writer_open(&folder, name, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = model_random_write(folder.temporary, p->recipe.config, TENSOR_F32, 0, error);
    if (status == STATUS_OK) {
        status = model_open(&p->model, folder.temporary, p->n_threads, error);
    }
    directory_writer_cancel(&folder);
    if (status == STATUS_OK) {
        status = model_make_trainable(p->model, error);
    }
    return status;
}

/* A tokenizer of the config's size whose last token is the end of an answer. */
static Status ensure_tokenizer(const Pretrain *p, Error *error)
{
    static const char *const special[] = {"<|endoftext|>"};
    if (file_exists(p->recipe.tokenizer)) {
        return STATUS_OK;
    }
    TokenizerTraining training = {.vocab_size = p->config.vocab_size,
                                  .special_tokens = special,
                                  .n_special = 1,
                                  .single_digits = true};
    Text text = {0};
    Status status = corpus_text(&text, p->recipe.corpus, error);
    if (status == STATUS_OK) {
        const char *all = text_string(&text);
        status = tokenizer_train(p->recipe.tokenizer, &all, 1, &training, error);
    }
    text_release(&text);
    return status;
}

static Status check_tokenizer(const Pretrain *p, const Tokenizer *tokenizer, Error *error)
{
    if (tokenizer_size(tokenizer) > p->config.vocab_size) {
        return error_set(error, STATUS_USAGE, "%s: %d tokens, vocab_size of %s is %d",
                         p->recipe.tokenizer, (int)tokenizer_size(tokenizer), p->recipe.config,
                         p->config.vocab_size);
    }
    if (!tokenizer_token(tokenizer, p->config.eos_ids[0])) {
        return error_set(error, STATUS_USAGE, "%s: eos_token_id %d is no token of %s",
                         p->recipe.config, (int)p->config.eos_ids[0], p->recipe.tokenizer);
    }
    return STATUS_OK;
}

static Status open_corpus(Pretrain *p, Error *error)
{
    const ModelConfig *config = &p->config;
    Tokenizer *tokenizer;
    if (config->n_eos == 0) {
        return error_set(error, STATUS_USAGE, "%s: no eos_token_id to end answers with",
                         p->recipe.config);
    }
    Status status = ensure_tokenizer(p, error);
    if (status == STATUS_OK) {
        status = tokenizer_open(&tokenizer, p->recipe.tokenizer, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = check_tokenizer(p, tokenizer, error);
    if (status == STATUS_OK) {
        status = corpus_open(&p->corpus, p->recipe.corpus, tokenizer, config->eos_ids[0],
                             p->recipe.question_weight, config->max_positions, error);
    }
    tokenizer_free(tokenizer);
    return status;
}

static Status allocate(Pretrain *p, Error *error)
{
    size_t n = p->model->n_parameters;
    p->gradient = malloc(n * sizeof *p->gradient);
    p->wide_gradient = malloc(n * sizeof *p->wide_gradient);
    p->moments = calloc(2 * n, sizeof *p->moments);
    p->order = malloc((size_t)p->corpus.n_pages * sizeof *p->order);
    p->scored = malloc((size_t)p->config.max_positions);
    if (!p->gradient || !p->wide_gradient || !p->moments || !p->order || !p->scored) {
        return error_set(error, STATUS_FAILED, "no memory for the state of %zu parameters", n);
    }
    memset(p->scored, 1, (size_t)p->config.max_positions);
    p->scored[0] = 0;
    p->next_page = p->corpus.n_pages; /* the first page asked for opens epoch 0 */
    return STATUS_OK;
}

static int take_page(Pretrain *p)
{
    if (p->next_page == p->corpus.n_pages) {
        RandomKey key = {p->recipe.seed, RANDOM_SHUFFLE};
        random_permutation(p->order, p->corpus.n_pages, key, p->epoch++);
        p->next_page = 0;
    }
    return p->order[p->next_page++];
}

static Status add_sequence(Pretrain *p, int page, Error *error)
{
    if (p->n_sequences == p->capacity) {
        int capacity = p->capacity ? 2 * p->capacity : 64;
        Sequence *sequences = realloc(p->sequences, (size_t)capacity * sizeof *sequences);
        p->sequences = sequences ? sequences : p->sequences;
        const float **weights = realloc(p->weights, (size_t)capacity * sizeof *weights);
        p->weights = weights ? weights : p->weights;
        if (!sequences || !weights) {
            /* cppcheck-suppress memleak ; p has them */
            return error_set(error, STATUS_FAILED, "no memory for a batch of %d pages", capacity);
        }
        p->capacity = capacity;
        /* cppcheck-suppress memleak ; as above */
    }
    size_t first = p->corpus.first[page];
    int n = (int)(p->corpus.first[page + 1] - first);
    for (int t = 1; t < n; t++) {
        p->total_weight += (double)p->corpus.weights[first + (size_t)t];
    }
    p->weights[p->n_sequences] = p->corpus.weights + first;
    p->sequences[p->n_sequences++] = (Sequence){
        .tokens = p->corpus.ids + first, .n_tokens = n, .parent = -1, .scored = p->scored};
    return STATUS_OK;
}

static Status next_batch(Pretrain *p, Error *error)
{
    p->n_sequences = 0;
    p->total_weight = 0;
    Status status = STATUS_OK;
    for (int64_t n = 0; n < p->recipe.batch_tokens && status == STATUS_OK;) {
        int page = take_page(p);
        int64_t length = (int64_t)(p->corpus.first[page + 1] - p->corpus.first[page]);
        n += length;
        p->n_tokens += length;
        status = add_sequence(p, page, error);
    }
    return status;
}

static TokenWeight weigh(void *context, int sequence, int position, double logprob, double entropy)
{
    (void)entropy;
    Pretrain *p = context;
    double weight = (double)p->weights[sequence][position] / p->total_weight;
    p->loss -= weight * logprob;
    return (TokenWeight){.dlogprob = -weight};
}

static void update_weights(Pretrain *p, double rate)
{
    OptimizerSettings settings = optimizer_defaults();
    settings.beta2 = p->recipe.beta2;
    size_t offset = 0;
    for (size_t i = 0; i < p->n_specs; i++) {
        size_t n = spec_size(&p->specs[i]);
        settings.weight_decay = p->specs[i].n_dims == 2 ? p->recipe.weight_decay : 0;
        optimizer_find("adamw")->update(p->model->trainable + offset, p->moments + 2 * offset,
                                        p->wide_gradient + offset, &settings, rate, p->step, n);
        offset += n;
    }
    model_update(p->model, p->n_threads);
}

static Status train_step(Pretrain *p, PretrainProgress *progress, Error *error)
{
    size_t n = p->model->n_parameters;
    Status status = next_batch(p, error);
    if (status != STATUS_OK) {
        return status;
    }
    memset(p->gradient, 0, n * sizeof *p->gradient);
    p->loss = 0;
    p->step++;
    WeightGradients gradients = {p->gradient};
    Batch batch = {.sequences = p->sequences,
                   .n_sequences = p->n_sequences,
                   .weigh = weigh,
                   .weigh_context = p,
                   .weight_gradients = &gradients};
    status = engine_evaluate(p->engine, &batch, error);
    if (status != STATUS_OK) {
        return status;
    }
    for (size_t i = 0; i < n; i++) {
        p->wide_gradient[i] = (double)p->gradient[i];
    }
    Schedule schedule = {SCHEDULE_COSINE, p->recipe.warmup_steps};
    *progress = (PretrainProgress){
        .step = p->step,
        .steps = p->recipe.steps,
        .n_tokens = p->n_tokens,
        .loss = p->loss,
        .gradient_norm = gradient_clip(p->wide_gradient, p->recipe.grad_clip, n),
        .rate = schedule_rate(&schedule, p->recipe.lr, p->step, p->recipe.steps)};
    if (!isfinite(p->loss) || !isfinite(progress->gradient_norm)) {
        return error_set(error, STATUS_FAILED, "step %lld: the loss is not finite",
                         (long long)p->step);
    }
    update_weights(p, progress->rate);
    return STATUS_OK;
}

/* Saved state: three tensors. The step fits an F32 exactly, steps are at most 2^24. */
static Status save_state(const Pretrain *p, Error *error)
{
    float step = (float)p->step;
    size_t n = p->model->n_parameters;
    Tensor tensors[] = {
        {.name = "step", .n_dims = 1, .dims = {1}, .data = &step},
        {.name = "weights", .n_dims = 1, .dims = {n}, .data = p->model->trainable},
        {.name = "moments", .n_dims = 1, .dims = {2 * n}, .data = p->moments},
    };
    for (int i = 0; i < 3; i++) {
        tensors[i].type = TENSOR_F32;
        tensors[i].n_bytes = tensors[i].dims[0] * sizeof(float);
    }
    return safetensors_write(p->state_path, tensors, 3, NULL, 0, error);
}

static const Tensor *state_tensor(const SafeTensors *file, const char *name, size_t n)
{
    const Tensor *tensor = safetensors_find(file, name);
    return tensor && tensor->type == TENSOR_F32 && tensor->n_bytes == n * sizeof(float) ? tensor
                                                                                        : NULL;
}

static Status load_state(Pretrain *p, Error *error)
{
    if (!file_exists(p->state_path)) {
        return STATUS_OK;
    }
    SafeTensors *file;
    Status status = safetensors_open(&file, p->state_path, error);
    if (status != STATUS_OK) {
        return status;
    }
    size_t n = p->model->n_parameters;
    const Tensor *step = state_tensor(file, "step", 1);
    const Tensor *weights = state_tensor(file, "weights", n);
    const Tensor *moments = state_tensor(file, "moments", 2 * n);
    float done = -1;
    if (step) {
        tensor_to_f32(&done, step->data, TENSOR_F32, 1);
    }
    if (!weights || !moments || !(done >= 0 && done <= (float)p->recipe.steps)) {
        status = error_set(error, STATUS_REFUSED, "%s: not the state of this recipe; remove it",
                           p->state_path);
    } else {
        tensor_to_f32(p->model->trainable, weights->data, TENSOR_F32, n);
        tensor_to_f32(p->moments, moments->data, TENSOR_F32, 2 * n);
        while (p->step < (int64_t)done && status == STATUS_OK) {
            status = next_batch(p, error);
            p->step++;
        }
    }
    safetensors_close(file);
    return status;
}

/* output/pretrain-<hash of recipe, config, tokenizer and corpus>.state */
static Status find_state_path(Pretrain *p, const char *recipe_path, Error *error)
{
    const char *const paths[] = {recipe_path, p->recipe.config, p->recipe.tokenizer};
    Text all = {0};
    char hex[SHA256_HEX_SIZE], name[64];
    text_add(&all, p->corpus.sha256);
    Status status = STATUS_OK;
    for (int i = 0; i < 3 && status == STATUS_OK; i++) {
        status = sha256_file(hex, paths[i], error);
        text_add(&all, hex);
    }
    sha256_bytes(hex, all.bytes, all.n);
    text_release(&all);
    snprintf(name, sizeof name, "pretrain-%.16s.state", hex);
    return status == STATUS_OK ? path_join(p->state_path, p->recipe.output, name, error) : status;
}

static Status write_model(const Pretrain *p, Error *error)
{
    const float **weights = malloc(p->n_specs * sizeof *weights);
    if (!weights) {
        return error_set(error, STATUS_FAILED, "no memory");
    }
    const float *w = p->model->trainable;
    for (size_t i = 0; i < p->n_specs; i++) {
        weights[i] = w;
        w += spec_size(&p->specs[i]);
    }
    Status status =
        model_directory_write(p->recipe.output, &p->config, weights, p->recipe.tokenizer, error);
    free(weights);
    return status;
}

static Status train(Pretrain *p, PretrainReport report, void *context, Error *error)
{
    while (p->step < p->recipe.steps) {
        PretrainProgress progress;
        Status status = train_step(p, &progress, error);
        if (status != STATUS_OK) {
            return status;
        }
        bool stop = report && report(context, &progress);
        if ((stop || p->step % SAVE_EVERY == 0) && p->step < p->recipe.steps) {
            status = save_state(p, error);
            if (status == STATUS_OK && stop) {
                status =
                    error_set(error, STATUS_STOPPED, "stopped after step %lld", (long long)p->step);
            }
            if (status != STATUS_OK) {
                return status;
            }
        }
    }
    Status status = write_model(p, error);
    if (status == STATUS_OK) {
        unlink(p->state_path);
    }
    return status;
}

Status pretrain_run(const char *recipe_path, int n_threads, PretrainReport report, void *context,
                    Error *error)
{
    Pretrain p = {.n_threads = n_threads};
    Status status = recipe_read(&p.recipe, recipe_path, error);
    if (status == STATUS_OK) {
        status = model_config_read(&p.config, p.recipe.config, error);
    }
    if (status == STATUS_OK) {
        status = open_corpus(&p, error);
    }
    if (status == STATUS_OK) {
        status = open_model(&p, error);
    }
    if (status == STATUS_OK) {
        status = allocate(&p, error);
    }
    if (status == STATUS_OK) {
        p.n_specs = model_config_tensors(&p.specs, &p.config);
        start_weights(&p);
        status = find_state_path(&p, recipe_path, error);
    }
    if (status == STATUS_OK) {
        status = load_state(&p, error);
    }
    if (status == STATUS_OK) {
        model_update(p.model, n_threads);
        status = engine_new(&p.engine, p.model, n_threads, 0, error);
    }
    if (status == STATUS_OK) {
        status = train(&p, report, context, error);
    }
    engine_free(p.engine);
    corpus_close(&p.corpus);
    model_free(p.model);
    free(p.specs);
    free(p.gradient);
    free(p.wide_gradient);
    free(p.moments);
    free(p.order);
    free(p.sequences);
    free(p.weights);
    free(p.scored);
    return status;
}
