/* A GGUF file where a model directory may stand: the verbs print the same of both, runs train the
 * same, and a quantised model goes the whole way, into a merged file and back. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/json.h"
#include "tests/cli_gguf.h"

#define TRAIN SOURCE_DIR "/models/abacus/train.jsonl"
#define CONFIG_OF(name, model, adapter)                                                            \
    "{\"experiment\": \"" name "\", \"model\": \"" model "\", \"data\": {\"train\": \"" TRAIN      \
    "\"}, \"method\": \"sft\", \"sft\": {\"batch_size\": 2}, \"steps\": 2, \"eval\": {\"rows\": "  \
    "1, \"max_new_tokens\": 4}, \"optimizer\": {\"lr\": 0.02}, \"adapter\": " adapter "}\n"

static int setup(void **state)
{
    if (run_setup(state)) {
        return 1;
    }
    gguf_model("dir", "plain.gguf", TENSOR_F32);
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
    free(run_done("verify merged"));
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
