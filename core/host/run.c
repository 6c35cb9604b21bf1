/* SPDX-License-Identifier: MIT
 * run.c - which kernel does which work; loops on all cores; elements of other types. The threads
 * are those of OpenMP, which oneDNN computes with: two pools would wait for each other. */
#include "host/inside.h"

struct loop {
    void (*run)(void *user, int64_t begin, int64_t end);
    void *user;
    int64_t n, parts, next; /* next: counted up by all threads */
};

/* The system may give fewer threads than were asked for: whoever is free takes the next part. */
static void run_parts(void *loop)
{
    struct loop *l = loop;
    for (int64_t p; (p = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED)) < l->parts;)
        l->run(l->user, l->n * p / l->parts, l->n * (p + 1) / l->parts);
}

void host_parallel(int64_t n, int64_t least, void (*run)(void *user, int64_t begin, int64_t end),
                   void *user)
{
    struct loop l = { run, user, n, n / (least > 0 ? least : 1), 0 };
    if (l.parts > dnn_threads()) l.parts = dnn_threads();
    if (l.parts > 1) dnn_parallel((int)l.parts, run_parts, &l);
    else if (n > 0) run(user, 0, n);
}

/* ---- elements of other types ----------------------------------------------------------------- */

INLINE float from_bits(uint32_t u)
{
    union {
        uint32_t u;
        float f;
    } x = { .u = u };
    return x.f;
}

/* f16 by a multiplication that moves the exponent, which is right for subnormals too. */
VERSIONS static void load_f16(const uint16_t *from, int64_t n, float *to)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t h = from[i], a = (h & 0x7fff) << 13;
        float f = from_bits(a) * 0x1p112f;
        uint32_t special = a >= 0x0f800000 ? 0x7f800000 | a : 0;
        union {
            float f;
            uint32_t u;
        } bits = { .f = f };
        to[i] = from_bits((h & 0x8000) << 16 | (special ? special : bits.u));
    }
}

VERSIONS static void load_bf16(const uint16_t *from, int64_t n, float *to)
{
    for (int64_t i = 0; i < n; i++) to[i] = from_bits((uint32_t)from[i] << 16);
}

VERSIONS static void load_i8(const int8_t *from, int64_t n, float *to)
{
    for (int64_t i = 0; i < n; i++) to[i] = (float)from[i] / 127.0f;
}

const float *host_load(int type, const void *at, uint64_t first, int64_t n, float *room)
{
    switch (type) {
    case HOST_F32: return (const float *)at + first;
    case HOST_F16: load_f16((const uint16_t *)at + first, n, room); break;
    case HOST_BF16: load_bf16((const uint16_t *)at + first, n, room); break;
    case HOST_I8: load_i8((const int8_t *)at + first, n, room); break;
    default: panic("the host has no type %d", type);
    }
    return room;
}

static void store_f16(const float *from, int64_t n, uint16_t *to)
{
    for (int64_t i = 0; i < n; i++) to[i] = f32_to_f16(from[i]);
}

static void store_bf16(const float *from, int64_t n, uint16_t *to)
{
    for (int64_t i = 0; i < n; i++) to[i] = f32_to_bf16(from[i]);
}

void host_store(int type, void *at, uint64_t first, int64_t n, const float *from)
{
    switch (type) {
    case HOST_F32: memmove((float *)at + first, from, (size_t)n * sizeof *from); break;
    case HOST_F16: store_f16(from, n, (uint16_t *)at + first); break;
    case HOST_BF16: store_bf16(from, n, (uint16_t *)at + first); break;
    default: panic("the host writes no type %d", type);
    }
}

/* ---- products and convolutions --------------------------------------------------------------- */

struct conversion {
    int type;
    const void *from;
    float *to;
};

static void convert(void *user, int64_t begin, int64_t end)
{
    const struct conversion *c = user;
    host_load(c->type, c->from, (uint64_t)begin, end - begin, c->to + begin);
}

/* The library's result goes where it belongs, unless a chain reads what lies there or it is to be
 * stored in another type. */
static bool in_place(const struct host_work *w)
{
    bool ok = w->type[w->results] == HOST_F32;
    for (int i = 0; i < w->chain.n_inputs; i++) ok &= w->chain.read[i].row != w->count;
    return ok;
}

static uint64_t matrix_scratch(const struct host_work *w)
{
    if (host_by_taps(w)) return host_taps_scratch(w);
    uint64_t n = in_place(w) ? 0 : host_aligned(w->count);
    for (int i = 0; i < 2; i++) n += host_aligned(w->converted[i]);
    return 4 * n + dnn_scratch(w->primitive);
}

static bool host_matrix(const struct host_work *w, void *const *at)
{
    float *room = w->scratch ? at[w->scratch] : NULL;
    void *operand[4] = { at[0], at[1], at[2] };
    bool taps = host_by_taps(w);
    for (int i = taps; i < 2; i++) {
        if (!w->converted[i]) continue;
        struct conversion c = { w->type[i], at[i], room };
        host_parallel((int64_t)w->converted[i], 16384, convert, &c);
        operand[i] = room;
        room += host_aligned(w->converted[i]);
    }
    if (taps) return host_conv_by_taps(w, at, operand[1], room);
    bool direct = in_place(w);
    if (!direct) operand[2] = room;
    if (room) operand[3] = room + (direct ? 0 : host_aligned(w->count));
    if (!dnn_run(w->primitive, operand)) return false;
    if (!direct || w->chain.n_steps) host_finish_all(w, at, operand[2]);
    return true;
}

/* ---- all work -------------------------------------------------------------------------------- */

static bool host_chain(const struct host_work *w, void *const *at)
{
    host_finish_all(w, at, NULL);
    return true;
}

static const struct {
    bool (*run)(const struct host_work *w, void *const *at);
    uint64_t (*scratch)(const struct host_work *w);
} kernels[HOST_KINDS] = {
    [HOST_MATRIX] = { host_matrix, matrix_scratch },
    [HOST_CHAIN] = { host_chain, NULL },
    [HOST_ATTENTION] = { host_attention, host_attention_scratch },
    [HOST_ATTENTION_DELTA] = { host_attention_delta, NULL },
    [HOST_ATTENTION_DQ] = { host_attention_dq, host_attention_scratch },
    [HOST_ATTENTION_DKV] = { host_attention_dkv, host_attention_scratch },
    [HOST_GROUP_NORM] = { host_group_norm, host_group_norm_scratch },
    [HOST_GROUP_NORM_DX] = { host_group_norm_dx, host_group_norm_scratch },
    [HOST_LAYER_NORM] = { host_layer_norm, NULL },
    [HOST_LAYER_NORM_DX] = { host_layer_norm_dx, NULL },
    [HOST_GEGLU] = { host_gated, NULL },
    [HOST_GEGLU_GRAD] = { host_gated, NULL },
    [HOST_ADAMW] = { host_adamw, NULL },
};

uint64_t host_scratch(const struct host_work *w)
{
    return kernels[w->kind].scratch ? kernels[w->kind].scratch(w) : 0;
}

bool host_run(const struct host_work *w, void *const *at) { return kernels[w->kind].run(w, at); }
