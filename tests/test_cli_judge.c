/* Judging from outside: extract, rewards and evaluations of the program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/cli_run.h"

static void expect_out(const char *arguments, const char *expected)
{
    Run r = run(arguments);
    if (r.code != 0 || strcmp(r.out, expected) != 0) {
        fail_msg("tinylora %s: exit code %d\n%s\n%sexpected:\n%s", arguments, r.code, r.err, r.out,
                 expected);
    }
    run_free(&r);
}

static void expect_refused(const char *arguments, int code, const char *message)
{
    Run r = run(arguments);
    if (r.code != code || !strstr(r.err, message) || *r.out) {
        fail_msg("tinylora %s: exit code %d\n%s%swanted %d: %s", arguments, r.code, r.out, r.err,
                 code, message);
    }
    run_free(&r);
}

static void extract_tells_what_each_extractor_reads_and_its_verdict(void **state)
{
    (void)state;
    run_write("outputs.jsonl", "{\"completion\": \"#### $18\", \"answer\": \"#### 18\"}\n\n"
                               "{\"completion\": \"so \\\\boxed{\\\\frac12}\\nno\", \"answer\": "
                               "\"1/2\"}\n");
    expect_out("-o jsonl extract --file outputs.jsonl",
               "{\"line\": 1, \"extractor\": \"strict\", \"extracted\": null, \"correct\": 0, "
               "\"answer\": \"#### 18\"}\n"
               "{\"line\": 1, \"extractor\": \"flexible\", \"extracted\": \"$18\", \"correct\": 1, "
               "\"answer\": \"#### 18\"}\n"
               "{\"line\": 1, \"extractor\": \"openai\", \"extracted\": null, \"correct\": 0, "
               "\"answer\": \"#### 18\"}\n"
               "{\"line\": 1, \"extractor\": \"verl_strict\", \"extracted\": null, \"correct\": 0, "
               "\"answer\": \"#### 18\"}\n"
               "{\"line\": 1, \"extractor\": \"verl_flexible\", \"extracted\": \"18\", "
               "\"correct\": 1, \"answer\": \"#### 18\"}\n"
               "{\"line\": 1, \"extractor\": \"boxed\", \"extracted\": null, \"correct\": 0, "
               "\"answer\": \"#### 18\"}\n"
               "{\"line\": 3, \"extractor\": \"strict\", \"extracted\": null, \"correct\": 0, "
               "\"answer\": \"1/2\"}\n"
               "{\"line\": 3, \"extractor\": \"flexible\", \"extracted\": \"12\", \"correct\": 0, "
               "\"answer\": \"1/2\"}\n"
               "{\"line\": 3, \"extractor\": \"openai\", \"extracted\": null, \"correct\": 0, "
               "\"answer\": \"1/2\"}\n"
               "{\"line\": 3, \"extractor\": \"verl_strict\", \"extracted\": null, \"correct\": 0, "
               "\"answer\": \"1/2\"}\n"
               "{\"line\": 3, \"extractor\": \"verl_flexible\", \"extracted\": \"12\", "
               "\"correct\": 0, \"answer\": \"1/2\"}\n"
               "{\"line\": 3, \"extractor\": \"boxed\", \"extracted\": \"\\\\frac12\", "
               "\"correct\": 1, \"answer\": \"1/2\"}\n");
    expect_out("-o csv extract --file outputs.jsonl --summary",
               "extractor,n,found,correct,value,se,wilson_low,wilson_high\r\n"
               "strict,2,0,0,0,0,0,0.65762\r\n"
               "flexible,2,2,1,0.5,0.5,0.0945312,0.905469\r\n"
               "openai,2,0,0,0,0,0,0.65762\r\n"
               "verl_strict,2,0,0,0,0,0,0.65762\r\n"
               "verl_flexible,2,2,1,0.5,0.5,0.0945312,0.905469\r\n"
               "boxed,2,1,1,0.5,0.5,0.0945312,0.905469\r\n");
}

static void extract_keeps_a_table_whole_whatever_was_read(void **state)
{
    (void)state;
    run_write("awkward.jsonl", "{\"completion\": \"\\\\boxed{a|b\\nc}\", \"answer\": \"a\\tb\"}\n");
    Run r = run("-o md extract --file awkward.jsonl");
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.out, "| a\\|b c "));
    int lines = 0;
    for (const char *c = r.out; *c; c++) {
        lines += *c == '\n';
    }
    assert_int_equal(lines, 2 + 6);
    run_free(&r);
}

static void extract_refuses_what_is_not_rows(void **state)
{
    (void)state;
    expect_refused("extract", 2, "--file: a file of completions is missing");
    expect_refused("extract --file none.jsonl", 3, "\"none.jsonl\": cannot open");
    run_write("bad.jsonl", "{\"completion\": 3, \"answer\": \"#### 18\"}\n");
    expect_refused("extract --file bad.jsonl", 3,
                   "line 1: field \"completion\" is a number, expected a string");
    run_write("bad.jsonl", "{\"completion\": \"3\"}\n");
    expect_refused("extract --file bad.jsonl", 3, "line 1: field \"answer\" is missing");
    run_write("bad.jsonl", "\n");
    expect_refused("extract --file bad.jsonl", 3, "no rows");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extract_tells_what_each_extractor_reads_and_its_verdict),
        cmocka_unit_test(extract_keeps_a_table_whole_whatever_was_read),
        cmocka_unit_test(extract_refuses_what_is_not_rows),
    };
    return cmocka_run_group_tests(tests, run_setup, run_teardown);
}
