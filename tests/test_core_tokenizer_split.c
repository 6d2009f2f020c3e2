/* The scanners against the pieces that the regular expressions give (checked with Oniguruma). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/tokenizer_private.h"

static void assert_pieces(SplitRule rule, const char *text, const char *expected)
{
    Text got = {0};
    for (size_t i = 0, n = strlen(text); i < n;) {
        size_t length = tokenizer_split_next(rule, text + i, n - i);
        assert_true(length > 0 && length <= n - i);
        text_printf(&got, "%s%.*s", i ? "|" : "", (int)length, text + i);
        i += length;
    }
    assert_string_equal(text_string(&got), expected);
    text_release(&got);
}

static void gpt2_pieces(void **state)
{
    (void)state;
    assert_pieces(SPLIT_GPT2, "Hello world, it's 2026!", "Hello| world|,| it|'s| 2026|!");
    assert_pieces(SPLIT_GPT2, "we'll you've I'M", "we|'ll| you|'ve| I|'|M");
    assert_pieces(SPLIT_GPT2, "'store", "'s|tore");
    assert_pieces(SPLIT_GPT2, "a  b   c", "a| | b|  | c");
    assert_pieces(SPLIT_GPT2, "a \n b", "a| \n| b");
    assert_pieces(SPLIT_GPT2, "a\tb \t", "a|\t|b| \t");
    assert_pieces(SPLIT_GPT2, " ...?! x1", " ...?!| x|1");
    assert_pieces(SPLIT_GPT2, "\xc3\xa9t\xc3\xa9 \xc2\xbd\xe2\x85\xa7",
                  "\xc3\xa9t\xc3\xa9| \xc2\xbd\xe2\x85\xa7");
    assert_pieces(SPLIT_GPT2, "a\xc2\xa0 b", "a|\xc2\xa0| b");
    assert_pieces(SPLIT_GPT2, "e\xcc\x81", "e|\xcc\x81");
}

static void qwen2_pieces(void **state)
{
    (void)state;
    assert_pieces(SPLIT_QWEN2, "a 123.45", "a| |1|2|3|.|4|5");
    assert_pieces(SPLIT_QWEN2, "I'M YOU'LL it'\xc5\xbf x", "I|'M| YOU|'LL| it|'\xc5\xbf| x");
    assert_pieces(SPLIT_QWEN2, "'MX '\xc5\xbfx 'LLx", "'M|X| '|\xc5\xbfx| '|LLx");
    assert_pieces(SPLIT_QWEN2, "I'MX'\xc5\xbfx'LLx", "I|'M|X|'\xc5\xbf|x|'LL|x");
    assert_pieces(SPLIT_QWEN2, "'rex 'x", "'re|x| '|x");
    assert_pieces(SPLIT_QWEN2, "\tword \xe2\x80\x9cquote $cash",
                  "\tword| \xe2\x80\x9c|quote| $|cash");
    assert_pieces(SPLIT_QWEN2, "\nword", "\n|word");
    assert_pieces(SPLIT_QWEN2, "end.\n\n  next", "end|.\n\n| | next");
    assert_pieces(SPLIT_QWEN2, "a \n \r\n  b", "a| \n \r\n| | b");
    assert_pieces(SPLIT_QWEN2, "a  ", "a|  ");
    assert_pieces(SPLIT_QWEN2, "x  !y", "x| | !|y");
    assert_pieces(SPLIT_QWEN2, " \xe3\x80\x80\xe6\x97\xa5", " |\xe3\x80\x80\xe6\x97\xa5");
}

static void llama3_takes_digits_by_three(void **state)
{
    (void)state;
    assert_pieces(SPLIT_LLAMA3, "a 1234567 x", "a| |123|456|7| x");
    assert_pieces(SPLIT_LLAMA3, "12ab", "12|ab");
}

static void digits_are_cut_out(void **state)
{
    (void)state;
    assert_pieces(SPLIT_DIGITS, "a 12b\xc2\xbd", "a |1|2|b|\xc2\xbd");
    assert_pieces(SPLIT_DIGIT_RUNS, "a 12b\xc2\xbd", "a |12|b|\xc2\xbd");
}

static void marks_begin_pieces_each_or_by_runs(void **state)
{
    (void)state;
#define M TOKENIZER_MARK
    assert_pieces(SPLIT_MARKS, M "a" M M "b\xe2\x96\x82" M, M "a|" M "|" M "b\xe2\x96\x82|" M);
    assert_pieces(SPLIT_MARK_RUNS, M M "a" M M "b" M, M M "a|" M M "b|" M);
    assert_pieces(SPLIT_MARK_RUNS, "a\xe2\x96\x80" M "\xe2", "a\xe2\x96\x80|" M "\xe2");
    assert_pieces(SPLIT_MARKS, "ab", "ab");
#undef M
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_pieces),
        cmocka_unit_test(qwen2_pieces),
        cmocka_unit_test(llama3_takes_digits_by_three),
        cmocka_unit_test(digits_are_cut_out),
        cmocka_unit_test(marks_begin_pieces_each_or_by_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
