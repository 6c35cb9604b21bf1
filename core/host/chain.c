/* SPDX-License-Identifier: MIT
 * chain.c - elementwise operations on blocks of elements: what shaders/lib/chain.glsl does, from
 * the same formulas. */
#include "host/inside.h"

/* Formulas are in the common subset of C and GLSL. */
#define exp(x) host_exp(x)
#define log(x) logf(x)
#define sqrt(x) sqrtf(x)
#define sin(x) sinf(x)
#define cos(x) cosf(x)
#define tanh(x) tanhf(x)
#define abs(x) fabsf(x)
#define min(a, b) ((b) < (a) ? (b) : (a))
#define max(a, b) ((a) < (b) ? (b) : (a))
INLINE
#include "lib/erf.glsl"

enum {
#define EW1(name, ...) ROW_##name,
#define EW2(name, ...) ROW_##name,
#define OP(name, ...)
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP
};

/* y = op(a, b) of n elements. */
VERSIONS static void step(int op, float *restrict y, const float *a_, const float *b_, float p,
                          float q, int n)
{
    (void)p, (void)q;
    switch (op) {
#define EW1(name, attrs, value, gradient, help) \
    case ROW_##name:                            \
        for (int i = 0; i < n; i++) {           \
            float v = a_[i];                    \
            y[i] = value;                       \
        }                                       \
        break;
#define EW2(name, attrs, value, gradient, help) \
    case ROW_##name:                            \
        for (int i = 0; i < n; i++) {           \
            float a = a_[i], b = b_[i];         \
            y[i] = value;                       \
        }                                       \
        break;
#define OP(name, ...)
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP
    }
}

void host_gelu(float *gelu, float *slope, const float *x, int n)
{
    step(ROW_gelu, gelu, x, x, 0, 0, n);
    if (slope) step(ROW_gelu_slope, slope, x, x, 0, 0, n);
}

VERSIONS void host_multiply(float *y, const float *a, const float *b, int n)
{
    for (int i = 0; i < n; i++) y[i] = a[i] * b[i];
}

/* Input k of the chain at elements first .. first + n - 1 of the result. */
static const float *input(const struct host_work *w, void *const *at, int k, uint64_t first, int n,
                          float *room)
{
    const uint64_t row = w->chain.read[k].row, div = w->chain.read[k].div,
                   mod = w->chain.read[k].mod;
    const int type = w->type[w->inputs + k];
    const void *from = at[w->inputs + k];
    if (row == w->count) return host_load(type, from, first, n, room);
    for (int done = 0, length; done < n; done += length) {
        uint64_t i = first + (uint64_t)done, within = i % row, start = i / div % mod * row + within;
        uint64_t most = row == 1 ? div - i % div : row - within;
        length = most < (uint64_t)(n - done) ? (int)most : n - done;
        const float *x = host_load(type, from, start, row == 1 ? 1 : length, room + done);
        if (length == n && row > 1) return x;
        if (row > 1 && x != room + done) memcpy(room + done, x, (size_t)length * sizeof *x);
        if (row > 1) continue;
        float one = *x;
        for (int j = 0; j < length; j++) room[done + j] = one;
    }
    return room;
}

void host_finish(const struct host_work *w, void *const *at, uint64_t first, int n,
                 const float *value)
{
    float made[CHAIN_STEPS][BLOCK], read[CHAIN_INPUTS][BLOCK];
    const float *r[CHAIN_INPUT + CHAIN_INPUTS] = { value };
    for (int k = 0; k < w->chain.n_inputs; k++)
        r[CHAIN_INPUT + k] = input(w, at, k, first, n, read[k]);
    for (int s = 0; s < w->chain.n_steps; s++) {
        const float *imm = w->chain.immediate, *b = r[w->chain.step[s].b];
        step(w->chain.step[s].op, made[s], r[w->chain.step[s].a], b ? b : value,
             imm[w->chain.step[s].p], imm[w->chain.step[s].q], n);
        r[s + 1] = made[s];
    }
    host_store(w->type[w->results], at[w->results], first, n, r[w->chain.n_steps]);
}

struct finish {
    const struct host_work *work;
    void *const *at;
    const float *value; /* NULL: binding 0 */
};

static void finish_blocks(void *user, int64_t begin, int64_t end)
{
    const struct finish *f = user;
    float room[BLOCK];
    for (uint64_t i = (uint64_t)begin * BLOCK; i < (uint64_t)end * BLOCK && i < f->work->count;
         i += BLOCK) {
        int n = f->work->count - i < BLOCK ? (int)(f->work->count - i) : BLOCK;
        const float *value =
            f->value ? f->value + i : host_load(f->work->type[0], f->at[0], i, n, room);
        host_finish(f->work, f->at, i, n, value);
    }
}

void host_finish_all(const struct host_work *w, void *const *at, const float *value)
{
    struct finish f = { w, at, value };
    host_parallel((int64_t)((w->count + BLOCK - 1) / BLOCK), 16, finish_blocks, &f);
}
