/* tokenizer.json against its oracles: the ids that llama.cpp and a reference forward pass wrote
 * down, the corpus of malformed files, and a sentence for each rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/json.h"
#include "tests/tokenizer_test.h"

/* ---- the ids that others wrote down --------------------------------------------------------- */

static void compare_vectors(const Tokenizer *tokenizer, const char *name)
{
    static const char divider[] = "\n__ggml_vocab_test__\n";
    char path[FILE_PATH_MAX], file[64];
    char *texts, *lines;
    size_t n_texts, n_lines;
    Error error;
    snprintf(file, sizeof file, "data/tokenizers/vectors/%s.inp", name);
    assert_int_equal(file_read(&texts, &n_texts, shared(path, file), 1 << 20, &error), 0);
    snprintf(file, sizeof file, "data/tokenizers/vectors/%s.out", name);
    assert_int_equal(file_read(&lines, &n_lines, shared(path, file), 1 << 20, &error), 0);
    char *text = texts, *line = lines;
    int n = 0;
    for (char *next; text; text = next, n++) {
        next = strstr(text, divider);
        size_t length = next ? (size_t)(next - text) : strlen(text);
        next = next ? next + strlen(divider) : NULL;
        TokenList ids = encode_ok(tokenizer, text, length, 0);
        char *end = strchr(line, '\n');
        size_t i = 0;
        for (char *stop; line < end; line = stop) {
            long id = strtol(line, &stop, 10);
            if (stop == line || stop > end) {
                break;
            }
            if (i >= ids.n || ids.ids[i] != id) {
                fail_msg("%s, text %d (\"%.*s\"), token %zu: %d, expected %ld", name, n,
                         (int)length, text, i, i < ids.n ? ids.ids[i] : -1, id);
            }
            i++;
        }
        assert_int_equal(i, ids.n);
        line = end + 1;
        /* And back: NFC changes nothing in these texts but for one that is not composed. */
        Text decoded = {0};
        tokenizer_decode(tokenizer, ids.ids, ids.n, false, &decoded);
        assert_int_equal(decoded.n, length);
        assert_memory_equal(text_string(&decoded), text, length);
        text_release(&decoded);
        token_list_release(&ids);
    }
    assert_int_equal(n, 47);
    free(texts);
    free(lines);
}

static void vectors(const char *folder, const char *name)
{
    char path[FILE_PATH_MAX], file[64];
    snprintf(file, sizeof file, "data/tokenizers/%s/tokenizer.json", folder);
    Tokenizer *tokenizer = open_ok(shared(path, file));
    compare_vectors(tokenizer, name);
    tokenizer_free(tokenizer);
}

static void qwen2_vectors_are_encoded_as_llama_cpp_does(void **state)
{
    (void)state;
    vectors("qwen2.5", "qwen2");
}

static void smollm_vectors_are_encoded_as_llama_cpp_does(void **state)
{
    (void)state;
    vectors("smollm2", "smollm");
}

static void llama_vectors_are_encoded_as_llama_cpp_does(void **state)
{
    (void)state;
    vectors("llama2", "llama-spm");
}

/* The file adds tokens for runs of spaces that the vectors do not know of: taken out here. */
static void gpt2_vectors_are_encoded_as_llama_cpp_does(void **state)
{
    (void)state;
    char path[FILE_PATH_MAX], *json;
    size_t n;
    Error error;
    shared(path, "data/tokenizers/gpt2/tokenizer.json");
    assert_int_equal(file_read(&json, &n, path, 1 << 28, &error), 0);
    char *from = strstr(json, "\"added_tokens\""), *to = strstr(json, "\"normalizer\"");
    assert_true(from && to && from < to);
    memset(from, ' ', (size_t)(to - from));
    Tokenizer *tokenizer = open_json(json);
    compare_vectors(tokenizer, "gpt-2");
    tokenizer_free(tokenizer);
    free(json);
}

static void golden(const char *model)
{
    char path[FILE_PATH_MAX], file[96];
    snprintf(file, sizeof file, "data/models/%s/tokenizer.json", model);
    Tokenizer *tokenizer = open_ok(shared(path, file));
    snprintf(file, sizeof file, "data/models/%s/golden.json", model);
    JsonDocument *document;
    Error error;
    assert_int_equal(json_read(&document, shared(path, file), 1 << 20, &error), STATUS_OK);
    const Json *cases = json_get(json_root(document), "cases");
    assert_true(json_size(cases) > 0);
    for (size_t i = 0; i < json_size(cases); i++) {
        const Json *expected = json_get(json_at(cases, i), "ids");
        size_t n;
        const char *text = json_string(json_get(json_at(cases, i), "text"), &n);
        TokenList ids = encode_ok(tokenizer, text, n, TOKENIZER_ADD_SPECIAL);
        assert_int_equal(ids.n, json_size(expected));
        for (size_t j = 0; j < ids.n; j++) {
            int64_t id;
            assert_true(json_int64(json_at(expected, j), &id));
            assert_int_equal(ids.ids[j], id);
        }
        Text decoded = {0};
        tokenizer_decode(tokenizer, ids.ids, ids.n, true, &decoded);
        assert_string_equal(text_string(&decoded), text);
        text_release(&decoded);
        token_list_release(&ids);
    }
    assert_int_equal(tokenizer_bos(tokenizer), 1);
    json_free(document);
    tokenizer_free(tokenizer);
}

static void golden_ids_of_trained_models_are_met(void **state)
{
    (void)state;
    golden("stories260k");
    golden("babyllama-105");
}

static void a_character_tokenizer_without_normalizer_takes_special_tokens_on_request(void **state)
{
    (void)state;
    char path[FILE_PATH_MAX];
    Tokenizer *tokenizer = open_ok(shared(path, "data/models/digit-completion/tokenizer.json"));
    assert_ids(tokenizer, "1,2:12,3S", TOKENIZER_PARSE_SPECIAL, "5 14 6 15 5 6 14 7 0");
    assert_ids(tokenizer, "1x", 0, "5 3"); /* the unknown token */
    const int32_t ids[] = {5, 14, 6, 1};
    assert_decodes(tokenizer, ids, 4, false, "1,2E");
    assert_decodes(tokenizer, ids, 4, true, "1,2");
    assert_int_equal(tokenizer_bos(tokenizer), -1);
    tokenizer_free(tokenizer);
}

/* ---- malformed files ------------------------------------------------------------------------ */

static void every_malformed_file_gets_its_verdict(void **state)
{
    (void)state;
    char path[FILE_PATH_MAX];
    JsonDocument *manifest;
    Error error;
    assert_int_equal(json_read(&manifest, shared(path, "badfiles/manifest.json"), 1 << 24, &error),
                     STATUS_OK);
    const Json *cases = json_get(json_root(manifest), "cases");
    int n = 0;
    for (size_t i = 0; i < json_size(cases); i++) {
        const Json *item = json_at(cases, i);
        if (strcmp(json_string(json_get(item, "kind"), NULL), "tokenizer") != 0) {
            continue;
        }
        char file[256];
        snprintf(file, sizeof file, "badfiles/%s", json_string(json_get(item, "file"), NULL));
        Tokenizer *tokenizer = NULL;
        Error why = {{0}};
        Status status = tokenizer_open(&tokenizer, shared(path, file), &why);
        /* All of them are paired with a control whose vocab_size is 320. */
        status = status ? status : tokenizer_check_vocab(tokenizer, 320, &why);
        bool accept = strcmp(json_string(json_get(item, "expected"), NULL), "accept") == 0;
        if (status != (accept ? STATUS_OK : STATUS_REFUSED)) {
            fail_msg("%s: status %d, %s", file, (int)status, why.message);
        }
        if (!accept) {
            assert_non_null(strstr(why.message, "tk_"));
        }
        tokenizer_free(tokenizer);
        n++;
    }
    assert_true(n >= 44);
    json_free(manifest);
}

static void each_rule_of_the_file_is_told_by_its_sentence(void **state)
{
    (void)state;
    Text json = {0};
    const char *ab = "{\"a\":0,\"b\":1,\"ab\":2}";
    assert_refused("[]", "the file is an array, expected an object");
    assert_refused("{\"version\":\"2.0\"}", "version is \"2.0\", expected \"1.0\"");
    assert_refused("{\"version\":\"1.0\\u0000\"}", "version is \"\", expected \"1.0\"");
    assert_refused(small(&json, ab, "[]", ",\"unk_token\":\"a\\u0000\"", ""),
                   "model.unk_token \"\" is not in model.vocab");
    assert_refused(small(&json, "{}", "[]", "", ""), "model.vocab is not an object with tokens");
    assert_refused(small(&json, ab, "{}", "", ""), "model.merges is an object, expected an array");
    assert_refused(small(&json, "{\"a\":4194304}", "[]", "", ""),
                   "model.vocab: id of \"a\" is not an integer from 0 to 4194303");
    assert_refused(small(&json, "{\"a\":0,\"b\":0}", "[]", "", ""),
                   "model.vocab: \"a\" and \"b\" share id 0");
    assert_refused(small(&json, ab, "[\"a b\",[\"a\",\"b\"]]", "", ""),
                   "model.merges[1]: is an array, the first merge is a string");
    assert_refused(small(&json, ab, "[\"b a\"]", "", ""),
                   "model.merges[0]: \"ba\" is not in model.vocab");
    assert_refused(small(&json, ab, "[\"a  b\"]", "", ""),
                   "model.merges[0]: \"a  b\" has more than one space");
    assert_refused(small(&json, ab, "[\"a b\",\"a b\"]", "", ""), "\"a b\" is given twice");
    assert_refused(small(&json, ab, "[]", ",\"fuse_unk\":1", ""),
                   "model: fuse_unk is a number, expected true or false");
    assert_refused(small(&json, ab, "[]", ",\"end_of_word_suffix\":\"</w>\"", ""),
                   "model.end_of_word_suffix is not supported");
    assert_refused(small(&json, ab, "[]", ",\"byte_fallback\":true", ""),
                   "model.vocab: no token for byte 0x00, which byte_fallback needs");
    assert_refused(small(&json, ab, "[]", "", ",\"normalizer\":{\"type\":\"NFKC\"}"),
                   "normalizer: type \"NFKC\" is not supported");
    assert_refused(small(&json, ab, "[]", "", ",\"pre_tokenizer\":{\"type\":\"Whitespace\"}"),
                   "pre_tokenizer: type \"Whitespace\" is not supported");
    assert_refused(small(&json, ab, "[]", "", ",\"pre_tokenizer\":{\"type\":\"Sequence\"}"),
                   "pre_tokenizer: a Sequence without an array \"pretokenizers\"");
    assert_refused(small(&json, ab, "[]", "", ",\"pre_tokenizer\":{\"type\":\"ByteLevel\"}"),
                   "pre_tokenizer is ByteLevel but decoder is not");
    assert_refused(small(&json, ab, "[]", "",
                         ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\"}"),
                   "pre_tokenizer Metaspace: replacement is not \"\xe2\x96\x81\"");
    assert_refused(small(&json, ab, "[]", "", METASPACE ",\"prepend_scheme\":\"last\"}"),
                   "pre_tokenizer Metaspace: prepend_scheme is none of always, first, never");
    assert_refused(small(&json, ab, "[]", "",
                         METASPACE ",\"prepend_scheme\":\"first\",\"add_prefix_space\":false}"),
                   "add_prefix_space false, but prepend_scheme \"first\"");
    assert_refused(small(&json, ab, "[]", "",
                         ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a+\"},"
                         "\"behavior\":\"Isolated\"}"),
                   "the pattern \"a+\" is none of those known (GPT-2, Qwen2, Llama 3)");
    assert_refused(small(&json, ab, "[]", "",
                         ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a+\"},"
                         "\"behavior\":\"Isolated\",\"invert\":true}"),
                   "behavior Isolated, or Removed with invert true");
    assert_refused(small(&json, ab, "[]", "", ",\"post_processor\":{\"type\":\"BertProcessing\"}"),
                   "post_processor: type \"BertProcessing\" is not supported");
    assert_refused(small(&json, ab, "[]", "",
                         ",\"added_tokens\":[{\"id\":3,\"content\":\"x\",\"single_word\":true}]"),
                   "added_tokens[0]: \"x\": single_word is not supported");
    assert_refused(small(&json, ab, "[]", "", ",\"added_tokens\":[{\"id\":5,\"content\":\"x\"}]"),
                   "added_tokens[0]: \"x\": id 5, expected 3");
    assert_refused(small(&json, ab, "[]", "", ",\"added_tokens\":[{\"id\":0,\"content\":\"ab\"}]"),
                   "added_tokens[0]: \"ab\": id 0, expected 2");
    assert_refused(small(&json, ab, "[]", "", ",\"added_tokens\":[{\"id\":3,\"content\":\"\"}]"),
                   "content has 0 bytes");
    assert_refused(small(&json, ab, "[]", "",
                         ",\"added_tokens\":[{\"id\":2,\"content\":\"ab\"},"
                         "{\"id\":2,\"content\":\"ab\"}]"),
                   "added_tokens[1]: id 2 is given twice");
    text_release(&json);
}

static void an_id_beyond_the_models_vocabulary_is_refused(void **state)
{
    (void)state;
    Text json = {0};
    Error error;
    Tokenizer *tokenizer = open_json(small(&json, "{\"a\":0,\"zz\":7}", "[]", "", ""));
    assert_int_equal(tokenizer_size(tokenizer), 8);
    assert_int_equal(tokenizer_check_vocab(tokenizer, 8, &error), STATUS_OK);
    assert_int_equal(tokenizer_check_vocab(tokenizer, 7, &error), STATUS_REFUSED);
    assert_string_equal(error.message,
                        "the tokenizer's largest id is 7 (\"zz\"), but vocab_size is 7");
    assert_null(tokenizer_token(tokenizer, 3));
    assert_null(tokenizer_token(tokenizer, -1));
    assert_null(tokenizer_token(tokenizer, 8));
    tokenizer_free(tokenizer);
    text_release(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen2_vectors_are_encoded_as_llama_cpp_does),
        cmocka_unit_test(smollm_vectors_are_encoded_as_llama_cpp_does),
        cmocka_unit_test(llama_vectors_are_encoded_as_llama_cpp_does),
        cmocka_unit_test(gpt2_vectors_are_encoded_as_llama_cpp_does),
        cmocka_unit_test(golden_ids_of_trained_models_are_met),
        cmocka_unit_test(a_character_tokenizer_without_normalizer_takes_special_tokens_on_request),
        cmocka_unit_test(every_malformed_file_gets_its_verdict),
        cmocka_unit_test(each_rule_of_the_file_is_told_by_its_sentence),
        cmocka_unit_test(an_id_beyond_the_models_vocabulary_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
