#version 450
// SPDX-License-Identifier: MIT
// reduce_columns.comp - x (outer, rows, inner) to y (outer, chunks, inner): chunk k sums `length` rows from row
// k * length on, in that order. An invocation sums one column, or 4 * FOURS neighbours; chunks make enough of them,
// and a further pass adds the chunks up.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN) const uint FOURS = 0;       // inner is a multiple of 4 * FOURS
layout(push_constant) uniform Push { uint count, rows, inner, chunks, length_; };

TENSOR(0, x, DT0)
TENSOR(1, y, DT1)

void main()
{
    uint i = (group_number() * KERNEL_GROUP + gl_LocalInvocationIndex) * max(4 * FOURS, 1);
    if (i >= count) return;
    uint k = i / inner, o = k / chunks, first = (k - o * chunks) * length_;
    uint at = (o * rows + first) * inner + i - k * inner;
    uint end = (o * rows + min(first + length_, rows)) * inner;
    vec4 sum[4] = vec4[4](vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
    for (; at < end; at += inner) {
        if (FOURS == 0) sum[0].x += x_at(at);
        [[unroll]] for (uint j = 0; j < FOURS; j++) sum[j] += x_at4(at / 4 + j);
    }
    if (FOURS == 0) y_set(i, sum[0].x);
    [[unroll]] for (uint j = 0; j < FOURS; j++) y_set4(i / 4 + j, sum[j]);
}
