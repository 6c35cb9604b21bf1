/* SPDX-License-Identifier: MIT
 * gated.c - GEGLU and its gradient: x (rows, 2 columns), the first half times gelu of the
 * second. */
#include "host/inside.h"

struct gated {
    const struct host_work *w;
    void *const *at;
};

static void rows(void *user, int64_t begin, int64_t end)
{
    const struct gated *t = user;
    const struct host_work *w = t->w;
    const uint64_t half = w->columns;
    const bool slope = w->kind == HOST_GEGLU_GRAD;
    float a[BLOCK], b[BLOCK], d[BLOCK], gelu[BLOCK], rise[BLOCK];
    for (uint64_t r = (uint64_t)begin; r < (uint64_t)end; r++)
        for (uint64_t c = 0; c < half; c += BLOCK) {
            int n = half - c < BLOCK ? (int)(half - c) : BLOCK;
            const float *x = host_load(w->type[0], t->at[0], 2 * r * half + c, n, a),
                        *gate = host_load(w->type[0], t->at[0], (2 * r + 1) * half + c, n, b);
            host_gelu(gelu, slope ? rise : NULL, gate, n);
            if (!slope) {
                host_multiply(gelu, gelu, x, n);
                host_store(w->type[1], t->at[1], r * half + c, n, gelu);
                continue;
            }
            const float *dy = host_load(w->type[1], t->at[1], r * half + c, n, d);
            host_multiply(gelu, gelu, dy, n);
            host_multiply(rise, rise, dy, n);
            host_multiply(rise, rise, x, n);
            host_store(w->type[2], t->at[2], 2 * r * half + c, n, gelu);
            host_store(w->type[2], t->at[2], (2 * r + 1) * half + c, n, rise);
        }
}

bool host_gated(const struct host_work *w, void *const *at)
{
    struct gated t = { w, at };
    host_parallel(w->rows, 4, rows, &t);
    return true;
}
