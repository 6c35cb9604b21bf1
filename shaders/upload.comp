#version 450
// SPDX-License-Identifier: MIT
// upload.comp - a file's weight (outputs, inputs, taps) becomes the device's (taps, inputs, outputs), in another type, or
// in 8 bits: each output's weights over the largest of them, the scale. x holds `rows` outputs from `first` on.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN) const uint MODE = UPLOAD_MOVE;
layout(constant_id = KERNEL_SPEC_OWN + 1) const bool WIDE = false;    // columns and outputs are multiples of 4
layout(push_constant) uniform Push { uint rows, first, columns, inputs, taps, outputs; };

TENSOR(0, x, DT0)
TENSOR(1, y, DT1)
TENSOR(2, scale, DT2)

void measure(uint row)
{
    vec4 largest = vec4(0.0);
    for (uint c = 0; c < columns; c += 4) largest = max(largest, abs(x_at4((row * columns + c) / 4)));
    scale_set(first + row, max(max(largest.x, largest.y), max(largest.z, largest.w)));
}

// Where output `row` of column c = input * taps + tap goes.
uint target(uint row, uint c) { return (c % taps * inputs + c / taps) * outputs + first + row; }

const bool SAME = DT0 == DT1 && DT0 != F32;  // 16 bits stay as they are

// Four neighbours of four rows. A group takes a square tile: whole cache lines on both sides.
void transpose(uint row, uint c)
{
    if (SAME) {
        uvec2 u[4];
        [[unroll]] for (uint r = 0; r < 4; r++) u[r] = x_u16x4[((row + r) * columns + c) / 4];
        [[unroll]] for (uint k = 0; k < 4; k++) {
            uint h[4];
            [[unroll]] for (uint r = 0; r < 4; r++) h[r] = (u[r][k / 2] >> (k % 2 * 16)) & 0xffffu;
            y_u16x4[target(row, c + k) / 4] = uvec2(h[0] | h[1] << 16, h[2] | h[3] << 16);
        }
        return;
    }
    vec4 v[4];
    [[unroll]] for (uint r = 0; r < 4; r++) {
        v[r] = x_at4(((row + r) * columns + c) / 4);
        if (MODE == UPLOAD_QUANTISE) v[r] /= max(scale_at(first + row + r), 1e-30);
    }
    [[unroll]] for (uint k = 0; k < 4; k++)
        y_set4(target(row, c + k) / 4, vec4(v[0][k], v[1][k], v[2][k], v[3][k]));
}

void main()
{
    uint group = group_number(), lane = gl_LocalInvocationIndex, i = group * KERNEL_GROUP + lane;
    if (MODE == UPLOAD_MEASURE) {
        if (i < rows) measure(i);
    } else if (!WIDE) {
        if (i < rows * columns) y_set(target(i / columns, i % columns), x_at(i));
    } else {
        uint tiles = (rows + (UPLOAD_TILE - 1)) / UPLOAD_TILE;
        uint row = group % tiles * UPLOAD_TILE + lane % (UPLOAD_TILE / 4) * 4;
        uint c = group / tiles * UPLOAD_TILE + lane / (UPLOAD_TILE / 4) * 4;
        if (row < rows && c < columns) transpose(row, c);
    }
}
