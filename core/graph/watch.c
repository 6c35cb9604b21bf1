/* SPDX-License-Identifier: MIT
 * watch.c - a session's run looked at kernel by kernel: which node gave the first number that is
 * none. The plan that went wrong is the one that is watched, so nothing is added to its memory; a
 * fused kernel is run again with one operation of its chain after the other. */
#include "graph/device.h"
#include "graph/kernel.h"

#include <math.h>
#include <string.h>

struct watch {
    burin_device *device;
    void *value, *before; /* a result; what was in its place before its kernel ran */
    uint64_t value_bytes, before_bytes;
};

static bool run_call(struct emit *e, const struct kernel_call *call)
{
    burin_device *d = e->user;
    return device_run(d, d->arena, call);
}

static bool drop_call(struct emit *e, const struct kernel_call *call)
{
    (void)e, (void)call;
    return true;
}

static bool emit_with(burin_device *d, const struct plan_step *t,
                      bool (*call)(struct emit *, const struct kernel_call *), uint64_t *workspace)
{
    struct emit e = { .step = t, .target = &d->target, .call = call, .user = d };
    bool ok = emit_step(&e);
    if (workspace) *workspace = e.workspace_used;
    return ok;
}

/* ---- values ---------------------------------------------------------------------------------- */

static struct gpu_buffer *buffer_of(const burin_device *d, const struct tensor_ref *t,
                                    uint64_t *offset)
{
    *offset = t->offset;
    if (!t->var) return d->arena;
    struct gpu_buffer *b = var_memory(t->var, offset);
    *offset += t->offset;
    return b;
}

static bool read_tensor(const struct watch *w, const struct tensor_ref *t, void **into,
                        uint64_t *room)
{
    uint64_t offset;
    struct gpu_buffer *b = buffer_of(w->device, t, &offset);
    if (t->bytes > *room) {
        mem_free(*into);
        *into = mem_alloc(t->bytes);
        *room = t->bytes;
    }
    return device_memory_read(w->device, b, offset, *into, t->bytes);
}

static bool put_back(const struct watch *w, const struct tensor_ref *t)
{
    uint64_t offset;
    struct gpu_buffer *b = buffer_of(w->device, t, &offset);
    return device_memory_write(w->device, b, offset, w->before, t->bytes);
}

/* 1: finite, 0: not, -1: an error. The value is in w->value then. */
static int is_finite(struct watch *w, const struct tensor_ref *t)
{
    if (!t->bytes) return 1;
    if (!read_tensor(w, t, &w->value, &w->value_bytes)) return -1;
    return burin_all_finite(t->dtype, w->value, burin_shape_count(&t->shape));
}

static float element(const void *data, burin_dtype d, int64_t i)
{
    if (d == BURIN_F32) return ((const float *)data)[i];
    uint16_t half = ((const uint16_t *)data)[i];
    return d == BURIN_F16 ? f16_to_f32(half) : bf16_to_f32(half);
}

static void count_bad(const struct watch *w, const struct tensor_ref *t, burin_finding *out)
{
    out->dtype = t->dtype;
    out->shape = t->shape;
    for (int64_t i = 0; i < burin_shape_count(&t->shape); i++) {
        float v = element(w->value, t->dtype, i);
        if (isfinite(v)) continue;
        if (!out->nans && !out->infinities) out->first = i;
        if (isnan(v)) out->nans++;
        else out->infinities++;
    }
}

/* ---- the node of a kernel -------------------------------------------------------------------- */

/* The step with the first n operations of its chain. */
static struct plan_step shortened(const struct plan_step *t, int n)
{
    struct plan_step s = *t;
    s.chain.n_steps = n;
    if (n == 0) s.chain.n_inputs = 0;
    return s;
}

/* The first node of a fused kernel whose own value is not finite; NULL and an error. The value is
 * in w->value. */
static const burin_node *first_of_unit(struct watch *w, const struct plan_step *t)
{
    int n = t->chain.n_steps;
    for (int k = t->chain.own ? 1 : 0; k < n; k++) {
        struct plan_step s = shortened(t, k);
        uint64_t workspace = 0;
        if (!emit_with(w->device, &s, drop_call, &workspace)) return NULL;
        if (workspace > t->workspace.bytes)
            continue; /* another kernel, for which there's no room */
        if (!put_back(w, &t->out[0]) || !emit_with(w->device, &s, run_call, NULL)) return NULL;
        int finite = is_finite(w, &t->out[0]);
        if (finite < 0) return NULL;
        if (!finite) return k ? t->chain.step[k - 1].node : t->node;
    }
    if (!put_back(w, &t->out[0]) || !emit_with(w->device, t, run_call, NULL) ||
        is_finite(w, &t->out[0]) < 0)
        return NULL;
    return t->chain.step[n - 1].node;
}

/* ---- what is said ---------------------------------------------------------------------------- */

/* A variable that the step reads and that is not finite, unless the step has just written it. */
static const char *bad_variable(struct watch *w, const struct plan_step *t)
{
    for (int i = 0; i < BURIN_MAX_INPUTS + CHAIN_INPUTS; i++) {
        const struct tensor_ref *in =
            i < BURIN_MAX_INPUTS ? &t->in[i] : &t->extra[i - BURIN_MAX_INPUTS];
        if (!in->var || !in->bytes || (t->out[0].var && var_overlaps(in->var, t->out[0].var)))
            continue;
        if (is_finite(w, in) == 0) return in->var->name;
    }
    return NULL;
}

static const char *text_or_null(const char *text) { return text && text[0] ? text : NULL; }

static bool report(struct watch *w, const struct plan_step *t, int part, burin_finding *out)
{
    bool fused = part == 0 && t->chain.n_steps > (t->chain.own ? 1 : 0);
    const burin_node *n = fused ? first_of_unit(w, t) : t->node;
    if (!n) return false;
    out->op = op_at((enum op_code)n->op)->name;
    out->label = text_or_null(n->label);
    out->where = text_or_null(n->where);
    out->gradient = n->backward;
    count_bad(w, &t->out[part], out);
    out->variable = bad_variable(w, t);
    return true;
}

/* ---- the run --------------------------------------------------------------------------------- */

/* Runs one step and looks at what it gives. */
static bool watch_step(struct watch *w, const struct plan_step *t, burin_finding *out)
{
    bool fused = t->chain.n_steps > (t->chain.own ? 1 : 0);
    if (fused && !read_tensor(w, &t->out[0], &w->before, &w->before_bytes)) return false;
    if (!emit_with(w->device, t, run_call, NULL)) return false;
    for (int i = 0; i < BURIN_MAX_PARTS; i++) {
        int finite = is_finite(w, &t->out[i]);
        if (finite < 0) return false;
        if (!finite) return report(w, t, i, out);
    }
    return true;
}

bool burin_session_watch(burin_session *s, burin_finding *out)
{
    *out = (burin_finding){ 0 };
    if (!session_prepare(s)) return false;
    struct watch w = { .device = s->device };
    bool ok = true;
    for (int i = 0; ok && !out->op && i < s->plan->count; i++) {
        const struct plan_step *t = &s->plan->step[i];
        if (op_traits((enum op_code)t->node->op).writes) break;
        ok = watch_step(&w, t, out);
    }
    mem_free(w.value);
    mem_free(w.before);
    return ok || fail_prefix("session %s", s->name);
}
