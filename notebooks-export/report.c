/* The page: what is on it, in which order. */
#include "notebooks-export/report.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/sha256.h"
#include "notebooks-export/report_parts.h"
#include "results/store_surface.h"

static const char template[] = {
#include "notebooks_export_report_html.inc"
    0};
static const char style[] = {
#include "notebooks_export_report_css.inc"
    0};
/* One script of several files; report_start.js waits for all of them. */
static const char script[] = {
#include "notebooks_export_report_base_js.inc"
#include "notebooks_export_report_chart_js.inc"
#include "notebooks_export_report_runs_js.inc"
#include "notebooks_export_report_start_js.inc"
#include "notebooks_export_report_surface_js.inc"
    0};

enum {
    CURVE_POINTS = 240000, /* on the whole page: some 3 MB */
    CELLS = 200000         /* of all surfaces and metrics */
};

/* The newest of everything that was computed for ?1; no clock of ours. */
static const char newest_sql[] =
    "SELECT datetime(max(t), 'unixepoch') AS newest FROM (SELECT max(a.heartbeat_at) AS t FROM "
    "experiment_run m JOIN attempt a USING (run_id) WHERE m.experiment IN (SELECT value FROM "
    "json_each(?1)) UNION ALL SELECT max(e.created_at) FROM experiment_run m JOIN evaluation e "
    "USING "
    "(run_id) WHERE m.experiment IN (SELECT value FROM json_each(?1)) UNION ALL SELECT "
    "max(coalesce(r.ended_at, r.heartbeat_at)) FROM surface_row r WHERE r.surface_id IN (SELECT "
    "value "
    "FROM json_each(?2)))";

static const char models_sql[] =
    "SELECT model FROM experiment_run m JOIN run r USING (run_id) WHERE m.experiment IN (SELECT "
    "value "
    "FROM json_each(?1)) UNION SELECT model FROM surface WHERE surface_id IN (SELECT value FROM "
    "json_each(?2)) ORDER BY 1";

static const char all_sql[] = "SELECT name FROM experiment ORDER BY created_at, name";
static const char one_sql[] = "SELECT name FROM experiment WHERE name = ?1";
static const char surfaces_sql[] =
    "SELECT surface_id, experiment FROM surface WHERE "
    "experiment IN (SELECT value FROM json_each(?1)) OR (?2 = 'all' AND experiment IS NULL) ORDER "
    "BY "
    "experiment, created_at, surface_id";

/* A list of names, each once. */
typedef struct {
    char **names;
    size_t n;
} Names;

static void names_add(Names *names, const char *name)
{
    for (size_t i = 0; i < names->n; i++) {
        if (strcmp(names->names[i], name) == 0) {
            return;
        }
    }
    names->names = realloc(names->names, (names->n + 1) * sizeof *names->names);
    char *copy = names->names ? strdup(name) : NULL;
    if (!copy) {
        abort();
    }
    names->names[names->n++] = copy;
}

static void names_release(Names *names)
{
    for (size_t i = 0; i < names->n; i++) {
        free(names->names[i]);
    }
    free(names->names);
}

static void names_json(Text *json, const Names *names)
{
    text_add(json, "[");
    for (size_t i = 0; i < names->n; i++) {
        text_add(json, i ? "," : "");
        text_json_string(json, names->names[i], strlen(names->names[i]));
    }
    text_add(json, "]");
}

typedef struct {
    Names experiments, surfaces;
    char **owners; /* (surfaces.n) their experiments; NULL: none */
    Text experiments_json, surfaces_json;
} Contents;

static Status no_experiment(const char *name, Store *store, Error *error)
{
    Frame all = {0};
    Text known = {0};
    Status status = frame_read(&all, store, all_sql, NULL, 0, error);
    if (!status) {
        for (size_t i = 0; i < all.n_rows && i < 10; i++) {
            text_printf(&known, "%s\"%.60s\"", i ? ", " : "", text_at(&all, "name", i));
        }
        text_add(&known, all.n_rows > 10 ? ", ..." : "");
        status =
            error_set(error, STATUS_USAGE, "there is no experiment \"%.100s\"; there %s %.700s",
                      name, all.n_rows == 1 ? "is" : "are", known.n ? text_string(&known) : "none");
    }
    text_release(&known);
    frame_release(&all);
    return status;
}

static void add_surface(Contents *contents, const char *surface_id, const char *experiment)
{
    size_t n = contents->surfaces.n;
    names_add(&contents->surfaces, surface_id);
    if (contents->surfaces.n > n) {
        contents->owners = realloc(contents->owners, (n + 1) * sizeof *contents->owners);
        if (!contents->owners) {
            abort();
        }
        contents->owners[n] = experiment ? strdup(experiment) : NULL;
    }
}

static Status add_surfaces_asked_for(Contents *contents, const ReportRequest *request, Error *error)
{
    for (size_t i = 0; i < request->n_surfaces; i++) {
        StoredSurface surface = {0};
        Status status = store_find_surface(request->store, request->surfaces[i], &surface, error);
        if (status) {
            return status;
        }
        add_surface(contents, surface.surface_id, surface.experiment);
        if (surface.experiment) {
            names_add(&contents->experiments, surface.experiment);
        }
        free(surface.block);
    }
    return STATUS_OK;
}

static Status add_experiments(Contents *contents, const ReportRequest *request, Error *error)
{
    for (size_t i = 0; i < request->n_experiments; i++) {
        Frame found = {0};
        Status status =
            frame_read(&found, request->store, one_sql, &request->experiments[i], 1, error);
        if (!status && found.n_rows == 0) {
            status = no_experiment(request->experiments[i], request->store, error);
        }
        frame_release(&found);
        if (status) {
            return status;
        }
        names_add(&contents->experiments, request->experiments[i]);
    }
    if (request->n_experiments || request->n_surfaces) {
        return STATUS_OK;
    }
    Frame all = {0};
    Status status = frame_read(&all, request->store, all_sql, NULL, 0, error);
    for (size_t i = 0; !status && i < all.n_rows; i++) {
        names_add(&contents->experiments, text_at(&all, "name", i));
    }
    frame_release(&all);
    return status;
}

static Status find_contents(Contents *contents, const ReportRequest *request, Error *error)
{
    Frame surfaces = {0};
    Status status = add_experiments(contents, request, error);
    status = status ? status : add_surfaces_asked_for(contents, request, error);
    names_json(&contents->experiments_json, &contents->experiments);
    const char *const binds[] = {text_string(&contents->experiments_json),
                                 request->n_experiments ? "some" : "all"};
    status = status ? status : frame_read(&surfaces, request->store, surfaces_sql, binds, 2, error);
    for (size_t i = 0; !status && !request->n_surfaces && i < surfaces.n_rows; i++) {
        add_surface(contents, text_at(&surfaces, "surface_id", i),
                    frame_text(&surfaces, "experiment", i));
    }
    names_json(&contents->surfaces_json, &contents->surfaces);
    frame_release(&surfaces);
    return status;
}

/* The surfaces of an experiment, or those without one (NULL). */
static Status add_surfaces(Text *html, Text *summary, const Contents *contents,
                           const char *experiment, Store *store, Error *error)
{
    Status status = STATUS_OK;
    for (size_t i = 0; !status && i < contents->surfaces.n; i++) {
        const char *owner = contents->owners[i];
        if (owner && experiment ? strcmp(owner, experiment) != 0 : owner != experiment) {
            continue;
        }
        text_printf(summary, "%s<a href=\"#s%zu\">surface <code>", experiment ? "<br>" : "<li>", i);
        html_start(summary, contents->surfaces.names[i], 8);
        text_add(summary, "</code></a>: ");
        status = report_surface_sentence(summary, store, contents->surfaces.names[i], error);
        status = status ? status
                        : report_surface(html, store, contents->surfaces.names[i], i,
                                         CELLS / contents->surfaces.n, error);
    }
    return status;
}

/* Runs, their scores and curves. */
static Status add_runs(Text *html, size_t *n_points, ReportExperiment *e, Store *store,
                       size_t budget, Error *error)
{
    Text json = {0};
    text_add(&json, "{");
    report_runs_json(&json, e);
    Status status = report_curves_json(&json, n_points, store, e, budget, error);
    text_add(&json, "}");
    if (!status) {
        text_add(html, "<h3>Runs</h3>\n<div class=\"runs-view\"></div>\n");
        if (e->n_scores) {
            text_add(html, "<p class=\"note score-name\">Scores: ");
            html_text(html, e->score[e->main].extractor);
            text_add(html, *e->score[e->main].task ? ", " : "");
            html_text(html, e->score[e->main].task);
            text_add(html, ".</p>\n");
        }
        report_runs_table(html, e);
        report_scores_table(html, e);
        text_add(html, e->n_scores ? "<div class=\"rates-view\"></div>\n" : "");
        text_add(html, *n_points ? "<div class=\"curves-view\"></div>\n" : "");
        text_printf(html,
                    "<script type=\"application/json\" class=\"experiment-data\" "
                    "data-for=\"e%zu\">",
                    e->number);
        html_json(html, &json);
        text_add(html, "</script>\n");
    }
    text_release(&json);
    return status;
}

static Status add_experiment(Text *html, Text *summary, size_t *budget, const Contents *contents,
                             size_t number, Store *store, Error *error)
{
    size_t n_points = 0; /* what an experiment does not need is for those after it */
    const char *name = contents->experiments.names[number];
    ReportExperiment e = {.name = name, .number = number};
    Status status = report_experiment_read(&e, store, error);
    text_printf(html, "<section class=\"experiment\" id=\"e%zu\"><h2>", number);
    html_text(html, name);
    text_add(html, "</h2>\n");
    text_printf(summary, "<li><a href=\"#e%zu\">", number);
    html_text(summary, name);
    text_add(summary, "</a>");
    if (!status && e.runs.n_rows) {
        text_add(summary, ": ");
        report_sentence(summary, &e);
        status = add_runs(html, &n_points, &e, store, *budget / (contents->experiments.n - number),
                          error);
        *budget -= n_points < *budget ? n_points : *budget;
    }
    status = status ? status : add_surfaces(html, summary, contents, name, store, error);
    text_add(summary, "\n");
    if (!status && report_best(&e) != SIZE_MAX) {
        status = report_answers(html, store, text_at(&e.scores, "run_id", report_best(&e)), error);
    }
    status = status ? status : report_events(html, store, name, error);
    status = status ? status : report_reproduce(html, store, &e, error);
    text_add(html, "</section>\n");
    report_experiment_release(&e);
    return status;
}

static Status add_sections(Text *html, Text *summary, const Contents *contents, Store *store,
                           Error *error)
{
    Status status = STATUS_OK;
    size_t budget = CURVE_POINTS;
    for (size_t i = 0; !status && i < contents->experiments.n; i++) {
        status = add_experiment(html, summary, &budget, contents, i, store, error);
    }
    return status ? status : add_surfaces(html, summary, contents, NULL, store, error);
}

static Status add_lead(Text *html, const Contents *contents, Store *store, Error *error)
{
    Frame newest = {0}, models = {0};
    const char *const binds[] = {text_string(&contents->experiments_json),
                                 text_string(&contents->surfaces_json)};
    Status status = frame_read(&newest, store, newest_sql, binds, 2, error);
    status = status ? status : frame_read(&models, store, models_sql, binds, 2, error);
    if (!status) {
        text_printf(html, "%zu experiment%s, %zu surface%s. ", contents->experiments.n,
                    contents->experiments.n == 1 ? "" : "s", contents->surfaces.n,
                    contents->surfaces.n == 1 ? "" : "s");
        for (size_t i = 0; i < models.n_rows; i++) {
            text_add(html, i ? ", " : models.n_rows == 1 ? "Model " : "Models ");
            html_text(html, text_at(&models, "model", i));
            text_add(html, i + 1 == models.n_rows ? ". " : "");
        }
        const char *when = newest.n_rows ? frame_text(&newest, "newest", 0) : NULL;
        text_add(html, when ? "The newest step was computed " : "Nothing was computed yet");
        html_text(html, when);
        text_add(html, when ? " UTC." : ".");
    }
    frame_release(&newest);
    frame_release(&models);
    return status;
}

static void add_title(Text *html, const Contents *contents)
{
    const Names *names = &contents->experiments;
    for (size_t i = 0; i < names->n && i < 3; i++) {
        text_add(html, i ? ", " : "");
        html_text(html, names->names[i]);
    }
    text_add(html, names->n > 3 ? ", \xe2\x80\xa6" : names->n ? "" : "Nothing yet");
    text_add(html, " \xe2\x80\x93 TinyLoRA report");
}

/* As Content-Security-Policy names a script: base64 of its SHA-256. */
static void add_hash(Text *out, const char *bytes, size_t n)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char hex[SHA256_HEX_SIZE];
    unsigned bits = 0, n_bits = 0;
    sha256_bytes(hex, bytes, n);
    for (int i = 0; i < 64; i++) {
        bits = bits << 4 | (unsigned)(hex[i] <= '9' ? hex[i] - '0' : hex[i] - 'a' + 10);
        n_bits += 4;
        if (n_bits >= 6) {
            n_bits -= 6;
            text_append(out, &letters[bits >> n_bits & 63], 1);
        }
    }
    text_append(out, &letters[bits << (6 - n_bits) & 63], 1); /* 256 bits: 42 letters and 4 bits */
    text_add(out, "=");
}

Status report_build(Text *html, const ReportRequest *request, Error *error)
{
    enum { TITLE, LEAD, SUMMARY, SECTIONS, FOOT, SCRIPT_HASH, STYLE_HASH, N_PARTS };
    static const char *const names[] = {"title", "lead",        "summary",   "sections",
                                        "foot",  "script_hash", "style_hash"};
    Text parts[N_PARTS] = {{0}};
    Contents contents = {0};
    Status status = find_contents(&contents, request, error);
    status = status ? status : add_lead(&parts[LEAD], &contents, request->store, error);
    status =
        status ? status
               : add_sections(&parts[SECTIONS], &parts[SUMMARY], &contents, request->store, error);
    if (!status) {
        add_title(&parts[TITLE], &contents);
        text_printf(&parts[FOOT],
                    "Written by tinylora %s from results.db; the same database gives "
                    "the same page. \xc2\xb1 is one standard error.",
                    request->version);
        add_hash(&parts[SCRIPT_HASH], script, sizeof script - 1);
        add_hash(&parts[STYLE_HASH], style, sizeof style - 1);
        Slot slots[N_PARTS + 2] = {{"script", script, sizeof script - 1},
                                   {"style", style, sizeof style - 1}};
        for (int i = 0; i < N_PARTS; i++) {
            slots[i + 2] = (Slot){names[i], text_string(&parts[i]), parts[i].n};
        }
        html_fill(html, template, slots, N_PARTS + 2);
    }
    for (int i = 0; i < N_PARTS; i++) {
        text_release(&parts[i]);
    }
    names_release(&contents.experiments);
    for (size_t i = 0; i < contents.surfaces.n; i++) {
        free(contents.owners[i]);
    }
    free(contents.owners);
    names_release(&contents.surfaces);
    text_release(&contents.experiments_json);
    text_release(&contents.surfaces_json);
    return status;
}
