/* SPDX-License-Identifier: MIT
 * submit.c - replaying programs: how much in one submission, how many in flight, profiles. */
#include "gpu/gpu_internal.h"

#include <stdio.h>
#include <string.h>

#define TARGET_SECONDS 0.1 /* of one submission; drivers reset a device silent for 2 s */
#define LIMIT_SECONDS 0.2  /* a longer one is cut again */
#define MIN_WORK 1e9       /* of one: a hiccup of the driver is no reason to submit crumbs */
#define MAX_GROUP 64
#define PROFILE_BATCH 256

/* Submits chunks [first, end) as one job and notes it for the report of a lost device. */
static bool submit_group(struct gpu_program *p, int first, int end, uint64_t *value)
{
    struct gpu_device *d = p->device;
    VkCommandBuffer commands[MAX_GROUP];
    for (int i = first; i < end; i++) commands[i - first] = p->chunks[i].commands;
    snprintf(d->last_program, GPU_LABEL_BYTES, "%s", p->name);
    snprintf(d->last_first, GPU_LABEL_BYTES, "%s", p->ops[p->chunks[first].first].call.label);
    snprintf(d->last_last, GPU_LABEL_BYTES, "%s", p->ops[p->chunks[end - 1].end - 1].call.label);
    return gpu_submit(d, commands, (uint32_t)(end - first), value);
}

/* The first run goes chunk by chunk and measures each: later runs pack chunks up to the target, and
 * what is recorded later is cut by the rate found here. So is this program, when one took too long.
 */
static bool submit_measured(struct gpu_program *p)
{
    struct gpu_device *d = p->device;
    if (!gpu_wait(d)) return false;
    const struct gpu_chunk *slowest = p->chunks;
    for (int i = 0; i < p->n_chunks; i++) {
        struct gpu_chunk *chunk = &p->chunks[i];
        uint64_t value;
        double start = clock_seconds();
        if (!submit_group(p, i, i + 1, &value) || !gpu_wait_value(d, value)) return false;
        chunk->seconds = clock_seconds() - start;
        if (chunk->seconds > slowest->seconds) slowest = chunk;
    }
    d->flight[0] = d->flight[1] = d->submitted;
    log_line(LOG_DEBUG, "%s: %d command buffers, the longest took %.1f ms", p->name, p->n_chunks,
             1e3 * slowest->seconds);
    double seconds = slowest->seconds;
    if (seconds <= TARGET_SECONDS) return true;
    double work = gpu_chunk_work(p, slowest) * TARGET_SECONDS / seconds;
    if (work < MIN_WORK) work = MIN_WORK;
    if (work < d->chunk_flops) d->chunk_flops = work;
    bool whole = slowest->end - slowest->first == 1;
    return whole || seconds <= LIMIT_SECONDS || gpu_program_record(p);
}

static int group_end(const struct gpu_program *p, int first)
{
    double sum = p->chunks[first].seconds;
    int i = first + 1;
    for (; i < p->n_chunks && i - first < MAX_GROUP && p->chunks[i].commands; i++) {
        sum += p->chunks[i].seconds;
        if (sum > TARGET_SECONDS) break;
    }
    return i;
}

bool gpu_run_host(struct gpu_device *d, const struct gpu_op *op)
{
    void *at[GPU_MAX_SPANS];
    for (int i = 0; i < op->call.n_bind; i++) at[i] = gpu_host_memory(op->call.bind[i]);
    return gpu_wait(d) && (op->call.host(op->call.user, at) || fail_prefix("%s", op->call.label));
}

bool gpu_program_submit(struct gpu_program *p)
{
    struct gpu_device *d = p->device;
    if (!p->finished)
        return fail("program %s: submitted before its recording was finished", p->name);
    if (d->null || !p->n_chunks) return true;
    bool guarded = d->caps.type != GPU_TYPE_CPU; /* a CPU driver has no watchdog */
    if (guarded && p->chunks[0].seconds <= 0) return submit_measured(p);
    if (!gpu_wait_value(d, d->flight[0])) return false;
    uint64_t value = d->submitted;
    for (int first = 0, end; first < p->n_chunks; first = end) {
        const struct gpu_chunk *chunk = &p->chunks[first];
        end = chunk->commands ? group_end(p, first) : first + 1;
        if (chunk->commands ? !submit_group(p, first, end, &value)
                            : !gpu_run_host(d, &p->ops[chunk->first]))
            return false;
    }
    d->flight[0] = d->flight[1];
    d->flight[1] = value;
    return true;
}

/* ---- profiles -------------------------------------------------------------------------------- */

struct profiler {
    VkCommandPool pool;
    VkCommandBuffer commands;
    VkQueryPool queries; /* none where timestamps are missing */
};

static void profiler_finish(struct gpu_device *d, struct profiler *f)
{
    vkDestroyCommandPool(d->handle, f->pool, NULL);
    vkDestroyQueryPool(d->handle, f->queries, NULL);
}

static bool profiler_init(struct gpu_device *d, struct profiler *f)
{
    VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .queueFamilyIndex = d->family,
        .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
    };
    VkQueryPoolCreateInfo queries = { .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                      .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                      .queryCount = 2 * PROFILE_BATCH };
    if (!gpu_check(d, vkCreateCommandPool(d->handle, &pool, NULL, &f->pool), "profile"))
        return false;
    VkCommandBufferAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = f->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    if (!gpu_check(d, vkAllocateCommandBuffers(d->handle, &info, &f->commands), "profile"))
        return false;
    return !d->caps.timestamps ||
           gpu_check(d, vkCreateQueryPool(d->handle, &queries, NULL, &f->queries), "profile");
}

/* Runs operations [first, end), each between two barriers. */
static bool profile_run(struct gpu_program *p, struct profiler *f, int first, int end)
{
    struct gpu_device *d = p->device;
    VkCommandBufferBeginInfo begin = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                       .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT };
    uint64_t value;
    if (!gpu_check(d, vkBeginCommandBuffer(f->commands, &begin), "profile")) return false;
    if (f->queries) vkCmdResetQueryPool(f->commands, f->queries, 0, 2 * PROFILE_BATCH);
    for (int i = first; i < end; i++) {
        uint32_t query = 2 * (uint32_t)(i - first);
        gpu_record_barrier(f->commands);
        if (f->queries)
            vkCmdWriteTimestamp(f->commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, f->queries,
                                query);
        gpu_record_op(p, f->commands, &p->ops[i]);
        gpu_record_barrier(f->commands);
        if (f->queries)
            vkCmdWriteTimestamp(f->commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, f->queries,
                                query + 1);
    }
    gpu_record_host_barrier(f->commands);
    snprintf(d->last_program, GPU_LABEL_BYTES, "%s", p->name);
    snprintf(d->last_first, GPU_LABEL_BYTES, "%s", p->ops[first].call.label);
    snprintf(d->last_last, GPU_LABEL_BYTES, "%s", p->ops[end - 1].call.label);
    return gpu_check(d, vkEndCommandBuffer(f->commands), "profile") &&
           gpu_submit(d, &f->commands, 1, &value) && gpu_wait_value(d, value);
}

bool gpu_program_profile(struct gpu_program *p, double *seconds)
{
    struct gpu_device *d = p->device;
    struct profiler f = { 0 };
    memset(seconds, 0, (size_t)p->n_dispatches * sizeof *seconds);
    if (!p->finished)
        return fail("program %s: profiled before its recording was finished", p->name);
    if (d->null) return true;
    bool ok = gpu_wait(d) && profiler_init(d, &f);
    /* Without timestamps each operation is a submission of its own, timed by the host's clock. */
    int batch = f.queries ? PROFILE_BATCH : 1, n = 0;
    for (int first = 0, end; ok && first < p->n_ops; first = end) {
        end = gpu_chunk_end(p, first, batch);
        uint64_t ticks[2 * PROFILE_BATCH];
        bool host = p->ops[first].kind == GPU_OP_HOST;
        double start = clock_seconds();
        ok = host ? gpu_run_host(d, &p->ops[first]) : profile_run(p, &f, first, end);
        double elapsed = clock_seconds() - start;
        if (host) seconds[n++] = elapsed;
        if (ok && f.queries && !host) {
            uint32_t count = 2 * (uint32_t)(end - first);
            ok = gpu_check(d,
                           vkGetQueryPoolResults(d->handle, f.queries, 0, count, sizeof ticks,
                                                 ticks, sizeof *ticks,
                                                 VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT),
                           "profile");
        }
        for (int i = first; ok && i < end; i++)
            if (p->ops[i].kind == GPU_OP_DISPATCH) {
                int q = 2 * (i - first);
                seconds[n++] = f.queries ? (double)(ticks[q + 1] - ticks[q]) * d->tick : elapsed;
            }
    }
    profiler_finish(d, &f);
    return ok;
}
