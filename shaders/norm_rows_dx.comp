#version 450
// SPDX-License-Identifier: MIT
// Input gradient of layer norm, one subgroup per row, xhat = (x - mean) * rstd:
//   dx = rstd * (gamma * dy - mean of gamma dy - xhat * mean of gamma dy xhat)
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "vector.glsl"
#include "lanes.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(push_constant) uniform Push { uint rows, C; };

TENSOR(0, x, DT0)
TENSOR(1, gamma, DT1)
TENSOR(2, dy, DT2)
TENSOR(3, stats, DT3)
TENSOR(4, dx, DT4)
VECTOR(x)
VECTOR(gamma)
VECTOR(dy)
VECTOR_OUT(dx)

void main()
{
    lanes_count();
    uint columns = C / WIDTH;
    for (uint row = ROWS_FIRST; row < rows; row += ROWS_NEXT) {
        uint base = row * columns;
        float mean = stats_at(2 * row), rstd = stats_at(2 * row + 1);
        vec4 level = vec4(0.0), along = vec4(0.0);
        for (uint c = lane; c < columns; c += lanes) {
            vec4 g = gamma_get(c) * dy_get(base + c);
            level += g;
            along += g * (x_get(base + c) - mean);
        }
        float a = subgroupAdd(sum4(level)) / float(C);
        float b = subgroupAdd(sum4(along)) * rstd * rstd / float(C);
        for (uint c = lane; c < columns; c += lanes) {
            vec4 g = gamma_get(c) * dy_get(base + c);
            dx_put(base + c, rstd * (g - a - (x_get(base + c) - mean) * b));
        }
    }
}
