/* A cell's number at a decision: the mean of its reward (of an SFT run: minus its loss) over the
 * last stop.first steps. */
#include "experiments/early_stop.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    size_t cell;
    double value;
} Standing;

static bool is(const Cell *cell, const char *rule)
{
    return strcmp(cell->spec.stop.rule, rule) == 0;
}

int64_t early_stop_next(const Cell *cells, size_t n, int64_t step)
{
    int64_t longest = 0, next = n ? cells[0].spec.stop.first : 0;
    for (size_t i = 0; i < n; i++) {
        longest = cells[i].spec.steps > longest ? cells[i].spec.steps : longest;
    }
    while (n && !is(&cells[0], "none") && next <= step && next < longest) {
        next = is(&cells[0], "median") ? next + cells[0].spec.stop.first
                                       : next * cells[0].spec.stop.factor;
    }
    return n && !is(&cells[0], "none") && next < longest ? next : INT64_MAX;
}

static Status stand(Standing *standing, Store *store, const Cell *cell, int64_t step, Error *error)
{
    bool sft = strcmp(cell->spec.method, "sft") == 0;
    int n = cell->spec.stop.first;
    double sum = 0, *values = malloc((size_t)n * sizeof *values);
    if (!values) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    int64_t end = cell->spec.steps < step ? cell->spec.steps : step;
    Status status = store_metric_values(store, cell->run_id, sft ? "loss" : "reward", end - n + 1,
                                        n, values, error);
    int n_known = 0;
    for (int i = 0; i < n && !status; i++) {
        if (!isnan(values[i])) {
            sum += values[i];
            n_known++;
        }
    }
    free(values);
    standing->value = (sft ? -sum : sum) / n_known; /* NaN without one */
    return status;
}

/* Best first; of equals the earlier cell. */
static int by_value(const void *a, const void *b)
{
    const Standing *one = a, *other = b;
    return one->value != other->value ? (one->value < other->value ? 1 : -1)
                                      : (one->cell > other->cell) - (one->cell < other->cell);
}

static void end_cell(Text *reasons, const Standing *standing, const Cell *cell, size_t place,
                     size_t n, int64_t step)
{
    bool sft = strcmp(cell->spec.method, "sft") == 0;
    text_printf(&reasons[standing->cell], "step %lld: %s %.6g over %d steps is number %zu of %zu",
                (long long)step, sft ? "loss" : "reward", sft ? -standing->value : standing->value,
                cell->spec.stop.first, place + 1, n);
}

Status early_stop_decide(Text *reasons, Store *store, const Cell *cells, size_t n, int64_t step,
                         Error *error)
{
    Standing *standings = malloc((n + 1) * sizeof *standings);
    size_t n_standing = 0;
    Status status = standings ? STATUS_OK : error_set(error, STATUS_FAILED, "out of memory");
    for (size_t i = 0; i < n && !status; i++) {
        Standing standing = {i, NAN};
        if (cells[i].last_step >= (cells[i].spec.steps < step ? cells[i].spec.steps : step)) {
            status = stand(&standing, store, &cells[i], step, error);
        }
        if (!isnan(standing.value)) {
            standings[n_standing++] = standing;
        }
    }
    if (n_standing > 1) {
        qsort(standings, n_standing, sizeof *standings, by_value);
        bool median = is(&cells[0], "median");
        size_t factor = (size_t)cells[0].spec.stop.factor;
        size_t kept = (n_standing + factor - 1) / factor, middle = n_standing / 2;
        double level = n_standing % 2 ? standings[middle].value
                                      : (standings[middle - 1].value + standings[middle].value) / 2;
        for (size_t place = 0; place < n_standing && !status; place++) {
            const Standing *standing = &standings[place];
            Text *reason = &reasons[standing->cell];
            if (median ? standing->value < level : place >= kept) {
                end_cell(reasons, standing, &cells[standing->cell], place, n_standing, step);
                if (median) {
                    text_add(reason, ", below the median (stop.rule median)");
                } else {
                    text_printf(reason, ", the best %zu go on (stop.rule halving)", kept);
                }
            }
        }
    }
    free(standings);
    return status;
}
