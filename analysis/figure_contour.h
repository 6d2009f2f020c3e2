/* Level lines of a grid by marching squares (Lorensen & Cline 1987, in the plane). gnuplot's own
 * begin at another point from one run to the next. */
#pragma once
#include "analysis/figure_grid.h"
#include "core/text.h"

/* Appends the lines z = level for each level: "x y level" a point, an empty line between lines.
 * Cells with a NaN have none. *any: there is a line. */
Status contour_add(Text *out, bool *any, const SmoothGrid *grid, const double *levels,
                   size_t n_levels, Error *error);
