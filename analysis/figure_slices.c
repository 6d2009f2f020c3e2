/* A surface along lines through its minimum, beside the parabolas of the curvature there. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/figure_draft.h"
#include "analysis/figure_grid.h"

static const unsigned char body[] = {
#include "analysis_figures_slices_gp.inc"
    0};

enum { SLICES_MAX = 6 };

static const char slices_sql[] =
    "SELECT name, metric, t, x, y, value FROM surface_slice WHERE surface_id = ?1 AND metric = "
    "coalesce(?2,"
    " (SELECT metric FROM surface_slice WHERE surface_id = ?1 ORDER BY metric = 'loss' DESC, metric"
    " LIMIT 1)) ORDER BY name LIKE 'eigenvector%', name, place";
static const char curvature_sql[] =
    "SELECT h.k, h.eigenvalue, h.eigenvector, s.plane, s.n_parameters FROM surface_hessian h"
    " JOIN surface s USING (surface_id) WHERE h.surface_id = ?1 AND h.place = 'minimum'"
    " ORDER BY h.k";

/* n little-endian doubles from number `from` on of those whose hex this is. */
static bool hex_doubles(double *out, const char *hex, size_t from, size_t n)
{
    if (!hex || strlen(hex) < (from + n) * 16) {
        return false;
    }
    for (size_t k = 0; k < n; k++) {
        uint64_t bits = 0;
        for (int byte = 7; byte >= 0; byte--) {
            const char *at = hex + (from + k) * 16 + 2 * byte;
            bits = bits << 8 | strtoul((char[]){at[0], at[1], 0}, NULL, 16);
        }
        memcpy(&out[k], &bits, sizeof bits);
    }
    return true;
}

/* sum_k eigenvalue_k (eigenvector_k . d)^2 with d = a * direction_x + b * direction_y. */
static double quadratic_form(const Frame *hessian, double a, double b)
{
    size_t n = hessian->n_rows;
    double sum = 0, *x = malloc(3 * n * sizeof *x), *y = x + n, *vector = y + n;
    const char *plane = frame_text(hessian, "plane", 0);
    bool known = x && hex_doubles(x, plane, n, n) && hex_doubles(y, plane, 2 * n, n);
    for (size_t k = 0; k < n && known; k++) {
        double along = 0;
        known = hex_doubles(vector, frame_text(hessian, "eigenvector", k), 0, n);
        for (size_t i = 0; i < n && known; i++) {
            along += (a * x[i] + b * y[i]) * vector[i];
        }
        sum += frame_number(hessian, "eigenvalue", k) * along * along;
    }
    free(x);
    return known ? sum : NAN;
}

/* Second derivative along the slice in rows [from, to): of eigenvector k its eigenvalue, else from
 * the direction of t in v. NaN: not known. */
static double curvature(const Frame *hessian, const Frame *slices, size_t from, size_t to)
{
    int number;
    if (sscanf(frame_text(slices, "name", from), "eigenvector %d", &number) == 1) {
        for (size_t k = 0; k < hessian->n_rows; k++) {
            if (frame_number(hessian, "k", k) == number - 1.0) {
                return frame_number(hessian, "eigenvalue", k);
            }
        }
        return NAN;
    }
    double dt = frame_number(slices, "t", to - 1) - frame_number(slices, "t", from);
    if (hessian->n_rows == 0 || !(dt > 0) ||
        frame_number(hessian, "n_parameters", 0) != (double)hessian->n_rows) {
        return NAN; /* not all eigenpairs are there */
    }
    double a = (frame_number(slices, "x", to - 1) - frame_number(slices, "x", from)) / dt;
    double b = (frame_number(slices, "y", to - 1) - frame_number(slices, "y", from)) / dt;
    return quadratic_form(hessian, a, b);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A far end of one slice does not take the room of all. */
static void set_range(double *low, double *high, double *sorted, size_t n)
{
    qsort(sorted, n, sizeof *sorted, by_value);
    double spread = n > 8 ? sorted[n - 1 - n / 10] - sorted[n / 10] : 0;
    *low = n ? sorted[0] : NAN;
    *high = n ? sorted[n - 1] : NAN;
    if (spread > 0) {
        *high = fmin(*high, sorted[n - 1 - n / 10] + 3 * spread);
        *low = fmax(*low, sorted[n / 10] - 3 * spread);
    }
    figure_widen(low, high);
}

static void add_slice(FigureDraft *draft, const Frame *slices, const Frame *hessian, size_t from,
                      size_t to, size_t number, bool *has_parabola)
{
    char name[32];
    size_t middle = from;
    snprintf(name, sizeof name, "slice %zu", number);
    draft_block(draft, name, "t, in units of v; value; parabola of the curvature; x y");
    double c = curvature(hessian, slices, from, to);
    for (size_t k = from; k < to; k++) {
        bool nearer = fabs(frame_number(slices, "t", k)) < fabs(frame_number(slices, "t", middle));
        middle = nearer ? k : middle;
    }
    double lowest = frame_number(slices, "value", middle);
    *has_parabola =
        isfinite(c) && isfinite(lowest) && strcmp(frame_text(slices, "metric", from), "loss") == 0;
    draft_about(draft, "(slice %zu) %s: curvature %.6g", number, frame_text(slices, "name", from),
                c);
    for (size_t k = from; k < to; k++) {
        double t = frame_number(slices, "t", k);
        draft_value(draft, t);
        draft_value(draft, frame_number(slices, "value", k));
        draft_value(draft, *has_parabola ? lowest + c * t * t / 2 : NAN);
        draft_value(draft, frame_number(slices, "x", k));
        draft_value(draft, frame_number(slices, "y", k));
        text_add(&draft->data, "\n");
    }
}

/* Slices along the axes are named like the surface's axes. */
static void name_slice(Text *title, const Frame *info, const char *name)
{
    const char *axis = strcmp(name, "x") == 0   ? frame_text(info, "x_label", 0)
                       : strcmp(name, "y") == 0 ? frame_text(info, "y_label", 0)
                                                : NULL;
    if (axis) {
        draft_escape_axis(title, axis, 24);
    } else {
        draft_escape(title, name, 24);
    }
}

static void draw(FigureDraft *draft, const Frame *info, const Frame *slices, const Frame *hessian,
                 double *sorted)
{
    const double width = 8.5;
    const char *metric = frame_text(slices, "metric", 0);
    LegendEntry entries[SLICES_MAX + 1];
    Text titles[SLICES_MAX] = {0};
    uint32_t colors[SLICES_MAX];
    double points[SLICES_MAX], low, high, t_low = INFINITY, t_high = -INFINITY;
    size_t n = 0, n_sorted = 0;
    bool any_parabola = false;
    double scale = figure_metric_scale(metric);
    draft_about(draft, "%s, beside the parabolas of the Hessian there.", draft->kind->title);
    draft_about(draft, "results.db: surface %s of experiment %s", draft->request->surface_id,
                frame_text(info, "experiment", 0) ? frame_text(info, "experiment", 0) : "-");
    for (size_t from = 0, to; from < slices->n_rows && n < SLICES_MAX; from = to, n++) {
        const char *name = frame_text(slices, "name", from);
        for (to = from; to < slices->n_rows && strcmp(frame_text(slices, "name", to), name) == 0;
             to++) {
            double value = frame_number(slices, "value", to), t = frame_number(slices, "t", to);
            if (isfinite(value)) {
                sorted[n_sorted++] = scale * value;
                t_low = fmin(t_low, t);
                t_high = fmax(t_high, t);
            }
        }
        bool parabola;
        add_slice(draft, slices, hessian, from, to, n + 1, &parabola);
        any_parabola = any_parabola || parabola;
        colors[n] = figure_categorical(n);
        points[n] = figure_point(n);
        name_slice(&titles[n], info, name);
        entries[n] = (LegendEntry){.title = text_string(&titles[n]),
                                   .color = colors[n],
                                   .line_width = 1.1,
                                   .point = figure_point(n),
                                   .point_size = 0.35};
    }
    set_range(&low, &high, sorted, n_sorted);
    t_high = t_high > t_low ? t_high : t_low + 1;
    size_t n_entries = n;
    if (any_parabola) {
        entries[n_entries++] = (LegendEntry){
            .title = "by the curvature", .color = 0x808080, .line_width = 1, .dash = 3};
    }
    draft_string(draft, "y_label", figure_metric_axis(metric));
    draft_number(draft, "scale", scale);
    draft_number(draft, "x_low", t_low);
    draft_number(draft, "x_high", t_high);
    int power;
    draft_ticks(draft, "x_ticks", t_low, t_high, figure_nice_step(t_high - t_low, 5), &power);
    Text words = {0};
    text_add(&words, "distance from the minimum, in v");
    if (power) {
        text_printf(&words, " (10^{%d})", power);
    }
    draft_string(draft, "x_label", text_string(&words));
    text_release(&words);
    draft_number(draft, "y_low", low);
    draft_number(draft, "y_high", high);
    draft_number(draft, "y_step", figure_nice_step(high - low, 5));
    draft_number(draft, "n_slices", (double)n);
    draft_number(draft, "n_parabolas", any_parabola);
    draft_colors(draft, "colors", colors, n);
    draft_numbers(draft, "points", points, n);
    draft_legend(draft, width, entries, n_entries);
    draft_layout(draft, width, 1.5, 0.4, 0.2, 4.6, 1.1);
    draft->body = body;
    for (size_t k = 0; k < SLICES_MAX; k++) {
        text_release(&titles[k]);
    }
}

Status figure_build_slices(FigureDraft *draft, bool *drawn, Error *error)
{
    static const char info_sql[] =
        "SELECT experiment, x_label, y_label FROM surface WHERE surface_id = ?1";
    const char *binds[] = {draft->request->surface_id, draft->request->metric};
    Store *store = draft->request->store;
    Frame info = {0}, slices = {0}, hessian = {0};
    Status status = frame_read(&info, store, info_sql, binds, 1, error);
    status = status ? status : frame_read(&slices, store, slices_sql, binds, 2, error);
    status = status ? status : frame_read(&hessian, store, curvature_sql, binds, 1, error);
    double *sorted = malloc((slices.n_rows + 1) * sizeof *sorted);
    if (!status && !sorted) {
        status = error_set(error, STATUS_FAILED, "no memory for %zu points", slices.n_rows);
    }
    if (!status && info.n_rows && slices.n_rows) {
        draw(draft, &info, &slices, &hessian, sorted);
        *drawn = true;
    }
    free(sorted);
    frame_release(&info);
    frame_release(&slices);
    frame_release(&hessian);
    return status;
}
