/* tinylora generate */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/use.h"
#include "cli/verbs.h"
#include "core/beam.h"
#include "core/generate.h"

typedef struct {
    const char *prompt;
    bool greedy;
    double temperature, top_p, min_p, repetition_penalty;
    int top_k, max_new, samples, beams;
    double length_penalty;
    uint64_t seed;
    OptionList stop;
} Request;

static int on_progress(void *context, int n_finished, int n_requests, long n_tokens)
{
    const World *world = context;
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

/* The text of a completion, before the stop text that ended it. */
static void add_text(const Model *model, const Completion *completion, const OptionList *stop,
                     Text *text)
{
    Text whole = {0};
    tokenizer_decode(model->tokenizer, completion->ids, (size_t)completion->n, true, &whole);
    text_append(text, text_string(&whole),
                generate_text_end(text_string(&whole), whole.n, stop->values, (int)stop->n));
    text_release(&whole);
}

static void print_json(const Model *model, const TokenList *prompt, const OptionList *stop,
                       const Completion *completions, const double *scores, int n, Text *out)
{
    text_add(out, "{\"prompt_ids\": [");
    for (size_t i = 0; i < prompt->n; i++) {
        text_printf(out, "%s%d", i ? ", " : "", prompt->ids[i]);
    }
    text_add(out, "], \"samples\": [");
    for (int i = 0; i < n; i++) {
        const Completion *completion = &completions[i];
        Text text = {0};
        add_text(model, completion, stop, &text);
        text_add(out, i ? ", {\"text\": " : "{\"text\": ");
        text_json_string(out, text_string(&text), text.n);
        text_add(out, ", \"ids\": [");
        for (int j = 0; j < completion->n; j++) {
            text_printf(out, "%s%d", j ? ", " : "", completion->ids[j]);
        }
        text_add(out, "], \"logprobs\": [");
        for (int j = 0; j < completion->n; j++) {
            text_add(out, j ? ", " : "");
            text_json_number(out, completion->logprobs[j]);
        }
        text_printf(out, "], \"finish\": \"%s\"",
                    completion->finish == FINISH_STOP ? "stop" : "length");
        if (scores) {
            text_add(out, ", \"score\": ");
            text_json_number(out, scores[i]);
        }
        text_add(out, "}");
        text_release(&text);
    }
    text_add(out, "]}\n");
}

static void print_text(const Model *model, const OptionList *stop, const Completion *completions,
                       int n, Text *out)
{
    for (int i = 0; i < n; i++) {
        text_add(out, i ? "\n" : "");
        add_text(model, &completions[i], stop, out);
        text_add(out, "\n");
    }
}

/* What was generated for a prompt. */
typedef struct {
    TokenList prompt;
    Completion *completions;
    double *scores; /* of beams */
    int n;
} Generated;

static Status sample(Generated *made, const Use *use, const Request *request,
                     const GenerateOptions *options, Error *error)
{
    GenerateRequest *requests = calloc((size_t)made->n, sizeof *requests);
    if (!requests) {
        return error_set(error, STATUS_FAILED, "out of memory for %d completions", made->n);
    }
    for (int i = 0; i < made->n; i++) {
        requests[i] = (GenerateRequest){.prompt = made->prompt.ids,
                                        .n_prompt = (int)made->prompt.n,
                                        .adapter = use->session.adapter,
                                        .greedy = request->greedy,
                                        .temperature = (float)request->temperature,
                                        .top_k = request->top_k,
                                        .top_p = (float)request->top_p,
                                        .min_p = (float)request->min_p,
                                        .penalty = (float)request->repetition_penalty,
                                        .max_new = request->max_new,
                                        .key = {request->seed, RANDOM_SAMPLE},
                                        .sample = (uint32_t)i};
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
                         .max_new = request->max_new};
    return beam_search(use->session.bench.engine, session_hook(&use->session), &beams, options,
                       made->completions, made->scores, &made->n, error);
}

static Status check_finite(const Generated *made, Error *error)
{
    for (int i = 0; i < made->n; i++) {
        for (int t = 0; t < made->completions[i].n; t++) {
            if (!isfinite(made->completions[i].logprobs[t])) {
                return error_set(error, STATUS_FAILED, "the model's logits are not finite");
            }
        }
    }
    return STATUS_OK;
}

static Status generate_all(const Cli *cli, const Use *use, const Request *request, Error *error)
{
    const Model *model = use->session.bench.model;
    int most = request->beams ? request->beams : request->samples;
    Text out = {0};
    Generated made = {.completions = calloc((size_t)most, sizeof *made.completions),
                      .scores = calloc((size_t)most, sizeof *made.scores),
                      .n = most};
    Status status = made.completions && made.scores
                        ? STATUS_OK
                        : error_set(error, STATUS_FAILED, "out of memory for %d completions", most);
    status = status ? status : encode_prompt(model, request->prompt, &made.prompt, error);
    GenerateOptions options = {.stop_ids = model->config.eos_ids,
                               .n_stop = model->config.n_eos,
                               .stop_texts = request->stop.values,
                               .n_stop_texts = (int)request->stop.n,
                               .progress = on_progress,
                               .progress_context = (void *)(uintptr_t)&use->world.world};
    if (!status) {
        status = (request->beams ? search : sample)(&made, use, request, &options, error);
    }
    status = status ? status : check_finite(&made, error);
    if (!status && (cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL)) {
        print_json(model, &made.prompt, &request->stop, made.completions,
                   request->beams ? made.scores : NULL, made.n, &out);
    } else if (!status) {
        print_text(model, &request->stop, made.completions, made.n, &out);
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
    for (size_t i = 0; i < r->stop.n; i++) {
        if (r->stop.values[i][0] == '\0') {
            return error_set(error, STATUS_USAGE, "--stop: an empty text ends nothing");
        }
    }
    if (!r->beams && r->length_penalty != 1) {
        return error_set(error, STATUS_USAGE, "--length-penalty: there are no --beams");
    }
    if (r->beams && (r->greedy || r->temperature != 1 || r->top_k != 0 || r->top_p != 1 ||
                     r->min_p != 0 || r->repetition_penalty != 1 || r->stop.n || r->samples != 1)) {
        return error_set(error, STATUS_USAGE,
                         "--beams: not with --greedy, --samples, --stop and what shapes sampling");
    }
    return STATUS_OK;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    UseOptions used = {0};
    Request request = {.temperature = 1,
                       .top_p = 1,
                       .repetition_penalty = 1,
                       .max_new = 128,
                       .samples = 1,
                       .length_penalty = 1,
                       .seed = 1};
    const Option options[] = {
        USE_OPTIONS(used),
        {"--prompt", OPTION_TEXT, &request.prompt, 0, 0},
        {"--greedy", OPTION_FLAG, &request.greedy, 0, 0},
        {"--temperature", OPTION_NUMBER, &request.temperature, 1e-6, 1e6},
        {"--top-p", OPTION_NUMBER, &request.top_p, 1e-12, 1},
        {"--top-k", OPTION_INT, &request.top_k, 0, 1e9},
        {"--min-p", OPTION_NUMBER, &request.min_p, 0, 1},
        {"--repetition-penalty", OPTION_NUMBER, &request.repetition_penalty, 1e-3, 1e3},
        {"--stop", OPTION_LIST, &request.stop, 0, 0},
        {"--beams", OPTION_INT, &request.beams, 1, 1024},
        {"--length-penalty", OPTION_NUMBER, &request.length_penalty, -100, 100},
        {"--max-new", OPTION_INT, &request.max_new, 1, 1e9},
        {"--seed", OPTION_SEED, &request.seed, 0, 0},
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
        "Prints the text; with -o json text, ids and log-probabilities.\n\n" USE_HELP
        "  --greedy          the likeliest token each time\n"
        "  --temperature T   1 unless given\n"
        "  --top-k K, --top-p P, --min-p P   cut the tail, in this order: the likeliest K; the "
        "fewest\n"
        "                    whose mass reaches P; those with at least P times the likeliest "
        "one's\n"
        "  --repetition-penalty R   divides positive logits of tokens of prompt and completion by "
        "R and\n"
        "                    multiplies negative ones; log-probabilities stay those without it\n"
        "  --stop S          ends a completion whose text holds S, and cuts the text before it; "
        "again\n"
        "                    for more\n"
        "  --max-new N       tokens at most (128)\n"
        "  --seed N          of the random draws (1)\n"
        "  --samples N       completions (1)\n\n"
        "examples:\n"
        "  tinylora generate --model abacus --prompt \"Tom has 3 apples.\" --greedy\n"
        "  tinylora generate --run 3f2a --prompt \"Tom has 3 apples.\" --samples 4 -o json\n",
    .run = run,
};
