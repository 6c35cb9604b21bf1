/* SPDX-License-Identifier: MIT
 *
 * burin.h - the public C API, plain enough to be read by LuaJIT's ffi.cdef.
 *
 *   device   a Vulkan device (or the null device), its kernels and its memory
 *   var      a named tensor that lives on a device between steps: a weight, a parameter, a
 *            batch input
 *   graph    an append-only arena of nodes; pool order is topological order
 *   node     one operation: op row, inputs, attributes, shape, dtype, the recipe line that made it
 *   session  a graph, planned and recorded once, replayed every step
 *   tensors  named host tensors out of a model file
 *
 * Errors: functions return false or NULL and leave a sentence in burin_error(). A graph keeps its
 * first error: a failed call returns NULL, NULL in gives NULL out, so a model can be traced without
 * checks.
 * Threads: one thread at a time per device and everything made from it.
 */
#ifndef BURIN_H
#define BURIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BURIN_VERSION "0.1.0"
#define BURIN_MAX_RANK 4 /* on a device; a tensor in a file may have up to BURIN_FILE_RANK dims */
#define BURIN_FILE_RANK 8
#define BURIN_MAX_INPUTS 6
#define BURIN_MAX_PARTS 3
#define BURIN_MAX_ATTRS 8

/* Element types. The first three compute; I32 holds token ids; I8 on a device is a frozen weight's
 * fraction, a whole number over 127 (burin_var_upload); the rest occur in files only. */
typedef enum burin_dtype {
    BURIN_F32 = 1,
    BURIN_F16,
    BURIN_BF16,
    BURIN_I32,
    BURIN_F64,
    BURIN_I64,
    BURIN_I16,
    BURIN_I8,
    BURIN_U8,
    BURIN_BOOL,
    BURIN_F8_E4M3,
    BURIN_F8_E5M2,
    BURIN_U16,
    BURIN_U32,
    BURIN_U64,
} burin_dtype;

typedef struct burin_shape {
    int rank; /* 0 = a scalar of one element */
    /* Row-major, dim[rank - 1] is contiguous; images are (N, H, W, C) */
    int64_t dim[BURIN_MAX_RANK];
} burin_shape;

typedef struct burin_device burin_device;
typedef struct burin_var burin_var;
typedef struct burin_graph burin_graph;
typedef struct burin_node burin_node;
typedef struct burin_session burin_session;
typedef struct burin_tensors burin_tensors;

/* The last error of this thread: a full sentence, never NULL. */
const char *burin_error(void);

size_t burin_dtype_bytes(burin_dtype dtype);         /* bytes per element */
const char *burin_dtype_name(burin_dtype dtype);     /* "f32" */
burin_dtype burin_dtype_find(const char *name);      /* the other way; 0 when there is none */
int64_t burin_shape_count(const burin_shape *shape); /* number of elements */
/* How many elements a tensor of these dims has, and how many bytes they take; false and an error
 * when numbers of 64 bits do not hold it. Every shape from outside goes through here once. */
bool burin_size(int rank, const int64_t *dim, burin_dtype dtype, int64_t *count, uint64_t *bytes);
/* Whether no element of F32, F16 or BF16 is a NaN or an infinity, at the speed of memory; integers
 * always are finite. Of other types it says nothing: true. */
bool burin_all_finite(burin_dtype dtype, const void *data, int64_t count);

/* ---- devices --------------------------------------------------------------------------------- */

/* Zero means default. name: part of a device name, an index ("0"), or "null" for a device that runs
 * nothing. tier: "host", "cpu" or "simd" overrides the choice of kernels; NULL takes the device's
 * own: on a CPU driver "host" where the library for it is there. */
typedef struct burin_device_params {
    const char *name;
    const char *tier;
    bool validate;     /* Khronos validation layers, core and synchronization */
    const char *cache; /* folder of the pipeline cache; NULL = the user's cache folder, "" = none */
} burin_device_params;

burin_device *burin_device_create(const burin_device_params *params);
void burin_device_destroy(burin_device *device);
bool burin_device_wait(burin_device *device); /* until it has done all that was submitted */

typedef struct burin_info { /* what a device is and can */
    char name[256], driver[128], uuid[33], api[16];
    const char *type;      /* "discrete", "integrated", "cpu", "other" or "null" */
    const char *tier;      /* kernels: "host", "cpu" or "simd" */
    char engine[128];      /* tier host: what the bits of its results depend on, else empty */
    uint32_t subgroup;     /* invocations of a subgroup */
    uint32_t cores;        /* compute units or multiprocessors; 0 = unknown */
    uint32_t max_groups;   /* workgroups per dimension */
    uint32_t max_shared;   /* bytes of shared memory of a workgroup */
    uint64_t max_range;    /* bytes that one kernel may see of a tensor */
    uint64_t alignment;    /* of a tensor, bytes */
    uint64_t heap, budget; /* bytes of its own memory; of these free for us; 0 = unknown */
    bool host_visible;     /* all of that is mapped: uploads are plain copies */
    bool storage16, float16, coopmat, timestamps;
    /* Of a device that is open: */
    uint64_t allocated; /* bytes that it holds now */
    int allocations;    /* so far: must stand still after the first step */
    int kernels;        /* compiled so far */
    int messages;       /* of the validation layers so far */
} burin_info;

void burin_device_info(const burin_device *device, burin_info *out);
/* Fills at most n entries with the machine's devices in order of preference (discrete, integrated,
 * other, CPU); returns how many there are, -1 on error. */
int burin_device_list(burin_info *out, int n);

/* ---- variables ------------------------------------------------------------------------------- */

typedef enum burin_role {
    BURIN_ROLE_WEIGHT = 1, /* frozen */
    BURIN_ROLE_PARAM,      /* trained; f32 */
    BURIN_ROLE_GRAD,       /* gradients kept between graphs; f32 */
    BURIN_ROLE_STATE,      /* optimizer state and the step's own state */
    BURIN_ROLE_INPUT,      /* written by the host before a step, read back after one */
    BURIN_ROLE_COUNT
} burin_role;

/* Declares a tensor; no device memory is taken until burin_device_commit or the first use of a
 * variable of its role, so declare all before writing any. New memory is zero. */
burin_var *burin_var_create(burin_device *device, const char *name, burin_dtype dtype,
                            const burin_shape *shape, burin_role role);
/* Packs variables of one dtype one after the other (256-byte aligned) into one new
 * flat variable; they keep their contents and stay the caller's. Without its pack a
 * member has no contents any more. */
burin_var *burin_var_pack(burin_device *device, const char *name, burin_var **vars, int n,
                          burin_role role);
/* Same shapes and packing as `like` (a packed variable), for gradients and optimizer
 * state. views, when not NULL, receives one view per packed member, named
 * "<name>.<member>", for the caller to destroy. */
burin_var *burin_var_pack_like(burin_device *device, const char *name, const burin_var *like,
                               burin_role role, burin_var **views);
/* Gives its memory back to the device. Graphs and sessions that refer to it stay valid, but can run
 * no more. */
void burin_var_destroy(burin_var *var);
/* Host <-> device. src and dst hold count elements of `dtype` (converted to the variable's dtype),
 * F32, F16, BF16, I32 on both sides. */
bool burin_var_write(burin_var *var, burin_dtype dtype, const void *src, int64_t count);
bool burin_var_read(burin_var *var, burin_dtype dtype, void *dst, int64_t count);
/* Fills a weight (taps.., inputs, outputs) from a file's (outputs, inputs, taps..), F32, F16 or
 * BF16: transposed and converted on the device, which reads src in pieces. An I8 variable gets each
 * output's weights over the largest of them, and scale (outputs), f32, these; else scale is NULL.
 * Needs multiples of 4 for I8: outputs and inputs * taps. */
bool burin_var_upload(burin_var *var, burin_var *scale, burin_dtype dtype, const void *src,
                      int64_t outputs, int64_t inputs, int64_t taps);
/* An absent variable takes no memory and has no contents; sessions that use it cannot run, and the
 * arena need not be large enough for them. Takes effect with the next burin_device_commit. */
void burin_var_set_absent(burin_var *var, bool absent);

/* ---- graphs ---------------------------------------------------------------------------------- */

burin_graph *burin_graph_create(void);
void burin_graph_destroy(burin_graph *graph);
const char *burin_graph_error(const burin_graph *graph);       /* NULL while all is well */
void burin_graph_where(burin_graph *graph, const char *where); /* "recipe.lua:17", copied */
/* What the nodes belong to that are made from now on: a layer's name, or words such as "the loss".
 * Copied, cut to 255 bytes. A gradient belongs to what its node belongs to. */
void burin_graph_label(burin_graph *graph, const char *label);

burin_node *burin_leaf(burin_graph *graph, burin_var *var); /* one leaf per variable */
/* op: a name of the op table; attrs in the order of its row, to: the target shape where the row
 * takes one. A part of a node with several outputs: burin_part(node, 1). */
burin_node *burin_call(burin_graph *graph, const char *op, burin_node *const *in, int n_in,
                       const double *attrs, int n_attrs, const burin_shape *to, burin_dtype dtype);
burin_node *burin_part(burin_node *node, int part);
/* Writes value into var when the session runs; kept alive as a root of the graph. */
burin_node *burin_assign(burin_graph *graph, burin_var *var, burin_node *value);
/* dwrt[i] = d loss / d wrt[i], or NULL where loss does not depend on it. seed: the gradient of the
 * loss (a scalar node, the loss scale) or NULL for 1. */
bool burin_backward(burin_graph *graph, burin_node *loss, burin_node *seed, burin_node *const *wrt,
                    burin_node **dwrt, int n);
/* Nodes made between enter and leave are recomputed in the backward pass instead of being kept. */
void burin_checkpoint_enter(burin_graph *graph);
void burin_checkpoint_leave(burin_graph *graph);

/* ---- sessions -------------------------------------------------------------------------------- */

typedef struct burin_memory {        /* bytes */
    uint64_t role[BURIN_ROLE_COUNT]; /* variables in use by the graph, by role */
    uint64_t activations;            /* peak of tensors that live inside a step */
    uint64_t workspace;              /* the share of that peak which is kernels' scratch */
    uint64_t arena;                  /* what is allocated for both */
    uint64_t total;
} burin_memory;

/* Fuses and plans the graph's roots (its assigns). Allocates nothing on the device. The session
 * keeps what it needs: the graph may be destroyed after this call. */
burin_session *burin_session_create(burin_device *device, burin_graph *graph, const char *name);
void burin_session_destroy(burin_session *session);
void burin_session_memory(const burin_session *session, burin_memory *out);
double burin_session_flops(const burin_session *session); /* floating-point operations of one run */
int burin_session_dispatches(const burin_session *session);
/* Records on the first call (and again if the device's arena grew), then replays. Returns when the
 * work is submitted; reading a variable waits. */
bool burin_session_run(burin_session *session);
/* One run with each kernel measured by itself; slower than burin_session_run, same results. Fills
 * one row per dispatch, in order; n must be burin_session_dispatches. */
typedef struct burin_profile {
    const char *label;            /* the op's name */
    double seconds, flops, bytes; /* bytes: size of the tensors it touches */
} burin_profile;
bool burin_session_profile(burin_session *session, burin_profile *rows, int n);
/* The first result of a run that holds a NaN or an infinity. Its texts live as long as the session
 * and the variable. */
typedef struct burin_finding {
    const char *op;       /* of the node that gives it; NULL: every result is finite */
    const char *label;    /* burin_graph_label of that node; NULL = none */
    const char *where;    /* burin_graph_where of it; NULL = none */
    bool gradient;        /* it is a node of the backward pass */
    const char *variable; /* that its kernel reads and that is not finite either; NULL = none */
    burin_dtype dtype;    /* of the result, as it is stored */
    burin_shape shape;
    int64_t first, nans, infinities; /* index of the first such element; how many */
} burin_finding;
/* One run with every result looked at as soon as it is there: the nodes of a fused kernel one by
 * one, too. It ends at the first that is not finite, or before the first node that changes
 * parameters or their state, so these stay as they are; what the graph assigns is written. Slow:
 * each result is read back. */
bool burin_session_watch(burin_session *session, burin_finding *out);
/* Allocates the variables and an arena for the largest session so far. After it, with `sealed`, any
 * further device allocation is an error. */
bool burin_device_commit(burin_device *device, bool sealed);
/* The plan so far: all declared variables that are not absent by role, each once however many
 * views it has, and the arena that the largest session over them needs. What
 * burin_device_commit then takes. */
void burin_device_memory(const burin_device *device, burin_memory *out);

#endif
