/* From template to file: values in, outputs made, empty parts out, JSON written whole. */
#define _GNU_SOURCE
#include "notebooks-export/notebook.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/sha256.h"
#include "notebooks-export/notebook_parts.h"
#include "results/frame.h"

static const unsigned char common_py[] = {
#include "notebooks_export_common_py.inc"
    0};
static const unsigned char sweep_py[] = {
#include "notebooks_export_sweep_py.inc"
    0};
static const unsigned char surface_py[] = {
#include "notebooks_export_surface_py.inc"
    0};
static const unsigned char comparison_py[] = {
#include "notebooks_export_comparison_py.inc"
    0};

enum { NAME_MAX_BYTES = 100 };

/* --- names and paths --- */

/* Letters, digits, ".", "_" and "-"; where that changes a name, the start of its hash follows. */
static void add_file_name(Text *out, const char *name)
{
    size_t before = out->n;
    bool changed = strlen(name) > NAME_MAX_BYTES || name[0] == '.' || !*name;
    for (size_t i = 0; name[i] && i < NAME_MAX_BYTES; i++) {
        char c = name[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '-' || c == '_' || (c == '.' && out->n > before);
        text_append(out, fine ? &c : "_", 1);
        changed |= !fine;
    }
    if (changed) {
        char hex[SHA256_HEX_SIZE];
        sha256_bytes(hex, name, strlen(name));
        text_printf(out, "-%.8s", hex);
    }
}

/* From one folder to a file, both being there. */
static Status relative_path(Text *out, const char *folder, const char *file, Error *error)
{
    char *from = realpath(folder, NULL), *to = realpath(file, NULL);
    if (!from || !to) {
        free(from), free(to);
        return error_set(error, STATUS_FAILED, "%s: cannot be found", from ? file : folder);
    }
    size_t shared = 0; /* bytes up to and with the last common '/' */
    for (size_t i = 0; from[i] == to[i] || (!from[i] && to[i] == '/'); i++) {
        if (to[i] == '/') {
            shared = i + 1;
        }
        if (!from[i] || !to[i]) {
            break;
        }
    }
    const char *rest = strlen(from) >= shared ? from + shared : "";
    for (; *rest; rest++) {
        if (rest == from + shared || rest[-1] == '/') {
            text_add(out, "../");
        }
    }
    text_add(out, to + shared);
    free(from), free(to);
    return STATUS_OK;
}

/* --- cells --- */

static Cell *new_cell(Notebook *notebook, const TemplateCell *of)
{
    if (notebook->n_cells == notebook->capacity) {
        notebook->capacity = notebook->capacity ? 2 * notebook->capacity : 64;
        notebook->cells =
            realloc(notebook->cells, (size_t)notebook->capacity * sizeof *notebook->cells);
        if (!notebook->cells) {
            abort();
        }
    }
    Cell *cell = &notebook->cells[notebook->n_cells++];
    *cell = (Cell){.kind = of->kind, .section = of->section};
    return cell;
}

/* metric: NULL unless the cell is made once for each. */
static Status add_cell(Notebook *notebook, const TemplateCell *of, const char *metric, Error *error)
{
    Cell *cell = new_cell(notebook, of);
    TemplateValue values[16];
    int n = notebook->n_values;
    memcpy(values, notebook->values, (size_t)n * sizeof *values);
    for (int k = 0; metric && k < n; k++) {
        if (strcmp(values[k].name, "metric") == 0) {
            values[k].text = metric;
        }
    }
    template_fill(&cell->source, text_string(&of->source), of->kind == CELL_MARKDOWN, values, n);
    bool there = true;
    Status status = STATUS_OK;
    if (of->kind == CELL_TABLE) {
        status = notebook_table(cell, notebook, strcmp(of->argument, "pairs") == 0, &there, error);
    } else if (of->kind == CELL_FIGURE) {
        status = notebook_figure(cell, notebook, of->argument, metric, &there, error);
    }
    cell->dropped = !there;
    return status;
}

static Status add_cells(Notebook *notebook, const Template *template, const Template *common,
                        Error *error)
{
    Status status = STATUS_OK;
    for (int i = 0; !status && i < template->n_cells; i++) {
        const TemplateCell *cell = &template->cells[i];
        if (cell->kind == CELL_COMMON) {
            status = add_cells(notebook, common, NULL, error);
        } else if (cell->each) {
            for (int k = 0; !status && k < notebook->n_metrics; k++) {
                status = add_cell(notebook, cell, notebook->metrics[k], error);
            }
        } else {
            status = add_cell(notebook, cell, NULL, error);
        }
    }
    return status;
}

/* A text is about the first table or figure that follows: without that it goes, and so does all up
 * to the next text. */
static void drop_what_is_empty(Notebook *notebook)
{
    bool decided = false, gone = false;
    for (int i = 0; i < notebook->n_cells; i++) {
        Cell *cell = &notebook->cells[i];
        if (cell->kind == CELL_MARKDOWN) {
            decided = gone = false;
            for (int k = i + 1; k < notebook->n_cells && !decided; k++) {
                CellKind kind = notebook->cells[k].kind;
                decided = kind == CELL_MARKDOWN || kind == CELL_TABLE || kind == CELL_FIGURE;
                gone = decided && notebook->cells[k].dropped;
            }
        }
        cell->dropped |= gone;
    }
}

static void release_cells(Notebook *notebook)
{
    for (int i = 0; i < notebook->n_cells; i++) {
        text_release(&notebook->cells[i].source);
        text_release(&notebook->cells[i].data);
        text_release(&notebook->cells[i].metadata);
    }
    free(notebook->cells);
    notebook->cells = NULL;
    notebook->n_cells = notebook->capacity = 0;
}

/* --- files --- */

static Status make_json(Text *json, Notebook *notebook, const unsigned char *template_text,
                        const char *path, Error *error)
{
    Template template = {0}, common = {0};
    FileWriter scratch;
    Status status = directory_writer_open(&scratch, path, error);
    if (status) {
        return status;
    }
    template_parse(&template, (const char *)template_text);
    template_parse(&common, (const char *)common_py);
    notebook->scratch = scratch.temporary;
    status = add_cells(notebook, &template, &common, error);
    notebook->scratch = NULL;
    directory_writer_cancel(&scratch);
    if (!status) {
        drop_what_is_empty(notebook);
        text_clear(json);
        notebook_json(json, notebook);
    }
    release_cells(notebook);
    template_release(&template);
    template_release(&common);
    return status;
}

/* Smaller pictures where the file would be too large. */
static Status write_notebook(Text *files, Notebook *notebook, const unsigned char *template_text,
                             const char *name, Error *error)
{
    static const int pixels[] = {700, 450, 300};
    char path[FILE_PATH_MAX];
    Text json = {0};
    Status status = path_join(path, notebook->request->folder, name, error);
    for (int k = 0; !status && k < 3 && (k == 0 || json.n > NOTEBOOK_MAX_BYTES); k++) {
        notebook->png_pixels = pixels[k];
        status = make_json(&json, notebook, template_text, path, error);
    }
    if (!status && json.n > NOTEBOOK_MAX_BYTES) {
        status =
            error_set(error, STATUS_FAILED, "%s would be %.1f MB, more than viewers show (%.1f MB)",
                      path, (double)json.n / 1e6, NOTEBOOK_MAX_BYTES / 1e6);
    }
    status = status ? status : file_write(path, json.bytes, json.n, error);
    if (!status) {
        text_printf(files, "%s\n", path);
    }
    text_release(&json);
    return status;
}

/* The dictionary NAMES: what SQL may bind. */
static void add_names(Text *out, const TemplateValue *values, int n)
{
    text_add(out, "{");
    for (int k = 0; k < n; k++) {
        text_printf(out, "%s\"%s\": ", k ? ", " : "", values[k].name);
        template_literal(out, values[k].text);
    }
    text_add(out, "}");
}

/* values: (n), what SQL may bind, and room for three more. score: what runs are ranked by, or NULL.
 */
static Status write_values(Text *files, Notebook *notebook, TemplateValue *values, int n,
                           const char *score, const unsigned char *template_text, const char *name,
                           Error *error)
{
    Text names = {0}, database = {0};
    Status status =
        relative_path(&database, notebook->request->folder, notebook->request->database, error);
    if (!status) {
        add_names(&names, values, n);
        values[n] = (TemplateValue){"names", NULL, names.bytes};
        values[n + 1] = (TemplateValue){"database", database.bytes, NULL};
        notebook->values = values;
        values[n + 2] = (TemplateValue){"score", score ? score : "objective", NULL};
        notebook->n_values = n + 3;
        status = write_notebook(files, notebook, template_text, name, error);
    }
    text_release(&names);
    text_release(&database);
    return status;
}

/* The score that runs are ranked by: `reward` where it was evaluated, as `best` does. frame: kept
 * by the caller. */
static Status choose_metric(Frame *frame, Store *store, const char *experiment, const char **metric,
                            Error *error)
{
    Status status = frame_read(
        frame, store,
        "SELECT e.name, (SELECT extractor FROM best_runs b WHERE b.experiment = e.name AND kind = "
        "'run' AND extractor IS NOT NULL ORDER BY extractor <> 'reward', extractor <> 'flexible', "
        "extractor LIMIT 1) AS metric FROM experiment e WHERE e.name = ?1",
        &experiment, 1, error);
    if (!status && frame->n_rows == 0) {
        status = error_set(error, STATUS_USAGE, "there is no experiment \"%s\"", experiment);
    }
    *metric = status ? NULL : frame_text(frame, "metric", 0);
    return status;
}

Status notebook_sweep(Text *files, const NotebookRequest *request, const char *experiment,
                      Error *error)
{
    Frame score = {0};
    Text name = {0};
    const char *metric;
    Status status = choose_metric(&score, request->store, experiment, &metric, error);
    if (!status) {
        TemplateValue values[5] = {{"experiment", experiment, NULL}, {"metric", metric, NULL}};
        Notebook notebook = {.request = request, .subject = experiment, .experiment = experiment};
        add_file_name(&name, experiment);
        text_add(&name, "-sweep.ipynb");
        status = write_values(files, &notebook, values, 2, metric, sweep_py, name.bytes, error);
    }
    frame_release(&score);
    text_release(&name);
    return status;
}

Status notebook_surface(Text *files, const NotebookRequest *request, const char *surface_id,
                        Error *error)
{
    static const char sql[] =
        "SELECT coalesce(s.experiment, '') AS experiment, m.value AS metric FROM surface s, "
        "json_each(s.metrics) m WHERE s.surface_id = ?1 ORDER BY m.key";
    Frame surface = {0};
    Text name = {0};
    Status status = frame_read(&surface, request->store, sql, &surface_id, 1, error);
    if (!status && surface.n_rows == 0) {
        status = error_set(error, STATUS_USAGE, "no surface \"%s\"", surface_id);
    }
    const char **metrics = calloc(surface.n_rows + 1, sizeof *metrics);
    if (!status && metrics) {
        for (size_t i = 0; i < surface.n_rows; i++) {
            metrics[i] = frame_text(&surface, "metric", i);
        }
        const char *experiment = frame_text(&surface, "experiment", 0);
        TemplateValue values[6] = {{"experiment", experiment, NULL},
                                   {"surface", surface_id, NULL},
                                   {"metric", metrics[0], NULL}};
        Notebook notebook = {.request = request,
                             .subject = experiment,
                             .surface_id = surface_id,
                             .metrics = metrics,
                             .n_metrics = (int)surface.n_rows};
        add_file_name(&name, experiment);
        text_printf(&name, "-surface-%.8s.ipynb", surface_id);
        status =
            write_values(files, &notebook, values, 3, metrics[0], surface_py, name.bytes, error);
    }
    free(metrics);
    frame_release(&surface);
    text_release(&name);
    return status;
}

Status notebook_comparison(Text *files, const NotebookRequest *request,
                           const char *const *experiments, size_t n, Error *error)
{
    Text names = {0}, list = {0}, title = {0};
    Frame score = {0};
    const char *metric = NULL;
    Status status = STATUS_OK;
    text_add(&list, "[");
    for (size_t i = 0; !status && i < n; i++) {
        Frame other = {0};
        const char *of_other;
        status = choose_metric(i ? &other : &score, request->store, experiments[i],
                               i ? &of_other : &metric, error);
        frame_release(&other);
        text_add(&names, i ? "-vs-" : "");
        add_file_name(&names, experiments[i]);
        text_add(&list, i ? ", " : "");
        text_json_string(&list, experiments[i], strlen(experiments[i]));
        text_printf(&title, "%s%s", i == 0 ? "" : i + 1 < n ? ", " : " and ", experiments[i]);
    }
    text_add(&list, "]");
    text_add(&names, ".ipynb");
    if (!status && names.n > NAME_MAX) {
        status = error_set(error, STATUS_USAGE,
                           "the names of %zu experiments are too long for a "
                           "file's name",
                           n);
    }
    if (!status) {
        TemplateValue values[6] = {{"experiments", list.bytes, NULL}, {"metric", metric, NULL}};
        values[2] = (TemplateValue){"title", title.bytes, NULL};
        Notebook notebook = {.request = request,
                             .subject = title.bytes,
                             .experiment = experiments[0],
                             .others = experiments + 1,
                             .n_others = n - 1};
        status =
            write_values(files, &notebook, values, 3, metric, comparison_py, names.bytes, error);
    }
    frame_release(&score);
    text_release(&names);
    text_release(&list);
    text_release(&title);
    return status;
}
