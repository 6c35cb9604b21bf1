/* SPDX-License-Identifier: MIT
 * gpu_internal.h - what the files of this folder share. */
#ifndef BURIN_GPU_INTERNAL_H
#define BURIN_GPU_INTERNAL_H

#include <stdatomic.h>
#include <vulkan/vulkan.h>

#include "base/base.h"
#include "gpu/gpu.h"

#define GPU_LABEL_BYTES 64

/* Two halves, so that the host copies into one while the device empties the other. */
struct gpu_staging {
    struct gpu_buffer *buffer;
    VkCommandBuffer commands[2];
    uint64_t done[2]; /* timeline value after which half i is free again */
};

struct gpu_device {
    struct gpu_caps caps;
    bool null; /* no Vulkan behind it: nothing runs */
    bool lost;
    VkInstance instance;
    VkDebugUtilsMessengerEXT messenger;
    atomic_int validation;
    VkPhysicalDevice physical;
    VkDevice handle;
    uint32_t family;
    VkQueue queue;
    VkPhysicalDeviceMemoryProperties memory;
    bool memory_budget; /* VK_EXT_memory_budget */
    double tick;        /* seconds per timestamp unit */
    VkDescriptorSetLayout set_layout;
    VkPipelineLayout pipeline_layout;

    VkPipelineCache cache;
    char *cache_path;    /* NULL = not kept on disk */
    uint64_t cache_hash; /* of what is on disk */

    VkCommandPool pool;
    VkSemaphore timeline; /* counts submissions */
    uint64_t submitted, completed;
    uint64_t flight[2]; /* last value of the two latest program submissions */
    double chunk_flops; /* work recorded into one command buffer */
    /* What was submitted last, for the report when the device is lost. */
    char last_program[GPU_LABEL_BYTES], last_first[GPU_LABEL_BYTES], last_last[GPU_LABEL_BYTES];

    struct gpu_staging staging;
    uint64_t allocated;
    int allocations;

    struct gpu_kernel **kernels;
    int n_kernels, n_compiled, kernel_capacity; /* the first n_compiled have a pipeline */
};

struct gpu_buffer {
    struct gpu_device *device;
    uint64_t bytes;
    VkBuffer handle;
    VkDeviceMemory memory;
    uint8_t *map;   /* NULL when the host cannot see it */
    bool uncounted; /* staging: host memory, no part of what a plan counts */
};

struct gpu_kernel {
    uint64_t hash;
    const char *shader; /* name in the embedded table */
    const struct embed_file *code;
    uint32_t spec[GPU_MAX_SPEC];
    int n_spec;
    VkPipeline pipeline;
};

/* ---- device.c -------------------------------------------------------------------------------- */

/* True for VK_SUCCESS. Otherwise records "cannot <doing>: <why>", and remembers a lost device. */
bool gpu_check(struct gpu_device *d, VkResult result, const char *doing);
/* Submits n command buffers; *value receives the timeline value that they signal. */
bool gpu_submit(struct gpu_device *d, const VkCommandBuffer *commands, uint32_t n, uint64_t *value);
bool gpu_wait_value(struct gpu_device *d, uint64_t value);

/* ---- instance.c ------------------------------------------------------------------------------ */

bool gpu_instance_create(struct gpu_device *d, bool validate);
/* Devices in order of preference, with their caps; the caller frees both arrays. -1 on error. */
int gpu_enumerate(VkInstance instance, VkPhysicalDevice **handles, struct gpu_caps **caps);
bool gpu_has_extension(VkPhysicalDevice physical, const char *name);
/* Device-local bytes free for us now, 0 = unknown. */
uint64_t gpu_memory_budget(VkPhysicalDevice physical);

/* ---- memory.c -------------------------------------------------------------------------------- */

void gpu_memory_finish(struct gpu_device *d);
/* Whether a span lies inside its buffer; the error names `what`. */
bool gpu_span_check(struct gpu_span s, const char *what);

/* ---- kernel.c -------------------------------------------------------------------------------- */

bool gpu_kernels_init(struct gpu_device *d, const char *cache);
bool gpu_kernels_compile(struct gpu_device *d); /* those that have no pipeline yet */
void gpu_kernels_finish(struct gpu_device *d);

/* ---- program.c, hazard.c --------------------------------------------------------------------- */

enum gpu_op_kind { GPU_OP_DISPATCH, GPU_OP_HOST, GPU_OP_COPY, GPU_OP_FILL };

struct gpu_op {
    enum gpu_op_kind kind;
    struct gpu_dispatch call; /* copy: bind[0] = destination, bind[1] = source; fill: bind[0] */
    uint32_t word;            /* fill */
    VkDescriptorSet set;
};

/* Bytes touched since the last barrier. */
struct gpu_range {
    const struct gpu_buffer *buffer;
    uint64_t begin, end;
};
struct gpu_hazards {
    struct gpu_range *writes, *reads;
    int n_writes, n_reads, write_capacity, read_capacity;
};

/* Whether the operation needs a barrier before it; adds its ranges to the pending ones (after
 * clearing them when the answer is true). */
bool gpu_hazards_add(struct gpu_hazards *h, const struct gpu_op *op);
void gpu_hazards_clear(struct gpu_hazards *h);
void gpu_hazards_finish(struct gpu_hazards *h);

/* One command buffer: a stretch of operations; or one of the host's, which has no commands. */
struct gpu_chunk {
    VkCommandBuffer commands;
    int first, end; /* operations */
    double seconds; /* measured in the first run; 0 = not yet */
};

struct gpu_program {
    struct gpu_device *device;
    char name[GPU_LABEL_BYTES];
    struct gpu_op *ops;
    int n_ops, op_capacity, n_dispatches, n_barriers;
    bool finished;
    VkCommandPool pool;
    VkDescriptorPool sets;
    struct gpu_chunk *chunks;
    int n_chunks, chunk_capacity;
};

/* End of the stretch of at most max_ops operations that may run as one submission. */
int gpu_chunk_end(const struct gpu_program *p, int first, int max_ops);
double gpu_chunk_work(const struct gpu_program *p, const struct gpu_chunk *chunk); /* as charged */
bool gpu_program_record(struct gpu_program *p); /* again: nothing of it may be in flight */
bool gpu_run_host(struct gpu_device *d, const struct gpu_op *op); /* waits for the device first */
void gpu_record_barrier(VkCommandBuffer commands);
void gpu_record_host_barrier(VkCommandBuffer commands);
void gpu_record_op(const struct gpu_program *p, VkCommandBuffer commands, const struct gpu_op *op);

/* ---- null.c ---------------------------------------------------------------------------------- */

struct gpu_device *gpu_null_create(void);
bool gpu_null_buffer(struct gpu_buffer *b);

#endif
