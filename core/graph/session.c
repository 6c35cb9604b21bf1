/* SPDX-License-Identifier: MIT
 * session.c - sessions: a plan is recorded as a program, run and measured. It sees gpu/, as
 * device.c does. */
#include "graph/device.h"
#include "graph/kernel.h"

#include "gpu/gpu.h"

#include <stdlib.h>
#include <string.h>

void session_forget(burin_session *s)
{
    gpu_program_destroy(s->program);
    mem_free(s->row);
    s->program = NULL;
    s->row = NULL;
}

burin_session *burin_session_create(burin_device *d, burin_graph *g, const char *name)
{
    struct burin_plan *plan = plan_make(g, &d->target, NULL);
    if (!plan) return NULL;
    burin_session *s = mem_alloc(sizeof *s);
    s->device = d;
    s->plan = plan;
    s->name = str_dup(name ? name : "session");
    d->session = array_reserve(d->session, d->sessions, &d->session_capacity, sizeof *d->session);
    d->session[d->sessions++] = s;
    return s;
}

void burin_session_destroy(burin_session *s)
{
    if (!s) return;
    burin_device *d = s->device;
    session_forget(s);
    for (int i = 0; d && i < d->sessions; i++)
        if (d->session[i] == s) d->session[i--] = d->session[--d->sessions];
    plan_destroy(s->plan);
    mem_free(s->name);
    mem_free(s);
}

const struct burin_plan *burin_session_plan(const burin_session *s) { return s->plan; }
double burin_session_flops(const burin_session *s) { return s->plan->flops; }
int burin_session_dispatches(const burin_session *s) { return s->plan->calls; }

/* Variables by role, each block of memory once; then what lives inside a step. */
void burin_session_memory(const burin_session *s, burin_memory *out)
{
    const struct burin_plan *p = s->plan;
    *out = (burin_memory){ .activations = p->peak_bytes,
                           .workspace = p->peak_workspace,
                           .arena = p->arena_bytes };
    const burin_var **root = mem_alloc((size_t)(p->n_vars + 1) * sizeof *root);
    int roots = 0;
    for (int i = 0; i < p->n_vars; i++) {
        uint64_t offset;
        const burin_var *r = var_root(p->var[i], &offset);
        bool seen = false;
        for (int k = 0; k < roots && !seen; k++) seen = root[k] == r;
        if (seen) continue;
        root[roots++] = r;
        out->role[r->role] += r->bytes;
        out->total += r->bytes;
    }
    out->total += out->arena;
    mem_free(root);
}

/* ---- recording ------------------------------------------------------------------------------- */

static bool record_call(struct emit *e, const struct kernel_call *call)
{
    burin_session *s = e->user;
    const char *label = op_at((enum op_code)e->step->node->op)->name;
    double bytes = 0;
    for (int i = 0; i < call->n_bind; i++) bytes += (double)call->bind[i].bytes;
    s->row[gpu_program_count(s->program)] =
        (burin_profile){ .label = label, .flops = call->flops, .bytes = bytes };
    return device_record(s->device, s->program, s->device->arena, call, label);
}

/* BURIN_POISON=1 fills the arena with NaN (of all three types) before a run, 2 also each result
 * before its step: whatever reads memory that was never written shows. */
#define POISON 0x7fff7fffu

static int poison_level(void)
{
    const char *text = getenv("BURIN_POISON");
    return text ? atoi(text) : 0;
}

static bool poison_results(burin_session *s, const struct plan_step *t)
{
    for (int i = 0; i < BURIN_MAX_PARTS; i++) {
        const struct tensor_ref *out = &t->out[i];
        bool in_place = out->var || !out->bytes;
        for (int k = 0; k < BURIN_MAX_INPUTS; k++)
            in_place |= !t->in[k].var && t->in[k].bytes && t->in[k].offset == out->offset;
        for (int k = 0; k < CHAIN_INPUTS; k++)
            in_place |= !t->extra[k].var && t->extra[k].bytes && t->extra[k].offset == out->offset;
        struct gpu_span span = { s->device->arena, out->offset, (out->bytes + 3) / 4 * 4 };
        if (!in_place && !gpu_program_fill(s->program, span, POISON)) return false;
    }
    return true;
}

static bool record_step(burin_session *s, const struct plan_step *t, int poison)
{
    if (poison > 1 && !poison_results(s, t)) return false;
    struct emit e = { .step = t, .target = &s->device->target, .call = record_call, .user = s };
    const struct op_row *row = op_at((enum op_code)t->node->op);
    if (!emit_step(&e)) return fail_prefix("session %s: %s", s->name, row->name);
    if (e.workspace_used != t->workspace.bytes)
        panic("%s wants %llu bytes of scratch, it was planned with %llu", row->name,
              (unsigned long long)e.workspace_used, (unsigned long long)t->workspace.bytes);
    return true;
}

static bool record(burin_session *s)
{
    const struct burin_plan *p = s->plan;
    burin_device *d = s->device;
    int poison = poison_level();
    session_forget(s);
    s->program = gpu_program_create(d->gpu, s->name);
    s->row = mem_alloc((size_t)(p->calls + 1) * sizeof *s->row);
    bool ok = s->program != NULL;
    if (ok && poison && p->arena_bytes)
        ok = gpu_program_fill(s->program, (struct gpu_span){ d->arena, 0, p->arena_bytes }, POISON);
    for (int i = 0; ok && i < p->count; i++) ok = record_step(s, &p->step[i], poison);
    ok = ok && gpu_program_finish(s->program);
    s->generation = d->generation;
    if (!ok) session_forget(s);
    return ok;
}

static bool has_memory(const burin_session *s)
{
    uint64_t offset;
    if (s->device->arena_bytes < s->plan->arena_bytes) return false;
    for (int i = 0; i < s->plan->n_vars; i++)
        if (!var_memory(s->plan->var[i], &offset)) return false;
    return true;
}

bool session_prepare(burin_session *s)
{
    if (!s->device) return fail("session %s: its device is gone", s->name);
    if (s->program && s->generation == s->device->generation) return true;
    const burin_var *absent = vars_absent(s->plan);
    if (absent)
        return fail("session %s: variable %s is %s", s->name, absent->name,
                    absent->gone ? "gone" : "absent from the device");
    if (!has_memory(s) && !burin_device_commit(s->device, false))
        return fail_prefix("session %s", s->name);
    return record(s);
}

bool burin_session_run(burin_session *s)
{
    return session_prepare(s) && gpu_program_submit(s->program);
}

bool burin_session_profile(burin_session *s, burin_profile *out, int n)
{
    if (!session_prepare(s)) return false;
    int count = gpu_program_count(s->program);
    if (n != count) return fail("session %s has %d dispatches, not %d", s->name, count, n);
    double *seconds = mem_alloc((size_t)(count + 1) * sizeof *seconds);
    bool ok = gpu_program_profile(s->program, seconds);
    for (int i = 0; ok && i < count; i++) {
        out[i] = s->row[i];
        out[i].seconds = seconds[i];
    }
    mem_free(seconds);
    return ok;
}
