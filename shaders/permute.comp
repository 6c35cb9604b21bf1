#version 450
// SPDX-License-Identifier: MIT
// permute.comp - y[i0, i1, i2, i3] = x[sum of i_d * stride_d]: permutations, and broadcasts (stride 0).
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN) const bool WIDE = false;    // the last dim is a multiple of 4
layout(constant_id = KERNEL_SPEC_OWN + 1) const uint LAST = PERMUTE_ANY;  // stride of the last dim: 0, 1 (and vec4 aligned) or any
layout(push_constant) uniform Push { uint count, dim1, dim2, dim3, stride0, stride1, stride2, stride3; };

TENSOR(0, x, DT0)
TENSOR(1, y, DT1)

uint source(uint i)
{
    uint i2 = i / dim3, i1 = i2 / dim2, i0 = i1 / dim1;
    return i0 * stride0 + (i1 - i0 * dim1) * stride1 + (i2 - i1 * dim2) * stride2 + (i - i2 * dim3) * stride3;
}

void main()
{
    uint i = group_number() * KERNEL_GROUP + gl_LocalInvocationIndex;
    if (WIDE) i *= 4;
    if (i >= count) return;
    uint s = source(i);
    if (!WIDE) {
        y_set(i, x_at(s));
        return;
    }
    vec4 v;
    if (LAST == 0) v = vec4(x_at(s));
    else if (LAST == 1) v = x_at4(s / 4);
    else v = vec4(x_at(s), x_at(s + stride3), x_at(s + 2 * stride3), x_at(s + 3 * stride3));
    y_set4(i / 4, v);
}
