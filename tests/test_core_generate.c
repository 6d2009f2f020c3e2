/* Sampling settings and edges of generate, on a tiny random model. */
#define _GNU_SOURCE /* memmem */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/engine.h"
#include "core/generate.h"
#include "core/text.h"
#include "tests/shared.h"
#include "tests/tiny_model.h"

enum { NEW = 24, CONTEXT = 512 };

static char directory[256];
static Model *model;
static Engine *engine;

static int open_all(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_LLAMA, false);
    tiny_model_write(directory, &config, 7);
    Error error = {{0}};
    tiny_require(model_open(&model, directory, 2, &error), &error);
    tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    engine_free(engine);
    model_free(model);
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    return system(command);
}

static const int32_t prompt[5] = {3, 17, 8, 30, 11};

static GenerateRequest request_of(float temperature)
{
    return (GenerateRequest){.prompt = prompt,
                             .n_prompt = 5,
                             .greedy = temperature == 0,
                             .temperature = temperature,
                             .top_p = 1,
                             .max_new = NEW,
                             .key = {21, RANDOM_SAMPLE}};
}

static Completion complete(const GenerateRequest *request)
{
    Error error = {{0}};
    Completion completion;
    tiny_require(generate(engine, NULL, request, 1, &(GenerateOptions){0}, &completion, &error),
                 &error);
    return completion;
}

/* log p of a completion's tokens, by the engine. */
static void score(const GenerateRequest *request, const Completion *completion, float temperature,
                  double *logprobs)
{
    int32_t ids[CONTEXT];
    uint8_t scored[CONTEXT];
    double all[CONTEXT];
    int n = request->n_prompt;
    memset(scored, 1, sizeof scored);
    memcpy(ids, request->prompt, (size_t)n * sizeof *ids);
    memcpy(ids + n, completion->ids, (size_t)completion->n * sizeof *ids);
    Sequence sequence = {.tokens = ids,
                         .n_tokens = n + completion->n,
                         .parent = -1,
                         .temperature = temperature,
                         .scored = scored,
                         .logprobs = all};
    Error error = {{0}};
    tiny_require(
        engine_evaluate(engine, &(Batch){.sequences = &sequence, .n_sequences = 1}, &error),
        &error);
    memcpy(logprobs, all + n, (size_t)completion->n * sizeof *logprobs);
}

static void a_temperature_near_zero_equals_greedy(void **state)
{
    (void)state;
    GenerateRequest request = request_of(0);
    Completion greedy = complete(&request);
    const float cold[4] = {1e-6f, 1e-7f, 1e-30f, 1e-40f /* denormal */};
    for (int i = 0; i < 4; i++) {
        request = request_of(cold[i]);
        request.greedy = false; /* where denormals are zeros, 1e-40 == 0 */
        for (int cut = 0; cut < 2; cut++) {
            request.min_p = cut ? 0.2f : 0;
            Completion near = complete(&request);
            assert_int_equal(near.n, greedy.n);
            assert_memory_equal(near.ids, greedy.ids, (size_t)near.n * sizeof *near.ids);
            for (int t = 0; t < near.n; t++) {
                assert_true(isfinite(near.logprobs[t]));
            }
            completion_release(&near);
        }
    }
    completion_release(&greedy);
}

static void a_large_penalty_repeats_nothing_and_leaves_the_logprobs_the_models(void **state)
{
    (void)state;
    for (int warm = 0; warm < 2; warm++) {
        GenerateRequest request = request_of(warm ? 0.8f : 0);
        Completion plain = complete(&request);
        request.penalty = 1;
        Completion same = complete(&request);
        assert_memory_equal(plain.ids, same.ids, (size_t)plain.n * sizeof *plain.ids);
        request.penalty = 1e4f;
        request.max_new = 8;
        Completion penalized = complete(&request);
        double logprobs[NEW];
        score(&request, &penalized, warm ? 0.8f : 0, logprobs);
        assert_memory_equal(penalized.logprobs, logprobs, (size_t)penalized.n * sizeof(double));
        if (!warm) { /* positive logits become 0, below the best that is not seen yet */
            for (int t = 0; t < penalized.n; t++) {
                for (int s = 0; s < 5 + t; s++) {
                    assert_int_not_equal(penalized.ids[t],
                                         s < 5 ? prompt[s] : penalized.ids[s - 5]);
                }
            }
        }
        assert_memory_not_equal(plain.ids, penalized.ids, 8 * sizeof *plain.ids);
        completion_release(&plain);
        completion_release(&same);
        completion_release(&penalized);
    }
}

static void min_p_of_one_is_greedy(void **state)
{
    (void)state;
    GenerateRequest request = request_of(0), cut = request_of(1);
    cut.min_p = 1;
    Completion greedy = complete(&request), only = complete(&cut);
    assert_memory_equal(greedy.ids, only.ids, NEW * sizeof *only.ids);
    completion_release(&greedy);
    completion_release(&only);
}

static void prompts_of_one_token_and_to_the_limit_have_completions(void **state)
{
    (void)state;
    int32_t ids[CONTEXT];
    for (int i = 0; i < CONTEXT; i++) {
        ids[i] = (i * 11 + 5) % 37;
    }
    const int lengths[3] = {1, CONTEXT - 2, CONTEXT - 1}, news[3] = {NEW, 2, 1};
    for (int i = 0; i < 3; i++) {
        GenerateRequest request = request_of(0.9f);
        request.prompt = ids;
        request.n_prompt = lengths[i];
        Completion completion = complete(&request);
        assert_int_equal(completion.n, news[i]);
        assert_int_equal(completion.finish, FINISH_LENGTH);
        double logprobs[NEW];
        score(&request, &completion, 0.9f, logprobs);
        assert_memory_equal(completion.logprobs, logprobs, (size_t)news[i] * sizeof(double));
        for (int t = 0; t < news[i]; t++) {
            assert_true(isfinite(logprobs[t]) && logprobs[t] <= 0);
        }
        completion_release(&completion);
    }
    Error error = {{0}};
    Completion completion;
    GenerateRequest request = request_of(0);
    request.n_prompt = 0;
    assert_int_equal(
        generate(engine, NULL, &request, 1, &(GenerateOptions){0}, &completion, &error),
        STATUS_USAGE);
    assert_string_equal(error.message, "request 0: a prompt of no tokens");
}

static void a_text_ends_before_the_first_stop_text(void **state)
{
    (void)state;
    const char *stops[3] = {"bcd", "c", "x"};
    assert_int_equal(generate_text_end("abcdc", 5, stops, 1), 1);
    assert_int_equal(generate_text_end("abcdc", 5, stops + 1, 2), 2);
    assert_int_equal(generate_text_end("abcdc", 5, stops, 3), 1);
    assert_int_equal(generate_text_end("abc", 3, stops, 1), 3);
    assert_int_equal(generate_text_end("", 0, stops, 3), 0);
    assert_int_equal(generate_text_end("abc\0x", 5, stops + 2, 1), 4);
}

/* How many of the ids make a text that holds `stop`; n + 1: not even all of them. */
static int first_to_hold(const Model *of, const int32_t *ids, int n, const char *stop)
{
    Text text = {0};
    int count = 0;
    do {
        text_clear(&text);
        tokenizer_decode(of->tokenizer, ids, (size_t)++count, true, &text);
    } while (count <= n && !memmem(text_string(&text), text.n, stop, strlen(stop)));
    text_release(&text);
    return count;
}

/* Stop texts cut out of what the model says, across the borders of its tokens. */
static void ends_at_each_part(const char *path)
{
    enum { LONG = 90, PARTS = 60 };
    Model *of = NULL;
    Engine *runner = NULL;
    Error error = {{0}};
    TokenList start = {0};
    tiny_require(model_open(&of, path, 2, &error), &error);
    tiny_require(engine_new(&runner, of, 2, 0, &error), &error);
    tiny_require(
        tokenizer_encode(of->tokenizer, "One day", 7, TOKENIZER_ADD_SPECIAL, &start, &error),
        &error);
    GenerateRequest request = request_of(1);
    request.prompt = start.ids;
    request.n_prompt = (int)start.n;
    request.max_new = LONG;
    Completion whole, ended;
    Text text = {0};
    tiny_require(generate(runner, NULL, &request, 1, &(GenerateOptions){0}, &whole, &error),
                 &error);
    assert_int_equal(whole.n, LONG);
    tokenizer_decode(of->tokenizer, whole.ids, LONG, true, &text);
    assert_true(text.n > 40);
    for (uint32_t k = 0; k < PARTS; k++) {
        uint32_t words[4];
        random_words(words, (RandomKey){31, RANDOM_DATA}, k, 0, 0, 0);
        char stop[40] = {0};
        size_t n = 1 + words[0] % 24;
        memcpy(stop, text.bytes + words[1] % (text.n - n), n);
        const char *stops[2] = {"never said in this", stop};
        GenerateOptions options = {.stop_texts = stops, .n_stop_texts = 2};
        tiny_require(generate(runner, NULL, &request, 1, &options, &ended, &error), &error);
        int wanted = first_to_hold(of, whole.ids, LONG, stop);
        if (ended.n != wanted || ended.finish != FINISH_STOP) {
            fail_msg("\"%s\": ended after %d tokens, expected %d", stop, ended.n, wanted);
        }
        completion_release(&ended);
    }
    completion_release(&whole);
    text_release(&text);
    token_list_release(&start);
    engine_free(runner);
    model_free(of);
}

static void a_completion_ends_with_the_token_that_completes_a_stop_text(void **state)
{
    (void)state;
    char path[4096];
    ends_at_each_part(SOURCE_DIR "/models/abacus");
    shared_path(path, "data/models/stories260k");
    ends_at_each_part(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_temperature_near_zero_equals_greedy),
        cmocka_unit_test(a_large_penalty_repeats_nothing_and_leaves_the_logprobs_the_models),
        cmocka_unit_test(min_p_of_one_is_greedy),
        cmocka_unit_test(prompts_of_one_token_and_to_the_limit_have_completions),
        cmocka_unit_test(a_text_ends_before_the_first_stop_text),
        cmocka_unit_test(a_completion_ends_with_the_token_that_completes_a_stop_text),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
