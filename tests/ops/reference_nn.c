/* SPDX-License-Identifier: MIT
 * reference_nn.c - products, convolutions, attention, softmax and the norms, in float64 and by
 * definition. */
#include "ops/reference_row.h"

#include <math.h>
#include <stdlib.h>

/* ---- products -------------------------------------------------------------------------------- */

void ref_matmul(struct ref *r)
{
    const burin_shape *a = &r->n->in[0]->shape, *b = &r->n->in[1]->shape, *y = &r->n->shape;
    bool ta = r->n->at[0] != 0, tb = r->n->at[1] != 0;
    int64_t m = y->dim[y->rank - 2], n = y->dim[y->rank - 1], k = a->dim[a->rank - (ta ? 2 : 1)];
    for (int64_t at = 0; at < ref_count(y); at++) {
        int64_t batch = at / (m * n), i = at / n % m, j = at % n;
        const double *pa = r->x[0] + batch * m * k,
                     *pb = r->x[1] + (b->rank > 2 ? batch * k * n : 0);
        double sum = 0;
        for (int64_t l = 0; l < k; l++)
            sum += (ta ? pa[l * m + i] : pa[i * k + l]) * (tb ? pb[j * k + l] : pb[l * n + j]);
        r->y[0][at] = sum;
    }
}

/* One term y[n, oh, ow, o] += x[n, h, w, c] * k[kh, kw, c, o] of the convolution and of its
 * adjoints. */
enum term { TERM_Y, TERM_DX, TERM_DW };

static void conv(const struct ref *r, const burin_shape *xs, const burin_shape *ks,
                 const burin_shape *ys, double *x, double *k, double *y, enum term term)
{
    int64_t stride = (int64_t)r->n->at[0], top = (int64_t)r->n->at[1], left = (int64_t)r->n->at[2];
    int64_t kw = ks->dim[1], channels = ks->dim[2], out = ks->dim[3], width = ys->dim[2],
            height = ys->dim[1];
    for (int64_t pixel = 0; pixel < ys->dim[0] * height * width; pixel++) {
        for (int64_t tap = 0; tap < ks->dim[0] * kw; tap++) {
            int64_t h = pixel / width % height * stride - top + tap / kw,
                    w = pixel % width * stride - left + tap % kw;
            if (h < 0 || h >= xs->dim[1] || w < 0 || w >= xs->dim[2]) continue;
            int64_t from = ((pixel / width / height * xs->dim[1] + h) * xs->dim[2] + w) * channels;
            for (int64_t i = 0; i < channels * out; i++) {
                double *px = x + from + i / out, *pk = k + tap * channels * out + i,
                       *py = y + pixel * out + i % out;
                if (term == TERM_Y) *py += *px * *pk;
                else if (term == TERM_DX) *px += *py * *pk;
                else *pk += *px * *py;
            }
        }
    }
}

void ref_conv2d(struct ref *r)
{
    const burin_node *n = r->n;
    conv(r, &n->in[0]->shape, &n->in[1]->shape, &n->shape, r->x[0], r->x[1], r->y[0], TERM_Y);
}

void ref_conv2d_dx(struct ref *r)
{
    const burin_node *n = r->n;
    conv(r, &n->shape, &n->in[1]->shape, &n->in[0]->shape, r->y[0], r->x[1], r->x[0], TERM_DX);
}

void ref_conv2d_dw(struct ref *r)
{
    const burin_node *n = r->n;
    conv(r, &n->in[0]->shape, &n->shape, &n->in[1]->shape, r->x[0], r->y[0], r->x[1], TERM_DW);
}

/* ---- softmax and attention ------------------------------------------------------------------- */

void ref_softmax(struct ref *r)
{
    int64_t width = ref_last(&r->n->shape);
    for (int64_t at = 0; at < ref_count(&r->n->shape); at += width) {
        double top = -INFINITY, sum = 0;
        for (int64_t i = 0; i < width; i++) top = fmax(top, r->x[0][at + i]);
        for (int64_t i = 0; i < width; i++) sum += exp(r->x[0][at + i] - top);
        for (int64_t i = 0; i < width; i++) r->y[0][at + i] = exp(r->x[0][at + i] - top) / sum;
    }
}

void ref_softmax_grad(struct ref *r)
{
    const double *y = r->x[0], *dy = r->x[1];
    int64_t width = ref_last(&r->n->shape);
    for (int64_t at = 0; at < ref_count(&r->n->shape); at += width) {
        double sum = 0;
        for (int64_t i = 0; i < width; i++) sum += y[at + i] * dy[at + i];
        for (int64_t i = 0; i < width; i++) r->y[0][at + i] = y[at + i] * (dy[at + i] - sum);
    }
}

struct heads {
    int64_t batch, heads, queries, keys, size, width;
    bool causal;
    double scale;
};

static struct heads heads_of(const burin_node *n)
{
    const burin_shape *q = &n->in[0]->shape;
    struct heads h = { q->dim[0],
                       (int64_t)n->at[0],
                       q->dim[1],
                       n->in[1]->shape.dim[1],
                       q->dim[2] / (int64_t)n->at[0],
                       q->dim[2],
                       n->at[1] != 0,
                       n->at[2] };
    return h;
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* Calls visit for every row (batch, head, query): offsets of the query's slice, the keys' first
 * slice, and the row. */
static void each_row(struct ref *r, void (*visit)(struct ref *r, const struct heads *h, int64_t q,
                                                  int64_t k, int64_t row, int64_t keys))
{
    struct heads h = heads_of(r->n);
    for (int64_t row = 0; row < h.batch * h.heads * h.queries; row++) {
        int64_t i = row % h.queries, head = row / h.queries % h.heads,
                b = row / h.queries / h.heads;
        visit(r, &h, (b * h.queries + i) * h.width + head * h.size,
              b * h.keys * h.width + head * h.size, row, h.causal ? i + 1 : h.keys);
    }
}

static void attend(struct ref *r, const struct heads *h, int64_t q, int64_t k, int64_t row,
                   int64_t keys)
{
    double *score = mem_alloc((size_t)keys * sizeof *score), top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < keys; j++) {
        score[j] = dot(r->x[0] + q, r->x[1] + k + j * h->width, h->size) * h->scale;
        top = fmax(top, score[j]);
    }
    for (int64_t j = 0; j < keys; j++) sum += exp(score[j] - top);
    for (int64_t j = 0; j < keys; j++)
        for (int64_t c = 0; c < h->size; c++)
            r->y[0][q + c] += exp(score[j] - top) / sum * r->x[2][k + j * h->width + c];
    r->y[1][row] = top + log(sum);
    mem_free(score);
}

/* Of the inputs q, k, v, dy, lse, delta. With p = exp(s - lse): dv = p' dy, ds = p (dy v' - delta).
 */
static void attend_grad(struct ref *r, const struct heads *h, int64_t q, int64_t k, int64_t row,
                        int64_t keys)
{
    bool want_dq = r->n->op == OP_attention_dq;
    for (int64_t j = 0; j < keys; j++) {
        int64_t kj = k + j * h->width;
        double p = exp(dot(r->x[0] + q, r->x[1] + kj, h->size) * h->scale - r->x[4][row]);
        double ds = p * (dot(r->x[3] + q, r->x[2] + kj, h->size) - r->x[5][row]) * h->scale;
        for (int64_t c = 0; c < h->size; c++) {
            if (want_dq) r->y[0][q + c] += ds * r->x[1][kj + c];
            else r->y[0][kj + c] += ds * r->x[0][q + c], r->y[1][kj + c] += p * r->x[3][q + c];
        }
    }
}

void ref_attention(struct ref *r) { each_row(r, attend); }
void ref_attention_dq(struct ref *r) { each_row(r, attend_grad); }
void ref_attention_dkv(struct ref *r) { each_row(r, attend_grad); }

void ref_attention_delta(struct ref *r)
{
    const burin_shape *y = &r->n->shape; /* (B, H, N) */
    int64_t heads = y->dim[1], queries = y->dim[2], size = r->n->in[0]->shape.dim[2] / heads;
    for (int64_t row = 0; row < ref_count(y); row++) {
        int64_t b = row / queries / heads,
                at = ((b * queries + row % queries) * heads + row / queries % heads) * size;
        r->y[0][row] = dot(r->x[0] + at, r->x[1] + at, size);
    }
}

/* ---- norms: x seen as (N, S, G, C / G), statistics over S and C / G
 * ------------------------------ */

struct groups {
    int64_t n, rows, groups, channels;
};

static struct groups groups_of(const burin_node *n)
{
    const burin_shape *x = &n->in[0]->shape;
    int64_t channels = ref_last(x);
    bool group = n->op == OP_group_norm || n->op == OP_group_norm_dx || n->op == OP_group_norm_dw;
    if (!group) return (struct groups){ ref_count(x) / channels, 1, 1, channels };
    return (struct groups){ x->dim[0], ref_count(x) / channels / x->dim[0], (int64_t)n->at[0],
                            channels };
}

static int64_t group_of(const struct groups *g, int64_t i)
{
    return i / (g->rows * g->channels) * g->groups + i % g->channels / (g->channels / g->groups);
}

static void run_norm(struct ref *r, double eps)
{
    struct groups g = groups_of(r->n);
    int64_t count = g.n * g.rows * g.channels, sets = g.n * g.groups;
    double size = (double)(g.rows * g.channels / g.groups), *s = r->y[1];
    for (int64_t i = 0; i < count; i++) s[2 * group_of(&g, i)] += r->x[0][i] / size;
    for (int64_t i = 0; i < count; i++) {
        double d = r->x[0][i] - s[2 * group_of(&g, i)];
        s[2 * group_of(&g, i) + 1] += d * d / size;
    }
    for (int64_t k = 0; k < sets; k++) s[2 * k + 1] = 1 / sqrt(s[2 * k + 1] + eps);
    for (int64_t i = 0; i < count; i++) {
        const double *m = s + 2 * group_of(&g, i);
        r->y[0][i] = (r->x[0][i] - m[0]) * m[1] * r->x[1][i % g.channels] + r->x[2][i % g.channels];
    }
}

void ref_group_norm(struct ref *r) { run_norm(r, r->n->at[1]); }
void ref_layer_norm(struct ref *r) { run_norm(r, r->n->at[0]); }

/* Inputs x, gamma, dy, statistics. dx = (g - mean(g) - z mean(g z)) / deviation, z = normalised x,
 * g = dy gamma. */
static void run_norm_dx(struct ref *r)
{
    struct groups g = groups_of(r->n);
    const double *x = r->x[0], *gamma = r->x[1], *dy = r->x[2], *s = r->x[3];
    int64_t count = g.n * g.rows * g.channels;
    double size = (double)(g.rows * g.channels / g.groups);
    double *mean = mem_alloc((size_t)(g.n * g.groups) * 2 * sizeof *mean);
    for (int64_t i = 0; i < count; i++) {
        int64_t k = 2 * group_of(&g, i);
        double d = dy[i] * gamma[i % g.channels] / size;
        mean[k] += d;
        mean[k + 1] += d * (x[i] - s[k]) * s[k + 1];
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t k = 2 * group_of(&g, i);
        double z = (x[i] - s[k]) * s[k + 1];
        r->y[0][i] = s[k + 1] * (dy[i] * gamma[i % g.channels] - mean[k] - z * mean[k + 1]);
    }
    mem_free(mean);
}

void ref_group_norm_dx(struct ref *r) { run_norm_dx(r); }
void ref_layer_norm_dx(struct ref *r) { run_norm_dx(r); }

/* Inputs x, dy, statistics; parts dgamma, dbeta. */
static void run_norm_dw(struct ref *r)
{
    struct groups g = groups_of(r->n);
    const double *x = r->x[0], *dy = r->x[1], *s = r->x[2];
    for (int64_t i = 0; i < g.n * g.rows * g.channels; i++) {
        int64_t k = 2 * group_of(&g, i), c = i % g.channels;
        r->y[0][c] += dy[i] * (x[i] - s[k]) * s[k + 1];
        r->y[1][c] += dy[i];
    }
}

void ref_group_norm_dw(struct ref *r) { run_norm_dw(r); }
void ref_layer_norm_dw(struct ref *r) { run_norm_dw(r); }

/* Shazeer 2020: a * gelu(b); gelu'(b) = Phi(b) + b phi(b). */
void ref_geglu(struct ref *r)
{
    int64_t half = ref_last(&r->n->shape);
    for (int64_t i = 0; i < ref_count(&r->n->shape); i++) {
        const double *row = r->x[0] + i / half * 2 * half;
        double b = row[half + i % half];
        r->y[0][i] = row[i % half] * b * erfc(-b * sqrt(0.5)) / 2;
    }
}

void ref_geglu_grad(struct ref *r)
{
    int64_t half = ref_last(&r->n->in[1]->shape);
    for (int64_t i = 0; i < ref_count(&r->n->in[1]->shape); i++) {
        int64_t at = i / half * 2 * half + i % half;
        double a = r->x[0][at], b = r->x[0][at + half], phi = erfc(-b * sqrt(0.5)) / 2;
        r->y[0][at] = r->x[1][i] * b * phi;
        r->y[0][at + half] = r->x[1][i] * a * (phi + b * exp(-b * b / 2) / sqrt(2 * acos(-1)));
    }
}
