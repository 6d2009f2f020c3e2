/* Beam search against all texts there are, and against a plain search in double precision. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/beam.h"
#include "tests/reference_model.h"
#include "tests/tiny_model.h"

enum { V = 7, STOP = 2, PROMPT = 4, LONGEST = 24, MOST = 3000 };

static const int32_t prompt[PROMPT] = {3, 1, 6, 5};
static char directory[256];
static Model *model;
static Engine *engine;
static Reference *reference;

static int open_all(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_QWEN3, false); /* the cache, with windows */
    config.vocab_size = V;
    tiny_model_write(directory, &config, 5);
    Error error = {{0}};
    tiny_require(model_open(&model, directory, 2, &error), &error);
    tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
    reference = reference_open(model);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    reference_free(reference);
    engine_free(engine);
    model_free(model);
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    return system(command);
}

/* ---- the reference ---- */

typedef struct {
    int32_t ids[LONGEST];
    int n, parent;
    double sum, score;
} Line;

/* log p of each next token after the prompt and a text. */
static void next_logprobs(const Line *text, double *logprobs)
{
    int32_t ids[PROMPT + LONGEST];
    double logits[(PROMPT + LONGEST) * V], total = 0;
    int n = PROMPT + text->n;
    memcpy(ids, prompt, sizeof prompt);
    memcpy(ids + PROMPT, text->ids, (size_t)text->n * sizeof *ids);
    reference_logits(reference, ids, n, logits);
    const double *row = logits + (n - 1) * V;
    for (int v = 0; v < V; v++) {
        total += exp(row[v]);
    }
    for (int v = 0; v < V; v++) {
        logprobs[v] = row[v] - log(total);
    }
}

static Line longer(const Line *text, int32_t token, double logprob, double penalty)
{
    Line made = *text;
    made.ids[made.n++] = token;
    made.sum += logprob;
    made.score = made.sum / pow(made.n, penalty);
    return made;
}

static int by_score(const void *a, const void *b)
{
    double x = ((const Line *)a)->score, y = ((const Line *)b)->score;
    return x < y ? 1 : x > y ? -1 : 0;
}

static int by_sum(const void *a, const void *b)
{
    double x = ((const Line *)a)->sum, y = ((const Line *)b)->sum;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Every text of max_new tokens, or fewer with a stop at the end. */
static void enumerate(const Line *text, int max_new, double penalty, Line *all, int *n)
{
    double logprobs[V];
    next_logprobs(text, logprobs);
    for (int32_t v = 0; v < V; v++) {
        Line made = longer(text, v, logprobs[v], penalty);
        if (v == STOP || made.n == max_new) {
            all[(*n)++] = made;
        } else {
            enumerate(&made, max_new, penalty, all, n);
        }
    }
}

/* The search as the header says it, with sorted lists and no cache. */
static int plain_search(int beams, int max_new, double penalty, Line *found)
{
    static Line running[64], candidates[64 * V];
    int n_running = 1, n_found = 0;
    running[0] = (Line){0};
    for (int t = 1; t <= max_new && n_running > 0; t++) {
        int n = 0, next = 0;
        for (int b = 0; b < n_running; b++) {
            double logprobs[V];
            next_logprobs(&running[b], logprobs);
            for (int32_t v = 0; v < V; v++) {
                candidates[n++] = longer(&running[b], v, logprobs[v], penalty);
            }
        }
        qsort(candidates, (size_t)n, sizeof *candidates, by_sum);
        for (int i = 0; i < n && next < beams; i++) {
            if (candidates[i].ids[t - 1] != STOP) {
                running[next++] = candidates[i];
            } else if (i < beams) {
                found[n_found++] = candidates[i];
            }
        }
        n_running = next;
        qsort(found, (size_t)n_found, sizeof *found, by_score);
        n_found = n_found < beams ? n_found : beams;
        if (n_found == beams && found[n_found - 1].score >= running[0].score) {
            return n_found;
        }
    }
    for (int b = 0; b < n_running; b++) {
        found[n_found++] = running[b];
    }
    qsort(found, (size_t)n_found, sizeof *found, by_score);
    return n_found < beams ? n_found : beams;
}

/* ---- */

static int search(int beams, int max_new, double penalty, Completion *found, double *scores)
{
    const int32_t stop = STOP;
    BeamRequest request = {.prompt = prompt,
                           .n_prompt = PROMPT,
                           .beams = beams,
                           .length_penalty = penalty,
                           .max_new = max_new};
    GenerateOptions options = {.stop_ids = &stop, .n_stop = 1};
    int n = -1;
    Error error = {{0}};
    tiny_require(beam_search(engine, NULL, &request, &options, found, scores, &n, &error), &error);
    return n;
}

static void release(Completion *found, int n)
{
    for (int i = 0; i < n; i++) {
        completion_release(&found[i]);
    }
}

static const double penalties[4] = {1, 0, 2, -0.5};

/* Beams for every text: the search is exhaustive. */
static void enough_beams_find_every_text_in_order(void **state)
{
    (void)state;
    static Line all[MOST];
    static Completion found[MOST];
    static double scores[MOST];
    for (int max_new = 1; max_new <= 4; max_new++) {
        for (int p = 0; p < 4; p++) {
            int n = 0;
            enumerate(&(Line){0}, max_new, penalties[p], all, &n);
            qsort(all, (size_t)n, sizeof *all, by_score);
            assert_int_equal(search(n + 1, max_new, penalties[p], found, scores), n);
            for (int i = 0; i < n;
                 i++) { /* those whose scores are equal within rounding may swap */
                assert_true(fabs(scores[i] - all[i].score) < 1e-5 * (1 + fabs(scores[i])));
                int same = 0;
                for (int j = i; j >= 0 && !same; j--) {
                    same = all[j].n == found[i].n &&
                           !memcmp(all[j].ids, found[i].ids, (size_t)all[j].n * sizeof(int32_t));
                }
                for (int j = i; j < n && !same; j++) {
                    same = all[j].n == found[i].n &&
                           !memcmp(all[j].ids, found[i].ids, (size_t)all[j].n * sizeof(int32_t)) &&
                           fabs(all[j].score - scores[i]) < 1e-4;
                }
                assert_true(same);
                assert_int_equal(found[i].finish == FINISH_STOP,
                                 found[i].ids[found[i].n - 1] == STOP);
            }
            release(found, n);
        }
    }
}

static void few_beams_find_what_a_plain_search_finds(void **state)
{
    (void)state;
    static Line expected[256];
    Completion found[16];
    double scores[16];
    int shorter = 0;
    for (int beams = 1; beams <= 16; beams += beams < 4 ? 1 : 6) {
        for (int p = 0; p < 4; p++) {
            for (int max_new = 1; max_new <= 20; max_new += max_new < 3 ? 1 : 17) {
                int n = plain_search(beams, max_new, penalties[p], expected);
                assert_int_equal(search(beams, max_new, penalties[p], found, scores), n);
                for (int i = 0; i < n; i++) {
                    assert_int_equal(found[i].n, expected[i].n);
                    assert_memory_equal(found[i].ids, expected[i].ids,
                                        (size_t)found[i].n * sizeof(int32_t));
                    assert_true(fabs(scores[i] - expected[i].score) < 1e-5 * (1 + fabs(scores[i])));
                    shorter += found[i].n < max_new;
                }
                release(found, n);
            }
        }
    }
    assert_true(shorter > 20); /* stops matter here */
}

static void one_beam_is_greedy_and_logprobs_are_the_engines_on_any_number_of_threads(void **state)
{
    (void)state;
    const int32_t stop = STOP;
    GenerateRequest greedy = {
        .prompt = prompt, .n_prompt = PROMPT, .greedy = true, .top_p = 1, .max_new = 20};
    GenerateOptions options = {.stop_ids = &stop, .n_stop = 1};
    Completion expected, one, some[5], again[5];
    double scores[5], others[5];
    Error error = {{0}};
    tiny_require(generate(engine, NULL, &greedy, 1, &options, &expected, &error), &error);
    assert_int_equal(search(1, 20, 1, &one, scores), 1);
    assert_int_equal(one.n, expected.n);
    assert_memory_equal(one.ids, expected.ids, (size_t)one.n * sizeof(int32_t));
    assert_memory_equal(one.logprobs, expected.logprobs, (size_t)one.n * sizeof(double));
    completion_release(&one);
    completion_release(&expected);
    assert_int_equal(search(5, 20, 0.5, some, scores), 5);
    Engine *two = engine;
    for (int threads = 1; threads <= 3; threads += 2) {
        tiny_require(engine_new(&engine, model, threads, 0, &error), &error);
        assert_int_equal(search(5, 20, 0.5, again, others), 5);
        assert_memory_equal(others, scores, sizeof scores);
        for (int i = 0; i < 5; i++) {
            assert_int_equal(again[i].n, some[i].n);
            size_t n = (size_t)some[i].n;
            assert_memory_equal(again[i].ids, some[i].ids, n * sizeof(int32_t));
            assert_memory_equal(again[i].logprobs, some[i].logprobs, n * sizeof(double));
            double logprobs[LONGEST];
            uint8_t scored[LONGEST];
            memset(scored, 1, sizeof scored);
            Sequence tree[2] = {{.tokens = prompt, .n_tokens = PROMPT, .parent = -1},
                                {.tokens = some[i].ids,
                                 .n_tokens = some[i].n,
                                 .parent = 0,
                                 .scored = scored,
                                 .logprobs = logprobs}};
            Batch batch = {.sequences = tree, .n_sequences = 2};
            tiny_require(engine_evaluate(engine, &batch, &error), &error);
            assert_memory_equal(logprobs, some[i].logprobs, n * sizeof(double));
        }
        release(again, 5);
        engine_free(engine);
    }
    engine = two;
    release(some, 5);
}

static void prompts_without_an_answer_are_refused(void **state)
{
    (void)state;
    int32_t ids[512] = {0};
    Completion found[2];
    double scores[2];
    int n = -1;
    Error error = {{0}};
    GenerateOptions options = {0};
    BeamRequest request = {.prompt = ids, .n_prompt = 512, .beams = 2, .max_new = 3};
    assert_int_equal(beam_search(engine, NULL, &request, &options, found, scores, &n, &error),
                     STATUS_USAGE);
    assert_string_equal(error.message,
                        "a prompt of 512 tokens leaves no room for 3 more in a context of 512");
    request.n_prompt = 0;
    assert_int_equal(beam_search(engine, NULL, &request, &options, found, scores, &n, &error),
                     STATUS_USAGE);
    assert_string_equal(error.message, "a prompt of no tokens");
    request.n_prompt = 2;
    ids[1] = V;
    assert_int_equal(beam_search(engine, NULL, &request, &options, found, scores, &n, &error),
                     STATUS_USAGE);
    assert_string_equal(error.message, "token id 7 is not in the vocabulary");
    assert_int_equal(n, 0);
}

static void logits_that_are_not_finite_are_an_error(void **state)
{
    (void)state;
    const float bad[3] = {NAN, INFINITY, -INFINITY};
    float *norm = model->norm_final, broken[64];
    for (int i = 0; i < 3; i++) {
        for (int d = 0; d < model->config.width; d++) {
            broken[d] = bad[i];
        }
        model->norm_final = broken;
        Completion found[3];
        double scores[3];
        int n = -1;
        Error error = {{0}};
        BeamRequest request = {.prompt = prompt, .n_prompt = PROMPT, .beams = 3, .max_new = 3};
        Status status =
            beam_search(engine, NULL, &request, &(GenerateOptions){0}, found, scores, &n, &error);
        model->norm_final = norm;
        assert_int_equal(status, STATUS_FAILED);
        assert_string_equal(error.message, "the model's logits are not finite");
        assert_int_equal(n, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enough_beams_find_every_text_in_order),
        cmocka_unit_test(few_beams_find_what_a_plain_search_finds),
        cmocka_unit_test(one_beam_is_greedy_and_logprobs_are_the_engines_on_any_number_of_threads),
        cmocka_unit_test(logits_that_are_not_finite_are_an_error),
        cmocka_unit_test(prompts_without_an_answer_are_refused),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
