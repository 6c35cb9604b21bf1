#version 450
// SPDX-License-Identifier: MIT
// Softmax over rows (rows, C), one subgroup per row; GRADIENT: dx = y * (dy - sum of y dy).
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "vector.glsl"
#include "lanes.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN + 1) const bool GRADIENT = false;
layout(push_constant) uniform Push { uint rows, C; };

TENSOR(0, x, DT0)                                // x, or y of the forward
TENSOR(1, y, DT1)
TENSOR(2, dy, DT2)
VECTOR(x)
VECTOR(dy)
VECTOR_OUT(y)

void main()
{
    lanes_count();
    uint columns = C / WIDTH;
    for (uint row = ROWS_FIRST; row < rows; row += ROWS_NEXT) {
        uint base = row * columns;
        vec4 sum = vec4(0.0);
        if (GRADIENT) {
            for (uint c = lane; c < columns; c += lanes) sum += x_get(base + c) * dy_get(base + c);
            float total = subgroupAdd(sum4(sum));
            for (uint c = lane; c < columns; c += lanes)
                y_put(base + c, x_get(base + c) * (dy_get(base + c) - total));
            continue;
        }
        float top = x_at(row * C);
        for (uint c = lane; c < columns; c += lanes) {
            vec4 v = x_get(base + c);
            top = max(top, WIDE ? max(max(v.x, v.y), max(v.z, v.w)) : v.x);
        }
        top = subgroupMax(top);
        for (uint c = lane; c < columns; c += lanes) {
            vec4 e = exp(x_get(base + c) - top);
            sum += WIDE ? e : vec4(e.x, 0.0, 0.0, 0.0);
        }
        float scale = 1.0 / subgroupAdd(sum4(sum));
        for (uint c = lane; c < columns; c += lanes)
            y_put(base + c, exp(x_get(base + c) - top) * scale);
    }
}
