/* SPDX-License-Identifier: MIT
 * gpu.h - Vulkan, and nothing about tensors. The only folder where `Vk` may appear.
 *
 * A program is a list of dispatches recorded once and submitted many times, cut into submissions
 * that each stay under a time budget. Barriers are inserted from the byte ranges that each dispatch
 * reads and writes. Every kernel has the same interface: set 0 with GPU_MAX_BINDINGS storage
 * buffers, 128 bytes of push constants, specialization constants by id. So there is one descriptor
 * set layout and one pipeline layout. */
#ifndef BURIN_GPU_H
#define BURIN_GPU_H

#include "base/base.h"

#define GPU_MAX_BINDINGS 8
#define GPU_MAX_SPANS 12 /* of a function of the host */
#define GPU_MAX_PUSH 128
#define GPU_MAX_SPEC 32

enum gpu_type {
    GPU_TYPE_DISCRETE = 1,
    GPU_TYPE_INTEGRATED,
    GPU_TYPE_CPU,
    GPU_TYPE_OTHER,
    GPU_TYPE_NULL
};

struct gpu_caps { /* what a device is and can */
    char name[256], driver[128], uuid[33], api[16];
    enum gpu_type type;
    /* Subgroup: invocations per subgroup of a compute shader by default. Cores: compute units or
     * multiprocessors (0 = unknown) */
    uint32_t vendor, subgroup, cores;
    /* Workgroups per dimension; invocations; bytes */
    uint32_t max_groups[3], max_group_size, max_shared;
    uint64_t max_range;    /* bytes that one binding may cover */
    uint64_t alignment;    /* of a binding's offset */
    uint64_t heap_bytes;   /* device-local memory (0 = unknown) */
    uint64_t budget_bytes; /* of it free for us now, by VK_EXT_memory_budget (0 = unknown) */
    bool host_visible;     /* all device memory is mapped: uploads are plain copies */
    bool timestamps, storage16, float16, coopmat;
};

struct gpu_device_params {
    const char *name;
    bool validate;
    const char *cache;
};

/* Name as in burin.h */
struct gpu_device *gpu_device_create(const struct gpu_device_params *params);
void gpu_device_destroy(struct gpu_device *d);
const struct gpu_caps *gpu_device_caps(const struct gpu_device *d);
/* Fills at most n entries with the machine's devices in order of preference (discrete, integrated,
 * other, CPU); returns how many there are, -1 on error (no Vulkan loader). */
int gpu_device_list(struct gpu_caps *out, int n);
/* Messages of the validation layers so far (errors and warnings); tests want 0. */
int gpu_validation_count(const struct gpu_device *d);

/* ---- memory ---------------------------------------------------------------------------------- */

struct gpu_buffer; /* one block of device memory with one VkBuffer */
struct gpu_span {
    struct gpu_buffer *buffer;
    uint64_t offset, bytes;
};

/* Zero-filled. NULL on failure: the message says how much was asked for and what is in use. */
struct gpu_buffer *gpu_buffer_create(struct gpu_device *d, uint64_t bytes, const char *what);
void gpu_buffer_destroy(struct gpu_buffer *b);
uint64_t gpu_device_allocated(const struct gpu_device *d); /* bytes held now */
/* Calls so far: must stand still after step 1 */
int gpu_device_allocations(const struct gpu_device *d);
/* Both wait for submitted work that touches the device first. */
bool gpu_write(struct gpu_device *d, struct gpu_span dst, const void *src);
bool gpu_read(struct gpu_device *d, struct gpu_span src, void *dst);
/* Where a CPU driver's memory is, for the host to compute in while nothing is in
 * flight; NULL on every other device. */
void *gpu_host_memory(struct gpu_span s);

/* ---- kernels --------------------------------------------------------------------------------- */

/* spec[i] is specialization constant i. Compiled when a program that uses it is finished, and kept;
 * identical requests return the same pointer. A shader is named after its file: "matmul_cpu". */
struct gpu_kernel;
struct gpu_kernel *gpu_kernel_get(struct gpu_device *d, const char *shader, const uint32_t *spec,
                                  int n_spec);
int gpu_kernel_count(const struct gpu_device *d); /* asked for so far */

/* ---- programs -------------------------------------------------------------------------------- */

struct gpu_dispatch {
    struct gpu_kernel *kernel;
    /* Instead of a kernel, on a CPU driver: work of the host on the same memory, run once all
     * before it is done. at[i]: where binding i is. False with a recorded error ends the
     * submission. The program keeps a copy of the user_bytes at user; 0: the pointer itself. */
    bool (*host)(const void *user, void *const *at);
    const void *user;
    uint32_t user_bytes;
    struct gpu_span bind[GPU_MAX_SPANS];
    int n_bind;
    uint32_t writes; /* bit i: binding i is written (and may be read) */
    uint8_t push[GPU_MAX_PUSH];
    uint32_t push_bytes;
    uint32_t groups[3];
    double flops;      /* estimate, for cutting submissions; 0 = small */
    const char *label; /* for profiles and device-lost reports; not copied */
};

struct gpu_program;
struct gpu_program *gpu_program_create(struct gpu_device *d, const char *name);
void gpu_program_destroy(struct gpu_program *p);
bool gpu_program_dispatch(struct gpu_program *p, const struct gpu_dispatch *call);
bool gpu_program_copy(struct gpu_program *p, struct gpu_span dst, struct gpu_span src);
bool gpu_program_fill(struct gpu_program *p, struct gpu_span dst, uint32_t word);
bool gpu_program_finish(struct gpu_program *p); /* no more recording */
bool gpu_program_submit(struct gpu_program *p); /* asynchronous; at most 2 in flight, then waits */
bool gpu_wait(struct gpu_device *d);
/* Runs once with timestamps around every dispatch. seconds[i] for dispatch i in recording order, n
 * as gpu_program_count. For profiles only: much slower than submit. */
int gpu_program_count(const struct gpu_program *p); /* dispatches recorded */
bool gpu_program_profile(struct gpu_program *p, double *seconds);

#endif
