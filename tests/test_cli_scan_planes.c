/* Planes through stored runs, from outside: where they lie, what they are refused for, the paths
 * that are laid over surfaces. */
#include <math.h>

#include "tests/cli_scan.h"

#define DEV SOURCE_DIR "/models/abacus/dev.jsonl"
#define SCAN "--db p.db scan plane.json --no-figures --set "

static char run_1[32], run_2[32], run_3[32], run_full[32], other_model[32];

/* Train with SFT for a few steps; id: out. */
static void train(const char *db, char id[32], const char *settings)
{
    char command[512];
    snprintf(command, sizeof command, "--db %s -o csv sft run.json %s", db, settings);
    Run r = expect(command, 0);
    const char *line = strchr(r.out, '\n') + 1;
    snprintf(id, 32, "%.16s", line);
    assert_int_equal(strspn(id, "0123456789abcdef"), 16);
    run_free(&r);
}

static int make_runs(void **state)
{
    if (run_setup(state)) {
        return 1;
    }
    run_write("run.json",
              "{\"experiment\": \"runs\", \"model\": \"abacus\", \"method\": \"sft\",\n"
              " \"adapter\": {\"budget\": 5}, \"data\": {\"train\": \"" TRAIN "\", \"dev\": \"" DEV
              "\"},\n \"sft\": {\"batch_size\": 2}, \"optimizer\": {\"lr\": 0.1}, \"steps\": 6,\n"
              " \"eval\": {\"every\": 0, \"rows\": 2, \"max_new_tokens\": 4}}\n");
    run_write("plane.json", "{\"model\": \"abacus\", \"method\": \"scan\", \"data\": {\"train\": "
                            "\"" TRAIN "\"},\n \"scan\": {\"rows\": 3, \"x\": \"auto:9\", \"y\": "
                            "\"auto:9\"}}\n");
    train("p.db", run_1, "");
    train("p.db", run_2, "--set seed=2");
    train("p.db", run_3, "--set adapter.seed=14");
    train(
        "p.db", run_full,
        "--set adapter.method=full --set optimizer.lr=1e-3 --set steps=3 --set checkpoint.keep=4");
    assert_int_equal(system("cp -r '" SOURCE_DIR "/models/abacus' model"), 0);
    FILE *weights = fopen("model/model.safetensors", "r+b");
    fseek(weights, -3, SEEK_END);
    fputc(0x3e, weights);
    fclose(weights);
    train("p.db", other_model, "--set model=./model");
    return 0;
}

/* Scan with these settings, giving the experiment a name to ask by. */
static void scan(const char *experiment, const char *settings, const char *run)
{
    char command[512];
    snprintf(command, sizeof command, SCAN "experiment=%s --set scan.run=%.7s %s", experiment, run,
             settings);
    expect_ok(command);
}

static double value(const char *sql, const char *experiment)
{
    char command[512], *end;
    snprintf(command, sizeof command, "%s AND s.experiment = '%s'", sql, experiment);
    char *answer = ask("p.db", command);
    double number = strtod(answer, &end);
    if (end == answer || *end) {
        print_error("%s\n%s\n", command, answer);
        fail();
    }
    free(answer);
    return number;
}

#define MARK(column, kind_)                                                                        \
    "SELECT " column                                                                               \
    " FROM surface_mark m JOIN surface s USING (surface_id) WHERE m.kind = '" kind_ "'"

static void the_run_is_the_origin_of_planes_through_one(void **state)
{
    (void)state;
    static const char *const settings[] = {"--set scan.directions=axes --set scan.axes=1:4",
                                           "--set scan.directions=random",
                                           "--set scan.directions=pca"};
    static const char *const names[] = {"axes", "random", "pca"};
    for (int i = 0; i < 3; i++) {
        scan(names[i], settings[i], run_1);
        assert_true(fabs(value(MARK("x", "run"), names[i])) < 1e-12);
        assert_true(fabs(value(MARK("y", "run"), names[i])) < 1e-12);
        assert_true(fabs(value(MARK("distance", "run"), names[i])) < 1e-12);
        assert_int_equal(value(MARK("count(*)", "path"), names[i]), 7); /* steps 0 to 6 */
        assert_true(value(MARK("value", "minimum") " AND m.metric = 'loss'", names[i]) <=
                    value(MARK("value", "best") " AND m.metric = 'loss'", names[i]));
        assert_int_equal(value("SELECT count(*) FROM surface_hessian h JOIN surface s USING "
                               "(surface_id) WHERE h.place = 'minimum'",
                               names[i]),
                         5);
    }
    /* The base has its value whatever plane is looked at, and lies off these planes. */
    assert_true(value(MARK("value", "base") " AND m.metric = 'loss'", "axes") ==
                value(MARK("value", "base") " AND m.metric = 'loss'", "pca"));
    assert_true(value(MARK("distance", "base") " AND m.metric = 'loss'", "axes") > 1e-3);
    /* The plane of the path holds it best. */
    assert_true(value(MARK("sum(distance)", "path"), "pca") <
                value(MARK("sum(distance)", "path"), "random"));
}

static void the_run_has_the_loss_that_the_plane_has_at_its_origin(void **state)
{
    (void)state;
    run_write("text.jsonl", "\"Tom has 6 cards, gives 1. How many?\\n\"\n");
    char command[160];
    snprintf(command, sizeof command, "--db p.db -o json score --run %s --file text.jsonl", run_1);
    Run one = expect(command, 0);
    Run other = expect("--db p.db -o json score --surface pca --at 0,0 --file text.jsonl", 0);
    assert_string_equal(one.out, other.out);
    run_free(&one);
    run_free(&other);
}

static void a_plane_through_two_runs_has_base_and_first_run_on_it(void **state)
{
    (void)state;
    char settings[128];
    snprintf(settings, sizeof settings,
             "--set scan.directions=runs --set scan.run_2=%s --set scan.x=-0.5:1.5:9", run_2);
    scan("two", settings, run_1);
    assert_true(value(MARK("distance", "base") " AND m.metric = 'loss'", "two") < 1e-12);
    assert_true(value("SELECT p.value = m.value FROM surface_mark m JOIN surface s USING "
                      "(surface_id) JOIN surface_point p USING (surface_id, metric) WHERE m.kind "
                      "= 'base' AND m.metric = 'loss' AND p.x = 0 AND p.y = 0",
                      "two") == 1);
    /* x = 1 is the first run, to a float's rounding of v. */
    assert_true(
        fabs(value("SELECT max(abs(x - 1) + abs(y)) FROM surface_mark m JOIN surface s USING "
                   "(surface_id) WHERE m.kind = 'run' AND abs(y) < 1e-9",
                   "two")) < 1e-9);
    assert_int_equal(value(MARK("count(*)", "run"), "two"), 2);
}

static void the_weights_themselves_are_a_plane_too(void **state)
{
    (void)state;
    scan("full", "--set scan.directions=random --set scan.x=-2:2:3 --set scan.y=-1:1:3", run_full);
    assert_int_equal(value("SELECT n_parameters FROM surface s WHERE 1", "full"), 441696);
    assert_int_equal(value("SELECT count(*) FROM surface_point JOIN surface s USING (surface_id) "
                           "WHERE metric = 'loss' AND value IS NOT NULL",
                           "full"),
                     9);
    scan("full-pca", "--set scan.directions=pca --set scan.y=-2:2:3 --set scan.x=-1:1:3", run_full);
    Run one = expect("--db p.db -o json score --surface full --at base --file text.jsonl", 0);
    Run other = expect("-o json score --model abacus --file text.jsonl", 0);
    assert_string_equal(one.out, other.out);
    run_free(&one);
    run_free(&other);
}

static void runs_of_the_same_two_scalars_are_laid_over_their_surface(void **state)
{
    (void)state;
    char id[32], later[32], command[256];
    train("p.db", id, "--set adapter.budget=2 --set steps=3");
    expect_ok(SCAN "experiment=scalars --set adapter.budget=2");
    assert_int_equal(value(MARK("count(*)", "path"), "scalars"), 4);
    /* A later one is laid over it on demand, without measuring anything. */
    train("p.db", later, "--set adapter.budget=2 --set steps=2 --set seed=7");
    snprintf(command, sizeof command, SCAN "experiment=scalars --set adapter.budget=2 --path %s",
             later);
    Run r = expect(command, 0);
    assert_non_null(strstr(r.err, "0 of them now"));
    run_free(&r);
    assert_int_equal(value(MARK("count(*)", "path"), "scalars"), 7);
    snprintf(command, sizeof command, SCAN "experiment=scalars --set adapter.budget=2 --path %s",
             run_1);
    expect_refused(command, 2, "--path: run ");
}

static void refuse(const char *settings, const char *run, int code, const char *message)
{
    char command[512];
    snprintf(command, sizeof command, SCAN "experiment=wrong --set scan.run=%s %s", run, settings);
    expect_refused(command, code, message);
}

static void planes_that_are_none_are_refused(void **state)
{
    (void)state;
    char settings[128];
    refuse("--set scan.directions=axes --set scan.axes=1:1", run_1, 2, "parallel");
    refuse("--set scan.directions=axes --set scan.axes=1:5", run_1, 2, "has 5 scalars, 0 to 4");
    refuse("--set scan.directions=axes --set scan.axes=1", run_1, 2, "two indices of v");
    refuse("--set scan.directions=runs", run_1, 2, "scan.run_2: must be given");
    snprintf(settings, sizeof settings, "--set scan.directions=runs --set scan.run_2=%s", run_1);
    refuse(settings, run_1, 2, "parallel");
    snprintf(settings, sizeof settings, "--set scan.directions=runs --set scan.run_2=%s", run_3);
    refuse(settings, run_1, 2, "different adapters: adapter.seed");
    refuse("--set scan.directions=random", "0000", 2, "no run \"0000\"");
    refuse("--set scan.directions=random", other_model, 2,
           "is of another model: model.weights_sha256 of ");
}

static void another_seed_of_the_directions_is_another_plane(void **state)
{
    (void)state;
    char command[256];
    snprintf(command, sizeof command,
             SCAN "experiment=random --set scan.run=%s --set scan.directions=random --set "
                  "scan.seed=2",
             run_1);
    Run r = expect(command, 2);
    assert_non_null(strstr(r.err, "scan.seed: 1 -> 2"));
    assert_non_null(strstr(r.err, "differs in scan.plane_sha256, scan.seed;"));
    run_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_run_is_the_origin_of_planes_through_one),
        cmocka_unit_test(the_run_has_the_loss_that_the_plane_has_at_its_origin),
        cmocka_unit_test(a_plane_through_two_runs_has_base_and_first_run_on_it),
        cmocka_unit_test(the_weights_themselves_are_a_plane_too),
        cmocka_unit_test(runs_of_the_same_two_scalars_are_laid_over_their_surface),
        cmocka_unit_test(planes_that_are_none_are_refused),
        cmocka_unit_test(another_seed_of_the_directions_is_another_plane),
    };
    return cmocka_run_group_tests(tests, make_runs, run_teardown);
}
