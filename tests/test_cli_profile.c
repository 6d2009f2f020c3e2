/* `tinylora profile` from outside, on the embedded model: the shape of its answers, that a
 * technique leaves the numbers as they are, wrong use. Nothing here depends on how long anything
 * takes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/json.h"
#include "tests/cli_run.h"

/* A sanitizer keeps freed memory and writes beside it: peaks are then not the program's. */
#if defined(__SANITIZE_ADDRESS__)
static const bool peaks_are_true = false;
#else
static const bool peaks_are_true = true;
#endif

static Error error;

static void check(int code, const char *message, const char *arguments)
{
    Run r = run(arguments);
    if (r.code != code || !strstr(r.err, message)) {
        fprintf(stderr, "%s: exit %d, stderr: %s\n", arguments, r.code, r.err);
        fail();
    }
    assert_string_equal(code ? r.out : "", "");
    run_free(&r);
}

static JsonDocument *read_rows(const char *arguments, size_t n_rows)
{
    JsonDocument *rows;
    Run r = run(arguments);
    if (r.code || json_parse(&rows, r.out, strlen(r.out), &error)) {
        fprintf(stderr, "%s: exit %d: %s%s\n", arguments, r.code, r.err, r.out);
        abort();
    }
    assert_int_equal(json_size(json_root(rows)), n_rows);
    run_free(&r);
    return rows;
}

static double number(const Json *row, const char *key)
{
    double value = NAN;
    if (!json_double(json_get(row, key), &value)) {
        fprintf(stderr, "no number \"%s\"\n", key);
        abort();
    }
    return value;
}

static bool yes(const Json *row, const char *key)
{
    bool value = false;
    if (!json_bool(json_get(row, key), &value)) {
        fprintf(stderr, "no truth value \"%s\"\n", key);
        abort();
    }
    return value;
}

/* -- kv-cache --------------------------------------------------------------------------------- */

static void the_cache_leaves_ids_and_logprobs_as_they_are(void **state)
{
    (void)state;
    static const int batches[] = {1, 8, 16};
    for (int threads = 1; threads <= 2; threads++) {
        char arguments[128];
        snprintf(arguments, sizeof arguments,
                 "--threads %d -o json profile kv-cache --model abacus --prompt 19 --new 5",
                 threads);
        JsonDocument *rows = read_rows(arguments, 6);
        for (size_t i = 0; i < 6; i++) {
            const Json *row = json_at(json_root(rows), i);
            assert_int_equal(number(row, "batch"), batches[i / 2]);
            assert_int_equal(yes(row, "cache"), i % 2 == 0);
            assert_int_equal(number(row, "prompt"), 19);
            assert_int_equal(number(row, "new"), 5);
            assert_true(number(row, "tokens_per_s") > 0);
            assert_true(number(row, "loaded_mib") > 1); /* the weights alone are 0.85 */
            assert_true(number(row, "peak_mib") >= number(row, "loaded_mib"));
            assert_true(yes(row, "equal"));
        }
        json_free(rows);
    }
}

/* Each row has a process of its own, so a large batch before it does not show in a small one. */
static void a_peak_is_the_rows_own(void **state)
{
    (void)state;
    JsonDocument *rows = read_rows("-o json profile kv-cache --model abacus --batch 256,1,256,1 "
                                   "--prompt 32 --new 2",
                                   8);
    double peak[8];
    for (size_t i = 0; i < 8; i++) {
        peak[i] = number(json_at(json_root(rows), i), "peak_mib");
    }
    assert_true(!peaks_are_true || (peak[0] > peak[2] + 4 && peak[4] > peak[6] + 4));
    json_free(rows);
}

static void the_cache_profile_prints_every_format(void **state)
{
    (void)state;
    Run r = run("-o csv --quiet profile kv-cache --model abacus --batch 1 --prompt 1 --new 1");
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.out, "batch,cache,prompt,new,tokens_per_s,times_as_long,loaded_mib,"
                                  "peak_mib,equal\r\n1,yes,1,1,"));
    assert_string_equal(r.err, "");
    run_free(&r);
    check(0, "batch 1, without the cache",
          "-o md profile kv-cache --model abacus --batch 1 --prompt 1 --new 1");
}

static void wrong_use_of_the_cache_profile_is_told(void **state)
{
    (void)state;
    check(2, "--model: a model is missing", "profile kv-cache");
    check(2, "profile kv-cache: a prompt of 250 tokens and 7 more: the model's context is 256",
          "profile kv-cache --model abacus --prompt 250 --new 7");
    check(2, "--batch \"1,,2\": at most 16 numbers from 1 to 512",
          "profile kv-cache --model abacus --batch 1,,2");
    check(2, "--batch \"\"", "profile kv-cache --model abacus --batch ''");
    check(2, "--batch \"0\"", "profile kv-cache --model abacus --batch 0");
    check(2, "--batch \"8,\"", "profile kv-cache --model abacus --batch 8,");
    check(2, "--batch \" 8\"", "profile kv-cache --model abacus --batch ' 8'");
    check(2, "--new", "profile kv-cache --model abacus --new 0");
    check(2, "--nw", "profile kv-cache --model abacus --nw 3");
    check(2, "wants a second word", "profile");
    check(3, "no such directory", "profile kv-cache --model nowhere");
    run_write("config.json", "{}");
    check(3, "config.json", "profile kv-cache --model .");
}

static void a_stop_ends_the_measuring_process_too(void **state)
{
    (void)state;
    check(4, "stopped: nothing is kept",
          "--max-time 0.01 profile kv-cache --model abacus --new 128");
}

/* -- techniques ------------------------------------------------------------------------------- */

enum { PLAIN, ACCUMULATED, SELECTIVE, FULL, BF16, F16, N_TECHNIQUES };

static void techniques_compute_the_same_step(void **state)
{
    (void)state;
    static const char *const adapters[] = {"full", "lora", "tinylora"};
    static const char *const names[N_TECHNIQUES] = {
        "",       ", accumulated", ", selective checkpointing", ", full checkpointing",
        ", bf16", ", f16"};
    /* README.md of abacus; rank 8 x (in + out) of all seven layers of four blocks */
    static const int parameters[] = {441696, 55296, 13};
    JsonDocument *rows = read_rows("-o json profile techniques --model abacus --sequences 5 "
                                   "--tokens 23 --steps 1",
                                   3 * N_TECHNIQUES);
    double loss = number(json_at(json_root(rows), 0), "loss");
    assert_true(loss > 4); /* random text: log 360 = 5.9 and more */
    for (size_t i = 0; i < 3 * N_TECHNIQUES; i++) {
        const Json *row = json_at(json_root(rows), i);
        const Json *plain = json_at(json_root(rows), i - i % N_TECHNIQUES);
        size_t adapter = i / N_TECHNIQUES, technique = i % N_TECHNIQUES;
        char name[64];
        snprintf(name, sizeof name, "%s%s", adapters[adapter], names[technique]);
        assert_string_equal(json_string(json_get(row, "technique"), NULL), name);
        assert_string_equal(json_string(json_get(row, "weights"), NULL), adapter ? "BF16" : "F32");
        assert_int_equal(number(row, "parameters"), parameters[adapter]);
        assert_int_equal(number(row, "micro_batch"), technique == ACCUMULATED ? 1 : 5);
        assert_true(number(row, "step_ms") > 0);
        assert_true(number(row, "peak_mib") >= number(row, "loaded_mib"));
        /* One model, one order of every sum, whatever is trained and kept: the same bits. */
        assert_true(number(row, "loss") == loss);
        /* full: float sums over 110 tokens, grouped otherwise; 16 bits: roundings */
        bool exact = technique < BF16 && !(technique == ACCUMULATED && adapter == 0);
        double off = number(row, "gradient_off"), norm = number(plain, "grad_norm");
        assert_int_equal(yes(row, "equal"), exact);
        assert_true(exact ? off == 0 : off > 0 && off < (technique == BF16 ? 0.02 : 0.003));
        assert_true(norm > 0 && fabs(number(row, "grad_norm") - norm) <= off * norm * 1.01);
    }
    json_free(rows);
}

static void memory_falls_with_what_is_kept(void **state)
{
    (void)state;
    JsonDocument *rows = read_rows("-o json profile techniques --model abacus --sequences 32 "
                                   "--tokens 64 --steps 1 --adapters lora,tinylora",
                                   2 * N_TECHNIQUES);
    double peak[2][N_TECHNIQUES];
    for (size_t i = 0; i < 2 * N_TECHNIQUES; i++) {
        peak[i / N_TECHNIQUES][i % N_TECHNIQUES] = number(json_at(json_root(rows), i), "peak_mib");
    }
    for (int i = 0; i < 2 && peaks_are_true; i++) {
        assert_true(peak[i][PLAIN] > peak[i][SELECTIVE] && peak[i][SELECTIVE] > peak[i][FULL]);
        assert_true(peak[i][PLAIN] > peak[i][BF16] && peak[i][PLAIN] > peak[i][F16]);
        assert_true(peak[i][PLAIN] > peak[i][ACCUMULATED]);
        assert_true(i == 0 || peak[i - 1][ACCUMULATED] > peak[i][ACCUMULATED]);
    }
    json_free(rows);
}

static void wrong_use_of_techniques_is_told(void **state)
{
    (void)state;
    check(2, "--model: a model is missing", "profile techniques");
    check(2, "profile techniques: rows of 257 tokens: the model's context is 256",
          "profile techniques --model abacus --tokens 257");
    check(2, "--tokens", "profile techniques --model abacus --tokens 1");
    check(2, "--sequences", "profile techniques --model abacus --sequences 0");
    check(2, "--adapters \"lora,xs\": some of full, lora, tinylora",
          "profile techniques --model abacus --adapters lora,xs");
    check(2, "--adapters \"lora,\"", "profile techniques --model abacus --adapters lora,");
    check(2, "--adapters \"\"", "profile techniques --model abacus --adapters ''");
    check(3, "no such directory", "profile techniques --model nowhere");
    check(4, "stopped: nothing is kept",
          "--max-time 0.01 profile techniques --model abacus --steps 100");
}

/* -- memory ----------------------------------------------------------------------------------- */

static const Json *part(const JsonDocument *rows, const char *name)
{
    for (size_t i = 0; i < json_size(json_root(rows)); i++) {
        const Json *row = json_at(json_root(rows), i);
        if (strcmp(json_string(json_get(row, "part"), NULL), name) == 0) {
            return row;
        }
    }
    fprintf(stderr, "no part \"%s\"\n", name);
    abort();
}

/* Computed are the large buffers; the heap, threads' stacks and pages of 2 MiB come to it. */
static void check_measured(const JsonDocument *rows, const char *name, const char *of)
{
    const Json *row = part(rows, name);
    double computed = number(row, "computed_mib"), measured = number(row, "measured_mib");
    if (peaks_are_true && fabs(measured - computed) > 0.08 * computed + 4) {
        fprintf(stderr, "%s%s: %g MiB computed, %g measured\n", name, of, computed, measured);
        fail();
    }
}

static void what_shapes_ask_for_is_what_is_measured(void **state)
{
    (void)state;
    check(0, "",
          "model random --config '" SOURCE_DIR "/bench/small.json' --dtype bf16 --seed 1 small");
    JsonDocument *rows = read_rows("--threads 2 -o json profile memory --model small", 12);
    /* 6 layers, 2 x 2 heads of 32 numbers of 4 bytes */
    assert_int_equal(number(part(rows, "- keys and values"), "bytes_a_token"), 6 * 4 * 32 * 4);
    /* bf16: 6 x (256 x (256 + 64 + 64 + 256) + 3 x 704 x 256), and the head's 512 x 256 */
    double packed = 2.0 * (6 * (256 * 640 + 3 * 704 * 256) + 512 * 256) / 0x1p20;
    assert_true(fabs(number(part(rows, "- packed weights"), "computed_mib") - packed) < 6e-4);
    check_measured(rows, "model", "");
    check_measured(rows, "decoding", "");
    check_measured(rows, "training step", "");
    json_free(rows);
}

static void what_is_kept_of_a_step_is_what_is_measured(void **state)
{
    (void)state;
    static const char *const checkpointings[] = {"none", "selective", "full"};
    static const char *const precisions[] = {"f32", "bf16", "f16"};
    double a_token[9];
    for (int i = 0; i < 9; i++) {
        char arguments[200];
        snprintf(arguments, sizeof arguments,
                 "--threads 2 -o json profile memory --model small --activation-checkpointing %s "
                 "--precision %s",
                 checkpointings[i / 3], precisions[i % 3]);
        JsonDocument *rows = read_rows(arguments, 12);
        a_token[i] = number(part(rows, "training step"), "bytes_a_token");
        check_measured(rows, "training step", strstr(arguments, " --activation"));
        json_free(rows);
    }
    assert_true(a_token[0] > a_token[3] && a_token[3] > a_token[6]);
    assert_true(a_token[0] > a_token[1] && a_token[3] > a_token[4] && a_token[6] > a_token[7]);
    assert_true(a_token[1] == a_token[2] && a_token[4] == a_token[5] && a_token[7] == a_token[8]);
}

static void memory_grows_by_what_a_token_takes(void **state)
{
    (void)state;
    JsonDocument *few =
        read_rows("--threads 2 -o json profile memory --model small --sequences 1", 12);
    JsonDocument *many =
        read_rows("--threads 2 -o json profile memory --model small --sequences 8", 12);
    double a_token = number(part(few, "training step"), "bytes_a_token");
    double grown = number(part(many, "training step"), "measured_mib") -
                   number(part(few, "training step"), "measured_mib");
    assert_true(!peaks_are_true || fabs(grown - 7 * 64 * a_token / 0x1p20) < 4);
    assert_true(number(part(many, "training step"), "bytes_a_token") == a_token);
    json_free(few);
    json_free(many);
}

static void wrong_use_of_memory_is_told(void **state)
{
    (void)state;
    check(2, "--model: a model is missing", "profile memory");
    check(2, "profile memory: 4 x 200 tokens: at most 512",
          "profile memory --model abacus --sequences 4 --tokens 200");
    check(2, "profile memory: rows of 257 tokens: the model's context is 256",
          "profile memory --model abacus --sequences 1 --tokens 257");
    check(2, "--activation-checkpointing \"some\": none, selective or full",
          "profile memory --model abacus --activation-checkpointing some");
    check(2, "--precision \"f8\": f32, bf16 or f16",
          "profile memory --model abacus --precision f8");
    check(3, "no such directory", "profile memory --model nowhere");
    check(4, "stopped: nothing is kept", "--max-time 0.001 profile memory --model abacus");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cache_leaves_ids_and_logprobs_as_they_are),
        cmocka_unit_test(a_peak_is_the_rows_own),
        cmocka_unit_test(the_cache_profile_prints_every_format),
        cmocka_unit_test(wrong_use_of_the_cache_profile_is_told),
        cmocka_unit_test(a_stop_ends_the_measuring_process_too),
        cmocka_unit_test(techniques_compute_the_same_step),
        cmocka_unit_test(memory_falls_with_what_is_kept),
        cmocka_unit_test(wrong_use_of_techniques_is_told),
        cmocka_unit_test(what_shapes_ask_for_is_what_is_measured),
        cmocka_unit_test(what_is_kept_of_a_step_is_what_is_measured),
        cmocka_unit_test(memory_grows_by_what_a_token_takes),
        cmocka_unit_test(wrong_use_of_memory_is_told),
    };
    return cmocka_run_group_tests(tests, run_setup, run_teardown);
}
