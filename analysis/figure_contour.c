/* Level lines of a grid by marching squares. A point of a line lies on an edge of the grid; each
 * cell joins two of its edges, or two pairs at a saddle; lines are then followed from edge to edge.
 */
#include "analysis/figure_contour.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
    const SmoothGrid *grid;
    double level;
    int32_t (*joined)[2]; /* (2 nx ny) edges joined with an edge; -1: none */
    size_t n_edges;
    size_t shortest, longest, n_lines; /* points of lines so far */
} Tracer;

static double height(const Tracer *tracer, int i, int j)
{
    return tracer->grid->z[(size_t)i * tracer->grid->ny + j];
}

/* Edges of a cell in turn: below, right, above, left. */
static int32_t edge_of(const Tracer *tracer, int i, int j, int side)
{
    int nx = tracer->grid->nx, ny = tracer->grid->ny;
    bool along_y = side % 2;
    i += side == 1;
    j += side == 2;
    return (int32_t)((along_y ? nx * ny : 0) + i * ny + j);
}

static void join(Tracer *tracer, int32_t a, int32_t b)
{
    tracer->joined[a][tracer->joined[a][0] >= 0] = b;
    tracer->joined[b][tracer->joined[b][0] >= 0] = a;
}

static void march(Tracer *tracer, int i, int j)
{
    /* Corners in turn; side k lies between corners k and k + 1. */
    const double z[4] = {height(tracer, i, j), height(tracer, i + 1, j),
                         height(tracer, i + 1, j + 1), height(tracer, i, j + 1)};
    double sum = z[0] + z[1] + z[2] + z[3];
    int crossed[4], n = 0;
    if (isnan(sum)) {
        return;
    }
    for (int side = 0; side < 4; side++) {
        if ((z[side] >= tracer->level) != (z[(side + 1) % 4] >= tracer->level)) {
            crossed[n++] = side;
        }
    }
    if (n == 2) {
        join(tracer, edge_of(tracer, i, j, crossed[0]), edge_of(tracer, i, j, crossed[1]));
    } else if (n == 4) { /* a saddle: the middle says which corners hang together */
        bool middle_is_as_corner_0 = (sum / 4 >= tracer->level) == (z[0] >= tracer->level);
        int first = middle_is_as_corner_0 ? 0 : 3;
        join(tracer, edge_of(tracer, i, j, first), edge_of(tracer, i, j, (first + 1) % 4));
        join(tracer, edge_of(tracer, i, j, (first + 2) % 4),
             edge_of(tracer, i, j, (first + 3) % 4));
    }
}

static void add_point(const Tracer *tracer, Text *out, int32_t edge)
{
    const SmoothGrid *grid = tracer->grid;
    int n = grid->nx * grid->ny, place = edge % n, i = place / grid->ny, j = place % grid->ny;
    int along_x = edge < n, along_y = !along_x;
    double low = height(tracer, i, j), high = height(tracer, i + along_x, j + along_y);
    double t = (tracer->level - low) / (high - low);
    text_printf(out, "%.9g %.9g %.12g\n", grid->x[i] + t * (grid->x[i + along_x] - grid->x[i]),
                grid->y[j] + t * (grid->y[j + along_y] - grid->y[j]), tracer->level);
}

/* Follows a line from one of its edges and forgets it. */
static void follow(Tracer *tracer, Text *out, int32_t start)
{
    size_t n = 1;
    int32_t at = start, next = tracer->joined[start][0];
    add_point(tracer, out, start);
    while (next >= 0) {
        int32_t *back = tracer->joined[next], *here = tracer->joined[at];
        here[here[0] == next ? 0 : 1] = -1;
        back[back[0] == at ? 0 : 1] = -1;
        add_point(tracer, out, next);
        n++;
        at = next;
        next = back[0] >= 0 ? back[0] : back[1];
    }
    text_add(out, "\n");
    tracer->shortest = tracer->n_lines && tracer->shortest < n ? tracer->shortest : n;
    tracer->longest = tracer->longest > n ? tracer->longest : n;
    tracer->n_lines++;
}

static void trace(Tracer *tracer, Text *out)
{
    for (size_t edge = 0; edge < tracer->n_edges; edge++) {
        tracer->joined[edge][0] = tracer->joined[edge][1] = -1;
    }
    for (int i = 0; i + 1 < tracer->grid->nx; i++) {
        for (int j = 0; j + 1 < tracer->grid->ny; j++) {
            march(tracer, i, j);
        }
    }
    for (int closed = 0; closed < 2; closed++) { /* lines with ends before rings */
        for (size_t edge = 0; edge < tracer->n_edges; edge++) {
            const int32_t *joined = tracer->joined[edge];
            if (joined[0] >= 0 && (closed || joined[1] < 0)) {
                follow(tracer, out, (int32_t)edge);
            }
        }
    }
}

Status contour_add(Text *out, bool *any, const SmoothGrid *grid, const double *levels,
                   size_t n_levels, Error *error)
{
    Tracer tracer = {.grid = grid, .n_edges = 2 * (size_t)grid->nx * grid->ny};
    *any = false;
    if (grid->nx < 2 || grid->ny < 2) {
        return STATUS_OK;
    }
    tracer.joined = malloc(tracer.n_edges * sizeof *tracer.joined);
    if (!tracer.joined) {
        return error_set(error, STATUS_FAILED, "no memory for contours");
    }
    for (size_t k = 0; k < n_levels; k++) {
        tracer.level = levels[k];
        trace(&tracer, out);
    }
    /* Lines of one length would be taken for the lines of a grid: one more point, in no place. */
    if (tracer.n_lines > 1 && tracer.shortest == tracer.longest) {
        text_add(out, "NaN NaN NaN\n");
    }
    *any = tracer.n_lines > 0;
    free(tracer.joined);
    return STATUS_OK;
}
