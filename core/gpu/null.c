/* SPDX-License-Identifier: MIT
 * null.c - a device without Vulkan, for tests and for planning: buffers are host memory, programs
 * are recorded, checked and counted, nothing runs. Its limits are the strictest of real devices,
 * but for the bytes that a binding covers: there it is a graphics card (1 GiB; a CPU driver may
 * have 128 MiB), to plan what needs one. */
#include "gpu/gpu_internal.h"

struct gpu_device *gpu_null_create(void)
{
    struct gpu_device *d = mem_alloc(sizeof *d);
    d->null = true;
    d->chunk_flops = 1e18;
    d->caps = (struct gpu_caps){
        .name = "null",
        .driver = "none",
        .uuid = "00000000000000000000000000000000",
        .api = "1.2",
        .type = GPU_TYPE_NULL,
        .subgroup = 8,
        .max_groups = { 65535, 65535, 65535 },
        .max_group_size = 1024,
        .max_shared = 32 << 10,
        .max_range = 1 << 30,
        .alignment = 256,
        .host_visible = true,
        .storage16 = true,
    };
    return d;
}

bool gpu_null_buffer(struct gpu_buffer *b)
{
    b->map = mem_alloc(b->bytes);
    return true;
}
