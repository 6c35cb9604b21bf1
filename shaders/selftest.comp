#version 450
// SPDX-License-Identifier: MIT
// selftest.comp - y = a*scale + b, or y += step: the smallest kernel that uses bindings, specialization
// constants, push constants and 16-bit storage. For tests of the gpu layer and of drivers.
#extension GL_EXT_shader_16bit_storage : require
#extension GL_GOOGLE_include_directive : require
#include "shader.h"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = 0) const uint MODE = SELFTEST_ADD;
layout(constant_id = 1) const uint SCALE = 1;

layout(std430, binding = 0) buffer Y { float y[]; };
layout(std430, binding = 0) buffer H { float16_t h[]; };
layout(std430, binding = 1) readonly buffer A { float a[]; };
layout(std430, binding = 2) readonly buffer B { float b[]; };
layout(push_constant) uniform Push { uint n; float step_by; };

void main()
{
    uint i = gl_GlobalInvocationID.x;
    if (i >= n)
        return;
    if (MODE == SELFTEST_ADD)
        y[i] = a[i] * float(SCALE) + b[i];
    else if (MODE == SELFTEST_STEP)
        y[i] += step_by;
    else
        h[i] = float16_t(a[i]);
}
