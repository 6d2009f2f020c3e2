/* A reward from another process: what it says, and everything that such a process can do wrong.
 * Time is the test's own: it stands still where a command is good, and flies where one hangs. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rl/reward.h"

enum { ROWS = 5 };

typedef struct {
    double now_s, step_s; /* added at each look */
    int looks;            /* before it wants to stop; -1: never */
} Time;

static double now_s(void *context)
{
    Time *time = context;
    time->now_s += time->step_s;
    return time->now_s;
}

static bool stopping(void *context)
{
    Time *time = context;
    return time->looks >= 0 && time->looks-- == 0;
}

static char folder[] = "/tmp/tinylora-reward-XXXXXX";

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN); /* as cli/main.c */
    return !mkdtemp(folder) || chdir(folder);
}

static int teardown(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return chdir("/") || system(command);
}

typedef struct {
    Status status;
    Error error;
    double values[ROWS];
    Text reasons[ROWS];
} Answer;

static void ask_again(Answer *answer, RewardCommand *command, const char *const *completions, int n)
{
    RewardRow rows[ROWS];
    for (int i = 0; i < n; i++) {
        rows[i] = (RewardRow){"p", completions[i], "#### 7", 1, strlen(completions[i]), 6};
    }
    answer->error = (Error){{0}};
    answer->status =
        reward_command_ask(command, answer->values, answer->reasons, rows, n, &answer->error);
}

static const char *const texts[ROWS] = {"0.5", "2", "-1", "0.25", "4"};

static Answer ask(const char *line, Time *time)
{
    Answer answer = {0};
    RewardHost host = {time, now_s, stopping};
    RewardCommand *command = reward_command_new(line, 5, &host);
    ask_again(&answer, command, texts, ROWS);
    reward_command_free(command);
    return answer;
}

static void release(Answer *answer)
{
    for (int i = 0; i < ROWS; i++) {
        text_release(&answer->reasons[i]);
    }
}

#define STILL                                                                                      \
    &(Time)                                                                                        \
    {                                                                                              \
        .looks = -1                                                                                \
    }
#define FLYING                                                                                     \
    &(Time)                                                                                        \
    {                                                                                              \
        .step_s = 0.9, .looks = -1                                                                 \
    }
/* The completion itself is the reward. */
#define ECHO "sed -u 's/.*\"completion\": \"\\([^\"]*\\)\".*/{\"reward\": \\1}/'"

static void expect_values(const Answer *answer, const double *expected)
{
    if (answer->status) {
        fail_msg("%s", answer->error.message);
    }
    for (int i = 0; i < ROWS; i++) {
        if (isnan(expected[i]) ? !isnan(answer->values[i]) : answer->values[i] != expected[i]) {
            fail_msg("row %d: %g, expected %g (%s)", i, answer->values[i], expected[i],
                     text_string(&answer->reasons[i]));
        }
        assert_int_equal(answer->reasons[i].n > 0, isnan(expected[i]));
    }
}

static void a_command_says_what_each_row_is_worth(void **state)
{
    (void)state;
    Answer answer = ask(ECHO, STILL);
    expect_values(&answer, (double[]){0.5, 2, -1, 0.25, 4});
    release(&answer);
    /* members of its own, blank lines and the id are fine */
    answer =
        ask("sed -u 's/^{\"id\": \\([0-9]*\\).*/\\n{\"id\": \\1, \"note\": [], \"reward\": 3}/'",
            STILL);
    expect_values(&answer, (double[]){3, 3, 3, 3, 3});
    release(&answer);
    /* a clock that jumps to and fro by days is not the command's fault */
    answer = ask(ECHO, &(Time){.step_s = -86400, .looks = -1});
    expect_values(&answer, (double[]){0.5, 2, -1, 0.25, 4});
    release(&answer);
}

static void it_is_given_the_prompt_the_completion_and_the_answer_as_json(void **state)
{
    (void)state;
    RewardHost host = {STILL, now_s, stopping};
    RewardCommand *command = reward_command_new(
        "while read -r line; do printf '%s\\n' \"$line\" >> seen; echo '{\"reward\": 1}'; done", 5,
        &host);
    RewardRow row = {"Q\n\"?", "a\xff\\b", "#### 7", 4, 4, 6};
    Text reason = {0};
    double value;
    Error error;
    assert_int_equal(reward_command_ask(command, &value, &reason, &row, 1, &error), STATUS_OK);
    assert_int_equal(reward_command_ask(command, &value, &reason, &row, 1, &error), STATUS_OK);
    reward_command_free(command);
    char seen[512] = "";
    FILE *file = fopen("seen", "r");
    assert_true(file && fread(seen, 1, sizeof seen - 1, file) > 0);
    fclose(file);
    assert_string_equal(seen, "{\"id\": 0, \"prompt\": \"Q\\n\\\"?\", \"completion\": "
                              "\"a\xEF\xBF\xBD\\\\b\", \"answer\": \"#### 7\"}\n"
                              "{\"id\": 1, \"prompt\": \"Q\\n\\\"?\", \"completion\": "
                              "\"a\xEF\xBF\xBD\\\\b\", \"answer\": \"#### 7\"}\n");
    text_release(&reason);
}

static void an_error_is_no_reward_with_its_reason_and_the_others_have_theirs(void **state)
{
    (void)state;
    Answer answer = ask("sed -u -e 's/.*\"completion\": \"-1\".*/{\"error\": \"below zero\"}/' -e "
                        "'s/.*\"completion\": \"\\([^\"]*\\)\".*/{\"reward\": \\1}/'",
                        STILL);
    expect_values(&answer, (double[]){0.5, 2, NAN, 0.25, 4});
    assert_string_equal(answer.reasons[2].bytes, "below zero");
    release(&answer);
    answer = ask("sed -u 's/.*/{\"error\": \"\"}/'", STILL); /* errors alone are no trouble */
    expect_values(&answer, (double[]){NAN, NAN, NAN, NAN, NAN});
    assert_string_equal(answer.reasons[4].bytes, "an error without a word");
    release(&answer);
}

/* A row that a command fails at twice has no reward; before and after it all is well. */
static void expect_third_row_lost(const char *line, Time *time, const char *reason)
{
    Answer answer = ask(line, time);
    expect_values(&answer, (double[]){0.5, 2, NAN, 0.25, 4});
    if (!strstr(answer.reasons[2].bytes, reason)) {
        fail_msg("\"%s\" does not say \"%s\"", answer.reasons[2].bytes, reason);
    }
    release(&answer);
}

#define AT_MINUS_1(DO)                                                                             \
    "while read -r line; do case \"$line\" in *'\"-1\"'*) " DO ";; esac; echo \"$line\" | " ECHO   \
    "; done"

static void a_row_that_breaks_the_command_is_asked_twice_and_given_up(void **state)
{
    (void)state;
    expect_third_row_lost(AT_MINUS_1("echo x >> tries; exit 3"), STILL,
                          "it ended with exit code 3 before it answered");
    assert_int_equal(system("test $(wc -l < tries) = 2"), 0);
    expect_third_row_lost(AT_MINUS_1("exit 0"), STILL, "it ended with exit code 0");
    expect_third_row_lost(AT_MINUS_1("kill -SEGV $$"), STILL, "it was ended by signal 11");
    expect_third_row_lost(AT_MINUS_1("echo garbage; continue"), STILL, "a line that is not JSON");
    expect_third_row_lost(AT_MINUS_1("echo '[1]'; continue"), STILL,
                          "neither a finite \"reward\" nor an \"error\"");
    expect_third_row_lost(AT_MINUS_1("echo '{\"reward\": null}'; continue"), STILL, "neither");
    expect_third_row_lost(AT_MINUS_1("echo '{\"reward\": \"1\"}'; continue"), STILL, "neither");
    expect_third_row_lost(AT_MINUS_1("echo '{\"reward\": 1e999}'; continue"), STILL, "neither");
    expect_third_row_lost(AT_MINUS_1("echo '{\"reward\": NaN}'; continue"), STILL, "not JSON");
    expect_third_row_lost(AT_MINUS_1("echo '{\"id\": 1, \"reward\": 1}'; continue"), STILL,
                          "it answered another row than the one asked");
    expect_third_row_lost(AT_MINUS_1("exec >&-; while :; do sleep 1; done"), STILL,
                          "it closed its output before it answered");
    expect_third_row_lost(AT_MINUS_1("tr '\\0' x < /dev/zero"), STILL, "longer than a mebibyte");
}

static void a_crash_that_does_not_come_again_changes_no_reward(void **state)
{
    (void)state;
    Answer answer = ask(AT_MINUS_1("test -e crashed || { touch crashed; exit 9; }"), STILL);
    expect_values(&answer, (double[]){0.5, 2, -1, 0.25, 4});
    release(&answer);
}

static void expect_failure(const char *line, Time *time, const char *message)
{
    Answer answer = ask(line, time);
    if (answer.status != STATUS_FAILED || !strstr(answer.error.message, message)) {
        fail_msg("%s: %d, \"%s\" does not say \"%s\"", line, answer.status, answer.error.message,
                 message);
    }
    release(&answer);
}

static void a_command_that_is_no_good_at_all_is_an_error(void **state)
{
    (void)state;
    expect_failure("/no/such/command", STILL,
                   "reward command \"/no/such/command\": 3 rows in a row got no answer; the last: "
                   "it ended with exit code 127 before it answered (is there such a command?)");
    expect_failure("true", STILL, "it ended with exit code 0 before it answered");
    expect_failure("yes", STILL, "it wrote a line that is not JSON");
    expect_failure("sleep 1000", FLYING, "no answer within 5 s (does it flush every line?)");
    expect_failure("exec <&-; sleep 1000", FLYING, "no answer within 5 s");
    expect_failure("cat > /dev/null", FLYING, "no answer within 5 s");
    /* dribbling is no answer either */
    expect_failure("while :; do printf x; sleep 0.005; done", FLYING, "no answer within 5 s");
    /* what belongs to which row is not known any more */
    expect_failure("sed -u 's/.*/{\"reward\": 1}\\n{\"reward\": 2}/'", STILL,
                   "it wrote more than an answer a row");
    expect_failure("yes '{\"reward\": 1}'", STILL, "it wrote more than an answer a row");
}

/* More than the pipes hold, in both directions, to a command that reads all before it answers. */
static void a_batch_larger_than_any_pipe_does_not_lock_up(void **state)
{
    (void)state;
    enum { BIG = 1 << 20 };
    char *big = malloc(BIG + 1);
    assert_non_null(big);
    memset(big, 'x', BIG);
    big[BIG] = 0;
    const char *const rows[ROWS] = {big, big, big, big, big};
    RewardHost host = {STILL, now_s, stopping};
    RewardCommand *command = reward_command_new(
        "for i in 1 2 3 4 5; do read -r l$i; done; for i in 1 2 3 4 5; do printf "
        "'{\"reward\": 1, \"pad\": \"%0200000d\"}\\n' 0; done; cat > /dev/null",
        5, &host);
    Answer answer = {0};
    ask_again(&answer, command, rows, ROWS);
    expect_values(&answer, (double[]){1, 1, 1, 1, 1});
    release(&answer);
    reward_command_free(command);
    free(big);
}

static void the_process_lives_from_batch_to_batch_and_may_leave_in_between(void **state)
{
    (void)state;
    RewardHost host = {STILL, now_s, stopping};
    RewardCommand *command =
        reward_command_new("echo x >> started; for i in 1 2 3 4 5 6 7; do read -r line || exit; "
                           "echo \"$line\" | " ECHO "; done",
                           5, &host);
    Answer answer = {0};
    for (int batch = 0; batch < 4; batch++) { /* of 5 rows: it ends after 7 and is started again */
        ask_again(&answer, command, texts, ROWS);
        expect_values(&answer, (double[]){0.5, 2, -1, 0.25, 4});
    }
    reward_command_free(command);
    assert_int_equal(system("test $(wc -l < started) = 3"), 0);
    release(&answer);
}

static void a_stop_is_obeyed_while_a_command_hangs(void **state)
{
    (void)state;
    Answer answer = ask("sleep 1000", &(Time){.looks = 3});
    assert_int_equal(answer.status, STATUS_STOPPED);
    release(&answer);
}

static long read_pid(const char *path)
{
    long pid = 0;
    FILE *file = fopen(path, "r");
    assert_true(file && fscanf(file, "%ld", &pid) == 1 && pid > 1);
    fclose(file);
    return pid;
}

/* Waits for it to be gone; a zombie of another parent is. */
static void expect_gone(long pid)
{
    char command[256];
    snprintf(command, sizeof command,
             "for i in $(seq 600); do s=$(cut -d' ' -f3 /proc/%ld/stat 2>/dev/null); test \"$s\" = "
             "Z -o -z \"$s\" && exit 0; sleep 0.05; done; exit 1",
             pid);
    if (system(command) != 0) {
        fail_msg("process %ld is still there", pid);
    }
}

/* A command that ignores signals and has a child that does; both say who they are. */
#define STUBBORN                                                                                   \
    "trap '' TERM INT HUP; echo $$ > self; (trap '' TERM INT HUP; while :; do sleep 1; done) & "   \
    "echo $! > child; while read -r line; do echo '{\"reward\": 1}'; done; while :; do sleep 1; "  \
    "done"

static void no_process_outlives_the_reward(void **state)
{
    (void)state;
    RewardHost host = {STILL, now_s, stopping};
    RewardCommand *command = reward_command_new(STUBBORN, 5, &host);
    Answer answer = {0};
    ask_again(&answer, command, texts, ROWS);
    expect_values(&answer, (double[]){1, 1, 1, 1, 1});
    reward_command_free(command);
    expect_gone(read_pid("self"));
    expect_gone(read_pid("child"));
    release(&answer);
}

static void no_process_outlives_ours_even_if_that_is_killed(void **state)
{
    (void)state;
    unlink("self");
    pid_t pid = fork();
    if (pid == 0) {
        RewardHost host = {STILL, now_s, stopping};
        RewardCommand *command = reward_command_new(STUBBORN, 5, &host);
        RewardRow row = {"p", "c", "a", 1, 1, 1};
        Text reason = {0};
        double value;
        Error error;
        reward_command_ask(command, &value, &reason, &row, 1, &error);
        kill(getpid(), SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    expect_gone(read_pid("self"));
    expect_gone(read_pid("child"));
}

static void a_command_stands_in_a_weighted_list(void **state)
{
    (void)state;
    RewardHost host = {STILL, now_s, stopping};
    const RewardTerm terms[] = {
        {.name = "command",
         .weight = 2,
         .limit_s = 5,
         .host = &host,
         .command = "sed -u -e 's/.*\"completion\": \"b\".*/{\"error\": \"no b\"}/' -e "
                    "'s/^{\"id\".*/{\"reward\": 0.25}/'"},
        {.name = "regex", .pattern = "a", .weight = 1}};
    Reward *reward;
    Error error;
    assert_int_equal(reward_new(&reward, terms, 2, &error), STATUS_OK);
    assert_string_equal(reward_name(reward, 0), "command");
    RewardRow rows[] = {{"", "a", "", 0, 1, 0}, {"", "b", "", 0, 1, 0}, {"", "c", "", 0, 1, 0}};
    double scores[3], values[6];
    Text reasons[3] = {0};
    assert_int_equal(reward_score(reward, scores, values, reasons, rows, 3, &error), STATUS_OK);
    assert_true(scores[0] == 1.5 && isnan(scores[1]) && scores[2] == 0.5);
    assert_true(values[0] == 0.25 && values[1] == 1 && isnan(values[2]) && values[3] == 0);
    assert_string_equal(text_string(&reasons[1]), "command: no b");
    assert_string_equal(text_string(&reasons[0]), "");
    for (int i = 0; i < 3; i++) {
        text_release(&reasons[i]);
    }
    reward_free(reward);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_says_what_each_row_is_worth),
        cmocka_unit_test(it_is_given_the_prompt_the_completion_and_the_answer_as_json),
        cmocka_unit_test(an_error_is_no_reward_with_its_reason_and_the_others_have_theirs),
        cmocka_unit_test(a_row_that_breaks_the_command_is_asked_twice_and_given_up),
        cmocka_unit_test(a_crash_that_does_not_come_again_changes_no_reward),
        cmocka_unit_test(a_command_that_is_no_good_at_all_is_an_error),
        cmocka_unit_test(a_batch_larger_than_any_pipe_does_not_lock_up),
        cmocka_unit_test(the_process_lives_from_batch_to_batch_and_may_leave_in_between),
        cmocka_unit_test(a_stop_is_obeyed_while_a_command_hangs),
        cmocka_unit_test(no_process_outlives_the_reward),
        cmocka_unit_test(no_process_outlives_ours_even_if_that_is_killed),
        cmocka_unit_test(a_command_stands_in_a_weighted_list),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
