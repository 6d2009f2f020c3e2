/* Beam search. Invariants:
 * 1. Beams are in falling order of their sums; beam b's keys and values are in slot beams[b].slot,
 * all but its last token's.
 * 2. A beam's first child takes its slot over, the others copy it into slots of beams without
 * children. */
#include "core/beam.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine_state.h"
#include "core/parallel.h"

typedef struct {
    int slot;
    int parent; /* beam of the step before */
    double sum;
    int32_t *ids;     /* (max_new) */
    double *logprobs; /* (max_new) */
} Beam;

/* A beam and a next token. */
typedef struct {
    int beam;
    int32_t token;
    double logprob, sum;
} Candidate;

typedef struct {
    Engine *engine;
    const BeamRequest *request;
    const GenerateOptions *options;
    Completion *found; /* (beams) by falling score */
    double *scores;
    int n_found;

    Pass pass;
    int max_new, capacity, n; /* n: tokens of every running beam */
    size_t slot_floats, stride;
    float *cache; /* (beams, slot_floats) */
    int32_t *tokens;
    float *hidden, *logits;
    Beam *running, *next; /* (beams) */
    int n_running;
    Candidate *candidates; /* (most_candidates) by falling sum */
    int n_candidates, most_candidates;
    int *taken; /* (beams) whether a slot is */
} Search;

/* ---- the model ---- */

static void add_row_span(Search *s, int slot, const int32_t *tokens, int n, int position)
{
    Pass *pass = &s->pass;
    float *memory = s->cache + (size_t)slot * s->slot_floats;
    size_t half = s->slot_floats / (size_t)pass->model->config.n_layers / 2;
    pass->spans[pass->n_spans] = (Span){.sequence = pass->n_spans,
                                        .adapter = s->request->adapter,
                                        .first_row = pass->n_rows,
                                        .n_rows = n,
                                        .position = position,
                                        .parent = -1,
                                        .capacity = s->capacity,
                                        .keys = memory,
                                        .values = memory + half,
                                        .layer_stride = 2 * half};
    pass->hook_spans[pass->n_spans] = (RowSpan){.sequence = pass->n_spans,
                                                .adapter = s->request->adapter,
                                                .first_row = pass->n_rows,
                                                .n_rows = n,
                                                .index = pass->n_spans};
    pass->n_spans++;
    memcpy(s->tokens + pass->n_rows, tokens, (size_t)n * sizeof *tokens);
    pass->n_rows += n;
}

/* Rank the next tokens of beam b, whose logits these are, among the candidates. */
static void rank_row(Search *s, int b, const float *logits)
{
    int V = s->engine->model->config.vocab_size;
    float largest;
    double sum;
    s->engine->kernels->softmax_stats(&largest, &sum, NULL, logits, V, 1.0f);
    for (int32_t v = 0; v < V; v++) {
        double logprob = engine_logprob(logits, v, 1.0f, largest, sum);
        double total = s->running[b].sum + logprob;
        int full = s->n_candidates == s->most_candidates;
        if (!isfinite(total) || (full && total <= s->candidates[s->n_candidates - 1].sum)) {
            continue;
        }
        int at = full ? s->n_candidates - 1 : s->n_candidates++;
        for (; at > 0 && s->candidates[at - 1].sum < total; at--) {
            s->candidates[at] = s->candidates[at - 1];
        }
        s->candidates[at] = (Candidate){.beam = b, .token = v, .logprob = logprob, .sum = total};
    }
}

/* Logits of the last row of each span, and the candidates from them. */
static void run_and_rank(Search *s)
{
    Pass *pass = &s->pass;
    int D = pass->model->config.width;
    pass_forward(pass);
    for (int i = 0; i < pass->n_spans; i++) {
        int row = pass->spans[i].first_row + pass->spans[i].n_rows - 1;
        pass->kernels->rmsnorm(s->hidden + (size_t)i * (size_t)D,
                               pass->x_out + (size_t)row * (size_t)D, pass->model->norm_final, D,
                               (float)pass->model->config.rms_eps);
    }
    matrix_forward(s->logits, (int)s->stride, s->hidden, D, &pass->model->head, NULL, pass->n_spans,
                   pass->n_threads);
    s->n_candidates = 0;
    for (int b = 0; b < pass->n_spans; b++) {
        rank_row(s, b, s->logits + (size_t)b * s->stride);
    }
}

/* ---- the search ---- */

/* A finished text joins the best ones: `beam`'s n tokens and, unless NULL, one more. */
static Status finish(Search *s, const Beam *beam, int n, const Candidate *last, Finish how,
                     Error *error)
{
    int beams = s->request->beams, length = n + (last != NULL);
    double score = (last ? last->sum : beam->sum) / pow((double)length, s->request->length_penalty);
    if (s->n_found == beams) {
        if (!(score > s->scores[beams - 1])) {
            return STATUS_OK;
        }
        completion_release(&s->found[--s->n_found]);
    }
    Completion made = {.n = length, .finish = how};
    made.ids = malloc((size_t)length * sizeof *made.ids);
    made.logprobs = malloc((size_t)length * sizeof *made.logprobs);
    if (!made.ids || !made.logprobs) {
        completion_release(&made);
        return error_set(error, STATUS_FAILED, "out of memory for %d beams", beams);
    }
    memcpy(made.ids, beam->ids, (size_t)n * sizeof *made.ids);
    memcpy(made.logprobs, beam->logprobs, (size_t)n * sizeof *made.logprobs);
    if (last) {
        made.ids[n] = last->token;
        made.logprobs[n] = last->logprob;
    }
    int at = s->n_found++;
    for (; at > 0 && s->scores[at - 1] < score; at--) {
        s->found[at] = s->found[at - 1];
        s->scores[at] = s->scores[at - 1];
    }
    s->found[at] = made;
    s->scores[at] = score;
    return STATUS_OK;
}

static void extend(Search *s, const Candidate *candidate)
{
    const Beam *parent = &s->running[candidate->beam];
    Beam *child = &s->next[s->n_running++];
    child->parent = candidate->beam;
    child->sum = candidate->sum;
    memcpy(child->ids, parent->ids, (size_t)s->n * sizeof *child->ids);
    memcpy(child->logprobs, parent->logprobs, (size_t)s->n * sizeof *child->logprobs);
    child->ids[s->n] = candidate->token;
    child->logprobs[s->n] = candidate->logprob;
}

/* Slots for the children, which become the running ones. */
static void place(Search *s)
{
    int slot = 0;
    memset(s->taken, 0, (size_t)s->request->beams * sizeof *s->taken);
    for (int i = 0; i < s->n_running; i++) {
        int own = s->running[s->next[i].parent].slot;
        s->next[i].slot = s->taken[own] ? -1 : own;
        s->taken[own] = 1;
    }
    for (int i = 0; i < s->n_running; i++) {
        if (s->next[i].slot >= 0) {
            continue;
        }
        while (s->taken[slot]) {
            slot++;
        }
        s->taken[slot] = 1;
        s->next[i].slot = slot;
        memcpy(s->cache + (size_t)slot * s->slot_floats,
               s->cache + (size_t)s->running[s->next[i].parent].slot * s->slot_floats,
               s->slot_floats * sizeof(float));
    }
    Beam *swap = s->running;
    s->running = s->next;
    s->next = swap;
}

/* Candidates become finished texts and the next beams. */
static Status advance(Search *s, Error *error)
{
    int beams = s->request->beams;
    Status status = STATUS_OK;
    s->n_running = 0;
    for (int i = 0; i < s->n_candidates && s->n_running < beams && !status; i++) {
        const Candidate *candidate = &s->candidates[i];
        if (!generate_is_stop(s->options, candidate->token)) {
            extend(s, candidate);
        } else if (i < beams) {
            status = finish(s, &s->running[candidate->beam], s->n, candidate, FINISH_STOP, error);
        }
    }
    place(s);
    s->n++;
    return status;
}

static int is_over(const Search *s)
{
    return s->n_running == 0 || s->n == s->max_new ||
           (s->n_found == s->request->beams &&
            s->scores[s->n_found - 1] >=
                s->running[0].sum / pow((double)s->n, s->request->length_penalty));
}

static Status search(Search *s, Error *error)
{
    const BeamRequest *r = s->request;
    s->pass.n_rows = s->pass.n_spans = 0;
    add_row_span(s, s->running[0].slot, r->prompt, r->n_prompt, 0);
    for (;;) {
        run_and_rank(s);
        if (s->n_candidates == 0) {
            return error_set(error, STATUS_FAILED, "the model's logits are not finite");
        }
        Status status = advance(s, error);
        const GenerateOptions *o = s->options;
        if (!status && o->progress &&
            o->progress(o->progress_context, s->n_found, r->beams, (long)s->n * r->beams) != 0) {
            status = error_set(error, STATUS_STOPPED, "stopped while generating");
        }
        if (status) {
            return status;
        }
        if (is_over(s)) {
            break;
        }
        s->pass.n_rows = s->pass.n_spans = 0;
        for (int b = 0; b < s->n_running; b++) {
            const Beam *beam = &s->running[b];
            add_row_span(s, beam->slot, &beam->ids[s->n - 1], 1, r->n_prompt + s->n - 1);
        }
    }
    Status status = STATUS_OK;
    for (int b = 0; s->n == s->max_new && b < s->n_running && !status; b++) {
        status = finish(s, &s->running[b], s->n, NULL, FINISH_LENGTH, error);
    }
    return status;
}

/* ---- setting up ---- */

static Status check(Search *s, Error *error)
{
    const BeamRequest *r = s->request;
    const ModelConfig *c = &s->engine->model->config;
    int room = c->max_positions - r->n_prompt;
    s->max_new = r->max_new < room ? r->max_new : room;
    if (r->n_prompt < 1) {
        return error_set(error, STATUS_USAGE, "a prompt of no tokens");
    }
    if (s->max_new < 1) {
        return error_set(error, STATUS_USAGE,
                         "a prompt of %d tokens leaves no room for %d more in a context of %d",
                         r->n_prompt, r->max_new, c->max_positions);
    }
    for (int t = 0; t < r->n_prompt; t++) {
        if (r->prompt[t] < 0 || r->prompt[t] >= c->vocab_size) {
            return error_set(error, STATUS_USAGE, "token id %d is not in the vocabulary",
                             (int)r->prompt[t]);
        }
    }
    s->capacity = (r->n_prompt + s->max_new + 15) / 16 * 16;
    return STATUS_OK;
}

static Status set_up(Search *s, const LinearHook *hook, Error *error)
{
    Engine *engine = s->engine;
    const ModelConfig *c = &engine->model->config;
    int beams = s->request->beams,
        rows = s->request->n_prompt > beams ? s->request->n_prompt : beams;
    size_t D = (size_t)c->width, n = (size_t)beams, most = (size_t)s->max_new;
    s->slot_floats =
        2 * (size_t)c->n_layers * (size_t)c->n_kv_heads * (size_t)c->head_dim * (size_t)s->capacity;
    s->stride = engine_logits_stride(engine->model);
    s->most_candidates = (1 + s->options->n_stop) * beams;
    size_t scratch = pass_forward_scratch((size_t)s->capacity), threads = (size_t)engine->n_threads,
           candidates = (size_t)s->most_candidates;
    Pass *pass = &s->pass;
    *pass = (Pass){.model = engine->model,
                   .kernels = engine->kernels,
                   .rope = engine->rope.table,
                   .hook = hook,
                   .n_threads = engine->n_threads,
                   .n_rows = rows,
                   .n_spans = beams,
                   .scratch_stride = scratch};
    size_t bytes = workspace_pass_bytes(pass, 0) + (size_t)rows * sizeof(int32_t) +
                   n * (sizeof(Span) + sizeof(RowSpan) + 3 * sizeof(int) + 2 * sizeof(Beam)) +
                   n * (s->slot_floats + D + s->stride) * sizeof(float) +
                   threads * scratch * sizeof(float) + candidates * sizeof(Candidate) +
                   2 * n * most * (sizeof(int32_t) + sizeof(double)) + (16 + 4 * n) * 64;
    Workspace *w = &engine->workspace;
    Status status = workspace_reset(w, bytes, error);
    if (status != STATUS_OK) {
        return status;
    }
    workspace_cut_pass(w, pass, 0);
    pass->tokens = s->tokens = workspace_take(w, (size_t)rows * sizeof(int32_t));
    pass->spans = workspace_take(w, n * sizeof(Span));
    pass->hook_spans = workspace_take(w, n * sizeof(RowSpan));
    pass->roots = workspace_take(w, 2 * n * sizeof(int));
    pass->attention_scratch = workspace_take(w, threads * scratch * sizeof(float));
    s->cache = workspace_take(w, n * s->slot_floats * sizeof(float));
    s->hidden = workspace_take(w, n * D * sizeof(float));
    s->logits = workspace_take(w, n * s->stride * sizeof(float));
    s->candidates = workspace_take(w, candidates * sizeof(Candidate));
    s->taken = workspace_take(w, n * sizeof(int));
    s->running = workspace_take(w, n * sizeof(Beam));
    s->next = workspace_take(w, n * sizeof(Beam));
    for (int b = 0; b < 2 * beams; b++) {
        Beam *beam = b < beams ? &s->running[b] : &s->next[b - beams];
        *beam = (Beam){.ids = workspace_take(w, most * sizeof(int32_t)),
                       .logprobs = workspace_take(w, most * sizeof(double))};
    }
    return STATUS_OK;
}

Status beam_search(Engine *engine, const LinearHook *hook, const BeamRequest *request,
                   const GenerateOptions *options, Completion *completions, double *scores,
                   int *n_found, Error *error)
{
    parallel_float_mode();
    Search s = {.engine = engine,
                .request = request,
                .options = options,
                .found = completions,
                .scores = scores};
    memset(completions, 0, (size_t)request->beams * sizeof *completions);
    Status status = check(&s, error);
    status = status ? status : model_pack(engine->model, error);
    status = status ? status : rope_grow(&engine->rope, &engine->model->config, s.capacity, error);
    status = status ? status : set_up(&s, hook, error);
    status = status ? status : search(&s, error);
    for (int i = 0; status && i < s.n_found; i++) {
        completion_release(&completions[i]);
    }
    *n_found = status ? 0 : s.n_found;
    return status;
}
