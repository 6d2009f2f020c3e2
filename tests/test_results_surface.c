/* The rows of a surface in one process: claims and their order, leases, what is committed, what is
 * refused. */
#include <sys/sysinfo.h>
#include <sys/wait.h>

#include "results/process.h"
#include "tests/surface_test.h"

static void a_surface_is_stored_once_with_its_waiting_rows(void **state)
{
    (void)state;
    Store *store = open_with_surface(STORE_WRITE);
    RunState surface_state = RUN_DONE;
    assert_ok(store_surface(store, &surface_info, 9.0, &surface_state, error));
    assert_int_equal(surface_state, RUN_WAITING);
    assert_string_equal(ask(store, "SELECT count(*), min(i), max(i) FROM surface_row WHERE state = "
                                   "'waiting'"),
                        "7,0,6\r\n");
    assert_string_equal(ask(store, "SELECT state, created_at, length(plane), run_id FROM surface"),
                        "waiting,2,72,\r\n");
    SurfaceInfo other = surface_info;
    Error told = {{0}};
    other.identity = "{\"a\":2}";
    assert_int_equal(store_surface(store, &other, 9.0, &surface_state, &told), STATUS_FAILED);
    assert_says(&told, "surface 5a0f3c1d2e4b6a70 is there with another identity");
    other = surface_info;
    other.surface_id = "77";
    other.experiment = "never made";
    assert_int_equal(store_surface(store, &other, 9.0, &surface_state, &told), STATUS_FAILED);
    assert_says(&told, "FOREIGN KEY");
    assert_string_equal(ask(store, "SELECT count(*) FROM surface_row"), "7\r\n");
    store_close(store);
}

static void rows_are_claimed_in_the_order_given_and_committed_once(void **state)
{
    (void)state;
    static const int order[NX] = {3, 6, 0, 1, 2, 4, 5};
    Store *store = open_with_surface(STORE_SHARED);
    Worker here = worker_here();
    SurfaceLease first = claim(store, &here, order, 1, 10.0);
    assert_true(first.i == 3 && first.lease == 1 && !first.preview && !first.over);
    assert_string_equal(ask(store, "SELECT state FROM surface"), "running\r\n");
    SurfaceLease second = claim(store, &here, order, 1, 11.0);
    assert_int_equal(second.i, 6);
    commit(store, &first, 12.0);
    assert_string_equal(ask(store, "SELECT state, lease, started_at, heartbeat_at, ended_at FROM "
                                   "surface_row WHERE i = 3"),
                        "done,1,10,12,12\r\n");
    assert_string_equal(ask(store, "SELECT count(*), count(value) FROM surface_point WHERE i = 3"),
                        "10,10\r\n");
    SurfaceValue values[N_VALUES];
    bool kept = true;
    size_t n = row_values(values, 3, 1);
    assert_ok(store_surface_commit(store, id, &first, values, n, 13.0, &kept, error));
    assert_false(kept); /* it is done */
    assert_ok(store_surface_heartbeat(store, id, &first, 13.0, &kept, error));
    assert_false(kept);
    assert_ok(store_surface_heartbeat(store, id, &second, 14.0, &kept, error));
    assert_true(kept);
    assert_string_equal(ask(store, "SELECT heartbeat_at FROM surface_row WHERE i = 6"), "14\r\n");
    assert_string_equal(ask(store, "PRAGMA synchronous"), "2\r\n"); /* for what comes next */
    commit(store, &second, 15.0);
    for (int k = 2; k < NX; k++) {
        SurfaceLease lease = claim(store, &here, order, 1, 16.0);
        assert_int_equal(lease.i, order[k]);
        commit(store, &lease, 17.0);
    }
    SurfaceLease none = claim(store, &here, order, 1, 18.0);
    assert_true(none.i == -1 && none.over);
    assert_string_equal(ask(store, "SELECT state FROM surface"), "running\r\n");
    assert_ok(store_surface_end(store, id, RUN_DONE, NULL, 19.0, error));
    assert_string_equal(ask(store, "SELECT state, ended_at FROM surface"), "done,19\r\n");
    store_close(store);
}

static void previews_come_first_and_stay_beside_the_rows(void **state)
{
    (void)state;
    Store *store = open_with_surface(STORE_WRITE);
    Worker here = worker_here();
    static const int previews[] = {0, 4, 6}; /* i % 4 == 0, and the last */
    for (int k = 0; k < 3; k++) {
        SurfaceLease lease = claim(store, &here, in_order, 4, 10.0);
        assert_true(lease.i == previews[k] && lease.preview && !lease.over);
        commit(store, &lease, 11.0);
    }
    assert_string_equal(ask(store, "SELECT i, state, previewed, lease FROM surface_row WHERE "
                                   "previewed ORDER BY i"),
                        "0,waiting,1,1\r\n4,waiting,1,1\r\n6,waiting,1,1\r\n");
    assert_string_equal(ask(store, "SELECT i, count(*), sum(preview) FROM surface_picture GROUP BY "
                                   "i"),
                        "0,6,6\r\n4,6,6\r\n6,6,6\r\n");
    SurfaceLease whole = claim(store, &here, in_order, 4, 12.0);
    assert_true(whole.i == 0 && !whole.preview && whole.lease == 2);

    SurfaceValue *values = NULL;
    size_t n = 0;
    assert_ok(store_surface_row(store, id, 0, &values, &n, error));
    assert_int_equal(n, 6);
    assert_true(values[3].j == 2 && values[3].value == surface_value(0, 2, 0));
    assert_string_equal(values[3].metric, "loss");
    assert_string_equal(values[2].metric, "accuracy");
    free(values);
    commit(store, &whole, 13.0);
    assert_string_equal(ask(store, "SELECT count(*), sum(preview) FROM surface_picture WHERE i = "
                                   "0"),
                        "10,0\r\n");
    assert_ok(store_surface_row(store, id, 0, &values, &n, error));
    assert_int_equal(n, 10);
    for (size_t k = 0; k < n; k++) {
        int metric = values[k].metric[0] == 'a';
        assert_true(values[k].j == (int)k / 2 &&
                    values[k].value == surface_value(0, values[k].j, metric));
    }
    free(values);
    assert_ok(store_surface_row(store, id, 1, &values, &n, error));
    assert_int_equal(n, 0);
    free(values);
    store_close(store);
}

static void a_row_that_is_given_back_waits_as_before(void **state)
{
    (void)state;
    Store *store = open_with_surface(STORE_WRITE);
    Worker here = worker_here();
    SurfaceLease lease = claim(store, &here, in_order, 4, 10.0);
    SurfaceLease other = claim(store, &here, in_order, 4, 10.0);
    assert_ok(store_surface_release(store, id, &lease, error));
    assert_string_equal(ask(store, "SELECT state, previewed, host FROM surface_row WHERE i = 0"),
                        "waiting,0,\r\n");
    assert_string_equal(ask(store, "SELECT state FROM surface"), "running\r\n");
    bool kept = true;
    assert_ok(store_surface_heartbeat(store, id, &lease, 11.0, &kept, error));
    assert_false(kept);
    assert_ok(store_surface_release(store, id, &other, error));
    assert_string_equal(ask(store, "SELECT state FROM surface"), "waiting\r\n");
    SurfaceLease again = claim(store, &here, in_order, 4, 12.0);
    assert_true(again.i == 0 && again.preview && again.lease == 2);
    assert_ok(
        store_surface_release(store, id, &lease, error)); /* an old lease gives nothing back */
    assert_ok(store_surface_heartbeat(store, id, &again, 13.0, &kept, error));
    assert_true(kept);
    store_close(store);
}

static void a_lease_that_was_lost_commits_nothing(void **state)
{
    (void)state;
    Store *store = open_with_surface(STORE_WRITE);
    Worker elsewhere = {.host = "h9", .pid = 1, .boot_id = "b9", .environment = "{}"};
    Worker here = worker_here();
    SurfaceLease slept = claim(store, &elsewhere, in_order, 1, 100.0);
    assert_int_equal(slept.i, 0);
    assert_int_equal(claim(store, &here, in_order, 1, 159.0).i, 1); /* heard of 59 s ago */
    SurfaceLease taken = claim(store, &here, in_order, 1, 160.0);
    assert_true(taken.i == 0 && taken.lease == 2);

    SurfaceValue values[N_VALUES];
    bool kept = true;
    size_t n = row_values(values, 0, 1);
    values[0].value = 99.0;
    assert_ok(store_surface_commit(store, id, &slept, values, n, 161.0, &kept, error));
    assert_false(kept);
    assert_ok(store_surface_heartbeat(store, id, &slept, 161.0, &kept, error));
    assert_false(kept);
    assert_ok(store_surface_release(store, id, &slept, error));
    assert_string_equal(ask(store, "SELECT count(*) FROM surface_point"), "0\r\n");
    commit(store, &taken, 162.0);
    assert_string_equal(ask(store, "SELECT count(*), max(value) < 2 FROM surface_point"),
                        "10,1\r\n");
    store_close(store);
}

static void a_dead_holder_on_this_machine_is_found_at_once(void **state)
{
    (void)state;
    Store *store = open_with_surface(STORE_WRITE);
    Worker here = worker_here(), gone = here, before = here;
    pid_t child = fork();
    if (child == 0) {
        _exit(0);
    }
    waitpid(child, NULL, 0);
    gone.pid = child;
    assert_int_equal(claim(store, &gone, in_order, 1, 10.0).i, 0);
    SurfaceLease lease = claim(store, &here, in_order, 1, 10.5);
    assert_true(lease.i == 0 && lease.lease == 2);
    commit(store, &lease, 10.5);
    /* an earlier boot of this machine: nobody can be alive who was not heard of since */
    struct sysinfo info;
    assert_int_equal(sysinfo(&info), 0);
    double uptime_s = (double)info.uptime;
    before.boot_id = "an earlier boot";
    assert_int_equal(claim(store, &before, in_order, 1, 11.0).i, 1);
    assert_ok(store_surface_claim(store, id, &here, in_order, NX, 1, 11.0 + uptime_s - 5, 1e12,
                                  &lease, error));
    assert_int_equal(lease.i, 2); /* another machine with our name? */
    assert_ok(store_surface_release(store, id, &lease, error));
    assert_ok(store_surface_claim(store, id, &here, in_order, NX, 1, 11.0 + uptime_s + 60, 1e12,
                                  &lease, error));
    assert_true(lease.i == 1 && lease.lease == 2);
    /* a zombie works on nothing */
    child = fork();
    if (child == 0) {
        _exit(0);
    }
    siginfo_t ended;
    assert_int_equal(waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT), 0);
    gone.pid = child;
    assert_int_equal(claim(store, &gone, in_order, 1, 13.0).i, 2);
    assert_int_equal(claim(store, &here, in_order, 1, 13.5).i, 2);
    waitpid(child, NULL, 0);
    assert_int_equal(claim(store, &here, in_order, 1, 14.0).i, 3);
    assert_string_equal(ask(store, "SELECT born > 0 FROM surface_row WHERE i = 3"), "1\r\n");
    store_close(store);
    /* a later process under the pid of the holder */
    assert_false(process_is_gone(&here, here.host, here.pid, here.boot_id, 0, 1e12));
    assert_false(
        process_is_gone(&here, here.host, here.pid, here.boot_id, process_born(here.pid), 1e12));
    assert_true(
        process_is_gone(&here, here.host, here.pid, here.boot_id, process_born(here.pid) - 1, 0));
    assert_false(process_is_gone(&here, "h9", 1, "b9", 1, 1e12)); /* who knows */
    int64_t born = process_born(here.pid);
    for (int sign = -1; sign <= 1; sign += 2) { /* clocks that jumped: only the far one is lost */
        assert_false(
            process_is_over(&here, here.host, here.pid, here.boot_id, born, sign * 1e12, 60));
        assert_true(process_is_over(&here, "h9", 1, "b9", 1, sign * 61, 60));
        assert_false(process_is_over(&here, "h9", 1, "b9", 1, sign * 59, 60));
    }
    assert_true(process_is_over(&here, here.host, here.pid, here.boot_id, born - 1, 0, 60));
    assert_int_equal(process_born(-1), 0);
}

static void values_that_are_not_finite_are_null_with_one_event(void **state)
{
    (void)state;
    Store *store = open_with_surface(STORE_WRITE);
    Worker here = worker_here();
    SurfaceValue values[N_VALUES];
    bool kept;
    SurfaceLease preview = claim(store, &here, in_order, 2, 10.0);
    size_t n = row_values(values, 0, 2);
    values[2].value = NAN; /* j 2, loss */
    assert_ok(store_surface_commit(store, id, &preview, values, n, 11.0, &kept, error));
    while (preview.preview) {
        preview = claim(store, &here, in_order, 2, 10.0);
        if (preview.preview) {
            commit(store, &preview, 10.0);
        }
    }
    n = row_values(values, 0, 1);
    values[4].value = NAN; /* the same point */
    values[7].value = -INFINITY;
    values[8].value = INFINITY;
    assert_ok(store_surface_commit(store, id, &preview, values, n, 12.0, &kept, error));
    assert_true(kept);
    assert_string_equal(ask(store, "SELECT surface_id, kind, message, at FROM event ORDER BY "
                                   "event_id"),
                        "5a0f3c1d2e4b6a70,nonfinite,\"loss is not a number at (0, 2): x -0.3, y "
                        "0\",11\r\n"
                        "5a0f3c1d2e4b6a70,nonfinite,\"accuracy is minus infinite at (0, 3): x "
                        "-0.3, y 0.1\",12\r\n"
                        "5a0f3c1d2e4b6a70,nonfinite,\"loss is infinite at (0, 4): x -0.3, y "
                        "0.2\",12\r\n");
    assert_string_equal(ask(store, "SELECT j, metric FROM surface_point WHERE value IS NULL"),
                        "2,loss\r\n3,accuracy\r\n4,loss\r\n");
    SurfaceValue *row = NULL;
    assert_ok(store_surface_row(store, id, 0, &row, &n, error));
    assert_true(isnan(row[5].value) && row[5].j == 2);
    free(row);
    store_close(store);
}

static void a_row_that_lacks_a_point_is_refused(void **state)
{
    (void)state;
    Store *store = open_with_surface(STORE_WRITE);
    Worker here = worker_here();
    SurfaceValue values[N_VALUES];
    Error told = {{0}};
    bool kept;
    SurfaceLease lease = claim(store, &here, in_order, 1, 10.0);
    size_t n = row_values(values, 0, 1);
    assert_int_equal(store_surface_commit(store, id, &lease, values, n - 1, 11.0, &kept, &told),
                     STATUS_FAILED);
    assert_says(&told, "surface 5a0f3c1d2e4b6a70, row 0: 4 of the 5 points of \"accuracy\"");
    values[9].j = 8;
    assert_int_equal(store_surface_commit(store, id, &lease, values, n, 11.0, &kept, &told),
                     STATUS_FAILED);
    assert_says(&told, "5 of the 5 points of \"accuracy\"");
    values[9] = values[8];
    assert_int_equal(store_surface_commit(store, id, &lease, values, n, 11.0, &kept, &told),
                     STATUS_FAILED);
    assert_says(&told, "UNIQUE");
    assert_string_equal(ask(store, "SELECT state, (SELECT count(*) FROM surface_point) FROM "
                                   "surface_row WHERE i = 0"),
                        "running,0\r\n");
    row_values(values, 0, 1);
    values[0].metric = "loss_se"; /* instead of loss */
    assert_int_equal(store_surface_commit(store, id, &lease, values, n, 11.0, &kept, &told),
                     STATUS_FAILED);
    assert_says(&told, "4 of the 5 points of \"loss\"");
    commit(store, &lease, 12.0); /* the lease is still ours */
    store_close(store);
}

static void a_surface_ends_done_only_when_every_row_is(void **state)
{
    (void)state;
    Store *store = open_with_surface(STORE_WRITE);
    Worker here = worker_here();
    Error told = {{0}};
    SurfaceLease lease = claim(store, &here, in_order, 1, 10.0);
    commit(store, &lease, 11.0);
    assert_int_equal(store_surface_end(store, id, RUN_DONE, NULL, 12.0, &told), STATUS_FAILED);
    assert_says(&told, "surface 5a0f3c1d2e4b6a70: 6 of 7 rows are not done");
    assert_ok(store_surface_end(store, id, RUN_FAILED, "no memory", 12.0, error));
    assert_string_equal(ask(store, "SELECT state, reason, ended_at FROM surface"),
                        "failed,no memory,12\r\n");
    lease = claim(store, &here, in_order, 1, 13.0); /* work goes on */
    assert_string_equal(ask(store, "SELECT state, reason, ended_at FROM surface"), "running,,\r\n");
    assert_ok(store_surface_end(store, id, RUN_WAITING, NULL, 14.0, error));
    assert_string_equal(ask(store, "SELECT state FROM surface"), "running\r\n"); /* a row is held */
    commit(store, &lease, 14.0);
    assert_ok(store_surface_end(store, id, RUN_WAITING, NULL, 14.0, error));
    assert_string_equal(ask(store, "SELECT state, ended_at FROM surface"), "waiting,\r\n");
    for (int i = 2; i < NX; i++) {
        lease = claim(store, &here, in_order, 1, 15.0);
        commit(store, &lease, 15.0);
    }
    assert_ok(store_surface_end(store, id, RUN_DONE, NULL, 16.0, error));
    assert_ok(store_surface_end(store, id, RUN_FAILED, "later", 17.0, error)); /* done is final */
    assert_string_equal(ask(store, "SELECT state, reason, ended_at FROM surface"), "done,,16\r\n");
    assert_int_equal(store_surface_end(store, "none", RUN_FAILED, "x", 12.0, &told), STATUS_FAILED);
    assert_says(&told, "there is no surface none");
    assert_int_equal(
        store_surface_claim(store, "none", &here, in_order, NX, 1, 1.0, 1.0, &lease, &told),
        STATUS_FAILED);
    assert_says(&told, "there is no surface none");
    assert_int_equal(store_surface_claim(store, id, &here, in_order, 3, 1, 1.0, 1.0, &lease, &told),
                     STATUS_FAILED);
    assert_says(&told, "surface 5a0f3c1d2e4b6a70 has 7 rows, not 3");
    store_close(store);
}

static void writers_that_share_wait_for_the_one_that_does_not(void **state)
{
    (void)state;
    Store *first = open_with_surface(STORE_SHARED), *second = NULL, *alone = NULL;
    Worker here = worker_here();
    SurfaceLease lease;
    Error told = {{0}};
    char holder[96];
    assert_ok(store_open(&second, path, STORE_SHARED, 30, error)); /* both are open */
    assert_int_equal(claim(first, &here, in_order, 1, 1.0).i, 0);
    assert_int_equal(claim(second, &here, in_order, 1, 1.0).i, 1);
    assert_ok(store_open(&alone, path, STORE_WRITE, 0, error));
    snprintf(holder, sizeof holder, "another process writes to it (pid %ld on ", (long)getpid());
    assert_int_equal(
        store_surface_claim(second, id, &here, in_order, NX, 1, 2.0, 60.0, &lease, &told),
        STATUS_FAILED);
    assert_says(&told, holder);
    assert_says(&told, path);
    Store *third = NULL;
    assert_int_equal(store_open(&third, path, STORE_SHARED, 0, &told), STATUS_FAILED);
    assert_says(&told, holder);
    assert_string_equal(ask(second, "SELECT count(*) FROM surface_row WHERE state = 'running'"),
                        "2\r\n"); /* reading waits for nobody */
    store_close(second);          /* nor does closing need the lock */
    store_close(alone);
    assert_int_equal(claim(first, &here, in_order, 1, 3.0).i, 2);
    store_close(first);
    assert_int_not_equal(access(strcat(path, "-wal"), F_OK), 0); /* the last one checkpoints */
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(a_surface_is_stored_once_with_its_waiting_rows),
        TEST(rows_are_claimed_in_the_order_given_and_committed_once),
        TEST(previews_come_first_and_stay_beside_the_rows),
        TEST(a_row_that_is_given_back_waits_as_before),
        TEST(a_lease_that_was_lost_commits_nothing),
        TEST(a_dead_holder_on_this_machine_is_found_at_once),
        TEST(values_that_are_not_finite_are_null_with_one_event),
        TEST(a_row_that_lacks_a_point_is_refused),
        TEST(a_surface_ends_done_only_when_every_row_is),
        TEST(writers_that_share_wait_for_the_one_that_does_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
