/* SPDX-License-Identifier: MIT
 * random_graph.h - training graphs of random shape: branches, broadcasts, reshapes, checkpointed
 * regions, a backward pass, accumulated gradients, an update. The same seed gives the same graph.
 */
#ifndef RANDOM_GRAPH_H
#define RANDOM_GRAPH_H

#include "ops/fixture.h"

static inline burin_node *call1(struct fixture *f, const char *op, burin_node *x)
{
    return burin_call(f->g, op, (burin_node *[]){ x }, 1, NULL, 0, NULL, 0);
}

static inline burin_node *call2(struct fixture *f, const char *op, burin_node *a, burin_node *b)
{
    return burin_call(f->g, op, (burin_node *[]){ a, b }, 2, NULL, 0, NULL, 0);
}

static inline burin_node *scale(struct fixture *f, burin_node *x, double by)
{
    return burin_call(f->g, "scale", &x, 1, &by, 1, NULL, 0);
}

static inline burin_node *leaf(struct fixture *f, burin_shape shape)
{
    return fixture_leaf(f, BURIN_F32, shape);
}

static inline int pick(struct fixture *f, int n) { return (int)fixture_random(f, 0, n); }

struct pool {
    burin_node *node[256];
    int count;
};

/* One more node of shape (4, 6) or a shape that broadcasts to it; bounded values. */
static inline burin_node *grow(struct fixture *f, struct pool *p, burin_node **weights)
{
    static const char *const one[] = {
        "tanh", "silu", "sigmoid", "gelu", "neg", "one_minus", "sin"
    };
    static const char *const two[] = { "add", "sub", "mul", "maximum" };
    burin_node *a = p->node[p->count - 1 - pick(f, p->count < 6 ? p->count : 6)];
    burin_node *b = p->node[pick(f, p->count)];
    burin_shape flat = SHAPE(24), full = SHAPE(4, 6), rows = SHAPE(4, 1), columns = SHAPE(6);
    switch (pick(f, 12)) {
    case 0:
    case 1:
    case 2: return call1(f, one[pick(f, COUNT_OF(one))], a);
    case 3:
    case 4:
    case 5: return call2(f, two[pick(f, COUNT_OF(two))], a, b);
    case 6: return scale(f, a, 0.5);
    case 7: return call1(f, "tanh", call2(f, "matmul", a, weights[0]));
    case 8: return call2(f, "add", call2(f, "matmul", a, weights[1]), weights[2]);
    case 9:
        return burin_call(f->g, "layer_norm", (burin_node *[]){ a, weights[2], weights[3] }, 3,
                          (double[]){ 1e-3 }, 1, NULL, 0);
    case 10: {
        burin_node *x = burin_call(f->g, "reshape", &a, 1, NULL, 0, &flat, 0);
        x = call1(f, "tanh", x);
        return burin_call(f->g, "reshape", &x, 1, NULL, 0, &full, 0);
    }
    default: {
        burin_node *x =
            burin_call(f->g, "sum_to", &a, 1, NULL, 0, pick(f, 2) ? &rows : &columns, 0);
        return call2(f, two[pick(f, 3)], call1(f, "tanh", x), b);
    }
    }
}

static inline void random_graph(struct fixture *f, uint32_t seed, int nodes, bool checkpoints)
{
    fixture_init(f, false);
    f->random = seed * 100000;
    burin_node *w[4] = { leaf(f, SHAPE(6, 6)), leaf(f, SHAPE(6, 6)), leaf(f, SHAPE(6)),
                         leaf(f, SHAPE(6)) };
    burin_node *x = leaf(f, SHAPE(4, 6)), *dw[4], *grad[4], *ema = leaf(f, SHAPE(4, 6));
    for (int i = 0; i < 4; i++) fixture_fill(f, w[i], -0.5, 0.5);
    fixture_fill(f, x, -1, 1);
    fixture_fill(f, ema, -1, 1);
    struct pool p = { { x, ema }, 2 };
    for (int i = 0; i < nodes; i++) {
        if (checkpoints && i % 7 == 2) burin_checkpoint_enter(f->g);
        burin_node *next = grow(f, &p, w);
        p.node[p.count++] = next;
        if (checkpoints && i % 7 == 5) burin_checkpoint_leave(f->g);
        if (i == nodes / 2 && seed % 2)
            burin_assign(f->g, ema->var,
                         call2(f, "add", scale(f, ema, 0.75), scale(f, p.node[p.count - 1], 0.25)));
    }
    burin_checkpoint_leave(f->g);
    burin_node *loss = call1(f, "sum_squares", p.node[p.count - 1]);
    if (!burin_backward(f->g, loss, NULL, w, dw, 4)) panic("%s", burin_error());
    for (int i = 0; i < 4; i++) {
        if (!dw[i]) continue;
        grad[i] = leaf(f, w[i]->shape);
        fixture_fill(f, grad[i], -1, 1);
        burin_assign(f->g, grad[i]->var, call2(f, "add", grad[i], dw[i]));
        if (i % 2) burin_assign(f->g, w[i]->var, call2(f, "sub", w[i], scale(f, grad[i], 0.125)));
    }
    burin_node *out = leaf(f, SCALAR);
    burin_assign(f->g, out->var, loss);
    if (burin_graph_error(f->g)) panic("%s", burin_graph_error(f->g));
}

#endif
