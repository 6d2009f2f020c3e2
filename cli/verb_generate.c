/* tinylora generate */
#include <stdlib.h>
#include <string.h>

#include "cli/sampling.h"
#include "cli/use.h"
#include "cli/verbs.h"
#include "core/beam.h"

typedef struct {
    const char *prompt;
    Sampling sampling;
    int samples, beams;
    double length_penalty;
} Request;

/* What was generated for a prompt. */
typedef struct {
    TokenList prompt;
    Completion *completions;
    double *scores; /* of beams */
    int n;
    Stream *stream; /* of a single text; NULL: printed in the end */
    const World *world;
} Generated;

static int on_progress(void *context, int n_finished, int n_requests, long n_tokens)
{
    const Generated *made = context;
    const World *world = made->world;
    if (made->stream) {
        stream_write(made->stream, &made->completions[0], n_finished == n_requests);
        return world->stopping(world->context) || made->stream->status;
    }
    Progress progress = {.n_cells = n_requests,
                         .n_done = n_finished,
                         .phase = "completions",
                         .phase_done = n_finished,
                         .phase_total = n_requests,
                         .tokens = n_tokens,
                         .reward = 0.0 / 0.0};
    world->progress(world->context, &progress);
    return world->stopping(world->context);
}

/* The prompt's ids; an empty prompt is the model's BOS alone. */
static Status encode_prompt(const Model *model, const char *prompt, TokenList *ids, Error *error)
{
    Status status = tokenizer_encode(model->tokenizer, prompt, strlen(prompt),
                                     TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, ids, error);
    if (!status && ids->n == 0) {
        if (model->config.bos_id < 0) {
            return error_set(error, STATUS_USAGE,
                             "--prompt: empty, and the model has no BOS to start from");
        }
        token_list_add(ids, model->config.bos_id);
    }
    if (!status && ids->n >= (size_t)model->config.max_positions) {
        status = error_set(error, STATUS_USAGE,
                           "--prompt: %zu tokens leave no room in the model's context of %d",
                           ids->n, model->config.max_positions);
    }
    return status;
}

static void print_json(const Tokenizer *tokenizer, const Request *request, const Generated *made,
                       Text *out)
{
    text_add(out, "{\"prompt_ids\": [");
    for (size_t i = 0; i < made->prompt.n; i++) {
        text_printf(out, "%s%d", i ? ", " : "", made->prompt.ids[i]);
    }
    text_add(out, "], \"samples\": [");
    for (int i = 0; i < made->n; i++) {
        text_add(out, i ? ", {" : "{");
        sampling_json(out, &request->sampling, tokenizer, &made->completions[i]);
        if (request->beams) {
            text_add(out, ", \"score\": ");
            text_json_number(out, made->scores[i]);
        }
        text_add(out, "}");
    }
    text_add(out, "]}\n");
}

static void print_text(const Tokenizer *tokenizer, const Request *request, const Generated *made,
                       Text *out)
{
    for (int i = 0; i < made->n; i++) {
        text_add(out, i ? "\n" : "");
        if (!made->stream) {
            sampling_text(out, &request->sampling, tokenizer, &made->completions[i]);
        }
        text_add(out, "\n");
    }
}

static Status sample(Generated *made, const Use *use, const Request *request,
                     const GenerateOptions *options, Error *error)
{
    GenerateRequest *requests = calloc((size_t)made->n, sizeof *requests);
    if (!requests) {
        return error_set(error, STATUS_FAILED, "out of memory for %d completions", made->n);
    }
    for (int i = 0; i < made->n; i++) {
        requests[i] = sampling_request(&request->sampling, made->prompt.ids, (int)made->prompt.n,
                                       use->session.adapter);
        requests[i].sample = (uint32_t)i;
    }
    Status status = generate(use->session.bench.engine, session_hook(&use->session), requests,
                             made->n, options, made->completions, error);
    free(requests);
    return status;
}

static Status search(Generated *made, const Use *use, const Request *request,
                     const GenerateOptions *options, Error *error)
{
    BeamRequest beams = {.prompt = made->prompt.ids,
                         .n_prompt = (int)made->prompt.n,
                         .adapter = use->session.adapter,
                         .beams = request->beams,
                         .length_penalty = request->length_penalty,
                         .max_new = request->sampling.max_new};
    return beam_search(use->session.bench.engine, session_hook(&use->session), &beams, options,
                       made->completions, made->scores, &made->n, error);
}

static Status generate_all(const Cli *cli, const Use *use, const Request *request, Error *error)
{
    const Model *model = use->session.bench.model;
    int most = request->beams ? request->beams : request->samples;
    Text out = {0};
    bool json = cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL;
    Stream stream = {.sampling = &request->sampling, .tokenizer = model->tokenizer};
    Generated made = {.completions = calloc((size_t)most, sizeof *made.completions),
                      .scores = calloc((size_t)most, sizeof *made.scores),
                      .n = most,
                      .stream = json || request->beams || request->samples > 1 ? NULL : &stream,
                      .world = &use->world.world};
    Status status = made.completions && made.scores
                        ? STATUS_OK
                        : error_set(error, STATUS_FAILED, "out of memory for %d completions", most);
    status = status ? status : encode_prompt(model, request->prompt, &made.prompt, error);
    GenerateOptions options = {.stop_ids = model->config.eos_ids,
                               .n_stop = model->config.n_eos,
                               .progress = on_progress,
                               .progress_context = &made};
    sampling_stops(&options, &request->sampling);
    if (!status) {
        status = (request->beams ? search : sample)(&made, use, request, &options, error);
    }
    if (stream.status) {
        *error = stream.error;
        status = stream.status;
    }
    status = status ? status : sampling_check_finite(made.completions, made.n, error);
    if (!status) {
        (json ? print_json : print_text)(model->tokenizer, request, &made, &out);
    }
    status = status ? status : cli_write(text_string(&out), out.n, error);
    for (int i = 0; made.completions && i < made.n; i++) {
        completion_release(&made.completions[i]);
    }
    free(made.completions);
    free(made.scores);
    token_list_release(&made.prompt);
    text_release(&out);
    return status;
}

static Status check(const Request *r, Error *error)
{
    if (!r->prompt) {
        return error_set(error, STATUS_USAGE, "--prompt: a text is missing");
    }
    const Sampling *s = &r->sampling;
    if (!r->beams && r->length_penalty != 1) {
        return error_set(error, STATUS_USAGE, "--length-penalty: there are no --beams");
    }
    if (r->beams && (s->greedy || s->temperature != 1 || s->top_k != 0 || s->top_p != 1 ||
                     s->min_p != 0 || s->repetition_penalty != 1 || s->stop.n || r->samples != 1)) {
        return error_set(error, STATUS_USAGE,
                         "--beams: not with --greedy, --samples, --stop and what shapes sampling");
    }
    return sampling_check(s, error);
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    UseOptions used = {0};
    Request request = {.sampling = SAMPLING_DEFAULT, .samples = 1, .length_penalty = 1};
    const Option options[] = {
        USE_OPTIONS(used),
        SAMPLING_OPTIONS(request.sampling),
        {"--prompt", OPTION_TEXT, &request.prompt, 0, 0},
        {"--beams", OPTION_INT, &request.beams, 1, 1024},
        {"--length-penalty", OPTION_NUMBER, &request.length_penalty, -100, 100},
        {"--samples", OPTION_INT, &request.samples, 1, 1e6},
    };
    Use use = {0};
    Status status = options_parse(cli, options, sizeof options / sizeof options[0], argc, argv,
                                  NULL, 0, 0, error);
    status = status ? status : check(&request, error);
    status = status ? status : use_open(&use, cli, &used, error);
    status = status ? status : generate_all(cli, &use, &request, error);
    use_close(&use);
    return status;
}

const Verb verb_generate = {
    .name = "generate",
    .summary = "completions of a prompt",
    .usage = "--model MODEL [--run RUN | --surface S --at P | --adapter DIR] --prompt S [--greedy "
             "| --temperature T --top-p P --top-k K --min-p P | --beams N [--length-penalty A]] "
             "[--repetition-penalty R] [--stop S]... [--max-new N] [--seed N] [--samples N]",
    .help =
        "Prints the text; with -o json text, ids and log-probabilities.\n\n" USE_HELP SAMPLING_HELP
        "  --samples N       completions (1)\n\n"
        "examples:\n"
        "  tinylora generate --model abacus --prompt \"Tom has 3 apples.\" --greedy\n"
        "  tinylora generate --run 3f2a --prompt \"Tom has 3 apples.\" --samples 4 -o json\n",
    .run = run,
};
