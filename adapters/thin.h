/* Products with thin factor matrices (rank, n): all the arithmetic that an adapter adds to a linear
 * layer. By the law: a row's numbers have the same bits whatever rows are beside it and on every
 * CPU (plain multiply and add in one fixed order of 16 lanes, no fused operations). One thread;
 * callers divide the rows. */
#pragma once

/* h[t][j] = sum_i x[t][i] f[j][i]
 * h: (rows, rank)   x: (rows, n)   f: (rank, n) */
void thin_project(float *h, const float *x, const float *f, int rows, int n, int rank);

/* y[t][i] += sum_j z[t][j] f[j][i]     the sum over j first, from j = 0 up, then one addition
 * y: (rows, n)   z: (rows, rank)   f: (rank, n)   rank >= 1 */
void thin_expand(float *y, const float *z, const float *f, int rows, int n, int rank);

/* z[t][j] = sum_k h[t][k] m[k][j]      from k = 0 up
 * z: (rows, rank)   h: (rows, rank)   m: (rank, rank) */
void thin_mix(float *z, const float *h, const float *m, int rows, int rank);

/* sum[j][k] += sum over t of g[t][j] h[t][k]     row after row, in double
 * sum: (rank, rank)   g, h: (rows, rank) */
void thin_outer(double *sum, const float *g, const float *h, int rows, int rank);

/* The same of columns of wider rows, for one thread's part of them: x, f and y point at the first
 * column, ld: floats from row to row (ld_f, of factor to factor).
 * h[t][j] += sum_i x[t][i] f[j][i]                 h: (rows, rank)   x: (rows, n)   f: (rank, n) */
void thin_project_columns(float *h, const float *x, int ld, const float *f, int ld_f, int rows,
                          int n, int rank);
/* y[t][i] = sum_j z[t][j] f[j][i]                  y: (rows, n), ld is n   z: (rows, rank) */
void thin_expand_columns(float *y, const float *z, const float *f, int ld_f, int rows, int n,
                         int rank);
/* sum[j][i] += sum over t of g[t][j] x[t][i]       row after row, in double (products are exact)
 * sum: (rank, n)   g: (rows, rank)   x: (rows, n) */
void thin_outer_columns(double *sum, const double *g, const float *x, int ld, int rows, int n,
                        int rank);
