/* Points to adapters, data rows to sequences, sums to metrics.
 *
 * 1. A piece of the points is bound to the bank; all of them run over a data row together, so that
 *    what they share (twins, the base as reference of kl) is computed once a row.
 * 2. Per-row sums are kept; a metric adds them in the order of the rows, in double: neither the
 *    pieces of points nor the batches of rows show in a number. */
#include "analysis/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/answer.h"
#include "rl/extract.h"
#include "rl/optimizer.h"

enum {
    ROWS = 32,          /* data rows in one batch at most */
    POINTS = 256,       /* points that run together at most */
    COMPLETIONS = 8192, /* in memory at once, about */
    TOKEN_METRICS = MEASURE_LOSS | MEASURE_ENTROPY | MEASURE_KL | MEASURE_GRAD_NORM,
    SAMPLED_METRICS = MEASURE_ACCURACY | MEASURE_REWARD
};

const char *const measure_names[MEASURE_COUNT + 1] = {"loss",    "accuracy", "reward",
                                                      "entropy", "kl",       "grad_norm"};

unsigned measure_find(const char *name)
{
    for (unsigned k = 0; k < MEASURE_COUNT; k++) {
        if (strcmp(measure_names[k], name) == 0) {
            return 1u << k;
        }
    }
    return 0;
}

bool measure_less_is_better(MeasureBit metric)
{
    return metric != MEASURE_ACCURACY && metric != MEASURE_REWARD;
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count + 1, size);
    if (!memory) {
        abort(); /* a few words a point and row */
    }
    return memory;
}

static int place_of(MeasureBit bit)
{
    return __builtin_ctz(bit);
}

void measured_release(Measured *measured)
{
    free(measured->gradient);
    free(measured->row_losses);
    free(measured->row_tokens);
    *measured = (Measured){0};
}

int measure_capacity(const AdapterBank *bank, int wanted)
{
    return wanted < adapter_count(bank) ? wanted : adapter_count(bank);
}

static int rows_of(const MeasureSettings *settings)
{
    return settings->n_rows ? settings->n_rows : settings->task->n_rows;
}

static int limit_of(const MeasureSettings *settings, const Model *model)
{
    int context = model->config.max_positions, limit = settings->max_length;
    return limit > 0 && limit < context ? limit : context;
}

int measure_cut_rows(const MeasureSettings *settings, const Model *model)
{
    const Task *task = settings->task;
    int cut = 0;
    for (int i = 0; i < rows_of(settings); i++) {
        cut += task->prompts[i].n + task->n_answer[i] > limit_of(settings, model);
    }
    return cut;
}

/* One call of measure_points. */
typedef struct {
    const Trainer *trainer;
    const MeasureSettings *settings;
    size_t n_parameters;
    float *start; /* (n_parameters) v of the base */
    int n_rows, limit;
    int *row_tokens;     /* (n_rows) */
    long n_scored;       /* their sum: N */
    int done, total;     /* data rows, over all pieces and passes */
    long tokens;         /* computed so far */
    double token_weight; /* derivative of the loss by each log p: -1 / N */
} Call;

/* Points that run together, and the sums over the answer tokens of each row. */
typedef struct {
    int n;
    bool base_first;       /* sequence 0 of a row is the base, the reference of kl */
    int adapters[POINTS];  /* of the bank; 0: the base */
    int names[POINTS + 1]; /* what the sequences call their adapters; with base_first, point k is
                              sequence k + 1 */
    int twins[POINTS + 1], twin_layers[POINTS + 1];
    double *losses, *entropies, *kls; /* (n, n_rows) */
} Piece;

static bool is_hooked(const Call *call)
{
    return adapter_hook(call->trainer->bank) != NULL;
}

/* Points into adapters. A gradient needs an adapter of its own, at the base's v too (where it adds
 * nothing). */
static void bind(Piece *piece, const Call *call, const float *v, int n)
{
    AdapterBank *bank = call->trainer->bank;
    int n_threads = engine_threads(call->trainer->engine);
    bool gradient = call->settings->metrics & MEASURE_GRAD_NORM;
    size_t bytes = call->n_parameters * sizeof *v;
    piece->n = n;
    for (int k = 0; k < n; k++) {
        const float *point = v + (size_t)k * call->n_parameters;
        bool base = bytes == 0 || memcmp(point, call->start, bytes) == 0;
        piece->adapters[k] = base && !(gradient && is_hooked(call)) ? 0 : k + 1;
        if (piece->adapters[k]) {
            adapter_set(bank, k + 1, point, n_threads);
        }
    }
    if (!is_hooked(call)) { /* the weights themselves are the adapter */
        adapter_use_base(bank, piece->adapters[0] == 0, n_threads);
    }
}

/* Names of the sequences of a row, and for each the earlier one that agrees with it furthest. */
static void name(Piece *piece, const Call *call, bool base_first)
{
    const AdapterBank *bank = call->trainer->bank;
    int n = piece->n + base_first;
    piece->base_first = base_first;
    for (int k = 0; k < n; k++) {
        int point = k - base_first;
        piece->names[k] = point < 0 || !is_hooked(call) ? 0 : piece->adapters[point];
        piece->twins[k] = piece->twin_layers[k] = 0;
        for (int j = 0; j < k; j++) {
            int shared = adapter_shared_layers(bank, piece->names[j], piece->names[k]);
            if (shared > piece->twin_layers[k]) {
                piece->twins[k] = j;
                piece->twin_layers[k] = shared;
            }
        }
    }
}

static TokenWeight weigh(void *context, int sequence, int position, double logprob, double entropy)
{
    (void)sequence, (void)position, (void)logprob, (void)entropy;
    const Call *call = context;
    return (TokenWeight){.dlogprob = call->token_weight};
}

/* A pass over the rows: what it computes. */
typedef struct {
    unsigned metrics; /* LOSS, ENTROPY, KL */
    bool backward;
} Pass;

static void keep_sums(Piece *piece, const Call *call, const Pass *pass, const AnswerRow *answer,
                      int row)
{
    for (int k = 0; k < piece->n; k++) {
        size_t at = (size_t)k * (size_t)call->n_rows + (size_t)row;
        int sequence = k + piece->base_first;
        if (pass->metrics & MEASURE_LOSS) {
            piece->losses[at] = 0 - answer_row_sum(answer, answer->logprobs, sequence);
        }
        if (pass->metrics & MEASURE_ENTROPY) {
            piece->entropies[at] = answer_row_sum(answer, answer->entropies, sequence);
        }
        if (pass->metrics & MEASURE_KL) {
            piece->kls[at] = answer_row_sum(answer, answer->kl, sequence);
        }
    }
}

/* Some data rows under all points of the piece. */
static Status run_rows(Piece *piece, Call *call, const Pass *pass, const int *rows, int n_rows,
                       Error *error)
{
    const Trainer *trainer = call->trainer;
    int n = piece->n + piece->base_first;
    unsigned wanted = (pass->metrics & MEASURE_ENTROPY ? ANSWER_ENTROPIES : 0) |
                      (pass->metrics & MEASURE_KL ? ANSWER_KL : 0);
    AnswerRow answers[ROWS];
    Sequence *sequences = allocate((size_t)n_rows * (size_t)n, sizeof *sequences);
    for (int i = 0; i < n_rows; i++) {
        Sequence *of_row = sequences + (size_t)i * (size_t)n;
        answer_row_init(&answers[i], of_row, call->settings->task, rows[i], call->limit,
                        piece->names, n, wanted);
        for (int k = 0; k < n && !pass->backward; k++) {
            of_row[k].twin = i * n + piece->twins[k];
            of_row[k].twin_layers = piece->twin_layers[k];
            of_row[k].reference = i * n;
        }
        if (piece->base_first) {
            of_row[0].kl = NULL;
        }
    }
    Batch batch = {.sequences = sequences,
                   .n_sequences = n_rows * n,
                   .hook = adapter_hook(trainer->bank),
                   .weigh = pass->backward ? weigh : NULL,
                   .weigh_context = call,
                   .weight_gradients =
                       pass->backward ? adapter_weight_gradients(trainer->bank) : NULL};
    Status status = engine_evaluate(trainer->engine, &batch, error);
    for (int i = 0; i < n_rows; i++) {
        if (!status) {
            keep_sums(piece, call, pass, &answers[i], rows[i]);
        }
        answer_row_release(&answers[i]);
    }
    free(sequences);
    return status;
}

/* Tokens between two looks at progress: about a second of work at 150 GFLOP/s, within bounds, but a
 * whole data row at least. */
static long batch_tokens(const Call *call)
{
    double tokens = 2.5e10 / ((double)engine_model(call->trainer->engine)->n_parameters + 1);
    return tokens < 512 ? 512 : tokens > 16384 ? 16384 : (long)tokens;
}

static Status run_pass(Piece *piece, Call *call, const Pass *pass, Error *error)
{
    const Trainer *trainer = call->trainer;
    const Task *task = call->settings->task;
    Status status = STATUS_OK;
    name(piece, call, pass->metrics & MEASURE_KL);
    for (int next = 0; !status && next < call->n_rows;) {
        int rows[ROWS], n = 0, first = next;
        long tokens = 0;
        for (; next < call->n_rows && n < ROWS && tokens < batch_tokens(call); next++) {
            if (call->row_tokens[next]) {
                int length = task->prompts[next].n + call->row_tokens[next];
                tokens += (long)length * (piece->n + piece->base_first);
                rows[n++] = next;
            }
        }
        if (trainer->progress && trainer->progress(trainer->progress_context, "surface", call->done,
                                                   call->total, call->tokens)) {
            return error_set(error, STATUS_STOPPED, "stopped");
        }
        status = n ? run_rows(piece, call, pass, rows, n, error) : STATUS_OK;
        call->tokens += tokens;
        call->done += next - first;
    }
    return status;
}

/* Sum of a row's sums / N and the standard error of that ratio over rows (Cochran 1977, 2.11), rows
 * without scored tokens not counted. */
static void ratio(Measured *out, MeasureBit bit, const Call *call, const double *sums)
{
    double sum = 0, squares = 0;
    int n = 0;
    for (int i = 0; i < call->n_rows; i++) {
        sum += sums[i];
        n += call->row_tokens[i] > 0;
    }
    double value = sum / (double)call->n_scored;
    for (int i = 0; i < call->n_rows; i++) {
        double rest = sums[i] - value * call->row_tokens[i];
        squares += rest * rest;
    }
    double error = n < 2 ? NAN : sqrt(squares * n / (n - 1)) / (double)call->n_scored;
    out->values[place_of(bit)] = isfinite(value) ? value : NAN;
    out->standard_errors[place_of(bit)] = isfinite(error) ? error : NAN;
}

static void finish_gradient(Measured *out, const Call *call, int adapter)
{
    out->gradient = allocate(call->n_parameters, sizeof *out->gradient);
    double norm = 0;
    if (call->n_parameters) {
        adapter_gradient(call->trainer->bank, adapter, out->gradient);
        norm = gradient_clip(out->gradient, 0, call->n_parameters);
    }
    out->values[place_of(MEASURE_GRAD_NORM)] = isfinite(norm) ? norm : NAN;
}

static void finish_sums(Measured *out, const Piece *piece, const Call *call)
{
    size_t n_rows = (size_t)call->n_rows;
    for (int k = 0; k < piece->n; k++) {
        size_t at = (size_t)k * n_rows;
        if (piece->losses) {
            ratio(&out[k], MEASURE_LOSS, call, piece->losses + at);
            out[k].row_losses = allocate(n_rows, sizeof(double));
            memcpy(out[k].row_losses, piece->losses + at, n_rows * sizeof(double));
        }
        if (piece->entropies) {
            ratio(&out[k], MEASURE_ENTROPY, call, piece->entropies + at);
        }
        if (piece->kls) {
            ratio(&out[k], MEASURE_KL, call, piece->kls + at);
        }
    }
}

/* Loss, entropy and gradient come from one pass; kl cannot have a backward beside it. */
static Status run_tokens(Measured *out, Piece *piece, Call *call, Error *error)
{
    unsigned metrics = call->settings->metrics;
    bool gradient = metrics & MEASURE_GRAD_NORM;
    size_t size = (size_t)piece->n * (size_t)call->n_rows;
    piece->losses = metrics & MEASURE_LOSS ? allocate(size, sizeof(double)) : NULL;
    piece->entropies = metrics & MEASURE_ENTROPY ? allocate(size, sizeof(double)) : NULL;
    piece->kls = metrics & MEASURE_KL ? allocate(size, sizeof(double)) : NULL;
    Pass first = {metrics & (MEASURE_LOSS | MEASURE_ENTROPY | (gradient ? 0 : MEASURE_KL)),
                  gradient && call->n_parameters > 0};
    Pass second = {MEASURE_KL, false};
    if (first.backward) {
        adapter_clear_gradients(call->trainer->bank);
    }
    Status status = STATUS_OK;
    if (first.metrics || first.backward) {
        status = run_pass(piece, call, &first, error);
    }
    for (int k = 0; gradient && !status && k < piece->n; k++) {
        finish_gradient(&out[k], call, k + 1);
    }
    if (gradient && !status && metrics & MEASURE_KL) {
        status = run_pass(piece, call, &second, error);
    }
    if (!status) {
        finish_sums(out, piece, call);
    }
    free(piece->losses);
    free(piece->entropies);
    free(piece->kls);
    return status;
}

static void keep_score(Measured *out, MeasureBit bit, const Evaluated *evaluated, const char *name)
{
    const Score *score = evaluated_score(evaluated, name);
    out->values[place_of(bit)] = isfinite(score->mean) ? score->mean : NAN;
    out->standard_errors[place_of(bit)] =
        isfinite(score->standard_error) ? score->standard_error : NAN;
}

static Status run_samples(Measured *out, const Piece *piece, const Call *call, Error *error)
{
    const MeasureSettings *settings = call->settings;
    EvaluateSettings evaluation = {.task = settings->task,
                                   .n_rows = call->n_rows,
                                   .sampling = settings->sampling,
                                   .samples = settings->sampling->greedy ? 1 : settings->samples,
                                   .seed = settings->seed,
                                   .reward = settings->metrics & MEASURE_REWARD ? settings->reward
                                                                                : NULL};
    Evaluated evaluated[POINTS];
    int most = COMPLETIONS / call->n_rows / (evaluation.samples > 0 ? evaluation.samples : 1);
    most = most < 1 ? 1 : most;
    Status status = STATUS_OK;
    for (int first = 0; !status && first < piece->n; first += most) {
        int n = piece->n - first < most ? piece->n - first : most;
        status = evaluate(evaluated, call->trainer, &evaluation, piece->adapters + first, n, error);
        for (int k = 0; !status && k < n; k++) {
            if (settings->metrics & MEASURE_ACCURACY) {
                keep_score(&out[first + k], MEASURE_ACCURACY, &evaluated[k], settings->extractor);
            }
            if (settings->metrics & MEASURE_REWARD) {
                keep_score(&out[first + k], MEASURE_REWARD, &evaluated[k], "reward");
            }
            evaluated_release(&evaluated[k]);
        }
    }
    return status;
}

static Status run_piece(Measured *out, Call *call, const float *v, int n, Error *error)
{
    Piece *piece = allocate(1, sizeof *piece);
    bind(piece, call, v, n);
    Status status = STATUS_OK;
    if (call->settings->metrics & TOKEN_METRICS) {
        status = run_tokens(out, piece, call, error);
    }
    if (!status && call->settings->metrics & SAMPLED_METRICS) {
        status = run_samples(out, piece, call, error);
    }
    adapter_use_base(call->trainer->bank, false, engine_threads(call->trainer->engine));
    free(piece);
    return status;
}

static Status check(const MeasureSettings *settings, const AdapterBank *bank, Error *error)
{
    int n_rows = rows_of(settings);
    if (n_rows < 1 || n_rows > settings->task->n_rows) {
        return error_set(error, STATUS_USAGE, "%d rows, \"%s\" has 1 to %d", n_rows,
                         settings->task->dataset.path, settings->task->n_rows);
    }
    if (settings->metrics & MEASURE_ACCURACY &&
        (!settings->extractor || !extractor_find(settings->extractor))) {
        return error_set(error, STATUS_USAGE, "accuracy: extractor \"%s\" is unknown",
                         settings->extractor ? settings->extractor : "");
    }
    if (settings->metrics & SAMPLED_METRICS && !settings->sampling) {
        return error_set(error, STATUS_USAGE, "accuracy and reward need sampled answers");
    }
    if (settings->metrics & MEASURE_REWARD && !settings->reward) {
        return error_set(error, STATUS_USAGE, "reward needs a reward to score answers with");
    }
    if (settings->metrics & MEASURE_KL && adapter_weight_gradients(bank)) {
        return error_set(error, STATUS_USAGE,
                         "kl compares two models in one pass, but \"full\" changes the weights "
                         "themselves: leave kl out");
    }
    return STATUS_OK;
}

/* Scored tokens of each row, and N. */
static Status count(Call *call, Error *error)
{
    const MeasureSettings *settings = call->settings;
    for (int i = 0; i < call->n_rows; i++) {
        call->row_tokens[i] = answer_scored(settings->task, i, call->limit);
        call->n_scored += call->row_tokens[i];
    }
    call->token_weight = -1.0 / (double)call->n_scored;
    if (call->n_scored == 0 && settings->metrics & TOKEN_METRICS) {
        return error_set(error, STATUS_USAGE,
                         "no answer token of the %d rows of \"%s\" is within %d tokens",
                         call->n_rows, settings->task->dataset.path, call->limit);
    }
    return STATUS_OK;
}

static void begin(Measured *out, const Call *call)
{
    out->n_rows = call->n_rows;
    for (int k = 0; k < MEASURE_COUNT; k++) {
        out->values[k] = out->standard_errors[k] = NAN;
    }
    out->row_tokens = allocate((size_t)call->n_rows, sizeof(int));
    memcpy(out->row_tokens, call->row_tokens, (size_t)call->n_rows * sizeof(int));
}

Status measure_points(Measured *out, const Trainer *trainer, const MeasureSettings *settings,
                      const float *v, int n, Error *error)
{
    Status status = check(settings, trainer->bank, error);
    if (status) {
        return status;
    }
    Call call = {.trainer = trainer,
                 .settings = settings,
                 .n_parameters = adapter_parameters(trainer->bank),
                 .n_rows = rows_of(settings),
                 .limit = limit_of(settings, engine_model(trainer->engine))};
    call.row_tokens = allocate((size_t)call.n_rows, sizeof *call.row_tokens);
    call.start = allocate(call.n_parameters, sizeof *call.start);
    adapter_initial(trainer->bank, call.start);
    status = count(&call, error);
    int most = measure_capacity(trainer->bank, is_hooked(&call) ? POINTS : 1), begun = 0;
    int n_passes = (settings->metrics & TOKEN_METRICS) != 0;
    n_passes +=
        (settings->metrics & (MEASURE_KL | MEASURE_GRAD_NORM)) == (MEASURE_KL | MEASURE_GRAD_NORM);
    call.total = (n + most - 1) / most * n_passes * call.n_rows;
    while (!status && begun < n) {
        int first = begun, some = n - first < most ? n - first : most;
        for (; begun < first + some; begun++) {
            begin(&out[begun], &call);
        }
        status = run_piece(out + first, &call, v + (size_t)first * call.n_parameters, some, error);
    }
    for (int k = 0; status && k < begun; k++) {
        measured_release(&out[k]);
    }
    free(call.row_tokens);
    free(call.start);
    return status;
}

/* Row losses scaled so that their mean is the loss. */
void measured_compare(Paired *paired, const Measured *a, const Measured *b)
{
    double *losses = allocate(2 * (size_t)a->n_rows, sizeof *losses), n_scored = 0;
    size_t n = 0;
    for (int i = 0; i < a->n_rows; i++) {
        n_scored += a->row_tokens[i];
        n += a->row_tokens[i] > 0;
    }
    for (size_t i = 0, at = 0; at < n; i++) {
        if (a->row_tokens[i] > 0) {
            losses[at] = a->row_losses[i] * (double)n / n_scored;
            losses[n + at++] = b->row_losses[i] * (double)n / n_scored;
        }
    }
    statistics_paired_values(paired, losses, losses + n, n);
    free(losses);
}
