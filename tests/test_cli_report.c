/* `export report` from outside: the file, its artifact, what is refused, a database in use. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/cli_run.h"

#define TRAIN SOURCE_DIR "/models/abacus/train.jsonl"
#define DEV SOURCE_DIR "/models/abacus/dev.jsonl"
#define CONFIG(name, steps)                                                                        \
    "{\"experiment\": \"" name "\", \"model\": \"abacus\", \"data\": {\"train\": \"" TRAIN         \
    "\", \"dev\": \"" DEV "\"}, \"grpo\": {\"prompts_per_step\": 2, \"group_size\": 3, "           \
    "\"max_new_tokens\": 12}, \"steps\": " steps ", \"eval\": {\"every\": 0, \"rows\": 4}, "       \
    "\"sweep\": {\"optimizer.lr\": [0.01, 0.02]}}\n"

static void expect(const char *arguments, int code, const char *words)
{
    Run r = run(arguments);
    if (r.code != code || !strstr(r.err, words)) {
        fail_msg("tinylora %s: exit code %d, wanted %d\n%swanted: %s", arguments, r.code, code,
                 r.err, words);
    }
    assert_string_equal(r.out, "");
    run_free(&r);
}

static void report_is_written_whole_and_again_the_same(void **state)
{
    (void)state;
    run_write("small.json", CONFIG("small", "2"));
    Run sweep = run("--quiet sweep small.json");
    assert_int_equal(sweep.code, 0);
    run_free(&sweep);
    expect("export report", 0, "report.html: ");
    expect("export report --experiment small --out again.html", 0, "again.html: ");
    char *first = run_slurp("report.html"), *second = run_slurp("again.html");
    assert_string_equal(first, second);
    assert_non_null(strstr(first, "<h2>small</h2>"));
    assert_non_null(strstr(first, "tinylora sweep small.json"));
    assert_non_null(strstr(first, "Sampled answers of the best run"));
    assert_string_equal(first + strlen(first) - 8, "</html>\n");
    free(first);
    free(second);
    Run artifacts = run("-o csv query \"SELECT kind, path FROM artifact ORDER BY path\"");
    assert_string_equal(artifacts.out, "kind,path\r\nreport,again.html\r\nreport,report.html\r\n");
    run_free(&artifacts);
}

static void wrong_wishes_are_refused_and_nothing_is_written(void **state)
{
    (void)state;
    expect("export report --experiment smal --out no.html", 2,
           "export report: there is no experiment \"smal\"; there is \"small\"");
    expect("export report --surface ffff --out no.html", 2, "ffff");
    expect("export report --out no-such-folder/no.html", 1, "no-such-folder");
    expect("export report page.html", 2, "unexpected word \"page.html\"");
    expect("--db none.db export report --out no.html", 1, "there are no results yet");
    assert_int_equal(access("no.html", F_OK), -1);
}

static void database_that_another_process_writes_is_reported_all_the_same(void **state)
{
    (void)state;
    run_write("long.json", CONFIG("long", "100000"));
    pid_t pid = run_start("", "--db busy.db --quiet sweep long.json");
    bool began = false;
    for (int i = 0; i < 600 && !began; i++) { /* a minute at most */
        usleep(100000);
        int code =
            system("sh -c '" BUILD_DIR "/tinylora --db busy.db -o csv query \"SELECT count(*) "
                   "> 0 FROM metric\" 2> /dev/null | grep -q 1'");
        began = code == 0;
    }
    assert_true(began);
    Run report = {0};
    char command[512];
    snprintf(command, sizeof command,
             "'" BUILD_DIR "/tinylora' --quiet --db busy.db export report --out busy.html");
    int code = system(command);
    kill(pid, SIGTERM);
    report = run_wait(pid);
    assert_int_equal(code, 0);
    assert_int_equal(report.code, 4);
    char *page = run_slurp("busy.html");
    assert_non_null(strstr(page, "<h2>long</h2>"));
    free(page);
    run_free(&report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(report_is_written_whole_and_again_the_same),
        cmocka_unit_test(wrong_wishes_are_refused_and_nothing_is_written),
        cmocka_unit_test(database_that_another_process_writes_is_reported_all_the_same),
    };
    return cmocka_run_group_tests(tests, run_setup, run_teardown);
}
