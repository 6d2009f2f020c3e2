/* "sweep" of a config: a grid or a list of grids. An axis is a list of values or a range; axes of a
 * "zip" go together; "sobol" is a zip of points that fill the ranges evenly. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/numerics.h"
#include "experiments/config_private.h"

enum { MAX_POINTS = 10000 };

/* {"log": [from, to]} or {"linear": [from, to]}, both ends in. */
typedef struct {
    bool log;
    double from, to;
} Range;

static Status refuse(const Config *config, const Json *value, const char *place, Error *error,
                     const char *message)
{
    error_set(error, STATUS_USAGE, "%s", message);
    return config_at_place(config, value, place, STATUS_USAGE, error);
}

static Status read_range(Range *range, const Config *config, const Json *object, const char *place,
                         Error *error)
{
    const Json *log = json_get(object, "log"), *linear = json_get(object, "linear");
    const Json *ends = log ? log : linear;
    if (!log == !linear || json_size(ends) != 2 || json_kind(ends) != JSON_ARRAY ||
        !json_double(json_at(ends, 0), &range->from) ||
        !json_double(json_at(ends, 1), &range->to)) {
        return refuse(config, object, place, error,
                      "a range is {\"log\": [from, to]} or {\"linear\": [from, to]}");
    }
    range->log = log != NULL;
    if (range->log && !(range->from > 0 && range->to > 0)) {
        return refuse(config, object, place, error, "both ends of a log range must be above 0");
    }
    return STATUS_OK;
}

/* The place t of a range, 0 to 1, to 12 digits, so that decades are decades. */
static void add_place(Text *out, const Range *range, double t, bool whole)
{
    char digits[40];
    double value = range->log ? exp(log(range->from) + t * (log(range->to) - log(range->from)))
                              : range->from + t * (range->to - range->from);
    value = t <= 0 ? range->from : t >= 1 ? range->to : value;
    snprintf(digits, sizeof digits, whole ? "%.0f" : "%.12g", value);
    shortest_number(out, strtod(digits, NULL));
}

static bool is_number(const char *key, bool *whole)
{
    int reward;
    const Setting *setting = setting_find(key, &reward);
    *whole = setting && setting->kind != SETTING_NUMBER;
    return setting && (setting->kind == SETTING_NUMBER || setting->kind == SETTING_INTEGER ||
                       setting->kind == SETTING_SEED);
}

static Status read_points(int *n, const Config *config, const Json *object, const char *place,
                          Error *error)
{
    int64_t points = 0;
    if (!json_int64(json_get(object, "points"), &points) || points < 1 || points > MAX_POINTS) {
        return refuse(config, object, place, error, "\"points\" from 1 to 10000 are expected");
    }
    *n = (int)points;
    return STATUS_OK;
}

/* The list that was written out, owned by the config. */
static Status keep_list(Config *config, const Json **values, Text *list, Error *error)
{
    JsonDocument *document = NULL;
    text_add(list, "]");
    Status status = json_parse(&document, text_string(list), list->n, error);
    text_release(list);
    if (!status) {
        config_keep_document(config, document);
        *values = json_root(document);
    }
    return status;
}

/* An axis that is a range, as a list. */
static Status expand(Config *config, const char *key, const Json **values, const char *place,
                     Error *error)
{
    Range range;
    int n = 0;
    bool whole;
    Text list = {0};
    if (!is_number(key, &whole)) {
        return refuse(config, *values, place, error, "a range is of a number alone");
    }
    Status status = read_points(&n, config, *values, place, error);
    status = status ? status : read_range(&range, config, *values, place, error);
    if (!status && json_size(*values) != 2) {
        status = refuse(config, *values, place, error,
                        "a range has \"points\" and one of \"log\" "
                        "and \"linear\", nothing else");
    }
    for (int i = 0; i < n && !status; i++) {
        text_add(&list, i ? "," : "[");
        add_place(&list, &range, n > 1 ? (double)i / (n - 1) : 0, whole);
    }
    return status ? status : keep_list(config, values, &list, error);
}

/* An axis of a grid. Its values are tried by grid_cell, all before anything runs. */
static Status add_axis(Config *config, Grid *grid, const char *key, const Json *values,
                       bool with_previous, bool replaces, Error *error)
{
    char place[160];
    int reward;
    snprintf(place, sizeof place, "sweep.%.127s", key);
    const Setting *setting = setting_find(key, &reward);
    if (!setting && !config_is_group(key)) {
        return config_unknown_key(config, values, key, error);
    }
    if (setting && json_kind(values) == JSON_OBJECT) {
        Status status = expand(config, key, &values, place, error);
        if (status) {
            return status;
        }
    }
    if (json_kind(values) != JSON_ARRAY || json_size(values) == 0) {
        error_set(error, STATUS_USAGE, "%s where a list of values is expected",
                  json_kind(values) == JSON_ARRAY ? "an empty list"
                                                  : json_kind_name(json_kind(values)));
        return config_at_place(config, values, place, STATUS_USAGE, error);
    }
    int axis = 0;
    while (axis < grid->n_axes && strcmp(grid->axes[axis].path, key) != 0) {
        axis++;
    }
    if (axis == MAX_AXES) {
        error_set(error, STATUS_USAGE, "more than %d axes", MAX_AXES);
        return config_at_place(config, values, place, STATUS_USAGE, error);
    }
    if (axis < grid->n_axes && !replaces) {
        return refuse(config, values, place, error, "an axis of that name is there already");
    }
    if (axis < grid->n_axes) {
        with_previous = grid->axes[axis].with_previous;
    }
    snprintf(grid->axes[axis].path, sizeof grid->axes[axis].path, "%s", key);
    grid->axes[axis].values = values;
    grid->axes[axis].with_previous = with_previous;
    grid->n_axes += axis == grid->n_axes;
    return STATUS_OK;
}

/* Axes that go together have values for each other. */
static Status check_zips(const Config *config, const Grid *grid, const Json *value, Error *error)
{
    for (int i = 1; i < grid->n_axes; i++) {
        const Axis *axis = &grid->axes[i], *before = &grid->axes[i - 1];
        if (axis->with_previous && json_size(axis->values) != json_size(before->values)) {
            error_set(error, STATUS_USAGE, "%zu values of %s go with %zu of %s",
                      json_size(axis->values), axis->path, json_size(before->values), before->path);
            return config_at_place(config, value, "sweep.zip", STATUS_USAGE, error);
        }
    }
    return STATUS_OK;
}

static Status read_zip(Config *config, Grid *grid, const Json *object, Error *error)
{
    Status status = STATUS_OK;
    if (json_kind(object) != JSON_OBJECT || json_size(object) == 0) {
        return refuse(config, object, "sweep.zip", error, "an object of lists is expected");
    }
    for (size_t i = 0; i < json_size(object) && !status; i++) {
        status =
            add_axis(config, grid, json_key(object, i), json_at(object, i), i > 0, false, error);
    }
    return status;
}

/* {"points": 16, "optimizer.lr": {"log": [1e-6, 1e-3]}, ...}: the first points of Sobol's sequence
 * in the ranges. */
static Status read_sobol(Config *config, Grid *grid, const Json *object, Error *error)
{
    static const char place[] = "sweep.sobol";
    int n = 0, n_axes = (int)json_size(object) - 1;
    if (json_kind(object) != JSON_OBJECT || n_axes < 1 || n_axes > MAX_AXES) {
        return refuse(config, object, place, error,
                      "\"points\" and 1 to 8 ranges, KEY: {\"log\": [from, to]}, are expected");
    }
    Status status = read_points(&n, config, object, place, error);
    double *points = status ? NULL : malloc((size_t)n * (size_t)n_axes * sizeof *points);
    if (!status && !points) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    status = status ? status : numerics_sobol(points, (size_t)n, (size_t)n_axes, error);
    int axis = 0;
    for (size_t i = 0; i < json_size(object) && !status; i++) {
        const char *key = json_key(object, i);
        const Json *values = json_at(object, i);
        Range range;
        bool whole;
        Text list = {0};
        if (strcmp(key, "points") == 0) {
            continue;
        }
        if (!is_number(key, &whole)) {
            status = refuse(config, values, place, error, "a range is of a number alone");
            break;
        }
        status = read_range(&range, config, values, place, error);
        for (int k = 0; k < n && !status; k++) {
            text_add(&list, k ? "," : "[");
            add_place(&list, &range, points[(size_t)k * (size_t)n_axes + (size_t)axis], whole);
        }
        status = status ? status : keep_list(config, &values, &list, error);
        status = status ? status : add_axis(config, grid, key, values, axis > 0, false, error);
        axis++;
    }
    free(points);
    return status;
}

static Status read_grid(Config *config, const Json *object, Error *error)
{
    Status status = STATUS_OK;
    Grid *grid = &config->grids[config->n_grids];
    if (json_kind(object) != JSON_OBJECT) {
        error_set(error, STATUS_USAGE, "%s where an object is expected",
                  json_kind_name(json_kind(object)));
        return config_at_place(config, object, "sweep", STATUS_USAGE, error);
    }
    if (config->n_grids == MAX_GRIDS) {
        error_set(error, STATUS_USAGE, "more than %d grids", MAX_GRIDS);
        return config_at_place(config, object, "sweep", STATUS_USAGE, error);
    }
    grid->n_axes = 0;
    config->n_grids++;
    for (size_t i = 0; i < json_size(object) && !status; i++) {
        const char *key = json_key(object, i);
        const Json *value = json_at(object, i);
        bool zip = strcmp(key, "zip") == 0, list = json_kind(value) == JSON_ARRAY;
        for (size_t k = 0; zip && k < (list ? json_size(value) : 1) && !status; k++) {
            status = read_zip(config, grid, list ? json_at(value, k) : value, error);
        }
        if (strcmp(key, "sobol") == 0) {
            status = read_sobol(config, grid, value, error);
        } else if (!zip) {
            status = add_axis(config, grid, key, value, false, false, error);
        }
    }
    return status ? status : check_zips(config, grid, object, error);
}

Status sweep_read(Config *config, const Json *value, Error *error)
{
    bool list = json_kind(value) == JSON_ARRAY;
    Status status = STATUS_OK;
    config->n_grids = 0;
    for (size_t i = 0; i < (list ? json_size(value) : 1) && !status; i++) {
        status = read_grid(config, list ? json_at(value, i) : value, error);
    }
    return status;
}

Status sweep_override(Config *config, const char *key, const Json *values, Error *error)
{
    Status status = STATUS_OK;
    config->n_grids += config->n_grids == 0;
    for (int i = 0; i < config->n_grids && !status; i++) {
        status = add_axis(config, &config->grids[i], key, values, false, true, error);
        status = status ? status : check_zips(config, &config->grids[i], values, error);
    }
    return status;
}

/* Values of settings as they are read, of groups as they are written. */
static void show_axis(const Config *config, const Axis *axis, Text *out)
{
    int reward;
    const Setting *setting = setting_find(axis->path, &reward);
    text_json_string(out, axis->path, strlen(axis->path));
    text_add(out, ": [");
    for (size_t j = 0; j < json_size(axis->values); j++) {
        RunSpec spec = config->base;
        const Json *value = json_at(axis->values, j);
        text_add(out, j ? ", " : "");
        if (!setting) {
            json_write(value, out);
        } else if (config_apply(config, &spec, axis->path, value, NULL) == STATUS_OK) {
            setting_value_json(&spec, setting, reward, out);
        }
    }
    text_add(out, "]");
}

/* Does axis i go with its neighbours? */
static bool is_zipped(const Grid *grid, int i)
{
    return grid->axes[i].with_previous || (i + 1 < grid->n_axes && grid->axes[i + 1].with_previous);
}

/* Plain axes keep their order, zips come where the first of them stands. */
static void show_grid(const Config *config, const Grid *grid, Text *out)
{
    bool zips_told = false;
    text_add(out, "{");
    for (int i = 0; i < grid->n_axes; i++) {
        if (is_zipped(grid, i) && zips_told) {
            continue;
        }
        text_add(out, i ? ", " : "");
        if (!is_zipped(grid, i)) {
            show_axis(config, &grid->axes[i], out);
            continue;
        }
        zips_told = true;
        text_add(out, "\"zip\": [");
        for (int k = i; k < grid->n_axes; k++) {
            if (is_zipped(grid, k)) {
                bool first = !grid->axes[k].with_previous;
                text_add(out, first ? k > i ? "}, {" : "{" : ", ");
                show_axis(config, &grid->axes[k], out);
            }
        }
        text_add(out, "}]");
    }
    text_add(out, "}");
}

void sweep_show(const Config *config, Text *out)
{
    bool list = config->n_grids > 1;
    text_printf(out, ",\n  \"sweep\": %s", list ? "[\n    " : "");
    for (int i = 0; i < config->n_grids; i++) {
        text_add(out, i ? ",\n    " : "");
        show_grid(config, &config->grids[i], out);
    }
    text_add(out, list ? "]" : "");
}
