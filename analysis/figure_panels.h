/* Panels beside and below each other, each with its own axis of y: one a method and budget. */
#pragma once
#include "analysis/figure_draft.h"

enum { PANELS_MAX = 12 };

typedef struct {
    char *title, *y_label; /* enhanced; malloc'ed */
    double x_low, x_high, y_low, y_high;
    double x_step;   /* between ticks; 0: chosen */
    size_t from, to; /* curves or groups of it: numbers of data blocks */
} Panel;

typedef struct {
    Panel panels[PANELS_MAX];
    size_t n;
} Panels;

/* The variables that the script's panels need, and the layout; after the legend. */
void panels_add(FigureDraft *draft, const Panels *panels);
double panels_width(const Panels *panels); /* cm */
void panels_release(Panels *panels);
