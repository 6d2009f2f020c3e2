/* tokenizer.json against its oracles: the ids that llama.cpp and a reference forward pass wrote
 * down, the corpus of malformed files, and small files made here for each rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/file.h"
#include "core/json.h"
#include "core/random.h"
#include "core/tokenizer.h"

/* ---- helpers ------------------------------------------------------------------------------- */

/* path below ../shared, or the test is skipped, saying so. */
static const char *shared(char path[FILE_PATH_MAX], const char *name)
{
    const char *root = getenv("TINYLORA_SHARED");
    snprintf(path, FILE_PATH_MAX, "%s/%s", root ? root : SOURCE_DIR "/../shared", name);
    if (!file_exists(path)) {
        print_message("skipped: no %s\n", path);
        skip();
    }
    return path;
}

static Tokenizer *open_ok(const char *path)
{
    Tokenizer *tokenizer = NULL;
    Error error = {{0}};
    if (tokenizer_open(&tokenizer, path, &error)) {
        fail_msg("%s", error.message);
    }
    return tokenizer;
}

static TokenList encode_ok(const Tokenizer *tokenizer, const char *text, size_t n, unsigned flags)
{
    TokenList ids = {0};
    Error error = {{0}};
    if (tokenizer_encode(tokenizer, text, n, flags, &ids, &error)) {
        fail_msg("%s", error.message);
    }
    return ids;
}

/* Ids of text, written as "1 2 3". */
static void assert_ids(const Tokenizer *tokenizer, const char *text, unsigned flags,
                       const char *expected)
{
    TokenList ids = encode_ok(tokenizer, text, strlen(text), flags);
    Text got = {0};
    for (size_t i = 0; i < ids.n; i++) {
        text_printf(&got, "%s%d", i ? " " : "", ids.ids[i]);
    }
    assert_string_equal(text_string(&got), expected);
    text_release(&got);
    token_list_release(&ids);
}

static void assert_decodes(const Tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip,
                           const char *expected)
{
    Text got = {0};
    tokenizer_decode(tokenizer, ids, n, skip, &got);
    assert_string_equal(text_string(&got), expected);
    text_release(&got);
}

static char temporary[64];

static const char *write_temporary(const char *json)
{
    snprintf(temporary, sizeof temporary, "/tmp/test_tokenizer_%d.json", (int)getpid());
    Error error;
    assert_int_equal(file_write(temporary, json, strlen(json), &error), STATUS_OK);
    return temporary;
}

static Tokenizer *open_json(const char *json)
{
    Tokenizer *tokenizer = open_ok(write_temporary(json));
    unlink(temporary);
    return tokenizer;
}

static void assert_refused(const char *json, const char *message)
{
    Tokenizer *tokenizer = NULL;
    Error error = {{0}};
    Status status = tokenizer_open(&tokenizer, write_temporary(json), &error);
    unlink(temporary);
    if (status != STATUS_REFUSED || !strstr(error.message, message)) {
        fail_msg("status %d, \"%s\"; expected \"%s\"", (int)status, error.message, message);
    }
    assert_non_null(strstr(error.message, temporary));
    assert_null(tokenizer);
}

/* A character tokenizer with merges; `model` and `rest` are added to the objects. */
static const char *small(Text *json, const char *vocab, const char *merges, const char *model,
                         const char *rest)
{
    text_clear(json);
    text_printf(json,
                "{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":%s,\"merges\":%s%s},"
                "\"decoder\":{\"type\":\"Fuse\"}%s}",
                vocab, merges, model, rest);
    return text_string(json);
}

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
#define METASPACE ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\""
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

/* ---- texts ---------------------------------------------------------------------------------- */

static void a_text_that_cannot_be_encoded_says_why_and_adds_nothing(void **state)
{
    (void)state;
    Text json = {0};
    Error error;
    TokenList ids = {0};
    token_list_add(&ids, 42);
    Tokenizer *tokenizer = open_json(small(&json, "{\"a\":0,\"b\":1}", "[]", "", ""));
    assert_int_equal(tokenizer_encode(tokenizer, "a\xff", 2, 0, &ids, &error), STATUS_REFUSED);
    assert_string_equal(error.message, "the text is not UTF-8 at byte 1 (0xFF)");
    assert_int_equal(tokenizer_encode(tokenizer, "abz", 3, 0, &ids, &error), STATUS_REFUSED);
    assert_string_equal(
        error.message,
        "the tokenizer has no token for character U+007A of the text and no unk_token");
    assert_int_equal(ids.n, 1);
    token_list_release(&ids);
    tokenizer_free(tokenizer);
    text_release(&json);
}

static void the_lowest_rank_is_merged_first_and_the_leftmost_among_equals(void **state)
{
    (void)state;
    Text json = {0};
    Tokenizer *tokenizer =
        open_json(small(&json, "{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"bc\":4,\"aa\":5,\"aaa\":6}",
                        "[[\"b\",\"c\"],[\"a\",\"b\"],[\"a\",\"a\"],[\"aa\",\"a\"]]", "", ""));
    assert_ids(tokenizer, "abc", 0, "0 4");
    assert_ids(tokenizer, "ab", 0, "3");
    assert_ids(tokenizer, "aaaa", 0, "5 5");
    assert_ids(tokenizer, "aaaaa", 0, "5 6");
    tokenizer_free(tokenizer);
    text_release(&json);
}

static void unknown_characters_are_fused_when_the_file_says_so(void **state)
{
    (void)state;
    Text json = {0};
    const char *vocab = "{\"a\":0,\"?\":1}";
    Tokenizer *tokenizer = open_json(small(&json, vocab, "[]", ",\"unk_token\":\"?\"", ""));
    assert_ids(tokenizer, "xya\xc3\xa9z", 0, "1 1 0 1 1");
    tokenizer_free(tokenizer);
    tokenizer = open_json(small(&json, vocab, "[]", ",\"unk_token\":\"?\",\"fuse_unk\":true", ""));
    assert_ids(tokenizer, "xya\xc3\xa9z", 0, "1 0 1");
    tokenizer_free(tokenizer);
    text_release(&json);
}

static void added_tokens_are_found_longest_first_and_may_strip_space(void **state)
{
    (void)state;
    Text json = {0};
    Tokenizer *tokenizer = open_json(
        small(&json, "{\"a\":0,\" \":1,\"<\":2,\"i\":3,\">\":4}", "[]", "",
              ",\"added_tokens\":["
              "{\"id\":5,\"content\":\"<i\",\"special\":false,\"normalized\":false},"
              "{\"id\":6,\"content\":\"<i>\",\"special\":true},"
              "{\"id\":7,\"content\":\"i>\",\"normalized\":false},"
              "{\"id\":8,\"content\":\"<a>\",\"special\":true,\"lstrip\":true,\"rstrip\":true}]"));
    assert_ids(tokenizer, "<i>a<ia", TOKENIZER_PARSE_SPECIAL, "6 0 5 0");
    /* A special token that is not asked for stays text, with all that lies inside it. */
    assert_ids(tokenizer, "<i>a<ia", 0, "2 3 4 0 5 0");
    assert_ids(tokenizer, "a  <a>  a", TOKENIZER_PARSE_SPECIAL, "0 8 0");
    assert_ids(tokenizer, "<i>", TOKENIZER_PARSE_SPECIAL, "6");
    assert_ids(tokenizer, "", TOKENIZER_PARSE_SPECIAL, "");
    assert_int_equal(tokenizer_id(tokenizer, "<a>"), 8);
    assert_int_equal(tokenizer_id(tokenizer, "a"), 0);
    assert_int_equal(tokenizer_id(tokenizer, "zz"), -1);
    assert_string_equal(tokenizer_token(tokenizer, 6), "<i>");
    tokenizer_free(tokenizer);
    text_release(&json);
}

/* All 256 bytes as tokens of their own, ids 0 to 255, and what else is given. */
static Tokenizer *byte_level(const char *pre_tokenizer, const char *vocab, const char *merges,
                             const char *rest)
{
    Text json = {0};
    text_add(&json, "{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{");
    int n = 0;
    for (int byte = 0; byte < 256; byte++) {
        bool plain = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
        int c = plain ? byte : 0x100 + n++;
        text_printf(&json, "%s\"\\u%04x\":%d", byte ? "," : "", (unsigned)c, byte);
    }
    text_printf(&json,
                "%s},\"merges\":%s},\"pre_tokenizer\":%s,\"decoder\":{\"type\":\"ByteLevel\"}%s}",
                vocab, merges, pre_tokenizer, rest);
    Tokenizer *tokenizer = open_json(json.bytes);
    text_release(&json);
    return tokenizer;
}

static void byte_level_may_put_a_space_before_a_text(void **state)
{
    (void)state;
    Tokenizer *tokenizer = byte_level("{\"type\":\"ByteLevel\",\"add_prefix_space\":true}",
                                      ",\"\\u0120a\":256", "[[\"\\u0120\",\"a\"]]", "");
    assert_ids(tokenizer, "a", 0, "256");
    assert_ids(tokenizer, " a", 0, "256");
    assert_ids(tokenizer, "\na", 0, "32 10 97");
    assert_ids(tokenizer, "", 0, "");
    tokenizer_free(tokenizer);
}

static void whole_pieces_are_looked_up_where_merges_are_ignored(void **state)
{
    (void)state;
    const char *plain = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}";
    /* No merge makes "abc": without ignore_merges it is never used. */
    Tokenizer *tokenizer = byte_level(plain, ",\"ab\":256,\"abc\":257", "[[\"a\",\"b\"]]", "");
    assert_ids(tokenizer, "abc", 0, "256 99");
    assert_ids(tokenizer, "ab", 0, "256");
    tokenizer_free(tokenizer);
    tokenizer =
        byte_level(plain, ",\"ab\":256,\"abc\":257", "[[\"a\",\"b\"]],\"ignore_merges\":true", "");
    assert_ids(tokenizer, "abc", 0, "257");
    assert_ids(tokenizer, "abcd", 0, "256 99 100");
    tokenizer_free(tokenizer);
}

static void a_template_puts_its_tokens_around_the_text(void **state)
{
    (void)state;
    Text json = {0};
    const char *post = ",\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true},"
                       "{\"id\":2,\"content\":\"</s>\",\"special\":true}],"
                       "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
                       "{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
                       "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"
                       "{\"SpecialToken\":{\"id\":\"</s>\",\"type_id\":0}}],\"special_tokens\":{"
                       "\"<s>\":{\"id\":\"<s>\",\"ids\":[%d],\"tokens\":[\"<s>\"]},"
                       "\"</s>\":{\"id\":\"</s>\",\"ids\":[2],\"tokens\":[\"</s>\"]}}}";
    Text right = {0}, wrong = {0};
    text_printf(&right, post, 1);
    text_printf(&wrong, post, 2);
    Tokenizer *tokenizer = open_json(small(&json, "{\"a\":0}", "[]", "", right.bytes));
    assert_ids(tokenizer, "a", TOKENIZER_ADD_SPECIAL, "1 0 2");
    assert_ids(tokenizer, "", TOKENIZER_ADD_SPECIAL, "1 2");
    assert_ids(tokenizer, "a", 0, "0");
    assert_int_equal(tokenizer_bos(tokenizer), 1);
    tokenizer_free(tokenizer);
    assert_refused(small(&json, "{\"a\":0}", "[]", "", wrong.bytes),
                   "post_processor: special token \"<s>\" and its id do not agree");
    text_release(&right);
    text_release(&wrong);
    text_release(&json);
}

static void sentencepiece_steps_are_applied_in_order_and_taken_back(void **state)
{
    (void)state;
    Tokenizer *tokenizer = open_json(
        "{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{\"_\":0,\"a\":1,\"_a\":2},"
        "\"merges\":[\"_ a\"]},\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":["
        "{\"type\":\"Prepend\",\"prepend\":\"_\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"_\"}]},"
        "\"decoder\":{\"type\":\"Sequence\",\"decoders\":["
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"},\"content\":\" \"},"
        "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":1}]}}");
    assert_ids(tokenizer, "a a", 0, "2 2");
    assert_ids(tokenizer, " a  ", 0, "0 2 0 0");
    assert_ids(tokenizer, "", 0, "");
    const int32_t ids[] = {2, 2, 0, 0};
    assert_decodes(tokenizer, ids, 4, false, "a a ");
    tokenizer_free(tokenizer);
}

/* Marks that a merge puts after something else are no borders: the pair found in "a" and the mark
 * must not be cut. */
static void words_are_cut_only_where_no_merge_reaches_over_a_mark(void **state)
{
    (void)state;
    Text json = {0};
    const char *vocab = "{\"\\u2581\":0,\"a\":1,\"b\":2,\"\\u2581a\":3,\"a\\u2581\":4,"
                        "\"\\u2581\\u2581\":5}";
    Tokenizer *tokenizer =
        open_json(small(&json, vocab, "[[\"\\u2581\",\"\\u2581\"],[\"\\u2581\",\"a\"]]", "",
                        METASPACE ",\"prepend_scheme\":\"never\",\"split\":false}"));
    assert_ids(tokenizer, "a  a a", 0, "1 5 1 3");
    tokenizer_free(tokenizer);
    tokenizer = open_json(small(&json, vocab, "[[\"a\",\"\\u2581\"],[\"\\u2581\",\"a\"]]", "",
                                METASPACE ",\"prepend_scheme\":\"never\",\"split\":false}"));
    assert_ids(tokenizer, "a a  a", 0, "4 4 3");
    tokenizer_free(tokenizer);
    text_release(&json);
}

static void a_text_inside_another_gets_no_mark_before_it(void **state)
{
    (void)state;
    Text json = {0};
    Tokenizer *tokenizer = open_json(
        small(&json, "{\"\\u2581\":0,\"a\":1}", "[]", "",
              ",\"added_tokens\":[{\"id\":2,\"content\":\"<s>\",\"special\":true}]" METASPACE
              ",\"prepend_scheme\":\"first\"}"));
    assert_ids(tokenizer, "a a", 0, "0 1 0 1");
    assert_ids(tokenizer, " a", 0, "0 1");
    assert_ids(tokenizer, "a a", TOKENIZER_INSIDE, "1 0 1");
    assert_ids(tokenizer, "a<s>a", TOKENIZER_PARSE_SPECIAL, "0 1 2 1");
    tokenizer_free(tokenizer);
    text_release(&json);
}

static void a_missing_decoder_joins_with_spaces(void **state)
{
    (void)state;
    Tokenizer *tokenizer =
        open_json("{\"version\":\"1.0\",\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}");
    const int32_t ids[] = {0, 1, 9, 0};
    assert_decodes(tokenizer, ids, 4, false, "a b a");
    tokenizer_free(tokenizer);
}

/* Property: what comes out of decode is the text that went into encode (NFC apart, which these
 * texts do not touch), whatever its bytes; and long hostile runs take no longer than others. */
static void random_text_survives_the_way_there_and_back(void **state)
{
    (void)state;
    static const char *const atoms[] = {"a",
                                        "Z",
                                        "7",
                                        " ",
                                        "  ",
                                        "\n",
                                        "\r\n",
                                        "\t",
                                        "'s",
                                        "'RE",
                                        "'",
                                        "!",
                                        "\xc3\xa9",
                                        "\xe2\x80\x83",
                                        "\xe6\x97\xa5",
                                        "\xf0\x9f\x9a\x80",
                                        "\xc2\xa0",
                                        "\xd9\xa3",
                                        "ing",
                                        " the"};
    static const char *const files[] = {"qwen2.5", "llama3.2", "gpt2"};
    char path[FILE_PATH_MAX], file[64];
    const uint64_t seed = 20261120;
    print_message("seed %llu\n", (unsigned long long)seed);
    RandomKey key = {seed, RANDOM_DATA};
    for (uint32_t f = 0; f < 3; f++) {
        snprintf(file, sizeof file, "data/tokenizers/%s/tokenizer.json", files[f]);
        Tokenizer *tokenizer = open_ok(shared(path, file));
        for (uint32_t round = 0; round < 400; round++) {
            Text text = {0}, back = {0};
            int n = (int)(random_uniform(key, f, round, 0, 0) * 40);
            for (int i = 0; i < n; i++) {
                double u = random_uniform(key, f, round, 1, (uint32_t)i);
                text_add(&text, atoms[(int)(u * (sizeof atoms / sizeof *atoms))]);
            }
            TokenList ids = encode_ok(tokenizer, text_string(&text), text.n, 0);
            tokenizer_decode(tokenizer, ids.ids, ids.n, false, &back);
            assert_string_equal(text_string(&back), text_string(&text));
            token_list_release(&ids);
            text_release(&text);
            text_release(&back);
        }
        tokenizer_free(tokenizer);
    }
}

static void a_megabyte_of_one_thing_is_encoded(void **state)
{
    (void)state;
    static const char *const atoms[] = {
        " ", "a", "\n", "^", "0", "\xcc\x81", "\xf0\x9f\x9a\x80", "\xcc\x81\xcc\x96", "ab", " \n"};
    static const char *const files[] = {"qwen2.5", "llama2"};
    char path[FILE_PATH_MAX], file[64];
    for (int f = 0; f < 2; f++) {
        snprintf(file, sizeof file, "data/tokenizers/%s/tokenizer.json", files[f]);
        Tokenizer *tokenizer = open_ok(shared(path, file));
        for (size_t i = 0; i < sizeof atoms / sizeof *atoms; i++) {
            Text text = {0}, back = {0};
            while (text.n < 1 << 20) {
                text_add(&text, atoms[i]);
            }
            TokenList ids = encode_ok(tokenizer, text.bytes, text.n, 0);
            assert_true(ids.n > 0 && ids.n <= text.n + 1);
            tokenizer_decode(tokenizer, ids.ids, ids.n, false, &back);
            assert_int_equal(back.n, text.n);
            token_list_release(&ids);
            text_release(&text);
            text_release(&back);
        }
        tokenizer_free(tokenizer);
    }
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
        cmocka_unit_test(a_text_that_cannot_be_encoded_says_why_and_adds_nothing),
        cmocka_unit_test(the_lowest_rank_is_merged_first_and_the_leftmost_among_equals),
        cmocka_unit_test(unknown_characters_are_fused_when_the_file_says_so),
        cmocka_unit_test(added_tokens_are_found_longest_first_and_may_strip_space),
        cmocka_unit_test(byte_level_may_put_a_space_before_a_text),
        cmocka_unit_test(whole_pieces_are_looked_up_where_merges_are_ignored),
        cmocka_unit_test(a_template_puts_its_tokens_around_the_text),
        cmocka_unit_test(sentencepiece_steps_are_applied_in_order_and_taken_back),
        cmocka_unit_test(words_are_cut_only_where_no_merge_reaches_over_a_mark),
        cmocka_unit_test(a_text_inside_another_gets_no_mark_before_it),
        cmocka_unit_test(a_missing_decoder_joins_with_spaces),
        cmocka_unit_test(random_text_survives_the_way_there_and_back),
        cmocka_unit_test(a_megabyte_of_one_thing_is_encoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
