/* SPDX-License-Identifier: MIT
 * info.c - what devices are and can, for the public interface. */
#include <stdio.h>

#include "gpu/gpu.h"
#include "graph/device.h"

static void fill_info(burin_info *out, const struct gpu_caps *c, const struct plan_target *t)
{
    static const char *const types[] = { "?", "discrete", "integrated", "cpu", "other", "null" };
    *out = (burin_info){ .type = types[c->type],
                         .tier = t->host               ? "host"
                                 : t->tier == TIER_CPU ? "cpu"
                                                       : "simd",
                         .subgroup = c->subgroup,
                         .cores = c->cores,
                         .max_groups = t->max_groups,
                         .max_shared = c->max_shared,
                         .max_range = c->max_range,
                         .alignment = t->alignment,
                         .heap = c->heap_bytes,
                         .budget = c->budget_bytes,
                         .host_visible = c->host_visible,
                         .storage16 = c->storage16,
                         .float16 = c->float16,
                         .coopmat = c->coopmat,
                         .timestamps = c->timestamps };
    snprintf(out->name, sizeof out->name, "%s", c->name);
    snprintf(out->driver, sizeof out->driver, "%s", c->driver);
    snprintf(out->uuid, sizeof out->uuid, "%s", c->uuid);
    snprintf(out->api, sizeof out->api, "%s", c->api);
    if (t->host) snprintf(out->engine, sizeof out->engine, "%s", dnn_identity(t->host));
}

void burin_device_info(const burin_device *d, burin_info *out)
{
    fill_info(out, gpu_device_caps(d->gpu), &d->target);
    out->allocated = gpu_device_allocated(d->gpu);
    out->allocations = gpu_device_allocations(d->gpu);
    out->kernels = gpu_kernel_count(d->gpu);
    out->messages = gpu_validation_count(d->gpu);
}

int burin_device_list(burin_info *out, int n)
{
    struct gpu_caps *caps = mem_alloc((size_t)(n + 1) * sizeof *caps);
    int count = gpu_device_list(caps, n);
    for (int i = 0; i < count && i < n; i++) {
        struct plan_target target;
        device_target(&target, &caps[i], NULL);
        if (caps[i].type == GPU_TYPE_CPU) target.host = dnn_open();
        fill_info(&out[i], &caps[i], &target);
        dnn_close(target.host);
    }
    mem_free(caps);
    return count;
}
