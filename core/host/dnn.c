/* SPDX-License-Identifier: MIT
 * dnn.c - see dnn.h. Versions 2 and 3 of the library differ in how primitives are described. */
#include "host/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef BURIN_DNNL

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>

/* clang-format off */
#define SYMBOLS(X) \
    X(version) X(get_effective_cpu_isa) X(engine_create) X(engine_destroy) X(stream_create) \
    X(stream_destroy) X(stream_wait) X(primitive_create) X(primitive_destroy) \
    X(primitive_desc_destroy) X(primitive_desc_query) X(primitive_execute) X(memory_create) \
    X(memory_destroy) X(memory_set_data_handle) X(sgemm) X(primitive_desc_query_md) \
    X(memory_desc_get_size) X(primitive_attr_create) X(primitive_attr_destroy) \
    X(primitive_attr_set_scratchpad_mode) VERSIONED(X)
#if DNNL_VERSION_MAJOR == 2
#define VERSIONED(X) \
    X(primitive_desc_create) X(memory_desc_init_by_strides) X(matmul_desc_init) \
    X(convolution_forward_desc_init) X(convolution_backward_data_desc_init) \
    X(convolution_backward_weights_desc_init)
#else
#define VERSIONED(X) \
    X(memory_desc_create_with_strides) X(memory_desc_destroy) X(matmul_primitive_desc_create) \
    X(convolution_forward_primitive_desc_create) \
    X(convolution_backward_data_primitive_desc_create) \
    X(convolution_backward_weights_primitive_desc_create)
#endif
/* clang-format on */

static struct {
#define FIELD(name) __typeof__(dnnl_##name) *name;
    SYMBOLS(FIELD)
#undef FIELD
    /* of the OpenMP runtime that it brings, GCC's: what compiled parallel regions call */
    void (*parallel)(void (*run)(void *user), void *user, unsigned threads, unsigned flags);
    int (*threads)(void), (*thread)(void);
    void (*set_threads)(int), (*set_dynamic)(int);
} lib;

static bool load_symbols(void)
{
    static void *library;
    if (library) return true;
    /* Threads that find nothing to do turn around some hundred thousand times before they sleep,
     * which is half of the processor on a machine with other work; a thousand loses nothing on
     * an idle one. */
    setenv("GOMP_SPINCOUNT", "1000", 0);
    library = dlopen(BURIN_DNNL, RTLD_NOW | RTLD_LOCAL);
    if (!library) return fail("oneDNN cannot be opened: %s", dlerror());
    const struct {
        const char *name;
        void **at;
    } symbols[] = {
#define ENTRY(name) { "dnnl_" #name, (void **)&lib.name },
        SYMBOLS(ENTRY)
#undef ENTRY
            { "GOMP_parallel", (void **)&lib.parallel },
        { "omp_get_max_threads", (void **)&lib.threads },
        { "omp_get_thread_num", (void **)&lib.thread },
        { "omp_set_num_threads", (void **)&lib.set_threads },
        { "omp_set_dynamic", (void **)&lib.set_dynamic },
    };
    for (int i = 0; i < COUNT_OF(symbols); i++) {
        *symbols[i].at = dlsym(library, symbols[i].name);
        if (*symbols[i].at) continue;
        dlclose(library);
        library = NULL;
        return fail("oneDNN lacks %s", symbols[i].name);
    }
    return true;
}

static bool load_library(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    bool ok = load_symbols();
    pthread_mutex_unlock(&lock);
    return ok;
}

#define TENSORS 3

struct dnn_primitive {
    struct dnn *dnn;
    struct dnn_work work;
    dnnl_primitive_t handle;               /* NULL: nothing fast */
    dnnl_exec_arg_t argument[TENSORS + 1]; /* the last one: scratch */
    uint64_t scratch;                      /* bytes */
    bool gathers;
};

struct dnn {
    dnnl_engine_t engine;
    dnnl_primitive_attr_t attributes; /* scratch is ours */
    dnnl_stream_t stream;
    struct dnn_primitive **made; /* each stays where it is: programs point at it */
    int n_made, capacity;
    char identity[128];
};

static bool check(dnnl_status_t s, const char *doing)
{
    return s == dnnl_success || fail("oneDNN: cannot %s (status %d)", doing, (int)s);
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* What the library calls source, weights and destination, whichever of them is the result. */
enum { SOURCE, WEIGHTS, TARGET };

struct view { /* sizes in the library's order; strides are those of row order */
    int rank;
    dnnl_dims_t size, stride;
};

static void product_views(const struct dnn_work *w, struct view *v)
{
    int64_t m = w->m, n = w->n, k = w->k, batch = w->batch;
    v[SOURCE] = (struct view){ 3, { batch, m, k }, { m * k, w->ta ? 1 : k, w->ta ? m : 1 } };
    v[WEIGHTS] = (struct view){ 3,
                                { w->b_shared ? 1 : batch, k, n },
                                { k * n, w->tb ? 1 : n, w->tb ? k : 1 } };
    v[TARGET] = (struct view){ 3, { batch, m, n }, { m * n, n, 1 } };
}

/* (N, H, W, C), named (N, C, H, W). */
static struct view pixels(int64_t n, int64_t h, int64_t w, int64_t c)
{
    return (struct view){ 4, { n, c, h, w }, { h * w * c, 1, w * c, c } };
}

static void conv_views(const struct dnn_work *w, struct view *v)
{
    int64_t c = w->c, o = w->o;
    v[SOURCE] = pixels(w->images, w->h, w->w, c);
    v[WEIGHTS] =
        (struct view){ 4, { o, c, w->kh, w->kw }, { 1, o, (int64_t)w->kw * c * o, c * o } };
    v[TARGET] = pixels(w->images, w->oh, w->ow, o);
}

/* ---- what differs between versions ----------------------------------------------------------- */

#if DNNL_VERSION_MAJOR == 2

static bool describe(dnnl_memory_desc_t *d, const struct view *v)
{
    return check(lib.memory_desc_init_by_strides(d, v->rank, v->size, dnnl_f32, v->stride),
                 "describe memory");
}
static void forget(dnnl_memory_desc_t *d) { (void)d; }
static const dnnl_memory_desc_t *pass(const dnnl_memory_desc_t *d) { return d; }

static bool make(struct dnn *d, const void *op, dnnl_primitive_desc_t hint,
                 dnnl_primitive_desc_t *out)
{
    return check(lib.primitive_desc_create(out, op, d->attributes, d->engine, hint),
                 "make a primitive");
}

static bool describe_product(struct dnn *d, dnnl_memory_desc_t *m, dnnl_primitive_desc_t *out)
{
    dnnl_matmul_desc_t op;
    return check(lib.matmul_desc_init(&op, &m[SOURCE], &m[WEIGHTS], NULL, &m[TARGET]),
                 "describe a product") &&
           make(d, &op, NULL, out);
}

static bool describe_conv(struct dnn *d, enum dnn_kind kind, dnnl_memory_desc_t *m,
                          const dnnl_dims_t stride, const dnnl_dims_t before,
                          const dnnl_dims_t behind, dnnl_primitive_desc_t hint,
                          dnnl_primitive_desc_t *out)
{
    dnnl_convolution_desc_t op;
    dnnl_status_t s =
        kind == DNN_CONV
            ? lib.convolution_forward_desc_init(&op, dnnl_forward_training, dnnl_convolution_direct,
                                                &m[SOURCE], &m[WEIGHTS], NULL, &m[TARGET], stride,
                                                before, behind)
        : kind == DNN_CONV_DX
            ? lib.convolution_backward_data_desc_init(&op, dnnl_convolution_direct, &m[SOURCE],
                                                      &m[WEIGHTS], &m[TARGET], stride, before,
                                                      behind)
            : lib.convolution_backward_weights_desc_init(&op, dnnl_convolution_direct, &m[SOURCE],
                                                         &m[WEIGHTS], NULL, &m[TARGET], stride,
                                                         before, behind);
    return check(s, "describe a convolution") && make(d, &op, hint, out);
}

#else

static bool describe(dnnl_memory_desc_t *d, const struct view *v)
{
    return check(lib.memory_desc_create_with_strides(d, v->rank, v->size, dnnl_f32, v->stride),
                 "describe memory");
}
static void forget(dnnl_memory_desc_t *d)
{
    if (*d) lib.memory_desc_destroy(*d);
}
static dnnl_memory_desc_t pass(const dnnl_memory_desc_t *d) { return *d; }

static bool describe_product(struct dnn *d, dnnl_memory_desc_t *m, dnnl_primitive_desc_t *out)
{
    return check(lib.matmul_primitive_desc_create(out, d->engine, m[SOURCE], m[WEIGHTS], NULL,
                                                  m[TARGET], d->attributes),
                 "make a product");
}

static bool describe_conv(struct dnn *d, enum dnn_kind kind, dnnl_memory_desc_t *m,
                          const dnnl_dims_t stride, const dnnl_dims_t before,
                          const dnnl_dims_t behind, dnnl_primitive_desc_t hint,
                          dnnl_primitive_desc_t *out)
{
    const dnnl_dims_t dense = { 0 };
    dnnl_status_t s =
        kind == DNN_CONV
            ? lib.convolution_forward_primitive_desc_create(
                  out, d->engine, dnnl_forward_training, dnnl_convolution_direct, m[SOURCE],
                  m[WEIGHTS], NULL, m[TARGET], stride, dense, before, behind, d->attributes)
        : kind == DNN_CONV_DX
            ? lib.convolution_backward_data_primitive_desc_create(
                  out, d->engine, dnnl_convolution_direct, m[SOURCE], m[WEIGHTS], m[TARGET], stride,
                  dense, before, behind, hint, d->attributes)
            : lib.convolution_backward_weights_primitive_desc_create(
                  out, d->engine, dnnl_convolution_direct, m[SOURCE], m[WEIGHTS], NULL, m[TARGET],
                  stride, dense, before, behind, hint, d->attributes);
    return check(s, "make a convolution");
}

#endif

/* ---- primitives ------------------------------------------------------------------------------ */

static void destroy(struct dnn_primitive *p)
{
    for (int i = 0; i <= TENSORS; i++)
        if (p->argument[i].memory) lib.memory_destroy(p->argument[i].memory);
    if (p->handle) lib.primitive_destroy(p->handle);
    mem_free(p);
}

static bool is_fast(struct dnn_primitive *p, dnnl_primitive_desc_t desc)
{
    const char *name = "";
    if (!check(lib.primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name), "ask its name"))
        return false;
    p->gathers = p->work.kind != DNN_PRODUCT && strstr(name, "gemm:") != NULL;
    return !strstr(name, "ref") || fail("oneDNN has nothing but '%s' for this", name);
}

/* Gradients are described with the help of their convolution. */
static bool describe_convs(struct dnn *d, const struct dnn_work *w, dnnl_memory_desc_t *m,
                           dnnl_primitive_desc_t *out)
{
    int64_t rows = (int64_t)(w->oh - 1) * w->stride + w->kh - w->h - w->top;
    int64_t columns = (int64_t)(w->ow - 1) * w->stride + w->kw - w->w - w->left;
    const dnnl_dims_t stride = { w->stride, w->stride }, before = { w->top, w->left },
                      behind = { rows, columns };
    if (w->kind == DNN_CONV) return describe_conv(d, w->kind, m, stride, before, behind, NULL, out);
    dnnl_primitive_desc_t hint = NULL;
    bool ok = describe_conv(d, DNN_CONV, m, stride, before, behind, NULL, &hint) &&
              describe_conv(d, w->kind, m, stride, before, behind, hint, out);
    if (hint) lib.primitive_desc_destroy(hint);
    return ok;
}

/* Which tensor each operand is, and how the library calls it: the result comes last. */
static const struct {
    int tensor, name;
} operands[][TENSORS] = {
    [DNN_PRODUCT] = { { SOURCE, DNNL_ARG_SRC },
                      { WEIGHTS, DNNL_ARG_WEIGHTS },
                      { TARGET, DNNL_ARG_DST } },
    [DNN_CONV] = { { SOURCE, DNNL_ARG_SRC },
                   { WEIGHTS, DNNL_ARG_WEIGHTS },
                   { TARGET, DNNL_ARG_DST } },
    [DNN_CONV_DX] = { { TARGET, DNNL_ARG_DIFF_DST },
                      { WEIGHTS, DNNL_ARG_WEIGHTS },
                      { SOURCE, DNNL_ARG_DIFF_SRC } },
    [DNN_CONV_DW] = { { SOURCE, DNNL_ARG_SRC },
                      { TARGET, DNNL_ARG_DIFF_DST },
                      { WEIGHTS, DNNL_ARG_DIFF_WEIGHTS } },
};

static bool describe_scratch(struct dnn_primitive *p, dnnl_primitive_desc_t desc)
{
    __typeof__(lib.primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0)) m =
        lib.primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    p->scratch = m ? lib.memory_desc_get_size(m) : 0;
    p->argument[TENSORS].arg = DNNL_ARG_SCRATCHPAD;
    return !p->scratch || check(lib.memory_create(&p->argument[TENSORS].memory, m, p->dnn->engine,
                                                  DNNL_MEMORY_NONE),
                                "describe scratch");
}

static bool build(struct dnn_primitive *p)
{
    struct dnn *d = p->dnn;
    const struct dnn_work *w = &p->work;
    bool product = w->kind == DNN_PRODUCT, ok = true;
    struct view view[TENSORS];
    dnnl_memory_desc_t m[TENSORS];
    dnnl_primitive_desc_t desc = NULL;
    memset(m, 0, sizeof m);
    if (product) product_views(w, view);
    else conv_views(w, view);
    for (int i = 0; ok && i < TENSORS; i++) ok = describe(&m[i], &view[i]);
    for (int i = 0; ok && i < TENSORS; i++) {
        dnnl_exec_arg_t *a = &p->argument[i];
        a->arg = operands[w->kind][i].name;
        ok = check(lib.memory_create(&a->memory, pass(&m[operands[w->kind][i].tensor]), d->engine,
                                     DNNL_MEMORY_NONE),
                   "describe memory");
    }
    ok = ok && (product ? describe_product(d, m, &desc) : describe_convs(d, w, m, &desc)) &&
         is_fast(p, desc) && describe_scratch(p, desc) &&
         check(lib.primitive_create(&p->handle, desc), "make a primitive");
    if (desc) lib.primitive_desc_destroy(desc);
    for (int i = 0; i < TENSORS; i++) forget(&m[i]);
    return ok;
}

struct dnn_primitive *dnn_get(struct dnn *d, const struct dnn_work *work)
{
    for (int i = 0; i < d->n_made; i++)
        if (memcmp(&d->made[i]->work, work, sizeof *work) == 0)
            return d->made[i]->handle ? d->made[i] : NULL;
    struct dnn_primitive *p = mem_alloc(sizeof *p);
    p->dnn = d;
    p->work = *work;
    d->made = array_reserve(d->made, d->n_made, &d->capacity, sizeof *d->made);
    d->made[d->n_made++] = p;
    return build(p) ? p : NULL;
}

bool dnn_gathers(const struct dnn_primitive *p) { return p->gathers; }

uint64_t dnn_scratch(const struct dnn_primitive *p) { return p->scratch; }

bool dnn_run(struct dnn_primitive *p, void *const *at)
{
    int n = p->scratch ? TENSORS + 1 : TENSORS;
    for (int i = 0; i < n; i++)
        if (!check(lib.memory_set_data_handle(p->argument[i].memory, at[i]), "see memory"))
            return false;
    return check(lib.primitive_execute(p->handle, p->dnn->stream, n, p->argument), "compute") &&
           check(lib.stream_wait(p->dnn->stream), "compute");
}

bool dnn_product(int64_t m, int64_t n, int64_t k, float scale, struct dnn_matrix a,
                 struct dnn_matrix b, float keep, float *c, int64_t c_row)
{
    return check(lib.sgemm(a.across ? 'T' : 'N', b.across ? 'T' : 'N', m, n, k, scale, a.at, a.row,
                           b.at, b.row, keep, c, c_row),
                 "multiply");
}

/* ---- the library ----------------------------------------------------------------------------- */

static const char *isa_name(dnnl_cpu_isa_t isa)
{
    switch (isa) {
    case dnnl_cpu_isa_sse41: return "SSE4.1";
    case dnnl_cpu_isa_avx: return "AVX";
    case dnnl_cpu_isa_avx2: return "AVX2";
    case dnnl_cpu_isa_avx512_core: return "AVX-512";
    case dnnl_cpu_isa_avx512_core_vnni: return "AVX-512 VNNI";
    case dnnl_cpu_isa_avx512_core_bf16: return "AVX-512 bf16";
    case dnnl_cpu_isa_avx512_core_amx: return "AMX";
    default: return "another instruction set";
    }
}

int dnn_threads(void) { return lib.threads(); }
int dnn_thread(void) { return lib.thread(); }
void dnn_parallel(int threads, void (*run)(void *user), void *user)
{
    lib.parallel(run, user, (unsigned)threads, 0);
}

static void count_thread(void *threads) { __atomic_fetch_add((int *)threads, 1, __ATOMIC_RELAXED); }

/* The library leaves work out where a region gets fewer threads than it counts on, as under
 * OMP_THREAD_LIMIT: it is to count on what there is. */
static void settle_threads(void)
{
    int given = 0;
    lib.set_dynamic(0);
    dnn_parallel(dnn_threads(), count_thread, &given);
    lib.set_threads(given);
}

struct dnn *dnn_open(void)
{
    if (!load_library()) return NULL;
    settle_threads();
    struct dnn *d = mem_alloc(sizeof *d);
    bool ok =
        check(lib.engine_create(&d->engine, dnnl_cpu, 0), "start") &&
        check(lib.primitive_attr_create(&d->attributes), "start") &&
        check(lib.primitive_attr_set_scratchpad_mode(d->attributes, dnnl_scratchpad_mode_user),
              "start") &&
        check(lib.stream_create(&d->stream, d->engine, dnnl_stream_default_flags), "start");
    const dnnl_version_t *v = lib.version();
    snprintf(d->identity, sizeof d->identity, "oneDNN %d.%d.%d, %s, %d threads", v->major, v->minor,
             v->patch, isa_name(lib.get_effective_cpu_isa()), dnn_threads());
    if (ok) return d;
    dnn_close(d);
    return NULL;
}

void dnn_close(struct dnn *d)
{
    if (!d) return;
    for (int i = 0; i < d->n_made; i++) destroy(d->made[i]);
    if (d->attributes) lib.primitive_attr_destroy(d->attributes);
    if (d->stream) lib.stream_destroy(d->stream);
    if (d->engine) lib.engine_destroy(d->engine);
    mem_free(d->made);
    mem_free(d);
}

const char *dnn_identity(const struct dnn *d) { return d->identity; }

#else

int dnn_threads(void) { return 1; }
int dnn_thread(void) { return 0; }
void dnn_parallel(int threads, void (*run)(void *user), void *user) { (void)threads, run(user); }

struct dnn *dnn_open(void)
{
    fail("this program was built without oneDNN");
    return NULL;
}
void dnn_close(struct dnn *d) { (void)d; }
const char *dnn_identity(const struct dnn *d) { return (void)d, ""; }
struct dnn_primitive *dnn_get(struct dnn *d, const struct dnn_work *work)
{
    (void)d, (void)work;
    return NULL;
}
bool dnn_gathers(const struct dnn_primitive *p) { return (void)p, false; }
uint64_t dnn_scratch(const struct dnn_primitive *p) { return (void)p, 0; }
bool dnn_run(struct dnn_primitive *p, void *const *at) { return (void)p, (void)at, false; }
bool dnn_product(int64_t m, int64_t n, int64_t k, float scale, struct dnn_matrix a,
                 struct dnn_matrix b, float keep, float *c, int64_t c_row)
{
    (void)m, (void)n, (void)k, (void)scale, (void)a, (void)b, (void)keep, (void)c, (void)c_row;
    return false;
}

#endif
