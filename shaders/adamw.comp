#version 450
// SPDX-License-Identifier: MIT
// adamw.comp - Loshchilov & Hutter, "Decoupled weight decay regularization" (2019), in PyTorch's order of operations:
//   p *= 1 - lr decay;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
//   p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "control.h"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN) const bool WIDE = false;    // count is a multiple of 4
layout(push_constant) uniform Push {
    uint count, group;
    float beta1, rest1, log1, beta2, rest2, log2_, eps, decay;  // rest = 1 - beta, log = ln beta, exact on the host
};
layout(set = 0, binding = 4, std430) readonly buffer control_words { float control[]; };
layout(set = 0, binding = 5, std430) readonly buffer amp_words { float amp[]; };
TENSOR(0, p, DT0)
TENSOR(1, g, DT1)
TENSOR(2, m, DT2)
TENSOR(3, v, DT3)
TENSOR(6, y, DT6)

float one_minus_exp(float x)  // 1 - e^x for x <= 0, without cancellation near 0
{
    if (x < -0.5) return 1.0 - exp(x);
    float s = 1.0;
    for (float k = 9.0; k > 1.5; k -= 1.0) s = 1.0 + s * x / k;
    return -x * s;
}

void main()
{
    float factor = amp[AMP_FACTOR], lr = control[CONTROL_LR + group], t = amp[AMP_STEP];
    uint n = WIDE ? count / 4 : count;
    uint i = group_number() * KERNEL_GROUP + gl_LocalInvocationIndex;
    if (i == 0) y_set(0, 0.0);  // the result is of no use, but defined
    if (factor == 0.0) return;  // a skipped step changes nothing
    float rate = lr / one_minus_exp(t * log1), root = 1.0 / sqrt(one_minus_exp(t * log2_));
    if (i >= n) return;
    vec4 w = WIDE ? p_at4(i) : vec4(p_at(i)), d = factor * (WIDE ? g_at4(i) : vec4(g_at(i)));
    vec4 a = beta1 * (WIDE ? m_at4(i) : vec4(m_at(i))) + rest1 * d;
    vec4 b = beta2 * (WIDE ? v_at4(i) : vec4(v_at(i))) + rest2 * d * d;
    w = w * (1.0 - lr * decay) - rate * a / (sqrt(b) * root + eps);
    if (WIDE) {
        p_set4(i, w);
        m_set4(i, a);
        v_set4(i, b);
    } else {
        p_set(i, w.x);
        m_set(i, a.x);
        v_set(i, b.x);
    }
}
