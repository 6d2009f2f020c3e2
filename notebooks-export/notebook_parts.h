/* A notebook in the making. Private to notebook*.c. */
#pragma once
#include "analysis/figure.h"
#include "notebooks-export/notebook.h"
#include "notebooks-export/template.h"

typedef struct {
    CellKind kind;
    const char *section;
    Text source;
    Text data;     /* of its output: MIME types and contents, JSON members; empty: no output */
    Text metadata; /* of its output, JSON members */
    bool dropped;
} Cell;

typedef struct {
    const NotebookRequest *request;
    const char *subject;    /* experiment: part of every id */
    const char *experiment; /* figures are drawn of this one, */
    const char *surface_id; /* or of this; NULL */
    const TemplateValue *values;
    int n_values;
    const char *const *metrics; /* for "each" */
    int n_metrics;
    const char *const *others; /* (n_others) experiments for the figure "comparison" */
    size_t n_others;
    const char *scratch; /* folder for pictures */
    int png_pixels;      /* of a column of 8.5 cm */
    Cell *cells;
    int n_cells, capacity;
} Notebook;

/* The answer of a table cell's SQL, as its output; pairs: what the cell makes of it
 * (comparison.h). */
Status notebook_table(Cell *cell, const Notebook *notebook, bool pairs, bool *there, Error *error);
/* The picture of a figure cell. */
Status notebook_figure(Cell *cell, const Notebook *notebook, const char *kind, const char *metric,
                       bool *there, Error *error);
/* A MIME type with its content as nbformat keeps it: texts as lists of lines, else one string. */
void notebook_mime(Text *out, const char *type, const char *text);
/* The whole file. */
void notebook_json(Text *out, const Notebook *notebook);
