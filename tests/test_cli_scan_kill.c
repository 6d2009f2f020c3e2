/* A scan that is killed with SIGKILL at random moments, by one process and by three at once, leaves
 * the same bytes as an undisturbed one: no row twice, none lost, at most one a process measured
 * again. */
#include <time.h>

#include "tests/cli_scan.h"

enum { N_KILLS = 25, MAX_PROCESSES = 3 };

static char *reference;
static double reference_s;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int make_reference(void **state)
{
    if (run_setup(state)) {
        return 1;
    }
    run_write("scan.json", SCAN_CONFIG(SMALL_GRID));
    double began = seconds();
    Run r = run("--db whole.db scan scan.json --no-figures --set scan.rows=20 --threads 2");
    reference_s = seconds() - began;
    if (r.code != 0) {
        print_error("%s\n", r.err);
        return 1;
    }
    run_free(&r);
    reference = dump_surface("whole.db");
    return 0;
}

static int drop_reference(void **state)
{
    free(reference);
    return run_teardown(state);
}

/* Rows that are done, as a list of their numbers; "" where there is no surface yet. */
static char *done_rows(void)
{
    if (access("killed.db", F_OK) != 0) {
        return strdup("");
    }
    return ask("killed.db", "SELECT group_concat(printf(',%d,', i), '') FROM (SELECT i FROM "
                            "surface_row WHERE state = 'done' ORDER BY i)");
}

static void assert_none_vanished(const char *before, const char *after)
{
    for (const char *at = before; *at == ','; at = strchr(at + 1, ',') + 1) {
        char row[16];
        snprintf(row, sizeof row, "%.*s", (int)(strchr(at + 1, ',') + 1 - at), at);
        if (!strstr(after, row)) {
            print_error("row %s was done and is not any more: %s\n", row, after);
            fail();
        }
    }
}

static void finish_and_compare(int n_kills, int n_processes)
{
    expect_ok("--db killed.db scan scan.json --no-figures --set scan.rows=20 --threads 1");
    char *all = dump_surface("killed.db");
    assert_same_surface(reference, all);
    free(all);
    /* Each row, and each preview, was taken once, and once more for each process that was killed
     * over it. */
    long again = ask_number("killed.db", "SELECT sum(lease) - count(*) - sum(previewed) FROM "
                                         "surface_row");
    print_message("%d kills, %ld rows or previews begun again\n", n_kills, again);
    assert_in_range(again, 0, n_kills * n_processes);
    expect_ok("--db killed.db db check");
    forget("killed.db");
}

static void kill_at_random_moments(int n_processes)
{
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    int n_kills = 0, since = 0;
    char *before = strdup("");
    while (n_kills < N_KILLS) {
        pid_t pids[MAX_PROCESSES];
        bool killed = true;
        for (int i = 0; i < n_processes; i++) {
            pids[i] = run_start(
                "", "--db killed.db scan scan.json --no-figures --set scan.rows=20 --threads 1");
        }
        usleep((useconds_t)(1e6 * reference_s * 0.4 * rand() / RAND_MAX) + 1000);
        for (int i = 0; i < n_processes; i++) {
            kill(pids[i], SIGKILL);
        }
        for (int i = 0; i < n_processes; i++) {
            Run r = run_wait(pids[i]);
            assert_true(r.code == 0 || r.code == 1000 + SIGKILL);
            killed &= r.code != 0;
            run_free(&r);
        }
        n_kills += killed;
        since++;
        char *after = done_rows();
        assert_none_vanished(before, after);
        free(before);
        before = after;
        if (!killed || n_kills % 8 == 0) { /* at its end: compare, and begin again */
            finish_and_compare(since, n_processes);
            since = 0;
            free(before);
            before = strdup("");
        }
    }
    free(before);
    finish_and_compare(since, n_processes);
}

static void one_process_killed_again_and_again_ends_in_the_same_bytes(void **state)
{
    (void)state;
    kill_at_random_moments(1);
}

static void three_processes_killed_again_and_again_end_in_the_same_bytes(void **state)
{
    (void)state;
    kill_at_random_moments(MAX_PROCESSES);
}

static void three_processes_share_the_rows_and_each_is_done_once(void **state)
{
    (void)state;
    pid_t pids[MAX_PROCESSES];
    for (int i = 0; i < MAX_PROCESSES; i++) {
        pids[i] = run_start(
            "", "--db shared.db scan scan.json --no-figures --set scan.rows=20 --threads 1");
    }
    for (int i = 0; i < MAX_PROCESSES; i++) {
        Run r = run_wait(pids[i]);
        assert_int_equal(r.code, 0);
        run_free(&r);
    }
    char *all = dump_surface("shared.db");
    assert_same_surface(reference, all);
    free(all);
    assert_int_equal(
        ask_number("shared.db", "SELECT sum(lease) - count(*) - sum(previewed) FROM surface_row"),
        0);
}

static void one_of_three_is_killed_and_the_others_take_its_row_over(void **state)
{
    (void)state;
    pid_t pids[MAX_PROCESSES];
    for (int i = 0; i < MAX_PROCESSES; i++) {
        pids[i] = run_start(
            "", "--db orphan.db scan scan.json --no-figures --set scan.rows=20 --threads 1");
    }
    usleep((useconds_t)(1e6 * reference_s * 0.5));
    kill(pids[0], SIGKILL);
    for (int i = 0; i < MAX_PROCESSES; i++) {
        Run r = run_wait(pids[i]);
        assert_true(r.code == 0 || (i == 0 && r.code == 1000 + SIGKILL));
        run_free(&r);
    }
    expect_ok(
        "--db orphan.db scan scan.json --no-figures --set scan.rows=20"); /* where the dead one was
                                                                             to finish */
    char *all = dump_surface("orphan.db");
    assert_same_surface(reference, all);
    free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_processes_share_the_rows_and_each_is_done_once),
        cmocka_unit_test(one_of_three_is_killed_and_the_others_take_its_row_over),
        cmocka_unit_test(one_process_killed_again_and_again_ends_in_the_same_bytes),
        cmocka_unit_test(three_processes_killed_again_and_again_end_in_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, make_reference, drop_reference);
}
