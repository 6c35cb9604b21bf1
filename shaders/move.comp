#version 450
// SPDX-License-Identifier: MIT
// move.comp - rows of y are a window on rows of x: slice, pad and concat along one dim (a row is that dim and all
// after it). Element c of a row of y is element c + shift of the row of x; outside of that row it is 0 (pad) or an
// element of the row of z, which starts where the row of x ends (concat).
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN) const bool WIDE = false;    // all of the numbers below are multiples of 4
layout(constant_id = KERNEL_SPEC_OWN + 1) const bool CONCAT = false;
layout(push_constant) uniform Push { uint count, row_y, row_x, row_z; int shift; };

TENSOR(0, x, DT0)
TENSOR(1, y, DT1)
TENSOR(2, z, DT2)

void main()
{
    uint i = group_number() * KERNEL_GROUP + gl_LocalInvocationIndex;
    if (WIDE) i *= 4;
    if (i >= count) return;
    uint row = i / row_y;
    uint c = i - row * row_y + uint(shift);  // wraps to a huge number before the row's begin
    bool inside = c < row_x;
    if (WIDE) {
        vec4 v = vec4(0.0);
        if (inside) v = x_at4((row * row_x + c) / 4);
        else if (CONCAT) v = z_at4((row * row_z + c - row_x) / 4);
        y_set4(i / 4, v);
    } else {
        float v = 0.0;
        if (inside) v = x_at(row * row_x + c);
        else if (CONCAT) v = z_at(row * row_z + c - row_x);
        y_set(i, v);
    }
}
