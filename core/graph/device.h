/* SPDX-License-Identifier: MIT
 * device.h - what device.c, session.c and var.c (variables) share. GPU types stay opaque here. */
#ifndef BURIN_DEVICE_H
#define BURIN_DEVICE_H

#include "graph/plan.h"

struct gpu_device;
struct gpu_caps;
struct gpu_buffer;
struct gpu_program;

/* A block of device memory with variables of one role in it. */
struct var_block {
    struct gpu_buffer *buffer;
    burin_role role;
    uint64_t bytes, used_once; /* from used_once on the block was never handed out: still zero */
    burin_var **var;           /* by offset */
    int count, capacity;
};

struct burin_device {
    struct gpu_device *gpu;
    struct plan_target target;
    burin_var **var;
    int vars, var_capacity;
    struct var_block **block;
    int blocks, block_capacity;
    burin_session **session;
    int sessions, session_capacity;
    struct gpu_buffer *arena;
    uint64_t arena_bytes;
    unsigned generation; /* counts moves of memory: recorded sessions of another one are stale */
    bool sealed;         /* no further allocation */
    bool changed;        /* a variable became absent: the arena may be larger than needed */
};

struct burin_session {
    burin_device *device; /* NULL once it is gone */
    char *name;
    struct burin_plan *plan;
    struct gpu_program *program; /* NULL = not recorded */
    unsigned generation;         /* of the device's memory when it was */
    burin_profile *row;          /* one per dispatch, seconds unset */
};

/* ---- device.c: memory and kernels for the others --------------------------------------------- */

/* What kernels may assume on such a device; tier NULL is the one that suits it. */
bool device_target(struct plan_target *t, const struct gpu_caps *c, const char *tier);

struct gpu_buffer *device_memory_create(burin_device *d, uint64_t bytes, const char *what);
void device_memory_destroy(struct gpu_buffer *b);
bool device_memory_write(burin_device *d, struct gpu_buffer *b, uint64_t offset, const void *src,
                         uint64_t bytes);
bool device_memory_read(burin_device *d, struct gpu_buffer *b, uint64_t offset, void *dst,
                        uint64_t bytes);
/* A CPU driver's memory, with nothing in flight; NULL on other devices. */
void *device_host_memory(burin_device *d, struct gpu_buffer *b, uint64_t offset, uint64_t bytes);

/* Appends one kernel to a program; its tensors are variables with
 * memory, or (var NULL) in `arena`. */
struct kernel_call;
bool device_record(burin_device *d, struct gpu_program *p, struct gpu_buffer *arena,
                   const struct kernel_call *call, const char *label);
/* One kernel by itself, now. */
bool device_run(burin_device *d, struct gpu_buffer *scratch, const struct kernel_call *call);
/* Memory for the moment, of `least` to *bytes, which says how much it is: the arena, whose contents
 * mean nothing between runs of sessions, or a buffer for device_scratch_finish to destroy. */
struct gpu_buffer *device_scratch(burin_device *d, uint64_t least, uint64_t *bytes);
void device_scratch_finish(burin_device *d, struct gpu_buffer *b);
bool device_computes(const burin_device *d); /* false: the null device */

/* ---- session.c ------------------------------------------------------------------------------- */

/* Lets go of what was recorded; the next run records again. */
void session_forget(burin_session *s);
/* Sees to it that all memory is there and the session is recorded for it. */
bool session_prepare(burin_session *s);

/* ---- var.c ----------------------------------------------------------------------------------- */

/* Gives memory to every variable of the role that has none yet; role 0: of all roles. */
bool vars_commit(burin_device *d, burin_role role);
/* Where a variable is; NULL while it has no memory. */
struct gpu_buffer *var_memory(const burin_var *v, uint64_t *offset);
/* A variable of the plan that is absent from the device; NULL = none. */
const burin_var *vars_absent(const struct burin_plan *p);
/* Lets go of all variables: they stay valid but belong to no device. */
void vars_orphan(burin_device *d);

#endif
