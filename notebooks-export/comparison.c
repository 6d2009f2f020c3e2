/* Pairs of experiments, tested on the rows that both answered. */
#include "notebooks-export/comparison.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/statistics.h"

enum { N_TEXTS = 3, N_COLUMNS = 10 };
static const char *const names[N_COLUMNS] = {"task",       "first",   "second",     "rows",
                                             "difference", "se",      "only_first", "only_second",
                                             "p",          "p (Holm)"};

static void *must(void *memory)
{
    if (!memory) {
        abort();
    }
    return memory;
}

static bool same_pair(const Frame *rows, size_t a, size_t b)
{
    for (int k = 0; k < N_TEXTS; k++) {
        if (strcmp(frame_text(rows, names[k], a), frame_text(rows, names[k], b)) != 0) {
            return false;
        }
    }
    return true;
}

/* Rows from..to-1 of the frame into row `at` of the table. */
static void test_pair(Frame *pairs, size_t at, const Frame *rows, size_t from, size_t to)
{
    size_t n = to - from;
    double *differences = must(malloc(n * sizeof *differences));
    int *counts = must(malloc(n * sizeof *counts));
    double only_first = 0, only_second = 0, mean, error;
    bool verdict = true;
    for (size_t i = 0; i < n; i++) {
        double difference = frame_number(rows, "difference", from + i);
        differences[i] = difference / frame_number(rows, "samples", from + i);
        counts[i] = (int)lrint(difference);
        verdict = verdict && frame_number(rows, "verdict", from + i) == 1;
        only_first += difference > 0;
        only_second += difference < 0;
    }
    statistics_mean(&mean, &error, differences, n);
    for (int k = 0; k < N_TEXTS; k++) {
        pairs->columns[k].texts[at] = must(strdup(frame_text(rows, names[k], from)));
    }
    const double numbers[] = {
        (double)n,
        mean,
        error,
        only_first,
        only_second,
        verdict ? statistics_sign_flip(counts, n) : statistics_paired_t(differences, n)};
    for (int k = 0; k < N_COLUMNS - N_TEXTS - 1; k++) {
        pairs->columns[N_TEXTS + k].numbers[at] = numbers[k];
    }
    free(differences);
    free(counts);
}

void comparison_pairs(Frame *rows)
{
    Frame pairs = {.columns = must(calloc(N_COLUMNS, sizeof *pairs.columns)),
                   .n_columns = N_COLUMNS};
    for (size_t i = 0; i < rows->n_rows; i++) {
        pairs.n_rows += i == 0 || !same_pair(rows, i - 1, i);
    }
    for (int k = 0; k < N_COLUMNS; k++) {
        FrameColumn *column = &pairs.columns[k];
        column->name = must(strdup(names[k]));
        column->numeric = k >= N_TEXTS;
        if (column->numeric) {
            column->numbers = must(calloc(pairs.n_rows + 1, sizeof *column->numbers));
        } else {
            column->texts = must(calloc(pairs.n_rows + 1, sizeof *column->texts));
        }
    }
    for (size_t from = 0, to, at = 0; from < rows->n_rows; from = to) {
        for (to = from + 1; to < rows->n_rows && same_pair(rows, from, to);) {
            to++;
        }
        test_pair(&pairs, at++, rows, from, to);
    }
    statistics_holm(pairs.columns[N_COLUMNS - 1].numbers, pairs.columns[N_COLUMNS - 2].numbers,
                    pairs.n_rows);
    frame_release(rows);
    *rows = pairs;
}
