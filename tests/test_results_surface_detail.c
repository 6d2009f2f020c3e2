/* Surfaces beside their rows: finding, marks, slices, eigenpairs, artifacts, views, `db check`. */
#include "results/database.h"
#include "tests/surface_test.h"

static void surfaces_are_found_by_prefix_and_by_experiment(void **state)
{
    (void)state;
    Store *store = open_with_surface(STORE_WRITE);
    StoredSurface found;
    RunState surface_state;
    Error told = {{0}};
    Worker here = worker_here();
    SurfaceLease lease = claim(store, &here, in_order, 1, 10.0);
    commit(store, &lease, 11.0);
    assert_ok(store_find_surface(store, "5a0", &found, error));
    assert_string_equal(found.surface_id, id);
    assert_string_equal(found.experiment, "e");
    assert_string_equal(found.identity, "{\"a\":1}");
    assert_string_equal(found.metrics, "[\"loss\",\"accuracy\"]");
    assert_string_equal(found.y_label, "y");
    assert_null(found.run_id);
    assert_int_equal(found.state, RUN_RUNNING);
    assert_true(found.n_parameters == 3 && memcmp(found.plane, plane, sizeof plane) == 0);
    assert_true(found.nx == NX && found.ny == NY && found.rows_done == 1);
    assert_true(found.x_min == -0.3 && found.y_max == 0.2);
    free(found.block);
    assert_ok(store_find_surface(store, "e", &found, error));
    assert_string_equal(found.surface_id, id);
    free(found.block);

    bool there = true;
    Text rival = {0}, identity = {0};
    assert_ok(store_surface_rival(store, "e", id, &there, &rival, &identity, error));
    assert_false(there);
    SurfaceInfo other = surface_info;
    other.surface_id = "5a0f";
    other.identity = "{\"a\":2}";
    assert_ok(store_surface(store, &other, 3.0, &surface_state, error));
    assert_ok(store_surface_rival(store, "e", id, &there, &rival, &identity, error));
    assert_true(there);
    assert_string_equal(rival.bytes, "5a0f");
    assert_string_equal(identity.bytes, "{\"a\":2}");
    text_release(&rival);
    text_release(&identity);

    assert_ok(store_find_surface(store, "5a0f", &found, error)); /* exactly this one */
    assert_string_equal(found.surface_id, "5a0f");
    free(found.block);
    assert_int_equal(store_find_surface(store, "5a", &found, &told), STATUS_USAGE);
    assert_says(&told, "\"5a\" means more than one surface: 5a0f3c1d2e4b6a70 (e), 5a0f (e)");
    assert_int_equal(store_find_surface(store, "e", &found, &told), STATUS_USAGE);
    assert_says(&told, "\"e\" means more than one surface");
    assert_int_equal(store_find_surface(store, "zz", &found, &told), STATUS_USAGE);
    assert_says(&told, "no surface \"zz\"; there are: 5a0f3c1d2e4b6a70 (e), 5a0f (e)");
    assert_int_equal(store_find_surface(store, "%", &found, &told), STATUS_USAGE);
    store_close(store);
    unlink(path);
    assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
    assert_int_equal(store_find_surface(store, "zz", &found, &told), STATUS_USAGE);
    assert_says(&told, "no surface \"zz\"; there are none");
    store_close(store);
}

static void marks_slices_and_eigenpairs_come_back_and_are_replaced(void **state)
{
    (void)state;
    Store *store = open_with_surface(STORE_WRITE);
    SurfaceMark marks[] = {{"base", "", "loss", 0, 0.0, 0.0, 0.25, 1.5},
                           {"minimum", "", "loss", 0, 0.01, -0.02, 0.0, 0.7},
                           {"path", "run", "", 3, 0.1, 0.2, 0.3, NAN}};
    assert_ok(store_surface_marks(store, id, marks, 3, error));
    marks[1].value = 0.6;
    assert_ok(store_surface_marks(store, id, marks + 1, 1, error));
    assert_string_equal(ask(store, "SELECT kind, name, place, metric, x, y, distance, value FROM "
                                   "surface_mark"),
                        "base,\"\",0,loss,0,0,0.25,1.5\r\n"
                        "minimum,\"\",0,loss,0.01,-0.02,0,0.59999999999999998\r\n"
                        "path,run,3,\"\",0.10000000000000001,0.20000000000000001,"
                        "0.29999999999999999,\r\n");
    SurfaceSlice slices[] = {{"x", "loss", 0, -1, 0.5, 0, 2.5},
                             {"x", "loss", 1, 0, 0.25, 0, 1.5},
                             {"y", "loss", 0, -1, 0, 0.125, 3.5}};
    assert_ok(store_surface_slices(store, id, slices, 3, error));
    assert_ok(store_surface_slices(store, id, slices, 1, error)); /* x is shorter now */
    assert_string_equal(ask(store, "SELECT name, place, metric, t, x, y, value FROM surface_slice"),
                        "x,0,loss,-1,0.5,0,2.5\r\ny,0,loss,-1,0,0.125,3.5\r\n");
    const double first[] = {0.6, 0.8, 0}, second[] = {0, 0, 1};
    SurfaceEigen pairs[] = {{"minimum", 0, 9.5, first}, {"minimum", 1, -0.5, second}};
    assert_ok(store_surface_eigen(store, id, pairs, 2, error));
    assert_ok(store_surface_eigen(store, id, pairs, 2, error));
    assert_string_equal(ask(store, "SELECT place, k, eigenvalue, hex(eigenvector) FROM "
                                   "surface_hessian"),
                        "minimum,0,9.5,333333333333E33F9A9999999999E93F0000000000000000\r\n"
                        "minimum,1,-0.5,00000000000000000000000000000000000000000000F03F\r\n");
    Error told = {{0}};
    marks[0].kind = "peak";
    assert_int_equal(store_surface_marks(store, id, marks, 1, &told), STATUS_FAILED);
    assert_says(&told, "CHECK constraint failed");
    assert_int_equal(store_surface_eigen(store, "none", pairs, 2, &told), STATUS_FAILED);
    assert_says(&told, "there is no surface none");
    assert_int_equal(store_surface_slices(store, "none", slices, 1, &told), STATUS_FAILED);
    assert_says(&told, "FOREIGN KEY");
    assert_ok(store_surface_event(store, id, "note", "hello", 4.0, error));
    assert_string_equal(ask(store, "SELECT surface_id, kind, message, at, run_id FROM event"),
                        "5a0f3c1d2e4b6a70,note,hello,4,\r\n");
    store_close(store);
}

static void an_artifact_replaces_the_one_of_its_path(void **state)
{
    (void)state;
    Store *store = open_with_surface(STORE_SHARED);
    assert_ok(store_artifact(store, NULL, id, "figure", "a.png", 10, "aa", 1.0, error));
    assert_ok(store_artifact(store, NULL, NULL, "figure", "b.png", 11, "bb", 1.0, error));
    assert_ok(store_artifact(store, NULL, id, "figure", "a.png", 12, "cc", 2.0, error));
    assert_string_equal(
        ask(store, "SELECT path, surface_id, n_bytes, sha256, created_at FROM artifact ORDER BY 1"),
        "a.png,5a0f3c1d2e4b6a70,12,cc,2\r\nb.png,,11,bb,1\r\n");
    Error told = {{0}};
    assert_int_equal(store_artifact(store, "none", NULL, "x", "a.png", 1, "dd", 3.0, &told),
                     STATUS_FAILED);
    assert_says(&told, "FOREIGN KEY");
    assert_string_equal(ask(store, "SELECT count(*) FROM artifact"), "2\r\n");
    store_close(store);
}

static void views_tell_how_far_a_surface_is_and_what_is_known(void **state)
{
    (void)state;
    Store *store = open_with_surface(STORE_WRITE);
    Worker here = worker_here();
    SurfaceValue values[N_VALUES];
    bool kept;
    SurfaceMark base = {"base", "", "loss", 0, 0.0, 0.0, 0.0, 0.75};
    assert_ok(store_surface_marks(store, id, &base, 1, error));
    SurfaceLease lease = claim(store, &here, in_order, 6, 10.0);
    assert_true(lease.preview);
    commit(store, &lease, 11.0);
    assert_string_equal(ask(store, "SELECT metric, printf('%.1f %.1f %.6f', x, y, value) FROM "
                                   "surface_mark WHERE kind = 'best'"),
                        "accuracy,-0.3 0.2 0.925296\r\nloss,-0.3 0.2 -0.933189\r\n");
    /* a preview of 3 of 5 points took a second */
    assert_string_equal(ask(store, "SELECT rows_done, rows_previewed, printf('%.3f', "
                                   "seconds_per_row) FROM surface_progress"),
                        "0,1,1.667\r\n");
    lease = claim(store, &here, in_order, 6, 12.0);
    commit(store, &lease, 13.0); /* the loss is lower at (6, 2), the accuracy not higher */
    lease = claim(store, &here, in_order, 6, 14.0);
    assert_true(lease.i == 0 && !lease.preview);
    size_t n = row_values(values, 0, 1);
    values[0].value = NAN;
    assert_ok(store_surface_commit(store, id, &lease, values, n, 16.0, &kept, error));
    lease = claim(store, &here, in_order, 6, 17.0);
    assert_string_equal(
        ask(store,
            "SELECT experiment, state, grid, rows_done, rows, rows_held, rows_previewed, "
            "seconds_per_row, metric, base_value, printf('%.6f at %.1f', best_value, best_x), "
            "heartbeat_at FROM surface_progress"),
        "e,running,7 x 5,1,7,1,2,2,loss,0.75,-0.951602 at 0.3,17\r\n");
    assert_string_equal(ask(store,
                            "SELECT metric, base_value, printf('%.6f', best_value), last_seen FROM "
                            "surface_list"),
                        "loss,0.75,-0.951602,1970-01-01 00:00:17\r\n");
    assert_string_equal(ask(store, "SELECT rows_done, rows_held, pid = (SELECT max(pid) FROM "
                                   "surface_row), born > 0, heartbeat_at FROM surface_process"),
                        "1,1,1,1,17\r\n");
    const double unit[] = {1, 0, 0};
    SurfaceEigen pairs[] = {{"minimum", 0, 9.5, unit}, {"base", 0, 2.5, unit}};
    SurfaceMark more[] = {{"path", "r", "loss", 3, 0.1, 0.2, 0.3, 0.5},
                          {"path", "r", "loss", 9, 0.1, 0.2, 0.3, 0.4},
                          {"minimum", "", "loss", 0, 0.1, 0.2, 0.0, 0.3}};
    assert_ok(store_surface_eigen(store, id, pairs, 2, error));
    assert_ok(store_surface_marks(store, id, more, 3, error));
    assert_ok(store_surface_event(store, id, "note", "hello", 18.0, error));
    assert_ok(store_artifact(store, NULL, id, "figure", "a.png", 10, "aa", 19.0, error));
    assert_string_equal(
        ask(store,
            "SELECT section, key, value FROM surface_show WHERE surface_id = '5a0f3c1d2e4b6a70' "
            "AND section <> 'process'"),
        "surface,state,running\r\nsurface,experiment,e\r\nsurface,model,abacus\r\n"
        "surface,budget,3\r\nsurface,grid,7 x 5\r\nsurface,x,x from -0.3 to 0.3\r\n"
        "surface,y,y from -0.2 to 0.2\r\nsurface,metrics,\"loss, accuracy\"\r\n"
        "surface,rows,\"1 of 7 done, 1 at work, 5 waiting\"\r\n"
        "surface,created,1970-01-01 00:00:02\r\n"
        "value,base loss,\"0.75 at (0, 0)\"\r\n"
        "value,best accuracy,\"0.9252957512 at (-0.3, 0.2)\"\r\n"
        "value,best loss,\"-0.9516020739 at (0.3, 0)\"\r\n"
        "value,minimum loss,\"0.3 at (0.1, 0.2)\"\r\n"
        "curvature,base eigenvalue 1,2.5\r\ncurvature,minimum eigenvalue 1,9.5\r\n"
        "path,r,\"2 checkpoints, step 3 to 9\"\r\n"
        "event,1 x,\"nonfinite: loss is not a number at (0, 0): x -0.3, y -0.2\"\r\n"
        "event,\"\",note: hello\r\n"
        "artifact,figure,a.png\r\n");
    store_close(store);
}

/* One statement that breaks something; what `db check` says then. */
static void breaks(const char *sql, const char *finding)
{
    Database *database = NULL;
    Store *store = NULL;
    bool sound = true;
    Text report = {0};
    char copy[128], command[300];
    snprintf(copy, sizeof copy, "%s-broken", path);
    snprintf(command, sizeof command, "cp %s %s", path, copy);
    assert_int_equal(system(command), 0);
    assert_ok(database_open(&database, copy, DATABASE_WRITE, error));
    assert_ok(database_execute(database, "PRAGMA foreign_keys = OFF", error));
    assert_ok(database_execute(database, sql, error));
    database_close(database);
    assert_ok(store_open(&store, copy, STORE_READ, 0, error));
    assert_ok(store_check(store, &sound, &report, error));
    store_close(store);
    if (sound || !strstr(report.bytes, finding)) {
        fail_msg("%s: %s", sql, report.bytes);
    }
    text_release(&report);
}

static void a_check_finds_what_surfaces_break(void **state)
{
    (void)state;
    Store *store = open_with_surface(STORE_WRITE);
    Worker here = worker_here();
    bool sound = false;
    Text report = {0};
    for (int k = 0; k < 5; k++) { /* two previews, rows 0 to 2; row 3 is held */
        SurfaceLease lease = claim(store, &here, in_order, 6, 10.0);
        commit(store, &lease, 11.0);
    }
    claim(store, &here, in_order, 6, 12.0);
    const double unit[] = {1, 0, 0};
    SurfaceEigen pair = {"minimum", 0, 9.5, unit};
    assert_ok(store_surface_eigen(store, id, &pair, 1, error));
    assert_ok(store_check(store, &sound, &report, error));
    assert_true(sound);
    assert_non_null(strstr(report.bytes, "surfaces: ok"));
    text_release(&report);
    store_close(store);
    breaks("UPDATE surface SET plane = x'00'",
           "surface 5a0f3c1d2e4b6a70: its plane has 1 bytes for 3 parameters");
    breaks("UPDATE surface SET metrics = 'loss'", "its metrics are no list");
    breaks("DELETE FROM surface_row WHERE i = 5", "surface 5a0f3c1d2e4b6a70: 6 rows of 7");
    breaks("UPDATE surface SET state = 'done'", "is done, but 4 of its rows are not");
    breaks("DELETE FROM surface_point WHERE i = 1 AND j = 2 AND metric = 'loss'",
           "row 1 is done with 4 of 5 points of \"loss\"");
    breaks("UPDATE surface_row SET state = 'waiting' WHERE i = 2", "row 2 is waiting, but has 10");
    breaks("UPDATE surface_row SET host = NULL WHERE i = 3", "row 3 is held by nobody");
    breaks("UPDATE surface_point SET value = value + 1e-15 WHERE i = 0 AND j = 2",
           "row 0: 2 values differ from its preview");
    breaks("UPDATE surface_hessian SET eigenvector = x'00'",
           "minimum: eigenvector 0 has 1 bytes for 3 parameters");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(surfaces_are_found_by_prefix_and_by_experiment),
        TEST(marks_slices_and_eigenpairs_come_back_and_are_replaced),
        TEST(an_artifact_replaces_the_one_of_its_path),
        TEST(views_tell_how_far_a_surface_is_and_what_is_known),
        TEST(a_check_finds_what_surfaces_break),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
