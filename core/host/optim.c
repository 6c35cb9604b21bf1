/* SPDX-License-Identifier: MIT
 * optim.c - AdamW, as shaders/adamw.comp. */
#include "host/inside.h"

#include "graph/control.h"

struct adamw {
    const struct host_work *w;
    void *const *at;
    float factor, lr, rate, root;
};

VERSIONS static void update(const struct adamw *s, float *restrict p, const float *restrict g,
                            float *restrict m, float *restrict v, int64_t n)
{
    const struct host_work *w = s->w;
    const float kept = 1 - s->lr * w->decay;
    for (int64_t i = 0; i < n; i++) {
        float d = s->factor * g[i];
        m[i] = w->beta1 * m[i] + w->rest1 * d;
        v[i] = w->beta2 * v[i] + w->rest2 * d * d;
        p[i] = p[i] * kept - s->rate * m[i] / (sqrtf(v[i]) * s->root + w->eps);
    }
}

static void update_blocks(void *user, int64_t begin, int64_t end)
{
    const struct adamw *s = user;
    const struct host_work *w = s->w;
    float room[4][BLOCK];
    for (uint64_t i = (uint64_t)begin * BLOCK; i < (uint64_t)end * BLOCK && i < w->count;
         i += BLOCK) {
        int n = w->count - i < BLOCK ? (int)(w->count - i) : BLOCK;
        float *x[4];
        for (int k = 0; k < 4; k++) x[k] = (float *)host_load(w->type[k], s->at[k], i, n, room[k]);
        update(s, x[0], x[1], x[2], x[3], n);
        for (int k = 0; k < 4; k++)
            if (k != 1 && x[k] == room[k]) host_store(w->type[k], s->at[k], i, n, x[k]);
    }
}

bool host_adamw(const struct host_work *w, void *const *at)
{
    const float *control = at[4], *amp = at[5], none = 0;
    host_store(w->type[w->results], at[w->results], 0, 1, &none); /* of no use, but defined */
    struct adamw s = { .w = w, .at = at, .factor = amp[AMP_FACTOR], .lr = control[w->rate] };
    if (s.factor == 0) return true; /* a skipped step changes nothing */
    s.rate = (float)(s.lr / -expm1((double)amp[AMP_STEP] * w->log1));
    s.root = (float)(1 / sqrt(-expm1((double)amp[AMP_STEP] * w->log2)));
    host_parallel((int64_t)((w->count + BLOCK - 1) / BLOCK), 16, update_blocks, &s);
    return true;
}
