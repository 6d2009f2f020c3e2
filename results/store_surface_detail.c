/* Surfaces beside their rows: finding them, reading a row, marks, slices, eigenpairs, events,
 * artifacts. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "results/store_private.h"
#include "results/store_surface.h"

Status store_surface_rival(Store *store, const char *experiment, const char *surface_id,
                           bool *found, Text *id, Text *identity, Error *error)
{
    Statement *statement = NULL;
    *found = false;
    Status status = database_rows(
        &statement, store->database,
        "SELECT surface_id, identity FROM surface WHERE experiment = ? AND surface_id <> ? ORDER "
        "BY created_at DESC, surface_id LIMIT 1",
        BIND(value_text(experiment), value_text(surface_id)), error);
    if (status == STATUS_OK) {
        status = statement_next(statement, found, error);
    }
    if (status == STATUS_OK && *found) {
        text_add(id, statement_word(statement, 0));
        text_add(identity, statement_word(statement, 1));
    }
    statement_reset(statement);
    return store_fail(store, status, error);
}

/* Candidates for `id`, one in `surface_id` and all of them listed. Exactly that id: alone. */
static Status list_candidates(Store *store, const char *id, Text *surface_id, Text *list,
                              int64_t *n_found, Error *error)
{
    enum { LISTED = 8 };
    Statement *statement = NULL;
    bool row = true, exact = false;
    Status status = database_rows(
        &statement, store->database,
        "SELECT surface_id, experiment FROM surface WHERE substr(surface_id, 1, length(?1)) = ?1 "
        "OR experiment = ?1 ORDER BY surface_id = ?1 DESC, created_at, surface_id",
        BIND(value_text(id)), error);
    while (status == STATUS_OK && row && !exact) {
        status = statement_next(statement, &row, error);
        if (status == STATUS_OK && row) {
            const char *found = statement_text(statement, 0); /* not NULL: it has a beginning */
            const char *experiment = statement_text(statement, 1);
            exact = strcmp(found, id) == 0;
            text_clear(surface_id);
            text_add(surface_id, found);
            if (*n_found < LISTED) {
                text_printf(list, "%s%s (%s)", *n_found ? ", " : "", found,
                            experiment ? experiment : "no experiment");
            } else if (*n_found == LISTED) {
                text_add(list, ", ...");
            }
            ++*n_found;
        }
    }
    statement_reset(statement);
    return status;
}

static Status find_id(Store *store, const char *id, Text *surface_id, Error *error)
{
    Text list = {0};
    int64_t n_found = 0, n_all = 0;
    Status status = list_candidates(store, id, surface_id, &list, &n_found, error);
    if (status == STATUS_OK && n_found > 1) {
        status = error_set(error, STATUS_USAGE, "\"%s\" means more than one surface: %s", id,
                           list.bytes);
    } else if (status == STATUS_OK && n_found == 0) {
        text_clear(&list);
        status = list_candidates(store, "", surface_id, &list, &n_all, error);
        if (status == STATUS_OK) {
            status = error_set(error, STATUS_USAGE, "no surface \"%s\"; there %s%s", id,
                               n_all ? "are: " : "are none", n_all ? list.bytes : "");
        }
    }
    text_release(&list);
    return status;
}

/* The surface that the statement stands on. The block: plane, then strings. */
static Status read_surface(Statement *statement, StoredSurface *surface, Error *error)
{
    enum { N_STRINGS = 9 };
    Text block = {0};
    size_t start[N_STRINGS];
    const char *strings[N_STRINGS];
    Value plane = statement_value(statement, 10);
    int64_t n_parameters = statement_integer(statement, 11);
    if (n_parameters < 0 || plane.n % sizeof(double[3]) != 0 ||
        plane.n / sizeof(double[3]) != (size_t)n_parameters) {
        return error_set(error, STATUS_REFUSED,
                         "surface %s: the plane has %zu bytes for %" PRId64 " parameters",
                         statement_word(statement, 0), plane.n, n_parameters);
    }
    text_append(&block, plane.bytes, plane.n);
    for (int i = 0; i < N_STRINGS; i++) {
        const char *text = statement_text(statement, i);
        start[i] = text ? block.n : SIZE_MAX;
        text_append(&block, text ? text : "", text ? strlen(text) + 1 : 0);
    }
    for (int i = 0; i < N_STRINGS; i++) {
        strings[i] = start[i] == SIZE_MAX ? NULL : block.bytes + start[i];
    }
    *surface = (StoredSurface){.block = block.bytes,
                               .surface_id = strings[0],
                               .experiment = strings[1],
                               .identity = strings[2],
                               .config = strings[3],
                               .model = strings[4],
                               .run_id = strings[5],
                               .metrics = strings[6],
                               .x_label = strings[7],
                               .y_label = strings[8],
                               .state = run_state_of(statement_text(statement, 9)),
                               .n_parameters = (size_t)n_parameters,
                               .plane = (double *)(void *)block.bytes, /* malloc's alignment */
                               .nx = (int)statement_integer(statement, 12),
                               .ny = (int)statement_integer(statement, 13),
                               .x_min = statement_real(statement, 14),
                               .x_max = statement_real(statement, 15),
                               .y_min = statement_real(statement, 16),
                               .y_max = statement_real(statement, 17),
                               .rows_done = (int)statement_integer(statement, 18)};
    return STATUS_OK;
}

Status store_find_surface(Store *store, const char *id, StoredSurface *surface, Error *error)
{
    Statement *statement = NULL;
    Text surface_id = {0};
    bool row = false;
    Status status = find_id(store, id, &surface_id, error);
    if (status == STATUS_OK) {
        status = database_rows(
            &statement, store->database,
            "SELECT surface_id, experiment, identity, config, model, run_id, metrics, x_label, "
            "y_label, state, plane, n_parameters, nx, ny, x_min, x_max, y_min, y_max, (SELECT "
            "count(*) FROM surface_row r WHERE r.surface_id = s.surface_id AND r.state = 'done') "
            "FROM surface s WHERE surface_id = ?",
            BIND(value_text(text_string(&surface_id))), error);
    }
    if (status == STATUS_OK) {
        status = statement_next(statement, &row, error);
    }
    if (status == STATUS_OK && row) {
        status = read_surface(statement, surface, error);
    }
    statement_reset(statement);
    text_release(&surface_id);
    return store_fail(store, status, error);
}

Status store_surface_row(Store *store, const char *surface_id, int i, SurfaceValue **values,
                         size_t *n, Error *error)
{
    Statement *statement = NULL;
    bool row = true;
    Text numbers = {0}, names = {0}; /* SurfaceValues; their metrics one after another */
    Status status =
        database_rows(&statement, store->database,
                      "SELECT j, metric, x, y, value FROM surface_picture WHERE surface_id = ? AND "
                      "i = ? ORDER BY j, metric",
                      BIND(value_text(surface_id), value_integer(i)), error);
    while (status == STATUS_OK && row) {
        status = statement_next(statement, &row, error);
        if (status == STATUS_OK && row) {
            SurfaceValue value = {.j = (int)statement_integer(statement, 0),
                                  .x = statement_real(statement, 2),
                                  .y = statement_real(statement, 3),
                                  .value = statement_real(statement, 4)};
            text_append(&numbers, (const char *)&value, sizeof value);
            text_add(&names, statement_word(statement, 1));
            text_append(&names, "", 1);
        }
    }
    statement_reset(statement);
    if (status == STATUS_OK) {
        size_t n_values = numbers.n / sizeof(SurfaceValue), n_numbers = numbers.n;
        text_append(&numbers, names.bytes, names.n);
        const char *name = numbers.bytes + n_numbers;
        *values = (SurfaceValue *)(void *)numbers.bytes; /* malloc's alignment */
        *n = n_values;
        for (size_t k = 0; k < n_values; k++) {
            (*values)[k].metric = name;
            name += strlen(name) + 1;
        }
    } else {
        text_release(&numbers);
    }
    text_release(&names);
    return store_fail(store, status, error);
}

Status store_surface_marks(Store *store, const char *surface_id, const SurfaceMark *marks, size_t n,
                           Error *error)
{
    Status status = store_begin(store, error);
    for (size_t k = 0; status == STATUS_OK && k < n; k++) {
        const SurfaceMark *mark = &marks[k];
        status = database_run(
            store->database,
            "INSERT OR REPLACE INTO surface_mark (surface_id, kind, name, place, metric, x, y, "
            "distance, value) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            BIND(value_text(surface_id), value_text(mark->kind), value_text(mark->name),
                 value_integer(mark->place), value_text(mark->metric), value_real(mark->x),
                 value_real(mark->y), value_real(mark->distance), value_real(mark->value)),
            error);
    }
    return store_finish(store, status, error);
}

Status store_surface_slices(Store *store, const char *surface_id, const SurfaceSlice *slices,
                            size_t n, Error *error)
{
    Status status = store_begin(store, error);
    for (size_t k = 0; status == STATUS_OK && k < n; k++) { /* a slice is replaced as a whole */
        status = database_run(store->database,
                              "DELETE FROM surface_slice WHERE surface_id = ? AND name = ?",
                              BIND(value_text(surface_id), value_text(slices[k].name)), error);
    }
    for (size_t k = 0; status == STATUS_OK && k < n; k++) {
        const SurfaceSlice *slice = &slices[k];
        status = database_run(
            store->database,
            "INSERT INTO surface_slice (surface_id, name, place, metric, t, x, y, value) VALUES "
            "(?, ?, ?, ?, ?, ?, ?, ?)",
            BIND(value_text(surface_id), value_text(slice->name), value_integer(slice->place),
                 value_text(slice->metric), value_real(slice->t), value_real(slice->x),
                 value_real(slice->y), value_real(slice->value)),
            error);
    }
    return store_finish(store, status, error);
}

static Status count_parameters(Store *store, const char *surface_id, size_t *n, Error *error)
{
    Statement *statement = NULL;
    bool row = false;
    Status status = database_rows(&statement, store->database,
                                  "SELECT n_parameters FROM surface WHERE surface_id = ?",
                                  BIND(value_text(surface_id)), error);
    if (status == STATUS_OK) {
        status = statement_next(statement, &row, error);
    }
    if (status == STATUS_OK && !row) {
        status = error_set(error, STATUS_FAILED, "there is no surface %s", surface_id);
    } else if (status == STATUS_OK) {
        *n = (size_t)statement_integer(statement, 0);
    }
    statement_reset(statement);
    return status;
}

Status store_surface_eigen(Store *store, const char *surface_id, const SurfaceEigen *pairs,
                           size_t n, Error *error)
{
    size_t n_parameters = 0;
    Status status = store_begin(store, error);
    if (status == STATUS_OK) {
        status = count_parameters(store, surface_id, &n_parameters, error);
    }
    for (size_t k = 0; status == STATUS_OK && k < n; k++) {
        const SurfaceEigen *pair = &pairs[k];
        status = database_run(
            store->database,
            "INSERT OR REPLACE INTO surface_hessian (surface_id, place, k, eigenvalue, "
            "eigenvector) VALUES (?, ?, ?, ?, ?)",
            BIND(value_text(surface_id), value_text(pair->place), value_integer(pair->k),
                 value_real(pair->eigenvalue),
                 value_bytes(VALUE_BLOB, pair->eigenvector, n_parameters * sizeof(double))),
            error);
    }
    return store_finish(store, status, error);
}

Status store_surface_search(Store *store, const char *surface_id, const SurfaceSearch *point,
                            Error *error)
{
    Status status = store_begin(store, error);
    for (size_t part = 0; status == STATUS_OK && part <= point->n; part++) {
        status = database_run(
            store->database,
            "INSERT OR REPLACE INTO surface_search (surface_id, search, place, part, x, y, value) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            BIND(value_text(surface_id), value_text(point->search), value_integer(point->place),
                 value_integer((int64_t)part), value_real(point->x), value_real(point->y),
                 value_real(part ? point->slopes[part - 1] : point->loss)),
            error);
    }
    return store_finish(store, status, error);
}

Status store_surface_event(Store *store, const char *surface_id, const char *kind,
                           const char *message, double now_s, Error *error)
{
    Status status = store_begin(store, error);
    if (status == STATUS_OK) {
        status = database_run(
            store->database,
            "INSERT INTO event (surface_id, kind, message, at) VALUES (?, ?, ?, ?)",
            BIND(value_text(surface_id), value_text(kind), value_text(message), value_real(now_s)),
            error);
    }
    return store_finish(store, status, error);
}

Status store_artifact(Store *store, const char *run_id, const char *surface_id, const char *kind,
                      const char *path, int64_t n_bytes, const char *sha256, double now_s,
                      Error *error)
{
    Status status = store_begin(store, error);
    if (status == STATUS_OK) {
        status = database_run(store->database, "DELETE FROM artifact WHERE path = ?",
                              BIND(value_text(path)), error);
    }
    if (status == STATUS_OK) {
        status = database_run(
            store->database,
            "INSERT INTO artifact (run_id, surface_id, kind, path, n_bytes, sha256, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            BIND(value_text(run_id), value_text(surface_id), value_text(kind), value_text(path),
                 value_integer(n_bytes), value_text(sha256), value_real(now_s)),
            error);
    }
    return store_finish(store, status, error);
}
