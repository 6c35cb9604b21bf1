/* SPDX-License-Identifier: MIT
 * matrix.c - see matrix.h. */
#include "host/matrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define POWER_ITERATIONS 4
#define SWEEPS 60 /* of Jacobi at most; about 8 are needed */
#define ROWS 4    /* of the left operand that share one pass over the right one */
#define PANEL_ROWS 64
#define PANEL_COLUMNS 512
#define WORK 4e6 /* multiplications that are worth a thread */

static double *matrix_new(int64_t rows, int64_t columns)
{
    return mem_alloc((size_t)(rows * columns + 1) * sizeof(double));
}

/* Columns j0 .. j1 of c += scale * a b, in panels of b that stay in the caches while all rows of a
 * pass. Every element is summed in the order of k, whatever the panels, the vectors and the threads
 * are: the bits are always the same. */
struct product {
    const double *a, *b;
    double scale, *c;
    int64_t m, k, n, j0, j1;
};

static inline __attribute__((always_inline)) void product_columns(const struct product *x)
{
    const int64_t n = x->n, k = x->k;
    for (int64_t j0 = x->j0; j0 < x->j1; j0 += PANEL_COLUMNS)
        for (int64_t p0 = 0; p0 < k; p0 += PANEL_ROWS) {
            int64_t width = x->j1 - j0 < PANEL_COLUMNS ? x->j1 - j0 : PANEL_COLUMNS,
                    p1 = k - p0 < PANEL_ROWS ? k : p0 + PANEL_ROWS;
            int64_t i = 0;
            for (; i + ROWS <= x->m; i += ROWS) {
                double *restrict c0 = x->c + i * n + j0, *restrict c1 = c0 + n,
                                 *restrict c2 = c1 + n, *restrict c3 = c2 + n;
                for (int64_t p = p0; p < p1; p++) {
                    const double *restrict row = x->b + p * n + j0, *a = x->a + i * k + p;
                    double a0 = x->scale * a[0], a1 = x->scale * a[k], a2 = x->scale * a[2 * k],
                           a3 = x->scale * a[3 * k];
                    for (int64_t j = 0; j < width; j++) {
                        c0[j] += a0 * row[j];
                        c1[j] += a1 * row[j];
                        c2[j] += a2 * row[j];
                        c3[j] += a3 * row[j];
                    }
                }
            }
            for (; i < x->m; i++)
                for (int64_t p = p0; p < p1; p++)
                    for (int64_t j = 0; j < width; j++)
                        x->c[i * n + j0 + j] += x->scale * x->a[i * k + p] * x->b[p * n + j0 + j];
        }
}

static void product_plain(const struct product *x) { product_columns(x); }

#if defined __x86_64__
__attribute__((target("avx2"))) static void product_avx2(const struct product *x)
{
    product_columns(x);
}
#endif

static void product_run(void *user, int64_t begin, int64_t end)
{
    struct product x = *(const struct product *)user;
    x.j0 = begin, x.j1 = end;
#if defined __x86_64__
    if (__builtin_cpu_supports("avx2")) {
        product_avx2(&x);
        return;
    }
#endif
    product_plain(&x);
}

void matrix_product(const double *a, const double *b, double scale, double *c, int64_t m, int64_t k,
                    int64_t n)
{
    memset(c, 0, (size_t)(m * n) * sizeof *c);
    struct product x = { a, b, scale, c, m, k, n, 0, n };
    parallel(n, (int64_t)(WORK / ((double)m * (double)k + 1)) + 1, product_run, &x);
}

static double *transpose(const double *a, int64_t m, int64_t n)
{
    double *t = matrix_new(n, m);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) t[j * m + i] = a[i * n + j];
    return t;
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum[4] = { 0 }; /* four, so that additions need not wait for each other */
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int k = 0; k < 4; k++) sum[k] += a[i + k] * b[i + k];
    for (; i < n; i++) sum[0] += a[i] * b[i];
    return sum[0] + sum[1] + (sum[2] + sum[3]);
}

/* Makes the n rows of q (n, m), n <= m, orthonormal; with r (n, n), rows of the old q = r^T times
 * the new ones (r upper triangular). Gram-Schmidt, each row twice, which is enough for rounding
 * (Giraud et al., 2005). A row that depends on those before it becomes zero. */
static void orthonormalise(double *q, int64_t n, int64_t m, double *r)
{
    if (r) memset(r, 0, (size_t)(n * n) * sizeof *r);
    for (int64_t i = 0; i < n; i++) {
        double *row = q + i * m, before = sqrt(dot(row, row, m));
        for (int pass = 0; pass < 2; pass++)
            for (int64_t j = 0; j < i; j++) {
                double f = dot(q + j * m, row, m);
                for (int64_t k = 0; k < m; k++) row[k] -= f * q[j * m + k];
                if (r) r[j * n + i] += f;
            }
        double norm = sqrt(dot(row, row, m));
        if (!(norm > 1e-14 * before)) norm = 0;
        for (int64_t k = 0; k < m; k++) row[k] = norm > 0 ? row[k] / norm : 0;
        if (r) r[i * n + i] = norm;
    }
}

/* One-sided Jacobi (Hestenes): rotates rows of g (n, n) until all are orthogonal to each other, the
 * rows of w (n, n) with them. From w = 1: the rows of g become s_i v_i^T and the rows of w u_i^T of
 * the matrix that g's transpose held. */
static void jacobi(double *g, double *w, int64_t n)
{
    for (int64_t i = 0; i < n * n; i++) w[i] = i % (n + 1) == 0;
    for (int sweep = 0, rotated = 1; rotated && sweep < SWEEPS; sweep++) {
        rotated = 0;
        for (int64_t p = 0; p < n; p++)
            for (int64_t q = p + 1; q < n; q++) {
                double *x = g + p * n, *y = g + q * n;
                double a = dot(x, x, n), b = dot(y, y, n), c = dot(x, y, n);
                if (fabs(c) <= 1e-15 * sqrt(a * b) || a == 0 || b == 0) continue;
                rotated = 1;
                double zeta = (b - a) / (2 * c);
                double t = (zeta >= 0 ? 1 : -1) / (fabs(zeta) + sqrt(1 + zeta * zeta));
                double cs = 1 / sqrt(1 + t * t), sn = cs * t;
                for (int64_t k = 0; k < n; k++) {
                    double xk = x[k], yk = y[k], wx = w[p * n + k], wy = w[q * n + k];
                    x[k] = cs * xk - sn * yk;
                    y[k] = sn * xk + cs * yk;
                    w[p * n + k] = cs * wx - sn * wy;
                    w[q * n + k] = sn * wx + cs * wy;
                }
            }
    }
}

struct value {
    double s;
    int64_t row;
};

static int greatest_first(const void *a, const void *b)
{
    const struct value *x = a, *y = b;
    return x->s != y->s ? (x->s < y->s) - (x->s > y->s) : (x->row > y->row) - (x->row < y->row);
}

/* The singular values of g (n, n): value (n) sorted, rows of g scaled to v^T, rows of
 * w u^T, both in the old order. */
static struct value *singular_values(double *g, double *w, int64_t n)
{
    struct value *value = mem_alloc((size_t)(n + 1) * sizeof *value);
    double *h = transpose(g, n, n);
    jacobi(h, w, n); /* rows of h: columns of g */
    for (int64_t i = 0; i < n; i++) {
        double s = sqrt(dot(h + i * n, h + i * n, n));
        value[i] = (struct value){ s, i };
        for (int64_t k = 0; k < n; k++) g[i * n + k] = s > 0 ? h[i * n + k] / s : 0;
    }
    mem_free(h);
    qsort(value, (size_t)n, sizeof *value, greatest_first);
    return value;
}

/* With k <= m, n: x = qx^T rx, y = ry^T qy, and rx ry^T is only (k, k). */
static void svd_thin(const double *x, const double *y, int64_t m, int64_t k, int64_t n, int64_t r,
                     double *u, double *s, double *v)
{
    double *qx = transpose(x, m, k), *qy = matrix_new(k, n), *rx = matrix_new(k, k),
           *ry = matrix_new(k, k);
    memcpy(qy, y, (size_t)(k * n) * sizeof *qy);
    orthonormalise(qx, k, m, rx);
    orthonormalise(qy, k, n, ry);
    double *ryt = transpose(ry, k, k), *g = matrix_new(k, k), *w = matrix_new(k, k);
    matrix_product(rx, ryt, 1, g, k, k, k);
    /* Left vectors are in g, right ones in w: g came transposed */
    struct value *value = singular_values(g, w, k);
    double *left = matrix_new(r, k), *right = matrix_new(r, k), *ut = matrix_new(r, m),
           *vt = matrix_new(r, n);
    for (int64_t i = 0; i < r; i++) {
        s[i] = value[i].s;
        memcpy(left + i * k, g + value[i].row * k, (size_t)k * sizeof *left);
        memcpy(right + i * k, w + value[i].row * k, (size_t)k * sizeof *right);
    }
    matrix_product(left, qx, 1, ut, r, k, m);
    matrix_product(right, qy, 1, vt, r, k, n);
    double *columns = transpose(ut, r, m);
    memcpy(u, columns, (size_t)(m * r) * sizeof *u);
    mem_free(columns);
    columns = transpose(vt, r, n);
    memcpy(v, columns, (size_t)(n * r) * sizeof *v);
    double *all[] = { columns, qx, qy, rx, ry, ryt, g, w, left, right, ut, vt };
    for (int i = 0; i < COUNT_OF(all); i++) mem_free(all[i]);
    mem_free(value);
}

void matrix_svd_product(const double *x, const double *y, int64_t m, int64_t k, int64_t n,
                        double *u, double *s, double *v)
{
    int64_t r = m < n ? m : n;
    if (k <= r) {
        svd_thin(x, y, m, k, n, k, u, s, v);
        return;
    }
    /* More columns than rows in a factor: the product is the smaller thing. */
    double *a = matrix_new(m, n), *one = matrix_new(r, r);
    matrix_product(x, y, 1, a, m, k, n);
    for (int64_t i = 0; i < r; i++) one[i * r + i] = 1;
    svd_thin(m <= n ? one : a, m <= n ? a : one, m, r, n, r, u, s, v);
    mem_free(a);
    mem_free(one);
}

void matrix_svd(const double *a, int64_t m, int64_t n, int64_t rank, double *u, double *s,
                double *v)
{
    int64_t least = m < n ? m : n,
            l = rank + MATRIX_OVERSAMPLE < least ? rank + MATRIX_OVERSAMPLE : least;
    double *at = transpose(a, m, n), *q = matrix_new(l, m), *z = matrix_new(l, n);
    const uint32_t key[2] = { 0x5bd1e995u, (uint32_t)l };
    for (int64_t i = 0; i < l * n; i++) { /* a fixed seed: the same matrix gives the same bits */
        uint32_t counter[4] = { (uint32_t)i, (uint32_t)(i >> 32), 0x57d0u, 0 }, w[4];
        philox(counter, key, w);
        z[i] = ((double)w[0] + w[1] + w[2] + w[3]) * 0x1p-32 - 2;
    }
    matrix_product(z, at, 1, q, l, n, m);
    orthonormalise(q, l, m, NULL);
    for (int i = 0; i < POWER_ITERATIONS; i++) {
        matrix_product(q, a, 1, z, l, m, n);
        orthonormalise(z, l, n, NULL);
        matrix_product(z, at, 1, q, l, n, m);
        orthonormalise(q, l, m, NULL);
    }
    matrix_product(q, a, 1, z, l, m, n);
    double *qt = transpose(q, l, m), *all_u = matrix_new(m, l), *all_s = matrix_new(l, 1),
           *all_v = matrix_new(n, l);
    matrix_svd_product(qt, z, m, l, n, all_u, all_s, all_v);
    for (int64_t k = 0; k < rank; k++) {
        s[k] = all_s[k];
        for (int64_t i = 0; i < m; i++) u[i * rank + k] = all_u[i * l + k];
        for (int64_t i = 0; i < n; i++) v[i * rank + k] = all_v[i * l + k];
    }
    double *all[] = { at, q, z, qt, all_u, all_s, all_v };
    for (int i = 0; i < COUNT_OF(all); i++) mem_free(all[i]);
}
