// SPDX-License-Identifier: MIT
// attention.glsl - what the attention kernels share: rows of one head inside (B, N, H * D), four
// columns at a time. Include after types.glsl. D is a constant, since register arrays are sized by
// it.
layout(constant_id = KERNEL_SPEC_OWN + 1) const uint D = 40;       // columns of a head
const uint D4 = (D + 3) / 4;                     // the same in steps of four; the rest is zeros

layout(push_constant) uniform Push {
    uint heads;                                  // B * H
    uint N, M, H;                                // queries, keys, heads
    uint causal;                                 // query i sees keys j <= i
    float scale;
};

const float NEVER = -1e30;                       // the score of a masked key

// HEAD(name) gives name_row(i, d): columns 4 d .. 4 d + 3 of the head that starts at element i.
#define HEAD(name) \
    vec4 name##_row(uint i, uint d) \
    { \
        if (D % 4 == 0) return name##_at4(i / 4 + d); \
        vec4 v = vec4(name##_at(i + 4 * d), 0.0, 0.0, 0.0); \
        if (4 * d + 1 < D) v.y = name##_at(i + 4 * d + 1); \
        if (4 * d + 2 < D) v.z = name##_at(i + 4 * d + 2); \
        if (4 * d + 3 < D) v.w = name##_at(i + 4 * d + 3); \
        return v; \
    }

// HEAD_OUT(name) gives name_row_set(i, d, v), its inverse.
#define HEAD_OUT(name) \
    void name##_row_set(uint i, uint d, vec4 v) \
    { \
        if (D % 4 == 0) { name##_set4(i / 4 + d, v); return; } \
        name##_set(i + 4 * d, v.x); \
        if (4 * d + 1 < D) name##_set(i + 4 * d + 1, v.y); \
        if (4 * d + 2 < D) name##_set(i + 4 * d + 2, v.z); \
        if (4 * d + 3 < D) name##_set(i + 4 * d + 3, v.w); \
    }
