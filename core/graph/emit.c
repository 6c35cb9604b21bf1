/* SPDX-License-Identifier: MIT
 * emit.c - what every emit function uses: completes a kernel call with types and chain, scratch
 * memory, grids. */
#include "graph/kernel.h"

#include <string.h>

#include "base/embed.h"

_Static_assert(KERNEL_SPEC_OWN == KERNEL_BINDINGS, "a constant for the type of each binding");
_Static_assert(KERNEL_CHAIN_BINDING + CHAIN_INPUTS <= KERNEL_BINDINGS, "the chain's bindings");
_Static_assert(CHAIN_INPUT > CHAIN_STEPS, "the registers of a chain's inputs and steps");
_Static_assert(OP_COUNT <= 256, "a chain's step has 8 bits for its op");

const char *shader_name(enum shader shader) { return embed_spirv[shader - 1].name; }

uint32_t kernel_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

void kernel_groups(const struct plan_target *t, uint64_t groups, uint32_t out[3])
{
    uint64_t y = (groups + t->max_groups - 1) / t->max_groups, z = 1;
    if (y > t->max_groups) {
        z = (y + t->max_groups - 1) / t->max_groups;
        y = (y + z - 1) / z;
    }
    out[0] = y * z > 1 ? ceil_div(groups, y * z) : (uint32_t)groups;
    out[1] = y ? (uint32_t)y : 1;
    out[2] = (uint32_t)z;
}

struct tensor_ref emit_workspace(struct emit *e, uint64_t bytes)
{
    struct tensor_ref w = e->step->workspace;
    w.var = NULL;
    w.offset += e->workspace_used;
    w.bytes = bytes;
    w.dtype = BURIN_F32;
    w.shape = (burin_shape){ .rank = 1, .dim = { (int64_t)(bytes / 4) } };
    e->workspace_used += (bytes + 255) / 256 * 256;
    return w;
}

/* How the shader reads an extra input. */
static uint32_t chain_mode(const struct chain_read *r, uint64_t count)
{
    if (r->row == count) return CHAIN_SAME;
    if (r->mod > 1) return CHAIN_GENERAL;
    return r->row == 1 ? CHAIN_SCALAR : CHAIN_CHANNEL;
}

bool chain_by_fours(const struct plan_step *s)
{
    for (int i = 0; i < s->chain.n_inputs; i++) {
        const struct chain_read *r = &s->chain.read[i];
        bool one_for_all = r->row == 1 && (r->mod == 1 || r->div % 4 == 0);
        if (!one_for_all && r->row % 4) return false;
    }
    return true;
}

static void add_chain(struct kernel_call *call, const struct plan_step *s)
{
    const struct chain *c = &s->chain;
    uint32_t *constant = &call->constant[KERNEL_SPEC_CHAIN], modes = 0;
    uint32_t *word = &call->word[KERNEL_OWN_PUSH / 4];
    uint64_t count = (uint64_t)burin_shape_count(&s->out[0].shape);
    *constant++ = (uint32_t)c->n_steps;
    for (int i = 0; i < c->n_steps; i++)
        constant[i] =
            CHAIN_STEP((uint32_t)c->step[i].op, (uint32_t)c->step[i].a, (uint32_t)c->step[i].b,
                       (uint32_t)c->step[i].p, (uint32_t)c->step[i].q);
    for (int i = 0; i < CHAIN_IMMEDIATES; i++) word[i] = kernel_float(c->immediate[i]);
    word += CHAIN_IMMEDIATES;
    for (int i = 0; i < c->n_inputs; i++) {
        const struct chain_read *r = &c->read[i];
        memcpy(word + 3 * i, (uint32_t[]){ r->row, r->div, r->mod }, 3 * sizeof *word);
        modes |= CHAIN_MODE(chain_mode(r, count), i);
        call->bind[KERNEL_CHAIN_BINDING + i] = s->extra[i];
    }
    constant[CHAIN_STEPS] = modes;
    if (c->n_inputs) call->n_bind = KERNEL_CHAIN_BINDING + c->n_inputs;
    call->n_words = (KERNEL_OWN_PUSH + KERNEL_CHAIN_PUSH) / 4;
    call->n_constants = KERNEL_SPEC_CHAIN + 2 + CHAIN_STEPS;
}

static void set_types(struct kernel_call *call)
{
    for (int i = 0; i < KERNEL_SPEC_OWN; i++) {
        burin_dtype d = i < call->n_bind ? call->bind[i].dtype : 0;
        call->constant[i] = d ? (uint32_t)d : BURIN_F32;
    }
}

void kernel_complete(struct kernel_call *call)
{
    memcpy(&call->constant[KERNEL_SPEC_OWN], call->spec, (size_t)call->n_spec * sizeof *call->spec);
    call->n_constants = KERNEL_SPEC_OWN + call->n_spec;
    memcpy(call->word, call->push, (size_t)call->n_push * sizeof *call->push);
    call->n_words = call->n_push;
    set_types(call);
}

bool emit_call(struct emit *e, struct kernel_call *call)
{
    bool chain = call->chained && e->step->chain.n_steps;
    if (!call->shader)
        panic("%s: a call without a shader", op_at((enum op_code)e->step->node->op)->name);
    if (call->n_spec > COUNT_OF(call->spec) || call->n_push > COUNT_OF(call->push) ||
        call->n_bind > (chain ? KERNEL_CHAIN_BINDING : KERNEL_BINDINGS))
        panic("%s: a call with %d bindings, %d constants, %d push words", shader_name(call->shader),
              call->n_bind, call->n_spec, call->n_push);
    kernel_complete(call);
    if (chain) {
        add_chain(call, e->step);
        set_types(call);
    }
    return e->call(e, call);
}
