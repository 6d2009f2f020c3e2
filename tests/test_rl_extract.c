/* Extractors against the verdicts of the harnesses themselves, collected by running each on the
 * same strings, and against what their regular expressions read from awkward text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rl/extract.h"

static bool verdict(const char *name, const char *completion, const char *answer)
{
    const Extractor *extractor = extractor_find(name);
    assert_non_null(extractor);
    return extractor->correct(completion, strlen(completion), answer, strlen(answer));
}

static void verdicts_are_those_of_the_harnesses(void **state)
{
    (void)state;
    static const char *const columns[] = {"openai",      "strict",        "flexible",
                                          "verl_strict", "verl_flexible", "boxed"};
    static const struct {
        const char *completion, *answer, *verdicts; /* Y and N in the order of columns */
    } rows[] = {
        {"#### 18", "so it is\n#### 18", "YYYYYN"},
        {"#### 70,000", "#### 70,000", "YYYYNN"},
        {"#### 18.", "#### 18", "NYYNNN"},
        {"#### $18", "#### 18", "NNYNYN"},
        {"#### 18 dollars", "#### 18", "YYYYYN"},
        {"#### 12 then #### 18", "#### 18", "NNYYYN"},
        {"####18", "#### 18", "NNYNYN"},
        {"\\boxed{18}", "#### 18", "NNYNYY"},
        {"#### 18.00", "#### 18", "NNNNNN"},
        {"#### 18\n(This took 3 steps.)", "#### 18", "YYNYNN"},
        {"\\boxed{\\frac{36}{2}}", "#### 18", "NNNNNN"},
        {"", "#### 18", "NNNNNN"},
        {"#### ", "#### 18", "NNNNNN"},
        {"#### -3", "#### -3", "YYYYYN"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (size_t c = 0; c < 6; c++) {
            bool expected = rows[i].verdicts[c] == 'Y';
            if (verdict(columns[c], rows[i].completion, rows[i].answer) != expected) {
                fail_msg("\"%s\" by %s: expected %s", rows[i].completion, columns[c],
                         expected ? "right" : "wrong");
            }
        }
    }
}

static void reads(const char *name, const char *completion, const char *expected)
{
    Text text = {0};
    bool found = extractor_find(name)->read(&text, completion, strlen(completion));
    assert_int_equal(found, expected != NULL);
    if (expected) {
        assert_string_equal(text_string(&text), expected);
    }
    text_release(&text);
}

static void the_regular_expressions_are_read_as_python_reads_them(void **state)
{
    (void)state;
    reads("strict", "#### #### 5", "5");
    reads("strict", "##### -1,2.3x", "-1,2.3");
    reads("strict", "#### -", NULL);
    reads("strict", "####\t5", NULL);
    reads("strict", "#### x #### 7 #### 8", "7");
    reads("flexible", "costs $5", "$5");
    reads("flexible", "-$5", "-$5");
    reads("flexible", "a 5 b", "5");
    reads("flexible", "7 ... done.", "...");
    reads("flexible", "x--12", "-12");
    reads("flexible", "none. here,", NULL);
    reads("flexible", "3-4", "-4");
    reads("verl_strict", "#### 1 #### 2,000", "2000");
    reads("verl_flexible", "It is 2,000.", "2,000.");
    reads("verl_flexible", "It is 7 . .", "7");
    reads("verl_flexible", ". .", ".");
    reads("boxed", "\\boxed{a\n} \\boxed{b} \\boxed{c}", "b");
    reads("boxed", "\\boxed{", NULL);
    reads("boxed", "\\boxed{}", "");
    reads("openai", "#### 1,000", "1000");
}

static void verl_looks_at_the_last_300_characters_only(void **state)
{
    (void)state;
    char text[1200] = "#### 5";
    for (int i = 0; i < 294; i++) {
        strcat(text, "\xC3\xA9"); /* characters, not bytes */
    }
    reads("verl_strict", text, "5");
    strcat(text, "x");
    reads("verl_strict", text, NULL);
    reads("strict", text, "5");
}

static void a_reference_without_marker_is_compared_whole(void **state)
{
    (void)state;
    assert_true(verdict("strict", "#### 1,234", "1234"));
    assert_true(verdict("flexible", "it is 12", "12."));
    assert_true(verdict("openai", "#### 1,234", "1,234"));
    assert_false(verdict("flexible", "it is 12", "about 12"));
    assert_true(extract_exact_match("Yes.", 4, "#### yes", 8));
    assert_true(extract_exact_match("$1,0.", 5, "x\n#### y #### 10", 16));
    assert_true(extract_exact_match("7.\n", 3, "7\n", 2));
    assert_false(extract_exact_match("7..", 3, "7", 1));
    assert_true(extract_exact_match("", 0, ",$", 2));
}

static void all_extractors_are_listed_as_json(void **state)
{
    (void)state;
    Text text = {0};
    extract_all_json(&text, "#### 18.", 8);
    assert_string_equal(text.bytes,
                        "{\"strict\": \"18.\", \"flexible\": \"18.\", \"openai\": \"18.\", "
                        "\"verl_strict\": \"18.\", \"verl_flexible\": \"18.\", \"boxed\": null}");
    text_release(&text);
    assert_null(extractor_find("loose"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdicts_are_those_of_the_harnesses),
        cmocka_unit_test(the_regular_expressions_are_read_as_python_reads_them),
        cmocka_unit_test(verl_looks_at_the_last_300_characters_only),
        cmocka_unit_test(a_reference_without_marker_is_compared_whole),
        cmocka_unit_test(all_extractors_are_listed_as_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
