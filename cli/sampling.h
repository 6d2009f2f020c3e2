/* How an answer is sampled, as generate and chat have it on the command line; its text as it comes,
 * and as JSON. */
#pragma once
#include "cli/options.h"
#include "core/generate.h"

typedef struct {
    bool greedy;
    double temperature, top_p, min_p, repetition_penalty;
    int top_k, max_new;
    uint64_t seed;
    OptionList stop;
} Sampling;

#define SAMPLING_DEFAULT                                                                           \
    {                                                                                              \
        .temperature = 1, .top_p = 1, .repetition_penalty = 1, .max_new = 128, .seed = 1           \
    }
/* For the table of options. */
#define SAMPLING_OPTIONS(target)                                                                   \
    {"--greedy", OPTION_FLAG, &(target).greedy, 0, 0},                                             \
        {"--temperature", OPTION_NUMBER, &(target).temperature, 1e-6, 1e6},                        \
        {"--top-p", OPTION_NUMBER, &(target).top_p, 1e-12, 1},                                     \
        {"--top-k", OPTION_INT, &(target).top_k, 0, 1e9},                                          \
        {"--min-p", OPTION_NUMBER, &(target).min_p, 0, 1},                                         \
        {"--repetition-penalty", OPTION_NUMBER, &(target).repetition_penalty, 1e-3, 1e3},          \
        {"--stop", OPTION_LIST, &(target).stop, 0, 0},                                             \
        {"--max-new", OPTION_INT, &(target).max_new, 1, 1e9},                                      \
    {                                                                                              \
        "--seed", OPTION_SEED, &(target).seed, 0, 0                                                \
    }
#define SAMPLING_HELP                                                                              \
    "  --greedy          the likeliest token each time\n"                                          \
    "  --temperature T   1 unless given\n"                                                         \
    "  --top-k K, --top-p P, --min-p P   cut the tail, in this order: the likeliest K; the "       \
    "fewest\n"                                                                                     \
    "                    whose mass reaches P; those with at least P times the likeliest "         \
    "one's\n"                                                                                      \
    "  --repetition-penalty R   divides positive logits of tokens of prompt and completion by "    \
    "R and\n"                                                                                      \
    "                    multiplies negative ones; log-probabilities stay those without it\n"      \
    "  --stop S          ends a completion whose text holds S, and cuts the text before it; "      \
    "again\n"                                                                                      \
    "                    for more\n"                                                               \
    "  --max-new N       tokens at most (128)\n"                                                   \
    "  --seed N          of the random draws (1)\n"

/* Errors: STATUS_USAGE. */
Status sampling_check(const Sampling *sampling, Error *error);
/* A request; prompt: (n) must outlive it. */
GenerateRequest sampling_request(const Sampling *sampling, const int32_t *prompt, int n,
                                 int adapter);
/* Stop texts of the options. */
void sampling_stops(GenerateOptions *options, const Sampling *sampling);
/* Errors: STATUS_FAILED where a log-probability is not finite. completions: (n). */
Status sampling_check_finite(const Completion *completions, int n, Error *error);
/* Appends the text of a completion, before the stop text that ended it. */
void sampling_text(Text *out, const Sampling *sampling, const Tokenizer *tokenizer,
                   const Completion *completion);
/* Appends `"text": ..., "ids": [...], "logprobs": [...], "finish": "stop"`. */
void sampling_json(Text *out, const Sampling *sampling, const Tokenizer *tokenizer,
                   const Completion *completion);

/* A completion's text on stdout while it is sampled, in whole characters. */
typedef struct {
    const Sampling *sampling;
    const Tokenizer *tokenizer;
    size_t written; /* bytes of the text */
    Status status;  /* of writing; with its error */
    Error error;
} Stream;
/* Writes what of the text is certain by now and not yet written; finished: all of it. The same
 * bytes as sampling_text in the end. Nothing once a log-probability was not finite, or after an
 * error. */
void stream_write(Stream *stream, const Completion *completion, bool finished);
