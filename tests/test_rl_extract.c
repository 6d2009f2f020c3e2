/* Extractors against the verdicts of the harnesses themselves, collected by running each on the
 * same strings, and against what their regular expressions read from awkward text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/file.h"
#include "core/json.h"
#include "core/sha256.h"
#include "rl/dataset.h"
#include "rl/extract.h"
#include "rl/latex.h"
#include "tests/extract_golden.h"
#include "tests/shared.h"

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
    reads("boxed", "\\boxed{a\n} \\boxed{b} \\boxed{c}", "c");
    reads("boxed", "so \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}");
    reads("boxed", "\\boxed{1} \\boxed{2", NULL);
    reads("boxed", "\\boxed{", NULL);
    reads("boxed", "\\boxed", NULL);
    reads("boxed", "\\boxed{}", "");
    reads("boxed", "$\\boxed 7$ and $8$", "7");
    reads("boxed", "\\fbox{3}", NULL);
    reads("openai", "#### 1,000", "1000");
}

static bool same_latex(const char *a, const char *b)
{
    return latex_equal(a, strlen(a), b, strlen(b));
}

static void latex_is_made_alike_as_math_does(void **state)
{
    (void)state;
    assert_true(same_latex("\\dfrac{1}{2}", "\\frac12"));
    assert_true(same_latex("1/2", "0.5"));
    assert_true(same_latex("\\sqrt3", "\\sqrt{3}"));
    assert_true(same_latex("x = 5", "5"));
    assert_true(same_latex("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\frac{\\pi}{2})"));
    assert_true(same_latex("10\\%", "10"));
    assert_true(same_latex("12\\text{ cm}", "12"));
    assert_true(same_latex("90^\\circ", "90"));
    assert_true(same_latex(".5", "\\frac{1}{2}"));
    assert_false(same_latex("36/2", "18"));
    assert_false(same_latex("70,000", "70000"));
    assert_false(same_latex("x/2", "x /2")); /* no numbers: compared as they are */
    assert_false(same_latex("", "0"));
    assert_true(same_latex("", ""));
    assert_true(same_latex("\\frac", "\\frac"));
}

static void verl_is_its_strict_method(void **state)
{
    (void)state;
    assert_ptr_equal(extractor_find("verl"), extractor_find("verl_strict"));
    assert_string_equal(extractor_alias("verl"), "verl_strict");
    assert_string_equal(extractor_alias("boxed"), "boxed");
}

/* ---- against the rules in Python, figures kept (tests/extract_golden.py) ---- */

typedef struct {
    Sha256 *digest;
    int n_rows, n_correct;
} Tally;

static void count_row(Tally *tally, const Extractor *extractor, const char *completion,
                      const char *answer)
{
    Text read = {0}, line = {0};
    bool found = extractor->read(&read, completion, strlen(completion));
    bool correct = extractor->correct(completion, strlen(completion), answer, strlen(answer));
    text_add(&line, found ? "=" : "-");
    text_append(&line, text_string(&read), read.n);
    text_add(&line, correct ? "\n1\n" : "\n0\n");
    sha256_update(tally->digest, line.bytes, line.n);
    tally->n_rows++;
    tally->n_correct += correct;
    text_release(&read);
    text_release(&line);
}

/* "A: 5" at the end of a model's solution becomes "#### 5" or "\boxed{5}". */
static void rewrite(Text *out, const char *solution, const char *form)
{
    for (const char *at = solution; *at;) {
        size_t n = 1;
        if (strncmp(at, "A: ", 3) || !*form) {
            text_append(out, at, 1);
        } else if (!strcmp(form, " ####")) {
            text_add(out, "#### ");
            n = 3;
        } else {
            n = 3 + strcspn(at + 3, "\n");
            text_printf(out, "\\boxed{%.*s}", (int)n - 3, at + 3);
        }
        at += n;
    }
    text_append(out, "", 0);
}

static void count_solutions(Tally *tally, const Extractor *extractor, const char *set,
                            const Dataset *answers, char **lines)
{
    char model[32] = "";
    size_t n = strcspn(set, " ");
    memcpy(model, set, n);
    for (int i = 0; i < answers->n_rows; i++) {
        JsonDocument *document;
        Text completion = {0};
        assert_int_equal(json_parse(&document, lines[i], strlen(lines[i]), NULL), STATUS_OK);
        const Json *root = json_root(document);
        rewrite(&completion, json_string(json_get(json_get(root, model), "solution"), NULL),
                set + n);
        count_row(tally, extractor, completion.bytes, answers->rows[i].answer);
        text_release(&completion);
        json_free(document);
    }
}

static void count_math(Tally *tally, const Extractor *extractor, const char *set,
                       const Dataset *maths)
{
    int shift = strchr(set, ' ') ? 1 : 0;
    for (int i = 0; i < maths->n_rows; i++) {
        count_row(tally, extractor, maths->rows[i].question,
                  maths->rows[(i + shift) % maths->n_rows].answer);
    }
}

static void count_table(Tally *tally, const Extractor *extractor)
{
    static const char *const completions[] = {"#### 18",
                                              "#### 70,000",
                                              "#### 18.",
                                              "#### $18",
                                              "#### 18 dollars",
                                              "#### 12 then #### 18",
                                              "####18",
                                              "\\boxed{18}",
                                              "#### 18.00",
                                              "#### 18\n(This took 3 steps.)",
                                              "\\boxed{\\frac{36}{2}}",
                                              "",
                                              "#### ",
                                              "#### -3"};
    static const char *const answers[] = {"#### 18", "#### 70,000", "#### -3", "18"};
    for (size_t i = 0; i < sizeof completions / sizeof *completions; i++) {
        for (size_t j = 0; j < sizeof answers / sizeof *answers; j++) {
            count_row(tally, extractor, completions[i], answers[j]);
        }
    }
}

static void every_row_of_real_solutions_agrees_with_the_rules_in_python(void **state)
{
    (void)state;
    char solutions[4096], test[4096], math[4096];
    shared_path(solutions, "data/gsm8k/example_model_solutions.jsonl");
    shared_path(test, "data/gsm8k/test.jsonl");
    shared_path(math, "data/math/math_oai_test.jsonl");
    Dataset answers, maths;
    assert_int_equal(dataset_open(&answers, test, "question", "answer", NULL), STATUS_OK);
    assert_int_equal(dataset_open(&maths, math, "solution", "answer", NULL), STATUS_OK);
    FILE *file = fopen(solutions, "r");
    char **lines = calloc((size_t)answers.n_rows, sizeof *lines);
    assert_true(file && lines);
    for (int i = 0; i < answers.n_rows; i++) {
        size_t capacity = 0;
        assert_true(getline(&lines[i], &capacity, file) > 0);
    }
    fclose(file);
    for (size_t g = 0; g < sizeof golden / sizeof *golden; g++) {
        char hex[SHA256_HEX_SIZE];
        const Extractor *extractor = extractor_find(golden[g].extractor);
        Tally tally = {.digest = sha256_new()};
        if (!strcmp(golden[g].set, "table")) {
            count_table(&tally, extractor);
        } else if (!strncmp(golden[g].set, "math", 4)) {
            count_math(&tally, extractor, golden[g].set, &maths);
        } else {
            count_solutions(&tally, extractor, golden[g].set, &answers, lines);
        }
        sha256_finish(tally.digest, hex);
        if (tally.n_rows != golden[g].n_rows || tally.n_correct != golden[g].n_correct ||
            strncmp(hex, golden[g].sha256, 16)) {
            fail_msg("%s by %s: %d of %d right, sha256 %.16s; Python: %d of %d, %s", golden[g].set,
                     golden[g].extractor, tally.n_correct, tally.n_rows, hex, golden[g].n_correct,
                     golden[g].n_rows, golden[g].sha256);
        }
    }
    for (int i = 0; i < answers.n_rows; i++) {
        free(lines[i]);
    }
    free(lines);
    dataset_close(&answers);
    dataset_close(&maths);
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
        cmocka_unit_test(latex_is_made_alike_as_math_does),
        cmocka_unit_test(verl_is_its_strict_method),
        cmocka_unit_test(every_row_of_real_solutions_agrees_with_the_rules_in_python),
        cmocka_unit_test(verl_looks_at_the_last_300_characters_only),
        cmocka_unit_test(a_reference_without_marker_is_compared_whole),
        cmocka_unit_test(all_extractors_are_listed_as_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
