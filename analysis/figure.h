/* Figures for papers, by gnuplot: beside each picture its data (.dat) and its script (.gp), which
 * runs alone. What is drawn comes from results.db through one statement; the style (colours that
 * survive colour blindness and grey printing, units, error bars) is the script's. */
#pragma once
#include "core/text.h"
#include "results/frame.h"

typedef struct {
    const char *name;  /* "lr-accuracy", "learning-curves", "parameters-accuracy", "surface",
                          "surface-3d", "slices",  "rewards", "lengths", "comparison" */
    const char *title; /* one line for lists and alt texts */
    bool of_surface;   /* drawn of a surface, else of an experiment */
} FigureKind;
extern const FigureKind figure_kinds[];
extern const int n_figure_kinds;

typedef enum { FIGURE_PNG = 1, FIGURE_SVG = 2, FIGURE_PDF = 4 } FigureFormat;

typedef struct {
    Store *store;
    const char *experiment; /* of_surface: NULL */
    const char *surface_id; /* whole id; else NULL */
    const char *metric;     /* of a surface; NULL: its first. Of runs: the extractor of `best`, for
                               learning-curves a key of `metric`; NULL: "reward" (curves: "loss" where
                               there is none) */
    const char *folder;     /* is made when it is absent */
    const char *stem; /* file name without ending; NULL: EXPERIMENT-KIND[-METRIC], of a surface
                         EXPERIMENT-ID-METRIC[-3d|-slices]. What is no letter, digit, '.', '_' or
                         '-' becomes '_' with a hash behind */
    unsigned formats; /* 0: PNG */
    int png_pixels;   /* of a column of 8.5 cm; 0: 1200, for print */
    const char *const *others; /* (n_others) experiments beside the first: "comparison" alone, which
                                * is not drawn without them */
    size_t n_others;
    const char *gnuplot; /* program; NULL: "gnuplot" on the PATH */
} FigureRequest;

/* Write data and script, then run gnuplot for each format. *drawn false (STATUS_OK) where
 * results.db has nothing to draw for this kind. files: appended, a path a line, the picture last.
 * Errors: STATUS_FAILED: cannot write, no gnuplot (data and script are there; says what to
 * install), gnuplot's own message. Pictures appear whole. */
Status figure_draw(const FigureKind *kind, const FigureRequest *request, bool *drawn, Text *files,
                   Error *error);
const FigureKind *figure_find(const char *name);
