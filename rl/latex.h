/* Are two answers in LaTeX the same? MATH's own rule (Hendrycks et al. 2021, is_equiv and
 * strip_string), which lm-evaluation-harness' hendrycks_math and verl's math.py share: text is
 * made alike (spaces, \left, units, \frac12, 1/2, 0.5, "x = "), then compared. No arithmetic:
 * 36/2 is not 18. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

/* a: (n) bytes, b: (m), each NUL-terminated. */
bool latex_equal(const char *a, size_t n, const char *b, size_t m);
