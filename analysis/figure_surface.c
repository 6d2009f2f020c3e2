/* A surface as a heat map of its measured cells with smooth contours and marks, and in three
 * dimensions. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/figure_contour.h"
#include "analysis/figure_draft.h"

static const unsigned char surface_3d_body[] = {
#include "analysis_figures_surface_3d_gp.inc"
    0};
static const unsigned char surface_body[] = {
#include "analysis_figures_surface_gp.inc"
    0};

enum { LEVELS_MAX = 24, PATHS_MAX = 6, PATH_DOTS = 12 };

static void add_about(FigureDraft *draft, const FigureGrid *grid)
{
    const Frame *info = &grid->info;
    const char *experiment = frame_text(info, "experiment", 0);
    draft_about(draft, "%s of %s over a plane of adapters.", draft->kind->title, grid->metric);
    draft_about(draft,
                "results.db: surface %s of experiment %s, model %s, %g x %g points, %g scalars",
                draft->request->surface_id, experiment ? experiment : "-",
                frame_text(info, "model", 0), frame_number(info, "nx", 0),
                frame_number(info, "ny", 0), frame_number(info, "n_parameters", 0));
    if (grid->rows_done < grid->rows) {
        draft_about(draft, "unfinished: %d of %d rows are done", grid->rows_done, grid->rows);
    }
    if (grid->n_holes) {
        draft_about(draft, "%zu values are not finite", grid->n_holes);
    }
    if (grid->step_i > 1 || grid->step_j > 1) {
        draft_about(draft, "of the points every %d-th along x and every %d-th along y is drawn",
                    grid->step_i, grid->step_j);
    }
    if (grid->low > grid->lowest || grid->high < grid->highest) {
        draft_about(draft, "colours end at %.6g and %.6g; the values reach from %.6g to %.6g",
                    grid->low, grid->high, grid->lowest, grid->highest);
    }
}

/* --- data --- */

/* coarse: the area of a point of the lattice, below the cells. */
static void add_cell(FigureDraft *draft, const FigureGrid *grid, int i, int j, bool coarse)
{
    double edges[4], value = grid->z[(size_t)i * grid->ny + j];
    if (!figure_grid_cell(edges, grid, i, j, coarse)) {
        return;
    }
    draft_value(draft, figure_grid_x(grid, i * grid->step_i));
    draft_value(draft, figure_grid_y(grid, j * grid->step_j));
    for (int e = 0; e < 4; e++) {
        text_printf(&draft->data, " %.12g", edges[e]);
    }
    draft_value(draft, value);
    text_add(&draft->data, "\n");
}

static void add_cells(FigureDraft *draft, const FigureGrid *grid)
{
    draft_block(draft, "cells",
                "x y, in units of v; edges of the cell: x_low x_high y_low y_high; "
                "value");
    for (int coarse = grid->lattice > 1 && grid->n_missing; coarse >= 0; coarse--) {
        for (int i = 0; i < grid->nx; i++) {
            for (int j = 0; j < grid->ny; j++) {
                add_cell(draft, grid, i, j, coarse);
            }
        }
    }
}

/* Lines of y from one x to the next, an empty line between: gnuplot's grid. */
static void add_grid(FigureDraft *draft, const char *name, const double *x, int nx, const double *y,
                     int ny, const double *z)
{
    draft_block(draft, name, "x y value");
    for (int i = 0; i < nx; i++) {
        text_add(&draft->data, i ? "\n" : "");
        for (int j = 0; j < ny; j++) {
            double value = z[(size_t)i * ny + j];
            text_printf(&draft->data, isnan(value) ? "%.9g %.9g NaN\n" : "%.9g %.9g %.9g\n", x[i],
                        y[j], value);
        }
    }
}

/* --- marks --- */

typedef struct {
    double x_low, x_high, y_low, y_high; /* axes: the cells, and marks near them */
    int n_paths;
    char paths[PATHS_MAX][12]; /* run ids, cut */
    int n_base, n_best, n_minimum, n_run;
    Text far; /* marks that lie too far off */
    const SmoothGrid *smooth;
} Marks;

static bool near_enough(const FigureGrid *grid, double x, double y)
{
    double dx = (grid->x_high - grid->x_low) / 2, dy = (grid->y_high - grid->y_low) / 2;
    return x >= grid->x_low - dx && x <= grid->x_high + dx && y >= grid->y_low - dy &&
           y <= grid->y_high + dy;
}

static void hold(Marks *marks, double x, double y, double margin_x, double margin_y)
{
    marks->x_low = fmin(marks->x_low, x - margin_x);
    marks->x_high = fmax(marks->x_high, x + margin_x);
    marks->y_low = fmin(marks->y_low, y - margin_y);
    marks->y_high = fmax(marks->y_high, y + margin_y);
}

static int add_points(FigureDraft *draft, Marks *marks, const FigureGrid *grid, const char *kind)
{
    int n = 0;
    draft_block(draft, kind, "x y, in units of v; value of the surface there");
    for (size_t k = 0; k < grid->marks.n_rows; k++) {
        double x = frame_number(&grid->marks, "x", k), y = frame_number(&grid->marks, "y", k);
        if (strcmp(frame_text(&grid->marks, "kind", k), kind) != 0) {
            continue;
        }
        if (!near_enough(grid, x, y)) {
            text_printf(&marks->far, "%s%s at (%.4g, %.4g)", marks->far.n ? ", " : "", kind, x, y);
            continue;
        }
        bool inside =
            x >= grid->x_low && x <= grid->x_high && y >= grid->y_low && y <= grid->y_high;
        hold(marks, x, y, inside ? 0 : grid->cell_x, inside ? 0 : grid->cell_y);
        draft_value(draft, x);
        draft_value(draft, y);
        draft_value(draft, smooth_grid_at(marks->smooth, x, y));
        text_add(&draft->data, "\n");
        n++;
    }
    return n;
}

static void add_path_row(FigureDraft *draft, const Marks *marks, const FigureGrid *grid, size_t k)
{
    double x = frame_number(&grid->marks, "x", k), y = frame_number(&grid->marks, "y", k);
    text_printf(&draft->data, "%.12g %.12g %.0f", x, y, frame_number(&grid->marks, "place", k));
    draft_value(draft, smooth_grid_at(marks->smooth, x, y));
    text_add(&draft->data, "\n");
}

/* Rows [from, to) of the marks are one run's checkpoints. The arrow is as long as a fortieth of the
 * picture, so that it points where the run went and not where it trembled last. */
static void add_path(FigureDraft *draft, Marks *marks, const FigureGrid *grid, size_t from,
                     size_t to)
{
    char name[32];
    int number = ++marks->n_paths;
    snprintf(name, sizeof name, "path %d", number);
    draft_block(draft, name, "x y, in units of v; step; value of the surface there");
    for (size_t k = from; k < to; k++) {
        double x = frame_number(&grid->marks, "x", k), y = frame_number(&grid->marks, "y", k);
        if (near_enough(grid, x, y)) {
            hold(marks, x, y, 0, 0);
        }
        add_path_row(draft, marks, grid, k);
    }
    snprintf(name, sizeof name, "dots %d", number);
    draft_block(draft, name, "some of its steps: x y step value");
    for (int dot = 0; dot < PATH_DOTS && to - from > 1; dot++) {
        size_t k = from + (to - 1 - from) * (size_t)dot / PATH_DOTS;
        add_path_row(draft, marks, grid, k);
    }
    double x = frame_number(&grid->marks, "x", to - 1), y = frame_number(&grid->marks, "y", to - 1);
    double dx = 0, dy = 0;
    for (size_t k = to - 1; k-- > from;) {
        dx = x - frame_number(&grid->marks, "x", k);
        dy = y - frame_number(&grid->marks, "y", k);
        if (hypot(dx / (grid->x_high - grid->x_low), dy / (grid->y_high - grid->y_low)) > 0.025) {
            break;
        }
    }
    snprintf(name, sizeof name, "end %d", number);
    draft_block(draft, name, "arrow at its end: x y dx dy");
    text_printf(&draft->data, "%.12g %.12g %.12g %.12g\n", x - dx, y - dy, dx, dy);
}

static void add_paths(FigureDraft *draft, Marks *marks, const FigureGrid *grid)
{
    const Frame *frame = &grid->marks;
    for (size_t from = 0; from < frame->n_rows && marks->n_paths < PATHS_MAX;) {
        const char *run = frame_text(frame, "name", from);
        size_t to = from + 1;
        while (to < frame->n_rows &&
               strcmp(frame_text(frame, "kind", to), frame_text(frame, "kind", from)) == 0 &&
               strcmp(frame_text(frame, "name", to), run) == 0) {
            to++;
        }
        if (strcmp(frame_text(frame, "kind", from), "path") == 0) {
            snprintf(marks->paths[marks->n_paths], sizeof marks->paths[0], "%.8s", run);
            add_path(draft, marks, grid, from, to);
        }
        from = to;
    }
}

static void add_marks(FigureDraft *draft, Marks *marks, const FigureGrid *grid,
                      const SmoothGrid *smooth)
{
    *marks = (Marks){.x_low = grid->x_low,
                     .x_high = grid->x_high,
                     .y_low = grid->y_low,
                     .y_high = grid->y_high,
                     .smooth = smooth};
    add_paths(draft, marks, grid);
    marks->n_base = add_points(draft, marks, grid, "base");
    marks->n_best = add_points(draft, marks, grid, "best");
    marks->n_run = add_points(draft, marks, grid, "run");
    marks->n_minimum = add_points(draft, marks, grid, "minimum");
    if (marks->far.n) {
        draft_about(draft, "too far off to be drawn: %s", text_string(&marks->far));
    }
    text_release(&marks->far);
    draft_number(draft, "n_paths", marks->n_paths);
    draft_number(draft, "n_base", marks->n_base > 0);
    draft_number(draft, "n_best", marks->n_best > 0);
    draft_number(draft, "n_run", marks->n_run > 0);
    draft_number(draft, "n_minimum", marks->n_minimum > 0);
    draft_number(draft, "x_low", marks->x_low);
    draft_number(draft, "x_high", marks->x_high);
    draft_number(draft, "y_low", marks->y_low);
    draft_number(draft, "y_high", marks->y_high);
}

static void add_legend(FigureDraft *draft, const Marks *marks, const FigureGrid *grid, double width,
                       bool flat)
{
    LegendEntry entries[LEGEND_MAX];
    char names[PATHS_MAX][48], unfinished[64];
    size_t n = 0;
    bool of_loss = strcmp(grid->metric, "loss") == 0;
    if (marks->n_base) {
        entries[n++] =
            (LegendEntry){.title = "base model", .point = 6, .point_size = 0.7, .halo = true};
    }
    if (marks->n_minimum) {
        entries[n++] =
            (LegendEntry){.title = of_loss ? "minimum" : "minimum of the loss", .star = true};
    }
    if (marks->n_best && flat) {
        entries[n++] =
            (LegendEntry){.title = "best grid point", .point = 4, .point_size = 0.6, .halo = true};
    }
    if (marks->n_run && flat) {
        entries[n++] = (LegendEntry){.title = marks->n_run > 1 ? "stored runs" : "stored run",
                                     .point = 12,
                                     .point_size = 0.8,
                                     .halo = true};
    }
    for (int k = 0; k < marks->n_paths; k++) {
        snprintf(names[k], sizeof names[k], "training run");
        if (marks->n_paths > 1) {
            Text name = {0};
            draft_escape(&name, marks->paths[k], 8);
            snprintf(names[k], sizeof names[k], "run %.40s", text_string(&name));
            text_release(&name);
        }
        entries[n++] = (LegendEntry){.title = names[k],
                                     .line_width = 1,
                                     .dash = figure_dash((size_t)k),
                                     .point = 7,
                                     .point_size = 0.25};
    }
    if (grid->n_holes && flat) {
        entries[n++] =
            (LegendEntry){.title = "not finite", .color = 0x707070, .point = 2, .point_size = 0.5};
    }
    if (grid->n_missing) {
        snprintf(unfinished, sizeof unfinished, "%d of %d rows done", grid->rows_done, grid->rows);
        entries[n++] =
            (LegendEntry){.title = unfinished, .color = 0xb0b0b0, .patch = true, .light = true};
    }
    draft_legend(draft, width, entries, n);
}

/* --- levels --- */

static size_t find_levels(double levels[LEVELS_MAX], double low, double high)
{
    size_t n = 0;
    if (!(high - low > 1e-9 * fmax(fabs(low), fabs(high)))) {
        return 0;
    }
    double step = figure_nice_step(high - low, 9), first = ceil(low / step);
    for (; n < LEVELS_MAX && (first + (double)n) * step <= high; n++) {
        double level = (first + (double)n) * step;
        levels[n] = fabs(level) < step / 1e6 ? 0 : level;
    }
    return n;
}

/* An axis: its ticks and its words, with the power of ten that the ticks leave out. */
static void add_axis(FigureDraft *draft, const FigureGrid *grid, const char *axis, double low,
                     double high, bool narrow)
{
    char name[16];
    int power;
    Text label = {0};
    double step = figure_nice_step(high - low, narrow ? 3 : 5);
    snprintf(name, sizeof name, "%s_ticks", axis);
    draft_ticks(draft, name, low, high, step, &power);
    snprintf(name, sizeof name, "%s_label", axis);
    const char *text = frame_text(&grid->info, name, 0);
    draft_escape_axis(&label, text ? text : "", narrow ? 12 : 40);
    if (power) {
        text_printf(&label, " (10^{%d})", power);
    }
    draft_string(draft, name, text_string(&label));
    text_release(&label);
}

/* The levels and what stands beside them on the colour bar: of values that differ in their last
 * digits only what they are above a round number, which the bar's words then tell. */
static void add_levels(FigureDraft *draft, const FigureGrid *grid, const double *levels, size_t n)
{
    char *labels[LEVELS_MAX];
    Text words = {0};
    double size = n ? fmax(fabs(levels[0]), fabs(levels[n - 1])) : 0;
    double step = n > 1 ? levels[1] - levels[0] : size;
    bool close = n > 1 && step < 1e-4 * size;
    double origin = close ? levels[0] : 0;
    int power = close ? (int)floor(log10(levels[n - 1] - levels[0])) : 0;
    for (size_t k = 0; k < n; k++) {
        Text label = {0};
        bool labelled = n <= 10 || fabs(remainder(levels[k] - origin, 2 * step)) < step / 2;
        text_printf(&label, "%.5g", (levels[k] - origin) / pow(10, power));
        label.bytes[labelled ? label.n : 0] = 0; /* of many every other one */
        labels[k] = label.bytes;
    }
    draft_numbers(draft, "levels", levels, n);
    draft_number(draft, "z_origin", origin);
    draft_strings(draft, "level_labels", labels, n);
    draft_escape(&words, figure_metric_axis(grid->metric), 48);
    if (close) {
        text_clear(&words);
        draft_escape(&words, grid->metric, 20);
        text_printf(&words, " \xe2\x88\x92 %.9g (10^{%d})", origin, power);
    }
    draft_string(draft, "z_label", text_string(&words));
    text_release(&words);
    for (size_t k = 0; k < n; k++) {
        free(labels[k]);
    }
}

/* Below the middle they are white on dark, above it dark on light. */
static Status add_contours(FigureDraft *draft, const SmoothGrid *smooth, const double *levels,
                           size_t n, double middle, Error *error)
{
    bool low = false, high = false;
    size_t n_low = 0;
    while (n_low < n && levels[n_low] < middle) {
        n_low++;
    }
    draft_block(draft, "low contours", "of the smooth surface: x y value");
    Status status = contour_add(&draft->data, &low, smooth, levels, n_low, error);
    draft_block(draft, "high contours", "of the smooth surface: x y value");
    status = status ? status
                    : contour_add(&draft->data, &high, smooth, levels + n_low, n - n_low, error);
    draft_number(draft, "n_low_contours", low);
    draft_number(draft, "n_high_contours", high);
    return status;
}

/* Everything but the layout. smooth: released by the caller. */
static Status add_all(FigureDraft *draft, FigureGrid *grid, SmoothGrid *smooth, Marks *marks,
                      bool in_space, Error *error)
{
    Status status = figure_grid_smooth(smooth, grid, error);
    if (status) {
        return status;
    }
    double low = grid->low, high = grid->high, levels[LEVELS_MAX];
    size_t n = find_levels(levels, low, high);
    bool flat = n == 0;
    if (flat) {
        figure_widen(&low, &high);
        n = find_levels(levels, low, high);
    }
    add_about(draft, grid);
    draft_number(draft, "z_low", low);
    draft_number(draft, "z_high", high);
    draft_number(draft, "more_below", grid->low > grid->lowest);
    draft_number(draft, "more_above", grid->high < grid->highest);
    add_levels(draft, grid, levels, n);
    draft_number(draft, "n_holes", grid->n_holes > 0);
    draft_number(draft, "n_missing", grid->n_missing > 0);
    draft_number(draft, "hole_size", fmin(0.5, 5.0 / 0.2 / fmax(grid->nx, grid->ny)));
    if (in_space) {
        add_grid(draft, "smooth", smooth->x, smooth->nx, smooth->y, smooth->ny, smooth->z);
    } else {
        add_cells(draft, grid);
    }
    if (smooth->measured > 2 && !flat) {
        status =
            add_contours(draft, smooth, levels, n, in_space ? INFINITY : (low + high) / 2, error);
    } else {
        status = add_contours(draft, smooth, levels, 0, 0, error);
    }
    add_marks(draft, marks, grid, smooth);
    add_axis(draft, grid, "x", marks->x_low, marks->x_high, in_space);
    add_axis(draft, grid, "y", marks->y_low, marks->y_high, in_space);
    return status;
}

/* Outlines of the stars of the minimum: the same size on any terminal. */
static void add_stars(FigureDraft *draft, const Marks *marks, const FigureGrid *grid)
{
    draft_block(draft, "star",
                "outline of the minimum's mark: its x y and value, then the corner of a star of "
                "radius 1");
    for (size_t k = 0; k < grid->marks.n_rows; k++) {
        double x = frame_number(&grid->marks, "x", k), y = frame_number(&grid->marks, "y", k);
        if (strcmp(frame_text(&grid->marks, "kind", k), "minimum") != 0 ||
            !near_enough(grid, x, y)) {
            continue;
        }
        for (int corner = 0; corner <= 10; corner++) {
            double out[2];
            figure_star(out, corner);
            text_printf(&draft->data, "%.12g %.12g", x, y);
            draft_value(draft, smooth_grid_at(marks->smooth, x, y));
            text_printf(&draft->data, " %.6f %.6f\n", out[0], out[1]);
        }
        text_add(&draft->data, "\n");
    }
}

Status figure_build_surface(FigureDraft *draft, bool *drawn, Error *error)
{
    const double width = 8.5, left = 1.4, right = 2.05;
    FigureGrid grid = {0};
    SmoothGrid smooth = {0};
    Marks marks;
    Status status = figure_grid_read(&grid, draft->request, error);
    if (!status && grid.points.n_rows) {
        status = add_all(draft, &grid, &smooth, &marks, false, error);
        if (!status) {
            /* True angles where both axes have about the same scale. */
            double shape = (marks.y_high - marks.y_low) / (marks.x_high - marks.x_low);
            shape = shape > 0.4 && shape < 2.5 ? fmin(fmax(shape, 0.6), 1.3) : 1;
            add_stars(draft, &marks, &grid);
            add_legend(draft, &marks, &grid, width, true);
            draft_layout(draft, width, left, right, 0.25, (width - left - right) * shape, 1.1);
            draft->body = surface_body;
            *drawn = true;
        }
    }
    figure_grid_release(&grid);
    smooth_grid_release(&smooth);
    return status;
}

Status figure_build_surface_3d(FigureDraft *draft, bool *drawn, Error *error)
{
    const double width = 8.5, right = 2.05;
    FigureGrid grid = {0};
    SmoothGrid smooth = {0};
    Marks marks;
    Status status = figure_grid_read(&grid, draft->request, error);
    if (!status && grid.points.n_rows) {
        status = add_all(draft, &grid, &smooth, &marks, true, error);
        if (!status && smooth.nx) {
            draft_number(draft, "every_x", fmax(1, round((smooth.nx - 1) / 40.0)));
            draft_number(draft, "every_y", fmax(1, round((smooth.ny - 1) / 40.0)));
            add_stars(draft, &marks, &grid);
            add_legend(draft, &marks, &grid, width, false);
            draft_layout(draft, width, 0.3, right, 0.1, 5.4, 0.2);
            draft->body = surface_3d_body;
            *drawn = true;
        }
    }
    figure_grid_release(&grid);
    smooth_grid_release(&smooth);
    return status;
}
