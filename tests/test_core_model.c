/* When a model's weights are read: nothing of a matrix before the first number, and then all of it
 * with its values checked; rotary angles as far as texts reach. */
#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "core/beam.h"
#include "core/engine.h"
#include "core/generate.h"
#include "tests/tiny_model.h"

enum { LENGTH = 400 };

static int32_t ids[LENGTH];
static uint8_t scored[LENGTH];

static Status score(double *logprobs, Engine *engine, int n, Error *error)
{
    const Sequence sequence = {
        .tokens = ids, .n_tokens = n, .parent = -1, .scored = scored, .logprobs = logprobs};
    const Batch batch = {.sequences = &sequence, .n_sequences = 1};
    return engine_evaluate(engine, &batch, error);
}

/* Share of the whole pages of a packed matrix that are in memory. */
static double resident(const Matrix *matrix)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = matrix_bytes(matrix) / page, sum = 0;
    unsigned char *in_memory = malloc(n);
    assert_int_equal(mincore(matrix->packed, n * page, in_memory), 0);
    for (size_t i = 0; i < n; i++) {
        sum += in_memory[i] & 1;
    }
    free(in_memory);
    return (double)sum / (double)n;
}

static void opening_touches_no_matrix_and_the_first_number_packs_all(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_LLAMA, true);
    config.vocab_size = 40000;
    config.width = 32;
    config.n_heads = 4;
    mallopt(M_MMAP_THRESHOLD, 1 << 20); /* no memory that was used before */
    Error error = {{0}};
    Engine *engine;
    double logprobs[3];
    Model *model = tiny_model_open(&config, 3);
    tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
    assert_true(resident(&model->head) < 0.1);
    tiny_require(score(logprobs, engine, 3, &error), &error);
    assert_true(resident(&model->head) > 0.9);
    engine_free(engine);
    model_free(model);
}

/* A model whose tensor with a name that ends so has an infinity as element 3. */
static Model *open_spoilt(const char *end, char directory[256], Status expected)
{
    ModelConfig config = tiny_config(ARCHITECTURE_QWEN2, false);
    char path[300];
    Error error = {{0}};
    SafeTensors *file;
    Model *model = NULL;
    uint64_t n_header;
    tiny_model_write(directory, &config, 5);
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    tiny_require(safetensors_open(&file, path, &error), &error);
    size_t i = 0, n_end = strlen(end);
    while (strcmp(safetensors_at(file, i)->name + strlen(safetensors_at(file, i)->name) - n_end,
                  end) != 0) {
        i++;
    }
    FILE *out = fopen(path, "r+b");
    assert_int_equal(fread(&n_header, sizeof n_header, 1, out), 1);
    const char *first = safetensors_at(file, 0)->data, *spoilt = safetensors_at(file, i)->data;
    const float bad = INFINITY;
    fseek(out, (long)(8 + n_header + 3 * sizeof bad) + (spoilt - first), SEEK_SET);
    assert_int_equal(fwrite(&bad, sizeof bad, 1, out), 1);
    fclose(out);
    safetensors_close(file);
    assert_int_equal(model_open(&model, directory, 2, &error), expected);
    if (expected) {
        assert_non_null(strstr(error.message, "element 3 is infinite or not a number"));
    }
    return model;
}

static void a_weight_that_is_not_finite_is_refused_where_computing_begins(void **state)
{
    (void)state;
    static const char *const ends[] = {"model.layers.1.mlp.up_proj.weight",
                                       "model.embed_tokens.weight", "lm_head.weight"};
    char directory[256], expected[600];
    assert_null(open_spoilt("model.norm.weight", directory, STATUS_REFUSED));
    tiny_model_remove(directory);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        Error error = {{0}};
        Engine *engine;
        double logprobs[3], scores[2];
        int n_found;
        Completion found[2];
        const GenerateOptions options = {.n_stop = 0};
        const GenerateRequest request = {.prompt = ids, .n_prompt = 3, .max_new = 2};
        const BeamRequest beams = {.prompt = ids, .n_prompt = 3, .max_new = 2, .beams = 2};
        Model *model = open_spoilt(ends[i], directory, STATUS_OK);
        snprintf(expected, sizeof expected,
                 "%s/model.safetensors: tensor \"%s\": element 3 is infinite or not a number",
                 directory, ends[i]);
        tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
        for (int again = 0; again < 2; again++) {
            assert_int_equal(score(logprobs, engine, 3, &error), STATUS_REFUSED);
            assert_string_equal(error.message, expected);
        }
        assert_int_equal(generate(engine, NULL, &request, 1, &options, found, &error),
                         STATUS_REFUSED);
        assert_string_equal(error.message, expected);
        assert_int_equal(
            beam_search(engine, NULL, &beams, &options, found, scores, &n_found, &error),
            STATUS_REFUSED);
        assert_string_equal(error.message, expected);
        assert_int_equal(model_make_trainable(model, &error), STATUS_REFUSED);
        assert_string_equal(error.message, expected);
        engine_free(engine);
        model_free(model);
        tiny_model_remove(directory);
    }
}

static void angles_made_later_are_the_same(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_LLAMA, true);
    Error error = {{0}};
    Model *model = tiny_model_open(&config, 4);
    static const int lengths[] = {1, 7, 8, 130, LENGTH};
    double grown[LENGTH] = {0}, whole[LENGTH] = {0};
    Engine *engine, *other;
    tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
    tiny_require(engine_new(&other, model, 2, 0, &error), &error);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        tiny_require(score(grown, engine, lengths[i], &error), &error);
    }
    tiny_require(score(whole, other, LENGTH, &error), &error);
    assert_memory_equal(grown, whole, sizeof whole);
    engine_free(engine);
    engine_free(other);
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_touches_no_matrix_and_the_first_number_packs_all),
        cmocka_unit_test(a_weight_that_is_not_finite_is_refused_where_computing_begins),
        cmocka_unit_test(angles_made_later_are_the_same),
    };
    for (int i = 0; i < LENGTH; i++) {
        ids[i] = i * 7 % 37;
        scored[i] = i > 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
