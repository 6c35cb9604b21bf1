#version 450
// SPDX-License-Identifier: MIT
// sgd.comp - gradient descent with momentum as in PyTorch: g += decay p;  m = momentum m + g;  p -= lr m.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "control.h"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN) const bool WIDE = false;    // count is a multiple of 4
layout(push_constant) uniform Push { uint count, group; float momentum, decay; };
layout(set = 0, binding = 3, std430) readonly buffer control_words { float control[]; };
layout(set = 0, binding = 4, std430) readonly buffer amp_words { float amp[]; };
TENSOR(0, p, DT0)
TENSOR(1, g, DT1)
TENSOR(2, m, DT2)
TENSOR(5, y, DT5)

void main()
{
    float factor = amp[AMP_FACTOR], lr = control[CONTROL_LR + group];
    uint n = WIDE ? count / 4 : count;
    uint i = group_number() * KERNEL_GROUP + gl_LocalInvocationIndex;
    if (i == 0) y_set(0, 0.0);  // the result is of no use, but defined
    if (factor == 0.0) return;  // a skipped step changes nothing
    if (i >= n) return;
    vec4 w = WIDE ? p_at4(i) : vec4(p_at(i)), d = factor * (WIDE ? g_at4(i) : vec4(g_at(i)));
    vec4 a = momentum * (WIDE ? m_at4(i) : vec4(m_at(i))) + d + decay * w;
    w -= lr * a;
    if (WIDE) {
        p_set4(i, w);
        m_set4(i, a);
    } else {
        p_set(i, w.x);
        m_set(i, a.x);
    }
}
