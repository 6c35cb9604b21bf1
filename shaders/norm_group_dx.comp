#version 450
// SPDX-License-Identifier: MIT
// Last stage of group norm's input gradient, xhat = (x - mean) * rstd, means over the group:
//   dx = rstd * (gamma * dy - mean of gamma dy - xhat * mean of gamma dy xhat)
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "vector.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(push_constant) uniform Push { uint count, R, C, slices, height, groups; };

TENSOR(0, x, DT0)
TENSOR(1, gamma, DT1)
TENSOR(2, dy, DT2)
TENSOR(3, stats, DT3)
TENSOR(4, means, DT4)
TENSOR(5, dx, DT5)
VECTOR(x)
VECTOR(gamma)
VECTOR(dy)
VECTOR_OUT(dx)

void main()
{
    uint i = group_number() * KERNEL_GROUP + gl_LocalInvocationID.x, columns = C / WIDTH;
    if (i >= count) return;
    uint c = i % columns, s = i / columns % slices, b = i / columns / slices;
    vec4 mean = vec4(0.0), rstd = vec4(0.0), along = vec4(0.0), level = vec4(0.0);
    vec4 slope = gamma_get(c);
    for (uint j = 0; j < WIDTH; j++) {
        uint g = 2 * (b * groups + (c * WIDTH + j) / (C / groups));
        mean[j] = stats_at(g);
        rstd[j] = stats_at(g + 1);
        along[j] = means_at(g);
        level[j] = means_at(g + 1);
    }
    uint begin = s * height, end = min(begin + height, R);
    for (uint r = begin; r < end; r++) {
        uint at = (b * R + r) * columns + c;
        vec4 xhat = (x_get(at) - mean) * rstd;
        dx_put(at, rstd * (slope * dy_get(at) - level - xhat * along));
    }
}
