/* Judging from outside: extract, rewards and evaluations of the program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "tests/cli_run.h"
#include "tests/shared.h"

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

/* ---- evaluations ---- */

#define ABACUS SOURCE_DIR "/models/abacus/"
static const char trained[] =
    "{\"experiment\": \"judged\", \"model\": \"abacus\", \"data\": {\"train\": \"" ABACUS
    "train.jsonl\", \"dev\": \"" ABACUS "dev.jsonl\", \"eval\": \"" ABACUS "test.jsonl\"},\n"
    " \"grpo\": {\"prompts_per_step\": 2, \"group_size\": 3, \"max_new_tokens\": 24}, \"steps\": "
    "1,\n \"optimizer\": {\"lr\": 0.5}, \"eval\": {\"every\": 0, \"rows\": 4}}\n";

static void expect_done(const char *arguments)
{
    Run r = run(arguments);
    if (r.code != 0) {
        fail_msg("tinylora %s: exit code %d\n%s", arguments, r.code, r.err);
    }
    run_free(&r);
}

/* The answer of a query; released by the caller. */
static char *ask(const char *db, const char *sql)
{
    char command[1024];
    snprintf(command, sizeof command, "--db %s -o csv query \"%s\"", db, sql);
    Run r = run(command);
    if (r.code != 0) {
        fail_msg("%s\n%s", sql, r.err);
    }
    free(r.err);
    return r.out;
}

static void expect_same(const char *one, const char *other, const char *sql)
{
    char *first = ask(one, sql), *second = ask(other, sql);
    assert_true(strlen(first) > 100); /* there are rows */
    if (strcmp(first, second) != 0) {
        size_t i = 0;
        while (first[i] == second[i]) {
            i++;
        }
        fail_msg("%s\n%.300s\n---\n%.300s", sql, first + i, second + i);
    }
    free(first);
    free(second);
}

static long count_of(const char *db, const char *sql)
{
    char *answer = ask(db, sql);
    long n = strtol(strchr(answer, '\n') + 1, NULL, 10);
    free(answer);
    return n;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Every table that an evaluation fills is the one of an undisturbed evaluation, and what a killed
 * one had committed is not sampled again: the number of answers never falls. */
static void an_evaluation_that_is_killed_goes_on_after_its_last_rows(void **state)
{
    (void)state;
    static const char *const tables[] = {
        "SELECT run_id, step, task, extractor, n, value, standard_error, base_run_id, base_value, "
        "p_value, detail FROM evaluation ORDER BY run_id, step, task, extractor",
        "SELECT * FROM eval_completion ORDER BY run_id, step, task, row, sample",
        "SELECT e.run_id, e.step, e.task, e.extractor, v.row, v.sample, v.extracted, v.correct, "
        "v.score FROM evaluation e JOIN eval_verdict v USING (evaluation_id) ORDER BY 1, 2, 3, 4, "
        "5, 6",
        "SELECT run_id, kind, model, state FROM run ORDER BY run_id"};
    static const char answers[] = "SELECT count(*) FROM eval_completion";
    enum { WANTED = 5, MOST = 200 };
    run_write("judged.json", trained);
    expect_done("--db start.db grpo judged.json");
    assert_int_equal(system("cp start.db whole.db; cp start.db killed.db"), 0);
    double began = seconds();
    expect_done("--db whole.db eval judged.json --rows 2000 --samples 3 --pass-k 2");
    double whole_s = seconds() - began;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    long first = count_of("start.db", answers), whole = count_of("whole.db", answers);
    long before = first;
    int kills = 0, partial = 0; /* of them within the rows */
    for (; partial < WANTED && kills < MOST; kills++) {
        pid_t pid =
            run_start("", "--db killed.db eval judged.json --rows 2000 --samples 3 --pass-k 2");
        usleep((useconds_t)(1e6 * whole_s * 0.8 * rand() / RAND_MAX) + 1000);
        kill(pid, SIGKILL);
        Run r = run_wait(pid);
        bool ended = r.code == 0;
        run_free(&r);
        long now = count_of("killed.db", answers);
        assert_true(now >= before);
        partial += now > before && now < whole;
        before = now;
        if (ended) { /* and anew */
            expect_same("whole.db", "killed.db", tables[0]);
            assert_int_equal(system("rm -f killed.db*; cp start.db killed.db"), 0);
            before = first;
        }
    }
    print_message("%d kills, %d of them within the rows\n", kills, partial);
    expect_done("--db killed.db eval judged.json --rows 2000 --samples 3 --pass-k 2 --threads 1");
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        expect_same("whole.db", "killed.db", tables[i]);
    }
    expect_done("--db killed.db db check");
}

static void pass_at_k_can_be_asked_for_later_and_samples_nothing(void **state)
{
    (void)state;
    expect_done("--db later.db eval judged.json --rows 30 --samples 4");
    long events = count_of("later.db", "SELECT count(*) FROM evaluation");
    expect_done("--db later.db query \"SELECT 1\"");
    expect_done("--db later.db eval judged.json --rows 30 --samples 4 --pass-k 3");
    expect_done("--db once.db eval judged.json --rows 30 --samples 4 --pass-k 3");
    assert_int_equal(events, 7);
    assert_int_equal(count_of("later.db", "SELECT count(*) FROM evaluation"), 13);
    expect_same("later.db", "once.db",
                "SELECT run_id, task, extractor, n, value, standard_error, detail FROM evaluation "
                "ORDER BY 1, 2, 3");
    /* 1 - C(n - c, 3) / C(n, 3) of the stored verdicts */
    assert_int_equal(
        count_of("once.db",
                 "WITH c AS (SELECT row, sum(correct) AS c FROM eval_sample WHERE extractor = "
                 "'flexible' GROUP BY row) SELECT count(*) FROM c JOIN eval_sample s USING (row) "
                 "WHERE s.extractor = 'flexible@3' AND abs(s.score - CASE c WHEN 0 THEN 0 WHEN 1 "
                 "THEN 0.75 ELSE 1 END) < 1e-12"),
        30);
    assert_int_equal(count_of("once.db", "SELECT count(*) FROM eval_sample WHERE extractor = "
                                         "'flexible' AND correct"),
                     count_of("once.db", "SELECT round(value * 120) FROM evaluation WHERE "
                                         "extractor = 'flexible'"));
    expect_refused("--db once.db eval judged.json --rows 30 --samples 2 --pass-k 3", 2,
                   "pass@3 wants at least 3 samples a row, there are 2");
    expect_refused("--db once.db eval judged.json --set eval.pass_k=3", 2,
                   "eval.pass_k: wants as many eval.samples");
}

static void best_says_when_a_run_cannot_be_told_from_the_base(void **state)
{
    (void)state;
    Run r = run("--db whole.db best --metric flexible");
    assert_int_equal(r.code, 0);
    if (!strstr(r.out, "p_holm") || !strstr(r.out, "not distinguishable from base")) {
        fail_msg("%s", r.out);
    }
    run_free(&r);
}

/* ---- known tasks ---- */

/* A few rows of each real test set, base model alone; stories260k does not know what is asked. */
static void known_tasks_are_scored_by_their_names(void **state)
{
    (void)state;
    char data[4096], models[4096], command[9000];
    static const struct {
        const char *name, *metric;
    } tasks[] = {{"gsm8k", "flexible"},
                 {"svamp", "strict"},
                 {"multiarith", "openai"},
                 {"math500", "boxed"},
                 {"digit-completion", "reward"}};
    shared_path(data, "data");
    shared_path(models, "data/models/stories260k");
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) {
        snprintf(command, sizeof command,
                 "--db tasks.db eval --model %s --task %s --data %s --rows 6 --greedy --max-new 8",
                 models, tasks[i].name, data);
        expect_done(command);
        snprintf(command, sizeof command, "SELECT count(*) FROM evaluation WHERE extractor = '%s'",
                 tasks[i].metric);
        assert_int_equal(count_of("tasks.db", command), i + 1);
    }
    /* references as the tasks have them: numbers without a fraction */
    assert_int_equal(count_of("tasks.db", "SELECT count(*) FROM eval_completion WHERE task LIKE "
                                          "'svamp%' AND answer IN ('145', '19', '3', '198')"),
                     4);
    assert_int_equal(count_of("tasks.db", "SELECT count(*) FROM eval_completion WHERE task LIKE "
                                          "'mawps%' AND answer NOT GLOB '*[^0-9]*'"),
                     6);
    snprintf(command, sizeof command, "eval --model %s --task gsm8k", models);
    expect_refused(command, 2, "give data.folder or $TINYLORA_DATA, or the files themselves");
    snprintf(command, sizeof command, "eval --model %s --task gsm8k --data /none", models);
    expect_refused(command, 2, "neither gsm8k/test.jsonl, test.jsonl nor such is in \"/none\"");
    snprintf(command, sizeof command, "eval --model %s --task gsm9k --data /none", models);
    expect_refused(command, 2, "\"gsm9k\" is not known (gsm8k, svamp");
    expect_refused("eval --model abacus", 2, "--model wants a --task");
}

/* The context of abacus is short: a prompt that leaves no room is answered by nothing, and told. */
static void a_prompt_that_does_not_fit_is_scored_as_an_empty_answer(void **state)
{
    (void)state;
    FILE *file = fopen("long.jsonl", "w");
    assert_non_null(file);
    fprintf(file, "{\"question\": \"1 + 1\", \"answer\": \"#### 2\"}\n{\"question\": \"");
    for (int i = 0; i < 20000; i++) {
        fprintf(file, "9 ");
    }
    fprintf(file,
            "\", \"answer\": \"seven\"}\n{\"question\": \"1 + 1\", \"answer\": \"#### 2\"}\n");
    fclose(file);
    Run r = run("--db long.db eval --model abacus --task gsm8k --data long.jsonl --max-new 8");
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.err, "1 of 3 rows are the same as earlier ones (line 3 as line 1)"));
    assert_non_null(strstr(r.err, "the answers of 1 of 3 rows have no number (line 2), so "
                                  "exact_match by flexible is 0"));
    run_free(&r);
    assert_int_equal(count_of("long.db", "SELECT count(*) FROM evaluation WHERE detail ->> "
                                         "'prompts_too_long' = 1 AND n = 3"),
                     7);
    assert_int_equal(count_of("long.db", "SELECT count(*) FROM eval_completion WHERE row = 1 AND "
                                         "text = '' AND n_tokens = 0 AND finish = 'length'"),
                     1);
}

/* ---- rewards of a command ---- */

/* A config with a reward command that is kept in reward.sh. */
static void write_command(const char *name, const char *more, const char *command)
{
    char config[2048];
    run_write("reward.sh", command);
    snprintf(config, sizeof config,
             "{\"experiment\": \"told\", \"model\": \"abacus\", \"data\": {\"train\": \"" ABACUS
             "train.jsonl\", \"dev\": \"" ABACUS "dev.jsonl\"},\n"
             " \"reward\": [{\"name\": \"command\", \"command\": \"sh reward.sh\"%s},\n"
             "            {\"name\": \"length\", \"length\": 30, \"weight\": 0.125}],\n"
             " \"grpo\": {\"prompts_per_step\": 2, \"group_size\": 4, \"max_new_tokens\": 24}, "
             "\"steps\": 3,\n \"eval\": {\"every\": 0, \"rows\": 12}}\n",
             more);
    run_write(name, config);
}

static void a_command_rewards_and_its_errors_are_recorded(void **state)
{
    (void)state;
    write_command("told.json", "",
                  "sed -u -e 's/.*\"completion\": \"[^\"]*7.*\", \"answer.*/{\"error\": \"a "
                  "seven\"}/' -e 's/^{\"id.*/{\"reward\": 0.5}/'\n");
    expect_done("--db told.db grpo told.json");
    long n = count_of("told.db", "SELECT count(*) FROM completion");
    long sevens = count_of("told.db", "SELECT count(*) FROM completion WHERE text LIKE '%7%'");
    assert_int_equal(n, 24);
    assert_true(sevens > 0 && sevens < n);
    assert_int_equal(count_of("told.db", "SELECT count(*) FROM completion WHERE (text LIKE '%7%') "
                                         "= (reward IS NULL) AND (text NOT LIKE '%7%' OR advantage "
                                         "= 0)"),
                     n);
    assert_int_equal(count_of("told.db", "SELECT count(*) FROM completion WHERE reward = 0.5 - "
                                         "0.125 * abs(length(text) - 30)"),
                     n - sevens);
    assert_int_equal(count_of("told.db", "SELECT sum(value) FROM metric WHERE key = "
                                         "'rewards/errors'"),
                     sevens);
    assert_int_equal(count_of("told.db", "SELECT count(*) FROM event WHERE kind = 'reward_error' "
                                         "AND message LIKE '% of 8 completions have no reward; the "
                                         "first: prompt %, sample %: command: a seven'"),
                     count_of("told.db", "SELECT count(*) FROM metric WHERE key = "
                                         "'rewards/errors'"));
    /* and in an evaluation: the rows that have one, and how many have none */
    assert_int_equal(count_of("told.db",
                              "SELECT count(*) FROM evaluation e WHERE extractor = 'reward' AND n "
                              "= (SELECT count(score) FROM eval_sample s WHERE s.run_id = e.run_id "
                              "AND s.extractor = 'reward') AND n < 12 AND 12 - n = detail ->> "
                              "'errors' AND detail ->> 'first_error' = 'command: a seven'"),
                     2);
    expect_done("--db again.db grpo told.json");
    expect_same("told.db", "again.db",
                "SELECT run_id, step, prompt, sample, reward, advantage FROM completion ORDER BY "
                "1, 2, 3, 4");
    expect_refused("config show told.json --set reward.0.command=", 2,
                   "reward.command: must be given for the reward command");
}

static void a_command_that_never_answers_fails_the_run_in_words(void **state)
{
    (void)state;
    write_command("broken.json", "", "exit 3\n");
    Run r = run("--db broken.db grpo broken.json");
    assert_int_equal(r.code, 1);
    if (!strstr(r.err,
                "reward command \"sh reward.sh\": 3 rows in a row got no answer; the last: it "
                "ended with exit code 3 before it answered")) {
        fail_msg("%s", r.err);
    }
    run_free(&r);
    assert_int_equal(count_of("broken.db", "SELECT count(*) FROM event WHERE kind = 'failed' AND "
                                           "step = 0 AND message LIKE 'reward command %'"),
                     1);
    run_write("reward.sh", "sed -u 's/.*/{\"reward\": 1}/'\n"); /* mended, it goes on */
    expect_done("--db broken.db grpo broken.json");
}

/* One process for its own group: what it wrote its id into is gone with the program. */
static void a_stop_does_not_wait_for_a_command_nor_leave_it_behind(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGKILL};
    write_command("hang.json", ", \"timeout_s\": 3600",
                  "trap '' TERM; echo $$ > pid.new; mv pid.new pid; while :; do sleep 1; done\n");
    for (int i = 0; i < 2; i++) {
        unlink("pid");
        pid_t program = run_start("", "--db hang.db grpo hang.json");
        for (int wait = 0; access("pid", F_OK) && wait < 2400; wait++) {
            usleep(50000);
        }
        kill(program, signals[i]);
        Run r = run_wait(program);
        assert_int_equal(r.code, i == 0 ? 4 : 1000 + SIGKILL);
        run_free(&r);
        assert_int_equal(system("for i in $(seq 600); do kill -0 $(cat pid) 2>/dev/null || exit 0; "
                                "sleep 0.05; done; exit 1"),
                         0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extract_tells_what_each_extractor_reads_and_its_verdict),
        cmocka_unit_test(extract_keeps_a_table_whole_whatever_was_read),
        cmocka_unit_test(extract_refuses_what_is_not_rows),
        cmocka_unit_test(an_evaluation_that_is_killed_goes_on_after_its_last_rows),
        cmocka_unit_test(pass_at_k_can_be_asked_for_later_and_samples_nothing),
        cmocka_unit_test(known_tasks_are_scored_by_their_names),
        cmocka_unit_test(a_prompt_that_does_not_fit_is_scored_as_an_empty_answer),
        cmocka_unit_test(a_command_rewards_and_its_errors_are_recorded),
        cmocka_unit_test(a_command_that_never_answers_fails_the_run_in_words),
        cmocka_unit_test(a_stop_does_not_wait_for_a_command_nor_leave_it_behind),
        cmocka_unit_test(best_says_when_a_run_cannot_be_told_from_the_base),
    };
    return cmocka_run_group_tests(tests, run_setup, run_teardown);
}
