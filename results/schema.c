/* Creating, recognising and upgrading the schema. schema.sql is embedded by cmake/embed.cmake. */
#include "results/schema.h"

#include <inttypes.h>
#include <stdio.h>

static const char schema_sql[] = {
#include "results_schema_sql.inc"
    0};

/* schema_migrations[0] is schema.sql itself. */
const char *const schema_migrations[SCHEMA_VERSION] = {schema_sql, ""};

Status schema_create(Database *database, Error *error)
{
    Status status = database_begin(database, error);
    status = status ? status : database_execute(database, schema_sql, error);
    return status ? status : database_commit(database, error);
}

Status schema_check(Database *database, int *version, Error *error)
{
    static const char tables[] =
        "SELECT count(*) FROM sqlite_schema WHERE (type = 'table' AND name IN ('experiment', "
        "'run', "
        "'experiment_run', 'attempt', 'param', 'metric', 'checkpoint', 'completion', 'evaluation', "
        "'eval_completion', 'eval_verdict', 'surface', 'surface_row', 'surface_point', "
        "'surface_preview', 'surface_mark', 'surface_slice', 'surface_hessian', 'artifact', "
        "'event')) OR (type = 'view' AND name IN ('run_list', 'best_runs', 'run_show', "
        "'sweep_summary', 'eval_sample', 'learning_curve', 'surface_grid', 'surface_picture', "
        "'surface_list'))";
    int64_t id = 0, user_version = 0, n_found = 0;
    Status status = database_number(database, "PRAGMA application_id", &id, error);
    if (status == STATUS_OK && id != SCHEMA_APPLICATION_ID) {
        return error_set(error, STATUS_REFUSED,
                         "not a results.db (application_id 0x%08" PRIx64 ", expected 0x%08x)", id,
                         (unsigned)SCHEMA_APPLICATION_ID);
    }
    if (status == STATUS_OK) {
        status = database_number(database, "PRAGMA user_version", &user_version, error);
    }
    if (status == STATUS_OK && user_version > SCHEMA_VERSION) {
        return error_set(error, STATUS_REFUSED,
                         "schema version %" PRId64 " is newer than this program's %d", user_version,
                         SCHEMA_VERSION);
    }
    if (status == STATUS_OK && user_version < 1) {
        return error_set(error, STATUS_REFUSED, "schema version %" PRId64 " never existed",
                         user_version);
    }
    if (status == STATUS_OK) {
        status = database_number(database, tables, &n_found, error);
    }
    if (status == STATUS_OK && n_found != 29) {
        return error_set(error, STATUS_REFUSED,
                         "not a results.db (%" PRId64 " of its 29 tables and views)", n_found);
    }
    *version = (int)user_version;
    return status;
}

Status schema_upgrade(Database *database, const char *const *migrations, int to, Error *error)
{
    int64_t version = 0;
    Status status = database_number(database, "PRAGMA user_version", &version, error);
    while (status == STATUS_OK && version < to) {
        char set_version[64];
        snprintf(set_version, sizeof set_version, "PRAGMA user_version = %" PRId64, version + 1);
        status = database_begin(database, error);
        if (status == STATUS_OK) {
            status = database_execute(database, migrations[version], error);
        }
        if (status == STATUS_OK) {
            status = database_execute(database, set_version, error);
        }
        if (status == STATUS_OK) {
            status = database_commit(database, error);
        }
        if (status != STATUS_OK) {
            database_rollback(database);
            return error_context(error, status, "upgrade from schema %" PRId64, version);
        }
        version++;
    }
    return status;
}
