/* What is refused here is refused by `config show` too: nothing but the settings is looked at. */
#include "experiments/scan_settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/measure.h"

Status scan_range_parse(PlaneRange *range, int *n, const char *text, Error *error)
{
    char *end;
    *n = 0;
    if (strcmp(text, "auto") == 0) {
        *n = SCAN_POINTS;
        return STATUS_OK;
    }
    if (strncmp(text, "auto:", 5) != 0) {
        return plane_range_parse(range, text, error);
    }
    long points = text[5] >= '0' && text[5] <= '9' ? strtol(text + 5, &end, 10) : 0;
    if (points < 9 || points > 100000 || *end) {
        return error_set(error, STATUS_USAGE, "\"%.64s\": auto:points wants 9 to 100000 points",
                         text);
    }
    *n = (int)points;
    return STATUS_OK;
}

void scan_range_text(char text[96], const PlaneRange *range)
{
    Text out = {0};
    shortest_number(&out, range->min);
    text_add(&out, ":");
    shortest_number(&out, range->max);
    text_printf(&out, ":%d", range->n);
    snprintf(text, 96, "%s", text_string(&out));
    text_release(&out);
}

static Status settle_range(char text[96], const char *key, bool scalars, Error *error)
{
    PlaneRange range;
    int n;
    if (scan_range_parse(&range, &n, text, error)) {
        return error_context(error, STATUS_USAGE, "%s", key);
    }
    if (n && scalars) {
        range = (PlaneRange){-0.05, 0.05, n};
        n = 0;
    }
    if (n) {
        snprintf(text, 96, "auto:%d", n);
    } else {
        scan_range_text(text, &range);
    }
    return STATUS_OK;
}

Status scan_axes_parse(size_t *axis_x, size_t *axis_y, const char *text, Error *error)
{
    size_t *const axes[] = {axis_x, axis_y};
    const char *at = text;
    for (int i = 0; i < 2; i++) {
        char *end = NULL;
        errno = 0;
        unsigned long index = *at >= '0' && *at <= '9' ? strtoul(at, &end, 10) : 0;
        if (!end || errno || *end != (i == 0 ? ':' : 0)) {
            return error_set(error, STATUS_USAGE,
                             "\"%s\": two indices of v as i:j are expected, such as 0:1", text);
        }
        *axes[i] = index;
        at = end + 1;
    }
    return STATUS_OK;
}

unsigned scan_metrics(const RunSpec *spec)
{
    unsigned metrics = 0;
    for (int i = 0; i < MEASURE_COUNT; i++) {
        metrics |= spec_measures(spec, measure_names[i]) ? 1u << i : 0;
    }
    return metrics;
}

static Status check_runs(const RunSpec *spec, Error *error)
{
    const char *directions = spec->scan.directions;
    bool scalars = strcmp(directions, "scalars") == 0, runs = strcmp(directions, "runs") == 0;
    if (scalars && (spec->scan.run[0] || spec->scan.run_2[0])) {
        return error_set(error, STATUS_USAGE,
                         "scan.run: goes with the scan.directions axes, random, pca and runs; they "
                         "are \"scalars\"");
    }
    if (!scalars && !spec->scan.run[0]) {
        return error_set(error, STATUS_USAGE,
                         "scan.run: must be given for the directions \"%s\": a run's id, see "
                         "tinylora ls",
                         directions);
    }
    if (runs && !spec->scan.run_2[0]) {
        return error_set(error, STATUS_USAGE,
                         "scan.run_2: must be given for the directions \"runs\"");
    }
    return STATUS_OK;
}

Status scan_settle(RunSpec *spec, Error *error)
{
    bool scalars = strcmp(spec->scan.directions, "scalars") == 0;
    size_t axis_x = 0, axis_y = 1;
    Status status = check_runs(spec, error);
    status = status ? status : settle_range(spec->scan.x, "scan.x", scalars, error);
    status = status ? status : settle_range(spec->scan.y, "scan.y", scalars, error);
    if (!status && strcmp(spec->scan.directions, "axes") == 0) {
        status = scan_axes_parse(&axis_x, &axis_y, spec->scan.axes, error);
        if (!status && axis_x == axis_y) {
            status = error_set(error, STATUS_USAGE,
                               "\"%s\": an axis with itself: the directions are parallel",
                               spec->scan.axes);
        }
        status = status ? error_context(error, status, "scan.axes") : STATUS_OK;
    }
    return status;
}
