/* Questions about stored runs, and files that are copied and merged, from outside: diff,
 * completions, db snapshot, db merge. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "results/database.h"
#include "tests/cli_scan.h"

#define CONFIG                                                                                     \
    "{\"experiment\": \"pair\", \"model\": \"abacus\", \"adapter\": {\"budget\": 13},\n"           \
    " \"data\": {\"train\": \"" TRAIN "\", \"dev\": \"" SOURCE_DIR                                 \
    "/models/abacus/dev.jsonl\"}, \"eval\": {\"every\": 2, \"rows\": 3},\n"                        \
    " \"grpo\": {\"prompts_per_step\": 2, \"group_size\": 3, \"max_new_tokens\": 8},\n"            \
    " \"steps\": 4, \"sweep\": {\"optimizer.lr\": [0.3, 0.02]}}"

static char *first, *second; /* runs of whole.db */

static int make_runs(void **state)
{
    if (run_setup(state)) {
        return 1;
    }
    run_write("pair.json", CONFIG);
    run_write("scan.json", SCAN_CONFIG(SMALL_GRID));
    expect_ok("--db whole.db sweep pair.json");
    expect_ok("--db whole.db scan scan.json --no-figures");
    first = ask("whole.db", "SELECT run_id FROM run WHERE lr = 0.3");
    second = ask("whole.db", "SELECT run_id FROM run WHERE lr = 0.02");
    return 0;
}

static int drop_runs(void **state)
{
    free(first);
    free(second);
    return run_teardown(state);
}

/* The answer of a command as JSON; *r keeps the text. */
__attribute__((format(printf, 2, 3))) static JsonDocument *parsed(Run *r, const char *format, ...)
{
    char command[256];
    JsonDocument *document = NULL;
    va_list list;
    va_start(list, format);
    vsnprintf(command, sizeof command, format, list);
    va_end(list);
    *r = expect(command, 0);
    if (json_parse(&document, r->out, strlen(r->out), NULL)) {
        fail_msg("not JSON: %s", r->out);
    }
    return document;
}

static void diff_shows_what_differs_and_where_metrics_part(void **state)
{
    (void)state;
    Run r;
    JsonDocument *document = parsed(&r, "--db whole.db diff %s %s -o json", first, second);
    bool lr = false, reward = false;
    for (size_t i = 0; i < json_size(json_root(document)); i++) {
        const Json *row = json_at(json_root(document), i);
        const char *section = json_string(json_get(row, "section"), NULL);
        const char *key = json_string(json_get(row, "key"), NULL);
        assert_string_not_equal(section, "environment"); /* the same process */
        assert_string_not_equal(section, "identity");
        if (strcmp(section, "config") == 0) {
            assert_string_equal(key, "optimizer.lr");
            assert_string_equal(json_string(json_get(row, "a"), NULL), "0.3");
            assert_string_equal(json_string(json_get(row, "b"), NULL), "0.02");
            lr = true;
        }
        if (strcmp(section, "metric") == 0 && strcmp(key, "learning_rate") == 0) {
            double difference = 0, step = 0;
            assert_true(json_double(json_get(row, "difference"), &difference));
            assert_true(difference < -0.27 && difference > -0.29);
            assert_true(json_double(json_get(row, "first_step"), &step) && step == 1);
            reward = true;
        }
    }
    assert_true(lr && reward);
    json_free(document);
    run_free(&r);
    document = parsed(&r, "--db whole.db diff %s %s -o json", first, first);
    assert_int_equal(json_size(json_root(document)), 0);
    json_free(document);
    run_free(&r);
    document = parsed(&r, "--db whole.db diff %s %s --all -o json", first, first);
    assert_true(json_size(json_root(document)) > 50);
    json_free(document);
    run_free(&r);
    expect_refused("--db whole.db diff ffff ffff", 2, "no run \"ffff\"");
}

static void completions_are_what_was_stored(void **state)
{
    (void)state;
    Run r;
    JsonDocument *document = parsed(&r, "--db whole.db completions %s --step 2 -o json", first);
    assert_int_equal(json_size(json_root(document)), 6);
    const Json *row = json_at(json_root(document), 4);
    double number = 0;
    assert_true(json_double(json_get(row, "prompt"), &number) && number == 1);
    assert_true(json_double(json_get(row, "sample"), &number) && number == 1);
    assert_true(json_double(json_get(row, "n_tokens"), &number));
    assert_int_equal(json_size(json_get(row, "ids")), (size_t)number);
    assert_int_equal(json_size(json_get(row, "logprobs")), (size_t)number);
    assert_int_equal(json_kind(json_get(row, "extracted")), JSON_OBJECT);
    /* The blobs, once more by hand. */
    char sql[300];
    snprintf(sql, sizeof sql,
             "SELECT hex(substr(ids, 1, 4)) FROM completion WHERE run_id = '%s' AND step = 2 AND "
             "prompt = 1 AND sample = 1",
             first);
    char *hex = ask("whole.db", sql);
    unsigned bytes[4];
    assert_int_equal(sscanf(hex, "%2x%2x%2x%2x", bytes, bytes + 1, bytes + 2, bytes + 3), 4);
    assert_true(json_double(json_at(json_get(row, "ids"), 0), &number));
    assert_int_equal((int)number,
                     (int)(bytes[0] | bytes[1] << 8 | bytes[2] << 16 | bytes[3] << 24));
    assert_true(json_double(json_at(json_get(row, "logprobs"), 0), &number) && number <= 0);
    free(hex);
    json_free(document);
    run_free(&r);
    document = parsed(&r, "--db whole.db completions %s --limit 2 -o json", first);
    assert_int_equal(json_size(json_root(document)), 2);
    assert_true(json_double(json_get(json_at(json_root(document), 1), "step"), &number));
    assert_true(number == 4);
    json_free(document);
    run_free(&r);
    char command[200];
    snprintf(command, sizeof command, "--db whole.db completions %s", first);
    r = expect(command, 0);
    assert_non_null(strstr(r.out, "prompt_text"));
    run_free(&r);
}

/* All rows of all tables but what only names rows, in one text. */
static char *dump(const char *db)
{
    static const char *const queries[] = {
        "SELECT * FROM run ORDER BY run_id",
        "SELECT * FROM experiment_run ORDER BY 1, 2",
        "SELECT * FROM attempt ORDER BY run_id, n",
        "SELECT * FROM param ORDER BY run_id, key",
        "SELECT * FROM metric ORDER BY run_id, step, key",
        "SELECT * FROM checkpoint ORDER BY run_id, step",
        "SELECT * FROM completion ORDER BY run_id, step, prompt, sample",
        "SELECT run_id, step, task, extractor, n, value, standard_error, base_run_id, base_value, "
        "p_value, detail, created_at FROM evaluation ORDER BY run_id, step, task, extractor",
        "SELECT * FROM eval_sample ORDER BY run_id, step, task, extractor, row, sample",
        "SELECT run_id, surface_id, step, kind, message FROM event ORDER BY run_id, surface_id, "
        "step, kind, message",
        "SELECT * FROM surface_row ORDER BY surface_id, i"};
    char *surfaces = dump_surface(db);
    Text all = {0};
    text_add(&all, surfaces);
    free(surfaces);
    for (size_t i = 0; i < sizeof queries / sizeof queries[0]; i++) {
        char *answer = ask(db, queries[i]);
        text_add(&all, answer);
        free(answer);
    }
    return all.bytes;
}

static void a_snapshot_is_the_whole_file(void **state)
{
    (void)state;
    expect_ok("--db whole.db db snapshot copy.db");
    char *one = dump("whole.db"), *other = dump("copy.db");
    assert_same_surface(one, other);
    free(one);
    free(other);
    expect_ok("--db copy.db db check");
    expect_ok("--db copy.db sweep pair.json"); /* nothing to do, and it can be written to */
    expect_refused("--db whole.db db snapshot copy.db", 2, "\"copy.db\" is there already");
    expect_refused("--db whole.db db snapshot nowhere/copy.db", 1, "nowhere/copy.db");
}

static void runs_and_surfaces_of_other_files_come_over_whole(void **state)
{
    (void)state;
    forget("one.db");
    forget("two.db");
    expect_ok("--db one.db sweep pair.json --set sweep.optimizer.lr=[0.3]");
    expect_ok("--db two.db sweep pair.json --set sweep.optimizer.lr=[0.02]");
    expect_ok("--db two.db scan scan.json --no-figures");
    expect_ok("--db one.db db merge two.db");
    expect_ok("--db one.db db check");
    assert_int_equal(ask_number("one.db", "SELECT count(*) FROM run WHERE kind = 'run'"), 2);
    assert_int_equal(ask_number("one.db", "SELECT count(*) FROM surface_point"),
                     ask_number("two.db", "SELECT count(*) FROM surface_point"));
    char command[200];
    for (int k = 0; k < 2; k++) {
        snprintf(command, sizeof command, "--db one.db replay %s", k ? second : first);
        expect_ok(command);
    }
    /* Merged with a copy of itself nothing changes; an empty file takes all. */
    expect_ok("--db one.db db snapshot same.db");
    char *before = dump("one.db");
    expect_ok("--db one.db db merge same.db");
    expect_ok("--db new.db db merge one.db");
    char *after = dump("one.db"), *taken = dump("new.db");
    assert_same_surface(before, after);
    assert_same_surface(before, taken);
    expect_ok("--db new.db db check");
    expect_ok("--db new.db sweep pair.json");
    free(before);
    free(after);
    free(taken);
}

static void a_conflict_is_refused_by_name_and_nothing_is_written(void **state)
{
    (void)state;
    Database *database = NULL;
    Error error = {{0}};
    char words[128];
    forget("other.db");
    assert_int_equal(system("cp whole.db other.db"), 0);
    assert_int_equal(database_open(&database, "other.db", DATABASE_WRITE, &error), STATUS_OK);
    assert_int_equal(database_execute(database,
                                      "UPDATE metric SET value = value + 1 WHERE step = 3 AND key "
                                      "= 'entropy' AND run_id = (SELECT run_id FROM run WHERE lr = "
                                      "0.3)",
                                      &error),
                     STATUS_OK);
    database_close(database);
    forget("half.db");
    expect_ok("--db half.db sweep pair.json --set sweep.optimizer.lr=[0.3]");
    snprintf(words, sizeof words, "run %s is in both, and differs: step 3: metric", first);
    expect_refused("--db half.db db merge other.db", 3, words);
    assert_int_equal(ask_number("half.db", "SELECT count(*) FROM run WHERE kind = 'run'"), 1);
    expect_refused("--db half.db db merge nothing.db", 1, "\"nothing.db\": no such file");
    run_write("garbage.db", "no database at all, this");
    expect_refused("--db half.db db merge garbage.db", 3, "not an SQLite database");
}

/* min_p 1 leaves the likeliest token alone, a large penalty no token of the prompt: groups of one
 * text, and other texts. */
static void a_config_shapes_what_is_sampled(void **state)
{
    (void)state;
    run_write("pair.json", CONFIG);
    expect_ok("--db cut.db sweep pair.json --set grpo.min_p=1 --set steps=1");
    assert_int_equal(ask_number("cut.db", "SELECT max(n) FROM (SELECT count(DISTINCT ids) AS n "
                                          "FROM completion GROUP BY run_id, step, prompt)"),
                     1);
    expect_ok("--db cut.db sweep pair.json --set grpo.min_p=1 --set steps=1 "
              "--set grpo.repetition_penalty=1000");
    assert_int_equal(ask_number("cut.db", "SELECT count(*) FROM run WHERE kind = 'run'"), 4);
    assert_int_equal(ask_number("cut.db", "SELECT count(DISTINCT ids) FROM completion"), 4);
    assert_true(ask_number("whole.db", "SELECT max(n) FROM (SELECT count(DISTINCT ids) AS n "
                                       "FROM completion GROUP BY run_id, step, prompt)") > 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(diff_shows_what_differs_and_where_metrics_part),
        cmocka_unit_test(completions_are_what_was_stored),
        cmocka_unit_test(a_config_shapes_what_is_sampled),
        cmocka_unit_test(a_snapshot_is_the_whole_file),
        cmocka_unit_test(runs_and_surfaces_of_other_files_come_over_whole),
        cmocka_unit_test(a_conflict_is_refused_by_name_and_nothing_is_written),
    };
    return cmocka_run_group_tests(tests, make_runs, drop_runs);
}
