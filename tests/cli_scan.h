/* What the tests of `scan` share: a small surface of the embedded model, its bytes, refusals. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/json.h"
#include "core/text.h"
#include "tests/cli_run.h"

#define TRAIN SOURCE_DIR "/models/abacus/train.jsonl"

/* 9 x 9 points of 4 rows: some tenths of a second. */
#define SCAN_CONFIG(grid)                                                                          \
    "{\"experiment\": \"hill\", \"model\": \"abacus\", \"method\": \"scan\",\n"                    \
    " \"adapter\": {\"budget\": 2}, \"data\": {\"train\": \"" TRAIN "\"},\n"                       \
    " \"scan\": {" grid ", \"rows\": 4, \"values\": [\"loss\", \"entropy\"]}}\n"
#define SMALL_GRID "\"x\": \"-1:1:9\", \"y\": \"-0.8:0.8:9\""

/* The command must end with this code; its stdout and stderr are returned. */
static inline Run expect(const char *arguments, int code)
{
    Run r = run(arguments);
    if (r.code != code) {
        print_error("tinylora %s: exit code %d, wanted %d\n%s%s\n", arguments, r.code, code, r.out,
                    r.err);
        fail();
    }
    return r;
}

static inline void expect_ok(const char *arguments)
{
    Run r = expect(arguments, 0);
    run_free(&r);
}

/* The code, and a text in stderr's last line, which is the program's. */
static inline void expect_refused(const char *arguments, int code, const char *message)
{
    Run r = expect(arguments, code);
    if (!strstr(r.err, message) || !strstr(r.err, "tinylora: ")) {
        print_error("tinylora %s\n%swanted: %s\n", arguments, r.err, message);
        fail();
    }
    assert_string_equal(r.out, "");
    run_free(&r);
}

/* What a statement answers, as CSV without the header; free it. */
static inline char *ask(const char *db, const char *sql)
{
    char command[1024];
    snprintf(command, sizeof command, "--db %s query -o csv \"%s\"", db, sql);
    Run r = expect(command, 0);
    char *line = strchr(r.out, '\n');
    char *answer = strdup(line ? line + 1 : "");
    size_t n = strlen(answer);
    while (n > 0 && (answer[n - 1] == '\n' || answer[n - 1] == '\r')) {
        answer[--n] = 0;
    }
    run_free(&r);
    return answer;
}

static inline long ask_number(const char *db, const char *sql)
{
    char *answer = ask(db, sql);
    long number = strtol(answer, NULL, 10);
    free(answer);
    return number;
}

/* All that a scan leaves but times and leases. */
static inline char *dump_surface(const char *db)
{
    static const char *const queries[] = {
        "SELECT surface_id, experiment, identity, config, hex(plane) AS plane, metrics, nx, ny, "
        "x_min, x_max, y_min, y_max, state FROM surface ORDER BY surface_id",
        "SELECT surface_id, i, state, previewed FROM surface_row ORDER BY surface_id, i",
        "SELECT * FROM surface_point ORDER BY surface_id, i, j, metric",
        "SELECT * FROM surface_preview ORDER BY surface_id, i, j, metric",
        "SELECT * FROM surface_mark ORDER BY surface_id, kind, name, place, metric",
        "SELECT surface_id, place, k, eigenvalue, hex(eigenvector) AS v FROM surface_hessian ORDER "
        "BY surface_id, place, k",
        "SELECT * FROM surface_slice ORDER BY surface_id, name, place, metric",
        "SELECT * FROM surface_search ORDER BY surface_id, search, place, part",
    };
    char *all = NULL;
    size_t n = 0;
    for (size_t i = 0; i < sizeof queries / sizeof queries[0]; i++) {
        char *answer = ask(db, queries[i]);
        size_t length = strlen(answer);
        assert_true(length > 10); /* there are rows */
        all = realloc(all, n + length + 1);
        memcpy(all + n, answer, length + 1);
        n += length;
        free(answer);
    }
    return all;
}

static inline void assert_same_surface(const char *one, const char *other)
{
    size_t i = 0;
    while (one[i] && one[i] == other[i]) {
        i++;
    }
    if (one[i] || other[i]) {
        size_t begin = i > 200 ? i - 200 : 0;
        print_error("they differ:\n%.400s\n---\n%.400s\n", one + begin, other + begin);
        fail();
    }
}

static inline void forget(const char *db)
{
    char command[256];
    snprintf(command, sizeof command, "rm -f %s %s-wal %s-shm %s-lock %s-journal", db, db, db, db,
             db);
    assert_int_equal(system(command), 0);
}
