/* Tables of results.db as text: what `export csv` and `export jsonl` write. The formats are
 * query.h's: RFC 4180 with %.17g and nothing for NULL, or a JSON object a line. */
#pragma once
#include "core/text.h"
#include "results/query.h"

/* What to export; exactly one is set. */
typedef struct {
    const char *table, *view; /* every row of one */
    const char *surface;      /* the points of a surface (surface_grid): a whole surface_id */
    const char *sql;          /* the answer of a statement that only reads */
} TableChoice;

/* Append to out. Errors: as query_run; STATUS_USAGE for a table or view that is not there, with the
 * nearest known name. On an error out is as it was. */
Status tables_append(Text *out, Store *store, const TableChoice *choice, OutputFormat format,
                     Error *error);

/* An experiment as a folder of files (made where it is absent), one a subject: runs, params,
 * metrics (a column a metric), evaluations, completions, events where it has runs; surfaces,
 * points, marks, slices, hessians where it has surfaces. Each file appears whole. files: appended,
 * a path a line. Errors: STATUS_USAGE when there is no such experiment; STATUS_FAILED when a file
 * cannot be written. */
Status tables_experiment(Text *files, Store *store, const char *experiment, OutputFormat format,
                         const char *folder, Error *error);
