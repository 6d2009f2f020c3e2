/* A surface of results.db as a picture needs it: its grid, what is known of it so far, a range of
 * values that one outlier does not spoil, smooth values for contours, and its marks. */
#pragma once
#include "analysis/figure.h"

enum { GRID_SIDE_MAX = 400 }; /* points of an axis that are drawn: of more, every k-th */

typedef enum { CELL_MISSING, CELL_PREVIEW, CELL_POINT } CellState;

typedef struct {
    Frame info, points, marks;
    const char *metric; /* in info, or the request's */
    bool less_is_better;
    double scale; /* of values for people: 100 for shares in % */
    int rows, rows_done;
    int step_i, step_j;                  /* every k-th point was read */
    int nx, ny;                          /* points read */
    double x_low, x_high, y_low, y_high; /* outer edges of the cells */
    double cell_x, cell_y;               /* size of a cell */
    double *z;                           /* (nx, ny) times scale; NaN: hole or missing */
    unsigned char *state;                /* (nx, ny) CellState */
    int lattice;                         /* previewed points are so far apart; 0: none */
    size_t n_values, n_holes, n_missing;
    double low, high; /* colours; values beyond are clipped */
    double lowest, highest;
} FigureGrid;

/* "loss (nats per token)" and so on; the metric itself where it is none of ours. */
const char *figure_metric_axis(const char *metric);
double figure_metric_scale(const char *metric); /* 100 for accuracy, which is shown in % */

/* Errors: STATUS_USAGE: no such surface or metric; STATUS_REFUSED: no
 * grid at all; frame_read's. grid: zeroed. */
Status figure_grid_read(FigureGrid *grid, const FigureRequest *request, Error *error);
void figure_grid_release(FigureGrid *grid);
double figure_grid_x(const FigureGrid *grid, double i);
double figure_grid_y(const FigureGrid *grid, double j);
/* Edges x_low, x_high, y_low, y_high of the cell of point (i, j), or, coarse, of the area that it
 * stands for as a point of the lattice. false: it has none (yet). */
bool figure_grid_cell(double edges[4], const FigureGrid *grid, int i, int j, bool coarse);

typedef struct {
    int nx, ny;
    int measured;      /* points of the shorter axis that it goes through */
    double *x, *y, *z; /* (nx), (ny), (nx, ny) */
} SmoothGrid;
/* Bicubic values (clipped to low and high first) of the whole grid, or of the lattice while rows
 * are missing. Where neither is complete, missing points are holes. nx 0: an axis has one point, or
 * all is holes. */
Status figure_grid_smooth(SmoothGrid *smooth, const FigureGrid *grid, Error *error);
/* Bilinear between its points; NaN outside and beside holes. */
double smooth_grid_at(const SmoothGrid *smooth, double x, double y);
void smooth_grid_release(SmoothGrid *smooth);
