#version 450
// SPDX-License-Identifier: MIT
// random.comp - element i is word i % 4 of Philox at counter (i / 4, use, step, 0) under key seed. A uniform number
// is the word's upper 24 bits; a normal pair is Box-Muller of a word pair, (cos, sin); an integer is scaled by the
// upper half of word * range.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "control.h"
#include "philox.glsl"
#include "trig.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN) const uint KIND = RANDOM_NORMAL;
layout(push_constant) uniform Push { uint count, use; float low; uint range; };

layout(set = 0, binding = 0, std430) readonly buffer control_words { uint control[]; };
TENSOR(1, y, DT1)

vec2 normal_pair(uint a, uint b)
{
    float u = (float(a >> 8) + 1.0) / 16777216.0;  // (0, 1]
    return sqrt(max(-2.0 * log_(u), 0.0)) * cos_sin_turn(float(b >> 8) / 16777216.0);
}

vec4 numbers(uvec4 w)
{
    if (KIND == RANDOM_NORMAL) return vec4(normal_pair(w.x, w.y), normal_pair(w.z, w.w));
    if (KIND == RANDOM_UNIFORM) return vec4(w >> 8) / 16777216.0;
    uvec4 high, unused;
    umulExtended(w, uvec4(range), high, unused);
    return low + vec4(high);
}

void main()
{
    uint k = group_number() * KERNEL_GROUP + gl_LocalInvocationIndex, i = 4 * k;
    if (i >= count) return;
    uvec2 seed = uvec2(control[CONTROL_SEED_LO], control[CONTROL_SEED_HI]);
    vec4 v = numbers(philox(uvec4(k, use, control[CONTROL_STEP], 0), seed));
    if (i + 4 <= count) {
        y_set4(k, v);
        return;
    }
    for (uint j = 0; i + j < count; j++) y_set(i + j, v[j]);
}
