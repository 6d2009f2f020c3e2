/* Edit distance with two rows; names are short, longer ones are compared by their first bytes. */
#include "experiments/nearest.h"

#include <ctype.h>
#include <string.h>

enum { LONGEST = 127 };

static size_t minimum(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* most when it is as much or more. */
static size_t distance(const char *a, const char *b, size_t most)
{
    size_t row[LONGEST + 1];
    size_t n_a = minimum(strlen(a), LONGEST), n_b = minimum(strlen(b), LONGEST);
    if ((n_a > n_b ? n_a - n_b : n_b - n_a) >= most) {
        return most;
    }
    for (size_t j = 0; j <= n_b; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= n_a; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            int same = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
            size_t replaced = diagonal + (same ? 0 : 1);
            diagonal = row[j];
            row[j] = minimum(replaced, minimum(row[j], row[j - 1]) + 1);
        }
    }
    return minimum(row[n_b], most);
}

const char *nearest_name(const char *name, const char *const *candidates, size_t n)
{
    const char *best = NULL;
    size_t best_distance = LONGEST + 1;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(name, candidates[i], best_distance);
        if (d < best_distance) {
            best = candidates[i];
            best_distance = d;
        }
    }
    return best;
}
