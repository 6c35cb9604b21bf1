/* SPDX-License-Identifier: MIT
 * test_matrix.c - singular values against matrices that are made from
 * known ones, and against A^T A's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* base.h has its own */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/matrix.h"

static uint64_t state;

static double uniform(void) /* -1 .. 1 */
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) * 0x1p-52 - 1;
}

static double *random_matrix(int64_t rows, int64_t columns)
{
    double *a = mem_alloc((size_t)(rows * columns) * sizeof *a);
    for (int64_t i = 0; i < rows * columns; i++) a[i] = uniform();
    return a;
}

static void naive(const double *a, const double *b, double *c, int64_t m, int64_t k, int64_t n)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            long double sum = 0;
            for (int64_t p = 0; p < k; p++) sum += (long double)a[i * k + p] * b[p * n + j];
            c[i * n + j] = (double)sum;
        }
}

static double distance(const double *a, const double *b, int64_t n)
{
    double d = 0, r = 0;
    for (int64_t i = 0; i < n; i++) {
        d += (a[i] - b[i]) * (a[i] - b[i]);
        r += b[i] * b[i];
    }
    return sqrt(d / (r > 0 ? r : 1));
}

static void test_product(void **unused)
{
    (void)unused;
    const int64_t sizes[][3] = { { 1, 1, 1 }, { 3, 5, 7 },   { 4, 4, 4 },
                                 { 9, 1, 6 }, { 13, 17, 5 }, { 33, 130, 1100 } };
    for (int i = 0; i < COUNT_OF(sizes); i++) {
        int64_t m = sizes[i][0], k = sizes[i][1], n = sizes[i][2];
        double *a = random_matrix(m, k), *b = random_matrix(k, n), *c = random_matrix(m, n),
               *d = random_matrix(m, n);
        naive(a, b, d, m, k, n);
        for (int64_t j = 0; j < m * n; j++) d[j] *= -2.5;
        matrix_product(a, b, -2.5, c, m, k, n);
        assert_true(distance(c, d, m * n) < 1e-14);
        double *all[] = { a, b, c, d };
        for (int j = 0; j < COUNT_OF(all); j++) mem_free(all[j]);
    }
}

/* u diag(s) v^T is a (to tolerance of its norm), u and v have orthonormal columns, s falls. */
static void check_svd(const double *a, const double *u, const double *s, const double *v, int64_t m,
                      int64_t n, int64_t r, double tolerance)
{
    double *b = mem_alloc((size_t)(m * n) * sizeof *b);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t k = 0; k < r; k++) b[i * n + j] += u[i * r + k] * s[k] * v[j * r + k];
    assert_true(distance(b, a, m * n) < tolerance);
    mem_free(b);
    for (int64_t k = 0; k < r; k++) {
        assert_true(k == 0 || s[k] <= s[k - 1]);
        if (s[k] < 1e-9 * s[0]) continue; /* vectors of a zero are free */
        for (int64_t l = 0; l <= k; l++) {
            double x = 0, y = 0;
            for (int64_t i = 0; i < m; i++) x += u[i * r + k] * u[i * r + l];
            for (int64_t i = 0; i < n; i++) y += v[i * r + k] * v[i * r + l];
            assert_true(fabs(x - (k == l)) < 1e-10 && fabs(y - (k == l)) < 1e-10);
        }
    }
}

static void test_svd_product(void **unused)
{
    (void)unused;
    const int64_t sizes[][3] = { { 1, 1, 1 }, { 7, 3, 5 }, { 20, 8, 30 },
                                 { 5, 9, 4 }, { 4, 9, 5 }, { 64, 16, 48 } };
    for (int i = 0; i < COUNT_OF(sizes); i++) {
        int64_t m = sizes[i][0], k = sizes[i][1], n = sizes[i][2], r = m < n ? m : n;
        if (k < r) r = k;
        double *x = random_matrix(m, k), *y = random_matrix(k, n), *a = random_matrix(m, n);
        double *u = random_matrix(m, r), *s = random_matrix(r, 1), *v = random_matrix(n, r);
        if (i == 5) memset(y, 0, (size_t)(2 * n) * sizeof *y); /* a factor of lower rank */
        naive(x, y, a, m, k, n);
        matrix_svd_product(x, y, m, k, n, u, s, v);
        check_svd(a, u, s, v, m, n, r, 1e-13);
        if (i == 5) assert_true(s[13] > 1e-3 && s[14] < 1e-12 && s[15] < 1e-12);
        double *all[] = { x, y, a, u, s, v };
        for (int j = 0; j < COUNT_OF(all); j++) mem_free(all[j]);
    }
}

/* A matrix with the singular values 1, f, f^2 ...: the best
 * approximation is known, and its error too. */
static void test_truncated(void **unused)
{
    (void)unused;
    const int64_t m = 150, n = 90, rank = 12;
    const double f = 0.9;
    double *x = random_matrix(m, n), *y = random_matrix(n, n), *u0 = random_matrix(m, n),
           *s0 = random_matrix(n, 1);
    double *v0 = random_matrix(n, n), *a = random_matrix(m, n);
    matrix_svd_product(x, y, m, n, n, u0, s0, v0); /* two orthonormal bases */
    memset(a, 0, (size_t)(m * n) * sizeof *a);
    for (int64_t k = 0; k < n; k++)
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++)
                a[i * n + j] += u0[i * n + k] * pow(f, (double)k) * v0[j * n + k];
    double *u = random_matrix(m, rank), *s = random_matrix(rank, 1), *v = random_matrix(n, rank),
           *best = random_matrix(m, n);
    matrix_svd(a, m, n, rank, u, s, v);
    for (int64_t k = 0; k < rank; k++) assert_true(fabs(s[k] / pow(f, (double)k) - 1) < 1e-4);
    memset(best, 0, (size_t)(m * n) * sizeof *best);
    for (int64_t k = 0; k < rank; k++)
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++)
                best[i * n + j] += u0[i * n + k] * pow(f, (double)k) * v0[j * n + k];
    check_svd(best, u, s, v, m, n, rank, 1e-2);
    double *all[] = { x, y, u0, s0, v0, a, u, s, v, best };
    for (int j = 0; j < COUNT_OF(all); j++) mem_free(all[j]);
    /* Within the oversampling of full rank it is exact. */
    double *b = random_matrix(20, 11), *bu = random_matrix(20, 11), *bs = random_matrix(11, 1),
           *bv = random_matrix(11, 11);
    matrix_svd(b, 20, 11, 11, bu, bs, bv);
    check_svd(b, bu, bs, bv, 20, 11, 11, 1e-13);
    double *rest[] = { b, bu, bs, bv };
    for (int j = 0; j < COUNT_OF(rest); j++) mem_free(rest[j]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_product),
        cmocka_unit_test(test_svd_product),
        cmocka_unit_test(test_truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
