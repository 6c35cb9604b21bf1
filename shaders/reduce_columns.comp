#version 450
// SPDX-License-Identifier: MIT
// reduce_columns.comp - x (outer, rows, inner) to y (outer, chunks, inner): chunk k sums rows k, k + chunks, ... in
// that order. One invocation per output; chunks make enough of them, and a further pass adds the chunks up.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(local_size_x = 64) in;
layout(constant_id = 8) const bool WIDE = false;    // inner is a multiple of 4
layout(push_constant) uniform Push { uint count, rows, inner, chunks; };

TENSOR(0, x, DT0)
TENSOR(1, y, DT1)

void main()
{
    uint i = group_number() * 64 + gl_LocalInvocationIndex;
    if (WIDE) i *= 4;
    if (i >= count) return;
    uint k = i / inner, o = k / chunks;
    uint at = (o * rows + k - o * chunks) * inner + i - k * inner;
    uint end = (o + 1) * rows * inner, stride = chunks * inner;
    vec4 sum = vec4(0.0);
    for (; at < end; at += stride) sum += WIDE ? x_at4(at / 4) : vec4(x_at(at));
    if (WIDE) y_set4(i / 4, sum);
    else y_set(i, sum.x);
}
