#version 450
// SPDX-License-Identifier: MIT
// selftest.comp - y = a*scale + b, or y += step: the smallest kernel that uses bindings, specialization
// constants, push constants and 16-bit storage. For tests of the gpu layer and of drivers.
#extension GL_EXT_shader_16bit_storage : require

layout(local_size_x = 64) in;
layout(constant_id = 0) const uint MODE = 0;   // 0: y = a*scale + b; 1: y += step; 2: half(y) = a
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
    if (MODE == 0)
        y[i] = a[i] * float(SCALE) + b[i];
    else if (MODE == 1)
        y[i] += step_by;
    else
        h[i] = float16_t(a[i]);
}
