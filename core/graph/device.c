/* SPDX-License-Identifier: MIT
 * device.c - a device of the public interface: its memory, the arena that its sessions share, and
 * single kernels run at once. With session.c and info.c it alone sees gpu/ from this folder. */
#include "graph/device.h"
#include "graph/kernel.h"

#include "gpu/gpu.h"

#include <string.h>
#include <unistd.h>

#define ALIGNMENT 256

_Static_assert(KERNEL_BINDINGS == GPU_MAX_BINDINGS, "shader.h and gpu.h");
_Static_assert(HOST_BINDINGS == GPU_MAX_SPANS, "host.h and gpu.h");
_Static_assert(KERNEL_OWN_PUSH + KERNEL_CHAIN_PUSH <= GPU_MAX_PUSH, "shader.h and gpu.h");
_Static_assert(KERNEL_SPEC_CHAIN + 2 + CHAIN_STEPS <= GPU_MAX_SPEC, "shader.h and gpu.h");

/* ---- devices --------------------------------------------------------------------------------- */

static bool runs_on_cpu(const struct gpu_caps *c)
{
    return c->type == GPU_TYPE_CPU || c->type == GPU_TYPE_NULL;
}

/* Workgroups that run at once, roughly: enough for a choice between tilings. */
static uint32_t guess_cores(const struct gpu_caps *c)
{
    if (runs_on_cpu(c)) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        return n > 0 ? (uint32_t)n : 1;
    }
    return c->type == GPU_TYPE_DISCRETE ? 64 : 16;
}

bool device_target(struct plan_target *t, const struct gpu_caps *c, const char *tier)
{
    bool cpu = runs_on_cpu(c);
    bool host = tier && !strcmp(tier, "host");
    if (tier && !host && strcmp(tier, "cpu") && strcmp(tier, "simd"))
        return fail("there is no kernel tier '%s'; choose host, cpu or simd", tier);
    if (host && c->type != GPU_TYPE_CPU)
        return fail("the memory of %s is not the host's: its kernel tier is cpu or simd", c->name);
    if (tier) cpu = strcmp(tier, "simd") != 0;
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

/* The processor's own kernels, where it is the device: if asked for they must be there. */
static bool open_host(burin_device *d, const struct gpu_caps *c, const char *tier)
{
    bool wanted = tier && !strcmp(tier, "host");
    if (wanted || (!tier && c->type == GPU_TYPE_CPU)) d->target.host = dnn_open();
    return d->target.host || !wanted;
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
    if (device_target(&d->target, gpu_device_caps(gpu), params->tier) &&
        open_host(d, gpu_device_caps(gpu), params->tier))
        return d;
    gpu_device_destroy(gpu);
    mem_free(d);
    return NULL;
}

void burin_device_destroy(burin_device *d)
{
    if (!d) return;
    gpu_wait(d->gpu);
    for (int i = 0; i < d->sessions; i++) {
        session_forget(d->session[i]);
        d->session[i]->device = NULL;
    }
    mem_free(d->session);
    vars_orphan(d);
    gpu_buffer_destroy(d->arena);
    dnn_close(d->target.host);
    gpu_device_destroy(d->gpu);
    mem_free(d);
}

bool burin_device_wait(burin_device *d) { return gpu_wait(d->gpu); }

/* ---- memory ---------------------------------------------------------------------------------- */

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

/* The largest plan that can run; NULL = none. */
static const struct burin_plan *largest_plan(const burin_device *d)
{
    const struct burin_plan *largest = NULL;
    for (int i = 0; i < d->sessions; i++) {
        const struct burin_plan *p = d->session[i]->plan;
        if ((!largest || p->arena_bytes > largest->arena_bytes) && !vars_absent(p)) largest = p;
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

/* ---- kernels --------------------------------------------------------------------------------- */

static bool resolve(struct gpu_buffer *arena, const struct tensor_ref *t, struct gpu_span *out)
{
    *out = (struct gpu_span){ arena, t->offset, t->bytes };
    if (!t->var) return true;
    out->buffer = var_memory(t->var, &out->offset);
    out->offset += t->offset;
    return out->buffer || fail("variable %s is on no device", t->var->name);
}

static bool run_on_host(const void *work, void *const *at) { return host_run(work, at); }

bool device_record(burin_device *d, struct gpu_program *p, struct gpu_buffer *arena,
                   const struct kernel_call *call, const char *label)
{
    struct gpu_dispatch dispatch = { .n_bind = GPU_MAX_BINDINGS,
                                     .writes = call->writes,
                                     .flops = call->flops,
                                     .push_bytes = 4 * (uint32_t)call->n_words,
                                     .label = label };
    for (int i = 0; i < call->n_bind; i++)
        if (call->bind[i].bytes && !resolve(arena, &call->bind[i], &dispatch.bind[i])) return false;
    if (call->host) {
        dispatch.n_bind = call->n_bind;
        dispatch.host = run_on_host;
        dispatch.user = call->host;
        dispatch.user_bytes = sizeof *call->host;
        return gpu_program_dispatch(p, &dispatch);
    }
    /* What the kernel declares but does not use must still be valid. */
    for (int i = 0; i < GPU_MAX_BINDINGS; i++)
        if (!dispatch.bind[i].buffer) dispatch.bind[i] = dispatch.bind[0];
    memcpy(dispatch.push, call->word, dispatch.push_bytes);
    memcpy(dispatch.groups, call->groups, sizeof dispatch.groups);
    dispatch.kernel =
        gpu_kernel_get(d->gpu, shader_name(call->shader), call->constant, call->n_constants);
    return dispatch.kernel && gpu_program_dispatch(p, &dispatch);
}

bool device_computes(const burin_device *d)
{
    return gpu_device_caps(d->gpu)->type != GPU_TYPE_NULL;
}

bool device_run(burin_device *d, struct gpu_buffer *scratch, const struct kernel_call *call)
{
    const char *name = call->host ? "host" : shader_name(call->shader);
    struct gpu_program *p = gpu_program_create(d->gpu, name);
    bool ok = device_record(d, p, scratch, call, name) && gpu_program_finish(p) &&
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
