/* SQLite behind five verbs: open, run, read rows, prepare, close. The only door to the library:
 * database.c alone includes it. Private to results/ and its tests.
 *
 * A statement given to database_run and database_rows is a string that lives as long as the
 * program: it is prepared once and kept under its address. */
#pragma once
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/status.h"

typedef struct Database Database;
typedef struct Statement Statement;

typedef enum {
    DATABASE_READ,      /* never writes, never checkpoints */
    DATABASE_IMMUTABLE, /* for a file that nobody can write: no lock, no -shm */
    DATABASE_WRITE,     /* must exist */
    DATABASE_CREATE,
    DATABASE_MEMORY /* a new one without a file */
} DatabaseMode;

/* Opens lazily: whether the file is a database shows at the first statement. Hardened against
 * hostile files: defensive, untrusted schema, cell size checks, no mmap, no ATTACH. Waits up to 10
 * s for locks. */
Status database_open(Database **database, const char *path, DatabaseMode mode, Error *error);
void database_close(Database *database);
/* The close will not checkpoint. */
void database_keep_log(Database *database);

/* The whole as one reader sees it now into a new file, flushed to the disk. */
Status database_copy(Database *database, const char *path, Error *error);

/* Every 10,000 instructions; nonzero stops the statement with STATUS_STOPPED. stop may be NULL. */
void database_interrupt(Database *database, int (*stop)(void *), void *context);

typedef enum { VALUE_NULL, VALUE_INTEGER, VALUE_REAL, VALUE_TEXT, VALUE_BLOB } ValueKind;
typedef struct {
    ValueKind kind;
    int64_t integer;
    double real;
    const void *bytes; /* text and blob: borrowed */
    size_t n;
} Value;

static inline Value value_integer(int64_t integer)
{
    return (Value){.kind = VALUE_INTEGER, .integer = integer};
}
/* Not finite: NULL. */
static inline Value value_real(double real)
{
    return (Value){.kind = isfinite(real) ? VALUE_REAL : VALUE_NULL, .real = real};
}
/* NULL: NULL. */
static inline Value value_text(const char *text)
{
    return (Value){
        .kind = text ? VALUE_TEXT : VALUE_NULL, .bytes = text, .n = text ? strlen(text) : 0};
}
static inline Value value_bytes(ValueKind kind, const void *bytes, size_t n)
{
    return (Value){.kind = kind, .bytes = n ? bytes : "", .n = n};
}

/* BIND(value_text(a), value_integer(b)): the two arguments `values, n`. */
#define BIND(...) (const Value[]){__VA_ARGS__}, sizeof((const Value[]){__VA_ARGS__}) / sizeof(Value)

/* A statement without rows. */
Status database_run(Database *database, const char *sql, const Value *values, size_t n,
                    Error *error);
int64_t database_changes(const Database *database); /* rows changed by the last statement */
/* Any number of statements; sql need not live on. */
Status database_execute(Database *database, const char *sql, Error *error);
/* The first value of the first row; untouched when there is no row. sql need not live on. */
Status database_number(Database *database, const char *sql, int64_t *number, Error *error);

/* Rows: values must live until statement_reset, which must follow. */
Status database_rows(Statement **statement, Database *database, const char *sql,
                     const Value *values, size_t n, Error *error);
Status statement_next(Statement *statement, bool *row, Error *error);
int statement_columns(const Statement *statement);
const char *statement_column_name(const Statement *statement, int column);
Value statement_value(Statement *statement,
                      int column); /* borrowed until the next call on the statement */
int64_t statement_integer(Statement *statement, int column);
double statement_real(Statement *statement, int column);      /* NULL: NaN */
const char *statement_text(Statement *statement, int column); /* NULL: NULL */
/* Of a column that the schema never leaves NULL: "" where a damaged file does. */
const char *statement_word(Statement *statement, int column);
void statement_reset(Statement *statement);                   /* NULL is fine */

/* A statement of the user: one, read-only, checked by an authorizer (no writes, transactions,
 * ATTACH or extensions; only pragmas that ask). The authorizer stays until statement_free. Errors:
 * STATUS_USAGE. */
Status database_prepare_reader(Statement **statement, Database *database, const char *sql,
                               Error *error);
Status statement_bind(Statement *statement, const Value *values, size_t n, Error *error);
void statement_free(Statement *statement);

/* BEGIN IMMEDIATE ... COMMIT; a failed commit is rolled back. */
Status database_begin(Database *database, Error *error);
Status database_commit(Database *database, Error *error);
void database_rollback(Database *database);

const char *database_library_version(void);
/* Older than 3.51.3: two connections that write and checkpoint at one moment can corrupt a WAL
 * database. */
bool database_library_has_wal_reset_bug(void);
