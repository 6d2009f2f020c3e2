/* What texts become by each step that a tokenizer.json may ask for, and back: small files made
 * here, random texts, a megabyte of one thing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/random.h"
#include "tests/tokenizer_test.h"

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
    static const char post[] =
        ",\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true},"
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
