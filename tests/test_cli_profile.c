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

static void techniques_compute_the_same_step(void **state)
{
    (void)state;
    static const char *const names[] = {"full",     "full, accumulated",
                                        "lora",     "lora, accumulated",
                                        "tinylora", "tinylora, accumulated"};
    JsonDocument *rows = read_rows("-o json profile techniques --model abacus --sequences 5 "
                                   "--tokens 23 --steps 1",
                                   6);
    double loss = number(json_at(json_root(rows), 0), "loss");
    assert_true(loss > 4); /* random text: log 360 = 5.9 and more */
    for (size_t i = 0; i < 6; i++) {
        const Json *row = json_at(json_root(rows), i);
        assert_string_equal(json_string(json_get(row, "technique"), NULL), names[i]);
        assert_string_equal(json_string(json_get(row, "weights"), NULL), i < 2 ? "F32" : "BF16");
        /* README.md of abacus; rank 8 x (in + out) of all seven layers of four blocks */
        assert_int_equal(number(row, "parameters"), i < 2 ? 441696 : i < 4 ? 55296 : 13);
        assert_int_equal(number(row, "micro_batch"), i % 2 ? 1 : 5);
        assert_true(number(row, "step_ms") > 0);
        assert_true(number(row, "peak_mib") >= number(row, "loaded_mib"));
        /* One model, one order of every sum, whatever is trained: the same bits. */
        assert_true(number(row, "loss") == loss);
    }
    for (size_t i = 0; i < 6; i += 2) {
        double whole = number(json_at(json_root(rows), i), "grad_norm");
        double pieces = number(json_at(json_root(rows), i + 1), "grad_norm");
        assert_true(whole > 0);
        /* full: float sums over 110 tokens, grouped otherwise; the others: the law */
        assert_true(i == 0 ? fabs(whole - pieces) < 1e-5 * whole : whole == pieces);
    }
    json_free(rows);
}

static void memory_falls_with_what_is_kept(void **state)
{
    (void)state;
    JsonDocument *rows = read_rows("-o json profile techniques --model abacus --sequences 32 "
                                   "--tokens 64 --steps 1",
                                   6);
    double peak[6];
    for (size_t i = 0; i < 6; i++) {
        peak[i] = number(json_at(json_root(rows), i), "peak_mib");
    }
    if (peaks_are_true) {
        assert_true(peak[0] > peak[1] && peak[2] > peak[3] && peak[4] > peak[5]);
        assert_true(peak[1] > peak[3] && peak[3] > peak[5]);
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
    static const char *const names[] = {"model", "decoding", "training step"};
    for (size_t i = 0; i < 3 && peaks_are_true; i++) {
        const Json *row = part(rows, names[i]);
        double computed = number(row, "computed_mib"), measured = number(row, "measured_mib");
        /* Computed are the large buffers; the heap, threads' stacks and pages of 2 MiB come to it.
         */
        if (fabs(measured - computed) > 0.08 * computed + 4) {
            fprintf(stderr, "%s: %g MiB computed, %g measured\n", names[i], computed, measured);
            fail();
        }
    }
    json_free(rows);
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
        cmocka_unit_test(memory_grows_by_what_a_token_takes),
        cmocka_unit_test(wrong_use_of_memory_is_told),
    };
    return cmocka_run_group_tests(tests, run_setup, run_teardown);
}
