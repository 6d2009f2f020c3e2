/* Learning curves: read run by run, thinned, with mean and standard error over seeds taken before
 * the thinning. A metric that never changes is named, not drawn. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "notebooks-export/report_parts.h"

enum {
    POINTS_MOST = 400, /* of a curve on the page */
    POINTS_LEAST = 100,
    BAND_STEPS = 1 << 20, /* longer runs get no bands */
    KEYS_MOST = 64
};

static const char keys_sql[] =
    "SELECT DISTINCT k.key FROM experiment_run m JOIN run r USING (run_id) JOIN metric k ON "
    "k.run_id "
    "= r.run_id AND k.step IN (1, r.last_step) WHERE m.experiment = ?1 "
    "AND k.key NOT IN ('epoch', 'num_tokens') ORDER BY CASE k.key "
    "WHEN 'reward' THEN 1 WHEN 'loss' THEN 2 WHEN 'entropy' THEN 3 WHEN 'kl' THEN 4 "
    "WHEN 'grad_norm' THEN 5 WHEN 'completions/mean_length' THEN 6 "
    "WHEN 'completions/clipped_ratio' THEN 7 WHEN 'frac_reward_zero_std' THEN 8 "
    "WHEN 'reward_std' THEN 9 WHEN 'learning_rate' THEN 10 ELSE 11 END, k.key";

static const char curve_sql[] =
    "SELECT key, step, value FROM metric WHERE run_id = ?1 AND key IN (SELECT value FROM "
    "json_each(?2)) ORDER BY key, step";

/* What is known of a metric while the runs go by. */
typedef struct {
    const char *name;
    Text lines, bands; /* JSON, element by element */
    double low, high;
    double *count, *mean, *spread; /* (n_steps) over the runs of a cell: Welford's sums */
} Key;

typedef struct {
    Key key[KEYS_MOST];
    size_t n_keys, points; /* a curve */
    size_t n_steps;        /* of the arrays of a key; 0: no bands */
    double longest;        /* points of the longest curve before it was thinned */
    size_t n_points;       /* on the page */
} Curves;

void report_thin(size_t *kept, size_t keep, const double *x, const double *y, size_t n)
{
    kept[0] = 0;
    for (size_t bucket = 1; bucket + 1 < keep; bucket++) {
        size_t from = 1 + (bucket - 1) * (n - 2) / (keep - 2),
               to = 1 + bucket * (n - 2) / (keep - 2);
        size_t end = bucket + 2 < keep ? 1 + (bucket + 1) * (n - 2) / (keep - 2) : n;
        double next_x = 0, next_y = 0, largest = -1, count = (double)(end - to);
        for (size_t i = to; i < end; i++) {
            next_x += x[i] / count;
            next_y += y[i] / count;
        }
        size_t last = kept[bucket - 1];
        for (size_t i = from; i < to; i++) {
            double area =
                fabs((x[last] - next_x) * (y[i] - y[last]) - (x[last] - x[i]) * (next_y - y[last]));
            if (area > largest) {
                largest = area;
                kept[bucket] = i;
            }
        }
    }
    kept[keep - 1] = n - 1;
}

static void *allocate(size_t n, size_t size)
{
    void *memory = calloc(n + 1, size);
    if (!memory) {
        abort();
    }
    return memory;
}

/* Places of the finite values that are kept; *gap[k]: a value between kept k - 1 and k is missing.
 */
static size_t choose(size_t *kept, bool *gap, const double *x, const double *y, size_t n,
                     size_t points)
{
    size_t n_finite = 0, *place = allocate(n, sizeof *place), n_kept;
    double *fx = allocate(n, sizeof *fx), *fy = allocate(n, sizeof *fy);
    for (size_t i = 0; i < n; i++) {
        if (isfinite(y[i])) {
            place[n_finite] = i;
            fx[n_finite] = x[i];
            fy[n_finite++] = y[i];
        }
    }
    n_kept = n_finite < points ? n_finite : points;
    if (n_finite > points) {
        report_thin(kept, points, fx, fy, n_finite);
    }
    for (size_t k = 0; k < n_kept; k++) {
        kept[k] = place[n_finite > points ? kept[k] : k];
        gap[k] = false;
        for (size_t i = k ? kept[k - 1] + 1 : kept[k]; i < kept[k]; i++) {
            gap[k] |= !isfinite(y[i]);
        }
    }
    free(place);
    free(fx);
    free(fy);
    return n_kept;
}

/* "[steps],[values]" with steps as differences and null where the curve is broken, that is where
 * ys[0] is; the numbers written. ys: (n_ys) arrays of (n). */
static size_t add_curve(Text *json, const double *x, const double *const *ys, size_t n_ys, size_t n,
                        size_t points)
{
    size_t *kept = allocate(points < n ? n : points, sizeof *kept);
    bool *gap = allocate(points < n ? n : points, sizeof *gap);
    size_t n_kept = choose(kept, gap, x, ys[0], n, points);
    double last = 0;
    text_add(json, "[");
    for (size_t k = 0; k < n_kept; k++) {
        text_printf(json, "%s%s%.15g", k ? "," : "", gap[k] ? "0," : "", x[kept[k]] - last);
        last = x[kept[k]];
    }
    for (size_t j = 0; j < n_ys; j++) {
        text_add(json, "],[");
        for (size_t k = 0; k < n_kept; k++) {
            text_add(json, k ? "," : "");
            text_add(json, gap[k] ? "null," : "");
            json_number(json, ys[j][kept[k]], 5);
        }
    }
    text_add(json, "]");
    free(kept);
    free(gap);
    return n_kept * n_ys;
}

static void add_to_band(Key *key, const double *steps, const double *values, size_t n,
                        size_t n_steps)
{
    for (size_t i = 0; i < n; i++) {
        if (steps[i] >= 0 && steps[i] < (double)n_steps && isfinite(values[i])) {
            size_t step = (size_t)steps[i];
            double delta = values[i] - key->mean[step];
            key->count[step] += 1;
            key->mean[step] += delta / key->count[step];
            key->spread[step] += delta * (values[i] - key->mean[step]);
        }
    }
}

/* Mean and standard error over the seeds of a cell, at steps that at least two of them have. */
static void flush_band(Curves *curves, size_t cell)
{
    for (size_t j = 0; j < curves->n_keys; j++) {
        Key *key = &curves->key[j];
        double *x = allocate(curves->n_steps, sizeof *x),
               *se = allocate(curves->n_steps, sizeof *se);
        size_t n = 0;
        for (size_t step = 0; step < curves->n_steps; step++) {
            double count = key->count[step];
            if (count >= 2) {
                x[n] = (double)step;
                se[n] = sqrt(key->spread[step] / (count * (count - 1)));
                key->mean[n] = key->mean[step];
                key->count[n++] = count;
            }
        }
        if (n) {
            const double *const ys[] = {key->mean, se, key->count};
            text_printf(&key->bands, "%s[%zu,", key->bands.n ? ",\n" : "", cell);
            curves->n_points += add_curve(&key->bands, x, ys, 3, n, curves->points);
            text_add(&key->bands, "]");
        }
        memset(key->count, 0, curves->n_steps * sizeof *key->count);
        memset(key->mean, 0, curves->n_steps * sizeof *key->mean);
        memset(key->spread, 0, curves->n_steps * sizeof *key->spread);
        free(x);
        free(se);
    }
}

static Status add_run(Curves *curves, Store *store, const char *run_id, size_t run, bool band,
                      const char *keys, Error *error)
{
    Frame frame = {0};
    const char *const binds[] = {run_id, keys};
    Status status = frame_read(&frame, store, curve_sql, binds, 2, error);
    const double *step = numbers_at(&frame, "step"), *value = numbers_at(&frame, "value");
    if (!status && (!step || !value)) {
        status = error_set(error, STATUS_REFUSED, "run %s: text among its metrics", run_id);
    }
    for (size_t from = 0, to; !status && from < frame.n_rows; from = to) {
        const char *name = text_at(&frame, "key", from);
        for (to = from; to < frame.n_rows && strcmp(text_at(&frame, "key", to), name) == 0;) {
            to++;
        }
        size_t place = 0;
        while (place < curves->n_keys && strcmp(curves->key[place].name, name) != 0) {
            place++;
        }
        if (place == curves->n_keys) {
            continue; /* names that only broken UTF-8 tells apart */
        }
        Key *key = &curves->key[place];
        const double *x = step + from, *y = value + from;
        text_printf(&key->lines, "%s[%zu,", key->lines.n ? ",\n" : "", run);
        curves->n_points += add_curve(&key->lines, x, &y, 1, to - from, curves->points);
        text_add(&key->lines, "]");
        for (size_t i = 0; i < to - from; i++) {
            key->low = fmin(key->low, y[i]);
            key->high = fmax(key->high, y[i]);
        }
        curves->longest = fmax(curves->longest, (double)(to - from));
        if (band) {
            add_to_band(key, x, y, to - from, curves->n_steps);
        }
    }
    frame_release(&frame);
    return status;
}

/* Names of the metrics that are drawn, within the budget; how many points a curve may have. */
static void plan(Curves *curves, Text *keys, const Frame *names, const ReportExperiment *e,
                 size_t budget)
{
    size_t n_runs = 0, cell_size = 0, n_curves = 1;
    double last_step = 0;
    for (size_t i = 0; i < e->runs.n_rows; i++) {
        if (strcmp(text_at(&e->runs, "kind", i), "run") == 0) {
            cell_size = i && e->cell[i] == e->cell[i - 1] ? cell_size + 1 : 1;
            n_runs++;
            n_curves += 1 + 3 * (cell_size == 2); /* a band has three values a point */
            last_step = fmax(last_step, frame_number(&e->runs, "last_step", i));
        }
    }
    curves->n_keys = names->n_rows < KEYS_MOST ? names->n_rows : KEYS_MOST;
    size_t wanted = last_step < POINTS_LEAST ? (size_t)fmax(1, last_step) : POINTS_LEAST;
    while (curves->n_keys > 1 && curves->n_keys * n_curves * wanted > budget) {
        curves->n_keys--;
    }
    curves->points = curves->n_keys ? budget / (curves->n_keys * n_curves) : 0;
    curves->points = curves->points > POINTS_MOST ? POINTS_MOST : curves->points;
    size_t least = curves->n_keys > 1 ? POINTS_LEAST : POINTS_LEAST / 4;
    curves->points = curves->points < least ? least : curves->points;
    curves->n_steps = n_curves > n_runs + 1 && last_step < BAND_STEPS ? (size_t)last_step + 1 : 0;
    text_add(keys, "[");
    for (size_t i = 0; i < curves->n_keys; i++) {
        Key *key = &curves->key[i];
        *key = (Key){.name = text_at(names, "key", i), .low = INFINITY, .high = -INFINITY};
        key->count = allocate(curves->n_steps, sizeof *key->count);
        key->mean = allocate(curves->n_steps, sizeof *key->mean);
        key->spread = allocate(curves->n_steps, sizeof *key->spread);
        text_add(keys, i ? "," : "");
        text_json_string(keys, key->name, strlen(key->name));
    }
    text_add(keys, "]");
}

/* A metric with one value everywhere is a line of text. */
static void finish(Text *json, const Curves *curves, const Frame *names)
{
    size_t n_drawn = 0, n_flat = 0;
    Text flat = {0};
    text_printf(json, ",\"curves\":{\"points\":%zu,\"longest\":%.15g,\"metrics\":[", curves->points,
                curves->longest);
    for (size_t i = 0; i < curves->n_keys; i++) {
        const Key *key = &curves->key[i];
        if (key->low < key->high || (i == 0 && key->lines.n)) {
            text_add(json, n_drawn++ ? ",\n{\"key\":" : "\n{\"key\":");
            json_text(json, key->name);
            text_printf(json, ",\"lines\":[%s],\"bands\":[%s]}", text_string(&key->lines),
                        text_string(&key->bands));
        } else if (key->low == key->high) {
            text_add(&flat, n_flat++ ? ",[" : "[");
            json_text(&flat, key->name);
            text_add(&flat, ",");
            json_number(&flat, key->low, 6);
            text_add(&flat, "]");
        }
    }
    text_printf(json, "],\"flat\":[%s],\"left\":[", text_string(&flat));
    for (size_t i = curves->n_keys; i < names->n_rows; i++) {
        text_add(json, i > curves->n_keys ? "," : "");
        json_text(json, text_at(names, "key", i));
    }
    text_add(json, "]}");
    text_release(&flat);
}

Status report_curves_json(Text *json, size_t *n_points, Store *store, const ReportExperiment *e,
                          size_t budget, Error *error)
{
    Frame names = {0};
    Curves *curves = allocate(1, sizeof *curves);
    Text keys = {0};
    Status status = frame_read(&names, store, keys_sql, &e->name, 1, error);
    if (!status) {
        plan(curves, &keys, &names, e, budget);
    }
    for (size_t i = 0; !status && curves->n_keys && i < e->runs.n_rows; i++) {
        bool next_in_cell = i + 1 < e->runs.n_rows && e->cell[i + 1] == e->cell[i];
        bool band = curves->n_steps && (next_in_cell || (i && e->cell[i - 1] == e->cell[i]));
        if (strcmp(text_at(&e->runs, "kind", i), "run") == 0) {
            status = add_run(curves, store, text_at(&e->runs, "run_id", i), i, band,
                             text_string(&keys), error);
            if (!status && band && !next_in_cell) {
                flush_band(curves, e->cell[i]);
            }
        }
    }
    *n_points = status ? 0 : curves->n_points;
    if (*n_points) {
        finish(json, curves, &names);
    }
    for (size_t i = 0; i < curves->n_keys; i++) {
        Key *key = &curves->key[i];
        text_release(&key->lines);
        text_release(&key->bands);
        free(key->count);
        free(key->mean);
        free(key->spread);
    }
    frame_release(&names);
    text_release(&keys);
    free(curves);
    return status;
}
