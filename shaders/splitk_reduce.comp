#version 450
// SPDX-License-Identifier: MIT
// splitk_reduce.comp - y = chain(sum of the parts of each product), parts in order; x holds
// (products, splits, size).
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN) const bool FOURS = false;
layout(push_constant) uniform Push { uint count, size, splits; CHAIN_PUSH };
TENSOR(0, x, DT0)
TENSOR(1, y, DT1)
#include "chain.glsl"

void main()
{
    uint step_ = FOURS ? 4 : 1, i = (group_number() * KERNEL_GROUP + gl_LocalInvocationID.x) * step_;
    if (i >= count) return;
    uint first = i / size * splits * size + i % size;
    if (FOURS) {
        vec4 sum = vec4(0.0);
        for (uint s = 0; s < splits; s++) sum += x_at4((first + s * size) / 4);
        y_set4(i / 4, chain_apply4(sum, i));
    } else {
        float sum = 0.0;
        for (uint s = 0; s < splits; s++) sum += x_at(first + s * size);
        y_set(i, chain_apply(sum, i));
    }
}
