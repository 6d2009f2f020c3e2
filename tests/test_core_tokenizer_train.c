/* The trainer: what it learns, that its file is a tokenizer, what it refuses. */
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
#include "core/tokenizer.h"
#include "core/tokenizer_train.h"

static char path[64];

static int make_path(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/test_tokenizer_train_%d.json", (int)getpid());
    return 0;
}

static int remove_path(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static Tokenizer *train(const char *const *texts, size_t n_texts, TokenizerTraining training)
{
    Error error = {{0}};
    Tokenizer *tokenizer = NULL;
    if (tokenizer_train(path, texts, n_texts, &training, &error) ||
        tokenizer_open(&tokenizer, path, &error)) {
        fail_msg("%s", error.message);
    }
    return tokenizer;
}

static void assert_ids(const Tokenizer *tokenizer, const char *text, unsigned flags,
                       const int32_t *expected, size_t n)
{
    TokenList ids = {0};
    Error error = {{0}};
    Text back = {0};
    assert_int_equal(tokenizer_encode(tokenizer, text, strlen(text), flags, &ids, &error), 0);
    assert_int_equal(ids.n, n);
    assert_memory_equal(ids.ids, expected, n * sizeof *expected);
    tokenizer_decode(tokenizer, ids.ids, ids.n, false, &back);
    assert_string_equal(text_string(&back), text);
    text_release(&back);
    token_list_release(&ids);
}

/* Sennrich et al. 2016, section 3.2: low x 5, lower x 2, newest x 6, widest x 3. */
static void the_most_frequent_pair_is_merged_first(void **state)
{
    (void)state;
    static const char *const texts[] = {"low",    "low",    "low",    "low",    "low",    "lower",
                                        "lower",  "newest", "newest", "newest", "newest", "newest",
                                        "newest", "widest", "widest", "widest"};
    Tokenizer *tokenizer = train(texts, 16, (TokenizerTraining){.vocab_size = 260});
    /* e+s and s+t occur 9 times each: the smaller ids first, then es+t, then l+o (7), lo+w. */
    assert_string_equal(tokenizer_token(tokenizer, 256), "es");
    assert_string_equal(tokenizer_token(tokenizer, 257), "est");
    assert_string_equal(tokenizer_token(tokenizer, 258), "lo");
    assert_string_equal(tokenizer_token(tokenizer, 259), "low");
    const int32_t lowest[] = {259, 257};
    assert_ids(tokenizer, "lowest", 0, lowest, 2);
    tokenizer_free(tokenizer);
}

static void special_tokens_have_the_last_ids(void **state)
{
    (void)state;
    static const char *const special[] = {"<|endoftext|>", "<|pad|>"};
    static const char *const texts[] = {"ab ab ab"};
    Tokenizer *tokenizer =
        train(texts, 1,
              (TokenizerTraining){.vocab_size = 262, .special_tokens = special, .n_special = 2});
    /* ab, then " ab": no pair occurs twice after that, so the vocabulary stays smaller. */
    assert_int_equal(tokenizer_size(tokenizer), 260);
    assert_int_equal(tokenizer_id(tokenizer, "<|endoftext|>"), 258);
    assert_int_equal(tokenizer_id(tokenizer, "<|pad|>"), 259);
    const int32_t ids[] = {256, 258};
    assert_ids(tokenizer, "ab<|endoftext|>", TOKENIZER_PARSE_SPECIAL, ids, 2);
    tokenizer_free(tokenizer);
}

static void digits_stay_single_on_request(void **state)
{
    (void)state;
    static const char *const texts[] = {"12 + 12 = 24", "12 12 12"};
    Tokenizer *tokenizer =
        train(texts, 2, (TokenizerTraining){.vocab_size = 300, .single_digits = true});
    const int32_t ids[] = {'1', '2', '2'};
    assert_ids(tokenizer, "122", 0, ids, 3);
    tokenizer_free(tokenizer);
    tokenizer = train(texts, 2, (TokenizerTraining){.vocab_size = 300});
    const int32_t merged[] = {256, '2'};
    assert_ids(tokenizer, "122", 0, merged, 2);
    tokenizer_free(tokenizer);
}

static void the_order_of_the_texts_does_not_matter(void **state)
{
    (void)state;
    static const char *const one[] = {"the cat sat on the mat",
                                      "a cat's \xc3\xa9t\xc3\xa9, 12 mats"};
    static const char *const two[] = {"a cat's \xc3\xa9t\xc3\xa9, 12 mats",
                                      "the cat sat on the mat"};
    char *first, *second;
    size_t n_first, n_second;
    Error error;
    tokenizer_free(train(one, 2, (TokenizerTraining){.vocab_size = 280}));
    assert_int_equal(file_read(&first, &n_first, path, 1 << 20, &error), STATUS_OK);
    tokenizer_free(train(two, 2, (TokenizerTraining){.vocab_size = 280}));
    assert_int_equal(file_read(&second, &n_second, path, 1 << 20, &error), STATUS_OK);
    assert_int_equal(n_first, n_second);
    assert_memory_equal(first, second, n_first);
    free(first);
    free(second);
}

static void what_cannot_be_trained_is_said(void **state)
{
    (void)state;
    static const char *const twice[] = {"<s>", "<s>"};
    static const char *const word[] = {"ab"};
    static const char *const bad[] = {"a\xff"};
    static const char *const texts[] = {"ab ab"};
    static const struct {
        const char *const *texts;
        TokenizerTraining training;
        Status status;
        const char *message;
    } cases[] = {
        {texts, {.vocab_size = 255}, STATUS_USAGE, "a vocabulary of 255 with 0 special tokens"},
        {texts,
         {.vocab_size = 256, .special_tokens = twice, .n_special = 1},
         STATUS_USAGE,
         "between 257"},
        {texts,
         {.vocab_size = 300, .special_tokens = twice, .n_special = 2},
         STATUS_USAGE,
         "special token \"<s>\" is given twice"},
        {texts,
         {.vocab_size = 300, .special_tokens = word, .n_special = 1},
         STATUS_REFUSED,
         "the texts hold the special token \"ab\" as a word"},
        {bad, {.vocab_size = 300}, STATUS_REFUSED, "text 0 is not UTF-8 at byte 1"},
    };
    unlink(path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error error = {{0}};
        assert_int_equal(tokenizer_train(path, cases[i].texts, 1, &cases[i].training, &error),
                         cases[i].status);
        assert_non_null(strstr(error.message, cases[i].message));
        assert_false(file_exists(path));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_most_frequent_pair_is_merged_first),
        cmocka_unit_test(special_tokens_have_the_last_ids),
        cmocka_unit_test(digits_stay_single_on_request),
        cmocka_unit_test(the_order_of_the_texts_does_not_matter),
        cmocka_unit_test(what_cannot_be_trained_is_said),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
