#version 450
// SPDX-License-Identifier: MIT
// Last stage of group norm: y = chain((x - mean) * rstd * gamma + beta). One invocation takes WIDTH
// columns of a slice of rows, so what depends on the column alone is read once.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "vector.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(push_constant) uniform Push { uint count, R, C, slices, height, groups; CHAIN_PUSH };

#include "chain.glsl"
TENSOR(0, x, DT0)
TENSOR(1, gamma, DT1)
TENSOR(2, beta, DT2)
TENSOR(3, y, DT3)
TENSOR(4, stats, DT4)
VECTOR(x)
VECTOR(gamma)
VECTOR(beta)
VECTOR_OUT(y)

void main()
{
    uint i = group_number() * KERNEL_GROUP + gl_LocalInvocationID.x, columns = C / WIDTH;
    if (i >= count) return;
    uint c = i % columns, s = i / columns % slices, b = i / columns / slices;
    vec4 mean = vec4(0.0), slope = gamma_get(c), offset = beta_get(c);
    for (uint j = 0; j < WIDTH; j++) {
        uint g = b * groups + (c * WIDTH + j) / (C / groups);
        mean[j] = stats_at(2 * g);
        slope[j] *= stats_at(2 * g + 1);
    }
    uint begin = s * height, end = min(begin + height, R);
    for (uint r = begin; r < end; r++) {
        uint at = (b * R + r) * columns + c;
        vec4 v = (x_get(at) - mean) * slope + offset;
        y_put(at, chain_apply_if(WIDE, v, WIDTH * at));
    }
}
