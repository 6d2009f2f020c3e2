/* Jupyter notebooks (nbformat 4.5) whose tables and figures are inside already and whose cells
 * reproduce them from results.db. What they say stands in sweep.py, surface.py and comparison.py
 * (template.h). The same database gives the same bytes: no clock, no random ids, no absolute path;
 * a cell's id is the start of the SHA-256 of experiment, section and source. The JSON is laid out
 * as nbformat writes it. */
#pragma once
#include "core/text.h"
#include "results/store.h"

enum { NOTEBOOK_MAX_BYTES = 2000000 }; /* what GitHub and people put up with */

typedef struct {
    Store *store;
    const char *database; /* path of results.db: the cells find it from the notebook's folder */
    const char *folder;   /* where notebooks go; must exist */
    const char *gnuplot;  /* program; NULL: "gnuplot" on the PATH */
} NotebookRequest;

/* Each writes one file, whole, and appends its path and a newline to files. Parts for which there
 * is nothing are left out. Errors: those of figure_draw and of queries; STATUS_USAGE when there is
 * nothing of that name; STATUS_FAILED: it cannot be written, or is larger than NOTEBOOK_MAX_BYTES.
 */

/* EXPERIMENT-sweep.ipynb */
Status notebook_sweep(Text *files, const NotebookRequest *request, const char *experiment,
                      Error *error);
/* EXPERIMENT-surface-ID.ipynb. surface_id: whole. */
Status notebook_surface(Text *files, const NotebookRequest *request, const char *surface_id,
                        Error *error);
/* EXPERIMENT-vs-EXPERIMENT.ipynb. experiments: (n >= 2). */
Status notebook_comparison(Text *files, const NotebookRequest *request,
                           const char *const *experiments, size_t n, Error *error);
