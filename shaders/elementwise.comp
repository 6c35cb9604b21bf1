#version 450
// SPDX-License-Identifier: MIT
// elementwise.comp - y = chain(x). Every elementwise row of the op table, casts and copies. Four consecutive elements
// per invocation and round when WIDE (all row lengths are multiples of 4), one otherwise.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(local_size_x = 64) in;
layout(constant_id = 8) const bool WIDE = false;
layout(constant_id = 9) const uint ROUNDS = 1;  // how often each invocation does it
layout(push_constant) uniform Push { uint count; CHAIN_PUSH };

#include "chain.glsl"
TENSOR(0, x, DT0)
TENSOR(1, y, DT1)

void main()
{
    uint n = WIDE ? count / 4 : count;
    uint i = group_number() * 64 * ROUNDS + gl_LocalInvocationIndex;
    for (uint k = 0; k < ROUNDS; k++, i += 64) {
        if (i >= n) return;
        if (WIDE) y_set4(i, chain_apply4(x_at4(i), 4 * i));
        else y_set(i, chain_apply(x_at(i), i));
    }
}
