#version 450
// SPDX-License-Identifier: MIT
// grad_factor.comp - one invocation per step: from the sum of all squared gradients to the factor that clips and
// unscales them, and the dynamic loss scale (Micikevicius et al., "Mixed precision training", 2018): a non-finite
// gradient or loss skips the step and halves the scale, a run of good steps doubles it.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "control.h"

layout(local_size_x = 1) in;
layout(push_constant) uniform Push { float max_norm; };
layout(set = 0, binding = 1, std430) buffer amp_words { float amp[]; };
TENSOR(0, total, DT0)
TENSOR(2, loss, DT2)
TENSOR(3, y, DT3)

// By bits: a compiler may assume that isnan and isinf are false.
bool is_finite(float x) { return (floatBitsToUint(x) & 0x7f800000u) != 0x7f800000u; }

void main()
{
    float scale = amp[AMP_SCALE], norm = sqrt(total_at(0)) / scale, factor = 0.0;
    amp[AMP_NORM] = norm;
    if (is_finite(total_at(0)) && is_finite(loss_at(0))) {
        factor = (max_norm > 0.0 ? min(1.0, max_norm / (norm + 1e-6)) : 1.0) / scale;
        float good = amp[AMP_GOOD] + 1.0;
        bool grow = amp[AMP_GROWTH] > 0.0 && good >= amp[AMP_GROWTH];
        amp[AMP_STEP] += 1.0;
        amp[AMP_GOOD] = grow ? 0.0 : good;
        if (grow) amp[AMP_SCALE] = 2.0 * scale;
    } else {
        amp[AMP_SKIPPED] += 1.0;
        amp[AMP_GOOD] = 0.0;
        if (amp[AMP_GROWTH] > 0.0) amp[AMP_SCALE] = max(0.5 * scale, 1.0);
    }
    amp[AMP_FACTOR] = factor;
    y_set(0, factor);
}
