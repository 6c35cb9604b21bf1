/* SPDX-License-Identifier: MIT
 * reference_move.c - rows that move or sum elements, the random numbers and the optimizer, in
 * float64. */
#include "graph/control.h"
#include "ops/reference_row.h"

#include <math.h>

/* Aliases: the interpreter shares the pointer. */
void ref_leaf(struct ref *r) { (void)r; }
void ref_part(struct ref *r) { (void)r; }
void ref_reshape(struct ref *r) { (void)r; }
void ref_detach(struct ref *r) { (void)r; }

void ref_cast(struct ref *r)
{
    for (int64_t i = 0; i < ref_count(&r->n->shape); i++) r->y[0][i] = r->x[0][i];
}

void ref_assign(struct ref *r) { ref_cast(r); }

void ref_broadcast(struct ref *r)
{
    const burin_shape *y = &r->n->shape, *x = &r->n->in[0]->shape;
    for (int64_t i = 0; i < ref_count(y); i++) r->y[0][i] = r->x[0][ref_source(i, y, x)];
}

void ref_sum_to(struct ref *r)
{
    const burin_shape *y = &r->n->shape, *x = &r->n->in[0]->shape;
    for (int64_t i = 0; i < ref_count(x); i++) r->y[0][ref_source(i, x, y)] += r->x[0][i];
}

void ref_permute(struct ref *r)
{
    const burin_shape *y = &r->n->shape, *x = &r->n->in[0]->shape;
    int64_t stride[BURIN_MAX_RANK], s = 1;
    for (int k = x->rank - 1; k >= 0; k--) {
        stride[k] = s;
        s *= x->dim[k];
    }
    for (int64_t i = 0; i < ref_count(y); i++) {
        int64_t from = 0, rest = i;
        for (int k = y->rank - 1; k >= 0; k--) {
            from += rest % y->dim[k] * stride[(int)r->n->at[k]];
            rest /= y->dim[k];
        }
        r->y[0][i] = r->x[0][from];
    }
}

/* Copies rows [0, n) of dim `axis` of x to rows [to, to + n) of y, reading from row `from`. */
static void copy_rows(struct ref *r, int input, int64_t from, int64_t to, int64_t n)
{
    const burin_shape *x = &r->n->in[input]->shape, *y = &r->n->shape;
    int axis = (int)r->n->at[0];
    int64_t outer = 1, inner = 1;
    for (int k = 0; k < axis; k++) outer *= x->dim[k];
    for (int k = axis + 1; k < x->rank; k++) inner *= x->dim[k];
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t c = 0; c < inner; c++)
                r->y[0][(o * y->dim[axis] + to + i) * inner + c] =
                    r->x[input][(o * x->dim[axis] + from + i) * inner + c];
}

void ref_slice(struct ref *r)
{
    copy_rows(r, 0, (int64_t)r->n->at[1], 0, (int64_t)(r->n->at[2] - r->n->at[1]));
}

void ref_pad(struct ref *r)
{
    copy_rows(r, 0, 0, (int64_t)r->n->at[1], r->n->in[0]->shape.dim[(int)r->n->at[0]]);
}

void ref_concat(struct ref *r)
{
    int axis = (int)r->n->at[0];
    int64_t a = r->n->in[0]->shape.dim[axis];
    copy_rows(r, 0, 0, 0, a);
    copy_rows(r, 1, 0, a, r->n->in[1]->shape.dim[axis]);
}

/* Pixel (h, w) of `large` comes from (h * small.h / large.h, ..) of `small`; adjoint: sums back. */
static void resize(const burin_shape *small, const burin_shape *large, const double *from,
                   double *to, bool adjoint)
{
    int64_t channels = small->dim[3];
    for (int64_t i = 0; i < ref_count(large); i++) {
        int64_t c = i % channels, w = i / channels % large->dim[2],
                h = i / channels / large->dim[2] % large->dim[1];
        int64_t n = i / channels / large->dim[2] / large->dim[1];
        int64_t hs = h * small->dim[1] / large->dim[1], ws = w * small->dim[2] / large->dim[2];
        int64_t s = ((n * small->dim[1] + hs) * small->dim[2] + ws) * channels + c;
        if (adjoint) to[s] += from[i];
        else to[i] = from[s];
    }
}

void ref_upsample(struct ref *r)
{
    resize(&r->n->in[0]->shape, &r->n->shape, r->x[0], r->y[0], false);
}
void ref_upsample_grad(struct ref *r)
{
    resize(&r->n->shape, &r->n->in[0]->shape, r->x[0], r->y[0], true);
}

void ref_embedding(struct ref *r)
{
    int64_t width = ref_last(&r->n->shape);
    for (int64_t i = 0; i < ref_count(&r->n->in[1]->shape); i++)
        for (int64_t c = 0; c < width; c++)
            r->y[0][i * width + c] = r->x[0][(int64_t)r->x[1][i] * width + c];
}

void ref_embedding_grad(struct ref *r)
{
    int64_t width = ref_last(&r->n->shape);
    for (int64_t i = 0; i < ref_count(&r->n->in[0]->shape); i++)
        for (int64_t c = 0; c < width; c++)
            r->y[0][(int64_t)r->x[0][i] * width + c] += r->x[1][i * width + c];
}

/* Vaswani et al. 2017 in the order of Ho et al. 2020 (cosines first). */
void ref_timestep_embedding(struct ref *r)
{
    int64_t width = ref_last(&r->n->shape), half = width / 2;
    for (int64_t b = 0; b < r->n->shape.dim[0]; b++)
        for (int64_t i = 0; i < half; i++) {
            double angle = r->x[0][b] * pow(r->n->at[1], -(double)i / (double)half);
            r->y[0][b * width + i] = cos(angle);
            r->y[0][b * width + half + i] = sin(angle);
        }
}

void ref_sum_squares(struct ref *r)
{
    for (int64_t i = 0; i < ref_count(&r->n->in[0]->shape); i++)
        r->y[0][0] += r->x[0][i] * r->x[0][i];
}

/* ---- random numbers: the scheme of control.h ------------------------------------------------- */

static void draw(const struct ref *r, int64_t i, uint32_t word[4])
{
    const double *control = r->x[0];
    uint32_t key[2] = { (uint32_t)control[CONTROL_SEED_LO], (uint32_t)control[CONTROL_SEED_HI] };
    uint32_t counter[4] = { (uint32_t)(i / 4), (uint32_t)r->n->at[0],
                            (uint32_t)control[CONTROL_STEP], 0 };
    philox(counter, key, word);
}

void ref_randn(struct ref *r)
{
    uint32_t w[4];
    for (int64_t i = 0; i < ref_count(&r->n->shape); i++) {
        draw(r, i, w);
        const uint32_t *pair = w + i % 4 / 2 * 2;
        double u1 = ldexp((pair[0] >> 8) + 1.0, -24),
               angle = 2 * acos(-1) * ldexp(pair[1] >> 8, -24);
        r->y[0][i] = sqrt(-2 * log(u1)) * (i % 2 ? sin(angle) : cos(angle));
    }
}

void ref_rand(struct ref *r)
{
    uint32_t w[4];
    for (int64_t i = 0; i < ref_count(&r->n->shape); i++) {
        draw(r, i, w);
        r->y[0][i] = ldexp(w[i % 4] >> 8, -24);
    }
}

void ref_randint(struct ref *r)
{
    uint32_t w[4];
    uint64_t range = (uint64_t)(r->n->at[2] - r->n->at[1]);
    for (int64_t i = 0; i < ref_count(&r->n->shape); i++) {
        draw(r, i, w);
        r->y[0][i] = r->n->at[1] + (double)(w[i % 4] * range >> 32);
    }
}

/* ---- the optimizer --------------------------------------------------------------------------- */

/* Clipping as torch.nn.utils.clip_grad_norm_, loss scaling as torch.amp.GradScaler with factors 2
 * and 1/2, but never below 1. */
void ref_grad_factor(struct ref *r)
{
    double *amp = r->x[1], scale = amp[AMP_SCALE], growth = amp[AMP_GROWTH], max_norm = r->n->at[0];
    double norm = sqrt(r->x[0][0]) / scale, clip = 1;
    amp[AMP_NORM] = norm;
    if (!isfinite(norm) || !isfinite(r->x[2][0])) {
        amp[AMP_FACTOR] = 0;
        amp[AMP_SKIPPED] += 1;
        amp[AMP_GOOD] = 0;
        if (growth > 0) amp[AMP_SCALE] = fmax(scale / 2, 1);
    } else {
        if (max_norm > 0) clip = fmin(1, max_norm / (norm + 1e-6));
        amp[AMP_FACTOR] = clip / scale;
        amp[AMP_STEP] += 1;
        amp[AMP_GOOD] += 1;
        if (growth > 0 && amp[AMP_GOOD] == growth) {
            amp[AMP_SCALE] = scale * 2;
            amp[AMP_GOOD] = 0;
        }
    }
    r->y[0][0] = amp[AMP_FACTOR];
}

/* Loshchilov & Hutter 2019, as torch.optim.AdamW computes it. */
void ref_adamw(struct ref *r)
{
    const double *at = r->n->at, *control = r->x[4], *amp = r->x[5];
    double *p = r->x[0], *g = r->x[1], *m = r->x[2], *v = r->x[3];
    double lr = control[CONTROL_LR + (int)at[0]], beta1 = at[1], beta2 = at[2],
           factor = amp[AMP_FACTOR];
    double bias1 = 1 - pow(beta1, amp[AMP_STEP]), bias2 = 1 - pow(beta2, amp[AMP_STEP]);
    for (int64_t i = 0; factor != 0 && i < ref_count(&r->n->in[0]->shape); i++) {
        double d = g[i] * factor;
        m[i] = beta1 * m[i] + (1 - beta1) * d;
        v[i] = beta2 * v[i] + (1 - beta2) * d * d;
        p[i] = p[i] * (1 - lr * at[4]) - lr / bias1 * m[i] / (sqrt(v[i] / bias2) + at[3]);
    }
}

/* torch.optim.SGD: decay is added to the gradient, no dampening. */
void ref_sgd(struct ref *r)
{
    const double *at = r->n->at, *control = r->x[3], *amp = r->x[4];
    double *p = r->x[0], *g = r->x[1], *m = r->x[2], factor = amp[AMP_FACTOR];
    for (int64_t i = 0; factor != 0 && i < ref_count(&r->n->in[0]->shape); i++) {
        m[i] = at[1] * m[i] + g[i] * factor + at[2] * p[i];
        p[i] -= control[CONTROL_LR + (int)at[0]] * m[i];
    }
}
