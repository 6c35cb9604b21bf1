/* SPDX-License-Identifier: MIT
 * program.c - operations are checked and kept as they come, then recorded into command buffers. */
#include "gpu/gpu_internal.h"

#include <stdio.h>
#include <string.h>

#define SMALL_FLOPS 20e6 /* what an operation without an estimate is charged */
#define MAX_CHUNK_OPS 4096

struct gpu_program *gpu_program_create(struct gpu_device *d, const char *name)
{
    struct gpu_program *p = mem_alloc(sizeof *p);
    p->device = d;
    snprintf(p->name, sizeof p->name, "%s", name);
    return p;
}

void gpu_program_destroy(struct gpu_program *p)
{
    if (!p) return;
    struct gpu_device *d = p->device;
    if (d->handle) {
        if (d->completed < d->submitted) vkDeviceWaitIdle(d->handle);
        vkDestroyCommandPool(d->handle, p->pool, NULL);
        vkDestroyDescriptorPool(d->handle, p->sets, NULL);
    }
    for (int i = 0; i < p->n_ops; i++)
        if (p->ops[i].call.user_bytes) mem_free((void *)p->ops[i].call.user);
    mem_free(p->chunks);
    mem_free(p->ops);
    mem_free(p);
}

int gpu_program_count(const struct gpu_program *p) { return p->n_dispatches; }

/* ---- checking -------------------------------------------------------------------------------- */

static struct gpu_op *add_op(struct gpu_program *p, enum gpu_op_kind kind)
{
    p->ops = array_reserve(p->ops, p->n_ops, &p->op_capacity, sizeof *p->ops);
    struct gpu_op *op = &p->ops[p->n_ops++];
    *op = (struct gpu_op){ .kind = kind };
    return op;
}

static bool check_bind(const struct gpu_device *d, struct gpu_span s, bool host)
{
    const struct gpu_caps *c = &d->caps;
    if (!gpu_span_check(s, "it")) return false;
    if (!s.bytes) return fail("it covers no bytes");
    if (s.offset % c->alignment)
        return fail("its offset %llu is not a multiple of %llu", (unsigned long long)s.offset,
                    (unsigned long long)c->alignment);
    if (!host && s.bytes > c->max_range)
        return fail("its %llu bytes are more than the %llu that %s can bind at once",
                    (unsigned long long)s.bytes, (unsigned long long)c->max_range, c->name);
    return true;
}

static bool check_dispatch(const struct gpu_program *p, const struct gpu_dispatch *call)
{
    const struct gpu_caps *c = &p->device->caps;
    if (!call->kernel == !call->host) return fail("either a kernel or a function of the host");
    if (call->host && c->type != GPU_TYPE_CPU && c->type != GPU_TYPE_NULL)
        return fail("the host has no access to the memory of %s", c->name);
    int most = call->host ? GPU_MAX_SPANS : GPU_MAX_BINDINGS;
    if (call->n_bind < 0 || call->n_bind > most)
        return fail("%d bindings, %d at most", call->n_bind, most);
    if (call->push_bytes > GPU_MAX_PUSH || call->push_bytes % 4)
        return fail("%u bytes of push constants; a multiple of 4 and %d at most is possible",
                    call->push_bytes, GPU_MAX_PUSH);
    for (int i = 0; i < 3 && call->kernel; i++)
        if (!call->groups[i] || call->groups[i] > c->max_groups[i])
            return fail("%u workgroups in dimension %d; 1 to %u are possible on %s",
                        call->groups[i], i, c->max_groups[i], c->name);
    for (int i = 0; i < call->n_bind; i++)
        if (!check_bind(p->device, call->bind[i], call->host != NULL))
            return fail_prefix("binding %d", i);
    return true;
}

bool gpu_program_dispatch(struct gpu_program *p, const struct gpu_dispatch *call)
{
    const char *label = call->label ? call->label : call->kernel ? call->kernel->shader : "?";
    if (p->finished) return fail("program %s: %s comes after the end of recording", p->name, label);
    if (!check_dispatch(p, call)) return fail_prefix("program %s: %s", p->name, label);
    struct gpu_op *op = add_op(p, call->host ? GPU_OP_HOST : GPU_OP_DISPATCH);
    op->call = *call;
    op->call.label = label;
    if (call->user_bytes) {
        void *copy = mem_alloc(call->user_bytes);
        memcpy(copy, call->user, call->user_bytes);
        op->call.user = copy;
    }
    p->n_dispatches++;
    return true;
}

bool gpu_program_copy(struct gpu_program *p, struct gpu_span dst, struct gpu_span src)
{
    if (p->finished) return fail("program %s: a copy comes after the end of recording", p->name);
    if (!gpu_span_check(dst, "a copy's target") || !gpu_span_check(src, "a copy's source"))
        return fail_prefix("program %s", p->name);
    if (dst.bytes != src.bytes || !dst.bytes)
        return fail("program %s: a copy of %llu bytes to %llu", p->name,
                    (unsigned long long)src.bytes, (unsigned long long)dst.bytes);
    if (dst.buffer == src.buffer && dst.offset < src.offset + src.bytes &&
        src.offset < dst.offset + dst.bytes)
        return fail("program %s: a copy's source and target overlap", p->name);
    struct gpu_op *op = add_op(p, GPU_OP_COPY);
    op->call =
        (struct gpu_dispatch){ .bind = { dst, src }, .n_bind = 2, .writes = 1, .label = "copy" };
    return true;
}

bool gpu_program_fill(struct gpu_program *p, struct gpu_span dst, uint32_t word)
{
    if (p->finished) return fail("program %s: a fill comes after the end of recording", p->name);
    if (!gpu_span_check(dst, "a fill")) return fail_prefix("program %s", p->name);
    if (!dst.bytes || dst.bytes % 4 || dst.offset % 4)
        return fail("program %s: a fill of %llu bytes at %llu; multiples of 4 are possible",
                    p->name, (unsigned long long)dst.bytes, (unsigned long long)dst.offset);
    struct gpu_op *op = add_op(p, GPU_OP_FILL);
    op->call = (struct gpu_dispatch){ .bind = { dst }, .n_bind = 1, .writes = 1, .label = "fill" };
    op->word = word;
    return true;
}

/* ---- recording ------------------------------------------------------------------------------- */

/* All sets at once, exactly as many as there are dispatches. */
static bool create_sets(struct gpu_program *p)
{
    struct gpu_device *d = p->device;
    uint32_t n = (uint32_t)p->n_dispatches;
    if (!n) return true;
    VkDescriptorPoolSize size = { .type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                  .descriptorCount = n * GPU_MAX_BINDINGS };
    VkDescriptorPoolCreateInfo pool = { .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                        .maxSets = n,
                                        .poolSizeCount = 1,
                                        .pPoolSizes = &size };
    if (!gpu_check(d, vkCreateDescriptorPool(d->handle, &pool, NULL, &p->sets),
                   "make descriptor sets"))
        return false;
    VkDescriptorSetAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = p->sets,
        .descriptorSetCount = 1,
        .pSetLayouts = &d->set_layout,
    };
    for (int i = 0; i < p->n_ops; i++) {
        struct gpu_op *op = &p->ops[i];
        if (op->kind != GPU_OP_DISPATCH) continue;
        if (!gpu_check(d, vkAllocateDescriptorSets(d->handle, &info, &op->set),
                       "make descriptor sets"))
            return false;
        VkDescriptorBufferInfo buffers[GPU_MAX_BINDINGS];
        VkWriteDescriptorSet writes[GPU_MAX_BINDINGS];
        for (uint32_t b = 0; b < (uint32_t)op->call.n_bind; b++) {
            const struct gpu_span *s = &op->call.bind[b];
            buffers[b] = (VkDescriptorBufferInfo){ s->buffer->handle, s->offset, s->bytes };
            writes[b] = (VkWriteDescriptorSet){
                .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                .dstSet = op->set,
                .dstBinding = b,
                .descriptorCount = 1,
                .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                .pBufferInfo = &buffers[b],
            };
        }
        vkUpdateDescriptorSets(d->handle, (uint32_t)op->call.n_bind, writes, 0, NULL);
    }
    return true;
}

/* Orders all that is before it on the queue, earlier submissions included, before the rest. */
void gpu_record_barrier(VkCommandBuffer commands)
{
    const VkPipelineStageFlags stages =
        VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                         VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
    };
    vkCmdPipelineBarrier(commands, stages, stages, 0, 1, &barrier, 0, NULL, 0, NULL);
}

/* Makes the results visible to gpu_read on mapped memory, and to functions of the host. */
void gpu_record_host_barrier(VkCommandBuffer commands)
{
    VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_HOST_READ_BIT,
    };
    vkCmdPipelineBarrier(commands,
                         VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                         VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier, 0, NULL, 0, NULL);
}

void gpu_record_op(const struct gpu_program *p, VkCommandBuffer commands, const struct gpu_op *op)
{
    const struct gpu_dispatch *c = &op->call;
    VkPipelineLayout layout = p->device->pipeline_layout;
    switch (op->kind) {
    case GPU_OP_HOST: break; /* between command buffers */
    case GPU_OP_DISPATCH:
        vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, c->kernel->pipeline);
        vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, &op->set, 0,
                                NULL);
        if (c->push_bytes)
            vkCmdPushConstants(commands, layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, c->push_bytes,
                               c->push);
        vkCmdDispatch(commands, c->groups[0], c->groups[1], c->groups[2]);
        break;
    case GPU_OP_COPY: {
        VkBufferCopy region = { c->bind[1].offset, c->bind[0].offset, c->bind[0].bytes };
        vkCmdCopyBuffer(commands, c->bind[1].buffer->handle, c->bind[0].buffer->handle, 1, &region);
        break;
    }
    case GPU_OP_FILL:
        vkCmdFillBuffer(commands, c->bind[0].buffer->handle, c->bind[0].offset, c->bind[0].bytes,
                        op->word);
        break;
    }
}

static double cost(const struct gpu_op *op)
{
    return op->call.flops > SMALL_FLOPS ? op->call.flops : SMALL_FLOPS;
}

double gpu_chunk_work(const struct gpu_program *p, const struct gpu_chunk *chunk)
{
    double sum = 0;
    for (int i = chunk->first; i < chunk->end; i++) sum += cost(&p->ops[i]);
    return sum;
}

int gpu_chunk_end(const struct gpu_program *p, int first, int max_ops)
{
    double sum = cost(&p->ops[first]);
    int i = first + 1;
    /* The cut comes before the operation that would cross the budget. */
    if (p->ops[first].kind == GPU_OP_HOST) return i;
    for (; i < p->n_ops && i - first < max_ops && p->ops[i].kind != GPU_OP_HOST; i++) {
        sum += cost(&p->ops[i]);
        if (sum > p->device->chunk_flops) break;
    }
    return i;
}

static bool record_chunk(struct gpu_program *p, struct gpu_chunk *chunk, struct gpu_hazards *h)
{
    struct gpu_device *d = p->device;
    VkCommandBuffer commands = NULL;
    if (p->ops[chunk->first].kind == GPU_OP_HOST) return true;
    if (!d->null) {
        VkCommandBufferAllocateInfo info = {
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = p->pool,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1,
        };
        /* Simultaneous: a replay may be queued while the one before it runs. */
        VkCommandBufferBeginInfo begin = {
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
            .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT,
        };
        if (!gpu_check(d, vkAllocateCommandBuffers(d->handle, &info, &commands),
                       "make a command buffer") ||
            !gpu_check(d, vkBeginCommandBuffer(commands, &begin), "record"))
            return false;
        gpu_record_barrier(commands);
    }
    gpu_hazards_clear(h);
    for (int i = chunk->first; i < chunk->end; i++) {
        bool wait = gpu_hazards_add(h, &p->ops[i]);
        p->n_barriers += wait;
        if (wait && !d->null) gpu_record_barrier(commands);
        if (!d->null) gpu_record_op(p, commands, &p->ops[i]);
    }
    if (d->null) return true;
    if (chunk->end == p->n_ops || p->ops[chunk->end].kind == GPU_OP_HOST)
        gpu_record_host_barrier(commands);
    chunk->commands = commands;
    return gpu_check(d, vkEndCommandBuffer(commands), "record");
}

/* Cuts the operations into command buffers of the device's present size and records them. */
bool gpu_program_record(struct gpu_program *p)
{
    struct gpu_device *d = p->device;
    struct gpu_hazards hazards = { 0 };
    p->n_chunks = p->n_barriers = 0;
    if (!d->null) {
        VkCommandPoolCreateInfo pool = { .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                         .queueFamilyIndex = d->family };
        vkDestroyCommandPool(d->handle, p->pool, NULL);
        p->pool = NULL;
        if (!gpu_check(d, vkCreateCommandPool(d->handle, &pool, NULL, &p->pool),
                       "make a command pool"))
            return fail_prefix("program %s", p->name);
    }
    bool ok = true;
    int max_ops = d->caps.type == GPU_TYPE_CPU ? p->n_ops : MAX_CHUNK_OPS;
    for (int first = 0; ok && first < p->n_ops;) {
        p->chunks = array_reserve(p->chunks, p->n_chunks, &p->chunk_capacity, sizeof *p->chunks);
        struct gpu_chunk *chunk = &p->chunks[p->n_chunks++];
        *chunk = (struct gpu_chunk){ .first = first, .end = gpu_chunk_end(p, first, max_ops) };
        ok = record_chunk(p, chunk, &hazards);
        first = chunk->end;
    }
    gpu_hazards_finish(&hazards);
    return ok || fail_prefix("program %s", p->name);
}

bool gpu_program_finish(struct gpu_program *p)
{
    if (p->finished) return true;
    if (!gpu_kernels_compile(p->device) || (!p->device->null && !create_sets(p)))
        return fail_prefix("program %s", p->name);
    p->finished = gpu_program_record(p);
    return p->finished;
}
