/* Arena, candidates and piecewise evaluation. Pieces do not show in the numbers: gradients are
 * added sequence by sequence, in double, in the order of the list (DESIGN, the one law). */
#include "rl/step.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "rl/checkpoint.h"

#define BLOCK_BYTES ((size_t)1 << 18)

typedef struct Block {
    struct Block *next;
    size_t used, capacity;
    _Alignas(16) unsigned char bytes[];
} Block;

struct StepArena {
    Block *blocks;
};

StepArena *arena_new(void)
{
    StepArena *arena = calloc(1, sizeof *arena);
    if (!arena) {
        abort();
    }
    return arena;
}

void arena_free(StepArena *arena)
{
    while (arena && arena->blocks) {
        Block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
    free(arena);
}

void *arena_alloc(StepArena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2) {
        abort();
    }
    bytes = (bytes + 15) & ~(size_t)15;
    Block *block = arena->blocks;
    if (!block || block->capacity - block->used < bytes) {
        size_t capacity = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        block = calloc(1, sizeof *block + capacity);
        if (!block) {
            abort(); /* as Text: learner_new bounded the size of a step */
        }
        block->capacity = capacity;
        block->next = arena->blocks;
        arena->blocks = block;
    }
    void *memory = block->bytes + block->used;
    block->used += bytes;
    return memory;
}

char *arena_string(StepArena *arena, const char *bytes, size_t n)
{
    char *copy = arena_alloc(arena, n + 1, 1);
    if (n) {
        memcpy(copy, bytes, n);
    }
    return copy;
}

void step_metric(StepResult *result, const char *key, double value)
{
    enum { CAPACITY = 64 };
    if (result->n_metrics % CAPACITY == 0) {
        Metric *more = arena_alloc(result->arena, result->n_metrics + CAPACITY, sizeof *more);
        if (result->n_metrics) {
            memcpy(more, result->metrics, result->n_metrics * sizeof *more);
        }
        result->metrics = more;
    }
    char *name = arena_string(result->arena, key, strlen(key));
    result->metrics[result->n_metrics++] = (Metric){name, value};
}

void step_event(StepResult *result, const char *kind, const char *message)
{
    EventRow *more = arena_alloc(result->arena, result->n_events + 1, sizeof *more);
    if (result->n_events) {
        memcpy(more, result->events, result->n_events * sizeof *more);
    }
    result->events = more;
    result->events[result->n_events++] =
        (EventRow){arena_string(result->arena, kind, strlen(kind)),
                   arena_string(result->arena, message, strlen(message))};
}

Candidate *candidates_begin(const Trainer *trainer, Learner **learners, int n, StepResult *results,
                            StepArena *scratch)
{
    Candidate *candidates = arena_alloc(scratch, (size_t)n, sizeof *candidates);
    bool hooked = adapter_hook(trainer->bank) != NULL;
    for (int i = 0; i < n; i++) {
        Learner *learner = learners[i];
        const TrainSettings *settings = &learner->settings;
        size_t n_moments = (size_t)settings->optimizer->n_moments * learner->n;
        results[i] = (StepResult){.step = learner->step + 1, .arena = arena_new()};
        candidates[i] = (Candidate){.learner = learner,
                                    .result = &results[i],
                                    .adapter = hooked ? i + 1 : 0,
                                    .bank_adapter = i + 1,
                                    .step = learner->step + 1,
                                    .lr = schedule_rate(&settings->schedule, settings->lr,
                                                        learner->step + 1, settings->steps),
                                    .updates = learner->updates,
                                    .loss_scale = learner->loss_scale,
                                    .v = arena_alloc(scratch, learner->n, sizeof(float)),
                                    .moments = arena_alloc(scratch, n_moments, sizeof(float)),
                                    .gradient = arena_alloc(scratch, learner->n, sizeof(double))};
        if (learner->n) {
            memcpy(candidates[i].v, learner->v, learner->n * sizeof(float));
            adapter_set(trainer->bank, i + 1, learner->v, engine_threads(trainer->engine));
        }
        if (n_moments) {
            memcpy(candidates[i].moments, learner->moments, n_moments * sizeof(float));
        }
    }
    return candidates;
}

bool candidate_alive(const Candidate *candidate)
{
    return candidate->result->status == STATUS_OK;
}

void candidate_fail(Candidate *candidate, const char *format, ...)
{
    if (!candidate_alive(candidate)) {
        return;
    }
    char reason[800];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    candidate->result->status = error_set(&candidate->result->error, STATUS_FAILED, "step %lld: %s",
                                          (long long)candidate->step, reason);
}

static size_t first_nonfinite(const double *gradient, size_t n)
{
    size_t i = 0;
    while (i < n && isfinite(gradient[i])) {
        i++;
    }
    return i;
}

/* The gradient as of the objective itself. False where it is not finite: the update is skipped, or
 * the step fails. */
static bool take_gradient(Candidate *candidate, const Trainer *trainer)
{
    const Learner *learner = candidate->learner;
    bool scaled = learner->settings.precision == TENSOR_F16;
    double scale = candidate->loss_scale.scale;
    adapter_gradient(trainer->bank, candidate->bank_adapter, candidate->gradient);
    size_t bad = first_nonfinite(candidate->gradient, learner->n);
    if (bad == learner->n) {
        for (size_t i = 0; i < learner->n && scaled; i++) {
            candidate->gradient[i] /= scale;
        }
        return true;
    }
    if (scaled && loss_scale_fall(&candidate->loss_scale)) {
        char message[160];
        candidate->skipped++;
        snprintf(message, sizeof message,
                 "a gradient beyond f16: the update is skipped, the loss scale falls from %.15g to "
                 "%.15g",
                 scale, candidate->loss_scale.scale);
        step_event(candidate->result, "overflow", message);
    } else {
        candidate_fail(candidate, "the gradient is not finite (parameter %zu of %zu)%s", bad + 1,
                       learner->n,
                       scaled ? ", however small the loss scale: activations or gradients are "
                                "beyond f16's 65504; bf16 has the range of f32"
                              : "");
    }
    return false;
}

void candidate_update(Candidate *candidate, const Trainer *trainer, double loss)
{
    Learner *learner = candidate->learner;
    const TrainSettings *settings = &learner->settings;
    if (!isfinite(loss)) {
        candidate_fail(candidate, "the loss is not finite (%g)", loss);
    }
    if (!candidate_alive(candidate) || !learner->n || !take_gradient(candidate, trainer)) {
        return;
    }
    double norm = gradient_clip(candidate->gradient, settings->grad_clip, learner->n);
    if (!isfinite(norm)) {
        candidate_fail(candidate, "the norm of the gradient is not finite");
        return;
    }
    candidate->grad_norm += norm;
    candidate->updates++;
    settings->optimizer->update(candidate->v, candidate->moments, candidate->gradient,
                                &settings->optimizer_settings, candidate->lr, candidate->updates,
                                learner->n);
    for (size_t i = 0; i < learner->n; i++) {
        if (!isfinite(candidate->v[i])) {
            candidate_fail(candidate, "the update would make parameter %zu of %zu infinite or NaN",
                           i + 1, learner->n);
            return;
        }
    }
    if (settings->precision == TENSOR_F16) {
        loss_scale_grow(&candidate->loss_scale, settings->loss_scale_window);
    }
}

uint64_t candidate_key(const Candidate *candidate, int row, int sample, int update)
{
    uint32_t words[4];
    random_words(words, (RandomKey){candidate->learner->settings.seed, RANDOM_DROPOUT},
                 (uint32_t)candidate->step, (uint32_t)row, (uint32_t)sample, (uint32_t)update);
    uint64_t key = (uint64_t)words[1] << 32 | words[0];
    return key ? key : 1;
}

void candidates_commit(Candidate *candidates, int n, const long *new_tokens, const int *rows)
{
    for (int i = 0; i < n; i++) {
        Candidate *candidate = &candidates[i];
        Learner *learner = candidate->learner;
        StepResult *result = candidate->result;
        if (!candidate_alive(candidate)) {
            continue;
        }
        size_t n_moments = (size_t)learner->settings.optimizer->n_moments * learner->n;
        if (learner->n) {
            memcpy(learner->v, candidate->v, learner->n * sizeof(float));
        }
        if (n_moments) {
            memcpy(learner->moments, candidate->moments, n_moments * sizeof(float));
        }
        int64_t updates = candidate->updates - learner->updates;
        learner->step = candidate->step;
        learner->updates = candidate->updates;
        learner->loss_scale = candidate->loss_scale;
        learner->n_tokens += new_tokens[i];
        step_metric(result, "grad_norm", updates ? candidate->grad_norm / (double)updates : 0);
        step_metric(result, "learning_rate", candidate->lr);
        step_metric(result, "num_tokens", (double)learner->n_tokens);
        step_metric(result, "epoch",
                    (double)learner->step * rows[i] / (double)learner->task->n_rows);
        if (learner->settings.precision == TENSOR_F16) {
            step_metric(result, "loss_scale", learner->loss_scale.scale);
            step_metric(result, "skipped_updates", candidate->skipped);
        }
        checkpoint_write(&result->checkpoint, &result->checkpoint_bytes, learner);
    }
}

void candidates_restore(Candidate *candidates, int n, const Trainer *trainer)
{
    for (int i = 0; i < n; i++) {
        const Learner *learner = candidates[i].learner;
        if (learner->n) {
            adapter_set(trainer->bank, candidates[i].bank_adapter, learner->v,
                        engine_threads(trainer->engine));
        }
    }
}

void sequence_list_init(SequenceList *list, int capacity, Learner **learners, int n,
                        StepArena *scratch)
{
    *list =
        (SequenceList){.sequences = arena_alloc(scratch, (size_t)capacity, sizeof *list->sequences),
                       .precision = learners[0]->settings.precision};
    for (int i = 0; i < n; i++) {
        int own = learners[i]->settings.micro_batch;
        if (own > 0 && (list->micro_batch == 0 || own < list->micro_batch)) {
            list->micro_batch = own;
        }
        if (learners[i]->settings.checkpointing > list->checkpointing) {
            list->checkpointing = learners[i]->settings.checkpointing;
        }
    }
}

int sequence_add(SequenceList *list, Sequence sequence)
{
    list->sequences[list->n] = sequence;
    return list->n++;
}

typedef struct {
    WeighToken weigh;
    void *context;
    int first;
} Piece;

static TokenWeight weigh_in_piece(void *context, int sequence, int position, double logprob,
                                  double entropy)
{
    const Piece *piece = context;
    return piece->weigh(piece->context, piece->first + sequence, position, logprob, entropy);
}

/* Tokens between two looks at progress: about a second of work at 150 GFLOP/s, within bounds. */
static long piece_tokens(const Trainer *trainer)
{
    double parameters = (double)engine_model(trainer->engine)->n_parameters;
    double tokens = 2.5e10 / (parameters + 1);
    return tokens < 512 ? 512 : tokens > 16384 ? 16384 : (long)tokens;
}

Status sequences_evaluate(const Trainer *trainer, const SequenceList *list, WeighToken weigh,
                          void *weigh_context, const char *phase, Error *error)
{
    long limit = piece_tokens(trainer), total_tokens = 0;
    for (int first = 0; first < list->n;) {
        if (trainer->progress &&
            trainer->progress(trainer->progress_context, phase, first, list->n, total_tokens)) {
            return error_set(error, STATUS_STOPPED, "stopped");
        }
        long tokens = 0;
        int end = first, trees = 0;
        while (end < list->n && (list->sequences[end].parent >= 0 ||
                                 (tokens < limit && (trees == 0 || trees != list->micro_batch)))) {
            trees += list->sequences[end].parent < 0;
            tokens += list->sequences[end++].n_tokens;
        }
        for (int i = first; i < end; i++) { /* parents count from the piece's start... */
            list->sequences[i].parent -= list->sequences[i].parent >= 0 ? first : 0;
        }
        Piece piece = {weigh, weigh_context, first};
        Batch batch = {.sequences = list->sequences + first,
                       .n_sequences = end - first,
                       .hook = adapter_hook(trainer->bank),
                       .weigh = weigh ? weigh_in_piece : NULL,
                       .weigh_context = &piece,
                       .weight_gradients = weigh ? adapter_weight_gradients(trainer->bank) : NULL,
                       .checkpointing = list->checkpointing,
                       .precision = list->precision};
        Status status = engine_evaluate(trainer->engine, &batch, error);
        for (int i = first; i < end; i++) { /* ...and from the list's again */
            list->sequences[i].parent += list->sequences[i].parent >= 0 ? first : 0;
        }
        if (status) {
            return status;
        }
        total_tokens += tokens;
        first = end;
    }
    return STATUS_OK;
}
