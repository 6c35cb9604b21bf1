/* SPDX-License-Identifier: MIT
 * kernel.h - what a row's emit function sees: one step in, kernel calls out. Still no device: a
 * call is data that session.c turns into a gpu_dispatch, and a test can print.
 What bindings, constants and push
 * words mean is in shader.h. */
#ifndef BURIN_KERNEL_H
#define BURIN_KERNEL_H

#include "graph/plan.h"
#include "host/host.h"
#include "shaders.h" /* generated: SHADER_matmul_cpu for shaders/matmul_cpu.comp */

#define KERNEL_CHAIN_PUSH (4 * (CHAIN_IMMEDIATES + 3 * CHAIN_INPUTS)) /* bytes */

struct kernel_call {
    enum shader shader;
    struct tensor_ref bind[HOST_BINDINGS]; /* a shader has at most KERNEL_BINDINGS */
    int n_bind;                            /* own bindings; emit_call adds the chain's */
    uint32_t writes;                       /* bit i: binding i is written */
    uint32_t spec[KERNEL_SPEC_CHAIN - KERNEL_SPEC_OWN]; /* constants KERNEL_SPEC_OWN + i */
    int n_spec;
    uint32_t push[KERNEL_OWN_PUSH / 4]; /* floats by kernel_float */
    int n_push;
    uint32_t groups[3];
    bool chained;                 /* the step's chain is applied by this call (its stored result) */
    const struct host_work *host; /* instead of a shader */
    double flops;
    /* Filled by emit_call: all specialization constants and push words, the
     * step's types and chain included. */
    uint32_t constant[KERNEL_SPEC_CHAIN + 2 + CHAIN_STEPS],
        word[(KERNEL_OWN_PUSH + KERNEL_CHAIN_PUSH) / 4];
    int n_constants, n_words;
};

struct emit {
    const struct plan_step *step;
    const struct plan_target *target;
    /* Takes one call; false stops the emission (error recorded). */
    bool (*call)(struct emit *e, const struct kernel_call *call);
    void *user;
    uint64_t workspace_used;
};

/* Emits the step: as work of the host where the device is one and has it, else by the row's emit
 * function. */
bool emit_step(struct emit *e);

/* Scratch memory for this step, 256-byte aligned, f32. The planner runs every emit function
 * once with a `call` that drops its argument, to learn how much a step wants; so emit must ask
 * for the same bytes each time. */
struct tensor_ref emit_workspace(struct emit *e, uint64_t bytes);

/* Fills in what the shader sees of a call without a chain: types, constants and push words. */
void kernel_complete(struct kernel_call *call);
/* Adds dtypes, chain constants and chain bindings to the call and hands it to e->call. */
bool emit_call(struct emit *e, struct kernel_call *call);
/* Whether the step's chain allows groups of four elements (chain_apply4),
 * the kernel's own sizes aside. */
bool chain_by_fours(const struct plan_step *s);
uint32_t kernel_float(float f);              /* bits for a push word */
const char *shader_name(enum shader shader); /* of its file: "matmul_cpu" */
/* Splits `groups` workgroups over the three dimensions so that none exceeds the limit; the
 * shader recovers its number as gl_WorkGroupID.x + gl_NumWorkGroups.x * (y + gl_NumWorkGroups.y
 * * z) and returns when past the end. */
void kernel_groups(const struct plan_target *t, uint64_t groups, uint32_t out[3]);
static inline uint32_t ceil_div(uint64_t a, uint64_t b) { return (uint32_t)((a + b - 1) / b); }

#endif
