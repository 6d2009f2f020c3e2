/* The pictures of a finished surface. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "analysis/figure.h"
#include "core/file.h"
#include "experiments/scan_work.h"

/* "abacus-surface-3f2a1b0c-loss-3d": file name without ending. */
static void make_stem(Text *stem, const Scan *scan, const FigureKind *kind, const char *metric)
{
    const char *rest = strncmp(kind->name, "surface", 7) == 0 ? kind->name + 7 : kind->name;
    for (const char *at = scan->spec.experiment; *at; at++) {
        char c = isalnum((unsigned char)*at) || strchr("._-", *at) ? *at : '_';
        text_append(stem, &c, 1);
    }
    text_printf(stem, "-%.8s-%s%s%s", scan->surface_id, metric, *rest && *rest != '-' ? "-" : "",
                rest);
}

static bool is_missing(const Scan *scan, const FigureKind *kind, const char *metric)
{
    Text path = {0};
    text_printf(&path, "%s/", scan->options->figures);
    make_stem(&path, scan, kind, metric);
    text_add(&path, ".png");
    bool missing = !file_exists(text_string(&path));
    text_release(&path);
    return missing;
}

bool scan_figures_missing(const Scan *scan)
{
    for (int k = 0; scan->options->figures && k < n_figure_kinds; k++) {
        for (int m = 0; figure_kinds[k].of_surface && m < MEASURE_COUNT; m++) {
            if (scan->settings.metrics >> m & 1 &&
                is_missing(scan, &figure_kinds[k], measure_names[m])) {
                return true;
            }
        }
    }
    return false;
}

/* A row in `artifact` for each file written. */
static Status record(Scan *scan, const Text *files, Error *error)
{
    Status status = STATUS_OK;
    const char *line = text_string(files);
    while (*line && !status) {
        char path[FILE_PATH_MAX], sha256[SHA256_HEX_SIZE];
        struct stat info;
        size_t n = strcspn(line, "\n");
        snprintf(path, sizeof path, "%.*s", (int)n, line);
        line += n + (line[n] == '\n');
        if (stat(path, &info) != 0) {
            continue;
        }
        status = sha256_file(sha256, path, error);
        status = status ? status
                        : store_artifact(scan->store, NULL, scan->surface_id, "figure", path,
                                         (int64_t)info.st_size, sha256,
                                         scan->world->now_s(scan->world->context), error);
    }
    return status;
}

static Status draw(Scan *scan, const FigureKind *kind, const char *metric, bool *go_on,
                   Error *error)
{
    Text stem = {0}, files = {0};
    Error why = {0};
    bool drawn = false;
    make_stem(&stem, scan, kind, metric);
    FigureRequest request = {.store = scan->store,
                             .surface_id = scan->surface_id,
                             .metric = metric,
                             .folder = scan->options->figures,
                             .stem = text_string(&stem)};
    if (figure_draw(kind, &request, &drawn, &files, &why)) {
        scan->world->note(scan->world->context, why.message);
        *go_on = false;
    }
    Status status = record(scan, &files, error);
    text_release(&stem);
    text_release(&files);
    return status;
}

Status scan_figures(Scan *scan, Error *error)
{
    bool go_on = scan->options->figures;
    Status status = STATUS_OK;
    for (int k = 0; k < n_figure_kinds && go_on && !status; k++) {
        for (int m = 0; figure_kinds[k].of_surface && m < MEASURE_COUNT && go_on && !status; m++) {
            if (scan->settings.metrics >> m & 1 &&
                is_missing(scan, &figure_kinds[k], measure_names[m])) {
                status = draw(scan, &figure_kinds[k], measure_names[m], &go_on, error);
            }
        }
    }
    return status;
}
