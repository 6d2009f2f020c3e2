/* Requests from options; completions as text, as JSON, and as a stream. */
#include "cli/sampling.h"

#include <math.h>
#include <string.h>

Status sampling_check(const Sampling *sampling, Error *error)
{
    for (size_t i = 0; i < sampling->stop.n; i++) {
        if (sampling->stop.values[i][0] == '\0') {
            return error_set(error, STATUS_USAGE, "--stop: an empty text ends nothing");
        }
    }
    return STATUS_OK;
}

GenerateRequest sampling_request(const Sampling *sampling, const int32_t *prompt, int n,
                                 int adapter)
{
    return (GenerateRequest){.prompt = prompt,
                             .n_prompt = n,
                             .adapter = adapter,
                             .greedy = sampling->greedy,
                             .temperature = (float)sampling->temperature,
                             .top_k = sampling->top_k,
                             .top_p = (float)sampling->top_p,
                             .min_p = (float)sampling->min_p,
                             .penalty = (float)sampling->repetition_penalty,
                             .max_new = sampling->max_new,
                             .key = {sampling->seed, RANDOM_SAMPLE}};
}

void sampling_stops(GenerateOptions *options, const Sampling *sampling)
{
    options->stop_texts = sampling->stop.values;
    options->n_stop_texts = (int)sampling->stop.n;
}

Status sampling_check_finite(const Completion *completions, int n, Error *error)
{
    for (int i = 0; i < n; i++) {
        for (int t = 0; t < completions[i].n; t++) {
            if (!isfinite(completions[i].logprobs[t])) {
                return error_set(error, STATUS_FAILED, "the model's logits are not finite");
            }
        }
    }
    return STATUS_OK;
}

void sampling_text(Text *out, const Sampling *sampling, const Tokenizer *tokenizer,
                   const Completion *completion)
{
    Text whole = {0};
    tokenizer_decode(tokenizer, completion->ids, (size_t)completion->n, true, &whole);
    text_append(out, text_string(&whole),
                generate_text_end(text_string(&whole), whole.n, sampling->stop.values,
                                  (int)sampling->stop.n));
    text_release(&whole);
}

void sampling_json(Text *out, const Sampling *sampling, const Tokenizer *tokenizer,
                   const Completion *completion)
{
    Text text = {0};
    sampling_text(&text, sampling, tokenizer, completion);
    text_add(out, "\"text\": ");
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
    text_release(&text);
}

/* Where a text ends that may still become one of the stop texts. */
static size_t before_stop(const Text *text, size_t n, const OptionList *stop)
{
    size_t end = n;
    for (size_t i = 0; i < stop->n; i++) {
        size_t length = strlen(stop->values[i]);
        for (size_t k = length < n ? length : n; k > 0; k--) {
            if (memcmp(text->bytes + n - k, stop->values[i], k) == 0) {
                end = n - k < end ? n - k : end;
                break;
            }
        }
    }
    return end;
}

/* Where a text ends that may end inside a character. */
static size_t before_part(const Text *text, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char byte = (unsigned char)text->bytes[n - back];
        size_t length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
        if (length > back) {
            return n - back;
        }
        if ((byte & 0xc0) != 0x80) {
            break;
        }
    }
    return n;
}

void stream_write(Stream *stream, const Completion *completion, bool finished)
{
    const OptionList *stop = &stream->sampling->stop;
    Text text = {0};
    bool silent = stream->status || completion->n == 0 ||
                  sampling_check_finite(completion, 1, NULL) != STATUS_OK;
    if (silent) {
        return;
    }
    tokenizer_decode(stream->tokenizer, completion->ids, (size_t)completion->n, true, &text);
    size_t end = generate_text_end(text_string(&text), text.n, stop->values, (int)stop->n);
    if (!finished && end == text.n) {
        end = before_part(&text, before_stop(&text, end, stop));
    }
    if (end > stream->written) {
        stream->status =
            cli_write_now(text.bytes + stream->written, end - stream->written, &stream->error);
        stream->written = end;
    }
    text_release(&text);
}
