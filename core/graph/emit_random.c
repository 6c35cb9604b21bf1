/* SPDX-License-Identifier: MIT
 * emit_random.c - counter-based random numbers: four per invocation. */
#include "graph/kernel.h"

bool emit_random(struct emit *e)
{
    const struct plan_step *s = e->step;
    const burin_node *n = s->node;
    uint32_t count = (uint32_t)burin_shape_count(&n->shape);
    uint32_t kind = n->op == OP_randn  ? RANDOM_NORMAL
                    : n->op == OP_rand ? RANDOM_UNIFORM
                                       : RANDOM_INTEGER;
    struct kernel_call c = { .shader = SHADER_random,
                             .bind = { s->in[0], s->out[0] },
                             .n_bind = 2,
                             .writes = 1u << 1,
                             .spec = { kind },
                             .n_spec = 1,
                             .push = { count, (uint32_t)n->at[0] },
                             .n_push = 4 };
    if (kind == RANDOM_INTEGER) {
        c.push[2] = kernel_float((float)n->at[1]);
        c.push[3] = (uint32_t)(n->at[2] - n->at[1]);
    }
    kernel_groups(e->target, ceil_div(count, 4 * KERNEL_GROUP), c.groups);
    return emit_call(e, &c);
}
