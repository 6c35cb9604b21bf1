#version 450
// SPDX-License-Identifier: MIT
// timestep.comp - (B) to (B, width): cosines, then sines, of t * max_period^(-i / half), half = width / 2 (Ho et al.,
// "Denoising diffusion probabilistic models", 2020).
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "trig.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(push_constant) uniform Push { uint count, width; float log_period; };

TENSOR(0, t, DT0)
TENSOR(1, y, DT1)

// e^x for -87 < x <= 0 to about one ulp. Vulkan lets exp err by 3 + 2 |x| ulp, and SDXL's sizes multiply that by 1024.
float exact_exp(float x)
{
    float n = round(x * 1.44269504), r = (x - n * 0.693145751953125) - n * 1.42860682e-6, s = 1.0;
    for (float k = 8.0; k > 0.5; k -= 1.0) s = 1.0 + s * r / k;
    return ldexp(s, int(n));
}

void main()
{
    uint i = group_number() * KERNEL_GROUP + gl_LocalInvocationIndex;
    if (i >= count) return;
    uint row = i / width, c = i - row * width, half_ = width / 2;
    uint k = c < half_ ? c : c - half_;
    vec2 r = cos_sin(t_at(row) * exact_exp(-log_period * float(k) / float(half_)));
    y_set(i, c < half_ ? r.x : r.y);
}
