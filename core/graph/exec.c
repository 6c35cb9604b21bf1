/* SPDX-License-Identifier: MIT
 * exec.c - devices and sessions: a plan meets memory and is recorded as a program. The only file of
 * this folder that sees gpu/. */
#include "graph/device.h"
#include "graph/kernel.h"

#include "gpu/gpu.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALIGNMENT 256

struct burin_session {
    burin_device *device; /* NULL once it is gone */
    char *name;
    struct burin_plan *plan;
    struct gpu_program *program; /* NULL = not recorded */
    unsigned generation;         /* of the device's memory when it was */
    burin_profile *row;          /* one per dispatch, seconds unset */
};

/* ---- devices ------------------------------------------------------------------------------ */

/* Workgroups that run at once, roughly: enough for a choice between tilings. */
static uint32_t guess_cores(const struct gpu_caps *c)
{
    if (c->type == GPU_TYPE_CPU || c->type == GPU_TYPE_NULL) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        return n > 0 ? (uint32_t)n : 1;
    }
    return c->type == GPU_TYPE_DISCRETE ? 64 : 16;
}

static bool fill_target(struct plan_target *t, const struct gpu_caps *c, const char *tier)
{
    bool cpu = c->type == GPU_TYPE_CPU || c->type == GPU_TYPE_NULL;
    if (tier && strcmp(tier, "cpu") && strcmp(tier, "simd"))
        return fail("there is no kernel tier '%s'; choose cpu or simd", tier);
    if (tier) cpu = !strcmp(tier, "cpu");
    *t = (struct plan_target){
        .tier = cpu ? TIER_CPU : TIER_SIMD,
        .subgroup = c->subgroup,
        .cores = guess_cores(c),
        .alignment = c->alignment > ALIGNMENT ? c->alignment : ALIGNMENT,
        .max_range = c->max_range,
        .max_groups = c->max_groups[0],
        .max_shared = c->max_shared,
    };
    for (int i = 1; i < 3; i++)
        if (t->max_groups > c->max_groups[i]) t->max_groups = c->max_groups[i];
    return true;
}

burin_device *burin_device_create(const burin_device_params *params)
{
    const burin_device_params none = { 0 };
    if (!params) params = &none;
    struct gpu_device_params p = { .name = params->name,
                                   .validate = params->validate,
                                   .cache = params->cache };
    struct gpu_device *gpu = gpu_device_create(&p);
    if (!gpu) return NULL;
    burin_device *d = mem_alloc(sizeof *d);
    d->gpu = gpu;
    if (fill_target(&d->target, gpu_device_caps(gpu), params->tier)) return d;
    gpu_device_destroy(gpu);
    mem_free(d);
    return NULL;
}

static void forget_program(burin_session *s)
{
    gpu_program_destroy(s->program);
    mem_free(s->row);
    s->program = NULL;
    s->row = NULL;
}

void burin_device_destroy(burin_device *d)
{
    if (!d) return;
    gpu_wait(d->gpu);
    for (int i = 0; i < d->sessions; i++) {
        forget_program(d->session[i]);
        d->session[i]->device = NULL;
    }
    mem_free(d->session);
    vars_orphan(d);
    gpu_buffer_destroy(d->arena);
    gpu_device_destroy(d->gpu);
    mem_free(d);
}

/* ---- memory ------------------------------------------------------------------------------- */

struct gpu_buffer *device_memory_create(burin_device *d, uint64_t bytes, const char *what)
{
    if (!d->sealed) return gpu_buffer_create(d->gpu, bytes, what);
    fail("%s of %.1f MiB are asked for, but the device's memory is sealed: all must be declared "
         "before it is committed",
         what, (double)bytes / 1048576);
    return NULL;
}

void device_memory_destroy(struct gpu_buffer *b) { gpu_buffer_destroy(b); }

bool device_memory_write(burin_device *d, struct gpu_buffer *b, uint64_t offset, const void *src,
                         uint64_t bytes)
{
    return gpu_write(d->gpu, (struct gpu_span){ b, offset, bytes }, src);
}

bool device_memory_read(burin_device *d, struct gpu_buffer *b, uint64_t offset, void *dst,
                        uint64_t bytes)
{
    return gpu_read(d->gpu, (struct gpu_span){ b, offset, bytes }, dst);
}

void *device_host_memory(burin_device *d, struct gpu_buffer *b, uint64_t offset, uint64_t bytes)
{
    void *at = gpu_host_memory((struct gpu_span){ b, offset, bytes });
    return at && gpu_wait(d->gpu) ? at : NULL;
}

static const burin_var *absent_var(const struct burin_plan *p)
{
    uint64_t offset;
    for (int i = 0; i < p->n_vars; i++)
        if (var_root(p->var[i], &offset)->absent) return p->var[i];
    return NULL;
}

/* The largest plan that can run; NULL = none. */
static const struct burin_plan *largest_plan(const burin_device *d)
{
    const struct burin_plan *largest = NULL;
    for (int i = 0; i < d->sessions; i++) {
        const struct burin_plan *p = d->session[i]->plan;
        if ((!largest || p->arena_bytes > largest->arena_bytes) && !absent_var(p)) largest = p;
    }
    return largest;
}

/* Grows the arena to what is needed, and shrinks it when variables have become absent since. */
static bool fit_arena(burin_device *d)
{
    const struct burin_plan *p = largest_plan(d);
    uint64_t bytes = p ? p->arena_bytes : 0;
    if (bytes == d->arena_bytes || (bytes < d->arena_bytes && (!d->changed || d->sealed)))
        return true;
    if (!gpu_wait(d->gpu)) return false;
    if (!d->sealed) { /* the old one first: both may not fit */
        gpu_buffer_destroy(d->arena);
        d->arena = NULL;
        d->arena_bytes = 0;
        d->generation++;
    }
    d->changed = false;
    if (!bytes) return true;
    struct gpu_buffer *arena = device_memory_create(d, bytes, "activations");
    if (!arena) return false;
    d->arena = arena;
    d->arena_bytes = bytes;
    return true;
}

bool burin_device_commit(burin_device *d, bool sealed)
{
    if (d->changed && !d->sealed) { /* before the variables: both may not fit */
        const struct burin_plan *p = largest_plan(d);
        if ((p ? p->arena_bytes : 0) < d->arena_bytes && !fit_arena(d)) return false;
    }
    if (!vars_commit(d, 0) || !fit_arena(d)) return false;
    d->sealed |= sealed;
    return true;
}

void burin_device_memory(const burin_device *d, burin_memory *out)
{
    *out = (burin_memory){ 0 };
    for (int i = 0; i < d->vars; i++) {
        const burin_var *v = d->var[i];
        if (v->parent || v->absent) continue;
        uint64_t bytes = (v->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        out->role[v->role] += bytes;
        out->total += bytes;
    }
    const struct burin_plan *p = largest_plan(d);
    if (p) {
        out->activations = p->peak_bytes;
        out->workspace = p->peak_workspace;
        out->arena = p->arena_bytes;
    }
    out->total += out->arena;
}

/* ---- sessions ----------------------------------------------------------------------------- */

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
    forget_program(s);
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

/* ---- recording ---------------------------------------------------------------------------- */

static bool resolve(struct gpu_buffer *arena, const struct tensor_ref *t, struct gpu_span *out)
{
    *out = (struct gpu_span){ arena, t->offset, t->bytes };
    if (!t->var) return true;
    out->buffer = var_memory(t->var, &out->offset);
    out->offset += t->offset;
    return out->buffer || fail("variable %s is on no device", t->var->name);
}

static bool add_call(burin_device *d, struct gpu_program *p, struct gpu_buffer *arena,
                     const struct kernel_call *call, const char *label)
{
    struct gpu_dispatch dispatch = { .n_bind = GPU_MAX_BINDINGS,
                                     .writes = call->writes,
                                     .flops = call->flops,
                                     .push_bytes = 4 * (uint32_t)call->n_words,
                                     .label = label };
    for (int i = 0; i < call->n_bind; i++)
        if (call->bind[i].bytes && !resolve(arena, &call->bind[i], &dispatch.bind[i])) return false;
    for (int i = 0; i < GPU_MAX_BINDINGS;
         i++) /* what the kernel declares but does not use must still be valid */
        if (!dispatch.bind[i].buffer) dispatch.bind[i] = dispatch.bind[0];
    memcpy(dispatch.push, call->word, dispatch.push_bytes);
    memcpy(dispatch.groups, call->groups, sizeof dispatch.groups);
    dispatch.kernel = gpu_kernel_get(d->gpu, call->shader, call->constant, call->n_constants);
    return dispatch.kernel && gpu_program_dispatch(p, &dispatch);
}

static bool record_call(struct emit *e, const struct kernel_call *call)
{
    burin_session *s = e->user;
    const char *label = op_at((enum op_code)e->step->node->op)->name;
    double bytes = 0;
    for (int i = 0; i < call->n_bind; i++) bytes += (double)call->bind[i].bytes;
    s->row[gpu_program_count(s->program)] =
        (burin_profile){ .label = label, .flops = call->flops, .bytes = bytes };
    return add_call(s->device, s->program, s->device->arena, call, label);
}

bool device_computes(const burin_device *d) { return gpu_device_caps(d->gpu)->type != GPU_TYPE_NULL; }

bool device_run(burin_device *d, struct gpu_buffer *scratch, const struct kernel_call *call)
{
    struct gpu_program *p = gpu_program_create(d->gpu, call->shader);
    bool ok = add_call(d, p, scratch, call, call->shader) && gpu_program_finish(p) &&
              gpu_program_submit(p) && gpu_wait(d->gpu);
    gpu_program_destroy(p);
    return ok;
}

struct gpu_buffer *device_scratch(burin_device *d, uint64_t least, uint64_t *bytes)
{
    if (least > d->arena_bytes) return gpu_buffer_create(d->gpu, *bytes, "an upload");
    if (*bytes > d->arena_bytes) *bytes = d->arena_bytes;
    return d->arena;
}

void device_scratch_finish(burin_device *d, struct gpu_buffer *b)
{
    if (b != d->arena) gpu_buffer_destroy(b);
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
    if (!row->emit(&e)) return fail_prefix("session %s: %s", s->name, row->name);
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
    forget_program(s);
    s->program = gpu_program_create(d->gpu, s->name);
    s->row = mem_alloc((size_t)(p->calls + 1) * sizeof *s->row);
    bool ok = s->program != NULL;
    if (ok && poison && p->arena_bytes)
        ok = gpu_program_fill(s->program, (struct gpu_span){ d->arena, 0, p->arena_bytes }, POISON);
    for (int i = 0; ok && i < p->count; i++) ok = record_step(s, &p->step[i], poison);
    ok = ok && gpu_program_finish(s->program);
    s->generation = d->generation;
    if (!ok) forget_program(s);
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

static bool prepare(burin_session *s)
{
    if (!s->device) return fail("session %s: its device is gone", s->name);
    if (s->program && s->generation == s->device->generation) return true;
    const burin_var *absent = absent_var(s->plan);
    if (absent) return fail("session %s: variable %s is absent from the device", s->name, absent->name);
    if (!has_memory(s) && !burin_device_commit(s->device, false))
        return fail_prefix("session %s", s->name);
    return record(s);
}

bool burin_session_run(burin_session *s) { return prepare(s) && gpu_program_submit(s->program); }

bool burin_session_profile(burin_session *s, burin_profile *out, int n)
{
    if (!prepare(s)) return false;
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
