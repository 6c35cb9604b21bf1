#version 450
// SPDX-License-Identifier: MIT
// Second stage of group norm: one subgroup per batch item and group merges part (B, S, 2, C) of
// norm_columns.
//   forward   to (mean, 1 / sqrt(variance + eps)), by sums of squares about the common mean
//   GRADIENT  to (mean of gamma dy xhat, mean of gamma dy)
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "lanes.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN + 1) const bool GRADIENT = false;
layout(push_constant) uniform Push { uint rows, R, C, slices, height, groups; float eps; };

TENSOR(0, part, DT0)
TENSOR(1, stats, DT1)
TENSOR(2, gamma, DT2)

void main()
{
    lanes_count();
    uint width = C / groups;
    for (uint row = ROWS_FIRST; row < rows; row += ROWS_NEXT) {
        uint c0 = row % groups * width, base = row / groups * slices * 2 * C + c0;
        float n = float(R) * float(width), shift = GRADIENT ? 0.0 : part_at(base), a = 0.0, b = 0.0;
        for (uint i = lane; i < slices * width; i += lanes) {
            uint s = i / width, at = base + s * 2 * C + i % width;
            if (GRADIENT) {
                float g = gamma_at(c0 + i % width);
                a += g * part_at(at);
                b += g * part_at(at + C);
            } else {
                a += float(min(height, R - s * height)) * (part_at(at) - shift);
            }
        }
        a = subgroupAdd(a) / n;
        if (!GRADIENT) {
            for (uint i = lane; i < slices * width; i += lanes) {
                uint s = i / width, at = base + s * 2 * C + i % width;
                float d = part_at(at) - shift - a;
                b += part_at(at + C) + float(min(height, R - s * height)) * d * d;
            }
        }
        b = subgroupAdd(b) / n;
        if (lane == 0) {
            stats_set(2 * row, GRADIENT ? a : shift + a);
            stats_set(2 * row + 1, GRADIENT ? b : inversesqrt(b + eps));
        }
    }
}
