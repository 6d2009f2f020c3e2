/* Runs on GGUF models: GRPO, a surface and an evaluation have the bits of the same weights in
 * safetensors; on quantised weights they are finite and the same again; adapters go out and come
 * back; the lock holds the file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/cli_gguf.h"
#include "tests/cli_scan.h"

#define GRPO(model)                                                                                \
    "{\"experiment\": \"e\", \"model\": \"" model "\", \"data\": {\"train\": \"" TRAIN             \
    "\"}, \"method\": \"grpo\", \"reward\": {\"name\": \"length\", \"length\": 9}, \"grpo\": "     \
    "{\"prompts_per_step\": 2, \"group_size\": 4, \"max_new_tokens\": 6}, \"steps\": 2, "          \
    "\"optimizer\": {\"lr\": 0.02}, \"eval\": {\"every\": 2, \"rows\": 3, \"max_new_tokens\": 4, " \
    "\"samples\": 2}, \"adapter\": {\"budget\": 13}}\n"
#define SCAN(model)                                                                                \
    "{\"experiment\": \"hill\", \"model\": \"" model "\", \"method\": \"scan\", \"adapter\": "     \
    "{\"budget\": 2}, \"data\": {\"train\": \"" TRAIN "\"}, \"scan\": {\"x\": \"-1:1:3\", \"y\": " \
    "\"-1:1:3\", \"rows\": 4, \"values\": [\"loss\", \"entropy\"]}}\n"

/* What a run, a surface and an evaluation leave that is a number of the model. */
static const char *const results[] = {
    "SELECT step, key, value FROM metric WHERE key <> 'step_time' ORDER BY step, key",
    "SELECT step, prompt, sample, hex(text), reward, advantage, hex(ids), hex(logprobs) FROM "
    "completion ORDER BY step, prompt, sample",
    "SELECT i, j, metric, x, y, value FROM surface_point ORDER BY i, j, metric",
    "SELECT step, task, row, sample, hex(text) FROM eval_completion ORDER BY 1, 2, 3, 4",
    "SELECT step, task, extractor, n, value, standard_error, base_value FROM evaluation ORDER BY "
    "run_id LIKE 'base%', step, task, extractor",
};

static char *grpo_id(const char *db)
{
    return ask(db, "SELECT run_id FROM run WHERE method = 'grpo'");
}

/* Into an empty db: two steps, nine points, an evaluation of the run and its base. */
static void run_all(const char *db, const char *grpo, const char *scan, int n_threads)
{
    forget(db);
    free(run_done("--quiet --db %s --threads %d grpo %s", db, n_threads, grpo));
    free(run_done("--quiet --db %s --threads %d scan %s", db, n_threads, scan));
    char *id = grpo_id(db);
    free(run_done("--quiet --db %s --threads %d eval --run %s --rows 3", db, n_threads, id));
    free(id);
}

static void assert_same_results(const char *one, const char *other)
{
    for (size_t i = 0; i < sizeof results / sizeof *results; i++) {
        char *a = ask(one, results[i]), *b = ask(other, results[i]);
        assert_true(strlen(a) > 40); /* there are rows */
        assert_same_surface(a, b);
        free(a);
        free(b);
    }
}

static int setup(void **state)
{
    if (run_setup(state)) {
        return 1;
    }
    run_write("dir.json", GRPO("dir"));
    run_write("plain.json", GRPO("plain.gguf"));
    run_write("q8.json", GRPO("q8.gguf"));
    run_write("dir-scan.json", SCAN("dir"));
    run_write("plain-scan.json", SCAN("plain.gguf"));
    run_write("q8-scan.json", SCAN("q8.gguf"));
    run_write("texts", "abc 12 + 34 = 46\nhello\n");
    return 0;
}

/* The last is F32. */
static void of_plain_weights_they_are_those_of_the_directory(void **state)
{
    (void)state;
    static const TensorType types[] = {TENSOR_BF16, TENSOR_F16, TENSOR_F32};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        assert_int_equal(system("rm -rf dir plain.gguf"), 0);
        gguf_model("dir", "plain.gguf", types[i]);
        run_all("dir.db", "dir.json", "dir-scan.json", 2);
        run_all("plain.db", "plain.json", "plain-scan.json", 1);
        assert_same_results("dir.db", "plain.db");
        char *moved = ask("dir.db", "SELECT count(*) FROM metric WHERE key = 'grad_norm' AND value "
                                    "> 0");
        assert_string_equal(moved, "2"); /* or nothing was trained */
        free(moved);
    }
    quantise("plain.gguf", "q8.gguf");
}

static void of_quantised_weights_they_are_finite_and_the_same_again(void **state)
{
    (void)state;
    run_all("q8.db", "q8.json", "q8-scan.json", 2);
    run_all("again.db", "q8.json", "q8-scan.json", 1);
    assert_same_results("q8.db", "again.db");
    assert_int_equal(ask_number("q8.db", "SELECT count(*) FROM metric WHERE value IS NULL"), 0);
    assert_int_equal(ask_number("q8.db", "SELECT count(*) FROM surface_point WHERE value IS NULL"),
                     0);
    assert_int_equal(ask_number("q8.db", "SELECT count(*) FROM surface_point"), 27);
    char *id = grpo_id("q8.db");
    free(run_done("--quiet --db q8.db replay %s", id));
    free(id);
}

static void adapters_of_quantised_weights_go_out_and_come_back(void **state)
{
    (void)state;
    static const char *const formats[] = {"bytes", "peft-tinylora --untie", "peft-lora", "gguf"};
    char *id = grpo_id("q8.db");
    char *stored = run_done("-o json --db q8.db score --run %s --file texts", id);
    char *base = run_done("-o json score --model q8.gguf --file texts");
    assert_string_not_equal(stored, base);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        free(run_done("--quiet --db q8.db adapter export %s --format %s out-%zu", id, formats[i],
                      i));
    }
    char *back = run_done("-o json score --model q8.gguf --adapter out-0 --file texts");
    assert_string_equal(stored, back);
    free(back);
    for (size_t i = 0; i < 3; i++) {
        free(run_done("--quiet --db back.db adapter import out-%zu --model q8.gguf", i));
    }
    Run r = run("score --model plain.gguf --adapter out-0 --file texts");
    assert_int_equal(r.code, 3);
    assert_non_null(strstr(r.err, "is of another model"));
    run_free(&r);
    free(id);
    free(stored);
    free(base);
}

static void chat_speaks_of_a_file_as_of_its_directory(void **state)
{
    (void)state;
    run_write("said", "abc\n12 + 30\n");
    char *one = run_done("chat --model dir --seed 4 --max-new 6 -o json < said");
    char *other = run_done("chat --model plain.gguf --seed 4 --max-new 6 -o json < said");
    assert_string_equal(one, other);
    free(one);
    free(other);
}

static void flip_last_byte(const char *path)
{
    FILE *file = fopen(path, "r+b");
    fseek(file, -40, SEEK_END);
    int byte = fgetc(file);
    fseek(file, -40, SEEK_END);
    fputc(byte ^ 1, file);
    fclose(file);
}

static void the_lock_holds_the_file(void **state)
{
    (void)state;
    char of_lock[SHA256_HEX_SIZE], *id = grpo_id("q8.db");
    free(run_done("verify q8.gguf --lock"));
    char *lock = run_slurp("models.lock");
    assert_int_equal(sha256_file(of_lock, "q8.gguf", NULL), STATUS_OK);
    assert_non_null(strstr(lock, "\"q8.gguf\""));
    assert_non_null(strstr(lock, of_lock));
    free(lock);
    static const char *const verbs[] = {"verify q8.gguf", "score --model q8.gguf --file texts",
                                        "generate --model q8.gguf --prompt a --max-new 2",
                                        "--db locked.db grpo q8.json",
                                        "--db locked.db scan q8-scan.json"};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        free(run_done("--quiet --locked %s", verbs[i]));
    }
    expect_refused("--locked score --model plain.gguf --file texts", 3,
                   "model \"plain.gguf\": is not in models.lock, which --locked asks for");
    forget("locked.db");
    flip_last_byte("q8.gguf");
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        char command[200];
        snprintf(command, sizeof command, "--quiet --locked %s", verbs[i]);
        expect_refused(command, 3, of_lock);
    }
    flip_last_byte("q8.gguf");
    free(run_done("--locked score --model q8.gguf --file texts"));
    free(id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_plain_weights_they_are_those_of_the_directory),
        cmocka_unit_test(of_quantised_weights_they_are_finite_and_the_same_again),
        cmocka_unit_test(adapters_of_quantised_weights_go_out_and_come_back),
        cmocka_unit_test(chat_speaks_of_a_file_as_of_its_directory),
        cmocka_unit_test(the_lock_holds_the_file),
    };
    return cmocka_run_group_tests(tests, setup, run_teardown);
}
