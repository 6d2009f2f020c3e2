/* Which statement makes which table. */
#include "notebooks-export/tables.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "results/frame.h"

#define RUNS_OF_EXPERIMENT "run_id IN (SELECT run_id FROM experiment_run WHERE experiment = ?1)"
#define SURFACES_OF_EXPERIMENT                                                                     \
    "surface_id IN (SELECT surface_id FROM surface WHERE experiment = ?1)"

/* An experiment's files. BLOBs are left out: checkpoints, token ids, their log-probabilities. */
static const struct {
    const char *name;
    bool of_surfaces;
    const char *sql; /* ?1: the experiment; NULL: metrics, a column a metric */
} subjects[] = {
    {"runs", false,
     "SELECT r.run_id, r.kind, r.model, r.method, r.adapter, r.budget, r.lr, r.seed, r.steps, "
     "r.last_step, r.state, r.reason, r.objective, r.objective_se, r.created_at, r.started_at, "
     "r.ended_at, r.config FROM experiment_run m JOIN run r USING (run_id) WHERE m.experiment = ?1 "
     "ORDER BY r.method, r.adapter, r.budget, r.lr, r.seed, r.run_id"},
    {"params", false,
     "SELECT run_id, key, value FROM param WHERE " RUNS_OF_EXPERIMENT " ORDER BY run_id, key"},
    {"metrics", false, NULL},
    {"evaluations", false, /* the base model's rows among them */
     "SELECT run_id, step, task, extractor, n, value, standard_error, base_run_id, base_value, "
     "p_value, detail FROM evaluation WHERE " RUNS_OF_EXPERIMENT " OR run_id IN (SELECT "
     "base_run_id FROM evaluation WHERE " RUNS_OF_EXPERIMENT
     ") ORDER BY run_id, step, task, extractor"},
    {"completions", false,
     "SELECT run_id, step, prompt, sample, prompt_row, prompt_text, text, reward, advantage, "
     "extracted, finish, n_tokens FROM completion WHERE " RUNS_OF_EXPERIMENT
     " ORDER BY run_id, step, prompt, sample"},
    {"events", false,
     "SELECT run_id, step, kind, message, at FROM event WHERE " RUNS_OF_EXPERIMENT
     " ORDER BY event_id"},
    {"surfaces", true,
     "SELECT surface_id, model, run_id, n_parameters, metrics, x_label, y_label, nx, ny, x_min, "
     "x_max, y_min, y_max, state, reason, created_at, ended_at, config FROM surface WHERE "
     "experiment = ?1 ORDER BY surface_id"},
    {"points", true,
     "SELECT surface_id, metric, i, j, x, y, value FROM surface_grid WHERE experiment = ?1"},
    {"marks", true,
     "SELECT surface_id, kind, name, place, metric, x, y, distance, value FROM surface_mark "
     "WHERE " SURFACES_OF_EXPERIMENT " ORDER BY surface_id, kind, name, place, metric"},
    {"slices", true,
     "SELECT surface_id, name, metric, place, t, x, y, value FROM surface_slice "
     "WHERE " SURFACES_OF_EXPERIMENT " ORDER BY surface_id, name, metric, place"},
    {"hessians", true,
     "SELECT surface_id, place, k, eigenvalue FROM surface_hessian "
     "WHERE " SURFACES_OF_EXPERIMENT " ORDER BY surface_id, place, k"},
};
enum { N_SUBJECTS = sizeof subjects / sizeof *subjects };

/* "name" as SQL writes identifiers. */
static void add_identifier(Text *sql, const char *name)
{
    text_add(sql, "\"");
    for (; *name; name++) {
        text_append(sql, name, 1);
        if (*name == '"') {
            text_add(sql, "\"");
        }
    }
    text_add(sql, "\"");
}

/* The names there are, for the message: "run, param, metric". */
static void add_names(Text *out, const Frame *names)
{
    for (size_t i = 0; i < names->n_rows; i++) {
        text_printf(out, "%s%s", i ? ", " : "", frame_text(names, "name", i));
    }
}

static Status select_all(Text *sql, Store *store, const char *kind, const char *name, Error *error)
{
    Frame names = {0};
    Status status = frame_read(&names, store,
                               "SELECT name FROM sqlite_schema WHERE type = ?1 AND name NOT LIKE "
                               "'sqlite\\_%' ESCAPE '\\' ORDER BY name",
                               &kind, 1, error);
    bool found = false;
    for (size_t i = 0; !status && i < names.n_rows; i++) {
        found = found || strcmp(frame_text(&names, "name", i), name) == 0;
    }
    if (!status && !found) {
        Text list = {0};
        add_names(&list, &names);
        status = error_set(error, STATUS_USAGE, "no %s \"%s\"; there are %s", kind, name,
                           text_string(&list));
        text_release(&list);
    }
    frame_release(&names);
    if (!status) {
        text_add(sql, "SELECT * FROM ");
        add_identifier(sql, name);
    }
    return status;
}

Status tables_append(Text *out, Store *store, const TableChoice *choice, OutputFormat format,
                     Error *error)
{
    static const char points[] =
        "SELECT experiment, surface_id, metric, i, j, x, y, value FROM surface_grid "
        "WHERE surface_id = ?1";
    if (choice->surface || choice->sql) {
        return query_run(store, choice->surface ? points : choice->sql, &choice->surface,
                         choice->surface ? 1 : 0, format, out, error);
    }
    Text sql = {0};
    Status status = select_all(&sql, store, choice->table ? "table" : "view",
                               choice->table ? choice->table : choice->view, error);
    status = status ? status : query_run(store, text_string(&sql), NULL, 0, format, out, error);
    text_release(&sql);
    return status;
}

/* One row a step, one column a metric: TRL's log history as a table. */
static Status metrics_statement(Text *sql, Store *store, const char *experiment, Error *error)
{
    Frame keys = {0};
    Status status = frame_read(
        &keys, store, "SELECT DISTINCT key FROM metric WHERE " RUNS_OF_EXPERIMENT " ORDER BY key",
        &experiment, 1, error);
    text_add(sql, "SELECT run_id, step");
    for (size_t i = 0; !status && i < keys.n_rows; i++) {
        const char *key = frame_text(&keys, "key", i);
        text_add(sql, ", max(value) FILTER (WHERE key = '");
        for (const char *c = key; *c; c++) {
            text_append(sql, c, 1);
            text_add(sql, *c == '\'' ? "'" : "");
        }
        text_add(sql, "') AS ");
        add_identifier(sql, key);
    }
    text_add(sql, " FROM metric WHERE " RUNS_OF_EXPERIMENT
                  " GROUP BY run_id, step ORDER BY run_id, step");
    frame_release(&keys);
    return status;
}

static Status write_subject(Text *files, Store *store, int subject, const char *experiment,
                            OutputFormat format, const char *folder, Error *error)
{
    Text sql = {0}, rows = {0}, name = {0};
    char path[FILE_PATH_MAX];
    Status status = STATUS_OK;
    if (subjects[subject].sql) {
        text_add(&sql, subjects[subject].sql);
    } else {
        status = metrics_statement(&sql, store, experiment, error);
    }
    if (!status) {
        status = query_run(store, text_string(&sql), &experiment, 1, format, &rows, error);
    }
    text_printf(&name, "%s.%s", subjects[subject].name, format == FORMAT_CSV ? "csv" : "jsonl");
    status = status ? status : path_join(path, folder, text_string(&name), error);
    status = status ? status : file_write(path, text_string(&rows), rows.n, error);
    if (!status) {
        text_printf(files, "%s\n", path);
    }
    text_release(&name);
    text_release(&rows);
    text_release(&sql);
    return status;
}

Status tables_experiment(Text *files, Store *store, const char *experiment, OutputFormat format,
                         const char *folder, Error *error)
{
    Frame what = {0};
    Status status = frame_read(
        &what, store,
        "SELECT (SELECT count(*) FROM experiment_run r WHERE r.experiment = e.name) AS runs, "
        "(SELECT count(*) FROM surface s WHERE s.experiment = e.name) AS surfaces "
        "FROM experiment e WHERE e.name = ?1",
        &experiment, 1, error);
    if (!status && what.n_rows == 0) {
        status = error_set(error, STATUS_USAGE, "there is no experiment \"%s\"", experiment);
    }
    status = status ? status : directory_make(folder, error);
    for (int i = 0; !status && i < N_SUBJECTS; i++) {
        if (frame_number(&what, subjects[i].of_surfaces ? "surfaces" : "runs", 0) > 0) {
            status = write_subject(files, store, i, experiment, format, folder, error);
        }
    }
    frame_release(&what);
    return status;
}
