/* SPDX-License-Identifier: MIT
 * emit_matmul.c - matrix products: which engine, which tile, how k is split. */
#include "graph/gemm.h"

#define CPU_LANES 8             /* of lib/gemm_cpu.glsl */

/* FLAGS of lib/gemm_cpu.glsl */
enum { U_RC = 1, L_KC = 2, SWAP = 4, SCALAR = 8, FOURS = 16 };

/* The one place that chooses between kernels. */
bool gemm_on_cpu(const struct plan_target *t)
{
    return t->tier == TIER_CPU && t->subgroup >= CPU_LANES;
}

double gemm_flops(const struct gemm *g)
{
    return 2.0 * (double)g->batch * (double)g->m * (double)g->n * (double)g->k * (double)(g->taps ? g->taps : 1);
}

uint32_t gemm_splits(const struct plan_target *t, uint64_t tiles, uint64_t k)
{
    uint64_t wanted = (2 * (uint64_t)t->cores + tiles - 1) / tiles, most = k / 256;
    uint64_t splits = wanted < most ? wanted : most;
    return tiles >= t->cores || splits < 2 ? 1 : splits > 64 ? 64 : (uint32_t)splits;
}

/* ---- the CPU engine ------------------------------------------------------------------------------ */

/* Cycles of one step (4 k's) of a tile, fitted to measurements: products, broadcasts of U, loads of L and U. */
static double tile_cost(uint32_t tu, uint32_t tl, bool l_kc)
{
    double load = l_kc ? 50.0 * tl : tl == 4 ? 4 * 50.0 : 4 * 85.0 * tl / 8;
    return 4.3 * tu * tl + 32.0 * tu + load + 50.0 * tu / 8;
}

struct gemm_tile gemm_tile(const struct emit *e, const struct gemm *g)
{
    static const uint32_t sizes[][2] = {{8, 4}, {16, 8}, {16, 16}};
    bool scalar = (g->ta ? g->m : g->k) % 4 || (g->tb ? g->k : g->n) % 4;
    struct gemm_tile best = {0};
    double best_cost = 0;
    for (int i = 0; i < 2 * COUNT_OF(sizes); i++) {
        struct gemm_tile t = {.tu = sizes[i / 2][0], .tl = sizes[i / 2][1], .swap = i % 2};
        t.us = (uint32_t)(t.swap ? g->n : g->m);
        t.ls = (uint32_t)(t.swap ? g->m : g->n);
        bool u_rc = t.swap ? !g->tb : g->ta, l_kc = t.swap ? !g->ta : g->tb;
        if (t.tl > 4 && (scalar || (u_rc && t.us % 8) || (!l_kc && t.ls % 8)))
            continue;
        t.u_tiles = ceil_div(t.us, t.tu);
        t.l_tiles = ceil_div(t.ls, CPU_LANES * t.tl);
        double rounds = ceil_div((uint64_t)t.u_tiles * t.l_tiles * g->batch, e->target->cores);
        double cost = rounds * tile_cost(t.tu, t.tl, l_kc);
        if (best.tu && cost >= best_cost)
            continue;
        t.flags = (u_rc ? U_RC : 0) | (l_kc ? L_KC : 0) | (t.swap ? SWAP : 0) | (scalar ? SCALAR : 0) |
                  (g->n % 4 == 0 && chain_by_fours(e->step) ? FOURS : 0);
        best = t;
        best_cost = cost;
    }
    return best;
}

static bool emit_matmul_cpu(struct emit *e, const struct gemm *g, struct kernel_call *c, uint32_t splits)
{
    struct gemm_tile t = gemm_tile(e, g);
    uint32_t part = ceil_div(ceil_div(g->k, 4), splits) * 4;
    uint64_t total = (uint64_t)t.u_tiles * t.l_tiles * g->batch * splits;
    uint64_t a_stride = g->ta ? g->m : g->k, b_stride = g->tb ? g->k : g->n;
    uint64_t a_batch = g->m * g->k, b_batch = e->step->node->in[1]->shape.rank == 2 ? 0 : g->n * g->k;
    uint32_t push[] = {t.us, t.ls, (uint32_t)g->k,
        (uint32_t)(t.swap ? b_stride : a_stride), (uint32_t)(t.swap ? a_stride : b_stride),
        (uint32_t)(t.swap ? b_batch : a_batch), (uint32_t)(t.swap ? a_batch : b_batch),
        (uint32_t)g->n, t.u_tiles, t.l_tiles, (uint32_t)total, splits, part};
    c->shader = "matmul_cpu";
    c->n_spec = 3;
    c->spec[0] = t.tu, c->spec[1] = t.tl, c->spec[2] = t.flags;
    c->n_push = COUNT_OF(push);
    for (int i = 0; i < c->n_push; i++)
        c->push[i] = push[i];
    kernel_groups(e->target, total, c->groups);
    return emit_call(e, c);
}

/* ---- both ---------------------------------------------------------------------------------------- */

bool emit_splitk_reduce(struct emit *e, struct tensor_ref parts, uint64_t size, uint32_t splits)
{
    uint64_t count = (uint64_t)burin_shape_count(&e->step->out[0].shape);
    bool fours = size % 4 == 0 && chain_by_fours(e->step);
    uint64_t groups = ceil_div(fours ? count / 4 : count, 64);
    struct kernel_call c = {.shader = "splitk_reduce", .bind = {parts, e->step->out[0]}, .n_bind = 2,
        .writes = 2, .spec = {fours}, .n_spec = 1,
        .push = {(uint32_t)count, (uint32_t)size, splits}, .n_push = 3, .chained = true};
    kernel_groups(e->target, groups, c.groups);
    return emit_call(e, &c);
}

bool emit_gemm(struct emit *e, const struct gemm *g)
{
    const struct plan_step *s = e->step;
    bool cpu = gemm_on_cpu(e->target);
    struct gemm_tile t = gemm_tile(e, g);
    uint64_t tiles = g->batch * (cpu ? (uint64_t)t.u_tiles * t.l_tiles
                                     : (uint64_t)ceil_div(g->m, 64) * ceil_div(g->n, 64));
    uint32_t splits = gemm_splits(e->target, tiles, g->k);
    struct tensor_ref y = splits > 1 ? emit_workspace(e, 4 * splits * g->batch * g->m * g->n) : s->out[0];
    struct kernel_call c = {.bind = {s->in[0], s->in[1], y}, .n_bind = 3, .writes = 4,
        .chained = splits == 1, .flops = gemm_flops(g)};
    return (cpu ? emit_matmul_cpu : emit_matmul_cpu)(e, g, &c, splits) &&
           (splits == 1 || emit_splitk_reduce(e, y, g->m * g->n, splits));
}

bool emit_matmul(struct emit *e)
{
    const burin_node *n = e->step->node;
    const burin_shape *a = &n->in[0]->shape, *b = &n->in[1]->shape;
    struct gemm g = {.batch = 1, .ta = n->at[0] != 0, .tb = n->at[1] != 0};
    g.m = (uint64_t)a->dim[a->rank - (g.ta ? 1 : 2)];
    g.k = (uint64_t)a->dim[a->rank - (g.ta ? 2 : 1)];
    g.n = (uint64_t)b->dim[b->rank - (g.tb ? 2 : 1)];
    for (int i = 0; i < a->rank - 2; i++)
        g.batch *= (uint64_t)a->dim[i];
    if (b->rank == 2 && !g.ta)  /* one tall product */
        g.m *= g.batch, g.batch = 1;
    return emit_gemm(e, &g);
}
