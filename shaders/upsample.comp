#version 450
// SPDX-License-Identifier: MIT
// upsample.comp - nearest-neighbour resize of x (N, height_x, width_x, C) to y (N, height_y, width_y, C), or its
// ADJOINT, which sums the pixels that came from one. Row i of the resized image is row floor(i * in / out).
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN) const bool WIDE = false;    // C is a multiple of 4
layout(constant_id = KERNEL_SPEC_OWN + 1) const bool ADJOINT = false;
layout(push_constant) uniform Push { uint count, height_x, width_x, height_y, width_y, channels; };

TENSOR(0, x, DT0)
TENSOR(1, y, DT1)

vec4 load(uint i) { return WIDE ? x_at4(i / 4) : vec4(x_at(i)); }

void main()
{
    uint i = group_number() * KERNEL_GROUP + gl_LocalInvocationIndex;
    if (WIDE) i *= 4;
    if (i >= count) return;
    uint pixel = i / channels, c = i - pixel * channels;
    uint row = pixel / width_y, w = pixel - row * width_y;
    uint n = row / height_y, h = row - n * height_y;
    vec4 v = vec4(0.0);
    if (ADJOINT) {  // the first row that came from h or a later one is ceil(h * out / in)
        uint h1 = ((h + 1) * height_x + height_y - 1) / height_y, w1 = ((w + 1) * width_x + width_y - 1) / width_y;
        uint w0 = (w * width_x + width_y - 1) / width_y;
        for (uint a = (h * height_x + height_y - 1) / height_y; a < h1; a++)
            for (uint b = w0; b < w1; b++)
                v += load(((n * height_x + a) * width_x + b) * channels + c);
    } else {
        uint a = h * height_x / height_y, b = w * width_x / width_y;
        v = load(((n * height_x + a) * width_x + b) * channels + c);
    }
    if (WIDE) y_set4(i / 4, v);
    else y_set(i, v.x);
}
