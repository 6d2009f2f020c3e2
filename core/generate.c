/* Rollouts. Invariants:
 * 1. A slot holds the keys and values of one active sequence; its capacity fits the longest
 * request.
 * 2. `length` tokens of a sequence are in its slot; `last` is sampled but not yet in.
 * 3. What a request samples is a function of the request alone: slots, order and neighbours never
 * enter. */
#include "core/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/draw.h"
#include "core/engine_state.h"
#include "core/parallel.h"
#include "core/text.h"

enum { MOST_ACTIVE = 512, LOGITS_FLOATS = 24 << 20, WORTH_A_THREAD = 1 << 16 /* logits */ };
#define CACHE_BYTES ((size_t)1 << 30)

typedef struct {
    int request; /* -1: free */
    int length;
    int32_t last;
} Slot;

/* One row whose next token is drawn. */
typedef struct {
    int row, slot;
    int32_t token;
    double logprob;
} Draw;

typedef struct {
    Engine *engine;
    const GenerateRequest *requests;
    int n_requests;
    const GenerateOptions *options;
    Completion *completions;

    Pass pass;
    int32_t *tokens;
    Slot *slots;
    int n_slots, capacity, next_request, n_finished;
    size_t slot_floats;
    float *cache; /* (n_slots, slot_floats) */
    Draw *draws;
    int n_draws;
    float *hidden, *logits;
    size_t stride;
    int rows_at_once;
    float *terms;     /* (n_threads, stride) */
    int32_t *order;   /* (n_threads, stride) */
    float *penalized; /* (n_threads, stride) */
    Text text;        /* of the completion in hand */
    Draw *now;        /* draws whose logits are there */
    long n_tokens;
} Generation;

void completion_release(Completion *completion)
{
    free(completion->ids);
    free(completion->logprobs);
    *completion = (Completion){0};
}

/* ---- drawing ---- */

/* Its temperature is greedy's or too near: 1 / temperature might overflow. */
static int is_greedy(const GenerateRequest *r)
{
    return r->greedy || r->temperature < GENERATE_COLDEST;
}

static int is_penalized(const GenerateRequest *r)
{
    return r->penalty > 0 && r->penalty != 1.0f;
}

static void draw_row(void *context, int i, int thread)
{
    Generation *g = context;
    Draw *draw = &g->now[i];
    const Slot *slot = &g->slots[draw->slot];
    const GenerateRequest *r = &g->requests[slot->request];
    const Completion *completion = &g->completions[slot->request];
    const float *logits = g->logits + (size_t)i * g->stride, *drawn = logits;
    int V = g->engine->model->config.vocab_size;
    float inverse = is_greedy(r) ? 1.0f : engine_inverse_temperature(r->temperature), largest;
    double sum;
    g->engine->kernels->softmax_stats(&largest, &sum, NULL, logits, V, inverse);
    float peak = largest; /* of what is drawn from */
    if (is_penalized(r)) {
        float *penalized = g->penalized + (size_t)thread * g->stride;
        double unused;
        memcpy(penalized, logits, (size_t)V * sizeof *logits);
        draw_penalize(penalized, logits, r->prompt, r->n_prompt, r->penalty);
        draw_penalize(penalized, logits, completion->ids, completion->n, r->penalty);
        g->engine->kernels->softmax_stats(&peak, &unused, NULL, penalized, V, inverse);
        drawn = penalized;
    }
    if (is_greedy(r)) {
        draw->token = draw_largest(drawn, V);
    } else {
        float *e = g->terms + (size_t)thread * g->stride;
        g->engine->kernels->softmax_terms(e, drawn, V, inverse, peak);
        double u =
            random_uniform(r->key, r->step, r->prompt_index, r->sample, (uint32_t)completion->n);
        DrawLimits limits = {.top_k = r->top_k, .top_p = r->top_p, .min_p = r->min_p};
        if ((r->top_k > 0 && r->top_k < V) || r->top_p < 1.0f || r->min_p > 0) {
            draw->token =
                draw_restricted(&limits, drawn, e, g->order + (size_t)thread * g->stride, V, u);
        } else {
            draw->token = draw_any(e, V, u);
        }
    }
    draw->logprob = engine_logprob(logits, draw->token, inverse, largest, sum);
}

int generate_is_stop(const GenerateOptions *options, int32_t token)
{
    for (int i = 0; i < options->n_stop; i++) {
        if (options->stop_ids[i] == token) {
            return 1;
        }
    }
    return 0;
}

size_t generate_text_end(const char *text, size_t n, const char *const *stop_texts,
                         int n_stop_texts)
{
    size_t end = n;
    for (int i = 0; i < n_stop_texts; i++) {
        size_t length = strlen(stop_texts[i]);
        for (size_t at = 0; at < end && at + length <= n; at++) {
            if (memcmp(text + at, stop_texts[i], length) == 0) {
                end = at;
            }
        }
    }
    return end;
}

/* The last tokens as a text of `least` bytes or more; all of them where there is no such. */
static void decode_end(Generation *g, const Completion *completion, size_t least)
{
    size_t n = (size_t)completion->n, taken = 0;
    do {
        taken = 2 * taken + 1 < n ? 2 * taken + 1 : n;
        text_clear(&g->text);
        tokenizer_decode(g->engine->model->tokenizer, completion->ids + n - taken, taken, true,
                         &g->text);
    } while (g->text.n < least && taken < n);
}

/* Whether the last token brought one to its end: looked for in the end of the text alone, so that
 * a completion takes time in proportion to its length. */
static int has_stop_text(Generation *g, const Completion *completion)
{
    const GenerateOptions *o = g->options;
    size_t longest = 0;
    for (int i = 0; i < o->n_stop_texts; i++) {
        size_t n = strlen(o->stop_texts[i]);
        longest = n > longest ? n : longest;
    }
    if (longest == 0) {
        return 0;
    }
    decode_end(g, completion, 0);
    decode_end(g, completion, g->text.n + longest + tokenizer_hidden(g->engine->model->tokenizer));
    return generate_text_end(text_string(&g->text), g->text.n, o->stop_texts, o->n_stop_texts) <
           g->text.n;
}

static int most_new(const Generation *g, const GenerateRequest *r)
{
    int room = g->engine->model->config.max_positions - r->n_prompt;
    return r->max_new < room ? r->max_new : room;
}

/* Append what was drawn; finished sequences free their slots. */
static void take_draw(Generation *g, const Draw *draw)
{
    Slot *slot = &g->slots[draw->slot];
    const GenerateRequest *r = &g->requests[slot->request];
    Completion *completion = &g->completions[slot->request];
    completion->ids[completion->n] = draw->token;
    completion->logprobs[completion->n] = draw->logprob;
    completion->n++;
    g->n_tokens++;
    slot->last = draw->token;
    int stop = generate_is_stop(g->options, draw->token) || has_stop_text(g, completion);
    if (stop || completion->n >= most_new(g, r)) {
        completion->finish = stop ? FINISH_STOP : FINISH_LENGTH;
        slot->request = -1;
        g->n_finished++;
    }
}

/* Run the pass over the rows that are set up and draw a token for each of the draws. */
static void run_and_draw(Generation *g)
{
    Pass *pass = &g->pass;
    const Model *model = pass->model;
    int D = model->config.width;
    pass_forward(pass);
    for (int first = 0; first < g->n_draws; first += g->rows_at_once) {
        int n = g->n_draws - first < g->rows_at_once ? g->n_draws - first : g->rows_at_once;
        g->now = g->draws + first;
        for (int i = 0; i < n; i++) {
            pass->kernels->rmsnorm(g->hidden + (size_t)i * (size_t)D,
                                   pass->x_out + (size_t)g->now[i].row * (size_t)D,
                                   model->norm_final, D, (float)model->config.rms_eps);
        }
        matrix_forward(g->logits, (int)g->stride, g->hidden, D, &model->head, NULL, n,
                       pass->n_threads);
        int few = (size_t)n * g->stride < WORTH_A_THREAD;
        parallel_for(n, few ? 1 : pass->n_threads, draw_row, g);
        for (int i = 0; i < n; i++) {
            take_draw(g, &g->now[i]);
        }
    }
}

/* ---- rows ---- */

static void add_span(Generation *g, int slot, int adapter, const int32_t *tokens, int n,
                     int position)
{
    Pass *pass = &g->pass;
    float *memory = g->cache + (size_t)slot * g->slot_floats;
    size_t half = g->slot_floats / (size_t)pass->model->config.n_layers / 2;
    pass->spans[pass->n_spans] = (Span){.sequence = g->slots[slot].request,
                                        .adapter = adapter,
                                        .first_row = pass->n_rows,
                                        .n_rows = n,
                                        .position = position,
                                        .parent = -1,
                                        .capacity = g->capacity,
                                        .keys = memory,
                                        .values = memory + half,
                                        .layer_stride = 2 * half};
    pass->hook_spans[pass->n_spans] = (RowSpan){.sequence = g->slots[slot].request,
                                                .adapter = adapter,
                                                .first_row = pass->n_rows,
                                                .n_rows = n,
                                                .index = pass->n_spans};
    pass->n_spans++;
    memcpy(g->tokens + pass->n_rows, tokens, (size_t)n * sizeof *tokens);
    pass->n_rows += n;
}

static int shares_prompt(const GenerateRequest *a, const GenerateRequest *b)
{
    return a->prompt == b->prompt && a->n_prompt == b->n_prompt && a->adapter == b->adapter;
}

/* Waiting requests enter free slots: one prefill for those that share a prompt, its cache copied to
 * the others. */
static void admit(Generation *g)
{
    Pass *pass = &g->pass;
    int leader = -1; /* slot whose prompt the next request may share */
    pass->n_rows = pass->n_spans = g->n_draws = 0;
    for (int s = 0; s < g->n_slots && g->next_request < g->n_requests; s++) {
        if (g->slots[s].request >= 0) {
            continue;
        }
        const GenerateRequest *r = &g->requests[g->next_request];
        int shared = leader >= 0 && shares_prompt(r, &g->requests[g->slots[leader].request]);
        if (!shared && pass->n_rows > 0 && pass->n_rows + r->n_prompt > g->engine->max_tokens) {
            break;
        }
        g->slots[s] = (Slot){.request = g->next_request++, .length = r->n_prompt};
        if (!shared) {
            leader = s;
            add_span(g, s, r->adapter, r->prompt, r->n_prompt, 0);
        }
        g->draws[g->n_draws++] = (Draw){.row = pass->n_rows - 1, .slot = s};
    }
    if (g->n_draws == 0) {
        return;
    }
    /* run_and_draw frees slots that finish at once, so remember who copies from whom before it. */
    int *copies = g->pass.roots, n_copies = g->n_draws;
    for (int i = 0; i < n_copies; i++) {
        copies[i] = g->draws[i].slot;
    }
    int *rows = copies + n_copies;
    for (int i = 0; i < n_copies; i++) {
        rows[i] = g->draws[i].row;
    }
    run_and_draw(g);
    for (int i = 1; i < n_copies; i++) {
        if (rows[i] == rows[i - 1]) {
            memcpy(g->cache + (size_t)copies[i] * g->slot_floats,
                   g->cache + (size_t)copies[i - 1] * g->slot_floats,
                   g->slot_floats * sizeof(float));
        }
    }
}

static void decode_once(Generation *g)
{
    g->pass.n_rows = g->pass.n_spans = g->n_draws = 0;
    for (int s = 0; s < g->n_slots; s++) {
        Slot *slot = &g->slots[s];
        if (slot->request >= 0) {
            g->draws[g->n_draws++] = (Draw){.row = g->pass.n_rows, .slot = s};
            add_span(g, s, g->requests[slot->request].adapter, &slot->last, 1, slot->length);
            slot->length++;
        }
    }
    if (g->n_draws > 0) {
        run_and_draw(g);
    }
}

/* ---- setting up ---- */

static Status check_requests(Generation *g, Error *error)
{
    const ModelConfig *c = &g->engine->model->config;
    for (int i = 0; i < g->n_requests; i++) {
        const GenerateRequest *r = &g->requests[i];
        if (r->n_prompt < 1) {
            return error_set(error, STATUS_USAGE, "request %d: a prompt of no tokens", i);
        }
        if (most_new(g, r) < 1) {
            return error_set(
                error, STATUS_USAGE,
                "request %d: a prompt of %d tokens leaves no room for %d more in a context of %d",
                i, r->n_prompt, r->max_new, c->max_positions);
        }
        for (int t = 0; t < r->n_prompt; t++) {
            if (r->prompt[t] < 0 || r->prompt[t] >= c->vocab_size) {
                return error_set(error, STATUS_USAGE,
                                 "request %d: token id %d is not in the vocabulary", i,
                                 (int)r->prompt[t]);
            }
        }
        Completion *completion = &g->completions[i];
        completion->ids = malloc((size_t)most_new(g, r) * sizeof *completion->ids);
        completion->logprobs = malloc((size_t)most_new(g, r) * sizeof *completion->logprobs);
        if (!completion->ids || !completion->logprobs) {
            return error_set(error, STATUS_FAILED, "out of memory for %d completions",
                             g->n_requests);
        }
        int length = (r->n_prompt + most_new(g, r) + 15) / 16 * 16;
        g->capacity = length > g->capacity ? length : g->capacity;
    }
    return STATUS_OK;
}

static Status set_up(Generation *g, const LinearHook *hook, Error *error)
{
    Engine *engine = g->engine;
    const ModelConfig *c = &engine->model->config;
    size_t D = (size_t)c->width;
    g->slot_floats =
        2 * (size_t)c->n_layers * (size_t)c->n_kv_heads * (size_t)c->head_dim * (size_t)g->capacity;
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): a model has layers and heads */
    size_t slots = CACHE_BYTES / (g->slot_floats * sizeof(float));
    slots = slots < 1 ? 1 : slots > MOST_ACTIVE ? MOST_ACTIVE : slots;
    if (g->options->max_active > 0) {
        slots = (size_t)g->options->max_active;
    }
    g->n_slots = slots < (size_t)g->n_requests ? (int)slots : g->n_requests;
    int rows = engine->max_tokens > g->n_slots ? engine->max_tokens : g->n_slots, total = 0;
    for (int i = 0; i < g->n_requests; i++) {
        int n = g->requests[i].n_prompt;
        rows = n > rows ? n : rows;
        total += i == 0 || !shares_prompt(&g->requests[i], &g->requests[i - 1]) ? n : 0;
    }
    int most = total > g->n_slots ? total : g->n_slots; /* never more rows than there is to do */
    rows = rows < most ? rows : most;
    g->stride = engine_logits_stride(engine->model);
    int at_once = (int)((size_t)LOGITS_FLOATS / g->stride);
    at_once = at_once < 32 ? 32 : at_once;
    g->rows_at_once = at_once < g->n_slots ? at_once : g->n_slots;
    size_t scratch = pass_forward_scratch((size_t)g->capacity);
    size_t threads = (size_t)engine->n_threads, n_slots = (size_t)g->n_slots;
    Pass *pass = &g->pass;
    *pass = (Pass){.model = engine->model,
                   .kernels = engine->kernels,
                   .rope = engine->rope.table,
                   .hook = hook,
                   .n_threads = engine->n_threads,
                   .n_rows = rows,
                   .n_spans = g->n_slots,
                   .scratch_stride = scratch};
    size_t bytes = workspace_pass_bytes(pass, 0) + (size_t)rows * sizeof(int32_t) +
                   n_slots * (sizeof(Span) + sizeof(RowSpan) + sizeof(Slot) + sizeof(Draw) +
                              2 * sizeof(int) + g->slot_floats * sizeof(float)) +
                   threads * (scratch + 3 * g->stride) * sizeof(float) +
                   (size_t)g->rows_at_once * (D + g->stride) * sizeof(float) + 16 * 64;
    Workspace *w = &engine->workspace;
    Status status = workspace_reset(w, bytes, error);
    if (status != STATUS_OK) {
        return status;
    }
    workspace_cut_pass(w, pass, 0);
    pass->tokens = g->tokens = workspace_take(w, (size_t)rows * sizeof(int32_t));
    pass->spans = workspace_take(w, n_slots * sizeof(Span));
    pass->hook_spans = workspace_take(w, n_slots * sizeof(RowSpan));
    pass->roots = workspace_take(w, 2 * n_slots * sizeof(int));
    pass->attention_scratch = workspace_take(w, threads * scratch * sizeof(float));
    g->slots = workspace_take(w, n_slots * sizeof(Slot));
    g->draws = workspace_take(w, n_slots * sizeof(Draw));
    g->cache = workspace_take(w, n_slots * g->slot_floats * sizeof(float));
    g->hidden = workspace_take(w, (size_t)g->rows_at_once * D * sizeof(float));
    g->logits = workspace_take(w, (size_t)g->rows_at_once * g->stride * sizeof(float));
    g->terms = workspace_take(w, threads * g->stride * sizeof(float));
    g->order = workspace_take(w, threads * g->stride * sizeof(int32_t));
    g->penalized = workspace_take(w, threads * g->stride * sizeof(float));
    for (int s = 0; s < g->n_slots; s++) {
        g->slots[s].request = -1;
    }
    return STATUS_OK;
}

Status generate(Engine *engine, const LinearHook *hook, const GenerateRequest *requests,
                int n_requests, const GenerateOptions *options, Completion *completions,
                Error *error)
{
    parallel_float_mode();
    Generation g = {.engine = engine,
                    .requests = requests,
                    .n_requests = n_requests,
                    .options = options,
                    .completions = completions};
    memset(completions, 0, (size_t)n_requests * sizeof *completions);
    if (n_requests == 0) {
        return STATUS_OK;
    }
    Status status = check_requests(&g, error);
    if (status == STATUS_OK) {
        status = model_pack(engine->model, error);
    }
    if (status == STATUS_OK) {
        status = rope_grow(&engine->rope, &engine->model->config, g.capacity, error);
    }
    if (status == STATUS_OK) {
        status = set_up(&g, hook, error);
    }
    while (status == STATUS_OK && g.n_finished < n_requests) {
        if (g.next_request < n_requests) {
            admit(&g);
        }
        decode_once(&g);
        if (options->progress && options->progress(options->progress_context, g.n_finished,
                                                   n_requests, g.n_tokens) != 0) {
            status = error_set(error, STATUS_STOPPED, "stopped while generating");
        }
    }
    text_release(&g.text);
    if (status != STATUS_OK) {
        for (int i = 0; i < n_requests; i++) {
            completion_release(&completions[i]);
        }
    }
    return status;
}
