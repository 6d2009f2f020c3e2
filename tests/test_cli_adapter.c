/* Adapters in and out of the program: round trips of every format, real PEFT's adapters, refusals.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "core/json.h"
#include "core/safetensors.h"
#include "core/sha256.h"
#include "tests/cli_run.h"
#include "tests/shared.h"

#define TRAIN SOURCE_DIR "/models/abacus/train.jsonl"
#define PEFT SOURCE_DIR "/tests/data/peft"
#define CONFIG_OF(name, adapter)                                                                   \
    "{\"experiment\": \"" name "\", \"model\": \"abacus\", \"data\": {\"train\": \"" TRAIN         \
    "\"}, \"method\": \"sft\", \"sft\": {\"batch_size\": 2}, \"steps\": 2, \"eval\": {\"rows\": "  \
    "1}, \"optimizer\": {\"lr\": 0.02}, \"adapter\": " adapter "}\n"

__attribute__((format(printf, 3, 4))) static void refused(int code, const char *message,
                                                          const char *format, ...)
{
    char arguments[2048];
    va_list list;
    va_start(list, format);
    vsnprintf(arguments, sizeof arguments, format, list);
    va_end(list);
    Run r = run(arguments);
    const char *newline = strchr(r.err, '\n');
    if (r.code != code || !strstr(r.err, message) || !newline || newline[1]) {
        print_error("tinylora %s: exit code %d, wanted %d\n%swanted: %s\n", arguments, r.code, code,
                    r.err, message);
        fail();
    }
    run_free(&r);
}

__attribute__((format(printf, 1, 2))) static void shell(const char *format, ...)
{
    char command[4096];
    va_list list;
    va_start(list, format);
    vsnprintf(command, sizeof command, format, list);
    va_end(list);
    assert_int_equal(system(command), 0);
}

static char *run_of(const char *experiment)
{
    char *out =
        run_done("-o json query \"SELECT run_id FROM run WHERE experiment = '%s'\"", experiment);
    JsonDocument *document = NULL;
    assert_int_equal(json_parse(&document, out, strlen(out), NULL), STATUS_OK);
    const Json *row = json_at(json_root(document), 0);
    char *id = strdup(json_string(json_get(row, "run_id"), NULL));
    json_free(document);
    free(out);
    return id;
}

/* log p of the second token and on of the first text; n of them. */
static size_t logprobs(double out[64], const char *json)
{
    JsonDocument *document = NULL;
    assert_int_equal(json_parse(&document, json, strcspn(json, "\n"), NULL), STATUS_OK);
    const Json *list = json_get(json_root(document), "logprobs");
    size_t n = json_size(list);
    assert_in_range(n, 1, 64);
    for (size_t i = 0; i < n; i++) {
        assert_true(json_double(json_at(list, i), &out[i]));
    }
    json_free(document);
    return n;
}

static double largest_difference(const char *one, const char *other)
{
    double a[64], b[64], largest = 0;
    size_t n = logprobs(a, one);
    assert_int_equal(n, logprobs(b, other));
    for (size_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs(a[i] - b[i]));
    }
    return largest;
}

static int setup(void **state)
{
    if (run_setup(state)) {
        return 1;
    }
    run_write("texts", "12 + 34 = 46\n");
    run_write("tiny.json", CONFIG_OF("tiny", "{\"budget\": 13}"));
    run_write("peft.json", CONFIG_OF("peft", "{\"preset\": \"peft\", \"u\": 3}"));
    run_write("xs.json", CONFIG_OF("xs", "{\"method\": \"lora-xs\", \"rank\": 3}"));
    run_write("lora.json", CONFIG_OF("lora", "{\"method\": \"lora\", \"rank\": 2, \"alpha\": 6}"));
    run_write("full.json", CONFIG_OF("full", "{\"method\": \"full\"}"));
    static const char *const names[] = {"tiny", "peft", "xs", "lora", "full"};
    for (int i = 0; i < 5; i++) {
        free(run_done("--quiet sft %s.json", names[i]));
    }
    return 0;
}

static void bytes_give_the_same_bits_and_weigh_26_for_13_scalars_of_bf16(void **state)
{
    (void)state;
    static const char *const names[] = {"tiny", "xs", "lora"};
    char *base = run_done("-o json score --model abacus --file texts");
    for (int i = 0; i < 3; i++) {
        char *id = run_of(names[i]);
        free(run_done("adapter export %s --format bytes b-%s", id, names[i]));
        char *stored = run_done("-o json score --run %s --file texts", id);
        char *carried =
            run_done("-o json score --model abacus --adapter b-%s --file texts", names[i]);
        assert_string_equal(stored, carried);
        assert_string_not_equal(stored, base); /* or nothing was tested */
        free(stored);
        free(carried);
        free(id);
    }
    char *id = run_of("tiny");
    free(run_done("--quiet adapter export %s --format bytes --dtype bf16 b-short", id));
    struct stat info;
    assert_int_equal(stat("b-short/v.bin", &info), 0);
    assert_int_equal(info.st_size, 26);
    free(run_done("-o json score --model abacus --adapter b-short --file texts"));
    refused(2, "exists already and is not empty", "adapter export %s --format bytes b-short", id);
    free(id);
    free(base);
}

static void a_merged_model_scores_as_its_adapter_and_is_the_same_bytes_again(void **state)
{
    (void)state;
    static const char *const names[] = {"tiny", "lora", "full"};
    for (int i = 0; i < 3; i++) {
        char path[64], one[SHA256_HEX_SIZE], two[SHA256_HEX_SIZE];
        char *id = run_of(names[i]);
        free(run_done("--quiet -o json adapter export %s --format merged m-%s", id, names[i]));
        free(run_done("--quiet adapter export %s --format merged again-%s", id, names[i]));
        snprintf(path, sizeof path, "m-%s/model.safetensors", names[i]);
        assert_int_equal(sha256_file(one, path, NULL), STATUS_OK);
        snprintf(path, sizeof path, "again-%s/model.safetensors", names[i]);
        assert_int_equal(sha256_file(two, path, NULL), STATUS_OK);
        assert_string_equal(one, two);
        char *stored = run_done("-o json score --run %s --file texts", id);
        char *merged = run_done("-o json score --model m-%s --file texts", names[i]);
        /* Weights of half the precision move log p by about 2^-9 of the logits. */
        assert_true(largest_difference(stored, merged) < 0.1);
        free(stored);
        free(merged);
        free(id);
    }
    char *id = run_of("full");
    refused(2, "is of another model: weights", "adapter export %s --format bytes f --model m-full",
            id);
    refused(2, "has no scalars beside a model; export it as merged",
            "adapter export %s --format bytes f", id);
    refused(2, "is no product of thin matrices; export it as merged",
            "adapter export %s --format peft-lora f", id);
    refused(2, "is not TinyLoRA; export it as merged", "adapter export %s --format peft-tinylora f",
            id);
    free(id);
}

/* As method full of the base: the very bits of the merged model on its own. */
static void a_merged_model_comes_back_as_an_adapter_of_its_base(void **state)
{
    (void)state;
    static const char *const names[] = {"peft", "full"};
    for (int i = 0; i < 2; i++) {
        char *id = run_of(names[i]), imported[17] = "";
        free(run_done("--quiet adapter export %s --format merged back-%s", id, names[i]));
        char *alone = run_done("-o json score --model back-%s --file texts", names[i]);
        char *carried =
            run_done("-o json score --model abacus --adapter back-%s --file texts", names[i]);
        assert_string_equal(alone, carried);
        char *row = run_done("-o csv adapter import back-%s --model abacus", names[i]);
        memcpy(imported, strchr(row, '\n') + 1, 16);
        char *again = run_done("-o json score --run %s --file texts", imported);
        assert_string_equal(alone, again);
        char *two = run_done("-o csv adapter import back-%s --model abacus", names[i]);
        assert_string_equal(row, two);
        free(run_done("adapter diff %s back-%s", id, names[i]));
        free(alone);
        free(carried);
        free(row);
        free(again);
        free(two);
        free(id);
    }
    shell("sed 's/\"num_hidden_layers\": 4/\"num_hidden_layers\": 3/' " SOURCE_DIR
          "/models/abacus/config.json > shallow.json");
    free(run_done("model random --config shallow.json --dtype bf16 --seed 1 shallow"));
    refused(3, "back-peft/config.json: \"num_hidden_layers\" is not as in the base model's",
            "adapter import back-peft --model shallow");
    shell("cp -r back-peft cut; truncate -s -100 cut/model.safetensors");
    refused(3, "cut/model.safetensors", "adapter import cut --model abacus");
    shell("ln -sf model.safetensors cut/model.safetensors");
    refused(3, "cut/model.safetensors: cannot be opened", "adapter import cut --model abacus");
    shell("rm cut/model.safetensors; ln -s nowhere cut/config.json -f");
    refused(3, "cut/config.json: cannot be opened", "adapter import cut --model abacus");
    shell("rm -rf cut; cp -r back-peft cut; printf '\\300\\177' | dd of=cut/model.safetensors bs=1 "
          "seek=$(($(stat -c %%s cut/model.safetensors) - 2)) conv=notrunc 2>/dev/null");
    refused(3, "cut/model.safetensors: tensor \"model.norm.weight\": element 95 is infinite or",
            "adapter import cut --model abacus");
}

static void exports_for_peft_come_back_and_as_stored_runs(void **state)
{
    (void)state;
    static const struct {
        const char *name, *format, *more;
    } cases[] = {{"tiny", "peft-lora", ""},
                 {"xs", "peft-lora", ""},
                 {"lora", "peft-lora", ""},
                 {"tiny", "peft-tinylora", "--untie"},
                 {"peft", "peft-tinylora", ""}};
    for (int i = 0; i < 5; i++) {
        char *id = run_of(cases[i].name);
        free(run_done("adapter export %s --format %s %s p%d", id, cases[i].format, cases[i].more,
                      i));
        char *stored = run_done("-o json score --run %s --file texts", id);
        char *carried = run_done("-o json score --model abacus --adapter p%d --file texts", i);
        /* Other products of the same matrices in f32. */
        assert_true(largest_difference(stored, carried) < 1e-4);
        char *row = run_done("-o json adapter import p%d --model abacus", i), imported[17] = "";
        const char *at = strstr(row, "\"run_id\": \"");
        assert_non_null(at);
        memcpy(imported, at + strlen("\"run_id\": \""), 16);
        char *again = run_done("-o json score --run %s --file texts", imported);
        assert_string_equal(carried, again);
        free(row);
        free(stored);
        free(carried);
        free(again);
        free(id);
    }
    char *id = run_of("tiny"), *lora = run_of("lora");
    refused(2, "--untie", "adapter export %s --format peft-tinylora q", id);
    refused(2, "export it as peft-lora", "adapter export %s --format peft-tinylora q", lora);
    free(id);
    free(lora);
}

static void bytes_become_a_run_once_that_eval_and_diff_take(void **state)
{
    (void)state;
    char *id = run_of("tiny");
    free(run_done("adapter export %s --format bytes imported", id));
    char *one = run_done("-o csv adapter import imported --model abacus");
    char *two = run_done("-o csv adapter import imported --model abacus");
    assert_string_equal(one, two);
    char run_id[17] = "";
    memcpy(run_id, strchr(one, '\n') + 1, 16);
    refused(2, "--data: rows are wanted", "eval --run %s", run_id);
    free(run_done("eval --run %s --data " TRAIN " --rows 2", run_id));
    char *same = run_done("-o csv adapter diff %s imported", id);
    const char *at = strstr(same, "values,norm of v; largest difference,");
    assert_non_null(at);
    assert_memory_equal(strchr(at, '\r') - 2, ",0", 2);
    char *listed =
        run_done("-o csv query \"SELECT count(*) FROM artifact WHERE kind = 'adapter' AND "
                 "run_id = '%s'\"",
                 id);
    assert_null(strstr(listed, "\n0"));
    free(listed);
    free(same);
    free(one);
    free(two);
    run_write("import.json", CONFIG_OF("x", "{\"budget\": 13}"));
    refused(2, "trains nothing", "sft import.json --set method=\\\"import\\\"");
    free(id);
}

static void adapters_that_peft_made_score_as_in_peft(void **state)
{
    (void)state;
    char model[4096];
    shared_path(model, "data/models/stories260k/config.json");
    *strrchr(model, '/') = 0;
    JsonDocument *golden = NULL;
    Error error;
    assert_int_equal(json_read(&golden, PEFT "/golden.json", 1 << 20, &error), STATUS_OK);
    run_write("story", json_string(json_get(json_root(golden), "text"), NULL));
    static const char *const names[] = {"lora", "rank", "tinylora"};
    for (int i = 0; i < 3; i++) {
        double ours[64];
        const Json *theirs = json_get(json_get(json_root(golden), "logprobs"), names[i]);
        char *out = run_done("-o json score --model %s --adapter " PEFT "/%s --file story", model,
                             names[i]);
        size_t n = logprobs(ours, out);
        assert_int_equal(n, json_size(theirs));
        for (size_t k = 0; k < n; k++) {
            double value;
            assert_true(json_double(json_at(theirs, k), &value));
            assert_true(fabs(value - ours[k]) < 1e-4); /* of the issue; measured below 8e-6 */
        }
        free(out);
    }
    refused(3, "dora/adapter_config.json: option \"use_dora\"",
            "score --model %s --adapter " PEFT "/dora --file story", model);
    refused(3, "this model", "score --model abacus --adapter " PEFT "/lora --file texts");
    json_free(golden);
}

static void an_export_has_the_names_and_shapes_of_what_peft_saves(void **state)
{
    (void)state;
    SafeTensors *ours, *theirs;
    char *id = run_of("peft");
    free(run_done("adapter export %s --format peft-tinylora layout", id));
    assert_int_equal(safetensors_open(&ours, "layout/adapter_model.safetensors", NULL), STATUS_OK);
    assert_int_equal(safetensors_open(&theirs, PEFT "/tinylora/adapter_model.safetensors", NULL),
                     STATUS_OK);
    static const char *const names[] = {
        "base_model.tinylora_v.0", "base_model.model.model.layers.1.self_attn.q_proj.tinylora_A",
        "base_model.model.model.layers.1.self_attn.v_proj.tinylora_B",
        "base_model.model.model.layers.0.self_attn.q_proj.tinylora_P"};
    for (int i = 0; i < 4; i++) {
        const Tensor *a = safetensors_find(ours, names[i]), *b = safetensors_find(theirs, names[i]);
        assert_non_null(a);
        assert_non_null(b);
        assert_int_equal(a->n_dims, b->n_dims);
        assert_int_equal(a->type, b->type);
    }
    safetensors_close(ours);
    safetensors_close(theirs);
    free(id);
}

static void broken_adapters_are_refused_with_file_and_rule(void **state)
{
    (void)state;
    static const struct {
        const char *damage, *message;
    } cases[] = {
        {"truncate -s 40 x/v.bin", "x/v.bin: has 40 bytes, 13 scalars of f32 have 52"},
        {"printf '\\0\\0\\300\\177' | dd of=x/v.bin bs=1 seek=8 conv=notrunc 2>/dev/null",
         "scalar 2 is not a finite number"},
        {"printf 'a' | dd of=x/v.bin bs=1 seek=8 conv=notrunc 2>/dev/null", "its SHA-256 is"},
        {"sed -i 's/\"version\": 1/\"version\": 2/' x/adapter.json",
         "version 2 is newer than the 1 that this program reads"},
        {"sed -i 's/\"seed\": 13/\"seed\": 14/' x/adapter.json", "P derived again has the SHA-256"},
        {"sed -i 's/\"group\": 0,/\"group\": 5,/' x/adapter.json", "is in tie group 0"},
        {"sed -i 's/\"probe\": [-0-9.e]*/\"probe\": 1e9/' x/adapter.json",
         "is changed in another way than the descriptor says"},
        {"sed -i 's/\"weights_sha256\": \"......../\"weights_sha256\": \"00000000/' x/adapter.json",
         "is of another model"},
        {"sed -i 's/\"rank\": 2/\"rank\": 300/' x/adapter.json", "\"adapter.rank\": 300"},
        {"sed -i 's/\"sigma\"/\"sigmund\"/' x/adapter.json", "unknown setting \"sigmund\""},
        {"truncate -s 400 x/adapter.json", "x/adapter.json: line"},
        {"rm x/adapter.json", "it has neither adapter.json nor adapter_config.json"},
        {"rm x/v.bin", "x/v.bin: cannot be opened: No such file"},
        {"ln -sf nowhere x/adapter.json", "x/adapter.json: cannot be opened: No such file"},
        {"ln -sf /dev/zero x/v.bin", "x/v.bin"},
        {"truncate -s +1 x/v.bin", "x/v.bin: has 53 bytes"},
    };
    char *id = run_of("tiny");
    free(run_done("adapter export %s --format bytes sound", id));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        shell("rm -rf x; cp -r sound x; %s", cases[i].damage);
        refused(3, cases[i].message, "score --model abacus --adapter x --file texts");
    }
    static const struct {
        const char *damage, *message;
    } of_peft[] = {
        {"sed -i 's/\"q_proj\"/\"c_attn\"/' x/adapter_config.json", "the model has no \"c_attn\""},
        {"sed -i 's/\"bias\": \"none\"/\"bias\": \"all\"/' x/adapter_config.json",
         "option \"bias\" = \"all\""},
        {"sed -i 's/\"fan_in_fan_out\": false/\"fan_in_fan_out\": true/' x/adapter_config.json",
         "option \"fan_in_fan_out\""},
        {"sed -i 's/\"modules_to_save\": null/\"modules_to_save\": [\"lm_head\"]/' "
         "x/adapter_config.json",
         "option \"modules_to_save\""},
        {"sed -i 's/\"init_lora_weights\": true/\"init_lora_weights\": \"pissa\"/' "
         "x/adapter_config.json",
         "option \"init_lora_weights\" = \"pissa\""},
        {"sed -i 's/\"LORA\"/\"IA3\"/' x/adapter_config.json", "\"peft_type\" is \"IA3\""},
        {"truncate -s 3000 x/adapter_model.safetensors", "x/adapter_model.safetensors: "},
        {"rm x/adapter_model.safetensors",
         "x/adapter_model.safetensors: cannot be opened: No such"},
    };
    char *lora = run_of("lora");
    free(run_done("adapter export %s --format peft-lora sound-lora", lora));
    for (size_t i = 0; i < sizeof of_peft / sizeof of_peft[0]; i++) {
        shell("rm -rf x; cp -r sound-lora x; %s", of_peft[i].damage);
        refused(3, of_peft[i].message, "score --model abacus --adapter x --file texts");
    }
    refused(3, "no such directory", "score --model abacus --adapter nowhere --file texts");
    refused(2, "--adapter excludes", "score --run %s --adapter sound --file texts", id);
    refused(2, "--format zip", "adapter export %s --format zip y", id);
    free(lora);
    free(id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_give_the_same_bits_and_weigh_26_for_13_scalars_of_bf16),
        cmocka_unit_test(a_merged_model_scores_as_its_adapter_and_is_the_same_bytes_again),
        cmocka_unit_test(a_merged_model_comes_back_as_an_adapter_of_its_base),
        cmocka_unit_test(exports_for_peft_come_back_and_as_stored_runs),
        cmocka_unit_test(bytes_become_a_run_once_that_eval_and_diff_take),
        cmocka_unit_test(adapters_that_peft_made_score_as_in_peft),
        cmocka_unit_test(an_export_has_the_names_and_shapes_of_what_peft_saves),
        cmocka_unit_test(broken_adapters_are_refused_with_file_and_rule),
    };
    return cmocka_run_group_tests(tests, setup, run_teardown);
}
