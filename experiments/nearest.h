/* "did you mean": the known name with the smallest edit distance. */
#pragma once
#include <stddef.h>

/* The candidate nearest to name (Levenshtein, case ignored, the first of equals); NULL when n is 0.
 */
const char *nearest_name(const char *name, const char *const *candidates, size_t n);
