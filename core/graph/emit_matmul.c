/* SPDX-License-Identifier: MIT
 * emit_matmul.c - matrix products: which engine, which tile, how k is cut. */
#include "graph/gemm.h"

#include <string.h>

#define LEAST_PART 64 /* k's below which a part is not worth a workgroup */
#define MOST_SPLITS 64

static uint32_t tile_flags(const struct emit *e, const struct gemm *g, bool swap)
{
    bool u_rc = swap ? !g->tb : g->ta, l_kc = swap ? !g->ta : g->tb;
    bool a_scalar = (g->ta ? g->m : g->k) % 4, b_scalar = (g->tb ? g->k : g->n) % 4;
    bool fours = g->n % 4 == 0 && chain_by_fours(e->step);
    return (u_rc ? GEMM_U_RC : 0) | (l_kc ? GEMM_L_KC : 0) | (swap ? GEMM_SWAP : 0) |
           (fours ? GEMM_FOURS : 0) | ((swap ? b_scalar : a_scalar) ? GEMM_U_SCALAR : 0) |
           ((swap ? a_scalar : b_scalar) ? GEMM_L_SCALAR : 0);
}

/* The tile whose rounds over all cores take least time. Wide loads need rows of multiples of 8. */
static struct gemm_tile cpu_tile(const struct emit *e, const struct gemm *g)
{
    static const struct {
        uint32_t tu, tl;
        double rc, kc;
    } sizes[] = { /* GFLOP/s of a full tile, by L's layout */
                  { 8, 4, 20, 20 },
                  { 16, 4, 26, 25 },
                  { 16, 8, 35, 33 },
                  { GEMM_CPU_TU, 16, 42, 29 },
                  { GEMM_CPU_TU, GEMM_CPU_TL, 41, 34 }
    };
    struct gemm_tile best = { 0 };
    double best_cost = 0;
    for (int i = 0; i < 2 * COUNT_OF(sizes); i++) {
        bool swap = i % 2;
        uint32_t tu = sizes[i / 2].tu, tl = sizes[i / 2].tl, flags = tile_flags(e, g, swap);
        struct gemm_tile t = { .engine = TIER_CPU,
                               .us = (uint32_t)(swap ? g->n : g->m),
                               .ls = (uint32_t)(swap ? g->m : g->n),
                               .spec = { tu, tl, flags },
                               .swap = swap };
        if ((tu > 8 && flags & GEMM_U_RC && !(flags & GEMM_U_SCALAR) && t.us % 8) ||
            (tl > 4 && (flags & GEMM_L_SCALAR || (!(flags & GEMM_L_KC) && t.ls % 8))))
            continue;
        t.u_tiles = ceil_div(t.us, tu);
        t.l_tiles = ceil_div(t.ls, GEMM_CPU_LANES * tl);
        double rounds = ceil_div(g->batch * t.u_tiles * t.l_tiles, e->target->cores);
        double cost = rounds * tu * tl / (flags & GEMM_L_KC ? sizes[i / 2].kc : sizes[i / 2].rc);
        if (flags & GEMM_L_SCALAR) cost *= 5;
        if (!best.engine || cost < 0.97 * best_cost) best = t, best_cost = cost;
    }
    return best;
}

struct gemm_tile gemm_tile(const struct emit *e, const struct gemm *g)
{
    if (e->target->tier == TIER_CPU && e->target->subgroup >= GEMM_CPU_LANES) return cpu_tile(e, g);
    const uint32_t side = GEMM_SIMD_TILE;
    return (struct gemm_tile){ .engine = TIER_SIMD,
                               .us = (uint32_t)g->m,
                               .ls = (uint32_t)g->n,
                               .u_tiles = ceil_div(g->m, side),
                               .l_tiles = ceil_div(g->n, side),
                               .spec = { side, side, tile_flags(e, g, false) } };
}

uint32_t gemm_splits(const struct emit *e, uint64_t groups, uint64_t most)
{
    uint64_t splits = groups < e->target->cores ? e->target->cores / groups : 1;
    if (splits > most) splits = most;
    return splits < 2 ? 1 : splits > MOST_SPLITS ? MOST_SPLITS : (uint32_t)splits;
}

bool emit_gemm_call(struct emit *e, const struct gemm_tile *t, enum gemm_kernel kernel,
                    const struct tensor_ref *parts, const uint32_t *push, int n_push,
                    uint64_t groups, double flops)
{
    static const enum shader shader[][2] = {
        [GEMM_MATMUL] = { SHADER_matmul_cpu, SHADER_matmul_simd },
        [GEMM_CONV] = { SHADER_conv_cpu, SHADER_conv_simd },
        [GEMM_CONV_DW] = { SHADER_conv_dw_cpu, SHADER_conv_dw_simd }
    };
    struct kernel_call c = { .shader = shader[kernel][t->engine == TIER_SIMD],
                             .bind = { e->step->in[0], e->step->in[1],
                                       parts ? *parts : e->step->out[0] },
                             .n_bind = 3,
                             .writes = 4,
                             .n_spec = COUNT_OF(t->spec),
                             .n_push = n_push,
                             .flops = flops,
                             .chained = !parts };
    memcpy(c.spec, t->spec, sizeof t->spec);
    memcpy(c.push, push, (size_t)n_push * sizeof *push);
    kernel_groups(e->target, groups, c.groups);
    return emit_call(e, &c);
}

bool emit_splitk_reduce(struct emit *e, struct tensor_ref parts, uint64_t size, uint32_t splits)
{
    uint64_t count = (uint64_t)burin_shape_count(&e->step->out[0].shape);
    bool fours = size % 4 == 0 && chain_by_fours(e->step);
    struct kernel_call c = { .shader = SHADER_splitk_reduce,
                             .bind = { parts, e->step->out[0] },
                             .n_bind = 2,
                             .writes = 2,
                             .spec = { fours },
                             .n_spec = 1,
                             .push = { (uint32_t)count, (uint32_t)size, splits },
                             .n_push = 3,
                             .chained = true };
    kernel_groups(e->target, ceil_div(fours ? count / 4 : count, KERNEL_GROUP), c.groups);
    return emit_call(e, &c);
}

bool emit_gemm(struct emit *e, const struct gemm *g, uint64_t b_batch)
{
    struct gemm_tile t = gemm_tile(e, g);
    uint64_t groups = g->batch * t.u_tiles * t.l_tiles;
    uint32_t splits = gemm_splits(e, groups, g->k / LEAST_PART);
    uint32_t part = ceil_div(ceil_div(g->k, 4), splits) * 4;
    splits = ceil_div(g->k, part);
    struct tensor_ref parts;
    if (splits > 1) parts = emit_workspace(e, 4 * splits * g->batch * g->m * g->n);
    uint32_t a_stride = (uint32_t)(g->ta ? g->m : g->k), b_stride = (uint32_t)(g->tb ? g->k : g->n);
    uint32_t a_batch = (uint32_t)(g->m * g->k), bb = (uint32_t)b_batch;
    uint32_t push[] = { t.us,
                        t.ls,
                        (uint32_t)g->k,
                        t.swap ? b_stride : a_stride,
                        t.swap ? a_stride : b_stride,
                        t.swap ? bb : a_batch,
                        t.swap ? a_batch : bb,
                        (uint32_t)g->n,
                        t.u_tiles,
                        t.l_tiles,
                        (uint32_t)(groups * splits),
                        splits,
                        part };
    double flops = 2.0 * (double)g->batch * (double)g->m * (double)g->n * (double)g->k;
    return emit_gemm_call(e, &t, GEMM_MATMUL, splits > 1 ? &parts : NULL, push, COUNT_OF(push),
                          groups * splits, flops) &&
           (splits == 1 || emit_splitk_reduce(e, parts, g->m * g->n, splits));
}

/* *b_batch: elements from one B to the next. */
static struct gemm gemm_of(const burin_node *n, uint64_t *b_batch)
{
    const burin_shape *a = &n->in[0]->shape, *b = &n->in[1]->shape;
    struct gemm g = { .batch = 1, .ta = n->at[0] != 0, .tb = n->at[1] != 0 };
    g.m = (uint64_t)a->dim[a->rank - (g.ta ? 1 : 2)];
    g.k = (uint64_t)a->dim[a->rank - (g.ta ? 2 : 1)];
    g.n = (uint64_t)b->dim[b->rank - (g.tb ? 2 : 1)];
    for (int i = 0; i < a->rank - 2; i++) g.batch *= (uint64_t)a->dim[i];
    *b_batch = b->rank > 2 ? g.n * g.k : 0;
    if (!*b_batch && !g.ta) /* one tall product */
        g.m *= g.batch, g.batch = 1;
    return g;
}

bool emit_matmul(struct emit *e)
{
    uint64_t b_batch;
    struct gemm g = gemm_of(e->step->node, &b_batch);
    return emit_gemm(e, &g, b_batch);
}

double matmul_work(const burin_node *n, struct dnn_work *w)
{
    uint64_t b_batch;
    struct gemm g = gemm_of(n, &b_batch);
    *w = (struct dnn_work){ .kind = DNN_PRODUCT,
                            .batch = (uint32_t)g.batch,
                            .m = (uint32_t)g.m,
                            .n = (uint32_t)g.n,
                            .k = (uint32_t)g.k,
                            .ta = g.ta,
                            .tb = g.tb,
                            .b_shared = !b_batch };
    return 2.0 * (double)g.batch * (double)g.m * (double)g.n * (double)g.k;
}
