/* SPDX-License-Identifier: MIT
 * matrix.h - products and singular values of host matrices, for the tools that work on files of
 * weights. All matrices are row-major; sums are float64. */
#ifndef BURIN_MATRIX_H
#define BURIN_MATRIX_H

#include "base/base.h"

/* c (m, n) = scale * a (m, k) b (k, n) */
void matrix_product(const double *a, const double *b, double scale, double *c, int64_t m, int64_t k,
                    int64_t n);

/* The singular values of x (m, k) y (k, n), greatest first: s (r), u (m, r), v (n, r) with r =
 * min(m, k, n), so that x y = u diag(s) v^T. Exact to rounding; x y itself is never formed. */
void matrix_svd_product(const double *x, const double *y, int64_t m, int64_t k, int64_t n,
                        double *u, double *s, double *v);

/* The `rank` greatest singular values of a (m, n) and their vectors, by a randomised range finder
 * (Halko, Martinsson, Tropp, "Finding structure with randomness", 2011, algorithms 4.4 and 5.1).
 * Exact to rounding when `rank` is within MATRIX_OVERSAMPLE of min(m, n). 1 <= rank <= min(m, n); u
 * (m, rank), s (rank), v (n, rank). */
#define MATRIX_OVERSAMPLE 12
void matrix_svd(const double *a, int64_t m, int64_t n, int64_t rank, double *u, double *s,
                double *v);

#endif
