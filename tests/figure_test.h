/* What the tests of figures share: the fixture's sweep and surface, drawn into a folder. */
#pragma once
#include "analysis/figure_draft.h"
#include "core/file.h"
#include "tests/notebooks_fixture.h"

static inline Store *open_store(StoreMode mode)
{
    Store *store;
    Error error = {0};
    fixture_check(store_open(&store, "results.db", mode, 0, &error), &error);
    return store;
}

static inline bool has_gnuplot(void)
{
    if (system("command -v gnuplot > /dev/null") == 0) {
        return true;
    }
    print_message("skipped: no gnuplot\n");
    return false;
}

/* Draws into the folder "out"; the files' list is the caller's. */
static inline Status draw(const char *kind, FigureRequest request, bool *drawn, Text *files,
                          Error *error)
{
    request.store = open_store(STORE_READ);
    request.folder = request.folder ? request.folder : "out";
    Status status = figure_draw(figure_find(kind), &request, drawn, files, error);
    store_close(request.store);
    return status;
}

static inline void must_draw(const char *kind, FigureRequest request, Text *files)
{
    Error error = {0};
    bool drawn = false;
    fixture_check(draw(kind, request, &drawn, files, &error), &error);
    assert_true(drawn);
}

/* Line number k of the list; static buffer. */
static inline const char *file_of(const Text *files, int k)
{
    static char path[512];
    const char *line = text_string(files);
    for (; k > 0 && *line; k--) {
        line += strcspn(line, "\n") + 1;
    }
    snprintf(path, sizeof path, "%.*s", (int)strcspn(line, "\n"), line);
    return path;
}

static inline FigureRequest of_sweep(void)
{
    return (FigureRequest){.experiment = FIXTURE_SWEEP, .stem = "figure"};
}

static inline FigureRequest of_surface(void)
{
    return (FigureRequest){.surface_id = FIXTURE_SURFACE, .stem = "figure"};
}
