/* The wrapper of SQLite: connections, kept statements, what each error of the library means to us.
 */
#include "results/database.h"

#include <assert.h>
#include <ctype.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/text.h"

enum { MAX_KEPT = 96, BUSY_MS = 10000 };

struct Statement {
    const char *sql;
    sqlite3_stmt *handle;
    Database *database;
};

struct Database {
    sqlite3 *handle;
    Statement kept[MAX_KEPT];
    int n_kept;
    bool reading; /* a connection that cannot write */
    bool failed;  /* an I/O error: what the disk holds is not known, nothing more is written */
};

const char *database_library_version(void)
{
    return sqlite3_libversion();
}

bool database_library_has_wal_reset_bug(void)
{
    return sqlite3_libversion_number() < 3051003;
}

/* What the library's code means: disk full and I/O are the world's failures, a damaged file is
 * refused. */
static Status fail(Database *database, int code, Error *error)
{
    const char *text = sqlite3_errmsg(database->handle);
    switch (code & 0xff) {
    case SQLITE_FULL:
        return error_set(error, STATUS_FAILED,
                         "the disk is full; what was committed before is safe");
    case SQLITE_IOERR:
        database->failed = true;
        return error_set(error, STATUS_FAILED,
                         "input/output error (%s, %d); what was committed before is safe",
                         sqlite3_errstr(code), code);
    case SQLITE_CORRUPT:
        return error_set(error, STATUS_REFUSED, "the database is damaged (%s)", text);
    case SQLITE_NOTADB:
        return error_set(error, STATUS_REFUSED, "not an SQLite database");
    case SQLITE_BUSY:
        return error_set(error, STATUS_FAILED, "another program kept the database locked for %d s",
                         BUSY_MS / 1000);
    case SQLITE_AUTH: /* by our authorizer; VACUUM asks it only when it runs */
        return error_set(error, STATUS_USAGE, "the query must only read (%s)", text);
    case SQLITE_INTERRUPT:
        return error_set(error, STATUS_STOPPED, "interrupted");
    default:
        return error_set(error, STATUS_FAILED, "%s", text);
    }
}

/* A file: URI with everything but plain characters escaped. */
static void make_uri(Text *uri, const char *path)
{
    text_add(uri, "file:");
    for (; *path; path++) {
        if (isalnum((unsigned char)*path) || strchr("/._-", *path)) {
            text_append(uri, path, 1);
        } else {
            text_printf(uri, "%%%02x", (unsigned char)*path);
        }
    }
    text_add(uri, "?immutable=1");
}

static Status configure(Database *database, Error *error)
{
    sqlite3 *handle = database->handle;
    sqlite3_extended_result_codes(handle, 1);
    sqlite3_busy_timeout(handle, BUSY_MS);
    sqlite3_limit(handle, SQLITE_LIMIT_ATTACHED, 0);
    sqlite3_limit(handle, SQLITE_LIMIT_SQL_LENGTH, 1000000);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    if (database->reading) {
        sqlite3_db_config(handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        sqlite3_wal_autocheckpoint(handle, 0);
    }
    return database_execute(database,
                            "PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON;"
                            "PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = ON;"
                            "PRAGMA secure_delete = OFF;",
                            error);
}

Status database_open(Database **out, const char *path, DatabaseMode mode, Error *error)
{
    Database *database = calloc(1, sizeof *database);
    if (!database) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    database->reading = mode == DATABASE_READ || mode == DATABASE_IMMUTABLE;
    int flags = database->reading        ? SQLITE_OPEN_READONLY
                : mode == DATABASE_WRITE ? SQLITE_OPEN_READWRITE
                                         : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    Text name = {0};
    if (mode == DATABASE_IMMUTABLE) {
        make_uri(&name, path);
        flags |= SQLITE_OPEN_URI;
    } else if (mode == DATABASE_MEMORY) {
        text_add(&name, ":memory:");
    } else {
        /* "./" keeps a path from being read as ":memory:" or a URI. */
        text_printf(&name, "%s%s", path[0] == '/' ? "" : "./", path);
    }
    int code = sqlite3_open_v2(name.bytes, &database->handle, flags, NULL);
    text_release(&name);
    Status status = STATUS_OK;
    if (code != SQLITE_OK) {
        status = fail(database, code, error);
    } else {
        status = configure(database, error);
    }
    if (status != STATUS_OK) {
        database_close(database);
        return status;
    }
    *out = database;
    return STATUS_OK;
}

void database_close(Database *database)
{
    if (!database) {
        return;
    }
    for (int i = 0; i < database->n_kept; i++) {
        sqlite3_finalize(database->kept[i].handle);
    }
    int code = sqlite3_close(database->handle);
    assert(code == SQLITE_OK); /* a statement was not freed */
    (void)code;
    free(database);
}

void database_keep_log(Database *database)
{
    sqlite3_db_config(database->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
}

Status database_copy(Database *database, const char *path, Error *error)
{
    Database *copy = NULL;
    Status status = database_open(&copy, path, DATABASE_CREATE, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = database_execute(copy, "PRAGMA synchronous = FULL", error);
    sqlite3_backup *backup =
        status ? NULL : sqlite3_backup_init(copy->handle, "main", database->handle, "main");
    if (!status) {
        sqlite3_backup_step(backup, -1); /* its code comes back from finish */
        int code = sqlite3_backup_finish(backup);
        status = code == SQLITE_OK ? STATUS_OK : fail(copy, code, error);
    }
    database_close(copy);
    return status;
}

void database_interrupt(Database *database, int (*stop)(void *), void *context)
{
    sqlite3_progress_handler(database->handle, stop ? 10000 : 0, stop, context);
}

static Status keep(Statement **out, Database *database, const char *sql, Error *error)
{
    if (database->failed) {
        return error_set(error, STATUS_FAILED,
                         "an earlier input/output error; nothing more is written");
    }
    for (int i = 0; i < database->n_kept; i++) {
        if (database->kept[i].sql == sql) {
            *out = &database->kept[i];
            return STATUS_OK;
        }
    }
    assert(database->n_kept < MAX_KEPT);
    Statement *statement = &database->kept[database->n_kept];
    int code = sqlite3_prepare_v3(database->handle, sql, -1, SQLITE_PREPARE_PERSISTENT,
                                  &statement->handle, NULL);
    if (code != SQLITE_OK) {
        return fail(database, code, error);
    }
    statement->sql = sql;
    statement->database = database;
    database->n_kept++;
    *out = statement;
    return STATUS_OK;
}

Status statement_bind(Statement *statement, const Value *values, size_t n, Error *error)
{
    if ((size_t)sqlite3_bind_parameter_count(statement->handle) != n) {
        return error_set(error, STATUS_USAGE,
                         "the statement has %d parameters, %zu values are given",
                         sqlite3_bind_parameter_count(statement->handle), n);
    }
    for (size_t i = 0; i < n; i++) {
        const Value *value = &values[i];
        sqlite3_stmt *handle = statement->handle;
        int at = (int)i + 1, code = SQLITE_OK;
        switch (value->kind) {
        case VALUE_NULL:
            code = sqlite3_bind_null(handle, at);
            break;
        case VALUE_INTEGER:
            code = sqlite3_bind_int64(handle, at, value->integer);
            break;
        case VALUE_REAL:
            code = sqlite3_bind_double(handle, at, value->real);
            break;
        case VALUE_TEXT:
            code =
                sqlite3_bind_text64(handle, at, value->bytes, value->n, SQLITE_STATIC, SQLITE_UTF8);
            break;
        case VALUE_BLOB:
            code = sqlite3_bind_blob64(handle, at, value->bytes, value->n, SQLITE_STATIC);
            break;
        }
        if (code != SQLITE_OK) {
            return fail(statement->database, code, error);
        }
    }
    return STATUS_OK;
}

Status database_rows(Statement **out, Database *database, const char *sql, const Value *values,
                     size_t n, Error *error)
{
    Statement *statement = NULL;
    Status status = keep(&statement, database, sql, error);
    if (status == STATUS_OK) {
        assert(!sqlite3_stmt_busy(statement->handle));
        status = statement_bind(statement, values, n, error);
    }
    *out = status == STATUS_OK ? statement : NULL;
    return status;
}

Status statement_next(Statement *statement, bool *row, Error *error)
{
    int code = sqlite3_step(statement->handle);
    *row = code == SQLITE_ROW;
    if (code == SQLITE_ROW || code == SQLITE_DONE) {
        return STATUS_OK;
    }
    return fail(statement->database, code, error);
}

void statement_reset(Statement *statement)
{
    if (statement) {
        sqlite3_reset(statement->handle);
        sqlite3_clear_bindings(statement->handle);
    }
}

Status database_run(Database *database, const char *sql, const Value *values, size_t n,
                    Error *error)
{
    Statement *statement = NULL;
    Status status = database_rows(&statement, database, sql, values, n, error);
    bool row = false;
    if (status == STATUS_OK) {
        status = statement_next(statement, &row, error);
        assert(!row);
    }
    statement_reset(statement);
    return status;
}

int64_t database_changes(const Database *database)
{
    return sqlite3_changes64(database->handle);
}

Status database_execute(Database *database, const char *sql, Error *error)
{
    int code = sqlite3_exec(database->handle, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? STATUS_OK : fail(database, code, error);
}

Status database_number(Database *database, const char *sql, int64_t *number, Error *error)
{
    sqlite3_stmt *handle = NULL;
    int code = sqlite3_prepare_v2(database->handle, sql, -1, &handle, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_step(handle);
        if (code == SQLITE_ROW) {
            *number = sqlite3_column_int64(handle, 0);
        }
        code = code == SQLITE_ROW || code == SQLITE_DONE ? SQLITE_OK : code;
    }
    Status status = code == SQLITE_OK ? STATUS_OK : fail(database, code, error);
    sqlite3_finalize(handle);
    return status;
}

int statement_columns(const Statement *statement)
{
    return sqlite3_column_count(statement->handle);
}

const char *statement_column_name(const Statement *statement, int column)
{
    return sqlite3_column_name(statement->handle, column);
}

Value statement_value(Statement *statement, int column)
{
    sqlite3_stmt *handle = statement->handle;
    switch (sqlite3_column_type(handle, column)) {
    case SQLITE_INTEGER:
        return value_integer(sqlite3_column_int64(handle, column));
    case SQLITE_FLOAT:
        return (Value){.kind = VALUE_REAL, .real = sqlite3_column_double(handle, column)};
    case SQLITE_TEXT: {
        const void *bytes = sqlite3_column_text(handle, column);
        return value_bytes(VALUE_TEXT, bytes, (size_t)sqlite3_column_bytes(handle, column));
    }
    case SQLITE_BLOB: {
        const void *bytes = sqlite3_column_blob(handle, column);
        return value_bytes(VALUE_BLOB, bytes, (size_t)sqlite3_column_bytes(handle, column));
    }
    default:
        return (Value){.kind = VALUE_NULL};
    }
}

int64_t statement_integer(Statement *statement, int column)
{
    return sqlite3_column_int64(statement->handle, column);
}

double statement_real(Statement *statement, int column)
{
    bool null = sqlite3_column_type(statement->handle, column) == SQLITE_NULL;
    return null ? NAN : sqlite3_column_double(statement->handle, column);
}

const char *statement_text(Statement *statement, int column)
{
    return (const char *)sqlite3_column_text(statement->handle, column);
}

const char *statement_word(Statement *statement, int column)
{
    const char *text = statement_text(statement, column);
    return text ? text : "";
}

/* Pragmas that only ask; those in the second list must come without a value. */
static bool pragma_is_harmless(const char *name, const char *value)
{
    static const char *const with_value[] = {
        "table_info",  "table_xinfo",      "table_list",      "index_list",  "index_info",
        "index_xinfo", "foreign_key_list", "integrity_check", "quick_check", "foreign_key_check"};
    static const char *const without[] = {"application_id", "user_version",    "schema_version",
                                          "page_count",     "page_size",       "freelist_count",
                                          "journal_mode",   "compile_options", "encoding",
                                          "synchronous",    "database_list",   "function_list"};
    for (size_t i = 0; i < sizeof with_value / sizeof *with_value; i++) {
        if (sqlite3_stricmp(name, with_value[i]) == 0) {
            return true;
        }
    }
    for (size_t i = 0; !value && i < sizeof without / sizeof *without; i++) {
        if (sqlite3_stricmp(name, without[i]) == 0) {
            return true;
        }
    }
    return false;
}

static int authorize(void *context, int action, const char *a, const char *b, const char *schema,
                     const char *view)
{
    (void)context;
    (void)schema;
    (void)view;
    switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE:
        return SQLITE_OK;
    case SQLITE_UPDATE: /* asked when a table-valued function is declared; real updates of it need
                           CREATE or ALTER */
        return strcmp(a, "sqlite_master") == 0 ? SQLITE_OK : SQLITE_DENY;
    case SQLITE_FUNCTION:
        return sqlite3_stricmp(b, "load_extension") == 0 ? SQLITE_DENY : SQLITE_OK;
    case SQLITE_PRAGMA:
        return pragma_is_harmless(a, b) ? SQLITE_OK : SQLITE_DENY;
    default:
        return SQLITE_DENY;
    }
}

/* Nothing but blanks, semicolons and comments. */
static bool is_empty(Database *database, const char *sql)
{
    while (*sql) {
        sqlite3_stmt *handle = NULL;
        int code = sqlite3_prepare_v2(database->handle, sql, -1, &handle, &sql);
        bool something = handle || code != SQLITE_OK;
        sqlite3_finalize(handle);
        if (something) {
            return false;
        }
    }
    return true;
}

Status database_prepare_reader(Statement **out, Database *database, const char *sql, Error *error)
{
    Statement *statement = calloc(1, sizeof *statement);
    if (!statement) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    statement->database = database;
    sqlite3_set_authorizer(database->handle, authorize, NULL);
    const char *rest = "";
    int code = sqlite3_prepare_v2(database->handle, sql, -1, &statement->handle, &rest);
    Status status = STATUS_OK;
    if (code == SQLITE_ERROR || code == SQLITE_TOOBIG || code == SQLITE_RANGE) {
        status = error_set(error, STATUS_USAGE, "%s", sqlite3_errmsg(database->handle));
    } else if (code != SQLITE_OK) {
        status = fail(database, code, error);
    } else if (!statement->handle) {
        status = error_set(error, STATUS_USAGE, "the query is empty");
    } else if (!is_empty(database, rest)) {
        status = error_set(error, STATUS_USAGE, "more than one statement: \"%.40s\" follows",
                           rest + strspn(rest, " \t\r\n"));
    }
    if (status != STATUS_OK) {
        statement_free(statement);
        return status;
    }
    *out = statement;
    return STATUS_OK;
}

void statement_free(Statement *statement)
{
    if (statement) {
        sqlite3_finalize(statement->handle);
        sqlite3_set_authorizer(statement->database->handle, NULL, NULL);
        free(statement);
    }
}

Status database_begin(Database *database, Error *error)
{
    return database_run(database, "BEGIN IMMEDIATE", NULL, 0, error);
}

Status database_commit(Database *database, Error *error)
{
    Status status = database_run(database, "COMMIT", NULL, 0, error);
    if (status != STATUS_OK) {
        database_rollback(database);
    }
    return status;
}

void database_rollback(Database *database)
{
    if (!sqlite3_get_autocommit(database->handle)) {
        sqlite3_exec(database->handle, "ROLLBACK", NULL, NULL, NULL);
    }
}
