/* What the scripts draw of a surface: its grid, thinned where it is large, marks, slices, spectrum.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "notebooks-export/report_parts.h"

enum {
    METRICS_MOST = 16,
    SIDE_MOST = 1000000, /* points of a side: far above what a scan takes */
    CELLS_LEAST = 441,   /* of a metric */
    PATH_MOST = 400      /* points of a path on the page */
};

/* Every ?2-th row and ?3-th column, and the last of each. */
static const char points_sql[] =
    "SELECT i, j, metric, x, y, value, preview FROM surface_picture WHERE surface_id = ?1 AND "
    "(i % CAST(?2 AS INTEGER) = 0 OR i = CAST(?4 AS INTEGER) - 1) AND "
    "(j % CAST(?3 AS INTEGER) = 0 OR j = CAST(?5 AS INTEGER) - 1) ORDER BY i, j, metric";

static const char slices_sql[] =
    "SELECT name, metric, t, x, y, value FROM surface_slice WHERE surface_id = ?1 "
    "ORDER BY name, metric, place";

/* The part of a grid that is on the page: places 0, stride, ... and the last. */
typedef struct {
    size_t nx, ny, stride_x, stride_y; /* nx, ny of the whole */
    size_t kept_x, kept_y;
    double *x, *y; /* (kept_x), (kept_y); NaN where nothing is known yet */
} Lattice;

typedef struct {
    const char *name;
    double *value, *error; /* (kept_x, kept_y) */
    char *state;           /* (kept_x, kept_y): 0 not computed, 1 there, 2 preview, 3 hole */
} Layer;

static size_t kept(size_t n, size_t stride)
{
    return (n - 1 + stride - 1) / stride + 1;
}

static size_t place_of(double i, size_t stride)
{
    return ((size_t)i + stride - 1) / stride;
}

static void *allocate(size_t n, size_t size)
{
    void *memory = calloc(n + 1, size);
    if (!memory) {
        abort();
    }
    return memory;
}

static void lattice_init(Lattice *lattice, const Frame *surface, size_t budget)
{
    lattice->nx = (size_t)frame_number(surface, "nx", 0);
    lattice->ny = (size_t)frame_number(surface, "ny", 0);
    lattice->stride_x = lattice->stride_y = 1;
    for (;;) {
        lattice->kept_x = kept(lattice->nx, lattice->stride_x);
        lattice->kept_y = kept(lattice->ny, lattice->stride_y);
        if (lattice->kept_x * lattice->kept_y <= budget ||
            (lattice->kept_x <= 2 && lattice->kept_y <= 2)) {
            break;
        }
        *(lattice->kept_x > lattice->kept_y ? &lattice->stride_x : &lattice->stride_y) += 1;
    }
    lattice->x = allocate(lattice->kept_x, sizeof *lattice->x);
    lattice->y = allocate(lattice->kept_y, sizeof *lattice->y);
    const double ends[4] = {frame_number(surface, "x_min", 0), frame_number(surface, "x_max", 0),
                            frame_number(surface, "y_min", 0), frame_number(surface, "y_max", 0)};
    for (size_t i = 0; i < lattice->kept_x; i++) { /* where no point says it better */
        size_t place =
            i * lattice->stride_x < lattice->nx ? i * lattice->stride_x : lattice->nx - 1;
        double share = lattice->nx > 1 ? (double)place / (double)(lattice->nx - 1) : 0;
        lattice->x[i] = ends[0] + share * (ends[1] - ends[0]);
    }
    for (size_t j = 0; j < lattice->kept_y; j++) {
        size_t place =
            j * lattice->stride_y < lattice->ny ? j * lattice->stride_y : lattice->ny - 1;
        double share = lattice->ny > 1 ? (double)place / (double)(lattice->ny - 1) : 0;
        lattice->y[j] = ends[2] + share * (ends[3] - ends[2]);
    }
}

/* "loss_se" is the standard error of layer "loss". */
static bool is_error_of(const char *metric, const char *name)
{
    size_t n = strlen(name);
    return strncmp(metric, name, n) == 0 && strcmp(metric + n, "_se") == 0;
}

static void fill_layers(Layer *layers, size_t n_layers, Lattice *lattice, const Frame *points)
{
    for (size_t row = 0; row < points->n_rows; row++) {
        double i = frame_number(points, "i", row), j = frame_number(points, "j", row);
        if (!(i >= 0 && i < (double)lattice->nx && j >= 0 && j < (double)lattice->ny)) {
            continue;
        }
        size_t at_x = place_of(i, lattice->stride_x), at_y = place_of(j, lattice->stride_y);
        size_t at = at_x * lattice->kept_y + at_y;
        const char *metric = text_at(points, "metric", row);
        double value = frame_number(points, "value", row);
        lattice->x[at_x] = frame_number(points, "x", row);
        lattice->y[at_y] = frame_number(points, "y", row);
        for (size_t k = 0; k < n_layers; k++) {
            if (strcmp(metric, layers[k].name) == 0) {
                layers[k].value[at] = value;
                layers[k].state[at] = isnan(value)                                ? 3
                                      : frame_number(points, "preview", row) == 1 ? 2
                                                                                  : 1;
            } else if (is_error_of(metric, layers[k].name)) {
                layers[k].error[at] = value;
            }
        }
    }
}

static void add_numbers(Text *json, const char *name, const double *numbers, size_t n, int digits)
{
    text_printf(json, ",\"%s\":[", name);
    for (size_t i = 0; i < n; i++) {
        text_add(json, i ? "," : "");
        json_number(json, numbers[i], digits);
    }
    text_add(json, "]");
}

/* state: a digit a cell. */
static void add_layer(Text *json, const Layer *layer, size_t n)
{
    bool errors = false;
    text_add(json, "{\"name\":");
    json_text(json, layer->name);
    add_numbers(json, "z", layer->value, n, 7);
    for (size_t i = 0; i < n; i++) {
        errors |= isfinite(layer->error[i]);
    }
    if (errors) {
        add_numbers(json, "se", layer->error, n, 3);
    }
    text_add(json, ",\"state\":\"");
    for (size_t i = 0; i < n; i++) {
        text_printf(json, "%d", layer->state[i]);
    }
    text_add(json, "\"}");
}

static void add_marks(Text *json, const Frame *marks)
{
    size_t n_path = 0, n = 0;
    for (size_t i = 0; i < marks->n_rows; i++) {
        n_path += strcmp(text_at(marks, "kind", i), "path") == 0;
    }
    size_t stride = n_path > PATH_MOST ? (n_path + PATH_MOST - 1) / PATH_MOST : 1;
    text_printf(json, ",\"path_stride\":%zu,\"marks\":[", stride);
    for (size_t i = 0; i < marks->n_rows; i++) {
        bool last = i + 1 == marks->n_rows;
        bool path = strcmp(text_at(marks, "kind", i), "path") == 0;
        last |= !last && strcmp(text_at(marks, "name", i), text_at(marks, "name", i + 1)) != 0;
        if (path && i % stride != 0 && !last) {
            continue;
        }
        text_add(json, n++ ? ",\n{\"kind\":" : "\n{\"kind\":");
        json_text(json, text_at(marks, "kind", i));
        text_add(json, ",\"name\":");
        json_text(json, text_at(marks, "name", i));
        text_add(json, ",\"metric\":");
        json_text(json, text_at(marks, "metric", i));
        static const char *const numbers[] = {"place", "x", "y", "distance", "value"};
        for (int k = 0; k < 5; k++) {
            text_printf(json, ",\"%s\":", numbers[k]);
            json_number(json, frame_number(marks, numbers[k], i), k ? 7 : 15);
        }
        text_add(json, "}");
    }
    text_add(json, "]");
}

static void add_slices(Text *json, const Frame *slices)
{
    text_add(json, ",\"slices\":[");
    for (size_t from = 0, to; from < slices->n_rows; from = to) {
        const char *name = text_at(slices, "name", from);
        const char *metric = text_at(slices, "metric", from);
        for (to = from; to < slices->n_rows && strcmp(text_at(slices, "name", to), name) == 0 &&
                        strcmp(text_at(slices, "metric", to), metric) == 0;) {
            to++;
        }
        text_add(json, from ? ",\n{\"name\":" : "\n{\"name\":");
        json_text(json, name);
        text_add(json, ",\"metric\":");
        json_text(json, metric);
        static const char *const numbers[] = {"t", "x", "y", "value"};
        for (int k = 0; k < 4; k++) {
            const double *values = numbers_at(slices, numbers[k]);
            add_numbers(json, numbers[k], values ? values + from : NULL, values ? to - from : 0, 7);
        }
        text_add(json, "}");
    }
    text_add(json, "]");
}

static void add_hessian(Text *json, const Frame *hessian)
{
    text_add(json, ",\"hessian\":[");
    for (size_t from = 0, to; from < hessian->n_rows; from = to) {
        const char *place = text_at(hessian, "place", from);
        for (to = from;
             to < hessian->n_rows && strcmp(text_at(hessian, "place", to), place) == 0;) {
            to++;
        }
        text_add(json, from ? ",{\"place\":" : "{\"place\":");
        json_text(json, place);
        const double *values = numbers_at(hessian, "eigenvalue");
        add_numbers(json, "values", values ? values + from : NULL, values ? to - from : 0, 6);
        text_add(json, "}");
    }
    text_add(json, "]");
}

/* The names in the surface's list of metrics. */
static size_t read_layers(Layer *layers, const JsonDocument *names, size_t n_cells)
{
    size_t n = names ? json_size(json_root(names)) : 0, n_layers = 0;
    for (size_t k = 0; k < n && n_layers < METRICS_MOST; k++) {
        const char *name = json_string(json_at(json_root(names), k), NULL);
        if (name) {
            Layer *layer = &layers[n_layers++];
            *layer = (Layer){.name = name,
                             .value = allocate(n_cells, sizeof *layer->value),
                             .error = allocate(n_cells, sizeof *layer->error),
                             .state = allocate(n_cells, 1)};
            for (size_t i = 0; i < n_cells; i++) {
                layer->value[i] = layer->error[i] = NAN;
            }
        }
    }
    return n_layers;
}

static Status read_points(Frame *points, Store *store, const char *surface_id,
                          const Lattice *lattice, Error *error)
{
    char counts[4][32];
    snprintf(counts[0], sizeof counts[0], "%zu", lattice->stride_x);
    snprintf(counts[1], sizeof counts[1], "%zu", lattice->stride_y);
    snprintf(counts[2], sizeof counts[2], "%zu", lattice->nx);
    snprintf(counts[3], sizeof counts[3], "%zu", lattice->ny);
    const char *const binds[] = {surface_id, counts[0], counts[1], counts[2], counts[3]};
    return frame_read(points, store, points_sql, binds, 5, error);
}

static void add_grid(Text *json, const Frame *surface, const Lattice *lattice, const Layer *layers,
                     size_t n_layers)
{
    static const char *const texts[][2] = {
        {"{\"id\":", "surface_id"}, {",\"x_label\":", "x_label"}, {",\"y_label\":", "y_label"}};
    for (int k = 0; k < 3; k++) {
        text_add(json, texts[k][0]);
        json_text(json, text_at(surface, texts[k][1], 0));
    }
    text_printf(json, ",\"nx\":%zu,\"ny\":%zu,\"stride\":[%zu,%zu]", lattice->nx, lattice->ny,
                lattice->stride_x, lattice->stride_y);
    add_numbers(json, "x", lattice->x, lattice->kept_x, 9);
    add_numbers(json, "y", lattice->y, lattice->kept_y, 9);
    text_add(json, ",\"layers\":[");
    for (size_t k = 0; k < n_layers; k++) {
        text_add(json, k ? ",\n" : "\n");
        add_layer(json, &layers[k], lattice->kept_x * lattice->kept_y);
    }
    text_add(json, "]");
}

Status report_surface_json(Text *json, Store *store, const Frame *surface, const Frame *marks,
                           const Frame *hessian, size_t budget, Error *error)
{
    const char *surface_id = text_at(surface, "surface_id", 0);
    const char *metrics = text_at(surface, "metrics", 0);
    Frame points = {0}, slices = {0};
    Lattice lattice = {0};
    Layer layers[METRICS_MOST];
    size_t n_layers = 0;
    JsonDocument *names = NULL;
    Status status = json_parse(&names, metrics, strlen(metrics), error);
    if (status) {
        return error_context(error, status, "surface %s: metrics", surface_id);
    }
    double nx = frame_number(surface, "nx", 0), ny = frame_number(surface, "ny", 0);
    if (!(nx >= 1 && nx <= SIDE_MOST && ny >= 1 && ny <= SIDE_MOST)) {
        json_free(names);
        return error_set(error, STATUS_REFUSED, "surface %s: a grid of %g x %g points", surface_id,
                         nx, ny);
    }
    size_t n_metrics = json_size(json_root(names));
    budget = budget / (n_metrics ? n_metrics : 1);
    lattice_init(&lattice, surface, budget < CELLS_LEAST ? CELLS_LEAST : budget);
    n_layers = read_layers(layers, names, lattice.kept_x * lattice.kept_y);
    status = read_points(&points, store, surface_id, &lattice, error);
    status = status ? status : frame_read(&slices, store, slices_sql, &surface_id, 1, error);
    if (!status) {
        fill_layers(layers, n_layers, &lattice, &points);
        add_grid(json, surface, &lattice, layers, n_layers);
        add_marks(json, marks);
        add_slices(json, &slices);
        add_hessian(json, hessian);
        text_add(json, "}");
    }
    for (size_t k = 0; k < n_layers; k++) {
        free(layers[k].value);
        free(layers[k].error);
        free(layers[k].state);
    }
    free(lattice.x);
    free(lattice.y);
    json_free(names);
    frame_release(&points);
    frame_release(&slices);
    return status;
}
