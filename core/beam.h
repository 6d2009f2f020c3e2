/* Beam search with a KV cache: the likeliest completions of one prompt, without random numbers. */
#pragma once
#include "core/generate.h"

typedef struct {
    const int32_t *prompt;
    int n_prompt; /* >= 1 */
    int adapter;
    int beams;             /* >= 1 */
    double length_penalty; /* A of sum(logprobs) / n^A; 0: none, above 0 favours long ones */
    int max_new;           /* completion tokens at most; cut to the model's context */
} BeamRequest;

/* completions: (beams), the best score first, and scores: (beams) theirs: sum(logprobs) / n^A, n
 * with the stop token; *n_found of them, fewer only where there are fewer texts. options: stop_ids
 * and progress. As transformers' beam search with early_stopping false: each step ranks every
 * beam's every next token by the sum of log p; those of the first `beams` that end in a stop token
 * are finished, the first `beams` others go on. It is over when `beams` are finished and none of
 * those scores below (best running sum) / (tokens so far)^A, or after max_new tokens, when the
 * running ones count as finished by length. Ties go to the better beam, then to the smaller id;
 * between scores, to the one finished earlier. One beam is greedy decoding. */
Status beam_search(Engine *engine, const LinearHook *hook, const BeamRequest *request,
                   const GenerateOptions *options, Completion *completions, double *scores,
                   int *n_found, Error *error);
