/* What the kinds of figures share: the data file and the script while they are made. A script is
 * variables, the common style, the legend, and the kind's own part (analysis/figures/NAME.gp).
 * Lengths are cm on paper; every format has the same layout. */
#pragma once
#include <stdint.h>

#include "analysis/figure.h"

enum { FIGURE_NAME_MAX = 160, LEGEND_MAX = 64 };

typedef struct {
    const char *title; /* enhanced text (draft_escape) */
    uint32_t color;    /* 0xrrggbb */
    double line_width; /* 0: no line */
    int dash;          /* gnuplot's dashtype */
    int point;         /* gnuplot's pointtype; 0: none */
    double point_size;
    bool halo;  /* white within a black outline */
    bool star;  /* instead of the point, the mark of a minimum */
    bool patch; /* a filled rectangle; light: thin colour */
    bool light;
} LegendEntry;

typedef struct {
    const FigureRequest *request;
    const FigureKind *kind;
    char name[FIGURE_NAME_MAX]; /* of the files, without ending */
    Text about;                 /* comment lines of both files */
    Text data;                  /* blocks */
    Text variables;             /* NAME = VALUE lines */
    Text legend;                /* commands */
    double width, height;       /* of the picture */
    double legend_height;
    const unsigned char *body; /* the kind's own part, NUL at its end */
} FigureDraft;

/* Fills the draft; *drawn stays false when there is nothing to draw. */
typedef Status FigureBuild(FigureDraft *draft, bool *drawn, Error *error);
FigureBuild figure_build_lr_accuracy, figure_build_comparison, figure_build_parameters_accuracy,
    figure_build_learning_curves, figure_build_rewards, figure_build_lengths, figure_build_surface,
    figure_build_surface_3d, figure_build_slices;

/* Text for gnuplot's enhanced mode that shows `text` as it is: its marks are escaped, control
 * characters become spaces, broken UTF-8 U+FFFD; cut after max_chars with "...". */
void draft_escape(Text *out, const char *text, size_t max_chars);
/* The same for an axis, where v_1 stands for a subscript. */
void draft_escape_axis(Text *out, const char *text, size_t max_chars);
/* A gnuplot string that nothing is expanded in. */
void draft_quote(Text *out, const char *text);

/* A line of both files' opening comment; whatever a script could take for an order is replaced. */
void draft_about(FigureDraft *draft, const char *format, ...) __attribute__((format(printf, 2, 3)));
void draft_number(FigureDraft *draft, const char *name, double value);
/* enhanced: text that draft_escape made or a literal. */
void draft_string(FigureDraft *draft, const char *name, const char *enhanced);
/* array NAME[n] = [...], one element at least. */
void draft_strings(FigureDraft *draft, const char *name, char *const *enhanced, size_t n);
void draft_numbers(FigureDraft *draft, const char *name, const double *values, size_t n);
void draft_colors(FigureDraft *draft, const char *name, const uint32_t *colors, size_t n);
/* A named block of the data file; columns: what they are, with units. The caller adds its lines. */
void draft_block(FigureDraft *draft, const char *name, const char *columns);
/* " %.17g", NaN as "NaN". */
void draft_value(FigureDraft *draft, double value);

/* The picture's size and the edges of its plot: left and right of the axes, top; below them the
 * axis (bottom) and the legend. */
void draft_layout(FigureDraft *draft, double width, double left, double right, double top,
                  double plot_height, double bottom);
/* Rows of entries at the foot of the picture; before draft_layout, which makes room for it. */
void draft_legend(FigureDraft *draft, double width, const LegendEntry *entries, size_t n);

/* Lightness rises with t in [0, 1]: viridis (van der Walt & Smith 2015). */
uint32_t figure_sequential(double t);
/* Okabe & Ito (2008), the darker ones first; k counts round. */
uint32_t figure_categorical(size_t k);
/* Of n: Okabe & Ito's up to seven, then sequential ones. */
uint32_t figure_color(size_t k, size_t n);
/* Points and dashes that tell lines apart without colours. */
int figure_point(size_t k);
int figure_dash(size_t k);

/* Corner 0 to 10 of a star of radius 1, the last one the first again. */
void figure_star(double out[2], int corner);
#define FIGURE_STAR_CM 0.2

/* The step 1, 2 or 5 times a power of ten that divides range into about n parts. range > 0. */
double figure_nice_step(double range, int n);
/* low, high with a margin of a twentieth; widened when they are equal or there is none. */
void figure_widen(double *low, double *high);

/* NAME = "'label' place, ...": the multiples of step. Of a range far from 1 the labels are in units
 * of 10^*power, which the axis has to say; else *power is 0. */
void draft_ticks(FigureDraft *draft, const char *name, double low, double high, double step,
                 int *power);

/* The whole script. */
void draft_script(const FigureDraft *draft, Text *script);
