#version 450
// SPDX-License-Identifier: MIT
// timestep.comp - (B) to (B, width): cosines, then sines, of t * max_period^(-i / half), half = width / 2 (Ho et al.,
// "Denoising diffusion probabilistic models", 2020); an odd last column is 0.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "trig.glsl"

layout(local_size_x = 64) in;
layout(push_constant) uniform Push { uint count, width; float log_period; CHAIN_PUSH };

#include "chain.glsl"
TENSOR(0, t, DT0)
TENSOR(1, y, DT1)

void main()
{
    uint i = group_number() * 64 + gl_LocalInvocationIndex;
    if (i >= count) return;
    uint row = i / width, c = i - row * width, half_ = width / 2;
    float v = 0.0;
    if (c < 2 * half_) {
        uint k = c < half_ ? c : c - half_;
        vec2 r = cos_sin(t_at(row) * exp(-log_period * float(k) / float(half_)));
        v = c < half_ ? r.x : r.y;
    }
    y_set(i, chain_apply(v, i));
}
