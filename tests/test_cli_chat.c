/* tinylora chat from outside: turns, two voices, templates, refusals; and that an answer streams
 * the bytes that it decodes to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/json.h"
#include "tests/cli_run.h"
#include "tests/shared.h"

#define TRAIN SOURCE_DIR "/models/abacus/train.jsonl"
#define DEV SOURCE_DIR "/models/abacus/dev.jsonl"
#define QUESTION "Tom has 3 apples. He buys 4 more. How many?"

static const char config[] =
    "{\"experiment\": \"talk\", \"model\": \"abacus\", \"data\": {\"train\": \"" TRAIN
    "\", \"dev\": \"" DEV "\", \"template\": \"Well. {question}\"}, \"method\": \"sft\", "
                          "\"optimizer\": {\"lr\": 0.5}, \"steps\": 2,\n"
    " \"eval\": {\"every\": 0, \"rows\": 4}}\n";

/* What the command prints for these lines of input; exit code as wanted. */
static Run talk(const char *lines, const char *arguments, int code)
{
    char command[2048];
    run_write("lines", lines);
    snprintf(command, sizeof command, "%s < lines", arguments);
    Run r = run(command);
    if (r.code != code) {
        print_error("tinylora %s: exit code %d, wanted %d\n%s%s", command, r.code, code, r.out,
                    r.err);
        fail();
    }
    return r;
}

static void refused(const char *lines, const char *arguments, int code, const char *message)
{
    Run r = talk(lines, arguments, code);
    const char *newline = strchr(r.err, '\n');
    if (!strstr(r.err, message) || !newline || newline[1]) {
        fail_msg("%s: wanted %s", r.err, message);
    }
    run_free(&r);
}

static JsonDocument *parse(const char *text, size_t n)
{
    JsonDocument *document = NULL;
    Error error;
    if (json_parse(&document, text, n, &error)) {
        fail_msg("%s: %s", error.message, text);
    }
    return document;
}

/* Answer i of the turn that a line holds. */
static const Json *answer_of(const JsonDocument *turn, size_t i)
{
    return json_at(json_get(json_root(turn), "answers"), i);
}

static long integer(const Json *value)
{
    int64_t number = -1;
    assert_true(json_int64(value, &number));
    return (long)number;
}

static void same_samples(const Json *one, const Json *other)
{
    static const char *const keys[] = {"text", "ids", "logprobs", "finish"};
    for (int i = 0; i < 4; i++) {
        Text a = {0}, b = {0};
        assert_non_null(json_get(one, keys[i]));
        json_write(json_get(one, keys[i]), &a);
        json_write(json_get(other, keys[i]), &b);
        assert_string_equal(a.bytes, b.bytes);
        text_release(&a);
        text_release(&b);
    }
}

static void a_question_is_answered_as_generate_answers_it(void **state)
{
    (void)state;
    Run made = run("generate --model abacus --prompt '" QUESTION "' --seed 4 --max-new 30");
    Run said = talk(QUESTION "\r\n\n/reset\n" QUESTION "\n/exit\nmore\n",
                    "chat --model abacus --seed 4 --max-new 30", 0);
    Text twice = {0};
    text_printf(&twice, "%s\n%s\n", made.out, made.out); /* /reset begins at the first turn */
    assert_string_equal(said.out, text_string(&twice));
    assert_string_equal(said.err, "");
    run_free(&said);
    said = talk(QUESTION, "chat --model abacus --seed 4 --max-new 30 -o json", 0);
    JsonDocument *turn = parse(said.out, strlen(said.out) - 1);
    assert_int_equal(integer(json_get(json_root(turn), "turn")), 1);
    assert_string_equal(json_string(json_get(json_root(turn), "user"), NULL), QUESTION);
    assert_int_equal(json_size(json_get(json_root(turn), "answers")), 1);
    assert_string_equal(json_string(json_get(answer_of(turn, 0), "by"), NULL), "base");
    Run json = run("generate --model abacus --prompt '" QUESTION "' --seed 4 --max-new 30 -o json");
    JsonDocument *generated = parse(json.out, strlen(json.out) - 1);
    same_samples(answer_of(turn, 0), json_at(json_get(json_root(generated), "samples"), 0));
    json_free(generated);
    json_free(turn);
    run_free(&json);
    run_free(&said);
    run_free(&made);
    text_release(&twice);
}

static void an_adapter_answers_beside_the_base_model(void **state)
{
    (void)state;
    char command[512], run_id[17] = "";
    run_write("talk.json", config); /* in the run's own template */
    Run r = run("--quiet sft talk.json");
    assert_int_equal(r.code, 0);
    run_free(&r);
    r = run("query -o csv \"SELECT run_id FROM run WHERE kind = 'run'\"");
    snprintf(run_id, sizeof run_id, "%.16s", strchr(r.out, '\n') + 1);
    run_free(&r);
    snprintf(command, sizeof command, "chat --run %s --seed 4 --max-new 30 -o json", run_id);
    Run both = talk(QUESTION "\nAnd 2 more?\n", command, 0);
    Run base = talk(QUESTION "\nAnd 2 more?\n",
                    "chat --model abacus --template 'Well. {question}' --seed 4 --max-new 30 -o "
                    "json",
                    0);
    const char *lines[2] = {both.out, base.out};
    for (int turn = 1; turn <= 2; turn++) {
        size_t n = strcspn(lines[0], "\n"), m = strcspn(lines[1], "\n");
        JsonDocument *two = parse(lines[0], n), *one = parse(lines[1], m);
        assert_int_equal(integer(json_get(json_root(two), "turn")), turn);
        assert_int_equal(json_size(json_get(json_root(two), "answers")), 2);
        same_samples(answer_of(two, 0), answer_of(one, 0)); /* to the bit, beside the adapter */
        assert_non_null(strstr(json_string(json_get(answer_of(two, 1), "by"), NULL), run_id));
        if (turn == 1) {
            snprintf(command, sizeof command,
                     "generate --run %s --prompt 'Well. " QUESTION
                     "' --seed 4 --max-new 30 -o json",
                     run_id);
            Run json = run(command);
            JsonDocument *generated = parse(json.out, strlen(json.out) - 1);
            same_samples(answer_of(two, 1), json_at(json_get(json_root(generated), "samples"), 0));
            json_free(generated);
            run_free(&json);
        }
        lines[0] += n + 1;
        lines[1] += m + 1;
        json_free(two);
        json_free(one);
    }
    assert_true(*lines[0] == 0 && *lines[1] == 0);
    run_free(&both);
    run_free(&base);
    snprintf(command, sizeof command, "chat --run %s --greedy --max-new 5", run_id);
    both = talk(QUESTION "\n", command, 0);
    assert_int_equal(strncmp(both.out, "base: ", 6), 0);
    snprintf(command, sizeof command, "\nrun %s: ", run_id);
    assert_non_null(strstr(both.out, command));
    run_free(&both);
}

/* A model of random weights with a tokenizer of the shared data. */
static void make_model(const char *name, const char *tokenizer, int vocabulary, int context)
{
    char path[4096], command[2048];
    shared_path(path, tokenizer);
    snprintf(command, sizeof command,
             "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", "
             "\"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 1, "
             "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"vocab_size\": %d, "
             "\"max_position_embeddings\": %d, \"rope_theta\": 10000.0, \"rms_norm_eps\": 1e-06, "
             "\"hidden_act\": \"silu\", \"tie_word_embeddings\": true, \"torch_dtype\": "
             "\"float32\"}",
             vocabulary, context);
    run_write("shape.json", command);
    snprintf(command, sizeof command,
             "--quiet model random --config shape.json --dtype f32 --seed 3 %s", name);
    Run r = run(command);
    assert_int_equal(r.code, 0);
    run_free(&r);
    snprintf(command, sizeof command, "cp '%.1900s'/tokenizer*.json %.40s", path, name);
    assert_int_equal(system(command), 0);
}

static void a_chat_model_is_spoken_to_in_its_own_template(void **state)
{
    (void)state;
    make_model("./qwen", "data/tokenizers/qwen2.5", 151936, 512);
    const char *lines = "Hello\n<|im_end|>\n/reset\nHello\n";
    Run r = talk(lines, "chat --model ./qwen --max-new 2 -o json", 0);
    static const long n_prompt[] = {30, 0, 30}; /* by transformers' apply_chat_template */
    long first = 0;
    const char *line = r.out;
    for (int turn = 0; turn < 3; turn++) {
        size_t n = strcspn(line, "\n");
        JsonDocument *document = parse(line, n);
        long prompt = integer(json_get(answer_of(document, 0), "n_prompt"));
        if (n_prompt[turn]) {
            assert_int_equal(prompt, n_prompt[turn]);
            first = prompt;
        } else { /* the answer, its end and two headers; the text of a token as six */
            assert_true(prompt >= first + 5 + 2 + 6 + 5);
        }
        json_free(document);
        line += n + 1;
    }
    run_free(&r);
    Run named = talk(lines, "chat --model ./qwen --max-new 2 -o json --template qwen2.5", 0);
    Run own = talk(lines, "chat --model ./qwen --max-new 2 -o json", 0);
    assert_string_equal(named.out, own.out);
    assert_string_equal(named.err, "");
    run_free(&named);
    run_free(&own);
    r = talk("Hello\n", "chat --model ./qwen --max-new 2 -o json --system Brief. --template chatml",
             0);
    assert_non_null(strstr(r.err, "template \"chatml\": the model's own chat template is "
                                  "\"qwen2.5\""));
    assert_non_null(strstr(r.out, "\"n_prompt\": 16,"));
    run_free(&r);
    run_write("qwen/chat_template.jinja", "{{ messages }}");
    r = talk("Hello\n", "chat --model ./qwen --max-new 2 -o json", 0);
    assert_non_null(strstr(r.err, "is not a known one: questions are put plainly"));
    assert_non_null(strstr(r.out, "\"n_prompt\": 1,"));
    run_free(&r);
}

static void what_cannot_be_answered_is_said(void **state)
{
    (void)state;
    refused("", "chat --model abacus --system x", 2,
            "--system: the template \"plain\" has no place for it");
    refused("", "chat --model abacus --template llama3", 2,
            "template \"llama3\": the model's tokenizer has no token \"<|eot_id|>\"");
    refused("", "chat --model abacus --template x", 2, "or hold {question} exactly once");
    refused("", "chat --model abacus --stop ''", 2, "--stop: an empty text");
    refused("", "chat", 2, "--model: a model is missing");
    refused("fine\na\xff\n", "chat --model abacus --max-new 1", 3,
            "standard input line 2: the text is not UTF-8 at byte 1 (0xFF)");
    Text words = {0};
    for (int i = 0; i < 3000; i++) {
        text_add(&words, "apples ");
    }
    refused(text_string(&words), "chat --model abacus", 2,
            "leave no room in the model's context of ");
    text_release(&words);
    refused("x\n", "chat --model abacus > /dev/full", 1, "writing the result: ");
}

/* Half of the tokens are bytes: characters come in parts, and many never become whole. */
static void a_stream_is_what_its_ids_decode_to(void **state)
{
    (void)state;
    make_model("./bytes", "data/models/stories260k", 512, 256);
    for (int seed = 1; seed <= 6; seed++) {
        char command[256];
        const char *stop = seed > 3 ? "--stop e" : "";
        snprintf(command, sizeof command,
                 "generate --model ./bytes --prompt a --max-new 100 --seed %d %s > streamed", seed,
                 stop);
        Run r = run(command);
        assert_int_equal(r.code, 0);
        run_free(&r);
        snprintf(command, sizeof command,
                 "generate --model ./bytes --prompt a --max-new 100 --seed %d -o json %s > ids",
                 seed, stop);
        r = run(command);
        run_free(&r);
        char *json = run_slurp("ids"), *streamed = run_slurp("streamed");
        JsonDocument *document = parse(json, strlen(json) - 1);
        Text ids = {0};
        json_write(json_get(json_at(json_get(json_root(document), "samples"), 0), "ids"), &ids);
        run_write("ids", text_string(&ids));
        r = run("tokenize --model ./bytes --decode --no-special --file ids");
        size_t n = strlen(streamed) - 1; /* of the line's end */
        assert_true(n > 2 && n <= strlen(r.out));
        assert_memory_equal(streamed, r.out, n);
        if (*stop) {
            assert_true(r.out[n] == 'e' && !memchr(streamed, 'e', n));
        } else {
            assert_int_equal(n, strlen(r.out) - 1);
        }
        run_free(&r);
        free(json);
        free(streamed);
        text_release(&ids);
        json_free(document);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_question_is_answered_as_generate_answers_it),
        cmocka_unit_test(an_adapter_answers_beside_the_base_model),
        cmocka_unit_test(a_chat_model_is_spoken_to_in_its_own_template),
        cmocka_unit_test(what_cannot_be_answered_is_said),
        cmocka_unit_test(a_stream_is_what_its_ids_decode_to),
    };
    return cmocka_run_group_tests(tests, run_setup, run_teardown);
}
