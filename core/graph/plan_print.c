/* SPDX-License-Identifier: MIT
 * plan_print.c - a plan as text, one line per step. */
#include "graph/plan.h"

static void print_ref(const struct tensor_ref *r, struct str *out)
{
    char text[64];
    str_addf(out, " %s%s@", burin_dtype_name(r->dtype), shape_text(&r->shape, text));
    if (r->var) str_add(out, r->var->name);
    else str_addf(out, "%llu", (unsigned long long)r->offset);
}

void plan_print(const struct burin_plan *p, struct str *out)
{
    for (int s = 0; s < p->count; s++) {
        const struct plan_step *t = &p->step[s];
        str_addf(out, "%4d %s", s, op_at((enum op_code)t->node->op)->name);
        for (int i = t->chain.own ? 1 : 0; i < t->chain.n_steps; i++)
            str_addf(out, "+%s", op_at((enum op_code)t->chain.step[i].op)->name);
        for (int i = 0; i < BURIN_MAX_PARTS; i++)
            if (t->out[i].bytes) print_ref(&t->out[i], out);
        str_add(out, " <-");
        for (int i = 0; i < BURIN_MAX_INPUTS; i++)
            if (t->in[i].bytes) print_ref(&t->in[i], out);
        for (int i = 0; i < t->chain.n_inputs; i++) print_ref(&t->extra[i], out);
        if (t->workspace.bytes)
            str_addf(out, " scratch %llu", (unsigned long long)t->workspace.bytes);
        if (t->recomputed) str_add(out, " again");
        if (t->node->where) str_addf(out, "  %s", t->node->where);
        str_add(out, "\n");
    }
}
