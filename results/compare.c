/* Two statements walk the same keys side by side. A table says which of its columns are the key and
 * how each of the others is compared. */
#include "results/compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "core/sha256.h"
#include "results/store_private.h"

typedef enum {
    COLUMN_VALUE,    /* text, bytes, integers: equal */
    COLUMN_NUMBER,   /* a real: equal bits, or within the tolerance */
    COLUMN_IDS,      /* int32 array: equal */
    COLUMN_LOGPROBS, /* float64 array: as COLUMN_NUMBER */
    COLUMN_STATE     /* bytes, equal; passed over under a tolerance */
} ColumnKind;

enum { MAX_COLUMNS = 10, MAX_KEYS = 5 };

typedef struct {
    const char *name; /* of a row: "metric" */
    const char *sql;  /* ?1 run_id, ?2 step; ordered by its first n_keys columns */
    int n_keys, n_columns;
    const char *columns[MAX_COLUMNS]; /* all, keys first */
    ColumnKind kinds[MAX_COLUMNS];
    const char *known; /* ?1 run_id, ?2 and ?3 the first two keys: has a stored run such rows? NULL:
                          every row must be there */
    const char *remade; /* the same: has the made run such rows? NULL: every row must be */
} TableOf;

static const TableOf metrics = {
    .name = "metric",
    .sql = "SELECT key, value FROM metric WHERE run_id = ?1 AND step = ?2 AND key <> 'step_time' "
           "ORDER BY key",
    .n_keys = 1,
    .n_columns = 2,
    .columns = {"key", "value"},
    .kinds = {COLUMN_VALUE, COLUMN_NUMBER},
    .known = "SELECT count(*) FROM metric WHERE run_id = ?1 AND key = ?2 AND ?3 IS ?3"};

static const TableOf completions = {
    .name = "completion",
    .sql = "SELECT prompt, sample, prompt_row, ids, text, finish, n_tokens, logprobs, reward, "
           "advantage FROM completion WHERE run_id = ?1 AND step = ?2 ORDER BY prompt, sample",
    .n_keys = 2,
    .n_columns = 10,
    .columns = {"prompt", "sample", "prompt_row", "ids", "text", "finish", "n_tokens", "logprobs",
                "reward", "advantage"},
    .kinds = {COLUMN_VALUE, COLUMN_VALUE, COLUMN_VALUE, COLUMN_IDS, COLUMN_VALUE, COLUMN_VALUE,
              COLUMN_VALUE, COLUMN_LOGPROBS, COLUMN_NUMBER, COLUMN_NUMBER}};

static const TableOf checkpoints = {
    .name = "checkpoint",
    .sql = "SELECT step, n_bytes, sha256, bytes FROM checkpoint WHERE run_id = ?1 AND step = ?2 "
           "ORDER BY step",
    .n_keys = 1,
    .n_columns = 4,
    .columns = {"step", "n_bytes", "sha256", "bytes"},
    .kinds = {COLUMN_VALUE, COLUMN_STATE, COLUMN_STATE, COLUMN_STATE},
    .known = "SELECT count(*) FROM checkpoint WHERE run_id = ?1 AND step = ?2 AND ?3 IS ?3"};

#define TASK_KNOWN                                                                                 \
    "SELECT count(*) FROM evaluation WHERE run_id = ?1 AND task = ?2 AND extractor = ?3"
#define TASK_REMADE "SELECT count(*) FROM evaluation WHERE run_id = ?1 AND task = ?2 AND ?3 IS ?3"
static const TableOf evaluations = {
    .name = "evaluation",
    .sql = "SELECT task, extractor, n, value, standard_error, base_value, p_value, base_run_id "
           "FROM evaluation WHERE run_id = ?1 AND step = ?2 ORDER BY task, extractor",
    .n_keys = 2,
    .n_columns = 8,
    .columns = {"task", "extractor", "n", "value", "standard_error", "base_value", "p_value",
                "base_run_id"},
    .kinds = {COLUMN_VALUE, COLUMN_VALUE, COLUMN_VALUE, COLUMN_NUMBER, COLUMN_NUMBER, COLUMN_NUMBER,
              COLUMN_NUMBER, COLUMN_VALUE},
    .known = TASK_KNOWN,
    .remade = TASK_REMADE};

static const TableOf verdicts = {
    .name = "verdict",
    .sql = "SELECT e.task, e.extractor, v.row, v.sample, v.extracted, v.correct, v.score FROM "
           "evaluation e JOIN eval_verdict v USING (evaluation_id) WHERE e.run_id = ?1 AND e.step "
           "= ?2 ORDER BY e.task, e.extractor, v.row, v.sample",
    .n_keys = 4,
    .n_columns = 7,
    .columns = {"task", "extractor", "row", "sample", "extracted", "correct", "score"},
    .kinds = {COLUMN_VALUE, COLUMN_VALUE, COLUMN_VALUE, COLUMN_VALUE, COLUMN_VALUE, COLUMN_VALUE,
              COLUMN_NUMBER},
    .known = TASK_KNOWN,
    .remade = TASK_REMADE};

static const TableOf answers = {
    .name = "answer",
    .sql = "SELECT task, row, sample, text, n_tokens FROM eval_completion WHERE run_id = ?1 AND "
           "step = ?2 ORDER BY task, row, sample",
    .n_keys = 3,
    .n_columns = 5,
    .columns = {"task", "row", "sample", "text", "n_tokens"},
    .kinds = {COLUMN_VALUE, COLUMN_VALUE, COLUMN_VALUE, COLUMN_VALUE, COLUMN_VALUE},
    .known = "SELECT count(*) FROM eval_completion WHERE run_id = ?1 AND task = ?2 AND ?3 IS ?3",
    .remade = "SELECT count(*) FROM evaluation WHERE run_id = ?1 AND task = ?2 AND ?3 IS ?3"};

static const TableOf ends = {
    .name = "run",
    .sql = "SELECT run_id, state, reason, objective, objective_se FROM run WHERE run_id = ?1 AND "
           "?2 IS ?2",
    .n_keys = 1,
    .n_columns = 5,
    .columns = {"run_id", "state", "reason", "objective", "objective_se"},
    .kinds = {COLUMN_VALUE, COLUMN_VALUE, COLUMN_VALUE, COLUMN_NUMBER, COLUMN_NUMBER}};

void comparison_release(Comparison *comparison)
{
    text_release(&comparison->difference);
}

/* As SQLite orders: integers before text, text by its bytes. */
static int compare_keys(Value a, Value b)
{
    if (a.kind == VALUE_INTEGER && b.kind == VALUE_INTEGER) {
        return (a.integer > b.integer) - (a.integer < b.integer);
    }
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n > 0 ? memcmp(a.bytes, b.bytes, n) : 0; /* a NULL has no bytes */
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

static bool same_number(double a, double b, double tolerance)
{
    if (tolerance > 0 && isfinite(a) && isfinite(b)) {
        return fabs(a - b) <= tolerance * fmax(1, fmax(fabs(a), fabs(b)));
    }
    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison,cert-*): the bits are meant */
    return memcmp(&a, &b, sizeof a) == 0;
}

static bool same_value(Value a, Value b, ColumnKind kind, double tolerance)
{
    if (kind == COLUMN_STATE && tolerance > 0) {
        return true;
    }
    if (a.kind != b.kind) {
        return false;
    }
    switch (a.kind) {
    case VALUE_NULL:
        return true;
    case VALUE_INTEGER:
        return a.integer == b.integer;
    case VALUE_REAL:
        return same_number(a.real, b.real, tolerance);
    case VALUE_TEXT:
    case VALUE_BLOB:
        break;
    }
    if (kind == COLUMN_LOGPROBS && tolerance > 0 && a.n == b.n) {
        for (size_t at = 0; at + sizeof(double) <= a.n; at += sizeof(double)) {
            double one, other;
            memcpy(&one, (const char *)a.bytes + at, sizeof one);
            memcpy(&other, (const char *)b.bytes + at, sizeof other);
            if (!same_number(one, other, tolerance)) {
                return false;
            }
        }
        return true;
    }
    return a.n == b.n && memcmp(a.bytes, b.bytes, a.n) == 0;
}

static const char *word_of(const Comparison *comparison, int side)
{
    static const char *const words[] = {"stored", "replayed"};
    return comparison->words[side] ? comparison->words[side] : words[side];
}

static void say_value(Text *out, Value value)
{
    switch (value.kind) {
    case VALUE_NULL:
        text_add(out, "nothing");
        break;
    case VALUE_INTEGER:
        text_printf(out, "%" PRId64, value.integer);
        break;
    case VALUE_REAL:
        text_printf(out, "%.17g", value.real);
        break;
    case VALUE_TEXT:
        text_json_string(out, value.bytes, value.n < 60 ? value.n : 60);
        break;
    case VALUE_BLOB:
        text_printf(out, "%zu bytes", value.n);
        break;
    }
}

/* Where two arrays part: "token 3: stored 17, replayed 23". */
static void say_element(Comparison *comparison, Value a, Value b, ColumnKind kind, double tolerance)
{
    Text *out = &comparison->difference;
    const char *here = word_of(comparison, 0), *there = word_of(comparison, 1);
    size_t size = kind == COLUMN_IDS ? sizeof(int32_t) : kind == COLUMN_LOGPROBS ? 8 : 1;
    size_t n = a.n < b.n ? a.n : b.n, at = 0;
    for (; at + size <= n; at += size) {
        double one, other;
        memcpy(&one, (const char *)a.bytes + at, kind == COLUMN_LOGPROBS ? sizeof one : 0);
        memcpy(&other, (const char *)b.bytes + at, kind == COLUMN_LOGPROBS ? sizeof other : 0);
        if (kind == COLUMN_LOGPROBS
                ? !same_number(one, other, tolerance)
                : memcmp((const char *)a.bytes + at, (const char *)b.bytes + at, size) != 0) {
            break;
        }
    }
    if (at + size > n) {
        text_printf(out, ": %s %zu, %s %zu of them", here, a.n / size, there, b.n / size);
    } else if (kind == COLUMN_LOGPROBS) {
        double one, other;
        memcpy(&one, (const char *)a.bytes + at, sizeof one);
        memcpy(&other, (const char *)b.bytes + at, sizeof other);
        text_printf(out, " of token %zu: %s %.17g, %s %.17g", at / size, here, one, there, other);
    } else if (kind == COLUMN_IDS) {
        int32_t one, other;
        memcpy(&one, (const char *)a.bytes + at, sizeof one);
        memcpy(&other, (const char *)b.bytes + at, sizeof other);
        text_printf(out, " of token %zu: %s %d, %s %d", at / size, here, one, there, other);
    } else {
        text_printf(out, ": byte %zu of %zu: %s 0x%02x, %s 0x%02x", at, a.n, here,
                    ((const unsigned char *)a.bytes)[at], there,
                    ((const unsigned char *)b.bytes)[at]);
    }
}

/* A blob whose own checksum does not fit it was damaged where it lies. */
static void say_damage(Text *out, Statement *stored)
{
    Value bytes = statement_value(stored, 3);
    char hex[SHA256_HEX_SIZE];
    sha256_bytes(hex, bytes.bytes, bytes.n);
    if (strcmp(hex, statement_word(stored, 2)) != 0) {
        text_add(out, "; what is stored does not match its own SHA-256");
    }
}

/* "step 3: metric (key "loss")"; of a run's end without the step. */
static void say_row(Text *out, const TableOf *table, Statement *row, int64_t step)
{
    if (table == &ends) {
        text_add(out, "run");
        return;
    }
    text_printf(out, "step %" PRId64 ": %s", step, table->name);
    for (int i = 0; i < table->n_keys && table != &checkpoints; i++) {
        text_add(out, i ? ", " : " (");
        if (table != &metrics) {
            text_printf(out, "%s ", table->columns[i]);
        }
        say_value(out, statement_value(row, i));
    }
    text_add(out, table == &checkpoints ? "" : ")");
}

static void compare_columns(Comparison *comparison, const TableOf *table, Statement *stored,
                            Statement *made, int64_t step, double tolerance)
{
    Text *out = &comparison->difference;
    for (int i = table->n_keys; i < table->n_columns; i++) {
        Value a = statement_value(stored, i), b = statement_value(made, i);
        ColumnKind kind = table->kinds[i];
        if (same_value(a, b, kind, tolerance)) {
            continue;
        }
        say_row(out, table, stored, step);
        text_printf(out, ": %s", table->columns[i]);
        if (kind == COLUMN_IDS || kind == COLUMN_LOGPROBS ||
            (a.kind == VALUE_BLOB && b.kind == VALUE_BLOB)) {
            say_element(comparison, a, b, kind, tolerance);
        } else {
            text_printf(out, ": %s ", word_of(comparison, 0));
            say_value(out, a);
            text_printf(out, ", %s ", word_of(comparison, 1));
            say_value(out, b);
        }
        if (table == &checkpoints) {
            say_damage(out, stored);
        }
        return;
    }
}

/* Does the store have rows like this one at any step? */
static Status has_like(bool *has, Store *store, const char *sql, const char *run_id,
                       const TableOf *table, Statement *row, Error *error)
{
    Statement *statement = NULL;
    bool any = false;
    Value second = table->n_keys > 1 ? statement_value(row, 1) : (Value){.kind = VALUE_NULL};
    Status status = database_rows(&statement, store->database, sql,
                                  BIND(value_text(run_id), statement_value(row, 0), second), error);
    status = status ? status : statement_next(statement, &any, error);
    *has = !status && any && statement_integer(statement, 0) > 0;
    statement_reset(statement);
    return status;
}

/* A row that one side lacks: a difference, or one of those that may be missing. */
static Status lacking(Comparison *comparison, const TableOf *table, Store *other, Statement *row,
                      const char *run_id, int64_t step, bool of_stored, Error *error)
{
    const char *sql = of_stored ? table->remade : table->known;
    bool has = true;
    Status status = sql ? has_like(&has, other, sql, run_id, table, row, error) : STATUS_OK;
    if (!status && has) {
        say_row(&comparison->difference, table, row, step);
        text_printf(&comparison->difference, ": %s, but not %s",
                    word_of(comparison, of_stored ? 0 : 1), word_of(comparison, of_stored ? 1 : 0));
    }
    comparison->n_passed += !has && of_stored && table == &evaluations;
    comparison->n_new += !has && !of_stored && table != &checkpoints;
    return status;
}

static Status compare_table(Comparison *comparison, const TableOf *table, Store *stores[2],
                            const char *run_id, int64_t step, double tolerance, int64_t *n,
                            Error *error)
{
    Statement *rows[2] = {NULL, NULL};
    bool there[2] = {false, false}, advance[2] = {true, true};
    Status status = STATUS_OK;
    for (int k = 0; k < 2 && !status; k++) {
        status = database_rows(&rows[k], stores[k]->database, table->sql,
                               BIND(value_text(run_id), value_integer(step)), error);
    }
    while (!status && !comparison->difference.n) {
        for (int k = 0; k < 2 && !status; k++) {
            status = advance[k] ? statement_next(rows[k], &there[k], error) : STATUS_OK;
        }
        if (status || (!there[0] && !there[1])) {
            break;
        }
        int order = !there[0] ? 1 : !there[1] ? -1 : 0;
        for (int i = 0; i < table->n_keys && there[0] && there[1] && order == 0; i++) {
            order = compare_keys(statement_value(rows[0], i), statement_value(rows[1], i));
        }
        if (order == 0) {
            compare_columns(comparison, table, rows[0], rows[1], step, tolerance);
            *n += 1;
        } else {
            int lone = order < 0 ? 0 : 1;
            status = lacking(comparison, table, stores[1 - lone], rows[lone], run_id, step,
                             lone == 0, error);
        }
        advance[0] = order <= 0;
        advance[1] = order >= 0;
    }
    statement_reset(rows[0]);
    statement_reset(rows[1]);
    return status;
}

/* The base model's rows beside which the run's evaluations of this step stand. */
static Status compare_base(Comparison *comparison, Store *stores[2], const char *run_id,
                           int64_t step, double tolerance, Error *error)
{
    Statement *statement = NULL;
    bool row = true;
    char base[160];
    Status status = database_rows(&statement, stores[1]->database,
                                  "SELECT DISTINCT base_run_id FROM evaluation WHERE run_id = ?1 "
                                  "AND step = ?2 AND base_run_id IS NOT NULL",
                                  BIND(value_text(run_id), value_integer(step)), error);
    status = status ? status : statement_next(statement, &row, error);
    row = !status && row;
    snprintf(base, sizeof base, "%s", row ? statement_word(statement, 0) : "");
    statement_reset(statement);
    static const TableOf *const tables[] = {&evaluations, &answers, &verdicts};
    for (int i = 0; i < 3 && row && !status; i++) {
        status = compare_table(comparison, tables[i], stores, base, 0, tolerance,
                               i ? &comparison->n_samples : &comparison->n_evaluations, error);
    }
    return status;
}

Status store_compare_step(Comparison *comparison, Store *stored, Store *made, const char *run_id,
                          int64_t step, double tolerance, Error *error)
{
    Store *stores[2] = {stored, made};
    int64_t n_states = 0;
    const struct {
        const TableOf *table;
        int64_t *n;
    } tables[] = {{&completions, &comparison->n_completions},
                  {&metrics, &comparison->n_metrics},
                  {&checkpoints, tolerance > 0 ? &n_states : &comparison->n_checkpoints},
                  {&answers, &comparison->n_samples},
                  {&verdicts, &comparison->n_samples},
                  {&evaluations, &comparison->n_evaluations}};
    Status status = STATUS_OK;
    for (size_t i = 0; i < sizeof tables / sizeof tables[0] && !status; i++) {
        status = compare_table(comparison, tables[i].table, stores, run_id, step, tolerance,
                               tables[i].n, error);
    }
    return status ? status : compare_base(comparison, stores, run_id, step, tolerance, error);
}

Status store_compare_end(Comparison *comparison, Store *stored, Store *made, const char *run_id,
                         double tolerance, Error *error)
{
    int64_t n = 0;
    Store *stores[2] = {stored, made};
    return compare_table(comparison, &ends, stores, run_id, 0, tolerance, &n, error);
}
