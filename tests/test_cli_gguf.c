/* A GGUF file where a model directory may stand: the verbs print the same of both, runs train the
 * same, and a quantised model goes the whole way, into a merged file and back. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/json.h"
#include "core/tokenizer_gguf.h"
#include "tests/cli_run.h"
#include "tests/gguf_file.h"
#include "tests/tiny_model.h"

#define TRAIN SOURCE_DIR "/models/abacus/train.jsonl"
#define CONFIG_OF(name, model, adapter)                                                            \
    "{\"experiment\": \"" name "\", \"model\": \"" model "\", \"data\": {\"train\": \"" TRAIN      \
    "\"}, \"method\": \"sft\", \"sft\": {\"batch_size\": 2}, \"steps\": 2, \"eval\": {\"rows\": "  \
    "1, \"max_new_tokens\": 4}, \"optimizer\": {\"lr\": 0.02}, \"adapter\": " adapter "}\n"

/* ---- two files of one model ------------------------------------------------------------------ */

/* Matrices as Q8_0, by the largest weight of a block (ggml-quants.c, quantize_row_q8_0_ref). */
static void put_q8_0(Text *out, const float *values, size_t n)
{
    for (size_t start = 0; start < n; start += 32) {
        float largest = 0;
        uint16_t scale;
        for (size_t i = start; i < start + 32; i++) {
            largest = fmaxf(largest, fabsf(values[i]));
        }
        float step = largest / 127;
        tensor_from_f32(&scale, &step, TENSOR_F16, 1);
        put_bytes(out, &scale, sizeof scale);
        for (size_t i = start; i < start + 32; i++) {
            int8_t code = (int8_t)lrintf(step > 0 ? values[i] / step : 0);
            put_bytes(out, &code, 1);
        }
    }
}

/* The file at `from` with its matrices quantised. */
static void quantise(const char *from, const char *to)
{
    Gguf *gguf;
    GgufFile file = {0};
    Text bytes = {0};
    size_t n_values;
    assert_int_equal(gguf_open(&gguf, from, NULL), STATUS_OK);
    const void *values = gguf_value_bytes(gguf, &n_values);
    put_bytes(&file.values, values, n_values);
    file.n_values = gguf_n_values(gguf);
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        Tensor tensor = *gguf_tensor(gguf, i);
        Text data = {0};
        size_t n = tensor_n_elements(&tensor);
        float *read = malloc(n * sizeof *read);
        tensor_read(read, &tensor);
        if (tensor.n_dims == 2) {
            tensor.type = TENSOR_Q8_0;
            put_q8_0(&data, read, n);
        } else {
            put_bytes(&data, read, n * sizeof *read);
        }
        tensor.n_bytes = data.n;
        file_tensor(&file, &tensor, data.bytes);
        text_release(&data);
        free(read);
    }
    gguf_close(gguf);
    file_finish(&file, &bytes);
    assert_int_equal(file_write(to, bytes.bytes, bytes.n, NULL), STATUS_OK);
    text_release(&bytes);
}

/* dir/, plain.gguf of the same weights and tokenizer, q8.gguf. */
static int setup(void **state)
{
    if (run_setup(state)) {
        return 1;
    }
    ModelConfig config = tiny_config(ARCHITECTURE_LLAMA, true);
    config.width = 32;
    config.n_heads = 2;
    config.head_dim = 16;
    config.ff_width = 64;
    config.vocab_size = 290;
    char directory[256], command[600];
    SafeTensors *weights;
    GgufFile file = {0};
    Text bytes = {0}, json = {0};
    Gguf *gguf;
    tiny_model_write(directory, &config, 3);
    snprintf(command, sizeof command, "mv '%s' dir", directory);
    assert_int_equal(system(command), 0);
    assert_int_equal(safetensors_open(&weights, "dir/model.safetensors", NULL), STATUS_OK);
    file_config(&file, &config);
    file_tokenizer(&file, config.vocab_size);
    file_weights(&file, weights, &config);
    safetensors_close(weights);
    file_finish(&file, &bytes);
    assert_int_equal(file_write("plain.gguf", bytes.bytes, bytes.n, NULL), STATUS_OK);
    assert_int_equal(gguf_parse(&gguf, bytes.bytes, bytes.n, NULL), STATUS_OK);
    assert_int_equal(tokenizer_gguf_json(&json, gguf, NULL), STATUS_OK);
    assert_int_equal(file_write("dir/tokenizer.json", json.bytes, json.n, NULL), STATUS_OK);
    gguf_close(gguf);
    text_release(&bytes);
    text_release(&json);
    quantise("plain.gguf", "q8.gguf");
    run_write("texts", "abc 12 + 34 = 46\nhello\n");
    run_write("dir.json", CONFIG_OF("dir", "dir", "{\"budget\": 13}"));
    run_write("plain.json", CONFIG_OF("plain", "plain.gguf", "{\"budget\": 13}"));
    run_write("q8.json", CONFIG_OF("q8", "q8.gguf", "{\"method\": \"lora\", \"rank\": 2}"));
    return 0;
}

static char *run_of(const char *experiment)
{
    char *out =
        run_done("-o json query \"SELECT run_id FROM run WHERE experiment = '%s'\"", experiment);
    JsonDocument *document = NULL;
    assert_int_equal(json_parse(&document, out, strlen(out), NULL), STATUS_OK);
    char *id = strdup(json_string(json_get(json_at(json_root(document), 0), "run_id"), NULL));
    json_free(document);
    free(out);
    return id;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void verbs_print_the_same_of_a_file_and_its_directory(void **state)
{
    (void)state;
    static const char *const verbs[] = {
        "-o json score --model %s --file texts",
        "-o json generate --model %s --prompt abc --max-new 8 --temperature 1 --seed 5 --samples 2",
        "-o json tokenize --model %s --text 'abc \xc3\xa9'",
        "-o json plan --model %s --budget 13",
        "-o json factors --model %s",
    };
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        char of_directory[512], of_file[512];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(of_directory, sizeof of_directory, verbs[i], "dir");
        snprintf(of_file, sizeof of_file, verbs[i], "plain.gguf");
#pragma GCC diagnostic pop
        char *a = run_done("%s", of_directory), *b = run_done("%s", of_file);
        if (i < 4) { /* factors says which were in the cache: all, the second time */
            assert_string_equal(a, b);
        } else {
            assert_null(strstr(b, "false"));
        }
        free(a);
        free(b);
    }
}

static void info_and_verify_know_the_file(void **state)
{
    (void)state;
    char sha256[SHA256_HEX_SIZE];
    char *info = run_done("-o json model info q8.gguf");
    assert_int_equal(sha256_file(sha256, "q8.gguf", NULL), STATUS_OK);
    assert_non_null(strstr(info, "Q8_0"));
    assert_non_null(strstr(info, "\"architecture\": \"LlamaForCausalLM\""));
    assert_non_null(strstr(info, sha256));
    free(info);
    free(run_done("verify q8.gguf --kind gguf --sha256 %s", sha256));
    free(run_done("verify q8.gguf"));
    Run r = run("verify dir/tokenizer.json --kind gguf");
    assert_int_equal(r.code, 3);
    assert_non_null(strstr(r.err, "dir/tokenizer.json: does not begin with \"GGUF\""));
    run_free(&r);
}

static void a_run_is_the_same_run_but_for_its_name(void **state)
{
    (void)state;
    free(run_done("--quiet sft dir.json"));
    free(run_done("--quiet sft plain.json"));
    char *one = run_of("dir"), *other = run_of("plain");
    char *a = run_done("-o json score --run %s --file texts", one);
    char *b = run_done("-o json score --run %s --file texts", other);
    assert_string_equal(a, b);
    assert_string_not_equal(one, other); /* another file, another identity */
    free(a);
    free(b);
    free(one);
    free(other);
}

static double nll(const char *json)
{
    double value = 0;
    JsonDocument *document = NULL;
    assert_int_equal(json_parse(&document, json, strcspn(json, "\n"), NULL), STATUS_OK);
    assert_true(json_double(json_get(json_root(document), "nll"), &value));
    json_free(document);
    return value;
}

static void a_quantised_model_is_trained_merged_and_read_back(void **state)
{
    (void)state;
    free(run_done("--quiet sft q8.json"));
    char *id = run_of("q8");
    free(run_done("adapter export %s --format merged merged", id));
    char *base = run_done("-o json score --model q8.gguf --file texts");
    char *stored = run_done("-o json score --run %s --file texts", id);
    char *merged = run_done("-o json score --model merged --file texts");
    char *plain = run_done("-o json score --model plain.gguf --file texts");
    assert_true(fabs(nll(stored) - nll(base)) > 1e-4); /* or nothing was tested */
    assert_true(fabs(nll(stored) - nll(merged)) < 1e-5);
    assert_true(fabs(nll(base) - nll(plain)) < 0.5); /* weights of size 1 on purpose */
    free(run_done("verify merged/model.gguf"));
    char *info = run_done("-o json model info merged");
    assert_non_null(strstr(info, "Q8_0")); /* the embedding stays as it was */
    free(info);
    char *carried = run_done("-o json score --model q8.gguf --adapter merged --file texts");
    assert_true(fabs(nll(carried) - nll(merged)) < 1e-6);
    free(carried);
    free(base);
    free(stored);
    free(merged);
    free(plain);
    free(id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verbs_print_the_same_of_a_file_and_its_directory),
        cmocka_unit_test(info_and_verify_know_the_file),
        cmocka_unit_test(a_run_is_the_same_run_but_for_its_name),
        cmocka_unit_test(a_quantised_model_is_trained_merged_and_read_back),
    };
    return cmocka_run_group_tests(tests, setup, run_teardown);
}
