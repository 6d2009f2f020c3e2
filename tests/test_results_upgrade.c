/* Files of schema versions 1 and 2 (frozen in tests/data): what is in them stays, their schema
 * becomes a new file's, whole or not at all. */
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "core/file.h"
#include "core/random.h"
#include "results/schema.h"
#include "tests/results_test.h"

enum { N_KILLS = 40 };

static void execute(const char *sql)
{
    Database *database = NULL;
    Error told = {{0}};
    if (database_open(&database, path, DATABASE_CREATE, &told) != STATUS_OK ||
        database_execute(database, sql, &told) != STATUS_OK) {
        fail_msg("%s", told.message);
    }
    database_close(database);
}

static char *read_all(const char *name, size_t *n)
{
    char *bytes = NULL;
    Error told = {{0}};
    if (file_read(&bytes, n, name, 1 << 20, &told) != STATUS_OK) {
        fail_msg("%s", told.message);
    }
    return bytes;
}

/* A file of version 1 with a run in the middle of its life. */
static void make_version_1(void)
{
    Text sql = {0};
    FILE *file = fopen(SOURCE_DIR "/tests/data/results_v1.sql", "rb");
    char line[512];
    assert_non_null(file);
    text_add(&sql, "PRAGMA journal_mode = WAL; BEGIN;\n");
    while (fgets(line, sizeof line, file)) {
        text_add(&sql, line);
    }
    fclose(file);
    text_add(
        &sql,
        "INSERT INTO experiment VALUES ('e', '{}', 1.5);"
        "INSERT INTO run (run_id, kind, experiment, identity, config, model, method, adapter, "
        "budget, lr, seed, steps, last_step, state, created_at) VALUES ('00aa11bb22cc33dd', 'run', "
        "'e', '{}', '{}', 'abacus', 'grpo', 'tinylora', 13, 0.0002, 7, 100, 2, 'waiting', 2.25);"
        "INSERT INTO experiment_run VALUES ('e', '00aa11bb22cc33dd');"
        "INSERT INTO attempt VALUES ('00aa11bb22cc33dd', 1, 'h', 11, 'b', 0, '{}', -1, 2, 3.0, "
        "4.0, 4.5, 'stopped');"
        "INSERT INTO param VALUES ('00aa11bb22cc33dd', 'seed', '7');"
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)"
        "INSERT INTO metric SELECT '00aa11bb22cc33dd', i, 'reward', i * 0.31 FROM n;"
        "INSERT INTO checkpoint VALUES ('00aa11bb22cc33dd', 2, 4, "
        "'88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589', 4.0, x'61626364');"
        "INSERT INTO completion VALUES ('00aa11bb22cc33dd', 2, 0, 0, 3, 'p', 't', 1.0, 0.5, NULL, "
        "'stop', 1, x'05000000', x'0000000000000000');"
        "INSERT INTO evaluation VALUES (3, '00aa11bb22cc33dd', 2, 'dev', 'strict', 1, 1.0, 0.0, "
        "NULL, NULL, NULL, NULL, 4.0);"
        "INSERT INTO eval_completion VALUES ('00aa11bb22cc33dd', 2, 'dev', 0, 0, 't', '2', 1);"
        "INSERT INTO eval_verdict VALUES (3, 0, 0, '2', 1, 1.0);"
        "INSERT INTO artifact VALUES (5, '00aa11bb22cc33dd', NULL, 'adapter', 'a', 1, 'ff', 4.0);"
        "INSERT INTO event VALUES (7, '00aa11bb22cc33dd', 1, 'nonfinite', 'loss is nan', 3.5),"
        "(9, NULL, NULL, 'note', 'x', 3.75); COMMIT;");
    unlink(path);
    execute(sql.bytes);
    text_release(&sql);
}

/* The answer of a query as CSV, appended. */
static void tell(Text *out, const char *file, const char *sql)
{
    Store *store = NULL;
    assert_ok(store_open(&store, file, STORE_READ, 0, error));
    text_add(out, ask(store, sql));
    store_close(store);
}

/* Every table of version 1, straight from SQLite, in one order. event and eval_completion: without
 * the columns of versions 2 and 3. */
static void dump(Text *out)
{
    static const char *const tables[] = {
        "experiment",
        "run",
        "experiment_run",
        "attempt",
        "param",
        "metric",
        "checkpoint",
        "completion",
        "eval_verdict",
        "artifact",
        "evaluation",
        "(SELECT run_id, step, task, row, sample, text, answer, n_tokens FROM eval_completion)",
        "(SELECT event_id, run_id, step, kind, message, at FROM event)"};
    char sql[512];
    Database *database = NULL;
    Error told = {{0}};
    assert_int_equal(database_open(&database, path, DATABASE_READ, &told), STATUS_OK);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        snprintf(sql, sizeof sql, "SELECT * FROM %s ORDER BY 1, 2", tables[i]);
        Statement *statement = NULL;
        bool row = true;
        assert_int_equal(database_prepare_reader(&statement, database, sql, &told), STATUS_OK);
        while (statement_next(statement, &row, &told) == STATUS_OK && row) {
            for (int c = 0; c < statement_columns(statement); c++) {
                Value value = statement_value(statement, c);
                text_printf(out, "%d %lld %a ", (int)value.kind, (long long)value.integer,
                            value.real);
                text_append(out, value.bytes, value.n);
            }
            text_add(out, "\n");
        }
        statement_free(statement);
    }
    database_close(database);
}

static int64_t version_of_file(void)
{
    Database *database = NULL;
    Error told = {{0}};
    int64_t version = 0;
    if (database_open(&database, path, DATABASE_READ, &told) != STATUS_OK ||
        database_number(database, "PRAGMA user_version", &version, &told) != STATUS_OK) {
        fail_msg("%s", told.message);
    }
    database_close(database);
    return version;
}

static void an_older_file_keeps_everything_and_gets_the_schema_of_a_new_one(void **state)
{
    (void)state;
    /* columns that were added stand in another layout: blanks do not count */
    static const char schema[] =
        "SELECT type, name, tbl_name, replace(replace(sql, ' ', ''), char(10), '') "
        "FROM sqlite_schema ORDER BY type, name";
    Store *store = NULL;
    Error told = {{0}};
    Text before = {0}, after = {0}, upgraded = {0}, expected = {0};
    char fresh[96];
    int opened = 0, current = 0;
    snprintf(fresh, sizeof fresh, "%s/fresh.db", folder);
    make_version_1();
    dump(&before);
    assert_int_equal(store_open(&store, path, STORE_READ, 0, &told), STATUS_REFUSED);
    assert_says(&told, "schema version 1 is older than this program's 4; `tinylora db upgrade` "
                       "widens it");
    assert_int_equal(version_of_file(), 1);
    assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
    store_versions(store, &opened, &current);
    assert_true(opened == 1 && current == SCHEMA_VERSION);
    store_close(store);
    dump(&after);
    assert_true(before.n > 50000);
    assert_string_equal(before.bytes, after.bytes);
    assert_ok(store_open(&store, fresh, STORE_WRITE, 0, error));
    store_close(store);
    tell(&upgraded, path, schema);
    tell(&expected, fresh, schema);
    assert_true(upgraded.n > 10000);
    assert_string_equal(upgraded.bytes, expected.bytes);
    text_clear(&upgraded);
    tell(&upgraded, path, "SELECT user_version FROM pragma_user_version");
    tell(&upgraded, path, "PRAGMA foreign_key_check");
    assert_string_equal(upgraded.bytes, "4\r\n");
    text_release(&before);
    text_release(&after);
    text_release(&upgraded);
    text_release(&expected);
}

/* Version 2 has views that were made anew, and its tables. */
static void a_file_of_version_2_gets_the_schema_of_a_new_one(void **state)
{
    (void)state;
    static const char schema[] = "SELECT type, name, replace(replace(sql, ' ', ''), char(10), '') "
                                 "FROM sqlite_schema ORDER BY type, name"; /* as above */
    Store *store = NULL;
    Text upgraded = {0}, expected = {0};
    char fresh[96];
    size_t n = 0;
    char *sql = read_all(SOURCE_DIR "/tests/data/results_v2.sql", &n);
    unlink(path);
    execute(sql);
    execute("INSERT INTO experiment VALUES ('e', '{}', 1.5)");
    free(sql);
    assert_int_equal(version_of_file(), 2);
    assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
    store_close(store);
    snprintf(fresh, sizeof fresh, "%s/fresh.db", folder);
    assert_ok(store_open(&store, fresh, STORE_WRITE, 0, error));
    store_close(store);
    tell(&upgraded, path, schema);
    tell(&expected, fresh, schema);
    assert_string_equal(upgraded.bytes, expected.bytes);
    text_clear(&upgraded);
    tell(&upgraded, path, "SELECT name FROM experiment");
    assert_string_equal(upgraded.bytes, "e\r\n");
    text_release(&upgraded);
    text_release(&expected);
}

/* Version 3 had a table less. */
static void a_file_of_version_3_gets_its_missing_table(void **state)
{
    (void)state;
    Store *store = NULL;
    Text before = {0}, after = {0};
    static const char schema[] = "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name";
    unlink(path);
    assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
    store_close(store);
    tell(&before, path, schema);
    execute("DROP TABLE surface_search; PRAGMA user_version = 3");
    assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
    store_close(store);
    tell(&after, path, schema);
    assert_string_equal(before.bytes, after.bytes);
    assert_int_equal(version_of_file(), SCHEMA_VERSION);
    text_release(&before);
    text_release(&after);
}

static void a_file_with_surfaces_of_someone_else_is_left_as_it_is(void **state)
{
    (void)state;
    Store *store = NULL;
    Error told = {{0}};
    Text before = {0}, after = {0};
    make_version_1();
    execute("INSERT INTO surface VALUES ('s', 'e', '{}', '{}', 'm', 2, 2, 0.0, 1.0, 0.0, 1.0, "
            "'done', NULL, 1.0, NULL)");
    dump(&before);
    assert_int_equal(store_open(&store, path, STORE_WRITE, 0, &told), STATUS_FAILED);
    assert_says(&told, "upgrade from schema 1: CHECK constraint failed: version 1 wrote no "
                       "surfaces, but there are rows in its tables of them");
    assert_int_equal(version_of_file(), 1);
    dump(&after);
    assert_string_equal(before.bytes, after.bytes);
    text_release(&before);
    text_release(&after);
}

static void an_upgrade_that_is_killed_is_whole_or_not_at_all(void **state)
{
    (void)state;
    const uint64_t seed = 20261121;
    int n_old = 0;
    Text before = {0}, after = {0};
    print_message("seed %llu\n", (unsigned long long)seed);
    make_version_1();
    dump(&before);
    for (uint32_t k = 0; k < N_KILLS; k++) {
        make_version_1();
        pid_t child = fork();
        if (child == 0) {
            Store *store = NULL;
            Error told = {{0}};
            _exit(store_open(&store, path, STORE_WRITE, 0, &told) == STATUS_OK ? 0 : 1);
        }
        /* an upgrade takes some milliseconds */
        double ms = 12.0 * random_uniform((RandomKey){seed, RANDOM_DATA}, k, 0, 0, 0);
        nanosleep(&(struct timespec){.tv_nsec = (long)(ms * 1e6)}, NULL);
        kill(child, SIGKILL);
        int code = 0;
        waitpid(child, &code, 0);
        assert_true(WIFSIGNALED(code) || WEXITSTATUS(code) == 0);
        int64_t version = version_of_file();
        assert_true(version == 1 || version == SCHEMA_VERSION);
        n_old += version == 1;
        text_clear(&after);
        dump(&after);
        assert_string_equal(before.bytes, after.bytes);
        /* the next one finishes it */
        Store *store = NULL;
        bool sound = false;
        Text report = {0};
        assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
        assert_ok(store_check(store, &sound, &report, error));
        assert_true(sound);
        text_release(&report);
        store_close(store);
        assert_int_equal(version_of_file(), SCHEMA_VERSION);
    }
    print_message("%d of %d kills came before the commit\n", n_old, N_KILLS);
    text_release(&before);
    text_release(&after);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(an_older_file_keeps_everything_and_gets_the_schema_of_a_new_one),
        TEST(a_file_of_version_2_gets_the_schema_of_a_new_one),
        TEST(a_file_of_version_3_gets_its_missing_table),
        TEST(a_file_with_surfaces_of_someone_else_is_left_as_it_is),
        TEST(an_upgrade_that_is_killed_is_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
