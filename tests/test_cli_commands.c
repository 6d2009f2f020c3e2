/* The program from outside: exit codes, messages, JSON shapes (INTERFACE). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "core/json.h"
#include "tests/cli_run.h"

#define TRAIN SOURCE_DIR "/models/abacus/train.jsonl"
#define DEV SOURCE_DIR "/models/abacus/dev.jsonl"

/* A sweep that takes a second or two. */
static const char small_config[] =
    "{\"experiment\": \"small\", \"model\": \"abacus\", \"data\": {\"train\": \"" TRAIN
    "\", \"dev\": \"" DEV "\"},\n"
    " \"grpo\": {\"prompts_per_step\": 2, \"group_size\": 3, \"max_new_tokens\": 12}, \"steps\": "
    "2,\n"
    " \"eval\": {\"every\": 0, \"rows\": 4}, \"sweep\": {\"optimizer.lr\": [0.01, 0.02]}}\n";

/* Exit code and, in stderr, one line that holds a text. */
static void expect_refusal(const char *arguments, int code, const char *message)
{
    Run r = run(arguments);
    const char *newline = strchr(r.err, '\n');
    if (r.code != code || !strstr(r.err, message) || strncmp(r.err, "tinylora: ", 10) != 0 ||
        !newline || newline[1]) {
        print_error("tinylora %s: exit code %d, wanted %d\n%swanted: %s\n", arguments, r.code, code,
                    r.err, message);
        fail();
    }
    assert_string_equal(r.out, "");
    run_free(&r);
}

/* The root of what a command printed as JSON; exit code 0. */
static JsonDocument *expect_json(const char *arguments)
{
    JsonDocument *document = NULL;
    Error error = {0};
    Run r = run(arguments);
    if (r.code != 0 || json_parse(&document, r.out, strlen(r.out), &error)) {
        print_error("tinylora %s: exit code %d, %s\n%s%s\n", arguments, r.code, error.message,
                    r.out, r.err);
        fail();
    }
    run_free(&r);
    return document;
}

static long integer(const Json *value)
{
    int64_t number = -1;
    assert_true(json_int64(value, &number));
    return (long)number;
}

static void wrong_usage_is_exit_code_2_and_names_the_nearest(void **state)
{
    (void)state;
    expect_refusal("swep x.json", 2, "unknown verb \"swep\"; the nearest known one is \"sweep\"");
    expect_refusal("model inf x", 2,
                   "unknown verb \"model inf\"; the nearest known one is \"model info\"");
    expect_refusal("ls --experimnt e", 2,
                   "ls: unknown option \"--experimnt\"; the nearest known one is --experiment");
    expect_refusal("--tread 3 ls", 2,
                   "unknown option \"--tread\"; the nearest known one is --threads");
    expect_refusal("--threads zero ls", 2, "--threads \"zero\"");
    expect_refusal("-o xml ls", 2, "-o \"xml\": one of table, json, jsonl, csv, md");
    expect_refusal("show", 2, "show: an argument is missing");
    expect_refusal("score --model abacus", 2, "--file: a file of texts is missing");
    expect_refusal("tokenize --text x", 2, "--model: a model is missing");
    expect_refusal("grpo no-such.json", 2, "no-such.json");
    Run r = run("");
    assert_int_equal(r.code, 2);
    run_free(&r);
}

static void help_of_every_verb_has_two_examples(void **state)
{
    (void)state;
    Run all = run("--help");
    int n_verbs = 0;
    assert_int_equal(all.code, 0);
    for (char *line = strtok(all.out, "\n"); line; line = strtok(NULL, "\n")) {
        char verb[24] = "", command[64], example[64];
        if (strncmp(line, "  ", 2) != 0 || line[2] == ' ' || strncmp(line, "  tinylora", 10) == 0) {
            continue;
        }
        snprintf(verb, sizeof verb, "%.18s", line + 2);
        verb[strcspn(verb, " ")] = verb[strcspn(verb, " ")] && strstr(line, "  ") ? ' ' : 0;
        for (size_t n = strlen(verb); n > 0 && verb[n - 1] == ' '; n--) {
            verb[n - 1] = 0;
        }
        snprintf(command, sizeof command, "%s --help", verb);
        Run r = run(command);
        assert_int_equal(r.code, 0);
        const char *examples = strstr(r.out, "examples:");
        assert_non_null(examples);
        snprintf(example, sizeof example, "  tinylora ");
        const char *first = strstr(examples, example);
        assert_non_null(first);
        assert_non_null(strstr(first + 1, example));
        assert_non_null(strstr(r.out, verb));
        run_free(&r);
        n_verbs++;
    }
    assert_true(n_verbs >= 18);
    run_free(&all);
}

static void tokenize_gives_ids_and_turns_them_back(void **state)
{
    (void)state;
    char command[512];
    JsonDocument *document =
        expect_json("tokenize --model abacus --text 'Tom has 3 apples.' -o json");
    const Json *ids = json_get(json_root(document), "ids");
    assert_true(json_size(ids) > 3);
    size_t n = (size_t)snprintf(command, sizeof command,
                                "tokenize --model abacus --decode -o json --text '");
    for (size_t i = 0; i < json_size(ids); i++) {
        n += (size_t)snprintf(command + n, sizeof command - n, "%ld ", integer(json_at(ids, i)));
    }
    snprintf(command + n, sizeof command - n, "'");
    json_free(document);
    document = expect_json(command);
    assert_string_equal(json_string(json_get(json_root(document), "text"), NULL),
                        "Tom has 3 apples.");
    json_free(document);
    expect_refusal("tokenize --model abacus --text 99999 --decode", 2, "ids end at");
}

static void score_gives_a_line_a_text_and_does_not_depend_on_its_neighbours(void **state)
{
    (void)state;
    run_write("texts",
              "Tom has 3 apples.\n{\"text\": \"one\\ntwo\"}\n\"quoted\"\nTom has 3 apples.\n");
    run_write("alone", "Tom has 3 apples.\n");
    Run r = run("score --model abacus --file texts -o json");
    Run alone = run("score --model abacus --file alone -o jsonl --threads 1");
    assert_int_equal(r.code, 0);
    char *last = strrchr(r.out, '{');
    assert_string_equal(last, alone.out);                     /* the fourth of four */
    assert_memory_equal(r.out, alone.out, strlen(alone.out)); /* and the first */
    JsonDocument *document = NULL;
    assert_int_equal(json_parse(&document, alone.out, strlen(alone.out), NULL), STATUS_OK);
    long n_tokens = integer(json_get(json_root(document), "n_tokens"));
    const Json *logprobs = json_get(json_root(document), "logprobs");
    assert_int_equal(json_size(logprobs), n_tokens - 1);
    double sum = 0, nll = 0, value;
    for (size_t i = 0; i < json_size(logprobs); i++) {
        assert_true(json_double(json_at(logprobs, i), &value) && value < 0);
        sum += value;
    }
    assert_true(json_double(json_get(json_root(document), "nll"), &nll));
    assert_true(nll == -sum / (double)(n_tokens - 1));
    json_free(document);
    run_free(&r);
    run_free(&alone);
    run_write("texts", "fine\n{\"txt\": \"no\"}\n");
    expect_refusal("score --model abacus --file texts", 3,
                   "\"texts\" line 2: no \"text\" that is a string");
}

static void generate_gives_text_ids_and_logprobs_that_score_agrees_with(void **state)
{
    (void)state;
    JsonDocument *document = expect_json("generate --model abacus --prompt 'Tom has 3 apples.' "
                                         "--samples 2 --max-new 6 --seed 5 -o json");
    const Json *samples = json_get(json_root(document), "samples");
    assert_int_equal(json_size(samples), 2);
    assert_true(json_size(json_get(json_root(document), "prompt_ids")) > 0);
    for (size_t i = 0; i < 2; i++) {
        const Json *sample = json_at(samples, i);
        assert_non_null(json_string(json_get(sample, "text"), NULL));
        const char *finish = json_string(json_get(sample, "finish"), NULL);
        size_t n = json_size(json_get(sample, "ids"));
        assert_true(strcmp(finish, "stop") == 0 || (strcmp(finish, "length") == 0 && n == 6));
        assert_int_equal(json_size(json_get(sample, "logprobs")), n);
    }
    json_free(document);
    Run one = run(
        "generate --model abacus --prompt 'Tom has 3 apples.' --samples 2 --max-new 6 --seed 5");
    Run two = run("generate --model abacus --prompt 'Tom has 3 apples.' --samples 2 --max-new 6 "
                  "--seed 5 --threads 1");
    assert_string_equal(one.out, two.out);
    run_free(&one);
    run_free(&two);
    expect_refusal("generate --model abacus --prompt x --beams 2 --top-k 3", 2,
                   "--beams: not with");
    expect_refusal("generate --model abacus --prompt x --length-penalty 2", 2,
                   "--length-penalty: there are no --beams");
    expect_refusal("generate --model abacus --prompt x --stop ''", 2, "--stop: an empty text");
    expect_refusal("generate --model abacus --prompt x --min-p 1.5", 2, "--min-p");
    expect_refusal("generate --model abacus --prompt ''", 2,
                   "--prompt: empty, and the model has no BOS");
    expect_refusal("generate --model nobody --prompt x", 3, "model \"nobody\": no such directory");
}

/* The completion that ends at a text is the head of the one that goes on. */
static void a_stop_text_ends_a_completion_and_its_text_is_cut_before_it(void **state)
{
    (void)state;
    const char *command = "generate --model abacus --prompt 'Tom has 3 apples.' --max-new 40 "
                          "--temperature 1 --min-p 0.05 --repetition-penalty 1.2 -o json";
    JsonDocument *whole = expect_json(command);
    const Json *sample = json_at(json_get(json_root(whole), "samples"), 0);
    const char *text = json_string(json_get(sample, "text"), NULL);
    size_t length = strlen(text);
    assert_true(length > 8);
    char stop[3] = {text[length / 2], text[length / 2 + 1], 0};
    size_t cut = (size_t)(strstr(text, stop) - text);
    char with[512];
    snprintf(with, sizeof with, "%s --stop nowhere-in-it --stop '%s'", command, stop);
    JsonDocument *ended = expect_json(with);
    const Json *head = json_at(json_get(json_root(ended), "samples"), 0);
    const char *shorter = json_string(json_get(head, "text"), NULL);
    assert_int_equal(strlen(shorter), cut);
    assert_memory_equal(shorter, text, cut);
    assert_string_equal(json_string(json_get(head, "finish"), NULL), "stop");
    size_t n = json_size(json_get(head, "ids"));
    assert_true(n > 0 && n < json_size(json_get(sample, "ids")));
    assert_int_equal(json_size(json_get(head, "logprobs")), n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(integer(json_at(json_get(head, "ids"), i)),
                         integer(json_at(json_get(sample, "ids"), i)));
    }
    json_free(whole);
    json_free(ended);
}

/* Finite weights so large that no product of theirs is. */
static void logits_that_are_not_finite_are_an_error(void **state)
{
    (void)state;
    assert_int_equal(system("cp -r '" SOURCE_DIR "/models/abacus' huge"), 0);
    FILE *file = fopen("huge/model.safetensors", "r+b");
    uint64_t header = 0;
    assert_non_null(file);
    assert_int_equal(fread(&header, sizeof header, 1, file), 1);
    fseek(file, 0, SEEK_END);
    long end = ftell(file);
    fseek(file, (long)(8 + header), SEEK_SET);
    for (long at = (long)(8 + header); at < end; at += 2) {
        fwrite("\x7f\x7f", 1, 2, file); /* bf16: 3.4e38 */
    }
    assert_int_equal(fclose(file), 0);
    static const char *const ways[] = {"", "--greedy", "--beams 2", "--top-p 0.9 --samples 3"};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char command[200];
        snprintf(command, sizeof command, "generate --model ./huge --prompt 1 --max-new 4 %s",
                 ways[i]);
        expect_refusal(command, 1, "the model's logits are not finite");
    }
}

static void beams_are_ranked_and_one_beam_is_greedy(void **state)
{
    (void)state;
    Run greedy = run("generate --model abacus --prompt 'Tom has 3 apples.' --greedy --max-new 12");
    Run one = run("generate --model abacus --prompt 'Tom has 3 apples.' --beams 1 --max-new 12");
    assert_int_equal(one.code, 0);
    assert_string_equal(one.out, greedy.out);
    run_free(&greedy);
    run_free(&one);
    JsonDocument *document = expect_json("generate --model abacus --prompt 'Tom has 3 apples.' "
                                         "--beams 4 --length-penalty 0 --max-new 12 -o json");
    const Json *samples = json_get(json_root(document), "samples");
    assert_int_equal(json_size(samples), 4);
    double before = 0;
    for (size_t i = 0; i < 4; i++) {
        double score = 1, sum = 0;
        const Json *logprobs = json_get(json_at(samples, i), "logprobs");
        json_double(json_get(json_at(samples, i), "score"), &score);
        for (size_t t = 0; t < json_size(logprobs); t++) {
            double logprob = 1;
            json_double(json_at(logprobs, t), &logprob);
            sum += logprob;
        }
        assert_true(score == sum && score <= before);
        before = score;
    }
    json_free(document);
}

static void plan_lists_the_chosen_one_first(void **state)
{
    (void)state;
    JsonDocument *document = expect_json("plan --model abacus --budget 13 -o json");
    const Json *plans = json_get(json_root(document), "plans");
    assert_true(json_size(plans) >= 2);
    assert_int_equal(integer(json_get(json_at(plans, 0), "u")), 1);
    assert_int_equal(integer(json_get(json_at(plans, 0), "groups")), 13);
    assert_int_equal(integer(json_get(json_at(plans, 0), "rank")), 2);
    assert_int_equal(integer(json_get(json_at(plans, 0), "bytes")), 26);
    assert_string_equal(json_string(json_get(json_at(plans, 0), "tie"), NULL), "tiled");
    for (size_t i = 0; i < json_size(plans); i++) {
        assert_int_equal(integer(json_get(json_at(plans, i), "parameters")), 13);
        assert_true(integer(json_get(json_at(plans, i), "degrees_of_freedom")) <= 13);
    }
    json_free(document);
    expect_refusal("plan --model abacus --budget 29 --tie none", 2, "cannot be spent");
    expect_refusal("plan --model abacus --tie tild", 2, "the nearest rule is \"tiled\"");
    expect_refusal("plan --model abacus --u 0", 2, "adapter.u: 0: a group has at least 1 scalar");
    expect_refusal("plan --model abacus --u 1 --groups 29", 2, "29 groups over 28 modules");
    expect_refusal("plan --model abacus --rank 200", 2, "rank 200, at most");
    expect_refusal("plan --model abacus --rank two", 2, "--rank: \"two\": a number is expected");
    expect_refusal("plan --model abacus --targets q_proj,c_attn", 2, "\"c_attn\" is not a linear");
    run_write("map.json", "{\"model.layers.0.self_attn.q_proj\": 0}");
    expect_refusal("plan --model abacus --map map.json", 3,
                   "module \"model.layers.0.self_attn.k_proj\" has no group");
    expect_refusal("plan --model abacus --map nowhere.json", 3, "nowhere.json");
}

/* 28 modules; untied, 13 scalars each are more than there are directions. */
static void plan_shows_presets_sizes_and_scalars_that_buy_nothing(void **state)
{
    (void)state;
    Run r = run("plan --model abacus --tie none --u 13 -o json");
    JsonDocument *document = NULL;
    Error error;
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.err, "252 of 364 parameters buy nothing: they move 112 degrees"));
    assert_int_equal(json_parse(&document, r.out, strlen(r.out), &error), STATUS_OK);
    const Json *root = json_root(document), *plan = json_at(json_get(root, "plans"), 0);
    assert_int_equal(integer(json_get(plan, "degrees_of_freedom")), 112);
    assert_int_equal(json_size(json_get(plan, "sizes")), 28);
    assert_int_equal(json_size(json_get(root, "warnings")), 1);
    json_free(document);
    run_free(&r);
    r = run("plan --model abacus --budget 20"); /* twos and ones in turns are counted, not listed */
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.out, "  8 x 2, 12 x 1  "));
    run_free(&r);
    r = run("adapter --help");
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.out, "adapter import "));
    run_free(&r);
    r = run("plan --model abacus --tie none --u 4 --projection rademacher -o json");
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.err, "here of rank 2, fewer where its P of signs repeat"));
    run_free(&r);
    document = expect_json("plan --model abacus --preset anrgusc --budget 120 -o json");
    root = json_root(document);
    plan = json_at(json_get(root, "plans"), 0);
    assert_int_equal(integer(json_get(plan, "parameters")), 112); /* 4 x 28 */
    assert_int_equal(integer(json_get(plan, "u")), 4);
    assert_string_equal(json_string(json_get(plan, "order"), NULL), "layer-sorted");
    assert_string_equal(json_string(json_get(root, "init"), NULL), "normal");
    json_free(document);
    document = expect_json("plan --model abacus --preset peft --weight-tying 0.5 --u 3 -o json");
    root = json_root(document);
    plan = json_at(json_get(root, "plans"), 0);
    assert_int_equal(integer(json_get(root, "modules")), 8); /* q and v */
    assert_int_equal(integer(json_get(plan, "groups")), 4);
    assert_int_equal(integer(json_get(plan, "bytes")), 48); /* 12 of f32 */
    assert_string_equal(json_string(json_get(plan, "grouping"), NULL), "floor");
    assert_string_equal(json_string(json_get(root, "sigma"), NULL), "sqrt");
    json_free(document);
    /* The map of a plan is a map file of the same plan. */
    document = expect_json("plan --model abacus --tie structured --groups 14 --u 2 -o json");
    const Json *map = json_get(json_root(document), "map");
    assert_int_equal(json_size(map), 28);
    assert_int_equal(integer(json_get(map, "model.layers.0.self_attn.q_proj")), 0);
    assert_int_equal(integer(json_get(map, "model.layers.2.self_attn.q_proj")), 1);
    assert_int_equal(integer(json_get(map, "model.layers.3.mlp.down_proj")), 13);
    Text file = {0};
    for (size_t i = 0; i < json_size(map); i++) {
        text_printf(&file, "%s\"%s\": %ld", i ? ", " : "{", json_key(map, i),
                    integer(json_at(map, i)));
    }
    text_add(&file, "}");
    run_write("map-of-plan.json", text_string(&file));
    JsonDocument *again = expect_json("plan --model abacus --map map-of-plan.json --u 2 -o json");
    const Json *same = json_get(json_root(again), "map");
    for (size_t i = 0; i < json_size(map); i++) {
        assert_int_equal(integer(json_at(same, i)), integer(json_get(map, json_key(same, i))));
    }
    assert_int_equal(json_size(same), 28);
    text_release(&file);
    json_free(again);
    json_free(document);
}

static void models_are_described_made_and_verified(void **state)
{
    (void)state;
    JsonDocument *document = expect_json("model info abacus -o json");
    assert_string_equal(json_string(json_get(json_root(document), "architecture"), NULL),
                        "Qwen2ForCausalLM");
    assert_int_equal(strlen(json_string(json_get(json_root(document), "weights_sha256"), NULL)),
                     64);
    json_free(document);
    Run r = run("model random --config '" SOURCE_DIR
                "/models/abacus/config.json' --dtype f32 --seed 3 a");
    assert_int_equal(r.code, 0);
    run_free(&r);
    r = run("model random --config '" SOURCE_DIR
            "/models/abacus/config.json' --dtype f32 --seed 3 b");
    run_free(&r);
    assert_int_equal(system("cmp -s a/model.safetensors b/model.safetensors"), 0);
    r = run("verify a");
    assert_int_equal(r.code, 0);
    run_free(&r);
    assert_int_equal(truncate("b/model.safetensors", 9999), 0);
    expect_refusal("verify b", 3, "b/model.safetensors");
    expect_refusal("verify b --kind modle", 2, "the nearest known one is \"model\"");
    expect_refusal("verify a/config.json --sha256 "
                   "0000000000000000000000000000000000000000000000000000000000000000",
                   3, "its SHA-256 is ");
    run_write("rows.jsonl",
              "{\"question\": \"a\", \"answer\": \"#### 1\"}\n{\"question\": \"a\"}\n");
    expect_refusal("verify rows.jsonl", 3, "line 2");
}

static void config_show_lists_every_key_and_resolves_a_config(void **state)
{
    (void)state;
    JsonDocument *document = expect_json("config show -o json");
    assert_true(json_size(json_root(document)) > 50);
    for (size_t i = 0; i < json_size(json_root(document)); i++) {
        assert_true(
            strlen(json_string(json_get(json_at(json_root(document), i), "meaning"), NULL)) > 3);
    }
    json_free(document);
    run_write("mine.json", "{\"model\": \"abacus\", \"data\": {\"train\": \"rows.jsonl\"}}");
    document = expect_json("config show mine.json --set optimizer.lr=1.04e-6");
    const Json *root = json_root(document), *adapter = json_get(root, "adapter");
    double lr = 0;
    assert_true(json_double(json_get(json_get(root, "optimizer"), "lr"), &lr) && lr == 1.04e-6);
    assert_string_equal(json_string(json_get(root, "experiment"), NULL), "mine");
    assert_int_equal(integer(json_get(adapter, "u")), 1); /* the plan too */
    assert_int_equal(integer(json_get(adapter, "groups")), 13);
    assert_string_equal(json_string(json_get(adapter, "grouping"), NULL), "balanced");
    json_free(document);
    expect_refusal("config show mine.json --set adapter.bugdet=3", 2,
                   "the nearest known one is \"adapter.budget\"");
}

static void a_sweep_typed_again_does_nothing_twice(void **state)
{
    (void)state;
    run_write("small.json", small_config);
    Run r = run("sweep small.json --dry-run");
    assert_int_equal(r.code, 0);
    run_free(&r);
    assert_int_not_equal(access("results.db", F_OK), 0); /* nothing was made */
    expect_refusal("ls", 1, "\"results.db\": there are no results yet");
    r = run("sweep small.json");
    assert_int_equal(r.code, 0);
    run_free(&r);
    Run first = run("query 'SELECT * FROM attempt' -o json");
    r = run("sweep small.json");
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.err, "2 of 2 runs done, 0 of them now"));
    run_free(&r);
    Run second = run("query 'SELECT * FROM attempt' -o json");
    assert_string_equal(first.out, second.out);
    run_free(&first);
    run_free(&second);
    JsonDocument *document = expect_json("ls -o json");
    assert_int_equal(json_size(json_root(document)), 2);
    assert_string_equal(json_string(json_get(json_at(json_root(document), 0), "state"), NULL),
                        "done");
    json_free(document);
    document = expect_json("best -o json");
    int n_base = 0;
    for (size_t i = 0; i < json_size(json_root(document)); i++) {
        n_base += strcmp(json_string(json_get(json_at(json_root(document), i), "kind"), NULL),
                         "base") == 0;
    }
    assert_int_equal(n_base, 1);
    json_free(document);
    expect_refusal("show zzz", 2, "zzz");
    expect_refusal("query 'DELETE FROM run'", 2, "query");
    r = run("db check");
    assert_int_equal(r.code, 0);
    run_free(&r);
}

/* In the results.db of the test before: its base row has no nll yet. */
static void sft_of_every_method_runs_in_one_sweep_and_the_base_has_every_score(void **state)
{
    (void)state;
    Run r = run("sweep small.json --set method=sft --set 'sweep.optimizer.lr=[1e-3]' --set "
                "'sweep.adapter.method=[\"tinylora\", \"lora\", \"lora-xs\", \"full\", \"none\"]'");
    assert_int_equal(r.code, 0);
    run_free(&r);
    JsonDocument *document = expect_json(
        "query -o json \"SELECT r.adapter, r.kind, e.value, e.base_value FROM evaluation e "
        "JOIN run r USING (run_id) WHERE e.extractor = 'nll' ORDER BY r.kind, r.adapter\"");
    assert_int_equal(json_size(json_root(document)), 6);
    double base = 0, value = 0;
    assert_true(json_double(json_get(json_at(json_root(document), 0), "value"), &base));
    static const char *const adapters[] = {"none", "full", "lora", "lora-xs", "none", "tinylora"};
    for (size_t i = 0; i < 6; i++) {
        const Json *row = json_at(json_root(document), i);
        assert_string_equal(json_string(json_get(row, "adapter"), NULL), adapters[i]);
        assert_true(json_double(json_get(row, "value"), &value));
        assert_true(i == 1   ? value < base - 0.01
                    : i == 2 ? value < base
                    : i == 4 ? value == base
                             : 1); /* full and LoRA learn, none does not */
        assert_true(i == 0 || (json_double(json_get(row, "base_value"), &value) && value == base));
    }
    json_free(document);
}

static void stored_runs_are_used_by_score_generate_and_eval(void **state)
{
    (void)state;
    Run id =
        run("query -o csv \"SELECT run_id FROM run WHERE kind = 'run' ORDER BY lr DESC LIMIT 1\"");
    char command[256], run_id[17] = "";
    snprintf(run_id, sizeof run_id, "%.16s", strchr(id.out, '\n') + 1);
    run_free(&id);
    run_write("alone", "Tom has 3 apples.\n");
    snprintf(command, sizeof command, "score --run %s --file alone -o json", run_id);
    Run tuned = run(command), base = run("score --model abacus --file alone -o json");
    assert_int_equal(tuned.code, 0);
    assert_string_not_equal(tuned.out, base.out);
    run_free(&tuned);
    run_free(&base);
    snprintf(command, sizeof command, "generate --run %s --prompt 'Tom has' --max-new 3 -o json",
             run_id);
    json_free(expect_json(command));
    snprintf(command, sizeof command, "eval --run %s --rows 3 -o json", run_id);
    JsonDocument *document = expect_json(command);
    assert_true(json_size(json_root(document)) >= 12); /* base and run, by every extractor */
    json_free(document);
    Run before = run("query 'SELECT count(*), max(created_at) FROM evaluation'");
    Run again = run(command);
    Run after = run("query 'SELECT count(*), max(created_at) FROM evaluation'");
    assert_int_equal(again.code, 0);
    assert_string_equal(before.out, after.out); /* what is there is not computed again */
    run_free(&before);
    run_free(&again);
    run_free(&after);
}

static void a_cell_that_diverges_is_failed_and_the_others_go_on(void **state)
{
    (void)state;
    run_write("small.json", small_config);
    Run r = run("--db failing.db sweep small.json --set 'sweep.optimizer.lr=[1e30, 0.01]' --set "
                "steps=4 --set "
                "optimizer.name=sgd --set optimizer.grad_clip=0 --set optimizer.lr=1");
    assert_int_equal(r.code, 1);
    assert_non_null(
        strstr(r.err, "tinylora: 1 of 2 runs failed; --retry-failed tries them again\n"));
    run_free(&r);
    JsonDocument *document =
        expect_json("--db failing.db query -o json \"SELECT state, reason, last_step, (SELECT "
                    "max(step) FROM checkpoint c WHERE c.run_id = r.run_id) AS kept FROM run r "
                    "WHERE kind = 'run' ORDER BY lr\"");
    const Json *good = json_at(json_root(document), 0), *bad = json_at(json_root(document), 1);
    assert_string_equal(json_string(json_get(good, "state"), NULL), "done");
    assert_string_equal(json_string(json_get(bad, "state"), NULL), "failed");
    assert_non_null(strstr(json_string(json_get(bad, "reason"), NULL), "step"));
    assert_int_equal(integer(json_get(bad, "kept")), integer(json_get(bad, "last_step")));
    json_free(document);
}

static void what_enters_is_refused_before_anything_is_written(void **state)
{
    (void)state;
    run_write("rows.jsonl",
              "{\"question\": \"a\", \"answer\": \"#### 1\"}\n{\"question\": \"b\"}\n");
    run_write("empty.jsonl", "");
    run_write("small.json", small_config);
    expect_refusal("--db none.db sweep small.json --set data.train=rows.jsonl", 3, "rows.jsonl");
    expect_refusal("--db none.db sweep small.json --set data.train=empty.jsonl", 3, "empty.jsonl");
    expect_refusal("--db none.db sweep small.json --set data.train=missing.jsonl", 3,
                   "missing.jsonl");
    expect_refusal("--db none.db sweep small.json --set adapter.tie=none", 2, "cannot be spent");
    expect_refusal("--db none.db sweep small.json --set grpo.max_new_tokns=3", 2,
                   "grpo.max_new_tokens");
    expect_refusal("--db none.db grpo small.json", 2, "2 cells; use tinylora sweep");
    expect_refusal("--db none.db sft small.json", 2, "method is \"grpo\"");
    assert_int_not_equal(access("none.db", F_OK), 0);
    run_write("other.db",
              "this is not a database, but a text that somebody put there by mistake\n");
    expect_refusal("--db other.db ls", 3, "other.db");
    expect_refusal("--db other.db sweep small.json", 3, "other.db");
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void a_signal_commits_and_exits_with_4_and_the_same_command_goes_on(void **state)
{
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
    run_write("small.json", small_config);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        char command[128], db[16];
        snprintf(db, sizeof db, "stop%zu.db", i);
        snprintf(command, sizeof command, "--db %s sweep small.json --set steps=100000", db);
        pid_t pid = run_start("", command);
        double began = seconds();
        while (access(db, F_OK) != 0 && seconds() - began < 100) {
            usleep(20000);
        }
        usleep(200000);
        kill(pid, signals[i]);
        Run r = run_wait(pid);
        assert_int_equal(r.code, 4);
        run_free(&r);
    }
    Run r = run("--db stop0.db --max-time 3 sweep small.json --set steps=100000");
    assert_int_equal(r.code, 4);
    assert_non_null(strstr(r.err, "stopped, everything committed to \"stop0.db\""));
    run_free(&r);
    JsonDocument *document =
        expect_json("--db stop0.db query -o json \"SELECT (SELECT count(*) FROM run WHERE state = "
                    "'waiting') AS "
                    "waiting, (SELECT count(*) FROM attempt WHERE how = 'stopped') AS stopped\"");
    const Json *row = json_at(json_root(document), 0);
    assert_int_equal(integer(json_get(row, "waiting")), 2);
    assert_true(integer(json_get(row, "stopped")) >= 2);
    json_free(document);
}

static void a_disk_that_fills_is_exit_code_1_and_loses_nothing(void **state)
{
    (void)state;
    run_write("small.json", small_config);
    /* 400 blocks of 512 bytes: room for the schema and some steps */
    Run r =
        run_wait(run_start("ulimit -f 400;", "--db full.db sweep small.json --set steps=100000"));
    assert_int_equal(r.code, 1);
    assert_non_null(strstr(r.err, "full.db"));
    run_free(&r);
    r = run("--db full.db db check");
    assert_int_equal(r.code, 0);
    run_free(&r);
    r = run("--db full.db --max-time 0.5 sweep small.json --set steps=100000");
    assert_int_equal(r.code, 4); /* it goes on */
    run_free(&r);
    r = run_wait(run_start("", "tokenize --model abacus --text x > /dev/full"));
    assert_int_equal(r.code, 1);
    assert_non_null(strstr(r.err, "tinylora: writing the result: "));
    run_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_usage_is_exit_code_2_and_names_the_nearest),
        cmocka_unit_test(help_of_every_verb_has_two_examples),
        cmocka_unit_test(tokenize_gives_ids_and_turns_them_back),
        cmocka_unit_test(score_gives_a_line_a_text_and_does_not_depend_on_its_neighbours),
        cmocka_unit_test(generate_gives_text_ids_and_logprobs_that_score_agrees_with),
        cmocka_unit_test(beams_are_ranked_and_one_beam_is_greedy),
        cmocka_unit_test(logits_that_are_not_finite_are_an_error),
        cmocka_unit_test(a_stop_text_ends_a_completion_and_its_text_is_cut_before_it),
        cmocka_unit_test(plan_lists_the_chosen_one_first),
        cmocka_unit_test(plan_shows_presets_sizes_and_scalars_that_buy_nothing),
        cmocka_unit_test(models_are_described_made_and_verified),
        cmocka_unit_test(config_show_lists_every_key_and_resolves_a_config),
        cmocka_unit_test(a_sweep_typed_again_does_nothing_twice),
        cmocka_unit_test(sft_of_every_method_runs_in_one_sweep_and_the_base_has_every_score),
        cmocka_unit_test(stored_runs_are_used_by_score_generate_and_eval),
        cmocka_unit_test(a_cell_that_diverges_is_failed_and_the_others_go_on),
        cmocka_unit_test(what_enters_is_refused_before_anything_is_written),
        cmocka_unit_test(a_signal_commits_and_exits_with_4_and_the_same_command_goes_on),
        cmocka_unit_test(a_disk_that_fills_is_exit_code_1_and_loses_nothing),
    };
    return cmocka_run_group_tests(tests, run_setup, run_teardown);
}
