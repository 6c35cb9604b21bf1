/* SPDX-License-Identifier: MIT
 * emit_random.c - counter-based random numbers: four per invocation. */
#include "graph/kernel.h"

enum kind { NORMAL, UNIFORM, INTEGER }; /* as in shaders/random.comp */

bool emit_random(struct emit *e)
{
    const struct plan_step *s = e->step;
    const burin_node *n = s->node;
    uint32_t count = (uint32_t)burin_shape_count(&n->shape);
    enum kind kind = n->op == OP_randn ? NORMAL : n->op == OP_rand ? UNIFORM : INTEGER;
    struct kernel_call c = { .shader = "random",
                             .bind = { s->in[0], s->out[0] },
                             .n_bind = 2,
                             .writes = 1u << 1,
                             .spec = { kind },
                             .n_spec = 1,
                             .push = { count, (uint32_t)n->at[0] },
                             .n_push = 4 };
    if (kind == INTEGER) {
        c.push[2] = kernel_float((float)n->at[1]);
        c.push[3] = (uint32_t)(n->at[2] - n->at[1]);
    }
    kernel_groups(e->target, ceil_div(count, 4 * 64), c.groups);
    return emit_call(e, &c);
}
