#version 450
// SPDX-License-Identifier: MIT
// Second stage of the weight gradients: dgamma and dbeta (C) are the sums of part (slices, 2, C)
// over the slices.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "vector.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(push_constant) uniform Push { uint C, slices; };

TENSOR(0, part, DT0)
TENSOR(1, dgamma, DT1)
TENSOR(2, dbeta, DT2)
VECTOR(part)
VECTOR_OUT(dgamma)
VECTOR_OUT(dbeta)

void main()
{
    uint c = group_number() * KERNEL_GROUP + gl_LocalInvocationID.x, columns = C / WIDTH;
    if (c >= columns) return;
    vec4 a = vec4(0.0), b = vec4(0.0);
    for (uint s = 0; s < slices; s++) {
        a += part_get(2 * s * columns + c);
        b += part_get((2 * s + 1) * columns + c);
    }
    dgamma_put(c, a);
    dbeta_put(c, b);
}
