/* SPDX-License-Identifier: MIT
 * plan_rehearse.c - every emit function runs once without a device, so that scratch memory, work
 * and limits are known before anything is allocated. */
#include "graph/kernel.h"

struct rehearsal {
    struct burin_plan *plan;
    const struct plan_target *target;
    bool chained;
};

static bool rehearse_call(struct emit *e, const struct kernel_call *call)
{
    struct rehearsal *r = e->user;
    for (int i = 0; i < call->n_bind; i++) {
        const struct tensor_ref *b = &call->bind[i];
        char text[64];
        if (call->host || b->bytes <= r->target->max_range) continue;
        return fail("a tensor %s%s%s of %.1f MiB is more than the %.1f MiB that this device can "
                    "bind at once",
                    shape_text(&b->shape, text), b->var ? " of variable " : "",
                    b->var ? b->var->name : "", (double)b->bytes / 1048576,
                    (double)r->target->max_range / 1048576);
    }
    r->plan->calls++;
    r->plan->flops += call->flops;
    r->chained |= call->chained;
    return true;
}

static bool rehearse_step(struct burin_plan *p, const struct plan_target *target,
                          struct plan_step *t)
{
    struct rehearsal r = { p, target, false };
    struct emit e = { .step = t, .target = target, .call = rehearse_call, .user = &r };
    const struct op_row *row = op_at((enum op_code)t->node->op);
    bool ok = emit_step(&e);
    if (ok && t->chain.n_steps && !r.chained) ok = fail("the kernel has dropped its chain");
    t->workspace.bytes = e.workspace_used;
    if (ok) return true;
    fail_prefix("%s", row->name);
    return t->node->where ? fail_prefix("%s", t->node->where) : false;
}

bool plan_rehearse(struct burin_plan *p, const struct plan_target *target)
{
    for (int s = 0; s < p->count; s++)
        if (!rehearse_step(p, target, &p->step[s])) return false;
    return true;
}
