/* Experiments on the same rows: what comparison.py does with the rows of its SQL. */
#pragma once
#include "results/frame.h"

/* rows: task, first, second, row, difference (of the sums over a row's samples, first - second),
 * samples, verdict (every score is 0 or 1), only_first, only_second (rows that one of them has
 * right more often); sorted by task, first, second. They are replaced by a row a pair: task, first,
 * second, rows, difference (a sample), se, only_first, only_second, p, p (Holm). The test is the
 * sign-flip test for verdicts (McNemar's with one sample), else Student's. */
void comparison_pairs(Frame *rows);
