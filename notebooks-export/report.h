/* One HTML page that holds everything: tables that sort, curves, surfaces to hover and slice,
 * answers, failures, how to reproduce. It loads nothing from anywhere (its Content-Security-Policy
 * forbids it), and the same database gives the same bytes: no clock is read. */
#pragma once
#include "core/text.h"
#include "results/store.h"

typedef struct {
    Store *store;
    const char *const *experiments; /* names; none: those of the surfaces asked for, else all */
    size_t n_experiments;
    const char *const
        *surfaces; /* as store_find_surface takes them; none: all of the experiments */
    size_t n_surfaces;
    const char *version; /* of the program, for the foot of the page */
} ReportRequest;

/* The page, appended to html. Curves are thinned to a few hundred points and grids to some ten
 * thousand cells, and the page says where. Text from the database is shown, never obeyed: markup is
 * escaped, control characters and broken UTF-8 are made visible. Errors: STATUS_USAGE (no such
 * experiment or surface, naming what there is), STATUS_STOPPED, STATUS_FAILED. */
Status report_build(Text *html, const ReportRequest *request, Error *error);
