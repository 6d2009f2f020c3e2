/* Sampling with a KV cache. Finished sequences leave the batch at once and waiting ones enter; the
 * law says that nobody can see it in the numbers. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "core/engine.h"
#include "core/random.h"

#define GENERATE_COLDEST 1e-6f

typedef struct {
    const int32_t *prompt; /* requests next to each other with the same pointer and adapter share
                              its prefill */
    int n_prompt;          /* >= 1 */
    int adapter;
    bool greedy;
    float temperature; /* > 0; ignored when greedy; below GENERATE_COLDEST it is greedy */
    int top_k;         /* this and the next two as in core/draw.h; 0: all */
    float top_p;       /* 1: all */
    float min_p;       /* 0: all */
    float penalty;     /* draw_penalize of the tokens of prompt and completion; 0 or 1: none */
    int max_new;       /* completion tokens at most; cut to the model's context */
    RandomKey key;     /* random numbers: (key; step, prompt_index, sample, token) */
    uint32_t step, prompt_index, sample;
} GenerateRequest;

typedef enum { FINISH_STOP, FINISH_LENGTH } Finish;

typedef struct {
    int32_t *ids;     /* (n) with the stop token, if one ended it, as last one; malloc'ed */
    double *logprobs; /* (n) log p of each under softmax(logits / temperature) without top-k, top-p,
                       * min-p and penalty: equal to what engine_evaluate gives, bit for bit
                       * (greedy: temperature 1) */
    int n;
    Finish finish;
} Completion;
void completion_release(Completion *completion);

typedef struct {
    const int32_t *stop_ids; /* a completion ends with any of these */
    int n_stop;
    /* A completion also ends, FINISH_STOP, when its text (decoded without special tokens) holds one
     * of these; its ids and logprobs stay as sampled. Needs the model's tokenizer; none may be
     * empty. */
    const char *const *stop_texts;
    int n_stop_texts;
    int max_active; /* sequences decoded at once; 0: a default by memory */
    /* Called after every decoding step; nonzero stops: STATUS_STOPPED. May be NULL. */
    int (*progress)(void *context, int n_finished, int n_requests, long n_tokens);
    void *progress_context;
} GenerateOptions;

/* Whether the token is one of stop_ids. */
int generate_is_stop(const GenerateOptions *options, int32_t token);
/* Where a text of n bytes ends that is cut before the first of the stop texts; n where it holds
 * none. */
size_t generate_text_end(const char *text, size_t n, const char *const *stop_texts,
                         int n_stop_texts);

/* completions: (n_requests), filled in order of the requests. */
Status generate(Engine *engine, const LinearHook *hook, const GenerateRequest *requests,
                int n_requests, const GenerateOptions *options, Completion *completions,
                Error *error);
