#version 450
// SPDX-License-Identifier: MIT
// x (rows, 2 C) = a | b to y (rows, C) = a * gelu(b)
// GRADIENT: dx = dy * gelu(b) | dy * a * gelu'(b)
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "vector.glsl"
#include "erf.glsl"

// The op table's formulas as functions: value_gelu(v), value_gelu_slope(v), ...
#define EW1(name, attrs, value, gradient, help) \
    float value_##name(float v, float p, float q) { return value; }
#define EW2(name, attrs, value, gradient, help)
#define OP(name, inputs, attrs, shape, emit, gradient, help)
#include "ops.def"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN + 1) const bool GRADIENT = false;
layout(push_constant) uniform Push { uint count, C; };  // count = rows * C / WIDTH

TENSOR(0, x, DT0)
TENSOR(1, y, DT1)                                // y, or dx
TENSOR(2, dy, DT2)
VECTOR(x)
VECTOR(dy)
VECTOR_OUT(y)

void main()
{
    uint i = group_number() * KERNEL_GROUP + gl_LocalInvocationID.x, columns = C / WIDTH;
    if (i >= count) return;
    uint at = i / columns * 2 * columns + i % columns;
    vec4 a = x_get(at), b = x_get(at + columns), gelu = vec4(0.0), slope = vec4(0.0);
    for (uint j = 0; j < WIDTH; j++) {
        gelu[j] = value_gelu(b[j], 0.0, 0.0);
        if (GRADIENT) slope[j] = value_gelu_slope(b[j], 0.0, 0.0);
    }
    if (GRADIENT) {
        vec4 g = dy_get(i);
        y_put(at, g * gelu);
        y_put(at + columns, g * a * slope);
    } else {
        y_put(i, a * gelu);
    }
}
