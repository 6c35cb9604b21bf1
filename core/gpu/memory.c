/* SPDX-License-Identifier: MIT
 * memory.c - buffers, and moving bytes between the host and them. */
#include "gpu/gpu_internal.h"

#include <stdio.h>
#include <string.h>

#define STAGING_HALF (32u << 20)
#define MAPPED (VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT)

uint64_t gpu_device_allocated(const struct gpu_device *d) { return d->allocated; }

int gpu_device_allocations(const struct gpu_device *d) { return d->allocations; }

static void format_bytes(char *out, size_t size, uint64_t bytes)
{
    if (bytes >= 1u << 30) snprintf(out, size, "%.2f GiB", (double)bytes / (1u << 30));
    else if (bytes >= 1u << 20) snprintf(out, size, "%.1f MiB", (double)bytes / (1u << 20));
    else snprintf(out, size, "%llu bytes", (unsigned long long)bytes);
}

static bool fail_memory(struct gpu_device *d, uint64_t bytes, const char *what)
{
    char asked[32], held[32], budget[32], heap[32];
    uint64_t left = gpu_memory_budget(d->physical);
    format_bytes(asked, sizeof asked, bytes);
    format_bytes(held, sizeof held, d->allocated);
    format_bytes(budget, sizeof budget, left);
    format_bytes(heap, sizeof heap, d->caps.heap_bytes);
    struct str rest = { 0 };
    if (left) str_addf(&rest, ", %s is free for us now", budget);
    fail("out of device memory: %s needs %s, %s is in use by this program%s, %s has %s", what,
         asked, held, rest.data ? rest.data : "", d->caps.name, heap);
    str_finish(&rest);
    return false;
}

/* How good memory type i is for a buffer, 0 = unusable. */
static int score_type(const struct gpu_device *d, uint32_t i, bool mapped)
{
    VkMemoryPropertyFlags f = d->memory.memoryTypes[i].propertyFlags;
    bool local = f & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
    if (mapped) {
        if ((f & MAPPED) != MAPPED) return 0;
        /* A cached mapping reads back fast; where there is none, any mapping does. */
        bool device = d->caps.host_visible;
        return 1 + (local && device ? 4 : 0) + (f & VK_MEMORY_PROPERTY_HOST_CACHED_BIT ? 2 : 0);
    }
    /* Never fall back to host memory on a card: that runs, a hundred times slower. */
    return local ? 2 - (f & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT ? 1 : 0) : 0;
}

/* Tries the usable memory types from the best to the worst. */
static VkResult allocate(struct gpu_device *d, const VkMemoryRequirements *needs, bool mapped,
                         VkDeviceMemory *out)
{
    VkResult r = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    for (int wanted = 7; wanted > 0; wanted--)
        for (uint32_t i = 0; i < d->memory.memoryTypeCount; i++) {
            if (!(needs->memoryTypeBits >> i & 1) || score_type(d, i, mapped) != wanted) continue;
            VkMemoryAllocateInfo info = { .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                          .allocationSize = needs->size,
                                          .memoryTypeIndex = i };
            r = vkAllocateMemory(d->handle, &info, NULL, out);
            if (r == VK_SUCCESS) return r;
        }
    return r;
}

static bool create_buffer(struct gpu_device *d, struct gpu_buffer *b, bool mapped, const char *what)
{
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = b->bytes,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    };
    VkMemoryRequirements needs;
    VkResult r = vkCreateBuffer(d->handle, &info, NULL, &b->handle);
    if (r == VK_SUCCESS) {
        vkGetBufferMemoryRequirements(d->handle, b->handle, &needs);
        r = allocate(d, &needs, mapped, &b->memory);
    }
    if (r == VK_ERROR_OUT_OF_DEVICE_MEMORY || r == VK_ERROR_OUT_OF_HOST_MEMORY)
        return fail_memory(d, b->bytes, what);
    if (r == VK_SUCCESS) r = vkBindBufferMemory(d->handle, b->handle, b->memory, 0);
    if (r == VK_SUCCESS && mapped)
        r = vkMapMemory(d->handle, b->memory, 0, VK_WHOLE_SIZE, 0, (void **)&b->map);
    return gpu_check(d, r, what);
}

static bool one_time_begin(struct gpu_device *d, VkCommandBuffer commands)
{
    VkCommandBufferBeginInfo begin = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                       .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT };
    if (!gpu_check(d, vkBeginCommandBuffer(commands, &begin), "record a copy")) return false;
    gpu_record_barrier(commands);
    return true;
}

static bool staging_init(struct gpu_device *d)
{
    struct gpu_staging *s = &d->staging;
    if (!s->commands[0]) {
        VkCommandBufferAllocateInfo info = {
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = d->pool,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 2,
        };
        if (!gpu_check(d, vkAllocateCommandBuffers(d->handle, &info, s->commands),
                       "make command buffers"))
            return false;
    }
    if (s->buffer) return true;
    struct gpu_buffer *b = mem_alloc(sizeof *b);
    /* Host memory */
    *b = (struct gpu_buffer){ .device = d, .bytes = 2 * STAGING_HALF, .uncounted = true };
    if (create_buffer(d, b, true, "the staging buffer")) {
        s->buffer = b;
        return true;
    }
    gpu_buffer_destroy(b);
    return false;
}

static void zero_part(void *user, int64_t begin, int64_t end)
{
    memset((uint8_t *)user + begin, 0, (size_t)(end - begin));
}

static bool zero_fill(struct gpu_device *d, struct gpu_buffer *b)
{
    if (b->map) {
        parallel((int64_t)b->bytes, 16 << 20, zero_part, b->map); /* most of it is page faults */
        return true;
    }
    /* Waits: nothing else may use the staging command buffer while it runs. */
    VkCommandBuffer commands = d->staging.commands[0];
    VkResult r;
    uint64_t value;
    if (!gpu_wait(d) || !one_time_begin(d, commands)) return false;
    vkCmdFillBuffer(commands, b->handle, 0, b->bytes, 0);
    r = vkEndCommandBuffer(commands);
    return gpu_check(d, r, "record a fill") && gpu_submit(d, &commands, 1, &value) && gpu_wait(d);
}

struct gpu_buffer *gpu_buffer_create(struct gpu_device *d, uint64_t bytes, const char *what)
{
    if (bytes > UINT64_MAX / 2 || (d->null && bytes > SIZE_MAX / 2)) {
        fail("%s asks for an absurd amount of memory", what);
        return NULL;
    }
    struct gpu_buffer *b = mem_alloc(sizeof *b);
    b->device = d;
    b->bytes = (bytes + 255) / 256 * 256; /* fills and 16-byte loads may run to the end */
    if (!b->bytes) b->bytes = 256;
    bool ok;
    if (d->null) ok = gpu_null_buffer(b);
    else /* The staging buffer comes first, so that later uploads allocate nothing. */
        ok = (d->caps.host_visible || staging_init(d)) &&
             create_buffer(d, b, d->caps.host_visible, what) && zero_fill(d, b);
    if (!ok) {
        b->bytes = 0; /* not counted yet */
        gpu_buffer_destroy(b);
        return NULL;
    }
    d->allocated += b->bytes;
    d->allocations++;
    return b;
}

void gpu_buffer_destroy(struct gpu_buffer *b)
{
    if (!b) return;
    struct gpu_device *d = b->device;
    if (d->null) {
        mem_free(b->map);
    } else {
        if (d->completed < d->submitted) vkDeviceWaitIdle(d->handle);
        vkDestroyBuffer(d->handle, b->handle, NULL);
        vkFreeMemory(d->handle, b->memory, NULL);
    }
    if (!b->uncounted) d->allocated -= b->bytes;
    mem_free(b);
}

void gpu_memory_finish(struct gpu_device *d)
{
    gpu_buffer_destroy(d->staging.buffer);
    d->staging.buffer = NULL;
}

/* ---- reading and writing --------------------------------------------------------------------- */

bool gpu_span_check(struct gpu_span s, const char *what)
{
    if (!s.buffer) return fail("%s has no buffer", what);
    if (s.bytes > s.buffer->bytes || s.offset > s.buffer->bytes - s.bytes)
        return fail("%s covers bytes %llu to %llu of a buffer of %llu", what,
                    (unsigned long long)s.offset, (unsigned long long)(s.offset + s.bytes),
                    (unsigned long long)s.buffer->bytes);
    return true;
}

void *gpu_host_memory(struct gpu_span s)
{
    if (s.buffer->device->caps.type != GPU_TYPE_CPU || !s.buffer->map ||
        !gpu_span_check(s, "an access"))
        return NULL;
    return s.buffer->map + s.offset;
}

/* Copies between one half of the staging buffer and the device; asynchronous. */
static bool staging_copy(struct gpu_device *d, int half, struct gpu_span s, bool upload)
{
    VkCommandBuffer commands = d->staging.commands[half];
    VkBufferCopy up = { .srcOffset = (uint64_t)half * STAGING_HALF,
                        .dstOffset = s.offset,
                        .size = s.bytes };
    VkBufferCopy down = { .srcOffset = s.offset, .dstOffset = up.srcOffset, .size = s.bytes };
    if (!one_time_begin(d, commands)) return false;
    if (upload) {
        vkCmdCopyBuffer(commands, d->staging.buffer->handle, s.buffer->handle, 1, &up);
    } else {
        vkCmdCopyBuffer(commands, s.buffer->handle, d->staging.buffer->handle, 1, &down);
        VkMemoryBarrier host = { .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                                 .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
                                 .dstAccessMask = VK_ACCESS_HOST_READ_BIT };
        vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT,
                             0, 1, &host, 0, NULL, 0, NULL);
    }
    return gpu_check(d, vkEndCommandBuffer(commands), "record a copy") &&
           gpu_submit(d, &commands, 1, &d->staging.done[half]);
}

static struct gpu_span window(struct gpu_span s, uint64_t at)
{
    uint64_t left = s.bytes - at;
    s.offset += at;
    s.bytes = left < STAGING_HALF ? left : STAGING_HALF;
    return s;
}

bool gpu_write(struct gpu_device *d, struct gpu_span dst, const void *src)
{
    if (!gpu_span_check(dst, "a write") || (!d->null && !gpu_wait(d))) return false;
    if (dst.buffer->map) {
        memcpy(dst.buffer->map + dst.offset, src, dst.bytes);
        return true;
    }
    struct gpu_staging *s = &d->staging;
    int half = 0;
    for (uint64_t at = 0; at < dst.bytes; at += STAGING_HALF, half ^= 1) {
        struct gpu_span part = window(dst, at);
        if (!gpu_wait_value(d, s->done[half])) return false;
        memcpy(s->buffer->map + (size_t)half * STAGING_HALF, (const uint8_t *)src + at, part.bytes);
        if (!staging_copy(d, half, part, true)) return false;
    }
    return true;
}

bool gpu_read(struct gpu_device *d, struct gpu_span src, void *dst)
{
    if (!gpu_span_check(src, "a read") || (!d->null && !gpu_wait(d))) return false;
    if (src.buffer->map) {
        memcpy(dst, src.buffer->map + src.offset, src.bytes);
        return true;
    }
    /* One part is in flight while the one before it is copied out. */
    struct gpu_staging *s = &d->staging;
    uint64_t parts = (src.bytes + STAGING_HALF - 1) / STAGING_HALF;
    for (uint64_t i = 0; i <= parts; i++) {
        if (i < parts && !staging_copy(d, i & 1, window(src, i * STAGING_HALF), false))
            return false;
        if (i == 0) continue;
        int half = (i - 1) & 1;
        struct gpu_span part = window(src, (i - 1) * STAGING_HALF);
        if (!gpu_wait_value(d, s->done[half])) return false;
        memcpy((uint8_t *)dst + (i - 1) * STAGING_HALF,
               s->buffer->map + (size_t)half * STAGING_HALF, part.bytes);
    }
    return true;
}
