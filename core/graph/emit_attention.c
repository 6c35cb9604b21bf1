/* SPDX-License-Identifier: MIT
 * emit_attention.c - attention and its gradients: which kernel, with which tiles. */
#include <math.h>

#include "graph/kernel.h"

/* The push block of shaders/lib/attention.glsl. */
struct attention {
    uint32_t batch, heads, n, m, d;
    bool causal;
    float scale;
};

static struct attention attention_of(const struct plan_step *s)
{
    const burin_node *node = s->node;
    const burin_shape *q = &node->in[0]->shape, *k = &node->in[1]->shape;
    struct attention a = {
        .batch = (uint32_t)q->dim[0],
        .heads = (uint32_t)node->at[0],
        .n = (uint32_t)q->dim[1],
        .m = (uint32_t)k->dim[1],
        .causal = node->at[1] != 0,
        .scale = (float)node->at[2],
    };
    a.d = (uint32_t)q->dim[2] / a.heads;
    if (a.scale == 0) a.scale = (float)(1 / sqrt(a.d));
    return a;
}

static void push_attention(struct kernel_call *c, const struct attention *a)
{
    uint32_t push[] = {
        a->batch * a->heads, a->n, a->m, a->heads, a->causal, kernel_float(a->scale)
    };
    for (int i = 0; i < COUNT_OF(push); i++) c->push[i] = push[i];
    c->n_push = COUNT_OF(push);
}

/* CPU tier: rows that one subgroup keeps in registers. More rows share a loaded vector among more
 * products; the kernel's size, and with it its compile time, grows with rows * d. Their sums per
 * lane must fit into shared memory. */
static uint32_t owned_rows(const struct plan_target *t, uint32_t d, uint32_t budget)
{
    uint32_t rows = budget / d, most = t->max_shared / (16 * t->subgroup * ceil_div(d, 4));
    if (rows < 2) rows = 2;
    if (rows > 8) rows = 8;
    return most && rows > most ? most : rows;
}

/* `products` of 2 N M D multiply-adds; rows: length of the owned side. */
static bool emit_tiles(struct emit *e, struct kernel_call *c, const struct attention *a,
                       uint32_t rows, uint32_t budget, int products)
{
    if (a->d > ATTENTION_MAX_HEAD)
        return fail("attention: a head of %u columns; at most %d", a->d, ATTENTION_MAX_HEAD);
    bool cpu = e->target->tier == TIER_CPU;
    uint32_t tile = cpu ? owned_rows(e->target, a->d, budget) : ATTENTION_TILE;
    c->spec[0] = cpu ? e->target->subgroup : KERNEL_TILE_GROUP;
    c->spec[1] = a->d;
    c->spec[2] = tile;
    c->n_spec = c->n_spec < 3 ? 3 : c->n_spec;
    push_attention(c, a);
    kernel_groups(e->target, (uint64_t)a->batch * a->heads * ceil_div(rows, tile), c->groups);
    c->flops = 2.0 * products * a->batch * a->heads * a->n * a->m * a->d;
    return emit_call(e, c);
}

bool emit_attention(struct emit *e)
{
    const struct plan_step *s = e->step;
    struct attention a = attention_of(s);
    struct kernel_call c = {
        .shader =
            e->target->tier == TIER_CPU ? SHADER_attention_fwd_cpu : SHADER_attention_fwd_simd,
        .bind = { s->in[0], s->in[1], s->in[2], s->out[0], s->out[1] },
        .n_bind = 5,
        .writes = 3u << 3,
    };
    return emit_tiles(e, &c, &a, a.n, 320, 2);
}

bool emit_attention_delta(struct emit *e)
{
    const struct plan_step *s = e->step;
    const burin_shape *y = &s->node->in[0]->shape;
    uint32_t heads = (uint32_t)s->node->at[0], rows = (uint32_t)(y->dim[0] * y->dim[1]) * heads;
    struct kernel_call c = {
        .shader = SHADER_attention_delta,
        .bind = { s->in[0], s->in[1], s->out[0] },
        .n_bind = 3,
        .writes = 1u << 2,
        .push = { rows, (uint32_t)y->dim[1], heads, (uint32_t)y->dim[2] / heads },
        .n_push = 4,
        .flops = 2.0 * (double)burin_shape_count(y),
    };
    kernel_groups(e->target, ceil_div(rows, KERNEL_GROUP), c.groups);
    return emit_call(e, &c);
}

static struct kernel_call backward_call(const struct emit *e, bool keys)
{
    const struct plan_step *s = e->step;
    struct kernel_call c = {
        .shader =
            e->target->tier == TIER_CPU ? SHADER_attention_bwd_cpu : SHADER_attention_bwd_simd,
        .n_bind = 8,
        .writes = keys ? 3u << 6 : 1u << 6,
        .spec = { [3] = keys },
        .n_spec = 4,
    };
    for (int i = 0; i < 6; i++) c.bind[i] = s->in[i];
    c.bind[6] = s->out[0];
    /* dq leaves the second output alone, but the validation layer takes it for one. */
    c.bind[7] = s->out[keys];
    return c;
}

bool emit_attention_dq(struct emit *e)
{
    struct attention a = attention_of(e->step);
    struct kernel_call c = backward_call(e, false);
    return emit_tiles(e, &c, &a, a.n, 240, 3);
}

bool emit_attention_dkv(struct emit *e)
{
    struct attention a = attention_of(e->step);
    struct kernel_call c = backward_call(e, true);
    return emit_tiles(e, &c, &a, a.m, 240, 4);
}
