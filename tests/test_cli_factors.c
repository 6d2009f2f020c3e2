/* `tinylora factors` from outside: what it finds is what a run reads, stops, broken things. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "core/json.h"
#include "core/model_config.h"
#include "core/safetensors.h"
#include "tests/cli_run.h"

static Error error;

static const char config_text[] =
    "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"hidden_size\": 288, "
    "\"intermediate_size\": 520, \"num_hidden_layers\": 6, \"num_attention_heads\": 6, "
    "\"num_key_value_heads\": 3, \"vocab_size\": 40, \"max_position_embeddings\": 64, "
    "\"rms_norm_eps\": 1e-6, \"tie_word_embeddings\": true, \"torch_dtype\": \"bfloat16\"}";
enum { N_MODULES = 6 * 7, SIZE = 288 };

static void shell(const char *command)
{
    if (system(command)) {
        fprintf(stderr, "failed: %s\n", command);
        abort();
    }
}

static int setup(void **state)
{
    int failed = run_setup(state);
    mkdir("shape", 0700);
    run_write("shape/config.json", config_text);
    Run r = run("model random --config shape/config.json --seed 3 random");
    failed = failed || r.code;
    run_free(&r);
    return failed;
}

static void check(int code, const char *message, const char *prefix, const char *arguments)
{
    Run r = run_wait(run_start(prefix, arguments));
    if (r.code != code || !strstr(r.err, message)) {
        fprintf(stderr, "%s %s: exit %d, stderr: %s\n", prefix, arguments, r.code, r.err);
        fail();
    }
    run_free(&r);
}

static int count_factors(const char *folder)
{
    int n = 0;
    DIR *directory = opendir(folder);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        size_t length = strlen(entry->d_name);
        n += length > 8 && strcmp(entry->d_name + length - 8, ".factors") == 0;
    }
    if (directory) {
        closedir(directory);
    }
    return n;
}

/* The rows of `factors`, and how many of them were in the cache. */
static JsonDocument *read_rows(const char *prefix, const char *arguments, int *n_cached)
{
    JsonDocument *rows;
    Run r = run_wait(run_start(prefix, arguments));
    if (r.code || json_parse(&rows, r.out, strlen(r.out), &error)) {
        fprintf(stderr, "%s: exit %d: %s%s\n", arguments, r.code, r.err, r.out);
        abort();
    }
    *n_cached = 0;
    for (size_t i = 0; i < json_size(json_root(rows)); i++) {
        bool cached = false;
        assert_true(json_bool(json_get(json_at(json_root(rows), i), "cached"), &cached));
        *n_cached += cached;
    }
    run_free(&r);
    return rows;
}

static void each_module_has_a_row_and_a_second_time_it_is_there(void **state)
{
    (void)state;
    int n_cached;
    const char *in_ahead = "TINYLORA_CACHE=new/ahead";
    JsonDocument *rows = read_rows(in_ahead, "-o json factors --model random --rank 3", &n_cached);
    assert_int_equal(json_size(json_root(rows)), N_MODULES);
    assert_int_equal(n_cached, 0);
    assert_int_equal(count_factors("new/ahead"), N_MODULES);
    const Json *row = json_at(json_root(rows), 6), *values = json_get(row, "singular_values");
    double first, third, n_rows, n_columns;
    assert_string_equal(json_string(json_get(row, "module"), NULL), "model.layers.0.mlp.down_proj");
    assert_true(json_double(json_get(row, "rows"), &n_rows) && n_rows == 288);
    assert_true(json_double(json_get(row, "columns"), &n_columns) && n_columns == 520);
    assert_int_equal(json_size(values), 3);
    assert_true(json_double(json_at(values, 0), &first) && json_double(json_at(values, 2), &third));
    /* N(0, 0.02^2): the largest lie near 0.02 (sqrt(288) + sqrt(520)) = 0.795 */
    assert_true(first < 0.83 && first > third && third > 0.74);
    json_free(rows);
    json_free(read_rows(in_ahead, "-o json factors --model random --rank 3", &n_cached));
    assert_int_equal(n_cached, N_MODULES);
    json_free(read_rows(in_ahead, "-o json factors --model random --rank 3 --targets q_proj,v_proj",
                        &n_cached));
    assert_int_equal(n_cached, 12);
}

static void one_thread_or_two_store_the_same_bytes(void **state)
{
    (void)state;
    check(0, "42 modules, 0 of them", "TINYLORA_CACHE=one", "--threads 1 factors --model random");
    check(0, "42 modules, 0 of them", "TINYLORA_CACHE=two", "--threads 2 factors --model random");
    shell("diff -r one two");
}

static void a_run_finds_what_was_found_ahead(void **state)
{
    (void)state;
    check(0, "28 modules", "TINYLORA_CACHE=verb", "factors --model abacus");
    shell("printf '{\"question\": \"a\", \"answer\": \"1\"}\\n' > rows.jsonl; "
          "printf '{\"model\": \"abacus\", \"method\": \"sft\", \"steps\": 1, \"adapter\": "
          "{\"budget\": 13}, \"data\": {\"train\": \"rows.jsonl\"}, \"eval\": {\"rows\": 0}}' > "
          "c.json");
    /* A run of its own fills its cache with the same bytes; one with the verb's adds nothing. */
    check(0, "", "TINYLORA_CACHE=trained", "--db a.db sft c.json");
    check(0, "", "TINYLORA_CACHE=verb", "--db b.db sft c.json");
    assert_int_equal(count_factors("verb"), 28);
    shell("diff -r verb trained");
}

static void shards_give_the_same_files(void **state)
{
    (void)state;
    SafeTensors *file;
    Tensor halves[2][512];
    size_t n[2] = {0};
    int n_cached;
    FILE *index;
    assert_int_equal(safetensors_open(&file, "random/model.safetensors", &error), STATUS_OK);
    shell("mkdir sharded && cp random/config.json sharded");
    index = fopen("sharded/model.safetensors.index.json", "w");
    fprintf(index, "{\"weight_map\": {");
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const Tensor *tensor = safetensors_at(file, i);
        int half = (i * 7 + 3) % 5 < 2; /* modules of a layer in either */
        halves[half][n[half]++] = *tensor;
        fprintf(index, "%s\"%s\": \"%d.safetensors\"", i ? ", " : "", tensor->name, half);
    }
    fprintf(index, "}}");
    fclose(index);
    for (int half = 0; half < 2; half++) {
        char path[64];
        snprintf(path, sizeof path, "sharded/%d.safetensors", half);
        assert_int_equal(safetensors_write(path, halves[half], n[half], NULL, 0, &error),
                         STATUS_OK);
    }
    safetensors_close(file);
    json_free(read_rows("TINYLORA_CACHE=shards", "-o json factors --model sharded", &n_cached));
    assert_int_equal(n_cached, 0);
    /* The same weights are the same key. */
    json_free(read_rows("TINYLORA_CACHE=shards", "-o json factors --model random", &n_cached));
    assert_int_equal(n_cached, N_MODULES);
}

/* A signal once something is stored: exit 4 or the end, or dead. Again, until all is done; nothing
 * that was stored is computed again. */
static void stopped_and_killed_it_goes_on(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGKILL, SIGINT};
    shell("mkdir stopped");
    for (int i = 0; i < 3; i++) {
        int before = count_factors("stopped");
        pid_t pid = run_start("TINYLORA_CACHE=stopped", "--threads 1 factors --model random");
        for (int ms = 0; ms < 60000 && count_factors("stopped") == before; ms++) {
            usleep(1000);
        }
        kill(pid, signals[i]);
        Run r = run_wait(pid);
        int stored = count_factors("stopped");
        assert_true(stored > before);
        if (signals[i] == SIGKILL) {
            assert_int_equal(r.code, 1000 + SIGKILL);
        } else {
            char said[64];
            assert_int_equal(r.code, 4);
            snprintf(said, sizeof said, "stopped, factors of %d of 42 modules", stored);
            assert_non_null(strstr(r.err, said));
            assert_non_null(strstr(r.out, "model.layers.0.self_attn.q_proj"));
        }
        run_free(&r);
    }
    int stored = count_factors("stopped"), n_cached;
    assert_true(stored < N_MODULES);
    json_free(read_rows("TINYLORA_CACHE=stopped", "-o json factors --model random", &n_cached));
    assert_int_equal(n_cached, stored);
    check(0, "", "TINYLORA_CACHE=whole", "factors --model random");
    shell("rm -f stopped/*.tmp-*; diff -r stopped whole");
}

static void a_time_limit_stops_it(void **state)
{
    (void)state;
    check(4, "of 42 modules are in \"limit\"; the same command goes on", "TINYLORA_CACHE=limit",
          "--threads 1 --max-time 0.05 factors --model random");
}

static void damaged_files_are_made_anew(void **state)
{
    (void)state;
    int n_cached;
    check(0, "", "TINYLORA_CACHE=sound", "factors --model random");
    shell("cp -r sound damaged; cd damaged; set -- *.factors; truncate -s 100 $1; : > $2; "
          "printf x | dd of=$3 bs=1 seek=300 conv=notrunc 2>/dev/null");
    json_free(read_rows("TINYLORA_CACHE=damaged", "-o json factors --model random", &n_cached));
    assert_int_equal(n_cached, N_MODULES - 3);
    shell("diff -r sound damaged");
}

static void what_cannot_be_is_said(void **state)
{
    (void)state;
    check(2,
          "module \"model.layers.0.self_attn.k_proj\": rank 200 of a 144 x 288 matrix: from 1 to "
          "144 are possible",
          "", "factors --model random --rank 200");
    check(2, "--rank", "", "factors --model random --rank 0");
    check(2, "--targets \"q_prj\": the nearest layer is \"q_proj\"", "",
          "factors --model random --targets k_proj,q_prj");
    check(2, "--model: a model is missing", "", "factors");
    check(2, "set TINYLORA_CACHE", "TINYLORA_CACHE= ", "factors --model random");
    check(1, "/proc/none: cannot be created", "TINYLORA_CACHE=/proc/none",
          "factors --model random");
    check(1, "File too large", "ulimit -f 4; TINYLORA_CACHE=full", "factors --model random");
    assert_int_equal(count_factors("full"), 0);
    shell("mkdir rest && cp random/config.json rest");
    SafeTensors *file;
    assert_int_equal(safetensors_open(&file, "random/model.safetensors", &error), STATUS_OK);
    Tensor tensors[512];
    size_t n = safetensors_count(file);
    static const uint16_t nan = 0x7fc0;
    char *bytes = NULL;
    for (size_t i = 0; i < n; i++) {
        tensors[i] = *safetensors_at(file, i);
        if (strcmp(tensors[i].name, "model.layers.4.mlp.up_proj.weight") == 0) {
            bytes = malloc(tensors[i].n_bytes);
            memcpy(bytes, tensors[i].data, tensors[i].n_bytes);
            memcpy(bytes + 2 * (7 * SIZE + 5), &nan, sizeof nan);
            tensors[i].data = bytes;
        }
    }
    assert_int_equal(safetensors_write("rest/model.safetensors", tensors, n, NULL, 0, &error),
                     STATUS_OK);
    free(bytes);
    safetensors_close(file);
    check(3, "module \"model.layers.4.mlp.up_proj\": weight (7, 5) is infinite or not a number",
          "TINYLORA_CACHE=rest/cache", "--threads 2 factors --model rest");
    shell("truncate -s -100 rest/model.safetensors");
    check(3, "rest/model.safetensors: ", "", "factors --model rest");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_module_has_a_row_and_a_second_time_it_is_there),
        cmocka_unit_test(one_thread_or_two_store_the_same_bytes),
        cmocka_unit_test(a_run_finds_what_was_found_ahead),
        cmocka_unit_test(shards_give_the_same_files),
        cmocka_unit_test(stopped_and_killed_it_goes_on),
        cmocka_unit_test(a_time_limit_stops_it),
        cmocka_unit_test(damaged_files_are_made_anew),
        cmocka_unit_test(what_cannot_be_is_said),
    };
    return cmocka_run_group_tests(tests, setup, run_teardown);
}
