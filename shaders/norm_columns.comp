#version 450
// SPDX-License-Identifier: MIT
// First stage of a norm over rows: x (B, R, C) in slices of rows, two numbers per slice and column
// to part (B, S, 2, C).
//   forward   mean and sum of squared deviations. Sums are shifted by the slice's first value, so
//             a mean far from zero costs no accuracy (Chan, Golub and LeVeque 1983).
//   GRADIENT  sum of dy * (x - mean) * rstd and sum of dy
// One invocation per slice and WIDTH columns: neighbours read neighbours, and nothing crosses
// lanes.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "vector.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN + 1) const bool GRADIENT = false;
layout(constant_id = KERNEL_SPEC_OWN + 2) const bool BY_ROW = false;  // statistics of layer norm, not of group norm
layout(push_constant) uniform Push { uint count, R, C, slices, height, groups; };

TENSOR(0, x, DT0)
TENSOR(1, part, DT1)
TENSOR(2, dy, DT2)
TENSOR(3, stats, DT3)
VECTOR(x)
VECTOR(dy)
VECTOR_OUT(part)

void main()
{
    uint i = group_number() * KERNEL_GROUP + gl_LocalInvocationID.x, columns = C / WIDTH;
    if (i >= count) return;
    uint c = i % columns, s = i / columns % slices, b = i / columns / slices;
    uint begin = s * height, end = min(begin + height, R);
    uint at = (b * R + begin) * columns + c, to = (b * slices + s) * 2 * columns + c;

    vec4 first = vec4(0.0), second = vec4(0.0), mean = vec4(0.0), rstd = vec4(1.0);
    if (!GRADIENT) mean = x_get(at);
    if (GRADIENT && !BY_ROW)
        for (uint j = 0; j < WIDTH; j++) {
            uint g = b * groups + (c * WIDTH + j) / (C / groups);
            mean[j] = stats_at(2 * g);
            rstd[j] = stats_at(2 * g + 1);
        }
    for (uint r = begin; r < end; r++, at += columns) {
        if (GRADIENT && BY_ROW) {
            mean = vec4(stats_at(2 * (b * R + r)));
            rstd = vec4(stats_at(2 * (b * R + r) + 1));
        }
        vec4 d = x_get(at) - mean;
        if (GRADIENT) {
            vec4 g = dy_get(at);
            first += g * d * rstd;
            second += g;
        } else {
            first += d;
            second += d * d;
        }
    }
    if (!GRADIENT) {
        vec4 shift = first / float(end - begin);
        second -= first * shift;
        first = mean + shift;
    }
    part_put(to, first);
    part_put(to + columns, second);
}
