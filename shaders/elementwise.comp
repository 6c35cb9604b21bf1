#version 450
// SPDX-License-Identifier: MIT
// elementwise.comp - y = chain(x). Every elementwise row of the op table, casts and copies. Four neighbours per
// invocation when WIDE, one otherwise.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN) const bool WIDE = false;
layout(push_constant) uniform Push { uint count; CHAIN_PUSH };

#include "chain.glsl"
TENSOR(0, x, DT0)
TENSOR(1, y, DT1)

void main()
{
    uint i = group_number() * KERNEL_GROUP + gl_LocalInvocationIndex, at = WIDE ? 4 * i : i;
    if (at >= count) return;
    vec4 v = chain_apply_if(WIDE, WIDE ? x_at4(i) : vec4(x_at(i)), at);
    if (WIDE) y_set4(i, v);
    else y_set(i, v.x);
}
