/* Decoding with and without keys and values of the text so far. */
#include <stdlib.h>
#include <string.h>

#include "analysis/profile.h"
#include "core/generate.h"

enum { MOST_RUNS = 20 };

void profile_tokens(int32_t *tokens, int n, int vocab_size, int row)
{
    RandomKey key = {1, RANDOM_DATA};
    for (int i = 0; i < n; i++) {
        tokens[i] =
            (int32_t)(random_uniform(key, (uint32_t)row, (uint32_t)i, 0, 0) * (double)vocab_size);
    }
}

typedef struct {
    Engine *engine;
    const DecodeProfile *profile;
    int32_t *texts; /* (batch, n_prompt + n_new) */
    GenerateRequest *requests;
    Completion *completions;
    int32_t *ids;
    double *logprobs;
} Decoding;

/* The next `n` tokens of every text after `done` of them: one call, whose cache does not outlive
 * it. */
static Status extend(Decoding *d, int done, int n, Error *error)
{
    const DecodeProfile *p = d->profile;
    int length = p->n_prompt + p->n_new;
    GenerateOptions options = {.max_active = p->batch};
    for (int i = 0; i < p->batch; i++) {
        d->requests[i] = (GenerateRequest){.prompt = d->texts + (size_t)i * (size_t)length,
                                           .n_prompt = p->n_prompt + done,
                                           .greedy = true,
                                           .temperature = 1,
                                           .top_p = 1,
                                           .max_new = n,
                                           .key = {1, RANDOM_SAMPLE}};
    }
    Status status =
        generate(d->engine, NULL, d->requests, p->batch, &options, d->completions, error);
    for (int i = 0; i < p->batch; i++) {
        Completion *completion = &d->completions[i];
        if (!status) {
            size_t at = (size_t)i * (size_t)p->n_new + (size_t)done;
            memcpy(d->ids + at, completion->ids, (size_t)n * sizeof *d->ids);
            memcpy(d->logprobs + at, completion->logprobs, (size_t)n * sizeof *d->logprobs);
            memcpy(d->texts + (size_t)i * (size_t)length + p->n_prompt + done, completion->ids,
                   (size_t)n * sizeof *d->texts);
        }
        completion_release(completion);
    }
    return status;
}

static Status decode(Decoding *d, Error *error)
{
    int each = d->profile->cache ? d->profile->n_new : 1;
    Status status = STATUS_OK;
    for (int done = 0; done < d->profile->n_new && !status; done += each) {
        status = extend(d, done, each, error);
    }
    return status;
}

static Status measure(double *seconds, Decoding *d, double (*now_s)(void), Error *error)
{
    double total = 0;
    Status status = extend(d, 0, 1, error); /* touches the weights and most of the memory once */
    for (int run = 0; run < MOST_RUNS && total < 1 && !status; run++) {
        double start = now_s();
        status = decode(d, error);
        double took = now_s() - start;
        *seconds = run == 0 || took < *seconds ? took : *seconds;
        total += took;
    }
    return status;
}

Status profile_decode(double *seconds, int32_t *ids, double *logprobs, Engine *engine,
                      const DecodeProfile *profile, double (*now_s)(void), Error *error)
{
    const ModelConfig *config = &engine_model(engine)->config;
    size_t batch = (size_t)profile->batch, length = (size_t)profile->n_prompt + profile->n_new;
    if (length > (size_t)config->max_positions) {
        return error_set(error, STATUS_USAGE,
                         "a prompt of %d tokens and %d more: the model's context is %d",
                         profile->n_prompt, profile->n_new, config->max_positions);
    }
    Decoding d = {.engine = engine,
                  .profile = profile,
                  .texts = malloc(batch * length * sizeof *d.texts),
                  .requests = calloc(batch, sizeof *d.requests),
                  .completions = calloc(batch, sizeof *d.completions),
                  .ids = ids,
                  .logprobs = logprobs};
    Status status = STATUS_OK;
    if (!d.texts || !d.requests || !d.completions) {
        status =
            error_set(error, STATUS_FAILED, "no memory for %zu texts of %zu tokens", batch, length);
    }
    for (size_t i = 0; i < batch && !status; i++) {
        profile_tokens(d.texts + i * length, profile->n_prompt, config->vocab_size, (int)i);
    }
    status = status ? status : measure(seconds, &d, now_s, error);
    free(d.texts);
    free(d.requests);
    free(d.completions);
    return status;
}
