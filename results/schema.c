/* Creating, recognising and upgrading the schema. The SQL is embedded by cmake/embed.cmake. */
#include "results/schema.h"

#include <assert.h>
#include <inttypes.h>

#include "core/text.h"

static const char schema_sql[] = {
#include "results_schema_sql.inc"
    0};
static const char schema_2_sql[] = {
#include "results_schema_2_sql.inc"
    0};

static const char schema_3_sql[] = {
#include "results_schema_3_sql.inc"
    0};

/* [v - 1] makes room in a file of version v; version 4 has one more table, no more. */
static const char *const rooms[SCHEMA_VERSION - 1] = {schema_2_sql, schema_3_sql, ""};

/* Type and name of what a file must have, and since which version. */
static const struct {
    int since;
    const char *object;
} objects[] = {
    {1, "table experiment"},      {1, "table run"},
    {1, "table experiment_run"},  {1, "table attempt"},
    {1, "table param"},           {1, "table metric"},
    {1, "table checkpoint"},      {1, "table completion"},
    {1, "table evaluation"},      {1, "table eval_completion"},
    {1, "table eval_verdict"},    {1, "table surface"},
    {1, "table surface_row"},     {1, "table surface_point"},
    {2, "table surface_preview"}, {2, "table surface_mark"},
    {2, "table surface_slice"},   {2, "table surface_hessian"},
    {1, "table artifact"},        {1, "table event"},
    {1, "view run_list"},         {1, "view best_runs"},
    {1, "view sweep_summary"},    {1, "view eval_sample"},
    {1, "view learning_curve"},   {1, "view surface_grid"},
    {2, "view surface_picture"},  {2, "view surface_list"},
    {2, "view surface_progress"}, {2, "view surface_process"},
    {2, "view surface_show"},     {2, "view run_progress"},
    {1, "view run_show"},         {3, "view run_point"},
    {3, "view chosen_runs"},      {3, "view budget_table"},
    {4, "table surface_search"},
};

Status schema_create(Database *database, Error *error)
{
    Status status = database_begin(database, error);
    status = status ? status : database_execute(database, schema_sql, error);
    return status ? status : database_commit(database, error);
}

static Status check_objects(Database *database, int64_t version, Error *error)
{
    Text sql = {0};
    int64_t n_found = 0;
    int n = 0;
    text_add(&sql, "SELECT count(*) FROM sqlite_schema WHERE type || ' ' || name IN (''");
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++) {
        if (objects[i].since <= version) {
            text_printf(&sql, ", '%s'", objects[i].object);
            n++;
        }
    }
    text_add(&sql, ")");
    Status status = database_number(database, sql.bytes, &n_found, error);
    text_release(&sql);
    if (status == STATUS_OK && n_found != n) {
        status = error_set(error, STATUS_REFUSED,
                           "not a results.db (%" PRId64 " of its %d tables and views)", n_found, n);
    }
    return status;
}

Status schema_check(Database *database, int *version, Error *error)
{
    int64_t id = 0, user_version = 0;
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
        status = check_objects(database, user_version, error);
    }
    *version = (int)user_version;
    return status;
}

Status schema_upgrade(Database *database, Error *error)
{
    int64_t version = 0;
    Status status = database_begin(database, error);
    if (status == STATUS_OK) { /* under the lock of the transaction */
        status = database_number(database, "PRAGMA user_version", &version, error);
    }
    assert(status != STATUS_OK || version >= 1); /* schema_check came before */
    if (status == STATUS_OK && version < SCHEMA_VERSION) {
        for (int64_t v = 1; status == STATUS_OK && v < SCHEMA_VERSION; v++) {
            status = v < version ? STATUS_OK : database_execute(database, rooms[v - 1], error);
        }
        if (status == STATUS_OK) {
            status = database_execute(database, schema_sql, error);
        }
        if (status == STATUS_OK) {
            status = database_commit(database, error);
        }
    }
    database_rollback(database); /* where nothing was to do, or something failed */
    if (status != STATUS_OK) {
        error_context(error, status, "upgrade from schema %" PRId64, version);
    }
    return status;
}
