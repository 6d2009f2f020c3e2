/* The settings of a scan as what they mean: ranges, directions, axes. */
#pragma once
#include "analysis/plane.h"
#include "experiments/settings.h"

enum { SCAN_POINTS = 21 }; /* of an automatic range, a side */

/* Check scan.* and the rules between them, and settle what needs no plane: ranges get their
 * shortest digits, automatic ones of two scalars their numbers. Errors: STATUS_USAGE. */
Status scan_settle(RunSpec *spec, Error *error);

/* *n: points of "auto" and "auto:points"; 0 of a range, which is then in *range. Errors:
 * STATUS_USAGE. */
Status scan_range_parse(PlaneRange *range, int *n, const char *text, Error *error);
/* Write a range as the setting has it. */
void scan_range_text(char text[96], const PlaneRange *range);
/* "0:1" as two indices. Errors: STATUS_USAGE. */
Status scan_axes_parse(size_t *axis_x, size_t *axis_y, const char *text, Error *error);
/* MEASURE_* bits of scan.values. */
unsigned scan_metrics(const RunSpec *spec);
